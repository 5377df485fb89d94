//! One session of a connection, under the address by which its client speaks of it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Entrance;
use crate::{
    end::End,
    name::DocumentName,
    protocol::{Message, dialect::Address},
    session::Session,
    trace::Edit,
};

/// How long before its token ends a client is asked for a new one; half its time where it is shorter.
const ASK_BEFORE: Duration = Duration::from_secs(30);

/// A session, and what the connection knows of it.
pub(super) struct Stay {
    pub(super) address: Address,
    pub(super) document: DocumentName,
    pub(super) user: Option<Arc<str>>,
    pub(super) session: Session,
    /// When the client is asked for a new token.
    ask_at: Mutex<Option<Instant>>,
}

impl Stay {
    pub(super) fn new(
        address: Address,
        document: DocumentName,
        user: Option<Arc<str>>,
        session: Session,
    ) -> Self {
        Self { address, document, user, session, ask_at: Mutex::default() }
    }

    /// Gives what the client says to its document.
    pub(super) fn receive(
        &self,
        entrance: &dyn Entrance,
        message: Message,
    ) -> impl Future<Output = Result<(), End>> {
        let edit = Edit::begin(&self.document, entrance.dialect(), &message);
        self.session.receive(message, edit)
    }

    /// Says that the session is over.
    pub(super) fn end(&self, entrance: &dyn Entrance, end: &End) {
        entrance.left(&self.document, self.session.id(), self.user.as_deref(), end);
    }

    /// Has the client asked for a new token before this one ends, if it ends.
    pub(super) fn ask_before(&self, until: Option<Instant>) {
        let ask_at = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            until - ASK_BEFORE.min(left / 2)
        });
        *self.ask_at.lock().unwrap_or_else(PoisonError::into_inner) = ask_at;
    }

    /// Whether it is time to ask for a new token; then it is asked for once.
    pub(super) fn ask_now(&self) -> bool {
        let mut ask_at = self.ask_at.lock().unwrap_or_else(PoisonError::into_inner);
        ask_at.take_if(|at| *at <= Instant::now()).is_some()
    }

    /// When something is to be done without news.
    pub(super) fn timer(&self) -> Option<Instant> {
        let ask_at = *self.ask_at.lock().unwrap_or_else(PoisonError::into_inner);
        [ask_at, self.session.until()].into_iter().flatten().min()
    }
}
