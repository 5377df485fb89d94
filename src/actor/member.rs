//! A session as the actor sees it: its outbox, and what it does not get yet.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::warn;

use super::{batch::Told, budget::Budget};
use crate::{
    end::End,
    guard::Rest,
    outbox::{Outbox, Outgoing},
    state_vector::StateVector,
    update::{ClientId, Clock},
};

/// Bytes of a client's edits that need what is missing here, kept until it comes.
const MAX_ASIDE_BYTES: usize = 1024 * 1024;
/// Frames and bytes that may wait for one session until its own edits are saved.
const MAX_HELD: usize = 256;
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// What a session wants, and what it may do.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Whether its own edits come back to it when they are saved.
    pub echo_saved: bool,
    /// Whether it only looks on: its edits are refused.
    pub read_only: bool,
    /// Whose it is, where somebody was asked.
    pub user: Option<Arc<str>>,
}

/// A session, as the actor sees it.
pub(super) struct Member {
    pub(super) outbox: MemberOutbox,
    pub(super) terms: Terms,
    /// Whether it was told that its edits are refused.
    pub(super) told_read_only: bool,
    /// Where its own edits come back: how much of each client's edits it has; unknown until its sync step 1.
    has: Option<HashMap<ClientId, Clock>>,
    /// The client ids of the edits that it has made.
    own: HashSet<ClientId>,
    /// What it gets when everything through a number is saved.
    held: VecDeque<(u64, Arc<Outgoing>)>,
    held_bytes: usize,
    /// Whether it was asked for what is missing here, and has not answered yet.
    pub(super) asked: bool,
    /// The part of its last sync step 2 that needs what is missing here.
    pub(super) aside: Option<Rest>,
    pub(super) budget: Budget,
}

/// A session's outbox; when the actor lets go of it, however that comes, the session ends.
pub(super) struct MemberOutbox(pub(super) Arc<Outbox>);

impl Drop for MemberOutbox {
    fn drop(&mut self) {
        self.0.end(End::Reopening);
    }
}

impl Member {
    pub(super) fn new(outbox: MemberOutbox, terms: Terms) -> Self {
        // The greeting asks already.
        let budget = Budget::new(Instant::now());
        Self {
            outbox,
            terms,
            told_read_only: false,
            has: None,
            own: HashSet::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            asked: true,
            aside: None,
            budget,
        }
    }

    /// Notes what a session has that says so in its sync step 1.
    pub(super) fn has(&mut self, state_vector: &StateVector) {
        if self.terms.echo_saved {
            self.has.get_or_insert_default();
            self.has_too(state_vector.iter());
        }
    }

    /// Notes that a session has made edits with this client id.
    pub(super) fn makes(&mut self, client: ClientId) {
        if self.terms.echo_saved {
            self.own.insert(client);
        }
    }

    /// Notes how much of some clients' edits the session has, beside what it said before.
    pub(super) fn has_too(&mut self, clocks: impl Iterator<Item = (ClientId, Clock)>) {
        if let Some(has) = &mut self.has {
            for (client, clock) in clocks {
                let known = has.entry(client).or_default();
                *known = clock.max(*known);
            }
        }
    }

    /// Whether a session that takes its own edits for "saved" must wait for this news until it is: it may be its
    /// own, sent over another connection, or offered again by somebody who has it.
    pub(super) fn waits_for(&self, told: &Told) -> bool {
        let Some(has) = &self.has else { return true };
        let known = |(client, first): &(ClientId, Clock)| {
            self.own.contains(client) || has.get(client).is_some_and(|clock| first < clock)
        };
        !told.fresh || told.news.adds.iter().any(known)
    }

    pub(super) fn keep_aside(&mut self, rest: Rest) {
        if rest.update.len() <= MAX_ASIDE_BYTES {
            self.aside = Some(rest);
        } else {
            warn!(bytes = rest.update.len(), "edits that need what is missing are too large to keep aside");
        }
    }

    pub(super) fn hold(&mut self, through: u64, outgoing: Arc<Outgoing>) {
        self.held_bytes += outgoing.frame.len();
        self.held.push_back((through, outgoing));
        if self.held.len() > MAX_HELD || (self.held_bytes > MAX_HELD_BYTES && self.held.len() > 1) {
            for (_, outgoing) in self.held.drain(..) {
                self.outbox.0.miss(&outgoing.carries);
            }
            self.held_bytes = 0;
        }
    }

    pub(super) fn release(&mut self, through: u64) {
        while let Some((_, outgoing)) = self.held.pop_front_if(|(number, _)| *number <= through) {
            self.held_bytes -= outgoing.frame.len();
            self.outbox.0.push(&outgoing);
        }
    }
}
