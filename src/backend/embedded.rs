//! A backend in a folder of this machine: one SQLite database, used by one process at a time. All writing is
//! done by one thread, in groups, so that many documents share one wait for the disk. It never answers an
//! append before the disk has it, and never looks into a record.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
};

use super::{Answer, Backend, BackendError, Position, Stored};
use crate::name::DocumentName;

/// The version of the tables below, kept in the database. Other tables, another number.
const SCHEMA_VERSION: i32 = 1;
/// A snapshot holds the records of its document up to `through`, which is what keeps positions growing when
/// the log is empty. The small columns come first: they are read without the large one behind them.
const SCHEMA: &str = "
    CREATE TABLE document (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE snapshot (document INTEGER PRIMARY KEY, through INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE TABLE log (
        document INTEGER NOT NULL, position INTEGER NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (document, position)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// Requests that may wait for the writer, and the most that go into one group: a document has one append
/// under way, so this is a thousand documents. More wait their turn outside, in order.
const MAX_GROUP_REQUESTS: usize = 1_024;
/// Bytes after which a group takes no more, beside one request of any size: written in a tenth of a second
/// on a common disk, for which everybody else in the group waits.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Between the starts of two groups: a 5 ms window costs a third of the processor time of a 1 ms one, and
/// nobody sees 2 ms. A request that comes at rest does not wait.
const GROUP_SPACING: Duration = Duration::from_millis(2);
/// Documents that are read at once. More would wait for the same disk.
const READERS: usize = 4;
/// How long SQLite waits for somebody else who has the database open, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps documents in a folder. Dropping it ends it too, in its own time: what was accepted is still written.
pub struct Embedded {
    requests: mpsc::Sender<Request>,
    readers: Arc<Readers>,
    /// Nothing is ever sent: it closes when the writer has ended.
    writing: watch::Receiver<()>,
}

/// A data folder that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the data folder {}: {obstacle}", .folder.display())]
pub struct OpenError {
    /// The folder.
    pub folder: PathBuf,
    /// What is in the way.
    pub obstacle: Obstacle,
}

/// What is in the way of opening a data folder, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// Another [`Embedded`] has it, in the process with this id where that can be read.
    #[error(
        "another Quire is using it{}; stop that one, or choose another folder with --data",
        .0.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse(Option<u32>),
    /// The tables in its database have this version, which is newer than ours.
    #[error(
        "its database is of version {0}, and this Quire knows versions up to {SCHEMA_VERSION}; start the newer \
         Quire that made it, or choose another folder with --data"
    )]
    Newer(i32),
    /// It cannot be made, or not be written.
    #[error("{0}; give it a folder that can be made and written, for example with --data")]
    Folder(#[from] io::Error),
    /// SQLite cannot open its database.
    #[error("its database answers: {0}")]
    Database(#[from] rusqlite::Error),
}

impl Embedded {
    /// Opens the folder, and makes it where it is missing. It is ours until [`Backend::close`] has answered.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::start(folder).map_err(|obstacle| OpenError { folder: folder.into(), obstacle })
    }

    fn start(folder: &Path) -> Result<Self, Obstacle> {
        make_folder(folder)?;
        let lock = lock(folder)?;
        // Absolute, because readers are connected later.
        let path = folder.canonicalize()?.join("quire.db");
        let connection = open_database(&path)?;
        sync_folder(folder)?;

        let (requests, waiting) = mpsc::channel(MAX_GROUP_REQUESTS);
        let (ended, writing) = watch::channel(());
        let writer = Writer { connection, _lock: lock, _ended: ended };
        thread::Builder::new().name("quire-writer".into()).spawn(|| writer.run(waiting))?;
        let readers = Readers { path, idle: Mutex::default(), free: Arc::new(Semaphore::new(READERS)) };
        Ok(Self { requests, readers: Arc::new(readers), writing })
    }

    /// Asks the writer; it answers with the position of the record, or up to which it compacted.
    fn ask(&self, name: &DocumentName, change: Change) -> Answer<Position> {
        let (requests, name) = (self.requests.clone(), name.clone());
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let sent = requests.send(Request::Write(Write { name, change, done })).await;
            // Who waits for an answer does not keep the writer from ending.
            drop(requests);
            sent.map_err(|_| BackendError::Closed)?;
            answer.await.unwrap_or(Err(BackendError::Closed))
        })
    }
}

impl Backend for Embedded {
    fn load(&self, name: &DocumentName) -> Answer<Stored> {
        let (readers, name) = (self.readers.clone(), name.clone());
        Box::pin(async move {
            let free = readers.free.clone().acquire_owned().await.map_err(|_| BackendError::Closed)?;
            let reading = spawn_blocking(move || {
                // Given back when the reading is over, also where nobody waits for it any more.
                let _free = free;
                readers.load(&name).map_err(store_error)
            });
            reading.await.unwrap_or_else(|error| Err(BackendError::Store(error.to_string())))
        })
    }

    fn append(&self, name: &DocumentName, record: Bytes) -> Answer<Position> {
        self.ask(name, Change::Append(record))
    }

    fn compact(&self, name: &DocumentName, through: Position, snapshot: Bytes) -> Answer<()> {
        let compacted = self.ask(name, Change::Compact { through, snapshot });
        Box::pin(async move { compacted.await.map(|_| ()) })
    }

    fn close(&self) -> Answer<()> {
        let (requests, readers) = (self.requests.clone(), self.readers.clone());
        let mut writing = self.writing.clone();
        Box::pin(async move {
            // It is refused where the writer has heard it before; then only its end is awaited.
            let _ = requests.send(Request::Close).await;
            readers.close().await;
            while writing.changed().await.is_ok() {}
            Ok(())
        })
    }
}

/// What the writer hears.
enum Request {
    Write(Write),
    /// Take what is in the queue, and nothing more.
    Close,
}

struct Write {
    name: DocumentName,
    change: Change,
    done: oneshot::Sender<Result<Position, BackendError>>,
}

enum Change {
    Append(Bytes),
    Compact { through: Position, snapshot: Bytes },
}

/// The thread that writes. Its fields are dropped in their order, so that whoever hears that it has ended
/// finds the database closed and the folder free.
struct Writer {
    connection: Connection,
    _lock: File,
    _ended: watch::Sender<()>,
}

impl Writer {
    /// Writes group after group: what gathers while one is written is the next.
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
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
    fn commit(&mut self, group: &[Write]) -> rusqlite::Result<Vec<Position>> {
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
        }
    }
}

impl Write {
    fn apply(&self, database: &Connection) -> rusqlite::Result<Position> {
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
        }
    }

    fn answer(self, outcome: Result<Position, BackendError>) {
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

/// The connections that read, each made when it is first needed.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("it is held for one push or pop, which do not panic")
    }

    fn load(&self, name: &DocumentName) -> rusqlite::Result<Stored> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        // A connection that failed is not used again.
        let stored = read(&mut connection, name)?;
        self.idle().push(connection);
        Ok(stored)
    }

    /// Waits for the loads that have begun, and refuses all others.
    async fn close(&self) {
        let all = self.free.acquire_many(READERS as u32).await;
        self.free.close();
        drop(all);
        self.idle().clear();
    }
}

fn read(connection: &mut Connection, name: &DocumentName) -> rusqlite::Result<Stored> {
    // One transaction sees one state of the database, whatever is written meanwhile.
    let view = connection.transaction()?;
    let snapshot = view
        .prepare_cached("SELECT data FROM snapshot JOIN document ON id = document WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let log = view
        .prepare_cached(
            "SELECT position, record FROM log JOIN document ON id = document WHERE name = ?1 ORDER BY position",
        )?
        .query_map([name.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, Vec<u8>>(1)?.into()))
        })?
        .collect::<Result<_, _>>()?;
    Ok(Stored { snapshot: snapshot.map(Bytes::from), log })
}

fn store_error(error: rusqlite::Error) -> BackendError {
    BackendError::Store(error.to_string())
}

/// Makes the folder where it is missing, for nobody but us.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)?;
    folder.canonicalize()?.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder's list of files durable: without it a power cut may lose a new file, whatever is in it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix opens a folder like a file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Takes the folder for this process. The operating system frees it when the process ends, however it ends.
fn lock(folder: &Path) -> Result<File, Obstacle> {
    let mut options = File::options();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let pid = io::read_to_string(file).ok();
            Err(Obstacle::InUse(pid.and_then(|pid| pid.trim().parse().ok())))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Opens the database for writing, makes its tables where it is new, and sets what the promise rests on.
fn open_database(path: &Path) -> Result<Connection, Obstacle> {
    let mut database = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // SQLite opens a file that it may not write all the same.
    if database.is_readonly("main")? {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the database may not be written").into());
    }
    // Asked before anything is written.
    let version = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > SCHEMA_VERSION {
        return Err(Obstacle::Newer(version));
    }
    database.pragma_update(None, "page_size", 4096)?;
    let mode: String = database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(io::Error::other("SQLite's WAL mode does not work on its file system").into());
    }
    // Every commit waits for the disk, on macOS for the disk's own cache too.
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "fullfsync", true)?;
    // Pages, 4 MB: then the WAL is worked into the database, and written from its start again.
    database.pragma_update(None, "wal_autocheckpoint", 1000)?;
    // Bytes that the WAL may keep after a burst.
    database.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    if version == 0 {
        let transaction = database.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.commit()?;
    }
    Ok(database)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}
