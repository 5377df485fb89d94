//! Where a node stands in a document's log: what it was handed, and what tells it that something is missing.
//! Values in, values out; it knows no network and no clock.
//!
//! A position only detects. A log that was lost or rolled back gives its positions a second time, so that it is known
//! by who wrote its entries: where two have the same place, or one is not there any more, it is another log. What
//! cannot be told from that is read: if the entry where we stand is still there, so is everything before it.

use std::{
    collections::BTreeMap,
    mem,
    ops::Bound::{Excluded, Included, Unbounded},
};

use super::{
    super::Position,
    envelope::{Envelope, Stamp, Words},
    store::{Entry, Kept},
};

/// Entries whose authors are remembered. Of the node's own, so many come to a second and a half of steady appending.
const MAX_KNOWN: usize = 64;
/// An epoch is a generation of the document, and in so many low bits how often its log was lost.
pub(super) const GENERATION_SHIFT: u32 = 20;

/// A place in a log.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Which entries are this follower's own.
    own: Own,
    /// The epoch in which this node appends; 0 where there is no log that is known.
    epoch: u64,
    /// Everything through here was handed over, or is the follower's own.
    through: Position,
    /// Who wrote the last entries through there, and beyond it those of which the log must have this follower's own.
    known: BTreeMap<Position, Stamp>,
    /// The greatest position that is known of.
    head: Position,
    /// Whether the log was loaded, and is still the one that was.
    loaded: bool,
    /// While the log is being read, how far it must go at least: what lies beyond `through` comes with that.
    reading: Option<Position>,
    /// Whether it must be read once more.
    read_again: bool,
}

/// Entries of this run, from this number on.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Own {
    /// The run.
    pub(super) run: u64,
    /// What was written before is another follower's: it is handed over like that of others.
    pub(super) since: u64,
}

/// What to do with an entry that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Hand it over.
    HandOver,
    /// It is the follower's own, or comes with what is being read.
    Nothing,
    /// Something before it is missing, or it may be of another log: the log must be read from where we stand.
    Unclear,
    /// Hand it over; the log is another one than it was, and must be compared.
    OtherLog,
    /// It is of a document that was begun anew: what is here is no longer the document.
    OtherDocument,
}

/// The log is not the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OtherLog;

impl Place {
    /// A place before anything was loaded.
    pub(super) fn new(own: Own) -> Self {
        Self { own, ..Self::default() }
    }

    /// The epoch in which this node appends.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether this epoch is of a document that was begun anew since this one was loaded.
    pub(super) fn is_before(&self, epoch: u64) -> bool {
        self.epoch > 0 && epoch >> GENERATION_SHIFT > self.epoch >> GENERATION_SHIFT
    }

    /// Everything through here was handed over.
    pub(super) fn through(&self) -> Position {
        self.through
    }

    /// The entry that must be in the log if it is the one that we know.
    pub(super) fn stands_on(&self) -> Option<(Position, Stamp)> {
        self.known.get(&self.through).filter(|_| self.loaded).map(|stamp| (self.through, *stamp))
    }

    fn is_own(&self, stamp: Stamp) -> bool {
        stamp.run == self.own.run && stamp.number >= self.own.since
    }

    /// The document was loaded as it is kept here. Answers whether there is more by now.
    pub(super) fn loaded(&mut self, kept: &Kept) -> bool {
        let last = kept.log.last();
        self.epoch = last.map_or(0, |last| last.position.epoch).max(kept.meta.epoch);
        self.through = last.map_or(kept.meta.through, |last| last.position);
        self.loaded = true;
        let through = self.through;
        self.known.retain(|position, _| *position > through);
        kept.log.iter().for_each(|entry| self.know(entry.position, stamp(entry)));
        // A head beyond what is there is of a log that is no more, unless it came meanwhile: that will be read.
        self.head > self.through
    }

    /// A log was begun where there was none.
    pub(super) fn began(&mut self, epoch: u64) {
        if self.epoch == 0 {
            self.epoch = epoch;
            self.through = Position { epoch, number: 0 };
        }
    }

    /// The log was lost, or may have been: from here on nothing is concluded until it is loaded again.
    pub(super) fn doubt(&mut self) {
        self.loaded = false;
        self.head = Position::default();
        self.known.clear();
    }

    /// An entry was heard on the channel.
    pub(super) fn hear(&mut self, position: Position, stamp: Stamp) -> Heard {
        if self.is_before(position.epoch) {
            self.doubt();
            return Heard::OtherDocument;
        }
        self.head = self.head.max(position);
        let hand_over = if self.is_own(stamp) { Heard::Nothing } else { Heard::HandOver };
        if !self.loaded {
            return hand_over;
        }
        if (self.epoch > 0 && position.epoch > self.epoch) || !self.agrees(position, Some(stamp)) {
            self.doubt();
            return Heard::OtherLog;
        }
        self.began(position.epoch);
        if self.reading.is_none() && self.is_next(position) {
            self.advance(position, Some(stamp));
            return hand_over;
        }
        let comes = self.reading.is_some() && position > self.through;
        if comes || self.known.contains_key(&position) { Heard::Nothing } else { Heard::Unclear }
    }

    /// An entry was put into the log that is too large for the channel, so that it must be read.
    pub(super) fn hear_of(&mut self, position: Position, stamp: Stamp) -> Heard {
        if self.hear_head(position) {
            return Heard::Unclear;
        }
        if self.loaded && !self.agrees(position, Some(stamp)) {
            self.doubt();
            return Heard::OtherLog;
        }
        // One that we do not know may be of another log.
        if !self.loaded || self.known.contains_key(&position) { Heard::Nothing } else { Heard::Unclear }
    }

    /// It is known that the log goes so far. Answers whether it must be read.
    pub(super) fn hear_head(&mut self, position: Position) -> bool {
        self.head = self.head.max(position);
        // An earlier epoch is that of a log that was begun by somebody who did not know of ours, which was lost.
        self.loaded && (position > self.through || position.epoch < self.epoch)
    }

    /// Our own entry is in the log. Answers whether all before it was handed over; where not, the log must be read.
    pub(super) fn appended(&mut self, position: Position, stamp: Stamp) -> Result<bool, OtherLog> {
        self.head = self.head.max(position);
        let unseen = self.known.range((Excluded(self.through), Unbounded)).count();
        if !self.loaded || !self.agrees(position, Some(stamp)) || unseen == MAX_KNOWN {
            self.doubt();
            return Err(OtherLog);
        }
        if position <= self.through {
            // It was heard or read before it was answered; or that was long ago.
            return Ok(self.known.contains_key(&position));
        }
        let next = self.reading.is_none() && self.is_next(position);
        match next {
            true => self.advance(position, Some(stamp)),
            false => self.know(position, Some(stamp)),
        }
        Ok(next)
    }

    /// The log should be read: something lies beyond our place, or may. Answers from where on, unless it is being read:
    /// then it will be once more.
    pub(super) fn begin_reading(&mut self) -> Option<Position> {
        self.read_again |= self.reading.is_some();
        if !self.loaded || self.reading.is_some() {
            return None;
        }
        self.reading = Some(self.head);
        Some(self.through)
    }

    /// Entries were read, from our place on; behind them there may be more. Answers which of them are to be handed
    /// over; then [`Self::handed_over`] is called.
    pub(super) fn read<'a>(&mut self, entries: &'a [Entry], more: bool) -> Result<&'a [Entry], OtherLog> {
        let known = match entries {
            // There was no log, and there is none.
            [] => self.epoch == 0,
            // What we stand on may have been dropped since.
            [first, ..] => first.position == self.through || self.epoch == 0 || self.is_next(first.position),
        };
        let last = entries.last().map_or(Position::default(), |last| last.position);
        let far_enough = more || self.reading.is_none_or(|reading| reading <= last);
        if !known || !far_enough || !self.agree(entries, last) {
            self.doubt();
            self.reading = None;
            return Err(OtherLog);
        }
        let new = entries.iter().position(|entry| entry.position > self.through).unwrap_or(entries.len());
        entries[new..].iter().for_each(|entry| self.know(entry.position, stamp(entry)));
        Ok(&entries[new..])
    }

    /// Entries were handed over, behind which there may be more. Answers where to read on from, if there is something
    /// and the log is still the one that it was.
    pub(super) fn handed_over(&mut self, entries: &[Entry], more: bool) -> Option<Position> {
        if let Some(last) = entries.last()
            && self.loaded
        {
            self.began(last.position.epoch);
            self.epoch = self.epoch.max(last.position.epoch);
            self.through = last.position;
        }
        let again = mem::take(&mut self.read_again);
        let go_on = self.loaded && (again || more || self.head > self.through);
        self.reading = go_on.then_some(self.head);
        go_on.then_some(self.through)
    }

    /// Whether an entry is to be handed over, being somebody else's.
    pub(super) fn is_others(&self, stamp: Stamp) -> bool {
        !self.is_own(stamp)
    }

    /// Whether this may be the entry at this position of the log that we know.
    fn agrees(&self, position: Position, stamp: Option<Stamp>) -> bool {
        self.known.get(&position).is_none_or(|known| Some(*known) == stamp)
    }

    /// Whether these entries, through the last, may be those of the log that we know, and none is missing.
    fn agree(&self, entries: &[Entry], last: Position) -> bool {
        let unseen = match self.through < last {
            true => self.known.range((Excluded(self.through), Included(last))).count(),
            false => 0,
        };
        let found =
            |entry: &&Entry| entry.position > self.through && self.known.contains_key(&entry.position);
        entries.iter().all(|entry| self.agrees(entry.position, stamp(entry)))
            && entries.iter().filter(found).count() == unseen
    }

    fn advance(&mut self, position: Position, stamp: Option<Stamp>) {
        self.through = position;
        self.know(position, stamp);
    }

    fn know(&mut self, position: Position, stamp: Option<Stamp>) {
        self.known.extend(stamp.map(|stamp| (position, stamp)));
        if self.known.len() > MAX_KNOWN {
            self.known.pop_first();
        }
    }

    fn is_next(&self, position: Position) -> bool {
        position.epoch == self.through.epoch && position.number == self.through.number + 1
    }
}

fn stamp(entry: &Entry) -> Option<Stamp> {
    match Envelope::read(entry.envelope.clone()?)? {
        Envelope { stamp, words: Words::Record(_) } => Some(stamp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::redis::store::Meta;

    const OWN: u64 = 1;
    const OTHER: u64 = 2;
    const EPOCH: u64 = 1 << 20;

    fn at(number: u64) -> Position {
        Position { epoch: EPOCH, number }
    }

    fn by(run: u64, number: u64) -> Stamp {
        Stamp { run, number }
    }

    fn entry(number: u64, stamp: Stamp) -> Entry {
        let envelope = Envelope { stamp, words: Words::Record("record".into()) };
        Entry { position: at(number), envelope: Some(envelope.write()) }
    }

    /// A place in a log with entries 0 (which begins the epoch) to 3, of others.
    fn loaded() -> Place {
        let mut place = Place::new(Own { run: OWN, since: 10 });
        let begin = Entry { position: at(0), envelope: None };
        let log = [begin].into_iter().chain((1..=3).map(|number| entry(number, by(OTHER, number)))).collect();
        let meta = Meta { epoch: EPOCH, ..Meta::default() };
        assert!(!place.loaded(&Kept { meta, log, set_aside: vec![] }));
        place
    }

    #[test]
    fn what_is_of_a_document_that_was_begun_anew_is_not_handed_over() {
        let later = |generations: u64, lost: u64| Position {
            epoch: EPOCH + (generations << GENERATION_SHIFT) + lost,
            number: 1,
        };
        let mut place = loaded();
        assert!(!place.is_before(later(0, 1).epoch) && place.is_before(later(1, 0).epoch));
        assert_eq!(place.hear(later(1, 0), by(OTHER, 9)), Heard::OtherDocument);
        // Nor while it is waited for that it is loaded again.
        assert_eq!(place.hear(later(2, 3), by(OTHER, 10)), Heard::OtherDocument);
        // A log that was lost is another one of the same document.
        assert_eq!(loaded().hear(later(0, 1), by(OTHER, 9)), Heard::OtherLog);
        // Who has no log yet may meet any.
        assert_eq!(Place::new(Own { run: OWN, since: 10 }).hear(later(1, 0), by(OTHER, 9)), Heard::HandOver);
    }

    #[test]
    fn what_comes_in_order_is_handed_over_once() {
        let mut place = loaded();
        assert_eq!(place.hear(at(4), by(OTHER, 4)), Heard::HandOver);
        assert_eq!(place.hear(at(5), by(OWN, 10)), Heard::Nothing, "it is our own");
        assert_eq!(place.appended(at(5), by(OWN, 10)), Ok(true), "the message outran the answer");
        assert_eq!(place.appended(at(6), by(OWN, 11)), Ok(true), "the answer outran the message");
        assert_eq!(place.hear(at(6), by(OWN, 11)), Heard::Nothing);
        assert_eq!(place.through(), at(6));
    }

    #[test]
    fn a_gap_is_read_and_then_all_is_in_order_again() {
        let mut place = loaded();
        assert_eq!(place.hear(at(6), by(OTHER, 6)), Heard::Unclear);
        assert_eq!(place.begin_reading(), Some(at(3)));
        assert_eq!(place.hear(at(7), by(OTHER, 7)), Heard::Nothing, "it comes with what is read");
        let entries: Vec<_> = (3..=6).map(|number| entry(number, by(OTHER, number))).collect();
        let new = place.read(&entries, false).unwrap().to_vec();
        assert_eq!(new, entries[1..]);
        assert_eq!(place.handed_over(&new, false), Some(at(6)), "7 is known of");
        let entries = [entry(6, by(OTHER, 6)), entry(7, by(OTHER, 7))];
        let new = place.read(&entries, false).unwrap().to_vec();
        assert_eq!(place.handed_over(&new, false), None);
        assert_eq!(place.hear(at(8), by(OTHER, 8)), Heard::HandOver);
    }

    #[test]
    fn an_own_gap_is_noticed_by_the_answer() {
        let mut place = loaded();
        assert_eq!(place.appended(at(5), by(OWN, 10)), Ok(false), "4 was not heard");
        assert_eq!(place.through(), at(3));
    }

    #[test]
    fn a_log_that_went_back_is_noticed() {
        // By the answer to an append, whose place we know as another entry's.
        assert_eq!(loaded().appended(at(3), by(OWN, 10)), Err(OtherLog));
        // By what is heard.
        let mut place = loaded();
        place.hear(at(4), by(OTHER, 4));
        assert_eq!(place.hear(at(4), by(OTHER, 5)), Heard::OtherLog);
        assert_eq!(place.hear(at(5), by(OTHER, 6)), Heard::HandOver, "until it is loaded again");
        assert_eq!(place.appended(at(6), by(OWN, 10)), Err(OtherLog));
        // By what is read: another entry where we stand, or none.
        assert!(loaded().read(&[entry(3, by(OTHER, 9))], false).is_err());
        assert!(loaded().read(&[], false).is_err());
        // By a later epoch.
        let later = Position { epoch: EPOCH + 1, number: 1 };
        assert_eq!(loaded().hear(later, by(OTHER, 4)), Heard::OtherLog);
    }

    #[test]
    fn a_large_entry_where_another_one_stood_is_noticed() {
        assert_eq!(loaded().hear_of(at(4), by(OTHER, 4)), Heard::Unclear, "it must be read");
        assert_eq!(loaded().hear_of(at(3), by(OTHER, 3)), Heard::Nothing, "it was read");
        let mut place = loaded();
        assert_eq!(place.hear_of(at(3), by(OTHER, 9)), Heard::OtherLog);
        assert_eq!(place.hear_of(at(3), by(OTHER, 10)), Heard::Nothing, "until it is loaded again");
        let before = Position { epoch: EPOCH - 1, number: 1 };
        assert_eq!(
            loaded().hear_of(before, by(OTHER, 9)),
            Heard::Unclear,
            "ours was lost, and another one begun"
        );
        assert!(loaded().hear_head(before));
    }

    #[test]
    fn entries_of_a_follower_before_are_those_of_others() {
        let mut place = loaded();
        assert_eq!(place.hear(at(4), by(OWN, 9)), Heard::HandOver);
    }

    #[test]
    fn an_own_entry_that_is_not_where_it_was_put_is_noticed() {
        let mut place = loaded();
        assert_eq!(place.begin_reading(), Some(at(3)));
        assert_eq!(place.appended(at(4), by(OWN, 10)), Ok(false), "it comes with what is being read");
        let mut gone_back = loaded();
        gone_back.begin_reading();
        gone_back.appended(at(4), by(OWN, 10)).unwrap();
        let entries = [entry(3, by(OTHER, 3)), entry(4, by(OTHER, 4))];
        assert_eq!(gone_back.read(&entries, false), Err(OtherLog), "the log went back and on");
        let entries = [entry(3, by(OTHER, 3)), entry(4, by(OWN, 10))];
        assert_eq!(place.read(&entries, false), Ok(&entries[1..]));
    }

    #[test]
    fn a_log_that_is_shorter_than_it_was_is_noticed() {
        let mut place = loaded();
        assert_eq!(place.hear(at(5), by(OTHER, 5)), Heard::Unclear);
        assert_eq!(place.begin_reading(), Some(at(3)));
        assert_eq!(place.read(&[entry(3, by(OTHER, 3))], false), Err(OtherLog));
    }

    #[test]
    fn a_log_that_was_begun_anew_is_noticed() {
        // Of its entries the first that is heard has a place that we know as another one's.
        assert_eq!(loaded().hear(at(1), by(OTHER, 9)), Heard::OtherLog);
        // Or one that we have forgotten: then the log tells.
        let mut place = loaded();
        for number in 4..100 {
            assert_eq!(place.hear(at(number), by(OTHER, number)), Heard::HandOver);
        }
        assert_eq!(place.hear(at(1), by(OTHER, 109)), Heard::Unclear);
        assert_eq!(place.begin_reading(), Some(at(99)));
        assert_eq!(place.hear(at(2), by(OTHER, 110)), Heard::Unclear);
        assert_eq!(place.begin_reading(), None, "but it is read once more");
        assert_eq!(place.handed_over(&[], false), Some(at(99)));
        assert_eq!(place.read(&[], false), Err(OtherLog));
    }

    #[test]
    fn what_is_heard_twice_is_handed_over_once() {
        let mut place = loaded();
        assert_eq!(place.hear(at(4), by(OTHER, 4)), Heard::HandOver);
        assert_eq!(place.hear(at(4), by(OTHER, 4)), Heard::Nothing);
    }
}
