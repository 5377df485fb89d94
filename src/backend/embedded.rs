//! A backend in a folder of this machine: one SQLite database, used by one process at a time. All writing is
//! done by one thread, in groups, so that many documents share one wait for the disk. It never answers an
//! append before the disk has it, and never looks into a record.

mod writer;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{self, Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
};

use self::writer::{Change, MAX_GROUP_REQUESTS, Request, Write, Writer};
use super::{Answer, Appended, Backend, BackendError, Counted, Position, Stored, users::Users};
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
    CREATE TABLE set_aside (
        id INTEGER PRIMARY KEY, document INTEGER NOT NULL, time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
        reason TEXT NOT NULL, data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX set_aside_document ON set_aside (document);
    PRAGMA user_version = 1;";

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
    users: Arc<Users>,
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
        // Readers are connected later, wherever this process may have gone by then.
        let folder = path::absolute(folder)?;
        make_folder(&folder)?;
        let lock = lock(&folder)?;
        let path = folder.join("quire.db");
        let connection = open_database(&path)?;
        sync_folder(&folder)?;

        let (requests, waiting) = mpsc::channel(MAX_GROUP_REQUESTS);
        let (ended, writing) = watch::channel(());
        let writer = Writer { connection, lock, ended };
        thread::Builder::new().name("quire-writer".into()).spawn(|| writer.run(waiting))?;
        let readers = Readers { path, idle: Mutex::default(), free: Arc::new(Semaphore::new(READERS)) };
        Ok(Self { requests, readers: Arc::new(readers), writing, users: Arc::default() })
    }

    /// Asks the writer; it answers with the number of the record, or up to which it compacted.
    fn ask(&self, name: &DocumentName, change: Change) -> Answer<u64> {
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

    fn append(&self, name: &DocumentName, record: Bytes) -> Answer<Appended> {
        let appended = self.ask(name, Change::Append(record));
        Box::pin(async move {
            // Nobody else writes here, so nothing is between two records.
            Ok(Appended { position: position(appended.await?), gapless: true, records: None })
        })
    }

    fn compact(&self, name: &DocumentName, through: Position, snapshot: Bytes) -> Answer<()> {
        let compacted = self.ask(name, Change::Compact { through: through.number, snapshot });
        Box::pin(async move { compacted.await.map(|_| ()) })
    }

    fn set_aside(&self, name: &DocumentName, update: Bytes, reason: String) -> Answer<()> {
        let set_aside = self.ask(name, Change::SetAside { update, reason });
        Box::pin(async move { set_aside.await.map(|_| ()) })
    }

    fn admit(&self, user: &str, limit: usize) -> Answer<Option<Counted>> {
        Box::pin(std::future::ready(Ok(self.users.admit(user, limit))))
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
            Ok((position(row.get::<_, i64>(0)?.cast_unsigned()), row.get::<_, Vec<u8>>(1)?.into()))
        })?
        .collect::<Result<_, _>>()?;
    let set_aside = view
        .prepare_cached(
            "SELECT data FROM set_aside JOIN document ON document.id = document WHERE name = ?1 ORDER BY set_aside.id",
        )?
        .query_map([name.as_str()], |row| Ok(row.get::<_, Vec<u8>>(0)?.into()))?
        .collect::<Result<_, _>>()?;
    Ok(Stored { snapshot: snapshot.map(Bytes::from), log, set_aside })
}

/// A log here is never lost: it stays in its first epoch.
fn position(number: u64) -> Position {
    Position { epoch: 0, number }
}

fn store_error(error: rusqlite::Error) -> BackendError {
    BackendError::Store(error.to_string())
}

/// Makes a folder, given by its whole path, and those above it where they are missing, for nobody but us.
fn make_folder(folder: &Path) -> io::Result<()> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    make_folder(parent)?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    sync_folder(parent)
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
