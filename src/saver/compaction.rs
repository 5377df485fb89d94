//! When a snapshot takes the place of a document's log, and what is kept of it as a version then.

use tokio::{sync::oneshot, time::Instant};
use tracing::{debug, error};

use super::{LogSize, Saver, loading::beside_actors, now};
use crate::{
    backend::{BackendError, Segment},
    document::{Document, UpdateError, check_snapshot},
    history::{self, segment::About},
    record,
    webhooks::event::{Version, What},
};

/// A document that leaves memory gets a snapshot from this number of records on.
const COMPACT_RECORDS_AT_REST: usize = 32;

/// A log that was compacted, as it was when the snapshot was made.
pub(super) struct Compacted {
    log: LogSize,
    document_bytes: usize,
    /// The version that is kept with it, if one is.
    version: Option<Version>,
}

impl Saver {
    /// Keeps a version of what is here now, and answers when it is kept.
    pub fn keep_version(&mut self, answer: oneshot::Sender<()>) {
        self.wanted.push((self.noted, answer));
        self.hurry();
    }

    /// Something is in the log that is in no version yet.
    pub(super) fn begin_version(&mut self) {
        if self.log.since.is_none() {
            self.log.since = Some(now());
            self.version_from = self.version_from.max(Instant::now() + self.history.every);
        }
    }

    /// When there will be a version if nobody edits meanwhile. Of all nodes, the one that was the last to append keeps
    /// it.
    pub(super) fn version_at(&self) -> Option<Instant> {
        self.log.since?;
        let rests = self.append.is_none() && self.compaction.is_none() && !self.waits();
        let last = self.last_append.filter(|_| rests && !self.history.off)?;
        Some((last + self.history.pause).max(self.version_from))
    }

    /// Begins a compaction if the document is at rest with a log that would slow its next opening, or if a version is
    /// due.
    pub fn compact_at_rest(&mut self, document: &Document, complete: bool) -> Result<(), UpdateError> {
        let is_due = !self.history.off && self.log.since.is_some() && self.version_from <= Instant::now();
        match (self.log.records >= COMPACT_RECORDS_AT_REST || is_due) && complete {
            true => self.compact(document),
            false => Ok(()),
        }
    }

    /// Begins a compaction: with it a version is kept.
    pub(super) fn compact(&mut self, document: &Document) -> Result<(), UpdateError> {
        if self.history.only_looks || self.compaction.is_some() {
            return Ok(());
        }
        let (update, fingerprint) = document.snapshot()?;
        let (log, name, backend) = (self.log, self.name.clone(), self.backend.clone());
        let (document_bytes, history) = (update.len(), self.history.clone());
        self.version_from = Instant::now() + history.every;
        self.compaction = Some(Box::pin(async move {
            let checked = beside_actors(move || {
                check_snapshot(&update, fingerprint).map_err(|error| error.to_string())?;
                record::write_snapshot(&update).map_err(|error| error.to_string())
            });
            let snapshot = checked.await.map_err(BackendError::Store)?;
            // A history that was begun goes on, also where it is switched off now: what no segment has, all later versions
            // would lack.
            let goes_on = !history.off || !backend.segments(&name).await?.is_empty();
            let segment = match goes_on {
                true => history::gather(&*backend, &name, log.through, document_bytes).await?,
                false => None,
            };
            let version = segment.as_ref().and_then(version);
            let is_version = segment.is_some();
            backend.compact(&name, log.through, snapshot, segment).await?;
            if is_version {
                history::thin(&*backend, &name, &history, now()).await;
            }
            Ok(Compacted { log, document_bytes, version })
        }));
        Ok(())
    }

    /// What came of a compaction.
    pub(super) fn compacted(&mut self, answer: Result<Compacted, BackendError>) {
        match answer {
            Ok(Compacted { log, document_bytes, version }) => {
                self.metrics.compacted(true);
                if let Some(version) = version {
                    self.webhooks.tell(&self.name, What::Saved(version));
                }
                self.log.records = self.log.records.saturating_sub(log.records);
                self.log.bytes = self.log.bytes.saturating_sub(log.bytes);
                self.log.document_bytes = document_bytes;
                self.log.since = (self.log.through > log.through).then(now);
                // An error: nobody waits for the answer any more.
                for answer in self.being_kept.drain(..) {
                    let _ = answer.send(());
                }
                debug!(document = %self.name, records = log.records, document_bytes, "log compacted");
            }
            Err(over @ (BackendError::Deleted | BackendError::Recreated)) => self.give_up(over),
            // The log stays as it is and grows; it is all there, only longer to read.
            Err(error) => {
                self.metrics.compacted(false);
                self.being_kept.clear();
                error!(document = %self.name, %error, "the log could not be compacted");
                self.troubles.note(&self.name, format!("the log could not be compacted: {error}"));
            }
        }
    }
}

/// The version behind a segment, as applications are told of it.
fn version(segment: &Segment) -> Option<Version> {
    let About { name, users, .. } = About::read(&segment.about).ok()?;
    Some(Version { id: segment.through.to_string(), name, users })
}
