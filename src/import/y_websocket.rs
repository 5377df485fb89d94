//! The store of y-websocket's server: a LevelDB, as the npm package `y-leveldb` (0.1 and 0.2) writes it. A document is
//! all its updates there, each in an entry of its own.
//!
//! A key is a list of texts and numbers, each with a byte for its kind in front:
//!
//! ```text
//! "v1" <name> "update" <number>    an update; the numbers grow
//! "v1" <name> "meta" <key>         what an application keeps with the document
//! "v1_sv" <name>                   a state vector, which the updates say too
//! ```
//!
//! That server takes a name as it stands in the address. Here it is decoded, so that the client that had the document
//! there finds it here.

use std::{collections::HashSet, iter::Peekable, path::Path};

use bytes::Bytes;
use percent_encoding::percent_decode;
use xxhash_rust::xxh3::xxh3_64;

use super::{Documents, Found, StoreError, leveldb};
use crate::lib0::Reader;

const TEXT: u8 = 0;
const NUMBER: u8 = 1;

/// The documents in the folder that `YPERSISTENCE` has named.
pub fn open(folder: &Path) -> Result<Documents, StoreError> {
    let entries = leveldb::Reader::open(folder)?.peekable();
    Ok(Box::new(Store { entries, names: HashSet::new() }))
}

struct Store {
    entries: Peekable<leveldb::Reader>,
    /// The hashes of the names that were found.
    names: HashSet<u64>,
}

/// What is in an entry of a document.
enum Kind {
    Update,
    /// What the application calls it.
    Meta(String),
}

impl Iterator for Store {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, _) = match self.entries.peek()? {
                Ok(entry) => entry,
                Err(_) => return Some(Err(self.entries.next()?.err()?)),
            };
            match document_of(key) {
                Some(document) => {
                    let document = document.to_owned();
                    return Some(self.read(&document));
                }
                None => drop(self.entries.next()),
            }
        }
    }
}

impl Store {
    /// Reads all entries whose keys begin so: they follow each other, the updates in their order.
    fn read(&mut self, document: &[u8]) -> Result<Found, StoreError> {
        let mut updates = Vec::new();
        let (mut meta, mut unknown) = (Vec::new(), 0);
        // An error ends the document too: it is taken as a whole or not at all.
        let is_next = |entry: &Result<leveldb::Pair, _>| {
            entry.as_ref().map_or(true, |(key, _)| document_of(key) == Some(document))
        };
        while let Some(entry) = self.entries.next_if(is_next) {
            let (key, value) = entry?;
            match kind_of(&key[document.len()..]) {
                Some(Kind::Update) => updates.push(Bytes::from(value)),
                Some(Kind::Meta(name)) => meta.push(name),
                None => unknown += 1,
            }
        }
        let left = (!meta.is_empty()).then(|| format!("metadata of the application: {}", meta.join(", ")));
        let there = Reader::new(&document[FIRST.len() + 1..]).bytes().unwrap_or_default();
        let (name, updates) = match self.name_here(there) {
            Ok(name) if unknown == 0 => (name, Ok(updates)),
            Ok(name) => (name, Err(format!("{unknown} of its entries have keys that cannot be read"))),
            Err(reason) => (String::from_utf8_lossy(there).into_owned(), Err(reason)),
        };
        Ok(Found { name, updates, left })
    }

    fn name_here(&mut self, there: &[u8]) -> Result<String, String> {
        let here = percent_decode(there).decode_utf8();
        let here = here.map_err(|_| "its name is not UTF-8 after percent-decoding".to_owned())?;
        match self.names.insert(xxh3_64(here.as_bytes())) {
            true => Ok(here.into_owned()),
            false => Err(format!("another document there is {here:?} here too")),
        }
    }
}

/// How the keys of all documents begin: with "v1". A byte for the kind of the name follows.
const FIRST: &[u8] = &[TEXT, 2, b'v', b'1'];

/// The part of a key that all keys of its document have; none where it is of no document.
fn document_of(key: &[u8]) -> Option<&[u8]> {
    let rest = key.strip_prefix(FIRST)?;
    let mut reader = Reader::new(rest);
    let read = reader.byte().and_then(|kind| Ok((kind, reader.bytes()?)));
    match read {
        Ok((TEXT, _)) => Some(&key[..FIRST.len() + reader.position()]),
        _ => None,
    }
}

/// What the part of a key behind that says.
fn kind_of(rest: &[u8]) -> Option<Kind> {
    let mut reader = Reader::new(rest);
    let kind = match (reader.byte().ok()?, reader.text().ok()?, reader.byte().ok()?) {
        (TEXT, "update", NUMBER) => reader.take(4).ok().map(|_| Kind::Update),
        (TEXT, "meta", TEXT) => reader.text().ok().map(|name| Kind::Meta(name.to_owned())),
        _ => None,
    };
    kind.filter(|_| reader.is_empty())
}
