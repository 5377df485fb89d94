//! A document as this node holds it: yrs behind the guard. Values go in and values come out; it knows no
//! session, no clock, no network and no disk.

pub mod edit;
pub mod export;
pub mod pieces;
mod size;

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;
use yrs::{
    ClientID, Doc, ID, IdSet, OffsetKind, ReadTxn, Transact,
    updates::{decoder::Decode, encoder::Encode},
};

use self::size::{Size, added, growth};
use crate::{
    guard::{Admitted, Guard, Ready, Rest, RootEvidence},
    state_vector::StateVector,
    update::{ClientId, Clock, Malformed, Update},
};

/// How many updates of a log go into one transaction: yrs squashes at the end of one, and a transaction
/// over a whole log costs time that grows with its square.
const UPDATES_PER_TRANSACTION: usize = 1_000;
/// Clients in one update from outside: more than have edited any document of people.
const MAX_CLIENTS: usize = 10_000;

/// The document itself. After [`UpdateError::Broken`] it must be forgotten, not dropped and not used.
#[derive(Debug)]
pub struct Document {
    doc: Doc,
    guard: Guard,
    size: Size,
    /// Whether the engine was given anything in disguise.
    has_subdocuments: bool,
    /// The hashes of updates that broke the engine before.
    set_aside: HashSet<u128>,
}

/// A change that everybody must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The change, as an update.
    pub update: Bytes,
    /// For each client the first clock that it adds; empty where it only deletes.
    pub adds: Vec<(ClientId, Clock)>,
}

/// What came of an update.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// What everybody else must hear of; none where the update changed nothing.
    pub news: Option<News>,
    /// The part that needs what is missing here.
    pub rest: Option<Rest>,
}

/// Why an update was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It breaks a rule; the document is as it was before.
    #[error("{0}")]
    Refused(#[from] Malformed),
    /// It adds content, and the document seems to have no space for it; [`Document::measure`] says for sure.
    #[error("the document is full")]
    Full,
    /// The document engine failed: this replica is worth nothing any more and must be opened anew.
    #[error("the document engine failed: {0}")]
    Broken(String),
}

/// Why stored bytes do not make a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// An update was not taken in.
    #[error("stored update {index}: {error}")]
    Update {
        /// Which one, from 0.
        index: usize,
        /// Why.
        error: UpdateError,
    },
    /// An update needs content that no update before it has: something is missing in the store.
    #[error("stored update {index} needs content that is not in the store")]
    Gap {
        /// Which one, from 0.
        index: usize,
    },
}

impl Default for Document {
    fn default() -> Self {
        Self::with_client(yrs::Options::default().client_id)
    }
}

impl Document {
    /// An empty document whose own edits, if there are any, have this id.
    fn with_client(client_id: ClientID) -> Self {
        let doc = Doc::with_options(yrs::Options {
            client_id,
            // Lengths on the wire are JavaScript's.
            offset_kind: OffsetKind::Utf16,
            // A server makes no edits of its own.
            cleanup_formatting: false,
            ..yrs::Options::default()
        });
        Self {
            doc,
            guard: Guard::default(),
            size: Size::default(),
            has_subdocuments: false,
            set_aside: HashSet::new(),
        }
    }

    /// A document from the updates that a backend kept of it, oldest first.
    pub fn load<B: AsRef<[u8]>>(updates: &[B]) -> Result<Self, LoadError> {
        let (document, gaps) = Self::load_with_gaps(updates)?;
        match gaps.first() {
            None => Ok(document),
            Some(&(index, _)) => Err(LoadError::Gap { index }),
        }
    }

    /// A document from a store of which a part may be missing at the moment, and what needs that part: each with
    /// the number of the update that it comes from.
    pub fn load_with_gaps<B: AsRef<[u8]>>(updates: &[B]) -> Result<(Self, Vec<(usize, Rest)>), LoadError> {
        let mut document = Self::default();
        match document.load_chunks(updates) {
            Ok(gaps) => Ok((document, gaps)),
            Err(error) => {
                std::mem::forget(document);
                Err(error)
            }
        }
    }

    fn load_chunks<B: AsRef<[u8]>>(&mut self, updates: &[B]) -> Result<Vec<(usize, Rest)>, LoadError> {
        let mut gaps = Vec::new();
        for (chunk, updates) in updates.chunks(UPDATES_PER_TRANSACTION).enumerate() {
            self.load_chunk(chunk * UPDATES_PER_TRANSACTION, updates, &mut gaps)?;
        }
        // Content may stand behind what needs it.
        while let Some(at) = gaps.iter().position(|(_, rest)| self.knows_any(rest)) {
            let (index, rest): (usize, Rest) = gaps.remove(at);
            self.load_chunk(index, &[rest.update], &mut gaps)?;
        }
        Ok(gaps)
    }

    fn load_chunk<B: AsRef<[u8]>>(
        &mut self,
        first: usize,
        updates: &[B],
        gaps: &mut Vec<(usize, Rest)>,
    ) -> Result<(), LoadError> {
        let mut ready = Vec::with_capacity(updates.len());
        for (index, bytes) in updates.iter().enumerate() {
            let index = first + index;
            let read = Update::read(bytes.as_ref())
                .map_err(|error| LoadError::Update { index, error: error.into() })?;
            let (update, admitted) =
                self.let_in(&read).map_err(|error| LoadError::Update { index, error })?;
            self.size.grow(growth(&read));
            gaps.extend(admitted.rest.map(|rest| (index, rest)));
            ready.extend(update);
        }
        self.apply(ready).map_err(|error| LoadError::Update { index: first, error }).map(drop)
    }

    /// From now on refuses an update that broke the engine before.
    pub fn set_aside(&mut self, update: &[u8]) {
        self.set_aside.insert(xxh3_128(update));
    }

    /// From now on takes no update from outside with which it would have more than so many bytes, unless the update
    /// only deletes.
    pub fn limit_bytes(&mut self, max: usize) {
        self.size.limit(max);
    }

    /// About how many bytes the update has that holds all of the document: too many rather than too few.
    pub fn bytes(&self) -> usize {
        self.size.bytes()
    }

    /// About how many blocks the engine keeps.
    pub fn blocks(&self) -> usize {
        self.size.blocks()
    }

    /// Finds out how many bytes exactly, which takes as long as encoding all of it.
    pub fn measure(&self) -> Result<usize, UpdateError> {
        Ok(self.diff(&StateVector::default())?.len())
    }

    /// Takes in an update from outside, or that part of it that stands on known ground.
    pub fn receive(&mut self, update: Bytes) -> Result<Received, UpdateError> {
        let read = self.read(&update)?;
        if !self.size.has_space_for(&read, &self.guard) {
            return Err(UpdateError::Full);
        }
        self.take_in(update.clone(), &read)
    }

    /// Whether an update from outside needs something that is not here. It is only looked at.
    pub fn lacks_for(&mut self, update: &[u8]) -> Result<bool, UpdateError> {
        let read = self.read(update)?;
        Ok(self.guard.lacks_for(&read)?)
    }

    fn read<'a>(&self, update: &'a [u8]) -> Result<Update<'a>, Malformed> {
        if !self.set_aside.is_empty() && self.set_aside.contains(&xxh3_128(update)) {
            return Err(Malformed::Rule("it broke the document engine before, and was set aside"));
        }
        let read = Update::read_from_outside(update)?;
        match read.sections.len() {
            0..=MAX_CLIENTS => Ok(read),
            _ => Err(Malformed::Rule("an update has edits of more than 10,000 clients: send it in parts")),
        }
    }

    /// Takes in an update that another node kept: it passed the limits for what comes from outside there, or is
    /// made of many that did.
    pub fn receive_kept(&mut self, update: Bytes) -> Result<Received, UpdateError> {
        self.take_in(update.clone(), &Update::read(&update)?)
    }

    fn take_in(&mut self, update: Bytes, read: &Update<'_>) -> Result<Received, UpdateError> {
        let (ready, admitted) = self.let_in(read)?;
        let mut received = Received { news: None, rest: admitted.rest };
        if ready.is_empty() {
            return Ok(received);
        }
        #[cfg(test)]
        contained(|| tests::break_if_told(&update))?;
        if self.apply(ready)? {
            let whole = matches!(admitted.ready, Ready::Whole(_)) && !admitted.straddles;
            let update = match admitted.ready {
                _ if admitted.straddles => self.diff_from(&admitted.adds.iter().copied().collect())?,
                Ready::Part(part, _) => part.into(),
                Ready::Whole(_) | Ready::Nothing => update,
            };
            self.size.grow(if whole { growth(read) } else { growth(&Update::read(&update)?) });
            received.news = Some(News { update, adds: admitted.adds });
        }
        Ok(received)
    }

    /// Asks the guard; what it lets in is decoded, and must be applied.
    fn let_in(&mut self, update: &Update<'_>) -> Result<(Vec<yrs::Update>, Admitted), UpdateError> {
        // Before the guard learns it, so that an update that yrs cannot read leaves no trace.
        let whole = contained(|| yrs::Update::decode_v1(&update.disguised()))?
            .map_err(|_| Malformed::Rule("the document engine cannot read it"))?;
        let admitted = self.guard.admit(update)?;
        self.has_subdocuments |= update.has_subdocuments;
        let decode = |bytes: &Vec<u8>| {
            let decoded = contained(|| match update.has_subdocuments {
                true => {
                    let part = Update::read(bytes).expect("a part of an update is an update");
                    yrs::Update::decode_v1(&part.disguised())
                }
                false => yrs::Update::decode_v1(bytes),
            });
            decoded?.map_err(|error| UpdateError::Broken(error.to_string()))
        };
        let ready = match &admitted.ready {
            Ready::Nothing => Vec::new(),
            Ready::Whole(steps) if steps.is_empty() => vec![whole],
            Ready::Part(part, steps) if steps.is_empty() => vec![decode(part)?],
            Ready::Whole(steps) | Ready::Part(_, steps) => {
                steps.iter().map(decode).collect::<Result<_, _>>()?
            }
        };
        Ok((ready, admitted))
    }

    /// Gives updates to yrs, and tells whether they changed anything.
    fn apply(&mut self, updates: Vec<yrs::Update>) -> Result<bool, UpdateError> {
        let outcome = contained(|| {
            // A transaction commits when it is dropped; while a panic unwinds that would be a second panic.
            let mut transaction = std::mem::ManuallyDrop::new(self.doc.transact_mut());
            for update in updates {
                transaction.apply_update(update).map_err(|error| error.to_string())?;
            }
            if transaction.has_missing_updates() {
                return Err("an update was let in that needs something missing".to_owned());
            }
            let changed = transaction.has_changes();
            transaction.commit();
            drop(std::mem::ManuallyDrop::into_inner(transaction));
            Ok(changed)
        });
        outcome?.map_err(UpdateError::Broken)
    }

    /// Whether everything that an update brings is here already.
    pub fn has(&self, update: &[u8]) -> Result<bool, UpdateError> {
        let update = Update::read_from_outside(update)?;
        let adds = added(&update, &self.guard) > 0;
        if adds || update.deletes.is_empty() {
            return Ok(!adds);
        }
        contained(|| {
            let mut deletes = IdSet::new();
            for (client, range) in &update.deletes {
                deletes.insert(ID::new(ClientID::new(*client), range.start), range.end - range.start);
            }
            deletes.diff(&self.doc.transact().snapshot().delete_set).is_empty()
        })
    }

    /// How much of each client's edits is here.
    pub fn state_vector(&self) -> StateVector {
        self.guard.state_vector()
    }

    /// The first clock of this client that is not here.
    pub fn next_clock(&self, client: ClientId) -> Clock {
        self.guard.next_clock(client)
    }

    /// Whether a part that was kept aside is worth another try.
    pub fn knows_any(&self, rest: &Rest) -> bool {
        rest.needs.iter().any(|id| self.guard.knows(*id))
    }

    /// Whether the document holds nothing at all, not even something deleted.
    pub fn is_empty(&self) -> bool {
        self.guard.state_vector().iter().next().is_none()
    }

    /// What was learned about each root type, by name.
    pub fn roots(&self) -> impl Iterator<Item = (&str, RootEvidence)> {
        self.guard.roots()
    }

    /// What somebody with this state vector lacks, and all deletions, as an update.
    pub fn diff(&self, since: &StateVector) -> Result<Bytes, UpdateError> {
        // Clients that are not known here change nothing; yrs would hash their ids, which are the sender's choice.
        let known = since.iter().filter(|&(client, _)| self.guard.next_clock(client) > 0);
        let clocks = known.map(|(client, clock)| (yrs::ClientID::new(client), clock));
        let state_vector = yrs::StateVector::new(clocks.collect());
        let mut diff = contained(|| self.doc.transact().encode_diff_v1(&state_vector))?;
        if self.has_subdocuments {
            let broken = |error: Malformed| UpdateError::Broken(error.to_string());
            let read = Update::read(&diff).map_err(broken)?;
            diff = contained(|| read.undisguised().into_owned())?;
        }
        if state_vector.is_empty() {
            self.size.correct(diff.len());
        }
        Ok(diff.into())
    }

    /// What somebody lacks who has everything but what came from these clocks on, as an update.
    pub fn diff_from(&self, missing: &HashMap<ClientId, Clock>) -> Result<Bytes, UpdateError> {
        let mut since = self.state_vector();
        for (&client, &clock) in missing {
            since.lower(client, clock);
        }
        self.diff(&since)
    }

    /// The whole document as an update, with its fingerprint.
    pub fn snapshot(&self) -> Result<(Bytes, u128), UpdateError> {
        Ok((self.diff(&StateVector::default())?, self.fingerprint()?))
    }

    /// How much was ever inserted, and how much of that was deleted.
    pub fn inserted_and_deleted(&self) -> Result<(u64, u64), UpdateError> {
        let inserted = self.state_vector().iter().map(|(_, clock)| u64::from(clock)).sum();
        contained(|| {
            let deletions = self.doc.transact().snapshot().delete_set;
            let ranges = deletions.iter().flat_map(|(_, ranges)| ranges.iter());
            (inserted, ranges.map(|range| u64::from(range.end - range.start)).sum())
        })
    }

    /// A number that is equal for equal documents: of the sorted state vector and the deletions.
    pub fn fingerprint(&self) -> Result<u128, UpdateError> {
        contained(|| {
            let mut bytes = self.state_vector().write();
            bytes.extend(self.doc.transact().snapshot().delete_set.encode_v1());
            xxh3_128(&bytes)
        })
    }
}

/// Reads a whole document's update back, and finds it to be the document with this fingerprint or not.
pub fn check_snapshot(snapshot: &[u8], fingerprint: u128) -> Result<(), LoadError> {
    let copy = Document::load(&[snapshot])?;
    let same = copy.fingerprint().map(|copy| copy == fingerprint);
    let wrong = |error| LoadError::Update { index: 0, error };
    match same.map_err(wrong)? {
        true => Ok(()),
        false => Err(wrong(UpdateError::Broken("a snapshot reads back as another document".to_owned()))),
    }
}

/// Runs what uses yrs. A panic there says that its memory cannot be trusted any more.
pub fn contained<T>(run: impl FnOnce() -> T) -> Result<T, UpdateError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        UpdateError::Broken(text.unwrap_or("a panic without a text").to_owned())
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// No update is known that makes yrs fail and that the guard lets in: this text does in its place.
    const BREAKING: &[u8] = b"break the engine";

    pub(super) fn break_if_told(update: &[u8]) {
        assert!(
            !update.windows(BREAKING.len()).any(|window| window == BREAKING),
            "the engine is told to fail"
        );
    }

    pub(crate) fn breaking_update() -> Bytes {
        [&[1, 1, 77, 0, 4, 1, 1, b't', BREAKING.len() as u8][..], BREAKING, &[0]].concat().into()
    }
}
