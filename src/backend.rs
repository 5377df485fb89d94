//! The seam to the outside world: a backend keeps documents between runs. It carries bytes that it does
//! not understand: no Yjs and no protocol live here.
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
//! * Documents do not disturb each other: what fails for one is not an error for another.

pub mod embedded;

use std::{future::Future, pin::Pin};

use bytes::Bytes;

use crate::name::DocumentName;

/// The most updates of one document that are kept aside.
pub const MAX_SET_ASIDE: u32 = 16;

/// Where a record stands in its document's log. Positions grow with every record of a document; nothing
/// else can be told from them.
pub type Position = u64;

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

/// Why a backend could not do what it was asked to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The store answered with an error: a full disk, a damaged file.
    #[error("the store answered: {0}")]
    Store(String),
    /// The backend has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Keeps documents. The module's text is its promise.
pub trait Backend: Send + Sync + 'static {
    /// The snapshot and the log of a document; both empty for a document that was never appended to.
    fn load(&self, name: &DocumentName) -> Answer<Stored>;

    /// Adds a record to a document's log and answers with its position when it is durable.
    fn append(&self, name: &DocumentName, record: Bytes) -> Answer<Position>;

    /// Puts `snapshot` in place of the old snapshot and of the records up to and including `through`.
    fn compact(&self, name: &DocumentName, through: Position, snapshot: Bytes) -> Answer<()>;

    /// Keeps an update that must not be given to the document again, with the reason, for an admin to look at.
    /// The newest [`MAX_SET_ASIDE`] of a document are kept.
    fn set_aside(&self, name: &DocumentName, update: Bytes, reason: String) -> Answer<()>;

    /// Refuses what comes from now on, and answers when all that was accepted before is durable.
    fn close(&self) -> Answer<()>;
}
