//! The life of one open document: it is loaded, and runs until it may leave memory; an update at which the document engine
//! fails twice is set aside.

use tracing::{error, warn};
use xxhash_rust::xxh3::xxh3_128;

use super::Hub;
use crate::{
    actor::{Actor, DocumentHandle, Stopped, Suspect},
    end::End,
    name::DocumentName,
};

/// Documents of which the last suspect is remembered; engines fail hardly ever.
const MAX_SUSPECTS: usize = 64;

/// A document's place among the open ones; it is given up however its actor ends.
pub(super) struct Registered {
    pub(super) hub: Hub,
    pub(super) name: DocumentName,
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

// The actor on the heap: an `async fn` holds its arguments twice.
pub(super) async fn live(registered: Registered, mut actor: Box<Actor>) {
    if let Err(end) = actor.load().await {
        if end != End::Deleted {
            error!(reason = end.reason(), "the document cannot be opened; its stored bytes stay as they are");
            registered
                .hub
                .troubles()
                .note(&registered.name, format!("it cannot be opened: {}", end.reason()));
        }
        return actor.refuse(&end).await;
    }
    loop {
        match actor.run().await {
            Stopped::Idle if !registered.hub.retire(&registered.name) => actor.stay(),
            Stopped::Idle | Stopped::Told | Stopped::Failed(None) => return,
            Stopped::Unsaved => return registered.hub.lock().unsaved.push(registered.name.clone()),
            Stopped::Failed(Some(suspect)) => return registered.set_aside(suspect).await,
        }
    }
}

impl Registered {
    /// Keeps an update out of the document from now on, if it is the second time that the engine failed at it.
    /// Once may be the consequence of something before.
    async fn set_aside(&self, Suspect { update, reason }: Suspect) {
        let bytes = update.len();
        if !self.hub.suspect_again(&self.name, &update) {
            warn!(bytes, %reason, "if it happens again, the update will be set aside");
            return;
        }
        match self.hub.0.backend.set_aside(&self.name, update, reason.clone()).await {
            Ok(()) => {
                error!(bytes, %reason, "an update broke the document engine twice, and was set aside");
                let told = format!(
                    "an update of {bytes} bytes broke the document engine twice, and was set aside: {reason}"
                );
                self.hub.troubles().note(&self.name, told);
            }
            Err(error) => {
                error!(bytes, %reason, %error, "an update that broke the engine cannot be set aside")
            }
        }
    }
}

impl Hub {
    /// Notes an update during which the document engine failed, and tells whether it was the same one before.
    fn suspect_again(&self, name: &DocumentName, update: &[u8]) -> bool {
        let hash = xxh3_128(update);
        let suspects = &mut self.lock().suspects;
        if suspects.len() >= MAX_SUSPECTS {
            suspects.clear();
        }
        suspects.insert(name.clone(), hash) == Some(hash)
    }
}
