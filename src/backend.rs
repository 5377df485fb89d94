//! The seam to the outside world: a backend keeps documents between runs, and carries news between the nodes
//! that share it. It carries bytes that it does not understand: no Yjs and no protocol live here.
//!
//! # The promise
//!
//! Every implementation keeps it, and `tests/backend.rs` holds each one to it.
//!
//! * A document is a snapshot (or none) followed by a log of records; [`Backend::load`] returns both, the
//!   records in the order in which they were appended.
//! * When [`Backend::append`] answers `Ok`, the record is durable: every later load has it, also after the
//!   process was killed. When it answers `Err`, the record may or may not be there; appending it again does
//!   no harm, because the records of a document may be applied more than once.
//! * [`Backend::compact`] puts a snapshot in place of exactly the records up to a position, in one step:
//!   a load sees either the old snapshot and all records, or the new one and the records after the position.
//!   A position beyond the last record means the last record, and a compaction that comes after one through a
//!   later position changes nothing.
//! * A segment of the history that is given with a snapshot is kept with it, in the same step; one that comes again
//!   through the same position takes the place of the one before. Segments go with their document when it is deleted,
//!   and come back with it.
//! * A document that was deleted ([`Backend::delete`]) stays deleted: until its name is begun anew
//!   ([`Backend::create`]) or it is taken back ([`Backend::undelete`]), nothing is added to it, and every load answers
//!   [`BackendError::Deleted`]. Who follows a document and loaded it before its name was begun anew adds nothing to the
//!   new one, and every load answers [`BackendError::Recreated`].
//! * [`Backend::list`] names each document that has anything, and none that is deleted.
//! * Documents do not disturb each other: what fails for one is not an error for another.
//! * A user's connections ([`Backend::admit`]) are counted over all nodes, to within one per node.
//! * Who follows a document ([`Backend::follow`]) and then loads it is handed every record that another node
//!   appends, or is told to compare where the backend cannot know that this was so. Records may come twice.
//!   What is told ([`Backend::tell`]) is kept nowhere and may get lost. A deletion is a reason to compare.
//! * Notifications that were taken into the queue ([`Backend::exchange`]) stay there until they are removed. Of all nodes
//!   one gets each at a time; if it does not say within [`CLAIMED_FOR`] what came of it, any node gets it again.

pub mod embedded;
pub mod redis;
pub mod users;

use std::{
    any::Any,
    fmt,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

pub use self::users::Counted;
use crate::name::DocumentName;

/// The most updates of one document that are kept aside.
pub const MAX_SET_ASIDE: u32 = 16;
/// For how long nobody else gets a notification that somebody has claimed.
pub const CLAIMED_FOR: Duration = Duration::from_secs(60);

/// Where a record stands in its document's log. Positions grow with every record of a document; nothing
/// else can be told from them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Grows when a log was lost, or a document was made anew.
    pub epoch: u64,
    /// Grows by one with each record of an epoch.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}-{}", self.epoch, self.number)
    }
}

/// One run of one node, as a number that no other run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// The nodes that share a store, as far as one of them knows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// This node; `None` where there can be no others.
    pub own: Option<NodeId>,
    /// The others, in the order of their numbers.
    pub others: Vec<OtherNode>,
}

/// Another node that is taken for alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherNode {
    /// Its number.
    pub id: NodeId,
    /// Whether its lease had run out when this node looked last: if that is so the next time, the node is taken for dead.
    pub late: bool,
}

/// What a backend answers, in its own time.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send>>;

/// A document as the backend keeps it. An unknown document has no snapshot and no log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The newest snapshot, as it was given to [`Backend::compact`].
    pub snapshot: Option<Bytes>,
    /// The records since that snapshot, oldest first, each with its position.
    pub log: Vec<(Position, Bytes)>,
    /// The updates that were set aside, oldest first.
    pub set_aside: Vec<Bytes>,
}

/// A document in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: DocumentName,
    /// About how many bytes the store has of it.
    pub bytes: u64,
    /// About when something was appended last, in milliseconds since 1970; `None` where that is not known.
    pub changed: Option<u64>,
}

/// A piece of a document's history: what happened between two snapshots. A backend does not look inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The position of its last record, by which it is known.
    pub through: Position,
    /// What is known of it, for lists.
    pub about: Bytes,
    /// Its content.
    pub data: Bytes,
}

/// What somebody outside is to be told, and what waits for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// By which it is known; those that are due at the same time come in the order of their ids.
    pub id: String,
    /// What is told. A backend does not look inside.
    pub body: Bytes,
    /// How often it was tried in vain.
    pub tries: u32,
}

/// What changes in the queue of notifications, in one step. Where no answer came it can be done again: then something may
/// be handed over twice.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What is new, due at once: the first ones, as far as there is space.
    pub add: Vec<Notification>,
    /// How many the queue may hold.
    pub most: usize,
    /// The ids of those that need not be told any more.
    pub remove: Vec<String>,
    /// Those that are to be tried again, if they are still there.
    pub again: Vec<Again>,
    /// How many of those that are due are claimed at most; those that have been due for the longest come first.
    pub claim: usize,
}

/// When a notification is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// Its id.
    pub id: String,
    /// How often it was tried in vain by now.
    pub tries: u32,
    /// After how long it is due.
    pub after: Duration,
}

/// What came of an [`Exchange`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exchanged {
    /// How many of the new ones were dropped, because there was no space.
    pub dropped: usize,
    /// What is claimed.
    pub claimed: Vec<Notification>,
    /// How many are in the queue, also those that are claimed.
    pub waiting: usize,
}

/// A record that is durable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where it stands in the log.
    pub position: Position,
    /// Whether everything before it has been handed over, so that a snapshot of now may go through it.
    pub gapless: bool,
    /// How many records the log has, where it is more than this node has appended.
    pub records: Option<usize>,
}

/// What a backend hands over of a document that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Records that other nodes have appended, in the order of the log.
    Records {
        /// The records.
        records: Vec<Bytes>,
        /// With them, everything through this position has been handed over.
        through: Position,
    },
    /// What another node has told.
    Told {
        /// Which one.
        node: NodeId,
        /// Its words.
        message: Bytes,
    },
    /// A node is gone without a word: what it has told of who is there is no longer true.
    NodeLeft(NodeId),
    /// What the other nodes told in the last moments may have been missed, and by them what this one told.
    Missed,
    /// The log may lack what this node has, or have what this node lacks: it must be loaded again and compared.
    Compare {
        /// How long it should wait, so that not all nodes do it at once.
        after: Duration,
    },
}

/// What comes of a document that is followed, until it is dropped.
#[derive(Default)]
pub struct Feed {
    source: Source,
    /// Dropped with the feed.
    _following: Option<Box<dyn Any + Send>>,
}

#[derive(Default)]
enum Source {
    #[default]
    Silent,
    /// There are no other nodes, and nothing comes but the question to compare.
    Alone(Arc<Notify>),
    Nodes(mpsc::Receiver<Incoming>),
}

impl Feed {
    /// What comes from other nodes; `following` is dropped with the feed.
    pub fn new(incoming: mpsc::Receiver<Incoming>, following: impl Send + 'static) -> Self {
        Self { source: Source::Nodes(incoming), _following: Some(Box::new(following)) }
    }

    /// A feed where there are no other nodes: whenever `compare` is told, so is who follows.
    pub fn alone(compare: Arc<Notify>, following: impl Send + 'static) -> Self {
        Self { source: Source::Alone(compare), _following: Some(Box::new(following)) }
    }

    /// Whether there are other nodes at all, from which something could come.
    pub fn is_shared(&self) -> bool {
        matches!(self.source, Source::Nodes(_))
    }

    /// What has come already from other nodes, if something has.
    pub fn try_next(&mut self) -> Option<Incoming> {
        match &mut self.source {
            Source::Nodes(incoming) => incoming.try_recv().ok(),
            Source::Silent | Source::Alone(_) => None,
        }
    }

    /// Waits for the next that comes; for ever where nothing will.
    pub async fn next(&mut self) -> Incoming {
        match &mut self.source {
            Source::Nodes(incoming) => match incoming.recv().await {
                Some(incoming) => incoming,
                None => std::future::pending().await,
            },
            Source::Alone(compare) => {
                compare.notified().await;
                Incoming::Compare { after: Duration::ZERO }
            }
            Source::Silent => std::future::pending().await,
        }
    }
}

/// Why a backend could not do what it was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The store answered with an error: a full disk, a damaged file.
    #[error("the store answered: {0}")]
    Store(String),
    /// The store cannot be reached at the moment.
    #[error("the store is away: {0}")]
    Away(String),
    /// The log has lost what this node knows it had: it must be compared before anything is saved.
    #[error("the store has lost a part of the document's log")]
    Lost,
    /// The document was deleted.
    #[error("the document was deleted")]
    Deleted,
    /// The document was deleted, and its name begun anew, since it was loaded.
    #[error("the document was deleted, and its name begun anew")]
    Recreated,
    /// The backend has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Keeps documents, and carries news of them. The module's text is its promise.
pub trait Backend: Send + Sync + 'static {
    /// The snapshot and the log of a document; both empty for a document that was never appended to.
    fn load(&self, name: &DocumentName) -> Answer<Stored>;

    /// Adds a record to a document's log and answers when it is durable. Other nodes that follow the document are
    /// handed it.
    fn append(&self, name: &DocumentName, record: Bytes) -> Answer<Appended>;

    /// Puts `snapshot` in place of the old snapshot and of the records up to and including `through`, and keeps
    /// `segment` with those before it.
    fn compact(
        &self,
        name: &DocumentName,
        through: Position,
        snapshot: Bytes,
        segment: Option<Segment>,
    ) -> Answer<()>;

    /// What is known of each segment of a document's history, oldest first.
    fn segments(&self, name: &DocumentName) -> Answer<Vec<(Position, Bytes)>>;

    /// The segments up to and including this position, oldest first.
    fn read_segments(&self, name: &DocumentName, through: Position) -> Answer<Vec<Segment>>;

    /// Puts a segment in the place of these, in one step. Answers whether all of them were there, with just this known of
    /// each; otherwise nothing changes.
    fn replace_segments(
        &self,
        name: &DocumentName,
        old: Vec<(Position, Bytes)>,
        new: Segment,
    ) -> Answer<bool>;

    /// Keeps an update that must not be given to the document again, with the reason, for an admin to look at.
    /// The newest [`MAX_SET_ASIDE`] of a document are kept.
    fn set_aside(&self, name: &DocumentName, update: Bytes, reason: String) -> Answer<()>;

    /// Documents whose names begin with `prefix` and come after `after`, in the order of their names' bytes; `limit`
    /// of them at most, and fewer only where there are no more.
    fn list(&self, prefix: &str, after: &str, limit: usize) -> Answer<Vec<Listed>>;

    /// Deletes a document, which can be taken back for so long; with no time at all, what an earlier deletion has
    /// left goes too. Answers whether there was one, deleted or not.
    fn delete(&self, name: &DocumentName, keep_for: Duration) -> Answer<bool>;

    /// Takes a deleted document back as it was. Answers whether there was one that could be.
    fn undelete(&self, name: &DocumentName) -> Answer<bool>;

    /// Begins the name of a deleted document anew, in one step: it has nothing but `first`, and the old one cannot be
    /// taken back any more. Answers whether the name was one of a deleted document; otherwise nothing changes.
    fn create(&self, name: &DocumentName, first: Option<Bytes>) -> Answer<bool>;

    /// Changes the queue of notifications, and hands over what is due.
    fn exchange(&self, exchange: Exchange) -> Answer<Exchanged>;

    /// From now on hands over what other nodes append to a document, or tell.
    fn follow(&self, _name: &DocumentName) -> Feed {
        Feed::default()
    }

    /// Tells the other nodes that follow a document. Nobody answers, and it may get lost.
    fn tell(&self, _name: &DocumentName, _message: Bytes) {}

    /// The least time between two appends to one document, unless a request waits for one: what gathers meanwhile
    /// costs no more than one edit.
    fn append_spacing(&self) -> Duration {
        Duration::ZERO
    }

    /// How long an edit may be kept back that nobody waits for. All documents append such edits at the same moments, so
    /// that the store writes them in one go. Zero where other nodes wait.
    fn append_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Counts one more connection of a user, until what is answered is dropped; `None` where the user has as many as
    /// allowed, on all nodes together. Where nobody counts, everybody is let in.
    fn admit(&self, _user: &str, _limit: usize) -> Answer<Option<Counted>> {
        Box::pin(ready(Ok(Some(Counted::default()))))
    }

    /// Why the store cannot be reached at the moment; `None` where it can.
    fn away(&self) -> Option<String> {
        None
    }

    /// Which nodes share the store, as far as is known.
    fn nodes(&self) -> Nodes {
        Nodes::default()
    }

    /// How often something of a log was missing that other nodes had appended, and had to be read.
    fn gaps(&self) -> u64 {
        0
    }

    /// Refuses what comes from now on, and answers when all that was accepted before is durable.
    fn close(&self) -> Answer<()>;
}
