//! A document with its history in one piece, to be carried to another store: what the backend has of it, byte for byte.
//! It is read as it is at one moment; and it is put where there is nothing, so that from the first step on whoever opens
//! the document finds all of its content.

use std::{
    mem,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::{
    backend::{Backend, BackendError, Position, Segment, Stored},
    history::segment::{About, Edits},
    name::DocumentName,
    record::{self, Authored, Record, RecordError},
    saver,
};

/// The first format; another one gets another number.
const FORMAT: u8 = 1;
/// The update of a document in which there is nothing.
const EMPTY_UPDATE: &[u8] = &[0, 0];
/// How often a document is read again whose history changes meanwhile.
const TRIES: usize = 5;
/// What is said of updates that were set aside, since a backend does not tell why.
const SET_ASIDE: &str = "it was set aside before the document was carried here";

/// A document with its history.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The newest snapshot.
    snapshot: Option<Bytes>,
    /// The records since, oldest first.
    log: Vec<Bytes>,
    /// The updates that were set aside, oldest first.
    set_aside: Vec<Bytes>,
    /// The segments of its history, oldest first: what is known of each, and its content.
    history: Vec<(Bytes, Bytes)>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Header {
    snapshot: Option<u64>,
    log: Vec<u64>,
    set_aside: Vec<u64>,
    history: Vec<(u64, u64)>,
}

impl Bundle {
    /// What a backend has of a document; none where there is no such document.
    pub async fn gather(backend: &dyn Backend, name: &DocumentName) -> Result<Option<Self>, BackendError> {
        let newest = Position { epoch: u64::MAX, number: u64::MAX };
        for _ in 0..TRIES {
            let segments = backend.read_segments(name, newest).await?;
            let stored = backend.load(name).await?;
            if is_nothing(&stored) {
                return Ok(None);
            }
            // What a compaction took out of the log between the two would be in neither.
            let known = backend.segments(name).await?;
            let read = segments.iter().map(|segment| (segment.through, segment.about.clone()));
            if read.eq(known) {
                return Ok(Some(Self {
                    snapshot: stored.snapshot,
                    log: stored.log.into_iter().map(|(_, record)| record).collect(),
                    set_aside: stored.set_aside,
                    history: segments.into_iter().map(|segment| (segment.about, segment.data)).collect(),
                }));
            }
        }
        Err(BackendError::Store("the history changes again and again".to_owned()))
    }

    /// The bytes in which it is carried.
    pub fn write(&self) -> Bytes {
        let lengths = |parts: &[Bytes]| parts.iter().map(|part| part.len() as u64).collect();
        let header = Header {
            snapshot: self.snapshot.as_ref().map(|snapshot| snapshot.len() as u64),
            log: lengths(&self.log),
            set_aside: lengths(&self.set_aside),
            history: self
                .history
                .iter()
                .map(|(about, data)| (about.len() as u64, data.len() as u64))
                .collect(),
        };
        let mut bytes = record::write_header(FORMAT, header);
        let history = self.history.iter().flat_map(|(about, data)| [about, data]);
        let parts = self.snapshot.iter().chain(&self.log).chain(&self.set_aside).chain(history);
        parts.for_each(|part| bytes.extend_from_slice(part));
        bytes.into()
    }

    /// Reads what was carried. Whether it makes a document, [`Self::whole`] tells.
    pub fn read(bytes: &Bytes) -> Result<Self, RecordError> {
        let (Header { snapshot, log, set_aside, history }, at) = record::read_header(FORMAT, bytes)?;
        let mut rest = bytes.slice(at..);
        let mut take = |length: u64| match usize::try_from(length) {
            Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
            _ => Err(RecordError::Damaged("it is shorter than its header says".to_owned())),
        };
        let bundle = Self {
            snapshot: snapshot.map(&mut take).transpose()?,
            log: log.into_iter().map(&mut take).collect::<Result<_, _>>()?,
            set_aside: set_aside.into_iter().map(&mut take).collect::<Result<_, _>>()?,
            history: history
                .into_iter()
                .map(|(about, data)| Ok((take(about)?, take(data)?)))
                .collect::<Result<_, _>>()?,
        };
        match rest.is_empty() {
            true => Ok(bundle),
            false => Err(RecordError::Damaged("it is longer than its header says".to_owned())),
        }
    }

    /// The document as one update, when all of the bundle, its history too, was found to be readable; or why it is not.
    pub async fn whole(&self) -> Result<Bytes, String> {
        let bundle = self.clone();
        // A large document takes a while.
        spawn_blocking(move || bundle.open()).await.map_err(|error| error.to_string()).flatten()
    }

    fn open(self) -> Result<Bytes, String> {
        for (number, (about, data)) in self.history.iter().enumerate() {
            let read = About::read(about).and_then(|_| Edits::read(data));
            read.map_err(|error| format!("version {} of its history: {error}", number + 1))?;
        }
        let numbered = |(number, record)| (Position { epoch: 0, number }, record);
        let log = (1..).zip(self.log).map(numbered).collect();
        let stored = Stored { snapshot: self.snapshot, log, set_aside: self.set_aside };
        let document = saver::open(&stored)?.document;
        match document.diff(&Default::default()) {
            Ok(whole) => Ok(whole),
            Err(broken) => {
                mem::forget(document);
                Err(broken.to_string())
            }
        }
    }

    /// Puts the document where there is nothing, and where nobody has it open who would not be told. `whole` is what
    /// [`Self::whole`] has answered. Its versions get new ids.
    pub async fn put(
        self,
        backend: &dyn Backend,
        name: &DocumentName,
        whole: Bytes,
    ) -> Result<(), BackendError> {
        let first = Record { time: now(), updates: vec![Authored { update: whole, user: None }] };
        // All of the content, in one step: what fails later leaves a document without its history, never one without
        // its text.
        let mut through = backend.append(name, first.write()).await?.position;
        let mut segments = Vec::new();
        let place = Record { time: now(), updates: Vec::new() }.write();
        for (about, data) in self.history {
            through = backend.append(name, place.clone()).await?.position;
            segments.push(Segment { through, about, data });
        }
        for record in self.log {
            backend.append(name, record).await?;
        }
        for update in self.set_aside {
            backend.set_aside(name, update, SET_ASIDE.to_owned()).await?;
        }
        let newest = segments.pop();
        for segment in segments {
            backend.replace_segments(name, Vec::new(), segment).await?;
        }
        let snapshot = match self.snapshot {
            Some(snapshot) => snapshot,
            None => record::write_snapshot(EMPTY_UPDATE)
                .map_err(|error| BackendError::Store(error.to_string()))?,
        };
        // Last, as it takes the first record away.
        backend.compact(name, through, snapshot, newest).await
    }
}

/// Whether there is no document.
pub fn is_nothing(stored: &Stored) -> bool {
    stored.snapshot.is_none() && stored.log.is_empty()
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_comes_back_and_a_damaged_one_says_so() {
        let bundle = Bundle {
            snapshot: Some("snapshot".into()),
            log: vec!["one".into(), "".into(), "three".into()],
            set_aside: vec!["aside".into()],
            history: vec![("about".into(), "data".into()), ("about 2".into(), "data 2".into())],
        };
        let bytes = bundle.write();
        assert_eq!(Bundle::read(&bytes), Ok(bundle));
        for cut in 0..bytes.len() {
            assert!(Bundle::read(&bytes.slice(..cut)).is_err(), "cut to {cut} bytes");
        }
        let longer = Bytes::from([&bytes[..], b"x"].concat());
        assert!(Bundle::read(&longer).is_err());
        assert_eq!(Bundle::read(&Bytes::from_static(&[9, 1])), Err(RecordError::Format(Some(9))));
        // A length of 2^64 - 1.
        let long = [1, 1, 253, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0];
        assert!(Bundle::read(&Bytes::copy_from_slice(&long)).is_err());
    }

    #[tokio::test]
    async fn what_makes_no_document_is_found_out_before_it_is_put() {
        let record = Bundle { log: vec!["no record".into()], ..Bundle::default() };
        assert!(record.whole().await.unwrap_err().contains("record 1 of its log"));
        let history = Bundle { history: vec![("no".into(), "history".into())], ..Bundle::default() };
        assert!(history.whole().await.unwrap_err().contains("version 1 of its history"));
    }
}
