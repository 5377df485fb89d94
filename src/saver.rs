//! Saves one document in its own time, so that editing never waits for the backend: it notes updates,
//! appends what has gathered as one record, says what is saved, and compacts a log that has grown.

use std::{
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, error, warn};

use crate::{
    backend::{Answer, Backend, BackendError, Position, Stored},
    document::{Document, UpdateError, check_snapshot},
    name::DocumentName,
    outbox::note_first_clocks,
    record::{self, Record},
    update::{ClientId, Clock},
};

/// Bytes of updates that wait for the backend, beside one of any size; more are dropped, and read from the
/// document again when their time comes.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// How long after a failure the next try is made.
const RETRY: Duration = Duration::from_secs(1);
/// A log of this size is worth a snapshot, once it is half as large as the document itself.
const COMPACT_BYTES: usize = 128 * 1024;
/// A log of so many records is worth a snapshot, whatever their size: each costs time at the next opening.
const COMPACT_RECORDS: usize = 1_000;
/// A document that leaves memory gets a snapshot from this number of records on.
const COMPACT_RECORDS_AT_REST: usize = 32;

/// Everything about saving one document.
pub struct Saver {
    name: DocumentName,
    backend: Arc<dyn Backend>,
    /// Noted and not given to the backend yet.
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    /// For each client the first clock that waits.
    waiting_from: HashMap<ClientId, Clock>,
    /// Whether more waited than may: then `waiting` has not all of it, and the document is asked.
    dropped: bool,
    /// How often something was noted, and how much of that is saved.
    noted: u64,
    saved: u64,
    append: Option<Append>,
    log: LogSize,
    compaction: Option<Answer<Compacted>>,
    /// A compaction that failed is tried again when the log has grown to this many records.
    compact_again_at: usize,
}

/// An append that is under way, and tried again until it succeeds.
struct Append {
    /// The number of the last note that it contains.
    through: u64,
    record: Bytes,
    answer: Answer<Position>,
    failures: u32,
}

/// How much a document's log holds since its snapshot.
#[derive(Debug, Default, Clone, Copy)]
pub struct LogSize {
    /// The position of its last record.
    pub through: Position,
    /// How many records it has.
    pub records: usize,
    /// How many bytes they have.
    pub bytes: usize,
    /// How many bytes the document had at the last snapshot, as an update.
    pub document_bytes: usize,
}

/// A log that was compacted, as it was when the snapshot was made.
struct Compacted {
    log: LogSize,
    document_bytes: usize,
}

impl Saver {
    /// A saver for a document whose log is of this size.
    pub fn new(name: DocumentName, backend: Arc<dyn Backend>, log: LogSize) -> Self {
        Self {
            name,
            backend,
            waiting: Vec::new(),
            waiting_bytes: 0,
            waiting_from: HashMap::new(),
            dropped: false,
            noted: 0,
            saved: 0,
            append: None,
            log,
            compaction: None,
            compact_again_at: 0,
        }
    }

    /// Notes an update that must be saved, with the first clock that it adds for each client; returns the
    /// number under which it will be reported as saved.
    pub fn note(&mut self, update: Bytes, adds: &[(ClientId, Clock)]) -> u64 {
        self.noted += 1;
        note_first_clocks(&mut self.waiting_from, adds);
        self.waiting_bytes += update.len();
        self.waiting.push(update);
        let too_many_bytes = self.waiting_bytes > MAX_WAITING_BYTES && self.waiting.len() > 1;
        if self.dropped || too_many_bytes || self.waiting.len() > Record::MAX_UPDATES {
            self.dropped = true;
            self.waiting = Vec::new();
            self.waiting_bytes = 0;
        }
        self.noted
    }

    /// The number of the last note: what is here now is saved when that one is reported.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// The number through which everything is saved.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.append.is_none() && self.compaction.is_none() && self.waiting.is_empty() && !self.dropped
    }

    /// Begins what can begin: the next append, and a compaction where the log is worth one.
    pub fn start(&mut self, document: &Document) -> Result<(), UpdateError> {
        if self.append.is_none() && (self.dropped || !self.waiting.is_empty()) {
            let updates = match mem::take(&mut self.dropped) {
                false => mem::take(&mut self.waiting),
                true => {
                    self.waiting.clear();
                    vec![document.diff_from(&self.waiting_from)?]
                }
            };
            self.waiting_from.clear();
            self.waiting_bytes = 0;
            self.append(updates);
        }
        let log = self.log;
        if log.records >= COMPACT_RECORDS || log.bytes > COMPACT_BYTES.max(log.document_bytes / 2) {
            self.compact(document)?;
        }
        Ok(())
    }

    /// Begins to append what waits although the document cannot be asked any more.
    pub fn start_without_document(&mut self) {
        if mem::take(&mut self.dropped) {
            error!(document = %self.name, "edits that waited for the backend are lost: the document engine failed");
        }
        if self.append.is_none() && !self.waiting.is_empty() {
            let updates = mem::take(&mut self.waiting);
            self.append(updates);
        }
    }

    fn append(&mut self, updates: Vec<Bytes>) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let record = Record { time, updates }.write();
        let answer = self.backend.append(&self.name, record.clone());
        self.append = Some(Append { through: self.noted, record, answer, failures: 0 });
    }

    /// Begins a compaction if the document is at rest with a log that would slow its next opening.
    pub fn compact_at_rest(&mut self, document: &Document) -> Result<(), UpdateError> {
        match self.log.records >= COMPACT_RECORDS_AT_REST {
            true => self.compact(document),
            false => Ok(()),
        }
    }

    fn compact(&mut self, document: &Document) -> Result<(), UpdateError> {
        if self.compaction.is_some() || self.log.records < self.compact_again_at {
            return Ok(());
        }
        let (update, fingerprint) = document.snapshot()?;
        let (log, name, backend) = (self.log, self.name.clone(), self.backend.clone());
        let document_bytes = update.len();
        self.compaction = Some(Box::pin(async move {
            // Beside the actor: reading a large document back takes tens of milliseconds.
            let checked = spawn_blocking(move || {
                check_snapshot(&update, fingerprint).map_err(|error| error.to_string())?;
                record::write_snapshot(&update).map_err(|error| error.to_string())
            });
            let snapshot =
                checked.await.map_err(|error| error.to_string()).flatten().map_err(BackendError::Store)?;
            backend.compact(&name, log.through, snapshot).await?;
            Ok(Compacted { log, document_bytes })
        }));
        Ok(())
    }

    /// Waits until the backend has answered something; for ever where nothing is under way.
    pub async fn progress(&mut self) {
        tokio::select! {
            answer = next(self.append.as_mut().map(|append| &mut append.answer)) => self.appended(answer),
            answer = next(self.compaction.as_mut()) => {
                self.compaction = None;
                self.compacted(answer);
            }
        }
    }

    fn appended(&mut self, answer: Result<Position, BackendError>) {
        let append = self.append.as_mut().expect("an answer comes to an append that is under way");
        match answer {
            Ok(position) => {
                if append.failures > 0 {
                    warn!(document = %self.name, tries = append.failures + 1, "saved at last");
                }
                self.log.through = position;
                self.log.records += 1;
                self.log.bytes += append.record.len();
                self.saved = append.through;
                self.append = None;
            }
            Err(error) => {
                if append.failures == 0 {
                    error!(document = %self.name, %error, "edits could not be saved; trying again every second");
                }
                append.failures += 1;
                let (backend, name, record) =
                    (self.backend.clone(), self.name.clone(), append.record.clone());
                append.answer = Box::pin(async move {
                    sleep(RETRY).await;
                    backend.append(&name, record).await
                });
            }
        }
    }

    fn compacted(&mut self, answer: Result<Compacted, BackendError>) {
        match answer {
            Ok(Compacted { log, document_bytes }) => {
                self.log.records -= log.records;
                self.log.bytes -= log.bytes;
                self.log.document_bytes = document_bytes;
                self.compact_again_at = 0;
                debug!(document = %self.name, records = log.records, document_bytes, "log compacted");
            }
            Err(error) => {
                // The log stays as it is and grows; it is all there, only longer to read.
                self.compact_again_at = self.log.records + COMPACT_RECORDS;
                error!(document = %self.name, %error, "the log could not be compacted");
            }
        }
    }
}

async fn next<T>(answer: Option<&mut Answer<T>>) -> Result<T, BackendError> {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

/// The document and the size of its log, from what the backend keeps.
pub fn open(stored: &Stored) -> Result<(Document, LogSize), String> {
    let mut updates = Vec::new();
    let mut log = LogSize::default();
    if let Some(snapshot) = &stored.snapshot {
        let update = record::read_snapshot(snapshot).map_err(|error| format!("its snapshot: {error}"))?;
        log.document_bytes = update.len();
        updates.push(Bytes::from(update));
    }
    for (position, bytes) in &stored.log {
        let record = Record::read(bytes).map_err(|error| format!("record {position} of its log: {error}"))?;
        updates.extend(record.updates);
        log.through = *position;
        log.records += 1;
        log.bytes += bytes.len();
    }
    let mut document = Document::load(&updates).map_err(|error| error.to_string())?;
    for update in &stored.set_aside {
        document.set_aside(update);
    }
    Ok((document, log))
}
