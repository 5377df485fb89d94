//! What a document already knows, and whether an update may go to yrs.
//!
//! yrs can be killed, hung or corrupted by a few dozen bytes, and it diverges when it is given updates with
//! gaps. So nothing reaches it that this index has not understood: every block stands on known ground,
//! belongs where its neighbours do, and is of a kind that its parent can hold.
//!
//! The index is made of runs: for each client, stretches of clocks with one place and one kind of content.
//! A text that one person typed is a single run, whatever its length.

mod entry;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use self::entry::Entry;
use crate::{
    state_vector::StateVector,
    update::{ClientId, Clock, Id, Malformed, TypeKind, Update},
};

/// What one document knows.
#[derive(Debug, Default)]
pub struct Guard {
    /// Sorted, because that is fast for the few clients of most documents, and no choice of ids makes it slow.
    clients: BTreeMap<ClientId, Known>,
    holders: Interned<Holder>,
    keys: Interned<Arc<str>>,
    roots: BTreeMap<Arc<str>, RootEvidence>,
    crowds: Crowds,
}

/// How many clients there are with the same low bits in their ids. yrs takes an id for its hash: clients that are
/// chosen to collide make everything slow. Random ids come nowhere near the limit.
#[derive(Debug, Default)]
struct Crowds(HashMap<u16, u16>);

impl Crowds {
    const MAX: u16 = 256;

    fn join(&mut self, client: ClientId) -> Result<(), Malformed> {
        let crowd = self.0.entry(client as u16).or_default();
        if *crowd == Self::MAX {
            return Err(Malformed::Rule(
                "more than 256 client ids of the document end in the same 16 bits: draw them at random",
            ));
        }
        *crowd += 1;
        Ok(())
    }

    fn leave(&mut self, client: ClientId) {
        if let Some(crowd) = self.0.get_mut(&(client as u16)) {
            *crowd -= 1;
        }
    }
}

/// What is known of one client: everything before `next`, without a gap.
#[derive(Debug, Default)]
struct Known {
    next: Clock,
    runs: Vec<Run>,
}

/// Content of one kind in one place; it reaches to the next run's start.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: Clock,
    place: Option<Place>,
    kind: Kind,
}

/// Where content belongs: in what, and under which key. Content whose place nobody knows any more was
/// collected, and what refers to it is collected as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    holder: u32,
    key: Option<u32>,
}

/// A root type or a nested one, as something that holds content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Root(Arc<str>),
    Item { id: Id, depth: u32 },
}

/// The kinds of content that must be told apart later on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Deleted or collected: whatever it was, it holds nothing any more.
    Gone,
    /// Text, formats and embedded values.
    Text,
    /// Values, bytes and subdocuments.
    Value,
    /// A shared type.
    Type(TypeKind),
}

/// What the updates tell about a root type, whose kind no update carries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RootEvidence {
    /// It held text, formats or embedded values.
    pub text: bool,
    /// It held XML elements or XML texts.
    pub xml: bool,
    /// It held something under a key.
    pub map: bool,
    /// It held other values in a row.
    pub array: bool,
}

/// What an update means to a document that has let it in.
#[derive(Debug)]
pub struct Admitted {
    /// What must go to yrs now: the whole update, a part of it, or nothing.
    pub ready: Ready,
    /// What needs something that is missing.
    pub rest: Option<Rest>,
    /// For each client the first clock that `ready` adds.
    pub adds: Vec<(ClientId, Clock)>,
    /// Whether `ready` has a block that begins with what was known before. That part of it was not looked at, so
    /// the block must not be passed on as it is.
    pub straddles: bool,
}

/// The part of an update that stands on known ground and may be news.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nothing.
    Nothing,
    /// The bytes as they came. Where they are many clients' edits, yrs must get them as these updates, in their
    /// order; otherwise there are none.
    Whole(Vec<Vec<u8>>),
    /// These bytes, and the same.
    Part(Vec<u8>, Vec<Vec<u8>>),
}

/// The part of an update that cannot be understood yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// It, as an update of its own.
    pub update: Vec<u8>,
    /// Content without which it cannot be understood: when one of these is known, a new try is worth it.
    pub needs: Vec<Id>,
}

impl Guard {
    /// The first clock of each client that is not known.
    pub fn state_vector(&self) -> StateVector {
        self.clients.iter().map(|(&client, known)| (client, known.next)).collect()
    }

    /// The first clock of this client that is not known.
    pub fn next_clock(&self, client: ClientId) -> Clock {
        self.clients.get(&client).map_or(0, |known| known.next)
    }

    /// Whether this content is known.
    pub fn knows(&self, id: Id) -> bool {
        id.clock < self.next_clock(id.client)
    }

    /// What was learned about each root type, by name.
    pub fn roots(&self) -> impl Iterator<Item = (&str, RootEvidence)> {
        self.roots.iter().map(|(name, evidence)| (&**name, *evidence))
    }

    /// Whether an update may come in, and what of it. What is let in is known from now on, so `ready` must
    /// be applied. An update that breaks a rule leaves no trace.
    pub fn admit(&mut self, update: &Update<'_>) -> Result<Admitted, Malformed> {
        let mut entry = Entry::new(self, update);
        match entry.walk() {
            Ok(()) => Ok(entry.finish()),
            Err(refused) => {
                entry.undo();
                Err(refused)
            }
        }
    }

    /// Whether an update needs something that is not known. It is only looked at.
    pub fn lacks_for(&mut self, update: &Update<'_>) -> Result<bool, Malformed> {
        let mut entry = Entry::new(self, update);
        let lacks = entry.walk().map(|()| entry.leaves_something());
        entry.undo();
        lacks
    }

    fn run_at(&self, id: Id) -> Option<Run> {
        let known = self.clients.get(&id.client).filter(|known| id.clock < known.next)?;
        let after = known.runs.partition_point(|run| run.start <= id.clock);
        Some(known.runs[after - 1])
    }
}

/// Values that are kept once and named by a small number.
#[derive(Debug)]
struct Interned<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interned<T> {
    fn index(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.numbers.insert(value.clone(), number);
        self.values.push(value);
        number
    }

    fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn truncate(&mut self, len: usize) {
        for value in self.values.drain(len..) {
            self.numbers.remove(&value);
        }
    }
}
