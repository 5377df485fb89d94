//! What the protocol (`backend/redis.rs`) asks of Redis, and what it hears from there. `link.rs` is the real one;
//! the simulation has one that loses, doubles and forgets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::super::{Answer, Exchange, Exchanged, Position, Segment};
use crate::name::DocumentName;

/// For how long a node counts as alive after it has renewed its lease.
pub const LEASE: Duration = Duration::from_secs(6);

/// The keys of one document. All of them are in one slot of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keys(Arc<str>);

impl Keys {
    /// The keys of the document with this name: the name itself stands in them, in the braces that make a
    /// cluster's slot, without characters that would end these.
    pub fn new(name: &DocumentName) -> Self {
        Self(slot_tag(name.as_str()).into())
    }

    /// A hash: `e` epoch, `v` version of the snapshot, `s` the snapshot's key, `t` through which position it goes, `d`
    /// where the document is deleted.
    pub fn meta(&self) -> String {
        format!("quire:{{{}}}:m", self.0)
    }

    /// A stream: the log. Its ids are positions, as `<epoch>-<number>`.
    pub fn log(&self) -> String {
        format!("quire:{{{}}}:l", self.0)
    }

    /// A list: the chunks of the snapshot with this version, made by this node.
    pub fn snapshot(&self, version: u64, node: u64) -> String {
        format!("quire:{{{}}}:s:{version}.{node:x}", self.0)
    }

    /// A list: updates that were set aside, oldest first.
    pub fn set_aside(&self) -> String {
        format!("quire:{{{}}}:x", self.0)
    }

    /// All keys but those of snapshots: the meta hash, the log, what was set aside, and the history, what is known of
    /// its segments and what they hold.
    pub fn all(&self) -> [String; 5] {
        [self.meta(), self.log(), self.set_aside(), self.segments(), self.segment_data()]
    }

    /// A hash: what is known of each segment of the history, by its position.
    pub fn segments(&self) -> String {
        format!("quire:{{{}}}:h", self.0)
    }

    /// A hash: what each segment of the history holds, by its position.
    pub fn segment_data(&self) -> String {
        format!("quire:{{{}}}:hd", self.0)
    }

    /// Where the same are kept after the document was deleted.
    pub fn trash(&self) -> [String; 5] {
        ["m", "l", "x", "h", "hd"].map(|name| format!("quire:{{{}}}:trash:{name}", self.0))
    }

    /// The channel for everything that is said about the document.
    pub fn channel(&self) -> String {
        format!("quire:{{{}}}:u", self.0)
    }
}

/// A text as it stands between the braces that make a cluster's slot: without characters that would end these.
pub(super) fn slot_tag(text: &str) -> String {
    text.replace('%', "%25").replace('{', "%7B").replace('}', "%7D")
}

/// An entry of a document's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub position: Position,
    /// What was appended; `None` for the entry that begins an epoch.
    pub envelope: Option<Bytes>,
}

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// It is in the log, and was told to all who follow.
    Done {
        /// Where.
        position: Position,
        /// How many entries the log has now.
        entries: u64,
    },
    /// There is no log.
    NoLog,
    /// The log is in a later epoch.
    OldEpoch,
}

/// What a document has beside its log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The epoch; 0 where the document has never been.
    pub epoch: u64,
    /// The version of the snapshot; 0 where there is none.
    pub version: u64,
    /// The position through which the snapshot goes.
    pub through: Position,
    /// The snapshot's key; empty where there is none.
    pub snapshot: String,
    /// Whether the document is deleted.
    pub deleted: bool,
}

/// What a list says of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// About how many bytes Redis has of it.
    pub bytes: u64,
    /// When something was appended last, in milliseconds since 1970.
    pub changed: Option<u64>,
}

/// A document as it is stored, seen at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What it has beside its log.
    pub meta: Meta,
    /// The whole log, also entries that the snapshot contains.
    pub log: Vec<Entry>,
    /// What was set aside, oldest first.
    pub set_aside: Vec<Bytes>,
}

/// A snapshot that is to become the document's, if nobody else's did meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The epoch in which it was made.
    pub epoch: u64,
    /// The version that it replaces; its own is the next one.
    pub version: u64,
    /// The node that made it: a part of its key.
    pub node: u64,
    /// The position through which it goes.
    pub through: Position,
    /// An entry that must be in the log, with how its envelope begins: otherwise this is not the log that the
    /// snapshot was made of.
    pub stands_on: Option<(Position, Bytes)>,
    /// Entries before this position are dropped.
    pub keep_from: Position,
    /// Its bytes.
    pub snapshot: Bytes,
    /// The segment of the history that is kept with it.
    pub segment: Option<Segment>,
}

/// What came of a [`Commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is the document's snapshot now.
    Done,
    /// Somebody else's snapshot came first.
    Outrun,
    /// The log is another one than it was made of.
    OtherLog,
}

/// The leases when one of them was renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leases {
    /// How often that one was begun or renewed since it is there.
    pub times: u64,
    /// The nodes that have one.
    pub live: Vec<u64>,
}

/// What comes unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message on a channel.
    Message {
        /// Which one.
        channel: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// Messages of one channel may have been missed; it is heard again.
    Missed {
        /// Which one.
        channel: Bytes,
    },
    /// Messages of all channels may have been missed, or Redis may be another one than it was; all channels are
    /// heard again.
    MissedAll,
}

/// Where events go. It never waits.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// The commands. Each answers within seconds, with [`BackendError::Away`](super::BackendError::Away) where Redis
/// cannot be asked; then what was asked may have been done all the same.
pub trait Store: Send + Sync + 'static {
    /// Says where events go; called once, before anything else.
    fn listen(&self, listener: Listener);

    /// Adds an entry to a log that is there and in no later epoch, and publishes `<epoch>-<number>|` with
    /// `message` to the channel, in one step.
    fn append(&self, keys: &Keys, epoch: u64, envelope: Bytes, message: Bytes) -> Answer<Append>;

    /// Makes a log where there is none, in this epoch or a later one that the document has been in before, and
    /// answers with the epoch that is in force then; `None` where the document is deleted.
    fn begin(&self, keys: &Keys, epoch: u64) -> Answer<Option<u64>>;

    /// Deletes a document: its epoch is the first of the next generation, what it has is kept for so long, and
    /// `message` is published, in one step. With no time at all, what an earlier deletion has left goes too. Answers
    /// whether there was one, deleted or not.
    fn delete(&self, keys: &Keys, keep_for: Duration, message: Bytes) -> Answer<bool>;

    /// Takes a deleted document back, if it is still kept.
    fn undelete(&self, keys: &Keys) -> Answer<bool>;

    /// Begins a log in place of a deleted document, with nothing but this entry, in one step; answers whether there was
    /// one.
    fn create(&self, keys: &Keys, envelope: Option<Bytes>) -> Answer<bool>;

    /// Adds a document to the list of all, or takes it from there.
    fn enlist(&self, name: &DocumentName, is_there: bool) -> Answer<()>;

    /// Names in the list of all that begin with `prefix` and come after `after`, in the order of their bytes, and so
    /// many at most.
    fn names(&self, prefix: &str, after: &str, limit: usize) -> Answer<Vec<String>>;

    /// How large a document is; `None` where there is none, or a deleted one.
    fn size(&self, keys: &Keys) -> Answer<Option<Size>>;

    /// The document at one moment.
    fn read(&self, keys: &Keys) -> Answer<Kept>;

    /// The snapshot under this key; `None` where it is gone.
    fn read_snapshot(&self, key: &str) -> Answer<Option<Bytes>>;

    /// Entries from this position on, itself included, oldest first and so many at most.
    fn read_log(&self, keys: &Keys, from: Position, count: usize) -> Answer<Vec<Entry>>;

    /// Uploads a snapshot, and puts it in the place of the one before if it still may.
    fn commit(&self, keys: &Keys, commit: Commit) -> Answer<Committed>;

    /// What is known of each segment of the history, oldest first.
    fn segments(&self, keys: &Keys) -> Answer<Vec<(Position, Bytes)>>;

    /// The content of these segments, as far as they are there.
    fn segment_data(&self, keys: &Keys, segments: Vec<Position>) -> Answer<Vec<Option<Bytes>>>;

    /// Puts a segment in the place of these, if all of them are there, with just this known of each.
    fn replace_segments(&self, keys: &Keys, old: Vec<(Position, Bytes)>, new: Segment) -> Answer<bool>;

    /// Adds something to the list of what was set aside, and keeps the newest so many.
    fn set_aside(&self, keys: &Keys, entry: Bytes, keep: u32) -> Answer<()>;

    /// Changes the queue of notifications, and hands over what is due.
    fn exchange(&self, exchange: Exchange) -> Answer<Exchanged>;

    /// Publishes to the channel, and answers how many hear it.
    fn publish(&self, channel: &str, message: Bytes) -> Answer<u64>;

    /// Hears a channel from now on, over all reconnections; answers when it is heard for the first time.
    fn subscribe(&self, channel: &str) -> Answer<()>;

    /// Hears a channel no longer.
    fn unsubscribe(&self, channel: &str);

    /// Renews a node's lease, and answers which nodes have one.
    fn lease(&self, node: u64) -> Answer<Leases>;

    /// Gives a node's lease up.
    fn end_lease(&self, node: u64) -> Answer<()>;

    /// Counts one more connection of a user on this node, unless the user has `limit` of them on the `live` nodes;
    /// answers whether it was counted. Counts of other nodes are dropped.
    fn admit(&self, user: &str, node: u64, live: &[u64], limit: u32) -> Answer<bool>;

    /// Counts one connection of a user on this node less; `last`: the user has no other one on it.
    fn dismiss(&self, user: &str, node: u64, last: bool) -> Answer<()>;

    /// Why Redis cannot be asked at the moment; `None` where it can.
    fn away(&self) -> Option<String>;

    /// Lets go of all connections.
    fn close(&self) -> Answer<()>;
}
