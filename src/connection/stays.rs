//! The sessions of one connection: how they begin, what they are asked for, and how they end. They are on its line.

use std::{
    mem,
    sync::{Arc, MutexGuard},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tungstenite::protocol::frame::coding::Control;

use super::{
    line::{Line, State},
    stay::Stay,
};
use crate::{
    actor::Terms,
    config::Limits,
    end::End,
    name::DocumentName,
    outbox::Carrier,
    presence::SessionId,
    protocol::{
        Message,
        dialect::{Address, Request},
    },
    session::Session,
};

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

    /// Joins the document. What comes for the session is brought by the carrier.
    fn join<'a>(
        &'a self,
        admitted: &'a Admitted,
        carrier: Arc<dyn Carrier>,
    ) -> BoxFuture<'a, Result<Session, End>>;

    /// A session of this user has ended.
    fn left(&self, document: &DocumentName, session: SessionId, user: Option<&str>, end: &End);

    /// Nothing came of a session.
    fn refused(&self, document: &str, end: &End);
}

/// The sessions of a connection.
pub(super) struct Stays<'a> {
    entrance: &'a dyn Entrance,
    limits: &'a Limits,
    /// They are on the line, where what they have for the client is looked for.
    line: Arc<Line>,
}

impl Drop for Stays<'_> {
    fn drop(&mut self) {
        // Documents know the line. Without this, who has left without an end would stay for ever.
        self.lock().stays.clear();
    }
}

impl<'a> Stays<'a> {
    pub(super) fn new(line: Arc<Line>, entrance: &'a dyn Entrance, limits: &'a Limits) -> Self {
        Self { entrance, limits, line }
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
                let mut state = self.lock();
                // It has said so itself.
                let _ = state.dialect.ended(&address, &End::Left);
                state.outside.take(&address);
                let stay = state.take(&address);
                drop(state);
                if let Some(stay) = stay {
                    stay.end(self.entrance, &End::Left);
                }
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
        let session = match self.entrance.join(&admitted, self.line.clone()).await {
            Ok(session) => session,
            Err(end) => return self.over(&address, end),
        };
        let Admitted { document, terms, until } = admitted;
        let early = {
            let mut state = self.lock();
            let stay = Stay::new(address.clone(), document, terms.user, session);
            stay.ask_before(state.dialect.ask_for_token(&address).and(until));
            state.stays.push(Arc::new(stay));
            let first = state.dialect.joined(&address, terms.read_only);
            state.frames.extend(first);
            state.outside.take(&address)
        };
        self.line.call();
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
        stay.ask_before(state.dialect.ask_for_token(address).and(until).filter(|_| until > before));
        let told = state.dialect.joined(address, read_only);
        state.frames.extend(told);
        drop(state);
        self.line.call();
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
        // In one go with that: what the session has must not come behind it.
        let stay = state.take(address);
        let document = state.dialect.document(address).to_owned();
        drop(state);
        match stay {
            Some(stay) => stay.end(self.entrance, &end),
            None => self.entrance.refused(&document, &end),
        }
        self.line.call();
        if goes_on { Ok(()) } else { Err(end) }
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
        self.line.call();
    }

    /// Tells the client this frame.
    pub(super) fn say(&self, frame: Bytes) {
        self.lock().frames.push(frame);
        self.line.call();
    }

    /// A session has missed something.
    pub(super) async fn catch_up(&self, stay: &Arc<Stay>) -> Result<(), End> {
        match stay.session.catch_up().await {
            Ok(()) => Ok(()),
            Err(end) => self.ended(stay, end),
        }
    }

    /// A session is over, by its document or with its token.
    pub(super) fn ended(&self, stay: &Arc<Stay>, end: End) -> Result<(), End> {
        // Unless the reader has let go of it meanwhile.
        let is_here = self.lock().stays.iter().any(|held| Arc::ptr_eq(held, stay));
        if is_here { self.over(&stay.address, end) } else { Ok(()) }
    }

    /// When something is to be done without news.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.lock().stays.iter().filter_map(|stay| stay.timer()).min()
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
        self.line.lock()
    }
}
