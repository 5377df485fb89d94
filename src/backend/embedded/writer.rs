//! The thread that writes: it owns the only connection that may, and writes what has gathered as one group,
//! with one wait for the disk.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::store_error;
use crate::{
    backend::{BackendError, MAX_SET_ASIDE},
    name::DocumentName,
};

/// Requests that may wait for the writer, and the most that go into one group: a document has one append
/// under way, so this is a thousand documents. More wait their turn outside, in order.
pub(super) const MAX_GROUP_REQUESTS: usize = 1_024;
/// Bytes after which a group takes no more, beside one request of any size: written in a tenth of a second
/// on a common disk, for which everybody else in the group waits.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Between the starts of two groups: a 5 ms window costs a third of the processor time of a 1 ms one, and
/// nobody sees 2 ms. A request that comes at rest does not wait.
const GROUP_SPACING: Duration = Duration::from_millis(2);

/// What the writer hears.
pub(super) enum Request {
    Write(Write),
    /// Take what is in the queue, and nothing more.
    Close,
}

pub(super) struct Write {
    pub(super) name: DocumentName,
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Result<u64, BackendError>>,
}

pub(super) enum Change {
    Append(Bytes),
    Compact { through: u64, snapshot: Bytes },
    SetAside { update: Bytes, reason: String },
}

/// The thread that writes.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) lock: File,
    pub(super) ended: watch::Sender<()>,
}

impl Writer {
    /// Writes group after group: what gathers while one is written is the next.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let start = Instant::now();
            self.write(gather(first, &mut requests));
            thread::sleep(GROUP_SPACING.saturating_sub(start.elapsed()));
        }
        // Not needed for durability: it leaves one file that can be copied, and the next opening has less to do.
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "the database was closed without a checkpoint; the next opening makes up for it");
        }
        // In this order: whoever hears that the writing has ended finds the database closed and the folder free.
        drop(self.connection);
        // Dropping would not do where a child process is being started: it has the file open for a moment.
        self.lock.unlock().ok();
        drop(self.ended);
    }

    /// Writes a group and answers everybody in it.
    fn write(&mut self, mut group: Vec<Write>) {
        match self.commit(&group) {
            Ok(positions) => {
                for (write, position) in group.into_iter().zip(positions) {
                    write.answer(Ok(position));
                }
            }
            // What fails for one document is not an error for another: halving finds it in few commits.
            Err(error) if group.len() > 1 && !stops_everybody(&error) => {
                let later = group.split_off(group.len() / 2);
                self.write(group);
                self.write(later);
            }
            Err(error) => {
                let error = store_error(error);
                group.into_iter().for_each(|write| write.answer(Err(error.clone())));
            }
        }
    }

    /// All of the group or nothing, durable when it returns.
    fn commit(&mut self, group: &[Write]) -> rusqlite::Result<Vec<u64>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let positions = group.iter().map(|write| write.apply(&transaction)).collect::<Result<_, _>>()?;
        transaction.commit()?;
        Ok(positions)
    }
}

/// Everything that waits, as far as it goes into one group.
fn gather(first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Write> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Request::Write(write) => {
                bytes += write.change.bytes();
                group.push(write);
            }
            Request::Close => requests.close(),
        }
        let full = group.len() == MAX_GROUP_REQUESTS || bytes >= MAX_GROUP_BYTES;
        next = if full { None } else { requests.try_recv().ok() };
    }
    group
}

/// Whether the disk itself or another process is in the way, so that a smaller group would fail as well.
/// A full disk is not: the others' records may still fit.
fn stops_everybody(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::SystemIoFailure))
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(record) => record.len(),
            Self::Compact { snapshot, .. } => snapshot.len(),
            Self::SetAside { update, .. } => update.len(),
        }
    }
}

impl Write {
    fn apply(&self, database: &Connection) -> rusqlite::Result<u64> {
        let document = document_id(database, &self.name)?;
        // The database alone knows the last position, so nothing has to be put right after a failed commit.
        let last: i64 = database
            .prepare_cached(
                "SELECT coalesce((SELECT max(position) FROM log WHERE document = ?1),
                                 (SELECT through FROM snapshot WHERE document = ?1), 0)",
            )?
            .query_row([document], |row| row.get(0))?;
        match &self.change {
            Change::Append(record) => {
                database
                    .prepare_cached("INSERT INTO log (document, position, record) VALUES (?1, ?2, ?3)")?
                    .execute((document, last + 1, &record[..]))?;
                Ok((last + 1).cast_unsigned())
            }
            Change::Compact { through, snapshot } => {
                // A position that was never given must not hide the records that will have it.
                let through = i64::try_from(*through).map_or(last, |through| through.min(last));
                // Where a newer snapshot was faster, this one has nothing left to replace.
                database
                    .prepare_cached(
                        "INSERT INTO snapshot (document, through, data) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO UPDATE SET through = excluded.through, data = excluded.data
                         WHERE excluded.through >= snapshot.through",
                    )?
                    .execute((document, through, &snapshot[..]))?;
                database
                    .prepare_cached("DELETE FROM log WHERE document = ?1 AND position <= ?2")?
                    .execute([document, through])?;
                Ok(through.cast_unsigned())
            }
            Change::SetAside { update, reason } => {
                database
                    .prepare_cached("INSERT INTO set_aside (document, reason, data) VALUES (?1, ?2, ?3)")?
                    .execute((document, reason, &update[..]))?;
                database
                    .prepare_cached(
                        "DELETE FROM set_aside WHERE document = ?1 AND id NOT IN
                         (SELECT id FROM set_aside WHERE document = ?1 ORDER BY id DESC LIMIT ?2)",
                    )?
                    .execute((document, MAX_SET_ASIDE))?;
                Ok(last.cast_unsigned())
            }
        }
    }

    fn answer(self, outcome: Result<u64, BackendError>) {
        if let Err(Err(error)) = self.done.send(outcome) {
            tracing::warn!(document = %self.name, %error, "a write failed, and nobody waits for its answer");
        }
    }
}

/// The number of a document; a new name gets one.
fn document_id(database: &Connection, name: &DocumentName) -> rusqlite::Result<i64> {
    let known = database
        .prepare_cached("SELECT id FROM document WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    match known {
        Some(id) => Ok(id),
        None => database.prepare_cached("INSERT INTO document (name) VALUES (?1)")?.insert([name.as_str()]),
    }
}
