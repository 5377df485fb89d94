//! The thread that writes: it owns the only connection that may, and writes what has gathered as one group,
//! with one wait for the disk.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    lifecycle::{self, Row},
    position, queue, store_error,
};
use crate::{
    backend::{BackendError, Exchange, Exchanged, MAX_SET_ASIDE, Position, Segment},
    name::DocumentName,
};

/// Requests that may wait for the writer, and the most that go into one group: a document has one append
/// under way, so this is a thousand documents. More wait their turn outside, in order.
pub(super) const MAX_GROUP_REQUESTS: usize = 1_024;
/// Bytes after which a group takes no more, beside one request of any size: written in a tenth of a second
/// on a common disk, for which everybody else in the group waits.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Between the starts of two groups. A request that comes at rest does not wait, and who makes one after the other waits
/// for little; where many come at once, a wait for the disk costs more than their own work, and nobody sees 8 ms.
const SPACING_OF_FEW: Duration = Duration::from_millis(2);
const SPACING_OF_MANY: Duration = Duration::from_millis(8);
/// How often it is looked for deleted documents whose time is over; with the next write after that.
const EXPIRE_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the writer hears.
pub(super) enum Request {
    Write(Write),
    Exchange(Asked),
    /// Take what is in the queue, and nothing more.
    Close,
}

/// An exchange with the queue, and who waits for its answer.
pub(super) type Asked = (Exchange, oneshot::Sender<Result<Exchanged, BackendError>>);

pub(super) struct Write {
    pub(super) name: DocumentName,
    /// In which generation the document was loaded that changes; unknown where it was not.
    pub(super) generation: Option<u64>,
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Written>,
}

/// Where the document's log ends; nothing where there was nothing to do.
type Written = Result<Option<Position>, BackendError>;

pub(super) enum Change {
    Append(Bytes),
    Compact { through: Position, snapshot: Bytes, segment: Option<Segment> },
    ReplaceSegments { old: Vec<(Position, Bytes)>, new: Segment },
    SetAside { update: Bytes, reason: String },
    Delete { keep_for: Duration },
    Undelete,
    Create { first: Option<Bytes> },
}

/// The thread that writes.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) lock: File,
    /// How many notifications are in the queue, once they were counted.
    pub(super) waiting: Option<usize>,
    pub(super) ended: watch::Sender<()>,
}

impl Writer {
    /// Writes group after group: what gathers while one is written is the next.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut expire_at = self.expire();
        while let Some(first) = requests.blocking_recv() {
            let start = Instant::now();
            let mut exchanges = Vec::new();
            let group = gather(first, &mut requests, &mut exchanges);
            let spacing = if group.len() > 2 { SPACING_OF_MANY } else { SPACING_OF_FEW };
            if !group.is_empty() || !exchanges.is_empty() {
                self.write(group, exchanges);
            }
            if expire_at <= start {
                expire_at = self.expire();
            }
            thread::sleep(spacing.saturating_sub(start.elapsed()));
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

    /// Writes a group, and the exchanges with it, and answers everybody in it.
    fn write(&mut self, mut group: Vec<Write>, exchanges: Vec<Asked>) {
        match self.commit(&group, &exchanges) {
            Ok((written, exchanged)) => {
                group.into_iter().zip(written).for_each(|(write, written)| write.answer(written));
                exchanges.into_iter().zip(exchanged).for_each(|((_, done), exchanged)| {
                    // An error: nobody waits for the answer any more.
                    let _ = done.send(Ok(exchanged));
                });
            }
            Err(error) if !group.is_empty() && !exchanges.is_empty() && !stops_everybody(&error) => {
                self.write(group, Vec::new());
                self.write(Vec::new(), exchanges);
            }
            // What fails for one document is not an error for another: halving finds it in few commits.
            Err(error) if group.len() > 1 && !stops_everybody(&error) => {
                let later = group.split_off(group.len() / 2);
                self.write(group, Vec::new());
                self.write(later, Vec::new());
            }
            Err(error) => {
                let error = store_error(error);
                group.into_iter().for_each(|write| write.answer(Err(error.clone())));
                exchanges.into_iter().for_each(|(_, done)| {
                    let _ = done.send(Err(error.clone()));
                });
            }
        }
    }

    /// All of the group or nothing, durable when it returns.
    fn commit(
        &mut self,
        group: &[Write],
        exchanges: &[Asked],
    ) -> rusqlite::Result<(Vec<Written>, Vec<Exchanged>)> {
        // Where this fails, it is counted anew.
        let mut waiting = self.waiting.take();
        let committed = self.change(|database| {
            let written = group.iter().map(|write| match write.apply(database) {
                Ok(position) => Ok(Ok(position)),
                Err(Refusal::Document(error)) => Ok(Err(error)),
                Err(Refusal::Database(error)) => Err(error),
            });
            let written = written.collect::<Result<_, _>>()?;
            let exchanged =
                exchanges.iter().map(|(exchange, _)| queue::exchange(database, exchange, &mut waiting));
            Ok((written, exchanged.collect::<Result<_, _>>()?))
        })?;
        self.waiting = waiting;
        Ok(committed)
    }

    fn change<T>(&mut self, change: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute(());
        run("BEGIN IMMEDIATE")?;
        let changed = change(&self.connection).and_then(|changed| run("COMMIT").map(|_| changed));
        // Some errors have rolled it back already.
        if changed.is_err() && !self.connection.is_autocommit() {
            // An error: the next group cannot begin then, and tells everybody in it.
            let _ = run("ROLLBACK");
        }
        changed
    }

    /// Lets the content of deleted documents go whose time is over; answers when to look again.
    fn expire(&mut self) -> Instant {
        let more = self.change(lifecycle::expire).unwrap_or_else(|error| {
            tracing::warn!(%error, "what deleted documents have left could not be removed; it is tried again");
            false
        });
        Instant::now() + if more { Duration::ZERO } else { EXPIRE_EVERY }
    }
}

/// Everything that waits, as far as it goes into one group; exchanges with the queue are put beside.
fn gather(first: Request, requests: &mut mpsc::Receiver<Request>, exchanges: &mut Vec<Asked>) -> Vec<Write> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Request::Write(write) => {
                bytes += write.change.bytes();
                group.push(write);
            }
            Request::Exchange(asked) => exchanges.push(asked),
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
            Self::Compact { snapshot, segment, .. } => {
                snapshot.len() + segment.as_ref().map_or(0, |segment| segment.data.len())
            }
            Self::ReplaceSegments { new, .. } => new.data.len(),
            Self::SetAside { update, .. } => update.len(),
            Self::Create { first } => first.as_ref().map_or(0, Bytes::len),
            Self::Delete { .. } | Self::Undelete => 0,
        }
    }
}

/// Why a change is not made.
enum Refusal {
    /// What the document has become does not allow it; nothing was written.
    Document(BackendError),
    /// The database failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl Write {
    fn apply(&self, database: &Connection) -> Result<Option<Position>, Refusal> {
        let found = lifecycle::find(database, &self.name)?;
        let done = match &self.change {
            Change::Append(record) => return Ok(Some(append(database, self.row(database, found)?, record)?)),
            Change::Compact { through, snapshot, segment } => {
                let row = self.row(database, found)?;
                let through = compact(database, row, *through, snapshot)?;
                if let (Some(_), Some(segment)) = (through, segment) {
                    put_segment(database, row, segment)?;
                }
                return Ok(through);
            }
            Change::ReplaceSegments { old, new } => {
                replace_segments(database, self.row(database, found)?, old, new)?
            }
            Change::SetAside { update, reason } => {
                set_aside(database, self.row(database, found)?, update, reason)?;
                true
            }
            Change::Delete { keep_for } => lifecycle::delete(database, found, *keep_for)?,
            Change::Undelete => lifecycle::undelete(database, found)?,
            Change::Create { first } => {
                let begun = lifecycle::create(database, found)?;
                if let (Some(row), Some(record)) = (begun, first) {
                    append(database, row, record)?;
                }
                begun.is_some()
            }
        };
        Ok(done.then(Position::default))
    }

    /// The row of a document whose content changes; a new name gets one.
    fn row(&self, database: &Connection, found: Option<Row>) -> Result<Row, Refusal> {
        let Some(row) = found else { return Ok(lifecycle::begin(database, &self.name)?) };
        if row.deleted.is_some() {
            return Err(Refusal::Document(BackendError::Deleted));
        }
        match self.generation {
            Some(loaded) if loaded != row.generation.cast_unsigned() => {
                Err(Refusal::Document(BackendError::Recreated))
            }
            _ => Ok(row),
        }
    }

    fn answer(self, outcome: Written) {
        if let Err(Err(error)) = self.done.send(outcome) {
            tracing::warn!(document = %self.name, %error, "a write failed, and nobody waits for its answer");
        }
    }
}

fn append(database: &Connection, row: Row, record: &[u8]) -> rusqlite::Result<Position> {
    let number = last_number(database, row)? + 1;
    database
        .prepare_cached("INSERT INTO log (document, position, record) VALUES (?1, ?2, ?3)")?
        .execute((row.id, number, record))?;
    lifecycle::note_change(database, row)?;
    Ok(position(row.generation, number))
}

/// Answers with nothing where the position is of what was deleted before.
fn compact(
    database: &Connection,
    row: Row,
    through: Position,
    snapshot: &[u8],
) -> rusqlite::Result<Option<Position>> {
    // A position that was never given must not hide the records that will have it.
    let through = through.min(position(row.generation, last_number(database, row)?));
    if through.epoch < row.generation.cast_unsigned() {
        return Ok(None);
    }
    let number = through.number.cast_signed();
    // Where a newer snapshot was faster, this one has nothing left to replace.
    database
        .prepare_cached(
            "INSERT INTO snapshot (document, through, data) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET through = excluded.through, data = excluded.data
             WHERE excluded.through >= snapshot.through",
        )?
        .execute((row.id, number, snapshot))?;
    database
        .prepare_cached("DELETE FROM log WHERE document = ?1 AND position <= ?2")?
        .execute([row.id, number])?;
    Ok(Some(through))
}

fn put_segment(database: &Connection, row: Row, segment: &Segment) -> rusqlite::Result<()> {
    database
        .prepare_cached(
            "INSERT OR REPLACE INTO segment (document, through, about, data) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((row.id, segment.through.number.cast_signed(), &*segment.about, &*segment.data))?;
    Ok(())
}

/// Answers whether all of the old ones were there, with just this known of each.
fn replace_segments(
    database: &Connection,
    row: Row,
    old: &[(Position, Bytes)],
    new: &Segment,
) -> rusqlite::Result<bool> {
    let mut is_there = database.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM segment WHERE document = ?1 AND through = ?2 AND about = ?3)",
    )?;
    for (position, about) in old {
        let is_of_now = position.epoch == row.generation.cast_unsigned();
        let key = (row.id, position.number.cast_signed(), &**about);
        if !is_of_now || !is_there.query_row(key, |found| found.get::<_, bool>(0))? {
            return Ok(false);
        }
    }
    for (position, _) in old {
        database
            .prepare_cached("DELETE FROM segment WHERE document = ?1 AND through = ?2")?
            .execute([row.id, position.number.cast_signed()])?;
    }
    put_segment(database, row, new)?;
    Ok(true)
}

fn set_aside(database: &Connection, row: Row, update: &[u8], reason: &str) -> rusqlite::Result<()> {
    database
        .prepare_cached("INSERT INTO set_aside (document, reason, data) VALUES (?1, ?2, ?3)")?
        .execute((row.id, reason, update))?;
    database
        .prepare_cached(
            "DELETE FROM set_aside WHERE document = ?1 AND id NOT IN
             (SELECT id FROM set_aside WHERE document = ?1 ORDER BY id DESC LIMIT ?2)",
        )?
        .execute((row.id, MAX_SET_ASIDE))?;
    Ok(())
}

/// The number of the last record. The database alone knows it, so nothing has to be put right after a failed commit.
fn last_number(database: &Connection, row: Row) -> rusqlite::Result<i64> {
    database
        .prepare_cached(
            "SELECT coalesce((SELECT max(position) FROM log WHERE document = ?1),
                             (SELECT through FROM snapshot WHERE document = ?1), 0)",
        )?
        .query_row([row.id], |found| found.get(0))
}
