//! Sequences of updates that are nearly right: a few clients who know each other's blocks, and who are wrong
//! now and then about where these stand, what they are and how long.

use bytes::Bytes;
use quire::{
    lib0::{MAX_SAFE_INTEGER, write_bytes, write_uint},
    state_vector::StateVector,
};

use super::{choices::Choices, victim::Victim};

const CLIENTS: [u64; 4] = [1, 2, 300, MAX_SAFE_INTEGER];
/// The roots, by the kind of content that each mostly gets.
const ROOTS: [&str; 5] = ["text", "map", "array", "xml", ""];
const KEYS: [&str; 4] = ["a", "b", "", "📝"];
const TEXTS: [&str; 8] = ["a", "bc", "hello", "é", "📝", "a📝b👩‍🚀", "\n", "\u{fffd}\0<&\""];
const JSON: [&str; 8] =
    ["true", "null", "1", "\"x\"", "{\"href\":\"x\"}", "[1,{\"a\":null}]", "-0.5e300", "\"📝\""];
/// Values as lib0 writes them.
const VALUES: [&[u8]; 12] = [
    &[125, 5],
    &[126],
    &[127],
    &[120],
    &[119, 1, b'x'],
    &[119, 4, 0xf0, 0x9f, 0x93, 0x9d],
    &[118, 1, 1, b'k', 125, 1],
    &[117, 2, 126, 127],
    &[116, 2, 7, 8],
    &[124, 0x7f, 0xc0, 0, 0],
    &[123, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0],
    &[122, 0x80, 0, 0, 0, 0, 0, 0, 0],
];
/// Bytes, some of which look like a subdocument as the engine gets it.
const BYTES: [&[u8]; 4] = [&[1, 2, 3], &[], b"\0subdoc\0", b"\0subdoc\0\x09\x01gv\0"];
/// Guids with options as lib0 writes them, the last two of which are refused.
const SUBDOCUMENTS: [&[u8]; 5] = [
    b"\x01gv\0",
    b"\x09team/planv\x01\x08autoLoadx",
    b"\x01gv\x02\x04metav\x01\x01kt\x02\x07\x08\x02gcy",
    b"\0v\0",
    b"\x01g~",
];
const MAX_STEPS: usize = 64;

/// A place in the clients' history.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Id {
    client: usize,
    clock: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Parent {
    Root(usize),
    Type(Id),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    parent: Parent,
    key: Option<usize>,
}

/// What a block holds, as its number in the format.
#[derive(Debug, Clone)]
enum Content {
    Gc(u64),
    Deleted(u64),
    Binary(&'static [u8]),
    String(String),
    Embed(&'static str),
    Format(&'static str, &'static str),
    Type(u8),
    Any(Vec<&'static [u8]>),
    Subdocument(&'static [u8]),
    Skip(u64),
    /// Anything else: a kind that is not served, or bytes that are no content.
    Odd(u8),
}

#[derive(Debug, Clone)]
struct Block {
    id: Id,
    content: Content,
    origin: Option<Id>,
    right_origin: Option<Id>,
    /// Where it belongs; an item with origins does not say it.
    place: Place,
}

/// The clients with all that they made, and what became of it.
struct World<'a> {
    choices: Choices<'a>,
    blocks: Vec<Block>,
    next: [u64; CLIENTS.len()],
    /// Updates that were sent.
    sent: Vec<Bytes>,
}

/// Reads a sequence from bytes, and gives it to a document.
pub fn run(bytes: &[u8]) {
    let mut world = World {
        choices: Choices::new(bytes),
        blocks: Vec::new(),
        next: [0; CLIENTS.len()],
        sent: Vec::new(),
    };
    let mut victim = Victim::default();
    let mut peer = Victim::default();
    for _ in 0..MAX_STEPS {
        if world.choices.is_empty() {
            break;
        }
        world.step(&mut victim, &mut peer);
    }
    victim.offers_again();
    victim.is_sound();
    peer.is_sound();
}

impl World<'_> {
    fn step(&mut self, victim: &mut Victim, peer: &mut Victim) {
        match self.choices.below(24) {
            0..15 => {
                let update = self.update();
                self.sent.push(update.clone());
                victim.receives(&update);
                if !self.choices.rarely(4) {
                    self.forgets_what_did_not_come(victim);
                }
            }
            15 => victim.is_sound(),
            16 => victim.compacts(),
            17 => victim.reopens(),
            18 => victim.offers_again(),
            19 if !self.sent.is_empty() => {
                let again = self.choices.below(self.sent.len());
                victim.receives(&self.sent[again]);
            }
            20 if !self.sent.is_empty() => {
                let late = self.choices.below(self.sent.len());
                peer.receives(&self.sent[late]);
                peer.offers_again();
            }
            21 => {
                peer.receives(&victim.diff(&peer.document.state_vector()));
            }
            22 => {
                victim.receives(&peer.diff(&victim.document.state_vector()));
            }
            _ => {
                let since: StateVector =
                    CLIENTS.iter().map(|&id| (id, self.choices.below(8) as u32)).collect();
                peer.receives(&victim.diff(&since));
            }
        }
    }

    /// Makes the clients go on from what the document has, so that not everything waits for what is missing.
    fn forgets_what_did_not_come(&mut self, victim: &Victim) {
        let vector = victim.document.state_vector();
        self.next = CLIENTS.map(|client| u64::from(vector.get(client)));
        let next = self.next;
        self.blocks.retain(|block| block.id.clock + len(&block.content) <= next[block.id.client]);
    }

    /// An update of one to three clients.
    fn update(&mut self) -> Bytes {
        let mut sections = Vec::new();
        let first = self.choices.below(CLIENTS.len());
        let several = [1, 1, 1, 2, 2, 3, 0];
        let count = self.choices.of(&several);
        for client in (first..first + count).map(|client| client % CLIENTS.len()) {
            let mut blocks = Vec::new();
            let mut clock = self.start(client, &mut blocks);
            for _ in 0..1 + self.choices.below(4) {
                let block = self.block(Id { client, clock });
                clock += len(&block.content);
                self.next[client] = self.next[client].max(clock);
                self.blocks.push(block.clone());
                blocks.push(block);
            }
            sections.push(blocks);
        }
        let mut update = Vec::new();
        write_uint(&mut update, sections.len() as u64);
        for blocks in &sections {
            write_uint(&mut update, blocks.len() as u64);
            write_uint(&mut update, CLIENTS[blocks[0].id.client]);
            write_uint(&mut update, blocks[0].id.clock);
            blocks.iter().for_each(|block| write_block(&mut update, block));
        }
        self.write_deletes(&mut update);
        update.into()
    }

    /// Where a section begins: mostly where its client stopped; else with a gap, or with what was sent
    /// already, at times as the beginning of a longer block.
    fn start(&mut self, client: usize, blocks: &mut Vec<Block>) -> u64 {
        let next = self.next[client];
        match self.choices.below(12) {
            10 => next + 1 + self.choices.below(3) as u64,
            11 => next.saturating_sub(self.choices.below(4) as u64),
            8 | 9 => {
                let known: Vec<_> =
                    self.blocks.iter().filter(|block| block.id.client == client).cloned().collect();
                if known.is_empty() {
                    return next;
                }
                let from = known.len() - 1 - self.choices.below(known.len().min(4));
                let mut clock = known[from].id.clock;
                for mut block in known[from..].iter().cloned() {
                    if block.id.clock != clock {
                        break;
                    }
                    if self.choices.rarely(3) {
                        self.lengthen(&mut block.content);
                    }
                    clock += len(&block.content);
                    blocks.push(block);
                }
                clock
            }
            _ => next,
        }
    }

    fn lengthen(&mut self, content: &mut Content) {
        match content {
            Content::Gc(len) | Content::Deleted(len) | Content::Skip(len) => *len += 1,
            Content::String(text) => text.push_str(self.choices.of(&TEXTS)),
            Content::Any(values) => values.push(self.choices.of(&VALUES)),
            Content::Binary(_)
            | Content::Embed(_)
            | Content::Format(..)
            | Content::Type(_)
            | Content::Subdocument(_)
            | Content::Odd(_) => *content = Content::Deleted(2),
        }
    }

    fn block(&mut self, id: Id) -> Block {
        let (origin, right_origin, place) = self.neighbours();
        let content = match self.choices.below(32) {
            30 => Content::Gc(1 + self.choices.below(4) as u64),
            31 => match self.choices.below(4) {
                0 | 1 => Content::Skip(1 + self.choices.below(3) as u64),
                2 if self.choices.rarely(4) => {
                    Content::Gc(self.choices.of(&[0, 1 << 31, (1 << 31) - 3, u64::from(u32::MAX)]))
                }
                2 => Content::Deleted(2),
                _ => Content::Odd(self.choices.of(&[2, 5, 9, 11, 31])),
            },
            _ => self.content(place),
        };
        Block { id, content, origin, right_origin, place }
    }

    fn neighbours(&mut self) -> (Option<Id>, Option<Id>, Place) {
        if self.blocks.is_empty() {
            return (None, None, self.place());
        }
        match self.choices.below(16) {
            0..4 => (None, None, self.place()),
            4..9 => {
                let (left, place) = self.unit();
                (Some(left), None, place)
            }
            9..13 => {
                let (left, place) = self.unit();
                let right = self.unit_in(place);
                let right = Some(right).filter(|_| place.key.is_none() || self.choices.rarely(16));
                (Some(left), right, place)
            }
            13 | 14 => {
                let (right, place) = self.unit();
                match place.key {
                    Some(_) if !self.choices.rarely(16) => (Some(right), None, place),
                    _ => (None, Some(right), place),
                }
            }
            _ => {
                let anywhere = |choices: &mut Choices<'_>| Id {
                    client: choices.below(CLIENTS.len()),
                    clock: choices.below(12) as u64,
                };
                let (left, right) = (anywhere(&mut self.choices), anywhere(&mut self.choices));
                let one = self.choices.of(&[0, 1, 2]);
                (Some(left).filter(|_| one != 0), Some(right).filter(|_| one != 1), self.place())
            }
        }
    }

    /// A root, or a type that somebody made; with a key where that is usual, and sometimes where not.
    fn place(&mut self) -> Place {
        let types = self.blocks.iter().filter(|block| matches!(block.content, Content::Type(_)));
        let types: Vec<_> = types.map(|block| (block.id, kind(&block.content))).collect();
        let (parent, kind) = match self.choices.below(3) {
            0 | 1 if !types.is_empty() => {
                let (id, kind) = self.choices.of(&types);
                (Parent::Type(id), kind)
            }
            2 if self.choices.rarely(32) && !self.blocks.is_empty() => (Parent::Type(self.unit().0), 0),
            _ => {
                let root = self.choices.below(ROOTS.len());
                (Parent::Root(root), [2, 1, 0, 4, 2][root])
            }
        };
        let keyed = match kind {
            1 => !self.choices.rarely(8),
            3 => self.choices.rarely(2),
            _ => self.choices.rarely(8),
        };
        Place { parent, key: keyed.then(|| self.choices.below(KEYS.len())) }
    }

    /// Some unit of what was made.
    fn unit(&mut self) -> (Id, Place) {
        let recent = self.blocks.len().min(256);
        let index = self.blocks.len() - 1 - self.choices.below(recent);
        let (id, len, place) = {
            let block = &self.blocks[index];
            (block.id, len(&block.content), block.place)
        };
        let offset = self.choices.below(len.clamp(1, 256) as usize) as u64;
        (Id { clock: id.clock + offset, ..id }, place)
    }

    /// Some unit in this place, mostly.
    fn unit_in(&mut self, place: Place) -> Id {
        let here = self.blocks.iter().filter(|block| block.place == place);
        let here: Vec<_> = here.map(|block| (block.id, len(&block.content))).collect();
        if here.is_empty() || self.choices.rarely(16) {
            return self.unit().0;
        }
        let (id, len) = self.choices.of(&here);
        Id { clock: id.clock + self.choices.below(len.clamp(1, 256) as usize) as u64, ..id }
    }

    /// Content that suits a place, mostly.
    fn content(&mut self, place: Place) -> Content {
        let kind = match place.parent {
            _ if self.choices.rarely(12) => self.choices.of(&[0, 1, 2, 3, 4, 6]),
            Parent::Root(root) => [2, 1, 0, 4, 2][root],
            Parent::Type(id) => {
                self.blocks.iter().find(|block| block.id == id).map_or(0, |block| kind(&block.content))
            }
        };
        if self.choices.rarely(12) {
            return Content::Deleted(1 + self.choices.below(4) as u64);
        }
        match kind {
            2 | 6 if place.key.is_none() => match self.choices.below(8) {
                0..4 => Content::String(self.choices.of(&TEXTS).to_owned()),
                4 | 5 => Content::Format(self.choices.of(&KEYS), self.choices.of(&JSON)),
                6 => Content::Embed(self.choices.of(&JSON)),
                _ => Content::Type(self.choices.of(&[0, 1, 2, 3, 4, 6])),
            },
            3 | 4 if place.key.is_none() => Content::Type(self.choices.of(&[3, 6, 6, 3, 4, 2])),
            _ => match self.choices.below(8) {
                0..3 => {
                    let several = place.key.is_none() || self.choices.rarely(16);
                    let count = if several { 1 + self.choices.below(3) } else { 1 };
                    Content::Any((0..count).map(|_| self.choices.of(&VALUES)).collect())
                }
                3 => Content::Binary(self.choices.of(&BYTES)),
                4 if self.choices.rarely(8) => Content::Subdocument(self.choices.of(&SUBDOCUMENTS)),
                4 => Content::Subdocument(self.choices.of(&SUBDOCUMENTS[..3])),
                _ => Content::Type(self.choices.of(&[0, 1, 2, 3, 4, 6])),
            },
        }
    }

    fn write_deletes(&mut self, update: &mut Vec<u8>) {
        let count = self.choices.of(&[0, 0, 1, 1, 1, 2, 3, 4]);
        let first = self.choices.below(CLIENTS.len());
        write_uint(update, count as u64);
        for client in (first..first + count).map(|client| client % CLIENTS.len()) {
            write_uint(update, CLIENTS[client]);
            let ranges = self.choices.of(&[1, 1, 2, 3]);
            write_uint(update, ranges);
            let known = self.next[client].clamp(1, 256) as usize;
            let mut at = self.choices.below(known) as u64;
            for _ in 0..ranges {
                let left = self.next[client].saturating_sub(at);
                let len = match self.choices.below(48) {
                    46 => 0,
                    47 => 20,
                    drawn => (drawn as u64 % 6 + 1).min(left.max(1)),
                };
                write_uint(update, at);
                write_uint(update, len);
                at += len + self.choices.below(4) as u64;
            }
        }
    }
}

/// The number of a shared type's kind; of anything else that of an array.
fn kind(content: &Content) -> u8 {
    if let Content::Type(kind) = content { *kind } else { 0 }
}

fn len(content: &Content) -> u64 {
    match content {
        Content::Gc(len) | Content::Deleted(len) | Content::Skip(len) => *len,
        Content::String(text) => text.encode_utf16().count() as u64,
        Content::Any(values) => values.len() as u64,
        Content::Binary(_)
        | Content::Embed(_)
        | Content::Format(..)
        | Content::Type(_)
        | Content::Subdocument(_)
        | Content::Odd(_) => 1,
    }
}

fn write_block(to: &mut Vec<u8>, block: &Block) {
    let number = match &block.content {
        Content::Gc(len) | Content::Skip(len) => {
            to.push(if matches!(block.content, Content::Gc(_)) { 0 } else { 10 });
            return write_uint(to, *len);
        }
        Content::Deleted(_) => 1,
        Content::Binary(_) => 3,
        Content::String(_) => 4,
        Content::Embed(_) => 5,
        Content::Format(..) => 6,
        Content::Type(_) => 7,
        Content::Any(_) => 8,
        Content::Subdocument(_) => 9,
        Content::Odd(number) => *number,
    };
    let says_place = block.origin.is_none() && block.right_origin.is_none();
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    to.push(
        number
            | flag(block.origin.is_some(), 0x80)
            | flag(block.right_origin.is_some(), 0x40)
            | flag(block.place.key.is_some(), 0x20),
    );
    for id in [block.origin, block.right_origin].into_iter().flatten() {
        write_id(to, id);
    }
    if says_place {
        match block.place.parent {
            Parent::Root(root) => {
                to.push(1);
                write_bytes(to, ROOTS[root].as_bytes());
            }
            Parent::Type(id) => {
                to.push(0);
                write_id(to, id);
            }
        }
        if let Some(key) = block.place.key {
            write_bytes(to, KEYS[key].as_bytes());
        }
    }
    write_content(to, &block.content);
}

fn write_id(to: &mut Vec<u8>, id: Id) {
    write_uint(to, CLIENTS[id.client]);
    write_uint(to, id.clock);
}

fn write_content(to: &mut Vec<u8>, content: &Content) {
    match content {
        Content::Deleted(len) => write_uint(to, *len),
        Content::Binary(bytes) => write_bytes(to, bytes),
        Content::Subdocument(written) => to.extend_from_slice(written),
        Content::String(text) => write_bytes(to, text.as_bytes()),
        Content::Embed(json) => write_bytes(to, json.as_bytes()),
        Content::Format(key, json) => {
            write_bytes(to, key.as_bytes());
            write_bytes(to, json.as_bytes());
        }
        Content::Type(kind) => {
            to.push(*kind);
            if *kind == 3 {
                write_bytes(to, b"p");
            }
        }
        Content::Any(values) => {
            write_uint(to, values.len() as u64);
            values.iter().for_each(|value| to.extend_from_slice(value));
        }
        Content::Gc(_) | Content::Skip(_) => {}
        Content::Odd(_) => write_bytes(to, b"x"),
    }
}
