//! The connections of each user, counted over all nodes. While Redis is away, each node counts its own.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    super::{BackendError, Counted},
    Inner,
};

/// How long to wait before Redis is told again of a connection that has ended.
const RETRY: Duration = Duration::from_secs(1);

impl Inner {
    /// Counts one more connection of a user, unless there are `limit` on all nodes together.
    pub(super) async fn admit(self: Arc<Self>, user: &str, limit: usize) -> Option<Counted> {
        if limit == usize::MAX {
            return Some(Counted::default());
        }
        let here = self.users.admit(user, limit)?;
        let (node, alive) = self.following.this_and_alive();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let everywhere = match self.store.admit(user, node, &alive, limit).await {
            Ok(false) => return None,
            Ok(true) => true,
            Err(_) => false,
        };
        let user = user.to_owned();
        Some(Counted::new(move || {
            drop(here);
            let last = self.users.count(&user) == 0;
            // Also where it is not known whether Redis has counted it: the last one takes all away.
            if everywhere || last {
                self.runtime.clone().spawn(self.dismiss(user, node, last));
            }
        }))
    }

    async fn dismiss(self: Arc<Self>, user: String, node: u64, last: bool) {
        while let Err(BackendError::Away(_)) = self.store.dismiss(&user, node, last).await {
            // A node that ends takes its counts with it.
            if self.ongoing.is_closed() {
                return;
            }
            sleep(RETRY).await;
        }
    }
}
