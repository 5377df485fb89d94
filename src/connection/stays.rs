//! The sessions of one connection, and what waits to be written to its client. Reading and writing share them.

mod outside;

use std::{
    future::Future,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::Notify, time::Instant};
use tungstenite::protocol::frame::coding::Control;

use self::outside::Outside;
use crate::{
    actor::Terms,
    config::Limits,
    end::End,
    name::DocumentName,
    presence::SessionId,
    protocol::{
        Message,
        dialect::{Address, Dialect, News, Request},
    },
    session::Session,
    trace::Edit,
};

/// How long before its token ends a client is asked for a new one; half its time where it is shorter.
const ASK_BEFORE: Duration = Duration::from_secs(30);

/// Somebody who may come into a document.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Which document.
    pub document: DocumentName,
    /// What the session may do.
    pub terms: Terms,
    /// When the token ends.
    pub until: Option<Instant>,
}

/// The way into documents, as a connection sees it.
pub trait Entrance: Send + Sync {
    /// Whether nobody comes in without a token.
    fn needs_token(&self) -> bool;

    /// The client family, as metrics name it.
    fn dialect(&self) -> &'static str;

    /// Looks at a token: whether its bearer may come into the document of this name.
    fn admit<'a>(&'a self, document: &'a str, token: &'a str) -> BoxFuture<'a, Result<Admitted, End>>;

    /// Joins the document. Whatever comes for the session, `news` is told.
    fn join<'a>(&'a self, admitted: &'a Admitted, news: Arc<Notify>) -> BoxFuture<'a, Result<Session, End>>;

    /// A session of this user has ended.
    fn left(&self, document: &DocumentName, session: SessionId, user: Option<&str>, end: &End);

    /// Nothing came of a session.
    fn refused(&self, document: &str, end: &End);
}

/// The sessions of a connection.
pub(super) struct Stays<'a> {
    entrance: &'a dyn Entrance,
    limits: &'a Limits,
    /// Told of everything that is to be written.
    news: Arc<Notify>,
    /// Whether something is on its way that the client has not taken yet.
    writing: AtomicBool,
    state: Mutex<State>,
}

struct State {
    dialect: Box<dyn Dialect>,
    stays: Vec<Arc<Stay>>,
    /// How often `stays` has changed.
    changes: u64,
    /// Under which addresses there is no session.
    outside: Outside,
    /// What the client is told beside what its sessions have.
    frames: Vec<Bytes>,
    /// Pings and pongs for the client.
    controls: Vec<(Control, Bytes)>,
}

struct Stay {
    address: Address,
    document: DocumentName,
    user: Option<Arc<str>>,
    session: Session,
    /// When the client is asked for a new token.
    ask_at: Mutex<Option<Instant>>,
}

/// The sessions as the writer knows them.
#[derive(Default)]
pub(super) struct Known {
    stays: Vec<Arc<Stay>>,
    changes: u64,
    news: News,
}

impl<'a> Stays<'a> {
    pub(super) fn new(dialect: Box<dyn Dialect>, entrance: &'a dyn Entrance, limits: &'a Limits) -> Self {
        let state = State {
            dialect,
            stays: Vec::new(),
            changes: 0,
            outside: Outside::default(),
            frames: Vec::new(),
            controls: Vec::new(),
        };
        Self {
            entrance,
            limits,
            news: Arc::default(),
            writing: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// Joins the only document of a connection.
    pub(super) async fn begin(&self, admitted: Admitted) -> Result<(), End> {
        self.enter(admitted.document.as_str().into(), admitted).await
    }

    /// Whether there is a session.
    pub(super) fn has_any(&self) -> bool {
        !self.lock().stays.is_empty()
    }

    /// What a frame of the client asks for.
    pub(super) fn read(&self, frame: &[u8]) -> Result<Vec<Request>, End> {
        self.lock().dialect.read(frame).map_err(|error| End::Refused(error.to_string()))
    }

    /// Does what the client asks for. An error ends the connection.
    pub(super) async fn serve(&self, request: Request) -> Result<(), End> {
        match request {
            Request::Receive { address, message } => self.receive(address, message).await,
            Request::Join { address, token } => match self.find(&address) {
                Some(stay) => Box::pin(self.renew(&stay, &token)).await,
                None => Box::pin(self.join(address, &token)).await,
            },
            Request::Leave { address } => {
                self.leave(&address, &End::Left);
                let mut state = self.lock();
                // It has said so itself.
                let _ = state.dialect.ended(&address, &End::Left);
                state.outside.take(&address);
                Ok(())
            }
            Request::Refuse { address, error } => self.over(&address, End::Refused(error.to_string())),
            Request::Answer(frame) => {
                self.say(frame);
                Ok(())
            }
        }
    }

    async fn receive(&self, address: Address, message: Message) -> Result<(), End> {
        let Some(stay) = self.find(&address) else {
            return Box::pin(self.receive_early(address, message)).await;
        };
        self.lock().dialect.receives(&address, &message);
        match stay.receive(self.entrance, message).await {
            Ok(()) => Ok(()),
            Err(end) => self.over(&address, end),
        }
    }

    /// A message for a document in which the client is not.
    async fn receive_early(&self, address: Address, message: Message) -> Result<(), End> {
        if !self.entrance.needs_token() {
            // Old clients without a token do not say that they come. Who has just left may still say so to the others.
            let is_coming = matches!(
                message,
                Message::SyncStep1(_) | Message::SyncStep2(_) | Message::Update(_) | Message::Stateless(_)
            );
            if !is_coming || self.lock().outside.is_refused(&address) {
                return Ok(());
            }
            self.join(address.clone(), "").await?;
            let Some(stay) = self.find(&address) else { return Ok(()) };
            self.lock().dialect.receives(&address, &message);
            return stay.receive(self.entrance, message).await.or_else(|end| self.over(&address, end));
        }
        let mut state = self.lock();
        self.check_outside(&state, &address)?;
        state.outside.keep(address, message);
        Ok(())
    }

    async fn join(&self, address: Address, token: &str) -> Result<(), End> {
        let (document, documents) = {
            let state = self.lock();
            (state.dialect.document(&address).to_owned(), state.stays.len())
        };
        if documents >= self.limits.documents_per_connection {
            return self.over(&address, self.too_many());
        }
        match self.entrance.admit(&document, token).await {
            Ok(admitted) => self.enter(address, admitted).await,
            Err(end) => self.over(&address, end),
        }
    }

    async fn enter(&self, address: Address, admitted: Admitted) -> Result<(), End> {
        let session = match self.entrance.join(&admitted, self.news.clone()).await {
            Ok(session) => session,
            Err(end) => return self.over(&address, end),
        };
        let Admitted { document, terms, until } = admitted;
        let early = {
            let mut state = self.lock();
            let ask_at = Mutex::new(state.ask_at(&address, until));
            let user = terms.user;
            state.stays.push(Arc::new(Stay { address: address.clone(), document, user, session, ask_at }));
            state.changes += 1;
            let first = state.dialect.joined(&address, terms.read_only);
            state.frames.extend(first);
            state.outside.take(&address)
        };
        self.news.notify_one();
        for message in early {
            let Some(stay) = self.find(&address) else { break };
            self.lock().dialect.receives(&address, &message);
            if let Err(end) = stay.receive(self.entrance, message).await {
                return self.over(&address, end);
            }
        }
        Ok(())
    }

    /// The client has brought a new token.
    async fn renew(&self, stay: &Stay, token: &str) -> Result<(), End> {
        let Stay { address, document, .. } = stay;
        let before = stay.session.until();
        let renewed = async {
            let Admitted { terms, until, .. } = self.entrance.admit(document.as_str(), token).await?;
            if terms.user != stay.user {
                return Err(End::Forbidden("the token is another user's than before".to_owned()));
            }
            let read_only = terms.read_only;
            stay.session.renew(terms, until).await?;
            Ok((read_only, until))
        };
        let (read_only, until) = match renewed.await {
            Ok(renewed) => renewed,
            Err(end) => return self.over(address, end),
        };
        let mut state = self.lock();
        // Who has no newer one is not asked again.
        let ask_at = state.ask_at(address, until.filter(|_| until > before));
        *stay.ask_at.lock().unwrap_or_else(PoisonError::into_inner) = ask_at;
        let told = state.dialect.joined(address, read_only);
        state.frames.extend(told);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// A stay is over: the client is told, or the whole connection ends.
    fn over(&self, address: &Address, end: End) -> Result<(), End> {
        let mut state = self.lock();
        self.check_outside(&state, address)?;
        let told = state.dialect.ended(address, &end);
        let goes_on = told.is_some();
        if let Some(frame) = told {
            state.frames.push(frame);
            state.outside.refuse(address.clone());
        }
        let document = state.dialect.document(address).to_owned();
        drop(state);
        if !self.leave(address, &end) {
            self.entrance.refused(&document, &end);
        }
        self.news.notify_one();
        if goes_on { Ok(()) } else { Err(end) }
    }

    /// Ends a session, if there is one.
    fn leave(&self, address: &Address, end: &End) -> bool {
        let mut state = self.lock();
        let Some(at) = state.stays.iter().position(|stay| stay.address == *address) else { return false };
        let stay = state.stays.swap_remove(at);
        state.changes += 1;
        drop(state);
        // The writer lets go of it when it looks again.
        self.news.notify_one();
        stay.end(self.entrance, end);
        true
    }

    /// Ends all sessions with the connection.
    pub(super) fn end_all(&self, end: &End) {
        let stays = mem::take(&mut self.lock().stays);
        for stay in &stays {
            stay.end(self.entrance, end);
        }
    }

    /// Says nothing, so that the client sees some data.
    pub(super) fn say_nothing(&self) {
        let nothing = self.lock().dialect.keep_alive();
        self.say(nothing);
    }

    /// Asks the client whether it is still there.
    pub(super) fn ping(&self) {
        self.control(Control::Ping, Bytes::new());
    }

    /// Answers a ping.
    pub(super) fn pong(&self, payload: &[u8]) {
        self.control(Control::Pong, Bytes::copy_from_slice(payload));
    }

    fn control(&self, kind: Control, payload: Bytes) {
        let mut state = self.lock();
        // Only the last ping needs an answer.
        state.controls.retain(|(waiting, _)| *waiting != kind);
        state.controls.push((kind, payload));
        drop(state);
        self.news.notify_one();
    }

    /// Tells the client this frame.
    pub(super) fn say(&self, frame: Bytes) {
        self.lock().frames.push(frame);
        self.news.notify_one();
    }

    /// Puts everything that the client must hear into `frames`. Answers with its pings and pongs.
    pub(super) async fn gather(
        &self,
        known: &mut Known,
        frames: &mut Vec<Bytes>,
    ) -> Result<Vec<(Control, Bytes)>, End> {
        let controls = {
            let mut state = self.lock();
            if state.changes != known.changes {
                known.stays.clone_from(&state.stays);
                known.changes = state.changes;
            }
            // With the sessions: what is said of a session comes before what it has.
            frames.append(&mut state.frames);
            mem::take(&mut state.controls)
        };
        let Known { stays, news, .. } = known;
        for stay in stays {
            match stay.session.look(news).await {
                Ok(true) => self.lock().dialect.write(&stay.address, news, frames),
                Ok(false) => {}
                // Unless the reader has let go of it meanwhile.
                Err(end) if self.lock().stays.iter().any(|held| Arc::ptr_eq(held, stay)) => {
                    self.over(&stay.address, end)?;
                }
                Err(_) => {}
            }
            if stay.ask_now() {
                frames.extend(self.lock().dialect.ask_for_token(&stay.address));
            }
        }
        Ok(controls)
    }

    /// Whether something is on its way that the client has not taken yet.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    /// Notes whether it is.
    pub(super) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Relaxed);
    }

    /// Waits until there may be something to be written.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Nobody is remembered without end who is not in.
    fn check_outside(&self, state: &State, address: &Address) -> Result<(), End> {
        let limit = self.limits.documents_per_connection;
        match state.outside.has_room(address, limit) {
            true => Ok(()),
            false => Err(self.too_many()),
        }
    }

    fn too_many(&self) -> End {
        let limit = self.limits.documents_per_connection;
        End::Refused(format!(
            "the connection has {limit} documents, the most that one may have (--max-documents-per-connection)"
        ))
    }

    fn find(&self, address: &Address) -> Option<Arc<Stay>> {
        self.lock().stays.iter().find(|stay| stay.address == *address).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ask_at(&self, address: &Address, until: Option<Instant>) -> Option<Instant> {
        let until = until.filter(|_| self.dialect.ask_for_token(address).is_some())?;
        let left = until.saturating_duration_since(Instant::now());
        Some(until - ASK_BEFORE.min(left / 2))
    }
}

impl Stay {
    fn receive(&self, entrance: &dyn Entrance, message: Message) -> impl Future<Output = Result<(), End>> {
        let edit = Edit::begin(&self.document, entrance.dialect(), &message);
        self.session.receive(message, edit)
    }

    fn end(&self, entrance: &dyn Entrance, end: &End) {
        entrance.left(&self.document, self.session.id(), self.user.as_deref(), end);
    }

    /// Whether it is time to ask for a new token; then it is asked for once.
    fn ask_now(&self) -> bool {
        let mut ask_at = self.ask_at.lock().unwrap_or_else(PoisonError::into_inner);
        ask_at.take_if(|at| *at <= Instant::now()).is_some()
    }

    fn timer(&self) -> Option<Instant> {
        let ask_at = *self.ask_at.lock().unwrap_or_else(PoisonError::into_inner);
        [ask_at, self.session.until()].into_iter().flatten().min()
    }
}

impl Known {
    /// When something is to be done without news.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.stays.iter().filter_map(|stay| stay.timer()).min()
    }
}
