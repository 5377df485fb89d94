//! What a batch of messages brought, and the frames that tell it: each is encoded once, for everybody.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    document::News,
    outbox::note_first_clocks,
    presence::{SessionId, State},
    protocol::{self, Carries, Outgoing},
    state_vector::StateVector,
    trace::Edits,
    update::{Update, merge as merge_updates},
};

/// An answer that waits until something is saved.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// What a batch of messages brought.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) news: Vec<Told>,
    /// When the first message came, where some came from sessions.
    pub(super) since: Option<Instant>,
    /// The edits among the news that are traced.
    pub(super) traced: Edits,
    /// Bytes of the news.
    pub(super) bytes: usize,
    pub(super) presence: Vec<(SessionId, Vec<State>)>,
    /// For sessions that wait for "saved": what they get when this batch is saved.
    pub(super) held: Vec<(SessionId, Arc<Outgoing>)>,
    /// How many of a session's edits are saved when this batch is.
    pub(super) counts: Vec<(SessionId, u64)>,
    /// What is answered when this batch is saved.
    pub(super) answers: Vec<Answer>,
    /// What is answered when a version is kept in which this batch is.
    pub(super) versions: Vec<oneshot::Sender<()>>,
}

/// A piece of news, and who told it.
pub(super) struct Told {
    pub(super) from: SessionId,
    /// Whether its sender has just made it; otherwise it may be anybody's, from any time.
    pub(super) fresh: bool,
    /// The user whose it is, as far as that is known.
    pub(super) user: Option<Arc<str>>,
    pub(super) news: News,
}

impl Batch {
    pub(super) fn note(&mut self, from: SessionId, fresh: bool, user: Option<Arc<str>>, news: News) {
        self.bytes += news.update.len();
        self.news.push(Told { from, fresh, user, news });
    }
}

pub(super) fn question(state_vector: &StateVector) -> Arc<Outgoing> {
    Arc::new(Outgoing { frame: protocol::sync_step_1(state_vector), carries: Carries::Question })
}

pub(super) fn read_only_notice() -> Arc<Outgoing> {
    let frame =
        protocol::permission_denied("your access to this document is read-only: your edits are not taken");
    Arc::new(Outgoing { frame, carries: Carries::Refusal })
}

pub(super) fn edits(news: &News) -> Outgoing {
    Outgoing { frame: protocol::update(&news.update), carries: Carries::Edits(news.adds.clone()) }
}

pub(super) fn presence(states: &[State]) -> Outgoing {
    let carries = states.iter().map(|state| (state.client, state.clock)).collect();
    Outgoing { frame: protocol::awareness(states), carries: Carries::Presence(carries) }
}

/// As few pieces of news as say the same: one, in all but rare cases.
pub(super) fn merge<'a>(told: impl Iterator<Item = &'a Told>) -> Vec<News> {
    let several: Vec<&News> = told.map(|told| &told.news).collect();
    let updates: Result<Vec<_>, _> = several.iter().map(|news| Update::read(&news.update)).collect();
    let merged = match updates.expect("what was taken in was read before") {
        updates if updates.len() > 1 => merge_updates(&updates),
        _ => None,
    };
    let Some(merged) = merged else { return several.into_iter().cloned().collect() };
    let mut first_clocks = HashMap::new();
    for news in several {
        note_first_clocks(&mut first_clocks, &news.adds);
    }
    vec![News { update: merged.into(), adds: first_clocks.into_iter().collect() }]
}
