//! How much a document's log holds, and when that is worth a snapshot.

use crate::backend::{Appended, Position};

/// A log of this size is worth a snapshot, once it is half as large as the document itself.
const COMPACT_BYTES: usize = 128 * 1024;
/// A log of so many records is worth a snapshot, whatever their size: each costs time at the next opening.
const COMPACT_RECORDS: usize = 1_000;

/// How much a document's log holds since its snapshot.
#[derive(Debug, Default, Clone, Copy)]
pub struct LogSize {
    /// The position through which all its records are in the document.
    pub through: Position,
    /// How many records it has.
    pub records: usize,
    /// How many bytes they have.
    pub bytes: usize,
    /// How many bytes the document had at the last snapshot, as an update.
    pub document_bytes: usize,
    /// When the first record was made that is in no snapshot yet, in milliseconds since 1970.
    pub since: Option<u64>,
}

impl LogSize {
    /// Whether there is neither a snapshot nor a record.
    pub(super) fn is_empty(self) -> bool {
        self.records == 0 && self.document_bytes == 0
    }

    /// The log with a record more.
    pub(super) fn with(self, bytes: usize, appended: &Appended) -> Self {
        let records = appended.records.unwrap_or(self.records + 1);
        // Fewer than there were: somebody else has compacted it.
        let before = match records > self.records {
            true => self.bytes,
            false => self.bytes * records.saturating_sub(1) / self.records.max(1),
        };
        let through = if appended.gapless { appended.position } else { self.through };
        Self { through, records, bytes: before + bytes, ..self }
    }

    /// How often it has grown by as much as is worth a snapshot. Of all nodes, the one whose append makes this
    /// number grow makes one.
    pub(super) fn thresholds(self) -> usize {
        self.records / COMPACT_RECORDS + self.bytes / COMPACT_BYTES.max(self.document_bytes / 2)
    }
}
