//! Reading beside the writer: a few connections, each used by one thread at a time, and each made when it is first
//! needed.

use std::{
    cmp::Ordering,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    super::{Answer, BackendError, Listed, Position, Segment, Stored},
    connect,
    lifecycle::{self, Row},
    position, store_error,
};
use crate::name::DocumentName;

/// Readings at once. More would wait for the same disk.
const READERS: usize = 4;

/// What each of them keeps of the database, in KiB. It is worth little: the writer's next commit ends it, and the operating
/// system has it, too.
const CACHE: i32 = 128;

/// The connections that read.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// Readers of the database at this path.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), free: Arc::new(Semaphore::new(READERS)) }
    }

    /// A document with its generation; `None` where it is deleted.
    pub(super) fn load(self: &Arc<Self>, name: &DocumentName) -> Answer<Option<(u64, Stored)>> {
        let name = name.clone();
        self.read(move |view| load(view, &name))
    }

    /// What is known of each segment of a document's history.
    pub(super) fn segments(self: &Arc<Self>, name: &DocumentName) -> Answer<Vec<(Position, Bytes)>> {
        let name = name.clone();
        self.read(move |view| {
            let Some(row) = there(view, &name)? else { return Ok(Vec::new()) };
            view.prepare_cached("SELECT through, about FROM segment WHERE document = ?1 ORDER BY through")?
                .query_map([row.id], |found| {
                    Ok((position(row.generation, found.get(0)?), found.get::<_, Vec<u8>>(1)?.into()))
                })?
                .collect()
        })
    }

    /// The segments up to and including this position.
    pub(super) fn read_segments(
        self: &Arc<Self>,
        name: &DocumentName,
        through: Position,
    ) -> Answer<Vec<Segment>> {
        let name = name.clone();
        self.read(move |view| {
            let Some(row) = there(view, &name)? else { return Ok(Vec::new()) };
            let generation = row.generation.cast_unsigned();
            let last = match through.epoch.cmp(&generation) {
                Ordering::Less => return Ok(Vec::new()),
                Ordering::Equal => i64::try_from(through.number).unwrap_or(i64::MAX),
                Ordering::Greater => i64::MAX,
            };
            view.prepare_cached(
                "SELECT through, about, data FROM segment WHERE document = ?1 AND through <= ?2 ORDER BY through",
            )?
            .query_map([row.id, last], |found| {
                Ok(Segment {
                    through: position(row.generation, found.get(0)?),
                    about: found.get::<_, Vec<u8>>(1)?.into(),
                    data: found.get::<_, Vec<u8>>(2)?.into(),
                })
            })?
            .collect()
        })
    }

    /// Documents whose names begin with `prefix` and come after `after`.
    pub(super) fn list(self: &Arc<Self>, prefix: String, after: String, limit: usize) -> Answer<Vec<Listed>> {
        self.read(move |view| list(view, &prefix, &after, limit))
    }

    /// Reads in one transaction, which sees one state of the database whatever is written meanwhile.
    fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let readers = self.clone();
        Box::pin(async move {
            let free = readers.free.clone().acquire_owned().await.map_err(|_| BackendError::Closed)?;
            let reading = spawn_blocking(move || {
                // Given back when the reading is over, also where nobody waits for it any more.
                let _free = free;
                readers.read_now(read).map_err(store_error)
            });
            reading.await.unwrap_or_else(|error| Err(BackendError::Store(error.to_string())))
        })
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        // Negative: KiB, not pages.
        connection.pragma_update(None, "cache_size", -CACHE)?;
        Ok(connection)
    }

    fn read_now<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        // A connection that failed is not used again.
        let view = connection.transaction()?;
        let found = read(&view)?;
        drop(view);
        self.idle().push(connection);
        Ok(found)
    }

    /// Waits for the readings that have begun, and refuses all others.
    pub(super) async fn close(&self) {
        let all = self.free.acquire_many(READERS as u32).await;
        self.free.close();
        drop(all);
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("it is held for one push or pop, which do not panic")
    }
}

/// A document's row, unless it is deleted.
fn there(view: &Connection, name: &DocumentName) -> rusqlite::Result<Option<Row>> {
    Ok(lifecycle::find(view, name)?.filter(|row| row.deleted.is_none()))
}

fn load(view: &Connection, name: &DocumentName) -> rusqlite::Result<Option<(u64, Stored)>> {
    let row = match lifecycle::find(view, name)? {
        None => return Ok(Some((0, Stored::default()))),
        Some(row) if row.deleted.is_some() => return Ok(None),
        Some(row) => row,
    };
    let snapshot = view
        .prepare_cached("SELECT data FROM snapshot WHERE document = ?1")?
        .query_row([row.id], |found| found.get::<_, Vec<u8>>(0))
        .optional()?;
    let log = view
        .prepare_cached("SELECT position, record FROM log WHERE document = ?1 ORDER BY position")?
        .query_map([row.id], |found| {
            Ok((position(row.generation, found.get(0)?), found.get::<_, Vec<u8>>(1)?.into()))
        })?
        .collect::<Result<_, _>>()?;
    let set_aside = view
        .prepare_cached("SELECT data FROM set_aside WHERE document = ?1 ORDER BY id")?
        .query_map([row.id], |found| Ok(found.get::<_, Vec<u8>>(0)?.into()))?
        .collect::<Result<_, _>>()?;
    let stored = Stored { snapshot: snapshot.map(Bytes::from), log, set_aside };
    Ok(Some((row.generation.cast_unsigned(), stored)))
}

fn list(view: &Connection, prefix: &str, after: &str, limit: usize) -> rusqlite::Result<Vec<Listed>> {
    // The lengths are read without what they are of. A row with neither is that of no document.
    let mut names = view.prepare_cached(
        "SELECT name, changed,
                (SELECT length(data) FROM snapshot WHERE document = id) AS snapshot,
                (SELECT sum(length(record)) FROM log WHERE document = id) AS log
         FROM document
         WHERE name >= ?1 AND name > ?2 AND deleted IS NULL AND (snapshot IS NOT NULL OR log IS NOT NULL)
         ORDER BY name",
    )?;
    let mut rows = names.query([prefix, after])?;
    let mut listed = Vec::new();
    while listed.len() < limit
        && let Some(row) = rows.next()?
    {
        let name = row.get::<_, String>(0)?;
        if !name.starts_with(prefix) {
            break;
        }
        // Names are checked before they come here.
        let Ok(name) = DocumentName::new(&name) else { continue };
        let length = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.unwrap_or(0));
        let changed = row.get::<_, i64>(1)?;
        listed.push(Listed {
            name,
            bytes: (length(2)? + length(3)?).cast_unsigned(),
            changed: (changed > 0).then_some(changed.cast_unsigned()),
        });
    }
    Ok(listed)
}
