//! One client's stay in one document, whatever the client speaks: it joins, receives, and leaves when it is
//! dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    actor::{DocumentHandle, Gone, Terms},
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
    /// When its token ends.
    until: Option<Instant>,
}

impl Session {
    /// Joins a document, until a token ends where there is one.
    pub async fn join(document: DocumentHandle, terms: Terms, until: Option<Instant>) -> Result<Self, Gone> {
        // Ids are unique in the process, so also on the node.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::default());
        document.join(id, outbox.clone(), terms).await?;
        Ok(Self { id, document, outbox, until })
    }

    /// Its number, for the log.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Gives what the client says to the document; waits where the session has used more than its share.
    pub async fn receive(&self, message: Message) -> Result<(), End> {
        if let Some(until) = self.outbox.take_rest() {
            sleep_until(until).await;
        }
        if self.until.is_some_and(|until| until <= Instant::now()) {
            return Err(expired());
        }
        self.document.receive(self.id, message).await.map_err(|Gone| self.end())
    }

    /// Why the document is gone, as far as it has told this session.
    fn end(&self) -> End {
        self.outbox.ended().unwrap_or(End::Reopening)
    }

    /// Waits for what the client must hear; the frames are appended to `frames`.
    pub async fn next(&self, frames: &mut Vec<Arc<Outgoing>>) -> Result<(), End> {
        match self.until {
            None => self.take(frames).await,
            Some(until) => timeout_at(until, self.take(frames)).await.unwrap_or_else(|_| Err(expired())),
        }
    }

    async fn take(&self, frames: &mut Vec<Arc<Outgoing>>) -> Result<(), End> {
        loop {
            match self.outbox.take(frames).await {
                Taken::Frames => return Ok(()),
                Taken::Behind => {
                    let asking = Asking::new(&self.outbox);
                    self.document.catch_up(self.id).await.map_err(|Gone| self.end())?;
                    asking.done();
                }
                Taken::End(end) => return Err(end),
            }
        }
    }
}

fn expired() -> End {
    End::Unauthorized("the token has expired: come back with a new one".to_owned())
}

impl Drop for Session {
    fn drop(&mut self) {
        self.document.leave(self.id);
    }
}

/// A question that waits for a full mailbox. Who stops waiting has not asked.
struct Asking<'a> {
    outbox: &'a Outbox,
    asked: bool,
}

impl<'a> Asking<'a> {
    fn new(outbox: &'a Outbox) -> Self {
        // Before it is sent, since the answer may come at once.
        outbox.set_asked(true);
        Self { outbox, asked: false }
    }

    fn done(mut self) {
        self.asked = true;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.asked {
            self.outbox.set_asked(false);
        }
    }
}
