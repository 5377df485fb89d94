//! The documents that are open, and the generation in which each was loaded: what was loaded before a deletion
//! must add nothing to what was begun anew under its name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use tokio::sync::Notify;

use super::super::Feed;
use crate::name::DocumentName;

/// All that are followed.
#[derive(Default)]
pub(super) struct Followers(Mutex<HashMap<DocumentName, Arc<Follower>>>);

/// One that is followed.
#[derive(Default)]
pub(super) struct Follower {
    generation: OnceLock<u64>,
    compare: Arc<Notify>,
}

/// Ends the following of a document when its feed is dropped.
struct Guard {
    followers: Arc<Followers>,
    name: DocumentName,
    follower: Arc<Follower>,
}

impl Followers {
    pub(super) fn follow(self: &Arc<Self>, name: &DocumentName) -> Feed {
        let follower = Arc::<Follower>::default();
        self.lock().insert(name.clone(), follower.clone());
        let compare = follower.compare.clone();
        Feed::alone(compare, Guard { followers: self.clone(), name: name.clone(), follower })
    }

    pub(super) fn get(&self, name: &DocumentName) -> Option<Arc<Follower>> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentName, Arc<Follower>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Follower {
    /// The generation in which the document was loaded first, which is this one if it was not loaded yet.
    pub(super) fn loaded(&self, generation: u64) -> u64 {
        *self.generation.get_or_init(|| generation)
    }

    /// The generation in which the document was loaded, if it was.
    pub(super) fn generation(&self) -> Option<u64> {
        self.generation.get().copied()
    }

    /// What is stored may be another document by now.
    pub(super) fn compare(&self) {
        self.compare.notify_one();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut followers = self.followers.lock();
        // A successor may follow the document by now.
        if followers.get(&self.name).is_some_and(|known| Arc::ptr_eq(known, &self.follower)) {
            followers.remove(&self.name);
        }
    }
}
