//! What a segment of a history looks like in a backend, which does not look inside: what is known of it, which lists
//! are made of, and its edits, by user.

use std::sync::Arc;

use bincode::config;
use bytes::Bytes;

use crate::{
    record::{Authored, RecordError},
    update::{self, Update},
};

/// The first format; another one gets another number.
const FORMAT: u8 = 1;
/// The most bytes of what is known of a segment, and of the names in front of its edits.
const MAX_HEADER_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of its edits, so that a damaged length cannot ask for all memory.
const MAX_EDITS_BYTES: u64 = 1 << 30;
/// A history is written once and read hardly ever.
const ZSTD_LEVEL: i32 = 9;

/// What is known of a segment, and of the version behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct About {
    /// When its first edit was made, in milliseconds since 1970.
    pub begin: u64,
    /// When its last edit was made, in milliseconds since 1970.
    pub end: u64,
    /// How many bytes the document had, as an update.
    pub document_bytes: u64,
    /// How many bytes the segment has.
    pub bytes: u64,
    /// Who made its edits, as far as that is known.
    pub users: Vec<String>,
    /// The version's name, if somebody has given it one.
    pub name: Option<String>,
    /// Who has given it.
    pub named_by: Option<String>,
}

/// Edits, with who made them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits(Vec<Authored>);

#[derive(bincode::Encode, bincode::Decode)]
struct EditsHeader {
    length: u64,
    users: Vec<String>,
    /// For each update its length, and the number of its user from 1 on; 0 for none.
    updates: Vec<(u64, u32)>,
}

impl About {
    /// The bytes for a backend.
    pub fn write(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        bincode::encode_into_std_write(self, &mut bytes, config::standard())
            .expect("it is written to memory");
        bytes.into()
    }

    /// Reads it from a backend.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(read_header(bytes)?.0)
    }
}

impl Edits {
    /// Adds an update of this user.
    pub fn push(&mut self, user: Option<Arc<str>>, update: Bytes) {
        self.0.push(Authored { update, user });
    }

    /// Adds edits that were made later.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The updates, with who made them.
    pub fn iter(&self) -> impl Iterator<Item = &Authored> {
        self.0.iter()
    }

    /// Who made them, as far as that is known.
    pub fn users(&self) -> Vec<String> {
        let mut users: Vec<String> =
            self.0.iter().filter_map(|authored| authored.user.as_deref()).map(str::to_owned).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// The same, in as few updates as that can be said.
    pub fn merged(self) -> Self {
        let mut users: Vec<Option<Arc<str>>> = Vec::new();
        for authored in &self.0 {
            if !users.contains(&authored.user) {
                users.push(authored.user.clone());
            }
        }
        let merged = users.into_iter().flat_map(|user| {
            let of_user = self.0.iter().filter(|authored| authored.user == user);
            let updates: Vec<Bytes> = of_user.map(|authored| authored.update.clone()).collect();
            merge(updates).into_iter().map(move |update| Authored { update, user: user.clone() })
        });
        Self(merged.collect())
    }

    /// The updates without who made them, in as few as that can be said: whoever loads them one by one, with what each
    /// needs in the next one, would have to try again and again.
    pub fn together(&self) -> Vec<Bytes> {
        merge(self.0.iter().map(|authored| authored.update.clone()).collect())
    }

    /// The bytes for a backend.
    pub fn write(&self) -> std::io::Result<Bytes> {
        let users = self.users();
        let number = |authored: &Authored| {
            let user = authored.user.as_deref()?;
            users.binary_search_by(|known| known.as_str().cmp(user)).ok().map(|at| at as u32 + 1)
        };
        let updates = self
            .0
            .iter()
            .map(|authored| (authored.update.len() as u64, number(authored).unwrap_or(0)))
            .collect();
        let content = self.0.iter().map(|authored| &*authored.update).collect::<Vec<_>>().concat();
        let mut bytes = vec![FORMAT];
        let header = EditsHeader { length: content.len() as u64, users: users.clone(), updates };
        bincode::encode_into_std_write(header, &mut bytes, config::standard())
            .expect("it is written to memory");
        bytes.extend(zstd::bulk::compress(&content, ZSTD_LEVEL)?);
        Ok(bytes.into())
    }

    /// Reads them from a backend.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let (EditsHeader { length, users, updates }, at) = read_header(bytes)?;
        if length > MAX_EDITS_BYTES {
            return Err(RecordError::Damaged(format!("it says that it holds {length} bytes")));
        }
        let content = zstd::bulk::decompress(&bytes[at..], length as usize)
            .map_err(|error| RecordError::Damaged(error.to_string()))?;
        let content = Bytes::from(content);
        let users: Vec<Arc<str>> = users.into_iter().map(Into::into).collect();
        let mut at = 0_usize;
        let mut edits = Vec::with_capacity(updates.len());
        for (length, number) in updates {
            let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
            let Some(end) = end.filter(|end| *end <= content.len()) else {
                return Err(RecordError::Damaged("it is shorter than its header says".to_owned()));
            };
            let user = match number as usize {
                0 => None,
                number => users.get(number - 1).cloned(),
            };
            edits.push(Authored { update: content.slice(at..end), user });
            at = end;
        }
        Ok(Self(edits))
    }
}

/// As few updates as say the same: one, unless something between them is missing.
fn merge(updates: Vec<Bytes>) -> Vec<Bytes> {
    if updates.len() < 2 {
        return updates;
    }
    let read: Result<Vec<Update<'_>>, _> = updates.iter().map(|update| Update::read(update)).collect();
    let merged = read.ok().and_then(|read| update::merge(&read));
    merged.map_or(updates, |merged| vec![merged.into()])
}

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
    fn a_segment_comes_back_and_a_damaged_one_says_so() {
        let mut edits = Edits::default();
        edits.push(None, "one".into());
        edits.push(Some("bob".into()), "".into());
        edits.push(Some("alice".into()), "three".into());
        edits.push(Some("bob".into()), "four".into());
        let bytes = edits.write().unwrap();
        assert_eq!(edits.users(), ["alice", "bob"]);
        assert_eq!(Edits::read(&bytes), Ok(edits));
        for cut in 0..bytes.len() {
            assert!(Edits::read(&bytes[..cut]).is_err(), "cut to {cut} bytes");
        }
        let about = About { begin: 1, end: 2, name: Some("first".to_owned()), ..About::default() };
        assert_eq!(About::read(&about.write()), Ok(about.clone()));
        assert!(About::read(&about.write()[..5]).is_err());
        assert_eq!(About::read(&[9]), Err(RecordError::Format(Some(9))));
    }

    #[test]
    fn the_updates_of_a_user_become_one() {
        // "a", "b" and "c", one after the other in the text `t`, by client 1.
        let first = Bytes::from_static(&[1, 1, 1, 0, 4, 1, 1, b't', 1, b'a', 0]);
        let next = |clock: u8, letter: u8| {
            Bytes::copy_from_slice(&[1, 1, 1, clock, 0x84, 1, clock - 1, 1, letter, 0])
        };
        let mut edits = Edits::default();
        edits.push(Some("alice".into()), first.clone());
        edits.push(Some("alice".into()), next(1, b'b'));
        edits.push(Some("bob".into()), next(2, b'c'));
        assert_eq!(edits.clone().merged().iter().count(), 2);
        assert_eq!(edits.together().len(), 1);
        // Where something is missing they stay as they are.
        let mut gap = Edits::default();
        gap.push(None, first);
        gap.push(None, next(2, b'c'));
        assert_eq!(gap.clone().merged(), gap);
    }
}
