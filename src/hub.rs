//! The documents that are open on this node: open, retire, shut down. A document is open at most once. Where the
//! node is full, those leave that nobody is in; where there are none, no more are opened.

mod life;

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tracing::{Instrument, info, info_span, warn};

use self::life::{Registered, live};
use crate::{
    actor::{Actor, DocumentHandle, Figures, Surroundings},
    backend::Backend,
    capacity::{Bounds, Capacity, Full},
    end::End,
    name::DocumentName,
    troubles::Troubles,
};

/// How long nothing was refused until the log says that the node has space again: while it is full, space comes and
/// goes.
const CALM: Duration = Duration::from_secs(10);

/// How long who deletes a document waits until nobody reads it here any more.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);

/// The open documents of one node.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    documents: Mutex<Documents>,
    backend: Arc<dyn Backend>,
    /// Where actors run: on threads with stacks that are large enough for yrs.
    runtime: Handle,
    actors: TaskTracker,
    around: Surroundings,
    capacity: Capacity,
}

#[derive(Default)]
struct Documents {
    open: HashMap<DocumentName, DocumentHandle>,
    /// The hash of the last update during which the document engine failed.
    suspects: HashMap<DocumentName, u128>,
    /// While the node is full: how often it has refused to open a document, and when it did so last.
    refused: Option<(u64, Instant)>,
    /// What could not be saved when the node stopped.
    unsaved: Vec<DocumentName>,
    /// Documents that are put here as a whole at the moment, and not opened meanwhile.
    kept_closed: HashSet<DocumentName>,
    stopping: bool,
}

/// No document is opened any more, because the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping; try again in a moment")]
pub struct Stopping;

/// Why a document is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The node is stopping.
    #[error(transparent)]
    Stopping(#[from] Stopping),
    /// The node has no space, and nothing that could make some.
    #[error(transparent)]
    Full(#[from] Full),
    /// It is put here as a whole at the moment.
    #[error("the document is being restored; try again in a moment")]
    KeptClosed,
}

impl Unopened {
    /// How a session ends that wants to join the document.
    pub fn end(&self) -> End {
        match self {
            Self::Stopping(Stopping) => End::Stopping,
            Self::Full(full) => End::Full(full.to_string()),
            Self::KeptClosed => End::Reopening,
        }
    }
}

impl Hub {
    /// A hub without documents.
    pub fn new(backend: Arc<dyn Backend>, runtime: Handle, around: Surroundings) -> Self {
        let (documents, actors) = (Mutex::default(), TaskTracker::new());
        let limits = &around.limits;
        let bounds = Bounds { documents: limits.open_documents, memory_bytes: limits.memory_bytes };
        let capacity = Capacity::new(bounds);
        Self(Arc::new(Inner { documents, backend, runtime, actors, around, capacity }))
    }

    /// The way to a document, which is opened where it is not open yet. Never waits: the document loads
    /// while messages wait in its mailbox, so that it cannot be loaded twice.
    pub fn open(&self, name: &DocumentName) -> Result<DocumentHandle, Unopened> {
        let mut documents = self.lock();
        if documents.stopping {
            return Err(Stopping.into());
        }
        if documents.kept_closed.contains(name) {
            return Err(Unopened::KeptClosed);
        }
        if let Some(handle) = documents.open.get(name).filter(|handle| !handle.is_closed()) {
            return Ok(handle.clone());
        }
        self.make_space(&mut documents)?;
        let Inner { backend, around, capacity, .. } = &*self.0;
        let place = capacity.take_place(name.clone());
        let (handle, actor) = Actor::new(name.clone(), backend.clone(), around.clone(), place);
        documents.open.insert(name.clone(), handle.clone());
        // A document outlives the connection that opened it.
        let span = info_span!(parent: None, "document", name = %name);
        let life = live(Registered { hub: self.clone(), name: name.clone() }, Box::new(actor));
        self.0.actors.spawn_on(life.instrument(span), &self.0.runtime);
        Ok(handle)
    }

    /// Lets documents leave that nobody is in, until there is space for one more.
    fn make_space(&self, documents: &mut Documents) -> Result<(), Full> {
        let Inner { capacity, .. } = &*self.0;
        while let Some(full) = capacity.lacks() {
            let is_unused =
                |name: &DocumentName| documents.open.get(name).is_some_and(DocumentHandle::is_unused);
            let Some(longest_idle) = capacity.give_up_one(is_unused) else {
                documents.note_refusal(&full);
                return Err(full);
            };
            // It leaves in its own time. Who joins it before that keeps it here.
            documents.open.get(&longest_idle).inspect(|handle| handle.rest());
        }
        documents.note_space();
        Ok(())
    }

    /// Waits until a document that was deleted is no longer open here, for as long as that may take.
    pub async fn let_go(&self, name: &DocumentName) {
        let open = self.lock().open.get(name).cloned();
        if let Some(handle) = open {
            // An error: it may have come back meanwhile, and stays.
            let _ = timeout(LET_GO_WITHIN, handle.closed()).await;
        }
    }

    /// Keeps a document from being opened on this node until what is answered is dropped; the node does not stop before
    /// that. None, where it is kept closed already.
    pub fn keep_closed(&self, name: &DocumentName) -> Option<KeptClosed> {
        let is_first = self.lock().kept_closed.insert(name.clone());
        let (hub, name, _under_way) = (self.clone(), name.clone(), self.0.actors.token());
        is_first.then(|| KeptClosed { hub, name, _under_way })
    }

    /// How many documents are open.
    pub fn open_documents(&self) -> usize {
        self.lock().open.len()
    }

    /// The figures of all open documents.
    pub fn figures(&self) -> Vec<(DocumentName, Figures)> {
        self.lock().open.iter().map(|(name, handle)| (name.clone(), handle.figures())).collect()
    }

    /// What went wrong with documents here.
    pub fn troubles(&self) -> &Troubles {
        &self.0.around.troubles
    }

    /// Why no more documents are opened, if so: all that are open are in use.
    pub fn is_full(&self) -> Option<Full> {
        self.0.capacity.is_full()
    }

    /// How many bytes of memory the open documents take, as estimated.
    pub fn document_bytes(&self) -> usize {
        self.0.capacity.bytes()
    }

    /// Ends all sessions, saves everything, and waits until that is done. Answers of which documents something could
    /// not be saved.
    pub async fn shutdown(&self) -> Vec<DocumentName> {
        let handles: Vec<_> = {
            let mut documents = self.lock();
            documents.stopping = true;
            documents.open.values().cloned().collect()
        };
        self.0.actors.close();
        join_all(handles.iter().map(DocumentHandle::stop)).await;
        // Held handles keep documents open.
        drop(handles);
        self.0.actors.wait().await;
        mem::take(&mut self.lock().unsaved)
    }

    /// Lets a document leave memory, unless somebody has taken it up meanwhile.
    fn retire(&self, name: &DocumentName) -> bool {
        let mut documents = self.lock();
        let unused = documents.open.get(name).is_some_and(DocumentHandle::is_unused);
        if unused {
            documents.open.remove(name);
        }
        unused
    }

    fn lock(&self) -> MutexGuard<'_, Documents> {
        self.0.documents.lock().expect("nothing panics while it holds this lock")
    }
}

impl Documents {
    fn note_refusal(&mut self, full: &Full) {
        if self.refused.is_none() {
            warn!(reason = %full, "no more documents are opened until somebody leaves one");
        }
        let before = self.refused.map_or(0, |(refusals, _)| refusals);
        self.refused = Some((before + 1, Instant::now()));
    }

    fn note_space(&mut self) {
        if let Some((refusals, _)) = self.refused.take_if(|(_, last)| last.elapsed() >= CALM) {
            info!(refusals, "documents are opened again");
        }
    }
}

/// A document that is not opened here until this is dropped.
pub struct KeptClosed {
    hub: Hub,
    name: DocumentName,
    _under_way: TaskTrackerToken,
}

impl KeptClosed {
    /// Closes the document where it is open still; what is in it is saved first.
    pub async fn close(&self) {
        let open = self.hub.lock().open.get(&self.name).cloned();
        if let Some(handle) = open {
            handle.stop().await;
            handle.closed().await;
        }
    }
}

impl Drop for KeptClosed {
    fn drop(&mut self) {
        self.hub.lock().kept_closed.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actor::{TellSaved, Terms},
        backend::embedded::Embedded,
        document::tests::breaking_update,
        end::End,
        history,
        outbox::Taken,
        protocol::{self, Message, dialect::News},
        session::Session,
        trace::Edit,
    };
    use bytes::Bytes;

    /// The update with which `client` inserts "hello" into the text `t`.
    fn hello(client: u8) -> Bytes {
        Bytes::copy_from_slice(&[&[1, 1, client, 0, 4, 1, 1, b't', 5][..], b"hello", &[0]].concat())
    }

    /// Waits for what a session hears next.
    async fn hears(session: &Session) -> Result<(), End> {
        loop {
            match session.look(&mut News::default()) {
                Taken::News => return Ok(()),
                Taken::End(end) => return Err(end),
                Taken::Behind => session.catch_up().await?,
                Taken::Nothing => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn ends(session: &Session) -> End {
        loop {
            if let Err(end) = hears(session).await {
                return end;
            }
        }
    }

    async fn join(hub: &Hub) -> Session {
        let name = DocumentName::new("letter").unwrap();
        loop {
            if let Ok(session) =
                Session::join(hub.open(&name).unwrap(), Default::default(), None, Arc::new(())).await
            {
                return session;
            }
        }
    }

    async fn text(hub: &Hub) -> Bytes {
        let name = DocumentName::new("letter").unwrap();
        loop {
            let everything = |document: &crate::document::Document| document.diff(&Default::default());
            if let Ok(found) = hub.open(&name).unwrap().read(everything).await {
                return found.unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_update_that_breaks_the_engine_twice_is_set_aside() {
        let folder = tempfile::TempDir::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
        let hub = Hub::new(backend.clone(), Handle::current(), Surroundings::default());
        for _ in 0..2 {
            let (alice, bob) = (join(&hub).await, join(&hub).await);
            alice.receive(Message::Update(hello(1)), Edit::default()).await.unwrap();
            alice.receive(Message::Update(breaking_update()), Edit::default()).await.unwrap();
            assert_eq!(ends(&alice).await, End::Reopening);
            assert_eq!(ends(&bob).await, End::Reopening);
            // What was accepted before is there, and only that.
            assert_eq!(text(&hub).await, hello(1));
        }
        let letter = DocumentName::new("letter").unwrap();
        let told = hub.troubles().of(&letter).unwrap().reason;
        assert!(told.contains("was set aside"), "{told}");
        // From now on only who sends it is turned away, on this node and after a restart.
        let restarted = Hub::new(backend.clone(), Handle::current(), Surroundings::default());
        for hub in [hub, restarted] {
            let (alice, bob) = (join(&hub).await, join(&hub).await);
            alice.receive(Message::Update(breaking_update()), Edit::default()).await.unwrap();
            let End::Refused(reason) = ends(&alice).await else { panic!("it was let in") };
            assert!(reason.contains("set aside"), "{reason}");
            bob.receive(Message::Update(hello(2)), Edit::default()).await.unwrap();
            bob.receive(Message::QueryAwareness, Edit::default()).await.unwrap();
            hears(&bob).await.unwrap();
            assert!(text(&hub).await.len() > hello(1).len());
            drop(bob);
            hub.shutdown().await;
        }
    }

    #[tokio::test]
    async fn a_version_has_what_came_just_before_it_was_asked_for() {
        let folder = tempfile::TempDir::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
        let hub = Hub::new(backend.clone(), Handle::current(), Surroundings::default());
        let letter = DocumentName::new("letter").unwrap();
        let handle = hub.open(&letter).unwrap();
        for client in 1..=3 {
            // On one thread: both are in the mailbox before the document looks into it.
            let (written, kept) = tokio::join!(handle.write(hello(client), None), handle.keep_version());
            written.unwrap().unwrap();
            kept.unwrap();
            let newest = history::versions(&*backend, &letter).await.unwrap().pop().unwrap();
            let version = history::content(&*backend, &letter, newest.id).await.unwrap().unwrap();
            assert_eq!(version.diff(&Default::default()).unwrap(), text(&hub).await, "version {client}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_told_what_is_saved_is_told_soon() {
        let folder = tempfile::TempDir::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
        let hub = Hub::new(backend, Handle::current(), Surroundings::default());
        let handle = hub.open(&DocumentName::new("letter").unwrap()).unwrap();
        let terms = Terms { tell_saved: TellSaved::Count, ..Terms::default() };
        let alice = Session::join(handle.clone(), terms, None, Arc::new(())).await.unwrap();
        alice.receive(Message::SyncStep2(hello(1)), Edit::default()).await.unwrap();
        // One after the other: kept back, each kind would take eight seconds.
        let start = std::time::Instant::now();
        for clock in 5..85 {
            let letter = Bytes::copy_from_slice(&[1, 1, 1, clock, 0x84, 1, clock - 1, 1, b'!', 0]);
            alice.receive(Message::Update(letter), Edit::default()).await.unwrap();
            let mut news = News::default();
            while news.saved + 3 < u64::from(clock) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                alice.look(&mut news);
            }
            handle.write(hello(clock), None).await.unwrap().unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_second_to_join_gets_what_the_first_has_edited_since_it_was_opened() {
        let folder = tempfile::TempDir::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
        let hub = Hub::new(backend.clone(), Handle::current(), Surroundings::default());
        let handle = hub.open(&DocumentName::new("letter").unwrap()).unwrap();
        handle.write(hello(1), None).await.unwrap().unwrap();
        // A snapshot, and nothing behind it.
        handle.keep_version().await.unwrap();
        drop(handle);
        hub.shutdown().await;
        let hub = Hub::new(backend, Handle::current(), Surroundings::default());
        let mut sessions = Vec::new();
        for edited in [Some(hello(2)), None] {
            let session = join(&hub).await;
            hears(&session).await.unwrap();
            session.receive(Message::SyncStep1(Default::default()), Edit::default()).await.unwrap();
            let mut news = News::default();
            while !matches!(session.look(&mut news), Taken::News) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let answer = protocol::sync_step_2(&text(&hub).await);
            assert!(news.frames.iter().any(|outgoing| outgoing.frame == answer), "{:?}", news.frames);
            if let Some(edited) = edited {
                session.receive(Message::Update(edited), Edit::default()).await.unwrap();
            }
            sessions.push(session);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_while_somebody_looks_costs_one_reconnect() {
        let folder = tempfile::TempDir::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
        let hub = Hub::new(backend, Handle::current(), Surroundings::default());
        let alice = join(&hub).await;
        alice.receive(Message::Update(hello(1)), Edit::default()).await.unwrap();
        let name = DocumentName::new("letter").unwrap();
        let looked = hub.open(&name).unwrap().read(|_| panic!("an export that fails")).await;
        assert!(looked.is_err());
        assert_eq!(ends(&alice).await, End::Reopening);
        assert_eq!(text(&hub).await, hello(1));
    }
}
