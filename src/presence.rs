//! Who is here: client ids, their opaque states, and the session that each belongs to.
//!
//! Stock clients send everybody's states back, removals included. So each client id has an owner, the
//! session that brought it, and what others say of it is ignored.

mod states;

use core::time::Duration;
use std::collections::HashMap;

use bytes::Bytes;

pub use self::states::{State, read, write};
use crate::update::ClientId;

/// The most bytes of the states in one document: whoever joins is told of all of them at once.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most clients that are remembered as having left.
const MAX_LEFT: usize = 10_000;
/// The most clients that one session may bring, such as a server that speaks for several.
pub const MAX_CLIENTS_PER_SESSION: usize = 100;

/// How long a client is shown that says nothing. Clients renew their state every 15 seconds, and drop those of
/// others after 30.
pub const EXPIRY: Duration = Duration::from_secs(30);

/// One client's stay in one document, as a number that no other stay on this node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// The most that is shown in one document. No limit is `usize::MAX`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many clients (`--max-presences`).
    pub clients: usize,
    /// How many bytes of one client's state (`--max-presence`).
    pub state_bytes: usize,
}

/// Why what a session says of who is here is refused. The text is what the client's developer reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session speaks for more clients than it may.
    #[error("a session brings more than {MAX_CLIENTS_PER_SESSION} clients")]
    TooManyClients,
    /// A client's state is too large.
    #[error("a state has {bytes} bytes; the limit is {limit} (--max-presence)")]
    TooLarge {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
}

/// Who is in a document.
#[derive(Debug)]
pub struct Presence {
    bounds: Bounds,
    here: HashMap<ClientId, Here>,
    /// The client id that a session announced first, its own; `None` where it brought several at once.
    own: HashMap<SessionId, Option<ClientId>>,
    /// Bytes of all states.
    bytes: usize,
    /// Clients that have left lately, with their last clock and the time: what others still say of them is old.
    left: HashMap<ClientId, (u32, Duration)>,
}

#[derive(Debug)]
struct Here {
    clock: u32,
    json: Bytes,
    owner: SessionId,
    /// When its owner last said something of it.
    renewed: Duration,
}

impl Presence {
    /// Nobody is here yet.
    pub fn new(bounds: Bounds) -> Self {
        let (here, own, left) = Default::default();
        Self { bounds, here, own, bytes: 0, left }
    }

    /// Takes in what a session says at this time, and returns what is news to the others; refuses a session that
    /// brings too much. Times are counted from whenever the caller likes.
    pub fn receive(
        &mut self,
        from: SessionId,
        states: Vec<State>,
        now: Duration,
    ) -> Result<Vec<State>, Refusal> {
        if states.is_empty() {
            return Ok(states);
        }
        // What it only sends back may come from a node that has another limit.
        let its_own =
            states.iter().filter(|state| self.owner(state.client).is_none_or(|owner| owner == from));
        let largest = its_own.filter_map(|state| state.json.as_ref()).map(Bytes::len).max();
        if let Some(bytes) = largest.filter(|bytes| *bytes > self.bounds.state_bytes) {
            return Err(Refusal::TooLarge { bytes, limit: self.bounds.state_bytes });
        }
        let first_frame = !self.own.contains_key(&from);
        if first_frame {
            self.own.insert(from, if states.len() == 1 { Some(states[0].client) } else { None });
        }
        let news = states.into_iter().filter(|state| self.accept(from, first_frame, state, now)).collect();
        match self.here.values().filter(|here| here.owner == from).count() {
            0..=MAX_CLIENTS_PER_SESSION => Ok(news),
            _ => Err(Refusal::TooManyClients),
        }
    }

    /// Whether a state is news; then it is noted.
    fn accept(&mut self, from: SessionId, first_frame: bool, state: &State, now: Duration) -> bool {
        let its_own = self.own.get(&from) == Some(&Some(state.client));
        let Some(here) = self.here.get_mut(&state.client) else {
            let old = self.left.get(&state.client).is_some_and(|(clock, _)| state.clock <= *clock);
            let comes_back = first_frame && its_own;
            return (!old || comes_back) && self.enter(from, state, now);
        };
        let newer = state.clock > here.clock;
        if here.owner != from {
            // A client that came back over a new connection, while the old one is not known to be lost yet.
            if !its_own || !(first_frame || newer) {
                return false;
            }
            here.owner = from;
            here.renewed = now;
        }
        self.update(from, state, now)
    }

    /// What the owner of a client that is here says of it; whether it is news.
    fn update(&mut self, from: SessionId, state: &State, now: Duration) -> bool {
        let Some(here) = self.here.get_mut(&state.client) else { return false };
        let newer = state.clock > here.clock;
        match &state.json {
            None if newer || state.clock == here.clock => {
                self.bytes -= here.json.len();
                self.here.remove(&state.client);
                self.note_left(state.client, state.clock, now);
                true
            }
            // What has no space is not shown, but its client is still here.
            Some(json) if self.bytes - here.json.len() + json.len() > MAX_BYTES => {
                here.renewed = now;
                false
            }
            Some(json) if newer || (state.clock == here.clock && *json != here.json) => {
                self.bytes = self.bytes - here.json.len() + json.len();
                *here = Here { clock: state.clock, json: json.clone(), owner: from, renewed: now };
                true
            }
            _ => false,
        }
    }

    /// Shows a client that was not here, where there is space for it.
    fn enter(&mut self, from: SessionId, state: &State, now: Duration) -> bool {
        let Some(json) = &state.json else { return false };
        let fits = self.here.len() < self.bounds.clients && self.bytes + json.len() <= MAX_BYTES;
        if fits {
            self.bytes += json.len();
            self.left.remove(&state.client);
            let here = Here { clock: state.clock, json: json.clone(), owner: from, renewed: now };
            self.here.insert(state.client, here);
        }
        fits
    }

    /// Takes in what another node, under a number of its own, says of the clients of its sessions, and returns what
    /// is news here. Nodes speak only of whom they own, so the newest of them is right; of two that are as new, it is
    /// the one to which the client is connected.
    pub fn receive_from_node(
        &mut self,
        node: SessionId,
        states: Vec<State>,
        now: Duration,
        is_connected: impl Fn(SessionId) -> bool,
    ) -> Vec<State> {
        states.into_iter().filter(|state| self.accept_from_node(node, state, now, &is_connected)).collect()
    }

    fn accept_from_node(
        &mut self,
        node: SessionId,
        state: &State,
        now: Duration,
        is_connected: impl Fn(SessionId) -> bool,
    ) -> bool {
        match self.here.get_mut(&state.client) {
            None => {
                let old = self.left.get(&state.client).is_some_and(|(clock, _)| state.clock < *clock);
                !old && self.enter(node, state, now)
            }
            // A client that has come to another node keeps its place there, whatever its old node says.
            Some(here) if here.owner != node && (state.json.is_none() || state.clock < here.clock) => false,
            // It comes with the clock that it had, and its old node may not know yet that it has left.
            Some(here) if state.clock == here.clock && is_connected(here.owner) => false,
            Some(here) => {
                here.owner = node;
                here.renewed = now;
                self.update(node, state, now)
            }
        }
    }

    /// Who is here by sessions for which this holds.
    pub fn owned(&self, by: impl Fn(SessionId) -> bool) -> Vec<State> {
        let owned = self.here.iter().filter(|(_, here)| by(here.owner));
        owned.map(|(&client, here)| here.state(client)).collect()
    }

    /// The client id that a session announced first, as the one of its own replica.
    pub fn own_client(&self, session: SessionId) -> Option<ClientId> {
        self.own.get(&session).copied().flatten()
    }

    /// Removes whom a session owns, and returns what is news to the others.
    pub fn remove(&mut self, session: SessionId, now: Duration) -> Vec<State> {
        self.own.remove(&session);
        self.drop_if(now, |here| here.owner == session)
    }

    /// Removes who has not been heard of for [`EXPIRY`], and returns what is news to the others.
    pub fn expire(&mut self, now: Duration) -> Vec<State> {
        self.left.retain(|_, (_, left)| now.saturating_sub(*left) < EXPIRY);
        self.drop_if(now, |here| now.saturating_sub(here.renewed) >= EXPIRY)
    }

    fn drop_if(&mut self, now: Duration, gone: impl Fn(&Here) -> bool) -> Vec<State> {
        let gone = self.here.extract_if(|_, here| gone(here));
        let gone: Vec<_> = gone
            .map(|(client, here)| (here.json.len(), State { client, clock: here.clock, json: None }))
            .collect();
        self.bytes -= gone.iter().map(|(bytes, _)| bytes).sum::<usize>();
        for (_, state) in &gone {
            self.note_left(state.client, state.clock, now);
        }
        gone.into_iter().map(|(_, state)| state).collect()
    }

    fn note_left(&mut self, client: ClientId, clock: u32, now: Duration) {
        if self.left.len() >= MAX_LEFT {
            self.left.clear();
        }
        self.left.insert(client, (clock, now));
    }

    /// Whether nobody is here, or was lately.
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.left.is_empty()
    }

    /// By whom a client is here.
    pub fn owner(&self, client: ClientId) -> Option<SessionId> {
        self.here.get(&client).map(|here| here.owner)
    }

    /// Everybody who is here.
    pub fn everybody(&self) -> Vec<State> {
        self.here.iter().map(|(&client, here)| here.state(client)).collect()
    }

    /// The newest state of a client; where it has left, with the clock of the last that was heard of it.
    pub fn newest(&self, client: ClientId, last_clock: u32) -> State {
        match self.here.get(&client) {
            Some(here) => here.state(client),
            None => State { client, clock: last_clock, json: None },
        }
    }
}

impl Here {
    fn state(&self, client: ClientId) -> State {
        State { client, clock: self.clock, json: Some(self.json.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: SessionId = SessionId(1);
    const BOB: SessionId = SessionId(2);
    const NOW: Duration = Duration::ZERO;
    const ALICE_AGAIN: SessionId = SessionId(3);

    fn state(client: ClientId, clock: u32, json: &'static str) -> State {
        State { client, clock, json: (json != "null").then(|| json.into()) }
    }

    const BOUNDS: Bounds = Bounds { clients: 1_000, state_bytes: 64 * 1024 };

    fn both_here() -> Presence {
        let mut presence = Presence::new(BOUNDS);
        presence.receive(ALICE, vec![state(10, 1, "{}")], NOW).unwrap();
        presence.receive(BOB, vec![state(20, 1, "{}")], NOW).unwrap();
        presence
    }

    #[test]
    fn what_others_say_of_a_client_is_ignored() {
        let mut presence = both_here();
        assert_eq!(presence.receive(BOB, vec![state(10, 1, "{}"), state(20, 1, "{}")], NOW), Ok(vec![]));
        assert_eq!(presence.receive(BOB, vec![state(10, 1, "null")], NOW), Ok(vec![]));
        assert_eq!(presence.receive(BOB, vec![state(10, 9, r#"{"forged":1}"#)], NOW), Ok(vec![]));
        assert_eq!(presence.everybody().len(), 2);
    }

    #[test]
    fn a_client_that_leaves_is_gone_once() {
        let mut presence = both_here();
        assert_eq!(presence.receive(ALICE, vec![state(10, 2, "null")], NOW), Ok(vec![state(10, 2, "null")]));
        assert_eq!(presence.receive(ALICE, vec![state(10, 2, "null")], NOW), Ok(vec![]));
        assert_eq!(presence.remove(ALICE, NOW), vec![]);
        assert_eq!(presence.remove(BOB, NOW), vec![state(20, 1, "null")]);
        assert!(presence.everybody().is_empty());
    }

    #[test]
    fn a_client_that_comes_back_takes_itself_over_at_an_equal_clock() {
        let mut presence = both_here();
        assert_eq!(presence.receive(ALICE_AGAIN, vec![state(10, 1, "{}")], NOW), Ok(vec![]));
        assert_eq!(presence.remove(ALICE, NOW), vec![], "the old session owns nobody any more");
        assert_eq!(presence.newest(10, 0), state(10, 1, "{}"));
        assert_eq!(presence.remove(ALICE_AGAIN, NOW), vec![state(10, 1, "null")]);
    }

    #[test]
    fn an_owner_takes_back_what_an_echo_took_over() {
        let mut presence = both_here();
        let silent = SessionId(4);
        // A client without a state of its own sends back what it hears, as its first frame.
        presence.receive(silent, vec![state(10, 1, "{}")], NOW).unwrap();
        assert_eq!(presence.receive(ALICE, vec![state(10, 2, "{}")], NOW), Ok(vec![state(10, 2, "{}")]));
        assert_eq!(presence.remove(silent, NOW), vec![]);
    }

    #[test]
    fn an_echo_does_not_bring_back_who_has_left() {
        let mut presence = both_here();
        presence.receive(ALICE, vec![state(10, 2, "null")], NOW).unwrap();
        assert_eq!(presence.receive(BOB, vec![state(10, 1, "{}")], NOW), Ok(vec![]));
        // She herself comes back with the clock that she had.
        assert_eq!(
            presence.receive(ALICE_AGAIN, vec![state(10, 2, "{}")], NOW),
            Ok(vec![state(10, 2, "{}")])
        );
    }

    #[test]
    fn a_client_that_comes_to_another_node_is_not_taken_away_by_its_old_one() {
        let (here, there) = (SessionId(7), SessionId(1 << 63));
        let mut presence = Presence::new(BOUNDS);
        assert_eq!(presence.receive_from_node(there, vec![state(10, 5, "{}")], NOW, |_| false).len(), 1);
        // It comes here with the clock that it had; then its old node notices that it is gone.
        presence.receive(here, vec![state(10, 5, "{}")], NOW).unwrap();
        assert_eq!(presence.receive_from_node(there, vec![state(10, 5, "null")], NOW, |_| false), vec![]);
        assert_eq!(presence.remove(there, NOW), vec![]);
        assert_eq!(presence.owned(|owner| owner == here), vec![state(10, 5, "{}")]);
        // And back: what is told by the node where it is now is right.
        presence.receive_from_node(there, vec![state(10, 6, "{}")], NOW, |_| false);
        assert_eq!(presence.remove(here, NOW), vec![]);
        assert_eq!(presence.remove(there, NOW), vec![state(10, 6, "null")]);
    }

    #[test]
    fn a_client_is_where_it_is_connected_whatever_another_node_says_at_the_same_clock() {
        let (mut presence, node) = (both_here(), SessionId(9));
        let her = || vec![state(10, 1, "{}")];
        assert_eq!(presence.receive_from_node(node, her(), NOW, |_| true), vec![]);
        assert_eq!(presence.owner(10), Some(ALICE));
        // The line here is lost, and she came back on the other node.
        assert_eq!(presence.receive_from_node(node, her(), NOW, |_| false), vec![]);
        assert_eq!(presence.remove(ALICE, NOW), vec![]);
        assert_eq!(presence.remove(node, NOW), vec![state(10, 1, "null")]);
    }

    #[test]
    fn presence_is_bounded() {
        let mut presence = both_here();
        let crowd =
            |first: u64, count: u64| (first..first + count).map(|client| state(client, 1, "{}")).collect();
        assert!(presence.receive(SessionId(5), crowd(100, 100), NOW).is_ok());
        assert!(presence.receive(SessionId(6), crowd(1_000, 101), NOW).is_err());
        let shown = |presence: &Presence| -> usize {
            presence.everybody().iter().filter_map(|state| state.json.as_ref()).map(Bytes::len).sum()
        };
        let large = Bytes::from(vec![b'1'; BOUNDS.state_bytes]);
        // Large from the beginning, and grown.
        for (clock, json) in [(1, large.clone()), (1, Bytes::from("{}")), (2, large)] {
            for session in 10..800 {
                let state = State { client: 10_000 + session, clock, json: Some(json.clone()) };
                presence.receive(SessionId(session), vec![state], NOW).unwrap();
            }
            assert!(shown(&presence) <= MAX_BYTES);
        }
        assert!(shown(&presence) > MAX_BYTES - BOUNDS.state_bytes);
    }

    #[test]
    fn a_state_may_have_so_many_bytes_and_no_more() {
        let mut presence = Presence::new(Bounds { clients: 2, state_bytes: 4 });
        assert_eq!(presence.receive(ALICE, vec![state(10, 1, "1234")], NOW).map(|news| news.len()), Ok(1));
        let refusal = Refusal::TooLarge { bytes: 5, limit: 4 };
        assert_eq!(presence.receive(ALICE, vec![state(10, 2, "12345")], NOW), Err(refusal));
        // Another node has another limit; who sends back what it told is not to blame.
        presence.receive_from_node(SessionId(1 << 63), vec![state(30, 1, "12345")], NOW, |_| false);
        assert_eq!(presence.receive(BOB, vec![state(30, 1, "12345")], NOW), Ok(vec![]));
        // And there is no space for a third.
        assert_eq!(presence.receive(BOB, vec![state(20, 1, "{}")], NOW), Ok(vec![]));
        presence.remove(ALICE, NOW);
        assert_eq!(presence.receive(BOB, vec![state(20, 2, "{}")], NOW).map(|news| news.len()), Ok(1));
    }

    #[test]
    fn who_says_nothing_for_half_a_minute_is_gone() {
        let mut presence = both_here();
        let second = Duration::from_secs(1);
        presence.receive(BOB, vec![state(20, 2, "{}")], 20 * second).unwrap();
        assert_eq!(presence.expire(29 * second), vec![]);
        assert_eq!(presence.expire(30 * second), vec![state(10, 1, "null")]);
        assert_eq!(presence.expire(50 * second), vec![state(20, 2, "null")]);
        assert!(presence.everybody().is_empty());
    }
}
