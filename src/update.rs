//! Reads a Yjs update (version 1) without building it: is it well formed, which blocks does it hold, what
//! does it delete. It knows no document; what a document makes of an update is the guard's subject.
//!
//! Source of the format: `UpdateEncoderV1` and the `Content…` classes of the npm package `yjs`.

mod content;
mod disguise;
mod write;

use std::ops::Range;

pub use self::{
    disguise::{Revealed, reveal},
    write::merge,
};
use crate::lib0::{ReadError, Reader};

/// Yjs's number for one editing replica.
pub type ClientId = u64;
/// How many units of content a client has produced before; a position in its history.
pub type Clock = u32;

/// Clocks stay below this, so that no sum of two of them leaves the range of either implementation.
pub const MAX_CLOCK: u64 = (1 << 31) - 2;
/// Blocks, and deleted ranges, in one update from outside: reading them takes 50 bytes of memory each, and yrs takes more.
const MAX_PARTS: usize = 250_000;
/// Bytes of one update, so that places in it are small numbers.
const MAX_BYTES: usize = u32::MAX as usize;
/// Bytes of a small block: of those for which there is room from the beginning.
const LIKELY_BLOCK_BYTES: usize = 8;

/// One unit of content: the replica that made it and its place in that replica's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Who made it.
    pub client: ClientId,
    /// Its place in that client's history.
    pub clock: Clock,
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A place whose content was collected; it has no parent any more.
    Gc,
    /// A hole: the sender itself does not have this part.
    Skip,
    /// Content that was deleted.
    Deleted,
    /// Bytes.
    Binary,
    /// Bytes that begin with the mark of what the engine gets in disguise.
    Marked,
    /// Text.
    String,
    /// An embedded JSON value in a text.
    Embed,
    /// The beginning or end of a format in a text.
    Format,
    /// A shared type of its own.
    Type(TypeKind),
    /// JSON-like values.
    Any,
    /// A document of its own, by its guid.
    Subdocument,
}

impl Content {
    /// Whether the engine gets it in disguise.
    fn is_disguised(self) -> bool {
        matches!(self, Self::Subdocument | Self::Marked)
    }
}

/// The shared types of Yjs 13 that may nest in others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Yjs's own")]
pub enum TypeKind {
    Array,
    Map,
    Text,
    XmlElement,
    XmlFragment,
    XmlText,
}

/// Where a block says that it belongs; a block with an origin belongs where its origin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent<'a> {
    /// To the root type of this name.
    Root(&'a str),
    /// To the shared type in this block.
    Item(Id),
}

/// A run of content that was made in one go. Small, because an update may have very many.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its first clock.
    pub clock: Clock,
    /// How many clocks it spans.
    pub len: u32,
    /// What it holds.
    pub content: Content,
    origin: CompactId,
    right_origin: CompactId,
    /// Its place in the update's list of places, where it says itself where it belongs.
    place: u32,
    /// The first byte after it, in the update.
    end: u32,
}

/// No place, and no clock.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct CompactId {
    client: ClientId,
    /// [`NONE`] where there is no id.
    clock: Clock,
}

impl From<Id> for CompactId {
    fn from(Id { client, clock }: Id) -> Self {
        Self { client, clock }
    }
}

impl CompactId {
    const NONE: Self = Self { client: 0, clock: NONE };

    fn get(self) -> Option<Id> {
        (self.clock != NONE).then_some(Id { client: self.client, clock: self.clock })
    }
}

impl Block {
    /// The first clock after it.
    pub fn end_clock(&self) -> Clock {
        self.clock + self.len
    }

    /// What stood to its left when it was made.
    pub fn origin(&self) -> Option<Id> {
        self.origin.get()
    }

    /// What stood to its right when it was made.
    pub fn right_origin(&self) -> Option<Id> {
        self.right_origin.get()
    }
}

/// The blocks of one client in an update, contiguous (holes are blocks too).
#[derive(Debug, Clone)]
pub struct Section {
    /// Who made them.
    pub client: ClientId,
    /// Which of the update's blocks they are.
    pub blocks: Range<usize>,
    /// The first byte of the first block, in the update.
    start: usize,
}

/// Everything that an update says, as far as a guard must know it.
#[derive(Debug, Clone)]
pub struct Update<'a> {
    bytes: &'a [u8],
    /// One section per client.
    pub sections: Vec<Section>,
    /// The blocks of all sections.
    pub blocks: Vec<Block>,
    /// Where blocks belong that say so themselves: parent and key.
    places: Vec<(Parent<'a>, Option<&'a str>)>,
    /// Whether it holds subdocuments, or what looks like one in disguise.
    pub has_subdocuments: bool,
    /// What it deletes: per client sorted ranges of clocks that neither touch nor overlap backwards.
    pub deletes: Vec<(ClientId, Range<Clock>)>,
}

/// Why an update is refused. The text is what the client's developer reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes are no lib0 values.
    #[error("{0}")]
    Bytes(#[from] ReadError),
    /// The values break a rule of the format, or of what can be served safely.
    #[error("{0}")]
    Rule(&'static str),
}

impl<'a> Update<'a> {
    /// Reads an update in one pass.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read_limited(bytes, usize::MAX)
    }

    /// Reads an update that came from outside, and is refused where reading it takes too much memory.
    pub fn read_from_outside(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read_limited(bytes, MAX_PARTS)
    }

    fn read_limited(bytes: &'a [u8], max_parts: usize) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > MAX_BYTES {
            return Err(Malformed::Rule("an update has more than 4 GiB"));
        }
        let mut update = Self {
            bytes,
            sections: Vec::new(),
            blocks: Vec::new(),
            places: Vec::new(),
            has_subdocuments: false,
            deletes: Vec::new(),
        };
        for _ in 0..reader.count()? {
            update.read_section(&mut reader, max_parts)?;
        }
        no_client_twice(update.sections.iter().map(|section| section.client))?;
        update.read_deletes(&mut reader, max_parts)?;
        match reader.remaining() {
            0 => Ok(update),
            _ => Err(Malformed::Rule(
                "bytes follow after the update's end (is it a version 2 update? send version 1)",
            )),
        }
    }

    /// The bytes that were read.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where a block belongs and under which key, where it says so itself.
    pub fn place(&self, block: &Block) -> Option<(Parent<'a>, Option<&'a str>)> {
        self.places.get(block.place as usize).copied()
    }

    fn read_section(&mut self, reader: &mut Reader<'a>, max_parts: usize) -> Result<(), Malformed> {
        let count = reader.count()?;
        let client = reader.uint()?;
        let mut clock = reader.uint()?;
        let (first, start) = (self.blocks.len(), reader.position());
        if clock > MAX_CLOCK {
            return Err(Malformed::Rule("a clock is beyond 2^31 - 2"));
        }
        if count == 0 {
            return Err(Malformed::Rule("a client is listed without edits"));
        }
        // Not more than is likely, whatever the count says.
        self.blocks.reserve(count.min(reader.remaining() / LIKELY_BLOCK_BYTES).min(max_parts));
        for _ in 0..count {
            let block = self.read_block(reader, clock as Clock)?;
            clock += u64::from(block.len);
            if block.len == 0 {
                return Err(Malformed::Rule("a block has no content"));
            }
            if clock > MAX_CLOCK {
                return Err(Malformed::Rule("a clock is beyond 2^31 - 2"));
            }
            if self.blocks.len() == max_parts {
                return Err(Malformed::Rule("an update has more than 250,000 blocks: send it in parts"));
            }
            self.has_subdocuments |= block.content.is_disguised();
            self.blocks.push(block);
        }
        self.sections.push(Section { client, blocks: first..self.blocks.len(), start });
        Ok(())
    }

    fn read_block(&mut self, reader: &mut Reader<'a>, clock: Clock) -> Result<Block, Malformed> {
        let info = reader.byte()?;
        let mut block = Block {
            clock,
            len: 1,
            content: Content::Gc,
            origin: CompactId::NONE,
            right_origin: CompactId::NONE,
            place: NONE,
            end: 0,
        };
        match info & CONTENT {
            kind @ (0 | 10) => {
                if info != kind {
                    return Err(Malformed::Rule("a collected block has flags that it cannot have"));
                }
                block.content = if kind == 0 { Content::Gc } else { Content::Skip };
                block.len = read_len(reader)?;
            }
            kind => {
                if info & HAS_ORIGIN != 0 {
                    block.origin = read_id(reader)?.into();
                }
                if info & HAS_RIGHT_ORIGIN != 0 {
                    block.right_origin = read_id(reader)?.into();
                }
                if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
                    let parent = match reader.uint()? {
                        0 => Parent::Item(read_id(reader)?),
                        1 => Parent::Root(reader.text()?),
                        _ => return Err(Malformed::Rule("a block's parent is neither a root nor a block")),
                    };
                    let key = if info & HAS_KEY != 0 { Some(reader.text()?) } else { None };
                    block.place = self.places.len() as u32;
                    self.places.push((parent, key));
                }
                (block.content, block.len) = content::read(reader, kind)?;
            }
        }
        block.end = reader.position() as u32;
        Ok(block)
    }

    fn read_deletes(&mut self, reader: &mut Reader<'a>, max_parts: usize) -> Result<(), Malformed> {
        let clients = reader.count()?;
        let mut seen = Vec::new();
        for _ in 0..clients {
            let client = reader.uint()?;
            if clients > 1 {
                seen.push(client);
            }
            let mut last_end = 0;
            for _ in 0..reader.count()? {
                let (clock, len) = (reader.uint()?, reader.uint()?);
                let end = clock.saturating_add(len);
                if len == 0 || end > MAX_CLOCK {
                    return Err(Malformed::Rule("a deleted range is empty or beyond 2^31 - 2"));
                }
                if clock < last_end {
                    return Err(Malformed::Rule("deleted ranges overlap or are not sorted"));
                }
                last_end = end;
                if self.deletes.len() == max_parts {
                    return Err(Malformed::Rule(
                        "an update has more than 250,000 deleted ranges: send it in parts",
                    ));
                }
                self.deletes.push((client, clock as Clock..end as Clock));
            }
        }
        no_client_twice(seen.into_iter())
    }
}

fn no_client_twice(clients: impl ExactSizeIterator<Item = ClientId>) -> Result<(), Malformed> {
    // Most updates have one client; they need no list.
    let mut clients: Vec<_> = if clients.len() < 2 { Vec::new() } else { clients.collect() };
    clients.sort_unstable();
    match clients.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Malformed::Rule("a client is listed twice")),
        false => Ok(()),
    }
}

// Bits of a block's first byte, from Yjs's `Item.write`, and some of the kinds of content.
const CONTENT: u8 = 0x1f;
const HAS_KEY: u8 = 0x20;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_ORIGIN: u8 = 0x80;
const BINARY: u8 = 3;
const SUBDOCUMENT: u8 = 9;

fn read_id(reader: &mut Reader<'_>) -> Result<Id, Malformed> {
    let (client, clock) = (reader.uint()?, reader.uint()?);
    match clock <= MAX_CLOCK {
        true => Ok(Id { client, clock: clock as Clock }),
        false => Err(Malformed::Rule("a clock is beyond 2^31 - 2")),
    }
}

fn read_len(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let len = reader.uint()?;
    // Nothing longer can end within the allowed clocks.
    if len <= MAX_CLOCK { Ok(len as u32) } else { Err(Malformed::Rule("a block is longer than 2^31 - 2")) }
}
