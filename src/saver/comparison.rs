//! Comparing what is here with what the backend has, where one of them may have lost something: both get what they lack.

use std::{mem, time::Duration};

use tokio::time::sleep;
use tracing::{debug, error, warn};

use super::{LoadError, Loaded, RETRY, Saver, load};
use crate::{
    backend::BackendError,
    document::{Document, UpdateError},
    record::Authored,
    webhooks::event::What,
};

impl Saver {
    /// Begins to load what the backend has, after a while, to be compared with the document.
    pub fn compare(&mut self, after: Duration) {
        // One that is under way may have seen what was there before, or wait for a while.
        if self.comparison.is_some() && !after.is_zero() {
            self.compare_again = true;
            return;
        }
        let (name, backend) = (self.name.clone(), self.backend.clone());
        self.comparison = Some(Box::pin(async move {
            sleep(after).await;
            loop {
                match load(&*backend, &name).await {
                    Ok(loaded) => return Ok(loaded),
                    Err(LoadError::Backend(error @ (BackendError::Deleted | BackendError::Recreated))) => {
                        return Err(error);
                    }
                    Err(LoadError::Backend(error)) => debug!(document = %name, %error, "not compared yet"),
                    Err(LoadError::Unreadable(reason)) => {
                        error!(document = %name, %reason, "what is stored cannot be read; nothing is saved meanwhile");
                    }
                }
                sleep(RETRY).await;
            }
        }));
    }

    /// Notes what the backend has, now that the document has all of that too; what only the document has is
    /// appended.
    pub fn compared(&mut self, theirs: &Loaded, document: &Document) -> Result<(), UpdateError> {
        // An empty document is one, too.
        let is_gone = self.exists() && theirs.log.is_empty();
        self.log = theirs.log;
        self.lost = false;
        // Whatever was under way or waited: it is in the store, or in what is appended now.
        if let Some(append) = self.append.take() {
            self.users.extend(append.users);
            self.traced.append(append.traced);
        }
        self.forget_waiting();
        if !is_gone && theirs.document.fingerprint()? == document.fingerprint()? {
            if self.saved < self.noted {
                self.webhooks.tell(&self.name, What::Changed { users: mem::take(&mut self.users) });
            }
            self.saved = self.noted;
            mem::take(&mut self.traced).saved();
        } else {
            let theirs = theirs.document.state_vector();
            let missing = document.diff(&theirs)?;
            let ours = document.state_vector();
            let from = ours.iter().map(|(client, clock)| (client, theirs.get(client), clock));
            self.waiting_from =
                from.filter(|(_, from, to)| from < to).map(|(client, from, _)| (client, from)).collect();
            warn!(document = %self.name, bytes = missing.len(), "the store lacks edits that are here; they are saved again");
            self.waiting_bytes = missing.len();
            self.waiting.push(Authored { update: missing, user: None });
        }
        if mem::take(&mut self.compare_again) {
            self.compare(RETRY);
        }
        Ok(())
    }
}
