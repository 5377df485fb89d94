//! A session as the actor sees it: its outbox, and what it does not get yet.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
};

use tokio::time::Instant;
use tracing::warn;

use super::{batch::Told, budget::Budget};
use crate::{
    end::End,
    guard::Rest,
    outbox::Outbox,
    protocol::Outgoing,
    state_vector::StateVector,
    update::{ClientId, Clock},
};

/// Bytes of a client's edits that need what is missing here, kept until it comes.
const MAX_ASIDE_BYTES: usize = 1024 * 1024;
/// Frames and bytes that may wait for one session until its own edits are saved.
const MAX_HELD: usize = 256;
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// How a session hears that its edits are saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TellSaved {
    /// Not at all.
    #[default]
    No,
    /// Its own edits come back to it when they are saved.
    Echo,
    /// It is told how many of its updates and sync steps 2 are saved, with everything before them.
    Count,
}

/// What a session wants, and what it may do.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// How it hears that its edits are saved.
    pub tell_saved: TellSaved,
    /// Whether it only looks on: its edits are refused.
    pub read_only: bool,
    /// Whose it is, where somebody was asked.
    pub user: Option<Arc<str>>,
}

/// A session, as the actor sees it.
pub(super) struct Member {
    pub(super) outbox: MemberOutbox,
    /// Whether something was put into the outbox of which its carrier has not heard.
    has_news: bool,
    pub(super) terms: Terms,
    /// Whether it was told that its edits are refused.
    pub(super) told_read_only: bool,
    /// Where its own edits come back: which those are.
    own: Option<Box<Own>>,
    /// What it gets when everything through a number is saved.
    held: VecDeque<(u64, Arc<Outgoing>)>,
    held_bytes: usize,
    /// How many updates and sync steps 2 it has sent.
    pub(super) sent: u64,
    /// How many of them are saved when everything through a number is.
    counts: VecDeque<(u64, u64)>,
    /// Whether it was asked for what is missing here, and has not answered yet.
    pub(super) asked: bool,
    /// Whether something that it has sent is not here: it was refused, or needs what is missing.
    pub(super) lacking: bool,
    /// Whether it has asked for what it is missing; the greeting asks back once.
    pub(super) has_asked: bool,
    /// The part of its last sync step 2 that needs what is missing here.
    pub(super) aside: Option<Box<Rest>>,
    pub(super) budget: Budget,
}

/// Which edits a session takes for its own, and so for saved when they come.
#[derive(Default)]
struct Own {
    /// How much of each client's edits it has; unknown until its sync step 1.
    has: Option<HashMap<ClientId, Clock>>,
    /// The client ids of the edits that it has made.
    made: HashSet<ClientId>,
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
        let own = (terms.tell_saved == TellSaved::Echo).then(Box::default);
        Self {
            outbox,
            has_news: false,
            terms,
            told_read_only: false,
            own,
            held: VecDeque::new(),
            held_bytes: 0,
            sent: 0,
            counts: VecDeque::new(),
            asked: true,
            lacking: false,
            has_asked: false,
            aside: None,
            budget,
        }
    }

    /// Tells it something, to be carried with what else it is told. Answers how many bytes wait for it now.
    pub(super) fn tell(&mut self, outgoing: &Arc<Outgoing>) -> usize {
        self.has_news = true;
        self.outbox.0.put(outgoing)
    }

    /// Has carried what it was told.
    pub(super) fn carry(&mut self) {
        if mem::take(&mut self.has_news) {
            self.outbox.0.carry();
        }
    }

    /// Whether its own edits come back to it when they are saved.
    pub(super) fn echoes(&self) -> bool {
        self.own.is_some()
    }

    /// How many of its edits are saved when everything that is here is; none where it is not told, or where that
    /// would be too early: something that it has sent is not here, or it may still bring what it did not send before.
    pub(super) fn count(&self) -> Option<u64> {
        let all_is_here = !self.asked && !self.lacking;
        (self.terms.tell_saved == TellSaved::Count && all_is_here).then_some(self.sent)
    }

    /// Notes what a session has that says so in its sync step 1.
    pub(super) fn has(&mut self, state_vector: &StateVector) {
        if let Some(own) = &mut self.own {
            own.has.get_or_insert_default();
            self.has_too(state_vector.iter());
        }
    }

    /// Notes that a session has made edits with this client id.
    pub(super) fn makes(&mut self, client: ClientId) {
        if let Some(own) = &mut self.own {
            own.made.insert(client);
        }
    }

    /// Notes how much of some clients' edits the session has, beside what it said before.
    pub(super) fn has_too(&mut self, clocks: impl Iterator<Item = (ClientId, Clock)>) {
        if let Some(has) = self.own.as_mut().and_then(|own| own.has.as_mut()) {
            for (client, clock) in clocks {
                let known = has.entry(client).or_default();
                *known = clock.max(*known);
            }
        }
    }

    /// Whether a session that takes its own edits for "saved" must wait for this news until it is: it may be its
    /// own, sent over another connection, or offered again by somebody who has it.
    pub(super) fn waits_for(&self, told: &Told) -> bool {
        let Some(Own { has: Some(has), made }) = self.own.as_deref() else { return true };
        let known = |(client, first): &(ClientId, Clock)| {
            made.contains(client) || has.get(client).is_some_and(|clock| first < clock)
        };
        !told.fresh || told.news.adds.iter().any(known)
    }

    pub(super) fn keep_aside(&mut self, rest: Rest) {
        if rest.update.len() <= MAX_ASIDE_BYTES {
            self.aside = Some(Box::new(rest));
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

    /// So many of its edits are saved when everything through a number is.
    pub(super) fn hold_count(&mut self, through: u64, count: u64) {
        // Where many wait, the last one waits a little longer.
        if self.counts.back().is_some_and(|(number, _)| *number == through) || self.counts.len() == MAX_HELD {
            self.counts.pop_back();
        }
        self.counts.push_back((through, count));
    }

    pub(super) fn release(&mut self, through: u64) {
        let mut saved = None;
        while let Some((_, count)) = self.counts.pop_front_if(|(number, _)| *number <= through) {
            saved = Some(count);
        }
        if let Some(count) = saved {
            self.has_news = true;
            self.outbox.0.put_saved(count);
        }
        while let Some((_, outgoing)) = self.held.pop_front_if(|(number, _)| *number <= through) {
            self.held_bytes -= outgoing.frame.len();
            self.tell(&outgoing);
        }
    }
}
