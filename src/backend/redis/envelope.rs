//! What stands in a log and on a channel of Redis: who says it, what it is, and the words, which nobody looks at
//! here. `D5`, a version, a kind and a zero; then a header in bincode; then the words as they are.

use bincode::config;
use bytes::Bytes;

use super::super::Position;

const MAGIC: u8 = 0xd5;
const VERSION: u8 = 1;
/// Header and all before it.
const MAX_HEADER_BYTES: usize = 64;

/// Who wrote something: a run of a node, and how many things that run had written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Stamp {
    /// The run's number.
    pub run: u64,
    /// Grows with all that the run writes.
    pub number: u64,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// A record of the log.
    Record(Bytes),
    /// A record that is too large for the channel: it is to be read from the log.
    Notice,
    /// The log goes at least this far.
    Head(Position),
    /// Something for those who have the document open, from this incarnation of a node.
    Told(u64, Bytes),
    /// The document was deleted.
    Deleted,
}

/// Something said, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// By whom.
    pub stamp: Stamp,
    /// What.
    pub words: Words,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Place {
    epoch: u64,
    number: u64,
}

/// How every envelope with this stamp begins that is a record.
pub fn begin_record(stamp: Stamp) -> Vec<u8> {
    begin(1, stamp)
}

fn begin(kind: u8, stamp: Stamp) -> Vec<u8> {
    let mut bytes = vec![MAGIC, VERSION, kind, 0];
    append(stamp, &mut bytes);
    bytes
}

fn append(header: impl bincode::Encode, bytes: &mut Vec<u8>) {
    bincode::encode_into_std_write(header, bytes, config::standard())
        .expect("a vector takes all that is written");
}

fn take<T: bincode::Decode<()>>(bytes: &mut Bytes) -> Option<T> {
    let limited = config::standard().with_limit::<MAX_HEADER_BYTES>();
    let (header, length) = bincode::decode_from_slice(bytes, limited).ok()?;
    let _ = bytes.split_to(length);
    Some(header)
}

impl Envelope {
    /// The bytes.
    pub fn write(&self) -> Bytes {
        let kind = match &self.words {
            Words::Record(_) => 1,
            Words::Notice => 2,
            Words::Head(_) => 3,
            Words::Told(..) => 4,
            Words::Deleted => 5,
        };
        let mut bytes = begin(kind, self.stamp);
        match &self.words {
            Words::Record(words) => bytes.extend_from_slice(words),
            Words::Notice | Words::Deleted => {}
            Words::Head(Position { epoch, number }) => {
                append(Place { epoch: *epoch, number: *number }, &mut bytes)
            }
            Words::Told(incarnation, words) => {
                append(incarnation, &mut bytes);
                bytes.extend_from_slice(words);
            }
        }
        bytes.into()
    }

    /// Reads one; `None` where the bytes are none, or of a later version.
    pub fn read(mut bytes: Bytes) -> Option<Self> {
        let &[MAGIC, VERSION, kind, _] = bytes.first_chunk()? else { return None };
        let _ = bytes.split_to(4);
        let stamp = take(&mut bytes)?;
        let words = match kind {
            1 => Words::Record(bytes),
            2 => Words::Notice,
            3 => take(&mut bytes).map(|Place { epoch, number }| Words::Head(Position { epoch, number }))?,
            4 => Words::Told(take(&mut bytes)?, bytes),
            5 => Words::Deleted,
            _ => return None,
        };
        Some(Self { stamp, words })
    }
}

/// Splits what came on a channel: the position of an entry of the log, where it is one, and an envelope.
pub fn split_message(mut payload: Bytes) -> Option<(Option<Position>, Bytes)> {
    // Two numbers of twenty digits.
    let bar = payload.iter().take(42).position(|&byte| byte == b'|')?;
    let id = payload.split_to(bar);
    let _ = payload.split_to(1);
    let position = match id.is_empty() {
        true => None,
        false => Some(read_id(std::str::from_utf8(&id).ok()?)?),
    };
    Some((position, payload))
}

/// Reads the id of a stream's entry.
pub fn read_id(id: &str) -> Option<Position> {
    let (epoch, number) = id.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_reads_as_it_was_written() {
        let stamp = Stamp { run: u64::MAX, number: 300 };
        let words = [
            Words::Record("words".into()),
            Words::Notice,
            Words::Head(Position { epoch: 1 << 20, number: 7 }),
            Words::Told(9, "".into()),
            Words::Deleted,
        ];
        for words in words {
            let envelope = Envelope { stamp, words };
            let bytes = envelope.write();
            assert_eq!(Envelope::read(bytes.clone()), Some(envelope.clone()));
            for end in 0..bytes.len().min(12) {
                assert_eq!(Envelope::read(bytes.slice(..end)), None, "cut after {end} bytes");
            }
        }
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let record = Envelope { stamp: Stamp { run: 5, number: 300 }, words: Words::Record("ab".into()) };
        assert_eq!(record.write(), &[0xd5, 1, 1, 0, 5, 251, 44, 1, b'a', b'b'][..]);
        assert!(record.write().starts_with(&begin_record(record.stamp)));
    }

    #[test]
    fn a_message_is_split_at_its_bar() {
        let position = Position { epoch: 1_048_576, number: 3 };
        assert_eq!(split_message("1048576-3|ab|c".into()), Some((Some(position), "ab|c".into())));
        assert_eq!(split_message("|ab".into()), Some((None, "ab".into())));
        for bad in ["", "ab", "1-x|a", "1|a", "-|a"] {
            assert_eq!(split_message(bad.into()), None, "{bad}");
        }
    }
}
