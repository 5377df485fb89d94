//! One client's stay in one document, whatever the client speaks: it joins, receives, and leaves when it is
//! dropped.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::{Instant, sleep_until};

use crate::{
    actor::{DocumentHandle, Gone, Terms},
    end::End,
    outbox::{Carrier, Outbox, Taken},
    presence::SessionId,
    protocol::{Message, dialect::News},
    trace::Edit,
};

/// A stay in a document.
pub struct Session {
    id: SessionId,
    document: DocumentHandle,
    outbox: Arc<Outbox>,
    /// When its token ends.
    until: Mutex<Option<Instant>>,
}

impl Session {
    /// Joins a document, until a token ends where there is one. What comes for the session is brought by the carrier, which
    /// looks for it.
    pub async fn join(
        document: DocumentHandle,
        terms: Terms,
        until: Option<Instant>,
        carrier: Arc<dyn Carrier>,
    ) -> Result<Self, Gone> {
        // Ids are unique in the process, so also on the node.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(carrier));
        document.join(id, outbox.clone(), terms).await?;
        Ok(Self { id, document, outbox, until: Mutex::new(until) })
    }

    /// Its number, for the log.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// When its token ends.
    pub fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with another token, which allows this.
    pub async fn renew(&self, terms: Terms, until: Option<Instant>) -> Result<(), End> {
        self.document.change_terms(self.id, terms).await.map_err(|Gone| self.end())?;
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        Ok(())
    }

    /// Gives what the client says to the document; waits where the session has used more than its share.
    pub async fn receive(&self, message: Message, edit: Edit) -> Result<(), End> {
        if let Some(until) = self.outbox.take_rest() {
            sleep_until(until).await;
        }
        if self.has_expired() {
            return Err(expired());
        }
        self.document.receive(self.id, message, edit).await.map_err(|Gone| self.end())
    }

    fn has_expired(&self) -> bool {
        self.until().is_some_and(|until| until <= Instant::now())
    }

    /// Why the document is gone, as far as it has told this session.
    fn end(&self) -> End {
        self.outbox.ended().unwrap_or(End::Reopening)
    }

    /// Looks for what the client must hear; it is put into `news`.
    pub fn look(&self, news: &mut News) -> Taken {
        if self.has_expired() {
            return Taken::End(expired());
        }
        self.outbox.take(news)
    }

    /// Asks for what the session has missed.
    pub async fn catch_up(&self) -> Result<(), End> {
        let asking = Asking::new(&self.outbox);
        self.document.catch_up(self.id).await.map_err(|Gone| self.end())?;
        asking.done();
        Ok(())
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
