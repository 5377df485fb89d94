//! Moves documents over from the store of another server, which stays as it is. What a document there holds goes the
//! way of every update, past the guard, and what of it is new is appended to the backend: a second import of the same
//! store adds nothing, and one into a document that is here already joins the two. Whatever is not taken is told,
//! with its reason.

pub mod counts;
pub mod hocuspocus;
mod leveldb;
pub mod y_sweet;
pub mod y_websocket;

use std::{
    fmt::Display,
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet, spawn_blocking},
};

use crate::{
    backend::{Backend, BackendError},
    document::{Document, UpdateError},
    guard::Rest,
    name::DocumentName,
    record::{Authored, Record},
    saver::{self, LoadError},
};

/// Documents that are imported at once, so that many share one wait for the disk.
const AT_ONCE: usize = 64;
/// Bytes of updates of all documents that are imported at once, beside one of any size.
const BYTES_AT_ONCE: usize = 64 << 20;
/// Bytes of the updates in one record, beside one of any size.
const RECORD_BYTES: usize = 1 << 20;
/// The largest document, as the update that holds all of it: no value on Redis is larger.
const MAX_DOCUMENT_BYTES: usize = 512 << 20;

/// Why a document is not brought back by an import.
const DELETED: &str = "it was deleted here: take it back, or begin it anew, and import again";

/// The documents of a store, one after the other.
pub type Documents = Box<dyn Iterator<Item = Result<Found, StoreError>> + Send>;

/// A document in the store of another server.
#[derive(Debug)]
pub struct Found {
    /// Its name there.
    pub name: String,
    /// All its updates, oldest first, or why they cannot be read.
    pub updates: Result<Vec<Bytes>, String>,
    /// What is with it and is no edit, so that it cannot be taken over.
    pub left: Option<String>,
}

/// A store that cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {reason}", path.display())]
pub struct StoreError {
    /// The folder or file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl StoreError {
    fn new(path: &Path, reason: impl Display) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Why an import ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store that is read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backend.
    #[error("cannot save documents: {0}")]
    Backend(#[from] BackendError),
}

/// What has become of a document.
#[derive(Debug)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// Whether anything of it was new.
    pub is_new: bool,
    /// What of it was not taken, and why.
    pub refused: Vec<String>,
    /// What is with it and is no edit, so that it was not taken over.
    pub left: Option<String>,
}

impl Imported {
    fn refuse(&mut self, reason: impl Display) {
        self.refused.push(format!("refused: {reason}"));
    }
}

/// An import that is under way. Dropping it ends it; what it has imported stays.
pub struct Import {
    backend: Arc<dyn Backend>,
    found: mpsc::Receiver<Result<Found, StoreError>>,
    reading: Option<JoinHandle<()>>,
    /// Each with the number of its bytes.
    importing: JoinSet<(usize, Result<Imported, BackendError>)>,
    bytes: usize,
    /// Why the store is not read any further.
    failure: Option<StoreError>,
}

impl Import {
    /// Begins to read a store. The threads of the runtime must have stacks for documents (see [`crate::start_runtime`]).
    pub fn start(documents: Documents, backend: Arc<dyn Backend>) -> Self {
        let (send, found) = mpsc::channel(1);
        let reading = spawn_blocking(move || {
            for document in documents {
                let failed = document.is_err();
                // Nothing behind a failure is certain, and nobody listens where the import has ended.
                if send.blocking_send(document).is_err() || failed {
                    break;
                }
            }
        });
        let reading = Some(reading);
        Self { backend, found, reading, importing: JoinSet::new(), bytes: 0, failure: None }
    }

    /// The next document that is done, in no order; none when all are.
    pub async fn next(&mut self) -> Option<Result<Imported, ImportError>> {
        loop {
            let has_room = self.importing.len() < AT_ONCE && self.bytes < BYTES_AT_ONCE;
            tokio::select! {
                biased;
                Some(done) = self.importing.join_next() => {
                    let (bytes, imported) = done.expect("an import does not panic, nor is it aborted");
                    self.bytes -= bytes;
                    return Some(imported.map_err(ImportError::Backend));
                }
                Some(found) = self.found.recv(), if has_room => match found {
                    Ok(found) => {
                        let bytes = found.updates.iter().flatten().map(Bytes::len).sum();
                        self.bytes += bytes;
                        let backend = self.backend.clone();
                        self.importing.spawn(async move { (bytes, import(&*backend, found).await) });
                    }
                    // What was read before it is imported first.
                    Err(error) => self.failure = Some(error),
                },
                else => {
                    if let Some(reading) = self.reading.take() {
                        // It would look like the end of the store.
                        reading.await.expect("reading a store does not panic");
                    }
                    return self.failure.take().map(|error| Err(error.into()));
                }
            }
        }
    }
}

/// Imports one document.
async fn import(backend: &dyn Backend, found: Found) -> Result<Imported, BackendError> {
    let Found { name, updates, left } = found;
    let mut imported = Imported { name, is_new: false, refused: Vec::new(), left };
    let (name, updates) = match (DocumentName::new(&imported.name), updates) {
        (Ok(name), Ok(updates)) => (name, updates),
        (Err(error), _) => {
            imported.refuse(error);
            return Ok(imported);
        }
        (_, Err(reason)) => {
            imported.refuse(reason);
            return Ok(imported);
        }
    };
    let document = match saver::load(backend, &name).await {
        Ok(loaded) => loaded.document,
        Err(LoadError::Backend(BackendError::Deleted)) => {
            imported.refuse(DELETED);
            return Ok(imported);
        }
        Err(LoadError::Backend(error)) => return Err(error),
        Err(LoadError::Unreadable(reason)) => {
            imported.refuse(format!("what is kept here under its name cannot be read: {reason}"));
            return Ok(imported);
        }
    };
    // Beside the tasks: a large document takes a while.
    let taken = spawn_blocking(move || take_in(document, updates)).await;
    match taken.map_err(|error| error.to_string()).flatten() {
        Ok(taken) => {
            imported.is_new = !taken.news.is_empty();
            imported.refused = taken.problems();
            for record in records(taken.news) {
                match backend.append(&name, record).await {
                    Err(BackendError::Deleted) => {
                        imported.refuse(DELETED);
                        break;
                    }
                    appended => drop(appended?),
                }
            }
        }
        Err(reason) => imported.refuse(reason),
    }
    Ok(imported)
}

/// What a document has taken in.
#[derive(Debug, Default)]
struct TakenIn {
    /// How many updates were offered.
    offered: usize,
    /// What was new, oldest first.
    news: Vec<Bytes>,
    /// The numbers of the updates that were refused, from 1, each with the rule that it breaks.
    refused: Vec<(usize, String)>,
    /// The numbers of those of which a part needs what is nowhere, and these parts.
    waiting: Vec<(usize, Rest)>,
}

/// Gives a document updates, oldest first; or says why none of them can be taken.
fn take_in(mut document: Document, updates: Vec<Bytes>) -> Result<TakenIn, String> {
    let mut taken = TakenIn { offered: updates.len(), ..TakenIn::default() };
    match taken.offer_all(&mut document, updates) {
        Ok(()) if document.bytes() > MAX_DOCUMENT_BYTES => {
            Err(format!("it would have {} bytes; at most {MAX_DOCUMENT_BYTES} can be kept", document.bytes()))
        }
        Ok(()) => Ok(taken),
        Err(broken) => {
            mem::forget(document);
            Err(broken.to_string())
        }
    }
}

impl TakenIn {
    fn offer_all(&mut self, document: &mut Document, updates: Vec<Bytes>) -> Result<(), UpdateError> {
        for (index, update) in updates.into_iter().enumerate() {
            self.offer(document, index + 1, update)?;
        }
        // What an update needs may stand behind it.
        while let Some(at) = self.waiting.iter().position(|(_, rest)| document.knows_any(rest)) {
            let (number, rest) = self.waiting.remove(at);
            self.offer(document, number, rest.update.into())?;
        }
        Ok(())
    }

    fn offer(&mut self, document: &mut Document, number: usize, update: Bytes) -> Result<(), UpdateError> {
        // Like what another node kept: one update of a store may be a whole document, for which the limits of what a
        // client may send at once are not made.
        match document.receive_kept(update) {
            Ok(received) => {
                self.news.extend(received.news.map(|news| news.update));
                self.waiting.extend(received.rest.map(|rest| (number, rest)));
            }
            Err(UpdateError::Refused(rule)) => self.refused.push((number, rule.to_string())),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What was not taken, and why.
    fn problems(&self) -> Vec<String> {
        let refused = self
            .refused
            .first()
            .map(|(number, rule)| format!("{}refused: {rule}", self.place(*number, self.refused.len())));
        let waiting = self.waiting.first().map(|(number, _)| {
            let place = self.place(*number, self.waiting.len());
            format!(
                "{place}refused in part: it needs edits that the store does not have, or that were refused"
            )
        });
        refused.into_iter().chain(waiting).collect()
    }

    /// Which updates are spoken of; nothing where there is only one.
    fn place(&self, first: usize, count: usize) -> String {
        match (count, self.offered) {
            (_, 1) => String::new(),
            (1, offered) => format!("update {first} of {offered} "),
            (_, offered) => format!("update {first} of {offered}, and {} more, ", count - 1),
        }
    }
}

/// Records for the log, of updates that follow each other.
fn records(updates: Vec<Bytes>) -> Vec<Bytes> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    for update in updates {
        bytes += update.len();
        match records.last_mut() {
            Some(record) if bytes <= RECORD_BYTES && record.updates.len() < Record::MAX_UPDATES => {
                record.updates.push(Authored { update, user: None });
            }
            _ => {
                bytes = update.len();
                records.push(Record { time, updates: vec![Authored { update, user: None }] });
            }
        }
    }
    records.iter().map(Record::write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lib0;

    #[test]
    fn a_document_may_be_larger_than_what_a_client_may_send_at_once() {
        let blocks = 300_000;
        let mut update = vec![1];
        lib0::write_uint(&mut update, blocks);
        update.extend([1, 0]);
        update.extend([0, 1].repeat(blocks as usize));
        update.push(0);
        assert!(Document::default().receive(update.clone().into()).is_err());
        let taken = take_in(Document::default(), vec![update.clone().into()]).unwrap();
        assert_eq!((taken.problems(), taken.news), (vec![], vec![Bytes::from(update)]));
    }

    #[test]
    fn what_comes_in_another_order_is_taken_as_a_whole() {
        let letter = |clock: u8| Bytes::from(vec![1, 1, 1, clock, 0x84, 1, clock - 1, 1, b'x', 0]);
        let first = Bytes::from_static(&[1, 1, 1, 0, 4, 1, 1, b't', 1, b'x', 0]);
        let updates = vec![letter(2), letter(3), letter(1), first];
        let taken = take_in(Document::default(), updates.clone()).unwrap();
        assert_eq!((taken.news.len(), taken.problems()), (4, vec![]));
        let records = records(taken.news);
        let news: Vec<_> = records
            .iter()
            .flat_map(|record| Record::read(record).unwrap().updates)
            .map(|authored| authored.update)
            .collect();
        assert!(Document::load(&news).is_ok(), "what is appended needs nothing behind it");

        let taken = take_in(Document::default(), updates[..3].to_vec()).unwrap();
        assert_eq!(taken.news, Vec::<Bytes>::new());
        assert!(taken.problems()[0].starts_with("update 1 of 3, and 2 more, refused in part"));
    }

    #[test]
    fn many_updates_become_few_records_in_their_order() {
        let updates: Vec<Bytes> =
            (0..20_000_u32).map(|number| number.to_le_bytes().to_vec().into()).collect();
        let large = Bytes::from(vec![0; RECORD_BYTES + 1]);
        let all: Vec<_> = updates.into_iter().chain([large.clone(), large]).collect();
        let records: Vec<_> = records(all.clone()).iter().map(|bytes| Record::read(bytes).unwrap()).collect();
        assert_eq!(records.len(), 5);
        let updates = records.into_iter().flat_map(|record| record.updates).map(|authored| authored.update);
        assert_eq!(updates.collect::<Vec<_>>(), all);
    }
}
