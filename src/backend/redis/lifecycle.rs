//! How documents come and go on Redis, and the list of them. The list is one key for all, which a cluster has elsewhere
//! than the documents: it is written behind them, may name a few that are gone, and who reads it looks at each.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::debug;

use super::{
    super::{BackendError, Listed},
    Inner,
    envelope::{Envelope, Stamp, Words},
    following::said,
    store::{Keys, Size},
};
use crate::name::DocumentName;

/// Documents of a list that are looked at together.
const AT_ONCE: usize = 64;

impl Inner {
    pub(super) async fn delete(&self, name: &DocumentName, keep_for: Duration) -> Result<bool, BackendError> {
        let keys = Keys::new(name);
        let stamp = Stamp { run: self.run, number: 0 };
        let message = said(&Envelope { stamp, words: Words::Deleted });
        let deleted = self.store.delete(&keys, keep_for, message).await?;
        if let Some(follower) = self.following.get(&keys) {
            // Not only by the channel, which may not be heard at the moment.
            self.following.compare_at_once(&follower);
        }
        // An error: the list goes on naming it, and who reads it sees that it is deleted.
        let _ = self.store.enlist(name, false).await;
        Ok(deleted)
    }

    pub(super) async fn undelete(&self, name: &DocumentName) -> Result<bool, BackendError> {
        let undeleted = self.store.undelete(&Keys::new(name)).await?;
        if undeleted {
            self.enlist(name).await;
        }
        Ok(undeleted)
    }

    pub(super) async fn create(
        &self,
        name: &DocumentName,
        first: Option<Bytes>,
    ) -> Result<bool, BackendError> {
        let envelope =
            first.map(|record| Envelope { stamp: self.stamp(), words: Words::Record(record) }.write());
        let created = self.store.create(&Keys::new(name), envelope).await?;
        if created {
            self.enlist(name).await;
        }
        Ok(created)
    }

    /// Adds a document to the list.
    async fn enlist(&self, name: &DocumentName) {
        if let Err(error) = self.store.enlist(name, true).await {
            debug!(document = %name, %error, "not in the list before it is opened again");
        }
    }

    /// The same, without making anybody wait for it.
    pub(super) fn enlist_some_time(self: &Arc<Self>, name: &DocumentName) {
        let (inner, name) = (self.clone(), name.clone());
        let enlisting = async move { inner.enlist(&name).await };
        self.runtime.spawn(self.ongoing.track_future(enlisting));
    }

    pub(super) async fn list(
        &self,
        prefix: &str,
        mut after: String,
        limit: usize,
    ) -> Result<Vec<Listed>, BackendError> {
        let mut listed = Vec::new();
        while listed.len() < limit {
            let names = self.store.names(prefix, &after, limit - listed.len()).await?;
            let Some(last) = names.last() else { break };
            after.clone_from(last);
            let sizes = names.into_iter().filter_map(|name| DocumentName::new(&name).ok()).map(|name| {
                let size = self.store.size(&Keys::new(&name));
                async move { Ok::<_, BackendError>((name, size.await?)) }
            });
            let sizes: Vec<_> = stream::iter(sizes).buffered(AT_ONCE).try_collect().await?;
            // One that has nothing is deleted, or was only begun.
            let there = sizes.into_iter().filter_map(|(name, size)| Some((name, size?)));
            listed.extend(there.map(|(name, Size { bytes, changed })| Listed { name, bytes, changed }));
        }
        Ok(listed)
    }
}
