//! The store of Hocuspocus: an SQLite database, as the npm package `@hocuspocus/extension-sqlite` (1 to 4) writes it. A
//! document is a row of the table `documents`, with one update that holds all of it. The file is opened for reading only;
//! where it was set to WAL mode, SQLite may put an empty `-wal` and `-shm` beside it, as it does for everybody.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, types::ValueRef};

use super::{Documents, Found, StoreError};

/// Row by row, so that a Hocuspocus that is running can write in between.
const NEXT: &str = "SELECT rowid, name, data FROM documents WHERE rowid > ?1 ORDER BY rowid LIMIT 1";

/// The documents in this file.
pub fn open(file: &Path) -> Result<Documents, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(file, flags).map_err(|error| failed(file, &error))?;
    // Now, so that another database is found out before anything is done.
    database.prepare_cached(NEXT).map_err(|error| failed(file, &error))?;
    Ok(Box::new(Store { database, path: file.to_owned(), last: i64::MIN }))
}

struct Store {
    database: Connection,
    path: PathBuf,
    /// The row that was read last.
    last: i64,
}

impl Iterator for Store {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.database.prepare_cached(NEXT);
        let row = row.and_then(|mut row| row.query_row([self.last], read).optional());
        match row.transpose()? {
            Ok((id, found)) => {
                self.last = id;
                Some(Ok(found))
            }
            Err(error) => Some(Err(failed(&self.path, &error))),
        }
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Found)> {
    let id = row.get(0)?;
    let (name, data) = (row.get_ref(1)?, row.get_ref(2)?);
    let updates = match data {
        ValueRef::Blob(data) => Ok(vec![Bytes::copy_from_slice(data)]),
        other => Err(format!("its data is of the type {}, not blob", other.data_type())),
    };
    let found = match name.as_str() {
        Ok(name) => Found { name: name.to_owned(), updates, left: None },
        Err(error) => Found {
            name: format!("row {id}"),
            updates: Err(format!("its name cannot be read: {error}")),
            left: None,
        },
    };
    Ok((id, found))
}

fn failed(file: &Path, error: &rusqlite::Error) -> StoreError {
    let interrupted = matches!(
        error.sqlite_error(),
        Some(error) if error.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK
    );
    match interrupted {
        true => StoreError::new(
            file,
            "a write was interrupted there: start Hocuspocus once more, which undoes it",
        ),
        false => StoreError::new(file, error),
    }
}
