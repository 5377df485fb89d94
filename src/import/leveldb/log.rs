//! LevelDB's logs: what was written last, and the manifest. A log is made of blocks, and a record of parts in them. One
//! that breaks off at its end is what a crash leaves behind, and no damage: nobody was told that it is written.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use super::{Entry, has_checksum};
use crate::{
    import::StoreError,
    lib0::{ReadError, Reader},
};

/// Bytes of a block; the last one is shorter.
const BLOCK: usize = 32 * 1024;
/// Bytes before each part: checksum, length and kind. Where a block has fewer left, they are zero.
const HEADER: usize = 7;

// The kinds of parts.
const NOTHING: u8 = 0;
const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The records of a log, oldest first.
pub(super) struct Log {
    path: PathBuf,
    file: BufReader<File>,
    block: Vec<u8>,
    /// How much of the block was read.
    at: usize,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| StoreError::new(path, error))?;
        Ok(Self { path: path.to_owned(), file: BufReader::new(file), block: Vec::new(), at: 0 })
    }

    /// The next record; none at the end.
    fn read(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut record = Vec::new();
        let mut begun = false;
        while let Some((kind, part)) = self.read_part()? {
            match (kind, begun) {
                (WHOLE | FIRST, false) | (MIDDLE | LAST, true) => record.extend_from_slice(&part),
                _ => return Err(self.damaged("its parts do not follow each other")),
            }
            if kind == WHOLE || kind == LAST {
                return Ok(Some(record));
            }
            begun = true;
        }
        Ok(None)
    }

    /// The next part and its kind; none at the end.
    fn read_part(&mut self) -> Result<Option<(u8, Vec<u8>)>, StoreError> {
        loop {
            let rest = &self.block[self.at..];
            if let Some((header, rest)) = rest.split_first_chunk::<HEADER>() {
                let [c0, c1, c2, c3, l0, l1, kind] = *header;
                let length = usize::from(u16::from_le_bytes([l0, l1]));
                let at_end = self.block.len() < BLOCK;
                if kind == NOTHING && length == 0 {
                    // Space that was reserved, and never written.
                    self.at = self.block.len();
                    continue;
                }
                let Some(part) = rest.get(..length) else {
                    return if at_end {
                        Ok(None)
                    } else {
                        Err(self.damaged("a part is longer than its block"))
                    };
                };
                if !has_checksum(&[&[kind], part], u32::from_le_bytes([c0, c1, c2, c3])) {
                    return Err(self.damaged("a checksum is wrong"));
                }
                self.at += HEADER + length;
                return Ok(Some((kind, part.to_owned())));
            }
            self.block.clear();
            self.at = 0;
            let mut next = (&mut self.file).take(BLOCK as u64);
            let read = next.read_to_end(&mut self.block);
            if read.map_err(|error| StoreError::new(&self.path, error))? == 0 {
                return Ok(None);
            }
        }
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::new(
            &self.path,
            format!(
                "it is damaged: {what}; start the server that wrote it once more, which repairs what it can"
            ),
        )
    }
}

impl Iterator for Log {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// What logs hold, in the order of the keys, the newest of a key first. They are at most a few megabytes: then
/// LevelDB makes a table of them.
pub(super) fn entries(logs: &[PathBuf]) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for path in logs {
        for batch in Log::open(path)? {
            read_batch(&batch?, &mut entries)
                .map_err(|error| StoreError::new(path, format!("it is damaged: {error}")))?;
        }
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key).then(b.sequence.cmp(&a.sequence)));
    Ok(entries)
}

/// A batch: the sequence of its first entry, how many there are, and each with a byte for its kind in front.
fn read_batch(batch: &[u8], entries: &mut Vec<Entry>) -> Result<(), ReadError> {
    let mut reader = Reader::new(batch);
    let sequence = reader.take(8)?.try_into().map_err(|_| ReadError::End)?;
    let count = reader.take(4)?.try_into().map_err(|_| ReadError::End)?;
    let (first, count) = (u64::from_le_bytes(sequence), u32::from_le_bytes(count));
    for index in 0..u64::from(count) {
        let is_value = reader.byte()? == 1;
        let key = reader.bytes()?.to_owned();
        let value = if is_value { Some(reader.bytes()?.to_owned()) } else { None };
        entries.push(Entry { key, sequence: first + index, value });
    }
    match reader.is_empty() {
        true => Ok(()),
        false => Err(ReadError::Overflow),
    }
}
