//! What waits for one session. It is bounded: when a session falls behind, what waits is dropped, and what
//! it missed is remembered in a few numbers from which one diff brings it up to date.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::time::Instant;

use crate::{
    end::End,
    protocol::{Carries, Outgoing, dialect::News},
    update::{ClientId, Clock},
};

/// Frames that may wait. Behind a slow socket one diff is cheaper than more of them.
const MAX_FRAMES: usize = 256;
/// Bytes that may wait, beside one frame of any size: a whole document is one frame.
const MAX_BYTES: usize = 1024 * 1024;

/// What a session has missed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Edits: for each client the first clock that it lacks. `Some` and empty: deletions only.
    pub edits: Option<HashMap<ClientId, Clock>>,
    /// Clients whose newest state it lacks, with the last clock that was heard of them.
    pub presence: HashMap<ClientId, u32>,
}

impl Missed {
    fn note(&mut self, carries: &Carries) {
        match carries {
            Carries::Edits(adds) => note_first_clocks(self.edits.get_or_insert_default(), adds),
            Carries::Presence(clients) => self.presence.extend(clients.iter().copied()),
            Carries::Question | Carries::Refusal | Carries::Stateless => {}
        }
    }
}

/// Lowers the first missing clock of each client to what was missed now.
pub fn note_first_clocks(missing: &mut HashMap<ClientId, Clock>, adds: &[(ClientId, Clock)]) {
    for &(client, clock) in adds {
        missing.entry(client).and_modify(|known| *known = clock.min(*known)).or_insert(clock);
    }
}

/// Who brings what waits to the client; all sessions of a connection may have the same.
pub trait Carrier: Send + Sync {
    /// Something has come: it is to be fetched soon.
    fn call(&self);

    /// Something has come: it is brought at once, as far as that needs no waiting, and fetched soon where it does.
    fn carry(&self);
}

/// Nobody: who has the session looks for it now and then.
impl Carrier for () {
    fn call(&self) {}

    fn carry(&self) {}
}

/// What waits for one session.
pub struct Outbox {
    state: Mutex<State>,
    carrier: Arc<dyn Carrier>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Outgoing>>,
    bytes: usize,
    /// Bytes of the largest frame that waits.
    largest: usize,
    /// How many of the session's edits are saved, and whether it has been told.
    saved: u64,
    saved_is_news: bool,
    missed: Option<Box<Missed>>,
    /// Whether the session has asked for what it missed.
    asked: bool,
    end: Option<End>,
    /// The session has used more than its share, and must not send until then.
    rest_until: Option<Instant>,
}

/// What a session finds in its outbox.
#[derive(Debug)]
pub enum Taken {
    /// Nothing.
    Nothing,
    /// News, put into the buffer.
    News,
    /// Nothing waits, but something was missed: it is time to catch up.
    Behind,
    /// The session is over.
    End(End),
}

impl Outbox {
    /// An empty one.
    pub fn new(carrier: Arc<dyn Carrier>) -> Self {
        Self { state: Mutex::default(), carrier }
    }

    /// Puts in a frame for the carrier, or notes that it was missed.
    pub fn push(&self, outgoing: &Arc<Outgoing>) {
        self.put(outgoing);
        self.carrier.call();
    }

    /// Has everything brought that was put in.
    pub fn carry(&self) {
        self.carrier.carry();
    }

    /// Puts in a frame of which the carrier hears later, or notes that it was missed. Answers how many bytes wait now.
    pub fn put(&self, outgoing: &Arc<Outgoing>) -> usize {
        let mut state = self.lock();
        let largest = state.largest.max(outgoing.frame.len());
        let others = state.bytes + outgoing.frame.len() - largest;
        let full = state.waiting.len() >= MAX_FRAMES || others > MAX_BYTES;
        let falls_behind = full && state.missed.is_none();
        if falls_behind {
            state.drop_what_waits();
        }
        if !comes_only_once(outgoing)
            && let Some(missed) = &mut state.missed
        {
            missed.note(&outgoing.carries);
        } else if state.waiting.len() >= 2 * MAX_FRAMES {
            // Questions are few, unless somebody provokes them and reads none.
            state.end.get_or_insert(End::Stuck);
        } else {
            state.bytes += outgoing.frame.len();
            state.largest = state.largest.max(outgoing.frame.len());
            state.waiting.push_back(outgoing.clone());
        }
        let bytes = state.bytes;
        drop(state);
        if falls_behind {
            // To ask for what was missed is not the carrier's at once.
            self.carrier.call();
        }
        bytes
    }

    /// Notes that a frame was missed that never came here.
    pub fn miss(&self, carries: &Carries) {
        self.lock().missed.get_or_insert_default().note(carries);
        self.carrier.call();
    }

    /// What was missed, to be made up for now: from here on frames wait again.
    pub fn take_missed(&self) -> Option<Missed> {
        let mut state = self.lock();
        state.asked = false;
        state.missed.take().map(|missed| *missed)
    }

    /// Ends the session, unless it has ended already. What waits is not sent any more.
    pub fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.carrier.call();
    }

    /// Lets the session send nothing until then.
    pub fn rest(&self, until: Instant) {
        self.lock().rest_until = Some(until);
    }

    /// Until when the session must send nothing, if it must rest.
    pub fn take_rest(&self) -> Option<Instant> {
        self.lock().rest_until.take()
    }

    /// Notes whether the session has asked for what it missed, and waits for it.
    pub fn set_asked(&self, asked: bool) {
        self.lock().asked = asked;
    }

    /// Why the session is over, where somebody has said so.
    pub fn ended(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Notes how many of the session's edits are saved; the carrier hears of it later.
    pub fn put_saved(&self, count: u64) {
        let mut state = self.lock();
        state.saved = count;
        state.saved_is_news = true;
    }

    /// Takes what there is for the session; frames are appended to those in `news`.
    pub fn take(&self, news: &mut News) -> Taken {
        let mut state = self.lock();
        if let Some(end) = &state.end {
            return Taken::End(end.clone());
        }
        news.saved = state.saved;
        let saved_is_news = std::mem::take(&mut state.saved_is_news);
        if saved_is_news || !state.waiting.is_empty() {
            news.frames.extend(state.waiting.drain(..));
            (state.bytes, state.largest) = (0, 0);
            return Taken::News;
        }
        if state.missed.is_some() && !state.asked { Taken::Behind } else { Taken::Nothing }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

/// Whether a frame must not be dropped, because nothing makes up for it.
fn comes_only_once(outgoing: &Outgoing) -> bool {
    matches!(outgoing.carries, Carries::Question | Carries::Refusal)
}

impl State {
    fn drop_what_waits(&mut self) {
        let mut missed = Missed::default();
        self.waiting.retain(|outgoing| {
            missed.note(&outgoing.carries);
            comes_only_once(outgoing)
        });
        self.waiting.shrink_to_fit();
        let sizes = self.waiting.iter().map(|outgoing| outgoing.frame.len());
        (self.bytes, self.largest) = (sizes.clone().sum(), sizes.max().unwrap_or(0));
        self.missed = Some(Box::new(missed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn outbox() -> Outbox {
        Outbox::new(Arc::new(()))
    }

    fn edit(client: ClientId, clock: Clock, bytes: usize) -> Arc<Outgoing> {
        Arc::new(Outgoing { frame: vec![0; bytes].into(), carries: Carries::Edits(vec![(client, clock)]) })
    }

    #[test]
    fn a_session_that_keeps_up_gets_every_frame() {
        let outbox = outbox();
        let mut news = News::default();
        for clock in 0..1_000 {
            outbox.push(&edit(1, clock, 10));
            assert!(matches!(outbox.take(&mut news), Taken::News));
        }
        assert_eq!(news.frames.len(), 1_000);
        assert_eq!(outbox.take_missed(), None);
    }

    #[test]
    fn a_session_that_falls_behind_misses_what_one_diff_brings() {
        let outbox = outbox();
        for clock in 0..1_000 {
            outbox.push(&edit(1, clock + 5, 10));
        }
        outbox.push(&edit(2, 7, 10));
        let mut news = News::default();
        assert!(matches!(outbox.take(&mut news), Taken::Behind));
        assert!(news.frames.is_empty());
        let missed = outbox.take_missed().unwrap();
        assert_eq!(missed.edits, Some(HashMap::from([(1, 5), (2, 7)])));
        outbox.push(&edit(1, 2_000, 10));
        assert!(matches!(outbox.take(&mut news), Taken::News), "it has caught up");
    }

    #[test]
    fn bytes_are_bounded_but_one_frame_of_any_size_fits() {
        let outbox = outbox();
        outbox.push(&edit(1, 0, 5 * MAX_BYTES));
        let mut news = News::default();
        assert!(matches!(outbox.take(&mut news), Taken::News));
        // A large one beside small ones, in either order.
        outbox.push(&edit(1, 1, 1_000));
        outbox.push(&edit(1, 2, 5 * MAX_BYTES));
        outbox.push(&edit(1, 3, 1_000));
        assert!(matches!(outbox.take(&mut news), Taken::News));
        outbox.push(&edit(1, 4, MAX_BYTES));
        outbox.push(&edit(1, 5, MAX_BYTES));
        outbox.push(&edit(1, 6, 1));
        assert!(matches!(outbox.take(&mut news), Taken::Behind));
    }

    #[test]
    fn a_question_survives_and_an_end_comes_before_everything() {
        let outbox = outbox();
        outbox.push(&Arc::new(Outgoing { frame: Bytes::new(), carries: Carries::Question }));
        for clock in 0..1_000 {
            outbox.push(&edit(1, clock, 10));
        }
        let mut news = News::default();
        assert!(matches!(outbox.take(&mut news), Taken::News));
        assert!(matches!(news.frames[..], [ref only] if matches!(only.carries, Carries::Question)));
        outbox.end(End::Stopping);
        outbox.end(End::Left);
        assert!(matches!(outbox.take(&mut news), Taken::End(End::Stopping)));
    }

    #[test]
    fn the_newest_number_of_saved_edits_is_told_once() {
        let outbox = outbox();
        let mut news = News::default();
        assert!(matches!(outbox.take(&mut news), Taken::Nothing));
        outbox.put_saved(1);
        outbox.put_saved(4);
        assert!(matches!(outbox.take(&mut news), Taken::News));
        assert_eq!((news.saved, news.frames.len()), (4, 0));
        assert!(matches!(outbox.take(&mut news), Taken::Nothing));
        outbox.push(&edit(1, 0, 10));
        assert!(matches!(outbox.take(&mut news), Taken::News));
        assert_eq!(news.saved, 4);
    }

    #[test]
    fn what_applications_say_may_get_lost_and_takes_no_memory_then() {
        let outbox = outbox();
        let text = Arc::new(Outgoing { frame: vec![b'x'; 1024].into(), carries: Carries::Stateless });
        for _ in 0..10_000 {
            outbox.push(&text);
        }
        assert!(matches!(outbox.take(&mut News::default()), Taken::Behind));
        assert_eq!(outbox.take_missed(), Some(Missed::default()));
    }
}
