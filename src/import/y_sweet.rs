//! The store of Y-Sweet: the folder of `y-sweet serve FOLDER`, with a folder for each document, and a file in it. The
//! file is a map from byte strings to byte strings, as version 1 of bincode writes one; its keys are those of the crate
//! `yrs-kvstore`:
//!
//! ```text
//! 00 00 "doc" 00                  the number of the document, 4 bytes
//! 00 01 <number> 00               all of it, as an update
//! 00 01 <number> 01               its state vector, which that says too
//! 00 01 <number> 02 <clock> 00    an update that is not in that one yet
//! 00 01 <number> 03 <key> 00      what an application keeps with it
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, ReadDir},
    path::{Path, PathBuf},
};

use bincode::config;
use bytes::Bytes;

use super::{Documents, Found, StoreError};

const FILE: &str = "data.ysweet";

/// The documents below this folder.
pub fn open(folder: &Path) -> Result<Documents, StoreError> {
    let entries = fs::read_dir(folder).map_err(|error| StoreError::new(folder, error))?;
    Ok(Box::new(Store { folder: folder.to_owned(), open: vec![entries] }))
}

struct Store {
    folder: PathBuf,
    /// The folders that are being gone through, each in the one before it.
    open: Vec<ReadDir>,
}

impl Iterator for Store {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(entry) = self.open.last_mut()?.next() else {
                self.open.pop();
                continue;
            };
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => return Some(Err(StoreError::new(&self.folder, error))),
            };
            // A document with a slash in its name is in a folder of a folder.
            if path.is_dir() {
                match fs::read_dir(&path) {
                    Ok(entries) => self.open.push(entries),
                    Err(error) => return Some(Ok(self.found(&path, Err(error.to_string())))),
                }
            } else if path.file_name().is_some_and(|name| name == FILE) {
                let updates = fs::read(&path)
                    .map_err(|error| format!("its file cannot be read: {error}"))
                    .and_then(|file| read_updates(&file));
                return Some(Ok(self.found(path.parent()?, updates)));
            }
        }
    }
}

impl Store {
    /// What is in a document's folder.
    fn found(&self, folder: &Path, read: Result<Updates, String>) -> Found {
        let name = folder.strip_prefix(&self.folder).unwrap_or(folder);
        let read = match name.to_str() {
            Some(_) => read,
            None => Err("its name is not UTF-8".to_owned()),
        };
        let (updates, left) = match read {
            Ok(Updates { updates, left }) => (Ok(updates), left),
            Err(reason) => (Err(reason), None),
        };
        Found { name: name.to_string_lossy().into_owned(), updates, left }
    }
}

/// What is in a document's file.
struct Updates {
    updates: Vec<Bytes>,
    left: Option<String>,
}

fn read_updates(file: &[u8]) -> Result<Updates, String> {
    let read = bincode::borrow_decode_from_slice::<BTreeMap<&[u8], &[u8]>, _>(file, config::legacy());
    let (map, read) = read.map_err(|error| format!("its file is damaged: {error}"))?;
    if read != file.len() {
        return Err("its file is damaged: it is longer than it says".to_owned());
    }
    let (mut updates, mut meta) = (Vec::new(), Vec::new());
    // In the order of the keys, the update that holds most comes first.
    for (key, value) in map {
        match key {
            [0, 0, b'd', b'o', b'c', 0] | [0, 1, _, _, _, _, 1] => {}
            [0, 1, _, _, _, _, 0] | [0, 1, _, _, _, _, 2, _, _, _, _, 0] => {
                updates.push(Bytes::copy_from_slice(value));
            }
            [0, 1, _, _, _, _, 3, name @ .., 0] => meta.push(String::from_utf8_lossy(name).into_owned()),
            _ => return Err("its file has a key that cannot be read".to_owned()),
        }
    }
    let left = (!meta.is_empty()).then(|| format!("metadata of the application: {}", meta.join(", ")));
    Ok(Updates { updates, left })
}
