//! A backend in a folder of this machine: one SQLite database, used by one process at a time. All writing is
//! done by one thread, in groups, so that many documents share one wait for the disk. It never answers an
//! append before the disk has it, and never looks into a record.

mod followers;
mod lifecycle;
mod queue;
mod reading;
mod writer;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{self, Path, PathBuf},
    process,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    followers::Followers,
    reading::Readers,
    writer::{Change, MAX_GROUP_REQUESTS, Request, Write, Writer},
};
use super::{
    Answer, Appended, Backend, BackendError, Counted, Exchange, Exchanged, Feed, Listed, Position, Segment,
    Stored, users::Users,
};
use crate::name::DocumentName;

/// The version of the tables below, kept in the database. Other tables, another number.
const SCHEMA_VERSION: i32 = 3;
/// The tables of the first version. A snapshot holds the records of its document up to `through`, which is what keeps positions growing when
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
/// What the second version adds: a history; a document may be deleted (`deleted` says until when its content is kept, in
/// milliseconds since 1970) and begun anew in its next generation, and it is known when it was changed.
const SCHEMA_2: &str = "
    ALTER TABLE document ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE document ADD COLUMN deleted INTEGER;
    ALTER TABLE document ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX document_deleted ON document (deleted) WHERE deleted IS NOT NULL;
    CREATE TABLE segment (
        document INTEGER NOT NULL, through INTEGER NOT NULL, about BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (document, through)
    ) STRICT;
    PRAGMA user_version = 2;";
/// What the third version adds: notifications, and when each is due, in milliseconds since 1970.
const SCHEMA_3: &str = "
    CREATE TABLE notification (
        id TEXT PRIMARY KEY, due INTEGER NOT NULL, tries INTEGER NOT NULL, body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX notification_due ON notification (due, id);
    PRAGMA user_version = 3;";

/// Between two appends to one document. Each wait for the disk costs as much as some dozen edits do; nobody who types all
/// the time sees whether it was saved 25 ms ago.
const APPEND_SPACING: Duration = Duration::from_millis(25);
/// For edits of clients that are not told what is saved: a few waits for the disk each time, however many documents there are.
const APPEND_DELAY: Duration = Duration::from_millis(100);
/// How long SQLite waits for somebody else who has the database open, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps documents in a folder. Dropping it ends it too, in its own time: what was accepted is still written.
pub struct Embedded {
    requests: mpsc::Sender<Request>,
    readers: Arc<Readers>,
    /// Nothing is ever sent: it closes when the writer has ended.
    writing: watch::Receiver<()>,
    followers: Arc<Followers>,
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
        let writer = Writer { connection, lock, waiting: None, ended };
        thread::Builder::new().name("quire-writer".into()).spawn(|| writer.run(waiting))?;
        let readers = Arc::new(Readers::new(path));
        Ok(Self { requests, readers, writing, followers: Arc::default(), users: Arc::default() })
    }

    /// Asks the writer; it answers where the document's log ends then, or with nothing where there was nothing to do.
    fn ask(&self, name: &DocumentName, change: Change) -> Answer<Option<Position>> {
        let (requests, name) = (self.requests.clone(), name.clone());
        let generation = self.followers.get(&name).and_then(|follower| follower.generation());
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let sent = requests.send(Request::Write(Write { name, generation, change, done })).await;
            // Who waits for an answer does not keep the writer from ending.
            drop(requests);
            sent.map_err(|_| BackendError::Closed)?;
            answer.await.unwrap_or(Err(BackendError::Closed))
        })
    }
}

impl Backend for Embedded {
    fn load(&self, name: &DocumentName) -> Answer<Stored> {
        let (loading, follower) = (self.readers.load(name), self.followers.get(name));
        Box::pin(async move {
            let Some((generation, stored)) = loading.await? else { return Err(BackendError::Deleted) };
            match follower.is_none_or(|follower| follower.loaded(generation) == generation) {
                true => Ok(stored),
                false => Err(BackendError::Recreated),
            }
        })
    }

    fn append(&self, name: &DocumentName, record: Bytes) -> Answer<Appended> {
        let appended = self.ask(name, Change::Append(record));
        Box::pin(async move {
            let position = appended.await?.expect("there is something to append");
            // Nobody else writes here, so nothing is between two records.
            Ok(Appended { position, gapless: true, records: None })
        })
    }

    fn compact(
        &self,
        name: &DocumentName,
        through: Position,
        snapshot: Bytes,
        segment: Option<Segment>,
    ) -> Answer<()> {
        let compacted = self.ask(name, Change::Compact { through, snapshot, segment });
        Box::pin(async move { compacted.await.map(|_| ()) })
    }

    fn segments(&self, name: &DocumentName) -> Answer<Vec<(Position, Bytes)>> {
        self.readers.segments(name)
    }

    fn read_segments(&self, name: &DocumentName, through: Position) -> Answer<Vec<Segment>> {
        self.readers.read_segments(name, through)
    }

    fn replace_segments(
        &self,
        name: &DocumentName,
        old: Vec<(Position, Bytes)>,
        new: Segment,
    ) -> Answer<bool> {
        let replaced = self.ask(name, Change::ReplaceSegments { old, new });
        Box::pin(async move { Ok(replaced.await?.is_some()) })
    }

    fn set_aside(&self, name: &DocumentName, update: Bytes, reason: String) -> Answer<()> {
        let set_aside = self.ask(name, Change::SetAside { update, reason });
        Box::pin(async move { set_aside.await.map(|_| ()) })
    }

    fn list(&self, prefix: &str, after: &str, limit: usize) -> Answer<Vec<Listed>> {
        self.readers.list(prefix.to_owned(), after.to_owned(), limit)
    }

    fn delete(&self, name: &DocumentName, keep_for: Duration) -> Answer<bool> {
        let deleted = self.ask(name, Change::Delete { keep_for });
        let (followers, name) = (self.followers.clone(), name.clone());
        Box::pin(async move {
            let deleted = deleted.await?.is_some();
            if let Some(follower) = followers.get(&name) {
                follower.compare();
            }
            Ok(deleted)
        })
    }

    fn undelete(&self, name: &DocumentName) -> Answer<bool> {
        let undeleted = self.ask(name, Change::Undelete);
        Box::pin(async move { Ok(undeleted.await?.is_some()) })
    }

    fn create(&self, name: &DocumentName, first: Option<Bytes>) -> Answer<bool> {
        let created = self.ask(name, Change::Create { first });
        Box::pin(async move { Ok(created.await?.is_some()) })
    }

    fn exchange(&self, exchange: Exchange) -> Answer<Exchanged> {
        let requests = self.requests.clone();
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let sent = requests.send(Request::Exchange((exchange, done))).await;
            drop(requests);
            sent.map_err(|_| BackendError::Closed)?;
            answer.await.unwrap_or(Err(BackendError::Closed))
        })
    }

    fn follow(&self, name: &DocumentName) -> Feed {
        self.followers.follow(name)
    }

    fn append_spacing(&self) -> Duration {
        APPEND_SPACING
    }

    fn append_delay(&self) -> Duration {
        APPEND_DELAY
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

/// A log here is never lost: an epoch is a generation of the document.
fn position(generation: i64, number: i64) -> Position {
    Position { epoch: generation.cast_unsigned(), number: number.cast_unsigned() }
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
    migrate(&mut database, version)?;
    Ok(database)
}

/// Brings the tables of an older version, or none at all, to this one.
fn migrate(database: &mut Connection, version: i32) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    for (number, schema) in [(1, SCHEMA), (2, SCHEMA_2), (3, SCHEMA_3)] {
        if version < number {
            transaction.execute_batch(schema)?;
        }
    }
    transaction.commit()
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // More than there are statements, so that each is prepared once.
    connection.set_prepared_statement_cache_capacity(64);
    // Otherwise it plans a statement anew for each value that it is given; ours have one good plan.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}
