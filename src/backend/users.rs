//! How many connections each user has on this node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Users with their numbers of connections.
#[derive(Default)]
pub struct Users(Mutex<HashMap<Arc<str>, usize>>);

/// A connection that is counted, until it is dropped.
#[derive(Default)]
pub struct Counted(Option<Box<dyn FnOnce() + Send>>);

impl Counted {
    /// A connection; `leave` is done when it is dropped.
    pub fn new(leave: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(leave)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave();
        }
    }
}

impl Users {
    /// Counts one more connection, unless the user has `limit` of them.
    pub fn admit(self: &Arc<Self>, user: &str, limit: usize) -> Option<Counted> {
        let user: Arc<str> = user.into();
        let mut users = self.lock();
        let count = users.entry(user.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        let users = self.clone();
        Some(Counted::new(move || users.dismiss(&user)))
    }

    /// How many connections a user has here.
    pub fn count(&self, user: &str) -> usize {
        self.lock().get(user).copied().unwrap_or_default()
    }

    fn dismiss(&self, user: &str) {
        let mut users = self.lock();
        if let Some(count) = users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                users.remove(user);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_until_it_is_dropped() {
        let users = Arc::new(Users::default());
        let (one, two) = (users.admit("alice", 2), users.admit("alice", 2));
        assert!(one.is_some() && two.is_some() && users.admit("alice", 2).is_none());
        assert!(users.admit("bob", 2).is_some());
        drop(one);
        assert!(users.admit("alice", 2).is_some());
        drop(two);
        assert!(users.lock().is_empty(), "nobody is remembered who has none");
    }
}
