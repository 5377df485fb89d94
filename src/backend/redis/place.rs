//! Where a node stands in a document's log: what it was handed, and what tells it that something is missing.
//! Values in, values out; it knows no network and no clock.
//!
//! A position only detects. What comes is handed over whatever its position is, since a log that was rolled back
//! gives positions a second time.

use super::{
    super::Position,
    envelope::{Envelope, Stamp, Words},
    store::{Entry, Kept},
};

/// A place in a log.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Which entries are this follower's own.
    own: Own,
    /// The epoch in which this node appends; 0 where there is no log that is known.
    epoch: u64,
    /// Everything through here was handed over, or is the follower's own.
    through: Position,
    /// Who wrote the entry there.
    stamp: Option<Stamp>,
    /// The last position that was heard on the channel, since it is heard without a break.
    heard: Position,
    /// The greatest position that is known of.
    head: Position,
    /// The follower's own entry that was seen last in the log.
    echo: Option<(Position, Stamp)>,
    /// Whether the log was loaded, and is still the one that was.
    loaded: bool,
    /// Whether the log is being read: what lies beyond `through` comes with that.
    reading: bool,
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
    /// Something before it is missing: the log must be read from where we stand.
    Gap,
    /// Hand it over; the log is another one than it was, and must be compared.
    OtherLog,
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

    /// Everything through here was handed over.
    pub(super) fn through(&self) -> Position {
        self.through
    }

    /// The entry that must be in the log if it is the one that we know.
    pub(super) fn stands_on(&self) -> Option<(Position, Stamp)> {
        self.stamp.filter(|_| self.loaded).map(|stamp| (self.through, stamp))
    }

    fn is_own(&self, stamp: Stamp) -> bool {
        stamp.run == self.own.run && stamp.number >= self.own.since
    }

    /// The document was loaded as it is kept here. Answers whether there is more by now.
    pub(super) fn loaded(&mut self, kept: &Kept) -> bool {
        let last = kept.log.last();
        self.epoch = last.map_or(0, |last| last.position.epoch).max(kept.meta.epoch);
        self.through = last.map_or(kept.meta.through, |last| last.position);
        self.stamp = last.and_then(stamp);
        self.loaded = true;
        for entry in &kept.log {
            self.see(entry);
        }
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

    /// The channel was not heard for a while.
    pub(super) fn missed(&mut self) {
        self.heard = Position::default();
    }

    /// The log was lost, or may have been: from here on nothing is concluded until it is loaded again.
    pub(super) fn doubt(&mut self) {
        self.loaded = false;
        self.head = Position::default();
    }

    /// An entry was heard on the channel.
    pub(super) fn hear(&mut self, position: Position, stamp: Stamp) -> Heard {
        let rewound = position <= self.heard || (self.epoch > 0 && position.epoch > self.epoch);
        self.heard = position;
        self.head = self.head.max(position);
        let own = self.is_own(stamp);
        if own {
            self.echo = Some((position, stamp));
        }
        if !self.loaded {
            return if own { Heard::Nothing } else { Heard::HandOver };
        }
        if rewound {
            self.doubt();
            return Heard::OtherLog;
        }
        self.began(position.epoch);
        if position <= self.through {
            // It was read before it was heard; or its place was given to another one.
            return if own { Heard::Nothing } else { Heard::HandOver };
        }
        if self.reading || !self.is_next(position) {
            return if self.reading { Heard::Nothing } else { Heard::Gap };
        }
        (self.through, self.stamp) = (position, Some(stamp));
        if own { Heard::Nothing } else { Heard::HandOver }
    }

    /// It is known that the log goes so far. Answers whether it must be read.
    pub(super) fn hear_head(&mut self, position: Position) -> bool {
        self.head = self.head.max(position);
        self.loaded && position > self.through
    }

    /// Our own entry is in the log. Answers whether all before it was handed over.
    pub(super) fn appended(&mut self, position: Position, stamp: Stamp) -> Result<bool, OtherLog> {
        self.head = self.head.max(position);
        if !self.loaded {
            return Err(OtherLog);
        }
        if position <= self.through {
            // Either it was heard or read already, or the log has gone back and gives its places again.
            return match self.echo == Some((position, stamp)) {
                true => Ok(true),
                false => {
                    self.doubt();
                    Err(OtherLog)
                }
            };
        }
        let next = self.is_next(position) && !self.reading;
        if next {
            (self.through, self.stamp) = (position, Some(stamp));
        }
        Ok(next)
    }

    /// Whether the log should be read: something lies beyond our place, or may.
    pub(super) fn begin_reading(&mut self) -> Option<Position> {
        let may = self.loaded && !self.reading;
        self.reading |= may;
        may.then_some(self.through)
    }

    /// Entries were read, from our place on. Answers which of them are to be handed over; then [`Self::handed_over`]
    /// is called.
    pub(super) fn read<'a>(&mut self, entries: &'a [Entry]) -> Result<&'a [Entry], OtherLog> {
        let known = match entries {
            // There was no log, and there is none.
            [] if self.epoch == 0 => true,
            [] => false,
            [first, ..] if first.position == self.through => {
                self.stamp.is_none() || stamp(first) == self.stamp
            }
            // What we stand on may have been dropped since.
            [first, ..] => self.epoch == 0 || self.is_next(first.position),
        };
        if !known {
            self.doubt();
            self.reading = false;
            return Err(OtherLog);
        }
        let new = entries.iter().position(|entry| entry.position > self.through).unwrap_or(entries.len());
        for entry in &entries[new..] {
            self.see(entry);
        }
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
            (self.through, self.stamp) = (last.position, stamp(last));
        }
        self.reading = self.loaded && (more || self.head > self.through);
        self.reading.then_some(self.through)
    }

    /// Whether an entry is to be handed over, being somebody else's.
    pub(super) fn is_others(&self, stamp: Stamp) -> bool {
        !self.is_own(stamp)
    }

    fn see(&mut self, entry: &Entry) {
        if let Some(stamp) = stamp(entry).filter(|stamp| self.is_own(*stamp)) {
            self.echo = Some((entry.position, stamp));
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
        assert_eq!(place.hear(at(6), by(OTHER, 6)), Heard::Gap);
        assert_eq!(place.begin_reading(), Some(at(3)));
        assert_eq!(place.hear(at(7), by(OTHER, 7)), Heard::Nothing, "it comes with what is read");
        let entries: Vec<_> = (3..=6).map(|number| entry(number, by(OTHER, number))).collect();
        let new = place.read(&entries).unwrap().to_vec();
        assert_eq!(new, entries[1..]);
        assert_eq!(place.handed_over(&new, false), Some(at(6)), "7 is known of");
        let entries = [entry(6, by(OTHER, 6)), entry(7, by(OTHER, 7))];
        let new = place.read(&entries).unwrap().to_vec();
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
        assert!(loaded().read(&[entry(3, by(OTHER, 9))]).is_err());
        assert!(loaded().read(&[]).is_err());
        // By a later epoch.
        let later = Position { epoch: EPOCH + 1, number: 1 };
        assert_eq!(loaded().hear(later, by(OTHER, 4)), Heard::OtherLog);
    }

    #[test]
    fn entries_of_a_follower_before_are_those_of_others() {
        let mut place = loaded();
        assert_eq!(place.hear(at(4), by(OWN, 9)), Heard::HandOver);
    }
}
