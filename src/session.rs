//! One client's stay in one document, whatever the client speaks: it joins, receives, and leaves when it is
//! dropped.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    actor::{DocumentHandle, Gone, Terms},
    end::End,
    outbox::{Outbox, Taken},
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
    /// Joins a document, until a token ends where there is one. Whatever comes for the session, `news` is told.
    pub async fn join(
        document: DocumentHandle,
        terms: Terms,
        until: Option<Instant>,
        news: Arc<Notify>,
    ) -> Result<Self, Gone> {
        // Ids are unique in the process, so also on the node.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(news));
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

    /// Waits for what the client must hear.
    pub async fn next(&self, news: &mut News) -> Result<(), End> {
        while !self.look(news).await? {
            match self.until() {
                None => self.outbox.news().await,
                // A time-out: then its token has ended.
                Some(until) => drop(timeout_at(until, self.outbox.news()).await),
            }
        }
        Ok(())
    }

    /// Whether there is something that the client must hear; then it is in `news`.
    pub async fn look(&self, news: &mut News) -> Result<bool, End> {
        if self.has_expired() {
            return Err(expired());
        }
        match self.outbox.take(news) {
            Taken::Nothing => Ok(false),
            Taken::News => Ok(true),
            Taken::Behind => {
                let asking = Asking::new(&self.outbox);
                // On the heap, as it is rare: whoever looks is as large as the largest thing that is waited for.
                Box::pin(self.document.catch_up(self.id)).await.map_err(|Gone| self.end())?;
                asking.done();
                Ok(false)
            }
            Taken::End(end) => Err(end),
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
