//! What a document's log and snapshots look like in a backend: a format byte, a header in bincode, and the
//! updates as they came. A backend does not look inside; this is where their bytes are made and read.

use std::sync::Arc;

use bincode::config;
use bytes::Bytes;

/// The most bytes of a header: a record of a batch names the lengths of its updates, and who made them.
const MAX_HEADER_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of a document's state, so that a damaged length cannot ask for all memory.
const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;
/// The first format, in which snapshots are and records were that name no users; another one gets another number.
const FORMAT: u8 = 1;
/// The format of records that name users.
const FORMAT_WITH_USERS: u8 = 2;
/// zstd's fastest level makes 124 KB of 311; the next ones gain a few per cent.
const ZSTD_LEVEL: i32 = 1;

/// Why stored bytes are no record or snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They begin with a format that this version does not know.
    #[error("its format is {0:?}, and this version of Quire knows the formats 1 and 2")]
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
    pub updates: Vec<Authored>,
}

/// An update, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authored {
    /// The update.
    pub update: Bytes,
    /// The user; none where nobody was asked, or where it is not known any more.
    pub user: Option<Arc<str>>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct RecordHeader {
    time: u64,
    lengths: Vec<u32>,
}

/// The header of a record that names users.
#[derive(bincode::Encode, bincode::Decode)]
struct HeaderWithUsers {
    time: u64,
    users: Vec<String>,
    /// For each update its length, and the number of its user from 1 on; 0 for none.
    updates: Vec<(u32, u32)>,
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
        let mut users: Vec<Arc<str>> = Vec::new();
        let mut updates = Vec::with_capacity(self.updates.len());
        for Authored { update, user } in &self.updates {
            let number = user.as_ref().map(|user| match users.iter().rposition(|known| known == user) {
                Some(at) => at + 1,
                None => {
                    users.push(user.clone());
                    users.len()
                }
            });
            updates.push((update.len() as u32, number.unwrap_or_default() as u32));
        }
        let mut bytes = match users.is_empty() {
            // Also who has not been updated yet can read it.
            true => {
                let lengths = updates.into_iter().map(|(length, _)| length).collect();
                write_header(FORMAT, RecordHeader { time: self.time, lengths })
            }
            false => {
                let users = users.iter().map(|user| user.to_string()).collect();
                write_header(FORMAT_WITH_USERS, HeaderWithUsers { time: self.time, users, updates })
            }
        };
        for Authored { update, .. } in &self.updates {
            bytes.extend_from_slice(update);
        }
        bytes.into()
    }

    /// Reads a record from the log.
    pub fn read(bytes: &Bytes) -> Result<Self, RecordError> {
        let (time, users, lengths, mut at) = match bytes.first() {
            Some(&FORMAT_WITH_USERS) => {
                let (header, at): (HeaderWithUsers, usize) = read_header(FORMAT_WITH_USERS, bytes)?;
                (header.time, header.users, header.updates, at)
            }
            _ => {
                let (header, at): (RecordHeader, usize) = read_header(FORMAT, bytes)?;
                (header.time, Vec::new(), header.lengths.into_iter().map(|length| (length, 0)).collect(), at)
            }
        };
        let users: Vec<Arc<str>> = users.into_iter().map(Into::into).collect();
        let mut updates = Vec::with_capacity(lengths.len());
        for (length, number) in lengths {
            let end = at + length as usize;
            if end > bytes.len() {
                return Err(RecordError::Damaged("it is shorter than its header says".to_owned()));
            }
            let user = match number as usize {
                0 => None,
                number => Some(users.get(number - 1).cloned().ok_or_else(|| {
                    RecordError::Damaged("it names a user who is not in its header".to_owned())
                })?),
            };
            updates.push(Authored { update: bytes.slice(at..end), user });
            at = end;
        }
        match at == bytes.len() {
            true => Ok(Self { time, updates }),
            false => Err(RecordError::Damaged("it is longer than its header says".to_owned())),
        }
    }
}

/// The bytes of a snapshot: the whole document's update, compressed.
pub fn write_snapshot(update: &[u8]) -> Result<Bytes, std::io::Error> {
    let mut bytes = write_header(FORMAT, SnapshotHeader { length: update.len() as u64 });
    bytes.extend(zstd::bulk::compress(update, ZSTD_LEVEL)?);
    Ok(bytes.into())
}

/// The whole document's update, from the bytes of a snapshot.
pub fn read_snapshot(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    let (header, at): (SnapshotHeader, usize) = read_header(FORMAT, bytes)?;
    if header.length > MAX_SNAPSHOT_BYTES {
        return Err(RecordError::Damaged(format!("it says that it holds {} bytes", header.length)));
    }
    zstd::bulk::decompress(&bytes[at..], header.length as usize)
        .map_err(|error| RecordError::Damaged(error.to_string()))
}

/// The bytes of a format and a header, to which the content is added.
pub(crate) fn write_header(format: u8, header: impl bincode::Encode) -> Vec<u8> {
    let mut bytes = vec![format];
    bincode::encode_into_std_write(header, &mut bytes, config::standard())
        .expect("a header is written to memory");
    bytes
}

/// A header and where the content begins behind it.
pub(crate) fn read_header<H: bincode::Decode<()>>(
    format: u8,
    bytes: &[u8],
) -> Result<(H, usize), RecordError> {
    let rest = match bytes.split_first() {
        Some((found, rest)) if *found == format => rest,
        _ => return Err(RecordError::Format(bytes.first().copied())),
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
        let by = |update: &'static str, user: Option<&str>| Authored {
            update: update.into(),
            user: user.map(Into::into),
        };
        let named =
            vec![by("one", Some("alice")), by("", None), by("three", Some("bob")), by("x", Some("alice"))];
        for updates in [named, vec![by("one", None), by("", None), by("three", None)]] {
            let record = Record { time: 1_790_000_000_000, updates };
            let bytes = record.write();
            assert_eq!(Record::read(&bytes), Ok(record));
            for cut in 0..bytes.len() {
                assert!(Record::read(&bytes.slice(..cut)).is_err(), "cut to {cut} bytes");
            }
        }
        assert_eq!(Record::read(&Bytes::from_static(&[9, 1])), Err(RecordError::Format(Some(9))));
        // A length of 2^64 - 1 in the header.
        assert!(
            Record::read(&Bytes::from_static(&[1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255])).is_err()
        );
    }

    #[test]
    fn the_largest_record_can_be_read() {
        let by = |number: usize| Authored {
            update: vec![7; 300].into(),
            user: Some(format!("{number:0256}").into()),
        };
        let record = Record { time: u64::MAX, updates: (0..Record::MAX_UPDATES).map(by).collect() };
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
