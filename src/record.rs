//! What a document's log and snapshots look like in a backend: a format byte, a header in bincode, and the
//! updates as they came. A backend does not look inside; this is where their bytes are made and read.

use bincode::config;
use bytes::Bytes;

/// The most bytes of a header: a record of a batch names the lengths of its updates.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The most bytes of a document's state, so that a damaged length cannot ask for all memory.
const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;
/// The first format; another one gets another number.
const FORMAT: u8 = 1;
/// zstd's fastest level makes 124 KB of 311; the next ones gain a few per cent.
const ZSTD_LEVEL: i32 = 1;

/// Why stored bytes are no record or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They begin with a format that this version does not know.
    #[error("its format is {0:?}, and this version of Quire knows only format 1")]
    Format(Option<u8>),
    /// The header or the content is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// One entry of a document's log: the updates of one append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was made, in milliseconds since 1970.
    pub time: u64,
    /// The updates, oldest first.
    pub updates: Vec<Bytes>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct RecordHeader {
    time: u64,
    lengths: Vec<u32>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct SnapshotHeader {
    length: u64,
}

impl Record {
    /// How many updates one record may hold, so that its header stays within its limit.
    pub const MAX_UPDATES: usize = 8_192;

    /// The bytes for the log.
    pub fn write(&self) -> Bytes {
        let lengths = self.updates.iter().map(|update| update.len() as u32).collect();
        let mut bytes = write_header(RecordHeader { time: self.time, lengths });
        for update in &self.updates {
            bytes.extend_from_slice(update);
        }
        bytes.into()
    }

    /// Reads a record from the log.
    pub fn read(bytes: &Bytes) -> Result<Self, RecordError> {
        let (header, mut at): (RecordHeader, usize) = read_header(bytes)?;
        let mut updates = Vec::with_capacity(header.lengths.len());
        for length in header.lengths {
            let end = at + length as usize;
            if end > bytes.len() {
                return Err(RecordError::Damaged("it is shorter than its header says".to_owned()));
            }
            updates.push(bytes.slice(at..end));
            at = end;
        }
        match at == bytes.len() {
            true => Ok(Self { time: header.time, updates }),
            false => Err(RecordError::Damaged("it is longer than its header says".to_owned())),
        }
    }
}

/// The bytes of a snapshot: the whole document's update, compressed.
pub fn write_snapshot(update: &[u8]) -> Result<Bytes, std::io::Error> {
    let mut bytes = write_header(SnapshotHeader { length: update.len() as u64 });
    bytes.extend(zstd::bulk::compress(update, ZSTD_LEVEL)?);
    Ok(bytes.into())
}

/// The whole document's update, from the bytes of a snapshot.
pub fn read_snapshot(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    let (header, at): (SnapshotHeader, usize) = read_header(bytes)?;
    if header.length > MAX_SNAPSHOT_BYTES {
        return Err(RecordError::Damaged(format!("it says that it holds {} bytes", header.length)));
    }
    zstd::bulk::decompress(&bytes[at..], header.length as usize)
        .map_err(|error| RecordError::Damaged(error.to_string()))
}

fn write_header(header: impl bincode::Encode) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bincode::encode_into_std_write(header, &mut bytes, config::standard())
        .expect("a header of integers is written to memory");
    bytes
}

/// A header and where the content begins behind it.
fn read_header<H: bincode::Decode<()>>(bytes: &[u8]) -> Result<(H, usize), RecordError> {
    let Some((&FORMAT, rest)) = bytes.split_first() else {
        return Err(RecordError::Format(bytes.first().copied()));
    };
    let limited = config::standard().with_limit::<MAX_HEADER_BYTES>();
    let (header, read) =
        bincode::decode_from_slice(rest, limited).map_err(|error| RecordError::Damaged(error.to_string()))?;
    Ok((header, 1 + read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_damaged_one_says_so() {
        let record =
            Record { time: 1_790_000_000_000, updates: vec!["one".into(), "".into(), "three".into()] };
        let bytes = record.write();
        assert_eq!(Record::read(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            assert!(Record::read(&bytes.slice(..cut)).is_err(), "cut to {cut} bytes");
        }
        assert_eq!(Record::read(&Bytes::from_static(&[9, 1])), Err(RecordError::Format(Some(9))));
        // A length of 2^64 - 1 in the header.
        assert!(
            Record::read(&Bytes::from_static(&[1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255])).is_err()
        );
    }

    #[test]
    fn the_largest_record_can_be_read() {
        let record = Record { time: u64::MAX, updates: vec![vec![7; 300].into(); Record::MAX_UPDATES] };
        assert_eq!(Record::read(&record.write()), Ok(record));
    }

    #[test]
    fn a_snapshot_comes_back_and_a_damaged_one_says_so() {
        let update = vec![42; 100_000];
        let bytes = write_snapshot(&update).unwrap();
        assert!(bytes.len() < 1_000);
        assert_eq!(read_snapshot(&bytes), Ok(update));
        assert!(read_snapshot(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_snapshot(&[1, 253, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }
}
