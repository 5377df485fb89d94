//! LevelDB's tables: files of entries in the order of their keys, in blocks that are compressed one by one, with an
//! index of the blocks at the end. One block at a time is in memory.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, vec};

use super::{Entry, Pair, has_checksum, read_key};
use crate::{
    import::StoreError,
    lib0::{ReadError, Reader},
};

/// Bytes at the end of the file: where the index is, and the number by which tables are known.
const FOOTER: u64 = 48;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Bytes after each block: how it is compressed, and a checksum.
const TRAILER: usize = 5;

const PLAIN: u8 = 0;
const SNAPPY: u8 = 1;

/// A table that is read from its beginning to its end.
pub(super) struct Table {
    path: PathBuf,
    file: File,
    size: u64,
    blocks: vec::IntoIter<Place>,
    block: vec::IntoIter<Entry>,
}

/// Where a block is in its file.
struct Place {
    start: u64,
    length: u64,
}

impl Table {
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|error| StoreError::new(&path, error))?;
        let mut table =
            Self { path, file, size, blocks: Vec::new().into_iter(), block: Vec::new().into_iter() };
        let index = table.read_index()?;
        table.blocks = index.into_iter();
        Ok(table)
    }

    /// Where each block is.
    fn read_index(&self) -> Result<Vec<Place>, StoreError> {
        let mut footer = [0; FOOTER as usize];
        let start = self.size.checked_sub(FOOTER).ok_or_else(|| self.damaged("it is too short"))?;
        self.file.read_exact_at(&mut footer, start).map_err(|error| StoreError::new(&self.path, error))?;
        if !footer.ends_with(&MAGIC.to_le_bytes()) {
            return Err(self.damaged("it does not end as a table ends"));
        }
        let mut footer = Reader::new(&footer);
        // The first place is of what else there is to know: filters, which nobody needs who reads everything.
        let index = read_place(&mut footer).and_then(|_| read_place(&mut footer));
        let index = self.read_block(&index.map_err(|error| self.damaged(error))?)?;
        let places = read_entries(&index).and_then(|entries| {
            entries.into_iter().map(|(_, value)| read_place(&mut Reader::new(&value))).collect()
        });
        places.map_err(|error| self.damaged(error))
    }

    /// The bytes of a block.
    fn read_block(&self, place: &Place) -> Result<Vec<u8>, StoreError> {
        let end = place.start.checked_add(place.length).filter(|end| end + TRAILER as u64 <= self.size);
        if end.is_none() {
            return Err(self.damaged("a block is beyond its end"));
        }
        let mut block = vec![0; place.length as usize + TRAILER];
        self.file
            .read_exact_at(&mut block, place.start)
            .map_err(|error| StoreError::new(&self.path, error))?;
        let (content, trailer) = block.split_at(place.length as usize);
        let [compression, c0, c1, c2, c3] = *trailer else { unreachable!("a trailer has five bytes") };
        if !has_checksum(&[content, &[compression]], u32::from_le_bytes([c0, c1, c2, c3])) {
            return Err(self.damaged(format!("the checksum of the block at byte {} is wrong", place.start)));
        }
        match compression {
            PLAIN => Ok(content.to_owned()),
            SNAPPY => snap::raw::Decoder::new().decompress_vec(content).map_err(|error| self.damaged(error)),
            other => Err(self.damaged(format!("it is compressed in a way that is not known here: {other}"))),
        }
    }

    /// The entries of a block.
    fn read_data(&self, place: &Place) -> Result<Vec<Entry>, StoreError> {
        let entries = read_entries(&self.read_block(place)?).map_err(|error| self.damaged(error))?;
        let entries = entries.into_iter().map(|(key, value)| {
            let (key, number) = read_key(key)?;
            Ok(Entry { key, sequence: number >> 8, value: (number & 0xff == 1).then_some(value) })
        });
        entries.collect::<Result<_, _>>().map_err(|error: ReadError| self.damaged(error))
    }

    fn damaged(&self, what: impl std::fmt::Display) -> StoreError {
        StoreError::new(&self.path, format!("it is damaged: {what}"))
    }
}

impl Iterator for Table {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.block.next() {
                return Some(Ok(entry));
            }
            let place = self.blocks.next()?;
            match self.read_data(&place) {
                Ok(entries) => self.block = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn read_place(reader: &mut Reader<'_>) -> Result<Place, ReadError> {
    Ok(Place { start: reader.uint()?, length: reader.uint()? })
}

/// The keys and values of a block. A key begins with as many bytes of the one before it as it says.
fn read_entries(block: &[u8]) -> Result<Vec<Pair>, ReadError> {
    // At the end is a list of places where a search may begin, and its length.
    let (rest, count) = block.split_last_chunk::<4>().ok_or(ReadError::End)?;
    let list = (u32::from_le_bytes(*count) as usize).checked_mul(4).ok_or(ReadError::End)?;
    let content = rest.len().checked_sub(list).ok_or(ReadError::End)?;
    let mut reader = Reader::new(&rest[..content]);
    let mut entries: Vec<Pair> = Vec::new();
    while !reader.is_empty() {
        let (shared, own, length) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()? as usize);
        let before = entries.last().map_or(&[][..], |(key, _)| key);
        let mut key = before.get(..shared).ok_or(ReadError::End)?.to_owned();
        key.extend_from_slice(reader.take(own)?);
        entries.push((key, reader.take(length)?.to_owned()));
    }
    Ok(entries)
}
