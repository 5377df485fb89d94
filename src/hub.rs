//! The documents that are open on this node: open, retire, shut down. A document is open at most once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

use crate::{
    actor::{Actor, DocumentHandle, Stopped},
    backend::Backend,
    name::DocumentName,
};

/// The open documents of one node.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    documents: Mutex<Documents>,
    backend: Arc<dyn Backend>,
    /// Where actors run: on threads with stacks that are large enough for yrs.
    runtime: Handle,
    actors: TaskTracker,
    idle: Duration,
}

#[derive(Default)]
struct Documents {
    open: HashMap<DocumentName, DocumentHandle>,
    stopping: bool,
}

/// No document is opened any more, because the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping; try again in a moment")]
pub struct Stopping;

impl Hub {
    /// A hub without documents.
    pub fn new(backend: Arc<dyn Backend>, runtime: Handle, idle: Duration) -> Self {
        let (documents, actors) = (Mutex::default(), TaskTracker::new());
        Self(Arc::new(Inner { documents, backend, runtime, actors, idle }))
    }

    /// The way to a document, which is opened where it is not open yet. Never waits: the document loads
    /// while messages wait in its mailbox, so that it cannot be loaded twice.
    pub fn open(&self, name: &DocumentName) -> Result<DocumentHandle, Stopping> {
        let mut documents = self.lock();
        if documents.stopping {
            return Err(Stopping);
        }
        if let Some(handle) = documents.open.get(name).filter(|handle| !handle.is_closed()) {
            return Ok(handle.clone());
        }
        let (handle, actor) = Actor::new(name.clone(), self.0.backend.clone(), self.0.idle);
        documents.open.insert(name.clone(), handle.clone());
        // A document outlives the connection that opened it.
        let span = info_span!(parent: None, "document", name = %name);
        let life = live(Registered { hub: self.clone(), name: name.clone() }, actor);
        self.0.actors.spawn_on(life.instrument(span), &self.0.runtime);
        Ok(handle)
    }

    /// How many documents are open.
    pub fn open_documents(&self) -> usize {
        self.lock().open.len()
    }

    /// Ends all sessions, saves everything, and waits until that is done.
    pub async fn shutdown(&self) {
        let handles: Vec<_> = {
            let mut documents = self.lock();
            documents.stopping = true;
            documents.open.values().cloned().collect()
        };
        self.0.actors.close();
        for handle in handles {
            handle.stop().await;
        }
        self.0.actors.wait().await;
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

/// A document's place among the open ones; it is given up however its actor ends.
struct Registered {
    hub: Hub,
    name: DocumentName,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // The actor, and with it the mailbox, is gone by now; a handle that is not closed is a successor's.
        let mut documents = self.hub.lock();
        if documents.open.get(&self.name).is_some_and(DocumentHandle::is_closed) {
            documents.open.remove(&self.name);
        }
    }
}

async fn live(registered: Registered, mut actor: Actor) {
    let retired = || registered.hub.retire(&registered.name);
    if let Err(reason) = actor.load().await {
        error!(%reason, "the document cannot be opened; its stored bytes stay as they are");
        while actor.refuse(&reason).await == Stopped::Idle && !retired() {}
        return;
    }
    while actor.run().await == Stopped::Idle && !retired() {
        actor.stay();
    }
}
