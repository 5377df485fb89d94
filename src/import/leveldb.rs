//! Reads a LevelDB folder from its first key to its last, with the newest value of each, and changes nothing in it. What
//! is damaged is an error, and never left out. A folder that a server has open changes while it is read, so its lock is
//! asked for, and held.
//!
//! The libraries that know LevelDB do not fit: they open a folder for writing, with a new log and manifest and perhaps new
//! tables in it, and the one without C++ (`rusty-leveldb` 4.0) goes on behind a damaged block as if nothing were missing.
//!
//! Source of the format: `doc/impl.md`, `doc/log_format.md` and `doc/table_format.md` of Google's LevelDB.

mod log;
mod table;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    vec,
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    io::Errno,
};

use self::table::Table;
use super::StoreError;
use crate::lib0::{ReadError, Reader as Bytes};

/// The order of keys that everybody uses: by their bytes.
const COMPARATOR: &[u8] = b"leveldb.BytewiseComparator";

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// One value that was written under a key, or its deletion.
#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    /// Grows with everything that is written.
    sequence: u64,
    /// None where the key was deleted.
    value: Option<Vec<u8>>,
}

/// Entries in the order of their keys, the newest of a key first.
type Entries = Box<dyn Iterator<Item = Result<Entry, StoreError>> + Send>;

/// The keys and values of a folder, in the order of the keys.
pub(super) struct Reader {
    /// Each in its own order; what they hold is merged.
    sources: Vec<Source>,
    /// The key that was read last: what follows of it is older.
    last: Option<Vec<u8>>,
    /// Open for its lock, which keeps others out.
    _lock: Option<File>,
}

struct Source {
    next: Option<Result<Entry, StoreError>>,
    entries: Entries,
}

impl Source {
    /// The place of its next entry among all; an error comes before everything else.
    fn place(&self) -> Option<(&[u8], Reverse<u64>)> {
        let entry = self.next.as_ref()?.as_ref().ok()?;
        Some((&entry.key, Reverse(entry.sequence)))
    }
}

impl Reader {
    /// Takes the folder's lock, and finds out which of its files count.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        let files = Files::of(folder)?;
        let written_last: Entries = Box::new(log::entries(&files.logs)?.into_iter().map(Ok));
        // The youngest tables overlap; those of an older level follow each other.
        let (young, older): (Vec<_>, Vec<_>) = files.levels.into_iter().partition(|(level, _)| *level == 0);
        let young = young.into_iter().flat_map(|(_, tables)| tables).map(|table| vec![table]);
        let older = older.into_iter().map(|(_, tables)| tables);
        let tables = young.chain(older).map(|tables| Box::new(Level::new(tables)) as Entries);
        let sources = [written_last].into_iter().chain(tables).map(|mut entries| {
            let next = entries.next();
            Source { next, entries }
        });
        Ok(Self { sources: sources.collect(), last: None, _lock: lock })
    }

    /// The first of all entries that were not read yet.
    fn next_entry(&mut self) -> Option<Result<Entry, StoreError>> {
        let unread = self.sources.iter_mut().filter(|source| source.next.is_some());
        let first = unread.min_by(|a, b| a.place().cmp(&b.place()))?;
        std::mem::replace(&mut first.next, first.entries.next())
    }
}

impl Iterator for Reader {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.next_entry()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            if self.last.as_ref() == Some(&entry.key) {
                continue;
            }
            self.last = Some(entry.key.clone());
            if let Some(value) = entry.value {
                return Some(Ok((entry.key, value)));
            }
        }
    }
}

/// Takes the lock that a LevelDB holds while it is open, where there is one.
fn lock(folder: &Path) -> Result<Option<File>, StoreError> {
    let path = folder.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::new(&path, error)),
    };
    match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            Err(StoreError::new(folder, "a server is using it: stop that one first"))
        }
        Err(error) => Err(StoreError::new(&path, error)),
    }
}

/// The files of a folder that count.
struct Files {
    /// Logs of what is in no table yet, oldest first.
    logs: Vec<PathBuf>,
    /// The tables of each level, in the order of their keys.
    levels: BTreeMap<u64, Vec<PathBuf>>,
}

/// The key of an entry and its sequence, in the order of entries.
type First = (Vec<u8>, Reverse<u64>);

/// What a manifest says in the end.
#[derive(Default)]
struct Manifest {
    /// Tables by their level and number, with the place of their first entry, and their size.
    tables: BTreeMap<(u64, u64), (First, u64)>,
    /// Logs from this number on count.
    log: u64,
    /// So does this one, in stores of long ago.
    previous_log: u64,
}

impl Files {
    fn of(folder: &Path) -> Result<Self, StoreError> {
        let current = folder.join("CURRENT");
        let name = fs::read_to_string(&current).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::new(folder, "it is no LevelDB: it has no file CURRENT"),
            _ => StoreError::new(&current, error),
        })?;
        let manifest = folder.join(name.trim_end());
        let mut said = Manifest::default();
        for edit in log::Log::open(&manifest)? {
            said.read(&edit?).map_err(|reason| StoreError::new(&manifest, reason))?;
        }
        Ok(Self { logs: said.logs(folder)?, levels: said.levels(folder)? })
    }
}

impl Manifest {
    /// Reads one edit of it, which says what has changed.
    fn read(&mut self, edit: &[u8]) -> Result<(), String> {
        let damaged = |error: ReadError| format!("it is damaged: {error}");
        let mut edit = Bytes::new(edit);
        while !edit.is_empty() {
            match edit.uint().map_err(damaged)? {
                1 => {
                    let comparator = edit.bytes().map_err(damaged)?;
                    if comparator != COMPARATOR {
                        let comparator = String::from_utf8_lossy(comparator);
                        return Err(format!("its keys are in an order that is not known here: {comparator}"));
                    }
                }
                2 => self.log = edit.uint().map_err(damaged)?,
                // The next file's number, and the last sequence: for who writes.
                3 | 4 => drop(edit.uint().map_err(damaged)?),
                // Where the next compaction begins.
                5 => {
                    edit.uint().map_err(damaged)?;
                    edit.bytes().map_err(damaged)?;
                }
                6 => {
                    let table = (edit.uint().map_err(damaged)?, edit.uint().map_err(damaged)?);
                    self.tables.remove(&table);
                }
                7 => {
                    let table = (edit.uint().map_err(damaged)?, edit.uint().map_err(damaged)?);
                    let size = edit.uint().map_err(damaged)?;
                    let first = read_key(edit.bytes().map_err(damaged)?.to_owned()).map_err(damaged)?;
                    // The last key.
                    edit.bytes().map_err(damaged)?;
                    self.tables.insert(table, ((first.0, Reverse(first.1 >> 8)), size));
                }
                9 => self.previous_log = edit.uint().map_err(damaged)?,
                other => return Err(format!("it is damaged, or of a newer format: it has the tag {other}")),
            }
        }
        Ok(())
    }

    /// The logs that count, oldest first.
    fn logs(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let mut logs = BTreeSet::new();
        for file in fs::read_dir(folder).map_err(|error| StoreError::new(folder, error))? {
            let path = file.map_err(|error| StoreError::new(folder, error))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            if let Some(number) = number.filter(|_| path.extension().is_some_and(|end| end == "log"))
                && (number >= self.log || number == self.previous_log)
            {
                logs.insert((number, path));
            }
        }
        Ok(logs.into_iter().map(|(_, path)| path).collect())
    }

    /// The tables of each level, in the order of their keys; they must be there.
    fn levels(&self, folder: &Path) -> Result<BTreeMap<u64, Vec<PathBuf>>, StoreError> {
        let mut levels: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (&(level, number), (first, size)) in &self.tables {
            let path = folder.join(format!("{number:06}.ldb"));
            // As they were called before 2013.
            let old = path.with_extension("sst");
            let path = if path.exists() { path } else { old };
            let found = fs::metadata(&path).map_err(|error| StoreError::new(&path, error))?.len();
            if found != *size {
                return Err(StoreError::new(&path, format!("it has {found} bytes, and should have {size}")));
            }
            levels.entry(level).or_default().push((first.clone(), path));
        }
        let in_order = levels.into_iter().map(|(level, mut tables)| {
            tables.sort();
            (level, tables.into_iter().map(|(_, path)| path).collect())
        });
        Ok(in_order.collect())
    }
}

/// The entries of tables that follow each other, of which one is open at a time.
struct Level {
    tables: vec::IntoIter<PathBuf>,
    current: Option<Table>,
}

impl Level {
    fn new(tables: Vec<PathBuf>) -> Self {
        Self { tables: tables.into_iter(), current: None }
    }
}

impl Iterator for Level {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.current.as_mut().and_then(Table::next) {
                return Some(entry);
            }
            match Table::open(self.tables.next()?) {
                Ok(table) => self.current = Some(table),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A key as tables and the manifest have it: behind it stands a number, of its entry's sequence and a byte that is 1
/// where that has a value.
fn read_key(mut key: Vec<u8>) -> Result<(Vec<u8>, u64), ReadError> {
    let number = key.split_off(key.len().checked_sub(8).ok_or(ReadError::End)?);
    let number = number.try_into().map_err(|_| ReadError::End)?;
    Ok((key, u64::from_le_bytes(number)))
}

/// Whether bytes have this checksum, which LevelDB changes before it writes it down.
fn has_checksum(bytes: &[&[u8]], masked: u32) -> bool {
    let checksum = bytes.iter().fold(0, |checksum, bytes| crc32c::crc32c_append(checksum, bytes));
    checksum.rotate_right(15).wrapping_add(0xa282_ead8) == masked
}
