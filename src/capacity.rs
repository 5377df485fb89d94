//! How much of the node its open documents take, and which of them can make space: those that nobody is in, the
//! longest idle first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::name::DocumentName;

/// What an open document takes, measured as the growth of the resident memory (mimalloc, Linux) per document while
/// many were opened and left by their only session: 8.4 KiB with nothing in it, 10.6 KiB with 20 letters.
const FIXED_BYTES: usize = 10 * 1024;
/// What it takes for each byte of the update that holds all of it: 2.3 for a text of a megabyte in one block, 1.9 for
/// one of ten kilobytes.
const BYTES_PER_BYTE: usize = 2;
/// What it takes for each block of that update besides: 520 in a paper that was
/// really typed (377 KB, 11,000 blocks), 500 to 550 where paragraphs nest in XML, 950 for the keys of a
/// map, 1,300 for root types with a letter each. Bytes alone say little: of those four each byte takes 17, 15, 55
/// and 125 bytes of memory.
const BYTES_PER_BLOCK: usize = 600;

/// The most that open documents may take together. No limit is `usize::MAX`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many documents (`--max-open-documents`).
    pub documents: usize,
    /// How many bytes of memory, as estimated (`--max-memory`).
    pub memory_bytes: usize,
}

/// Why there is no space for one more document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// So many documents are in use.
    #[error("the node is full: {0} documents are in use (--max-open-documents)")]
    Documents(usize),
    /// Documents that are in use take so many bytes.
    #[error("the node is full: its documents take {0} bytes of memory (--max-memory)")]
    Memory(usize),
}

impl Full {
    /// The limit, named as its flag is.
    pub fn limit(&self) -> &'static str {
        match self {
            Self::Documents(_) => "max-open-documents",
            Self::Memory(_) => "max-memory",
        }
    }
}

/// What the open documents of a node take, all together.
#[derive(Clone)]
pub struct Capacity {
    bounds: Bounds,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    places: HashMap<u64, Occupied>,
    /// Places of documents that nobody is in, in the order in which they were left.
    resting: BTreeMap<u64, u64>,
    /// The number of the next place, and of the next document that is left.
    next: u64,
    bytes: usize,
    /// How many documents were told to leave and have not left yet, and their bytes.
    leaving: usize,
    leaving_bytes: usize,
}

/// What is known of the document in a place.
struct Occupied {
    name: DocumentName,
    bytes: usize,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    InUse,
    /// Nobody is in it, and it may leave; its number in the order of those.
    Resting(u64),
    /// It was told to leave.
    Leaving,
}

/// The place of one open document, for as long as it takes memory.
pub struct Place {
    capacity: Capacity,
    number: u64,
    /// The bytes that are noted, and whether the document is noted as resting or leaving: asked far more often
    /// than they change.
    bytes: usize,
    left: bool,
}

impl Capacity {
    /// A node without documents.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Arc::default() }
    }

    /// Why one more document cannot be opened, if so. Those that were told to leave count as gone.
    pub fn lacks(&self) -> Option<Full> {
        let Bounds { documents, memory_bytes } = self.bounds;
        let taken = self.lock();
        if taken.places.len() - taken.leaving >= documents {
            Some(Full::Documents(documents))
        } else if taken.bytes - taken.leaving_bytes >= memory_bytes {
            Some(Full::Memory(memory_bytes))
        } else {
            None
        }
    }

    /// Why one more document cannot be opened, if so, although all leave that nobody is in.
    pub fn is_full(&self) -> Option<Full> {
        self.lacks().filter(|_| self.lock().resting.is_empty())
    }

    /// How many bytes of memory all documents take, as estimated.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The document that nobody has been in for the longest time and that is unused: somebody may be on the way to
    /// it. From now on it counts as gone, so it must be told to leave.
    pub fn give_up_one(&self, is_unused: impl Fn(&DocumentName) -> bool) -> Option<DocumentName> {
        let taken = &mut *self.lock();
        let can_leave = |(_, number): &(&u64, &u64)| is_unused(&taken.places[number].name);
        let (&order, &number) = taken.resting.iter().find(can_leave)?;
        taken.resting.remove(&order);
        let place = taken.places.get_mut(&number)?;
        place.standing = Standing::Leaving;
        taken.leaving += 1;
        taken.leaving_bytes += place.bytes;
        Some(place.name.clone())
    }

    /// A place for a document that is opened.
    pub fn take_place(&self, name: DocumentName) -> Place {
        let mut taken = self.lock();
        let number = taken.take_number();
        taken.bytes += FIXED_BYTES;
        taken.places.insert(number, Occupied { name, bytes: FIXED_BYTES, standing: Standing::InUse });
        Place { capacity: self.clone(), number, bytes: FIXED_BYTES, left: false }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while it holds this lock")
    }
}

impl Taken {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a place out of the order of those that can leave.
    fn use_again(&mut self, number: u64) {
        let Some(place) = self.places.get_mut(&number) else { return };
        match std::mem::replace(&mut place.standing, Standing::InUse) {
            Standing::InUse => {}
            Standing::Resting(order) => drop(self.resting.remove(&order)),
            Standing::Leaving => {
                self.leaving -= 1;
                self.leaving_bytes -= place.bytes;
            }
        }
    }
}

impl Place {
    /// Notes how large the document is, where its memory has changed by more than an eighth.
    pub fn resize(&mut self, document_bytes: usize, blocks: usize) {
        let bytes = FIXED_BYTES + BYTES_PER_BYTE * document_bytes + BYTES_PER_BLOCK * blocks;
        if bytes.abs_diff(self.bytes) <= self.bytes / 8 {
            return;
        }
        self.bytes = bytes;
        let taken = &mut *self.capacity.lock();
        if let Some(place) = taken.places.get_mut(&self.number) {
            let before = std::mem::replace(&mut place.bytes, bytes);
            taken.bytes = taken.bytes - before + bytes;
            if place.standing == Standing::Leaving {
                taken.leaving_bytes = taken.leaving_bytes - before + bytes;
            }
        }
    }

    /// Nobody is in the document, and it may leave memory.
    pub fn rest(&mut self) {
        if self.left {
            return;
        }
        self.left = true;
        let taken = &mut *self.capacity.lock();
        let order = taken.take_number();
        if let Some(place) = taken.places.get_mut(&self.number) {
            place.standing = Standing::Resting(order);
            taken.resting.insert(order, self.number);
        }
    }

    /// Somebody is in the document.
    pub fn wake(&mut self) {
        if self.left {
            self.left = false;
            self.capacity.lock().use_again(self.number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.capacity.lock();
        taken.use_again(self.number);
        if let Some(place) = taken.places.remove(&self.number) {
            taken.bytes -= place.bytes;
        }
    }
}
