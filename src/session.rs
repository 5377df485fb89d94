//! One client's stay in one document, whatever the client speaks: it joins, receives, and leaves when it is
//! dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::sleep_until;

use crate::{
    actor::{DocumentHandle, Gone},
    end::End,
    outbox::{Outbox, Outgoing, Taken},
    presence::SessionId,
    protocol::Message,
};

/// A stay in a document.
pub struct Session {
    id: SessionId,
    document: DocumentHandle,
    outbox: Arc<Outbox>,
}

impl Session {
    /// Joins a document. With `echo_saved` the session hears its own updates again when they are saved.
    pub async fn join(document: DocumentHandle, echo_saved: bool) -> Result<Self, Gone> {
        // Ids are unique in the process, so also on the node.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::default());
        document.join(id, outbox.clone(), echo_saved).await?;
        Ok(Self { id, document, outbox })
    }

    /// Its number, for the log.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Gives what the client says to the document; waits where the session has used more than its share.
    pub async fn receive(&self, message: Message) -> Result<(), End> {
        if let Some(until) = self.outbox.rests_until() {
            sleep_until(until).await;
        }
        self.document.receive(self.id, message).await.map_err(|Gone| End::Reopening)
    }

    /// Waits for what the client must hear; the frames are appended to `frames`.
    pub async fn next(&self, frames: &mut Vec<Arc<Outgoing>>) -> Result<(), End> {
        loop {
            match self.outbox.take(frames).await {
                Taken::Frames => return Ok(()),
                Taken::Behind => self.document.catch_up(self.id).await.map_err(|Gone| End::Reopening)?,
                Taken::End(end) => return Err(end),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.document.leave(self.id);
    }
}
