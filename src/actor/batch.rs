//! What a batch of messages brought, and the frames that tell it: each is encoded once, for everybody.

use std::{collections::HashMap, sync::Arc};

use crate::{
    document::{News, UpdateError, merge_updates},
    outbox::{Carries, Outgoing, note_first_clocks},
    presence::{SessionId, State},
    protocol,
    state_vector::StateVector,
};

/// What a batch of messages brought.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) news: Vec<(SessionId, News)>,
    /// Bytes of the news.
    pub(super) bytes: usize,
    pub(super) presence: Vec<(SessionId, Vec<State>)>,
    /// For sessions that wait for "saved": what they get when this batch is saved.
    pub(super) held: Vec<(SessionId, Arc<Outgoing>)>,
}

impl Batch {
    pub(super) fn note(&mut self, from: SessionId, news: News) {
        self.bytes += news.update.len();
        self.news.push((from, news));
    }
}

pub(super) fn question(state_vector: &StateVector) -> Arc<Outgoing> {
    Arc::new(Outgoing { frame: protocol::sync_step_1(state_vector), carries: Carries::Question })
}

pub(super) fn edits(news: &News) -> Outgoing {
    Outgoing { frame: protocol::update(&news.update), carries: Carries::Edits(news.adds.clone()) }
}

pub(super) fn presence(states: &[State]) -> Outgoing {
    let carries = states.iter().map(|state| (state.client, state.clock)).collect();
    Outgoing { frame: protocol::awareness(states), carries: Carries::Presence(carries) }
}

/// One piece of news of several.
pub(super) fn merge<'a>(several: impl Iterator<Item = &'a News> + Clone) -> Result<News, UpdateError> {
    let update = merge_updates(several.clone().map(|news| news.update.clone()).collect())?;
    let mut first_clocks = HashMap::new();
    for news in several {
        note_first_clocks(&mut first_clocks, &news.adds);
    }
    Ok(News { update, adds: first_clocks.into_iter().collect() })
}
