//! Saves one document in its own time, so that editing never waits for the backend: it notes updates,
//! appends what has gathered as one record, says what is saved, and compacts a log that has grown.

mod compaction;
mod comparison;
mod loading;
mod log;

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use self::compaction::Compacted;
pub use self::{
    loading::{LoadError, Loaded, load, open},
    log::LogSize,
};
use crate::{
    backend::{Answer, Appended, Backend, BackendError, Position},
    config::History,
    document::{Document, UpdateError},
    metrics::Metrics,
    name::DocumentName,
    outbox::note_first_clocks,
    record::{Authored, Record},
    trace::Edits,
    troubles::Troubles,
    update::{ClientId, Clock},
    webhooks::{Teller, event::What},
};

/// Bytes of updates that wait for the backend, beside one of any size; more are dropped, and read from the
/// document again when their time comes.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// How long after a failure the next try is made.
const RETRY: Duration = Duration::from_secs(1);

/// Everything about saving one document.
pub struct Saver {
    name: DocumentName,
    backend: Arc<dyn Backend>,
    /// How the document's history is kept.
    history: Arc<History>,
    metrics: Arc<Metrics>,
    /// Where applications are told of what is saved.
    webhooks: Teller,
    troubles: Arc<Troubles>,
    /// Noted and not given to the backend yet.
    waiting: Vec<Authored>,
    waiting_bytes: usize,
    /// When the first of it was noted.
    waiting_since: Option<Instant>,
    /// For each client the first clock that waits.
    waiting_from: HashMap<ClientId, Clock>,
    /// Whether more waited than may: then `waiting` has not all of it, and the document is asked.
    dropped: bool,
    /// Who made what waits, where applications are told.
    users: BTreeSet<Arc<str>>,
    /// What of it is traced.
    traced: Edits,
    /// How often something was noted, and how much of that is saved.
    noted: u64,
    saved: u64,
    append: Option<Append>,
    /// When the next append may begin, and until when what waits is kept back because nobody waits for it.
    append_at: Instant,
    back_until: Option<Instant>,
    log: LogSize,
    compaction: Option<Answer<Compacted>>,
    /// Whether an append of ours made the log one that is worth a snapshot, or a version is due.
    worth_compacting: bool,
    /// When this node has appended last, if it was the last of all nodes.
    last_append: Option<Instant>,
    /// When the next version may be kept.
    version_from: Instant,
    /// Who wants a version of what was noted by then, and the same where it is being made.
    wanted: Vec<(u64, oneshot::Sender<()>)>,
    being_kept: Vec<oneshot::Sender<()>>,
    comparison: Option<Answer<Loaded>>,
    compare_again: bool,
    /// Why nothing is saved any more: the document that is here is none in the store.
    over: Option<BackendError>,
    /// Whether the log has lost something: nothing is appended before it was compared.
    lost: bool,
}

/// An append that is under way, and tried again until it succeeds.
struct Append {
    /// The number of the last note that it contains, and when its first was noted.
    through: u64,
    since: Instant,
    record: Bytes,
    /// Who made it, where applications are told.
    users: BTreeSet<Arc<str>>,
    traced: Edits,
    answer: Answer<Appended>,
    failures: u32,
}

impl Saver {
    /// A saver for a document whose log is of this size.
    pub fn new(
        name: DocumentName,
        backend: Arc<dyn Backend>,
        log: LogSize,
        history: Arc<History>,
        metrics: Arc<Metrics>,
        webhooks: Teller,
        troubles: Arc<Troubles>,
    ) -> Self {
        let every = history.every;
        let age =
            log.since.map_or(Duration::ZERO, |since| Duration::from_millis(now().saturating_sub(since)));
        Self {
            history,
            metrics,
            webhooks,
            troubles,
            name,
            backend,
            waiting: Vec::new(),
            waiting_since: None,
            waiting_bytes: 0,
            waiting_from: HashMap::new(),
            dropped: false,
            users: BTreeSet::new(),
            traced: Edits::default(),
            noted: 0,
            saved: 0,
            append: None,
            append_at: Instant::now(),
            back_until: None,
            log,
            compaction: None,
            // A log that was left long is made short by the first who adds to it.
            worth_compacting: log.thresholds() > 0,
            last_append: None,
            version_from: Instant::now() + every.saturating_sub(age),
            wanted: Vec::new(),
            being_kept: Vec::new(),
            comparison: None,
            compare_again: false,
            over: None,
            lost: false,
        }
    }

    /// Notes an update that must be saved, with the first clock that it adds for each client and with who made it;
    /// returns the number under which it will be reported as saved.
    pub fn note(&mut self, update: Bytes, adds: &[(ClientId, Clock)], user: Option<Arc<str>>) -> u64 {
        self.noted += 1;
        if self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
            self.back_until = next_moment(self.backend.append_delay());
        }
        note_first_clocks(&mut self.waiting_from, adds);
        self.waiting_bytes += update.len();
        if self.webhooks.is_heard() {
            self.users.extend(user.clone());
        }
        self.waiting.push(Authored { update, user });
        let too_many_bytes = self.waiting_bytes > MAX_WAITING_BYTES && self.waiting.len() > 1;
        if self.dropped || too_many_bytes || self.waiting.len() > Record::MAX_UPDATES {
            self.dropped = true;
            self.waiting = Vec::new();
            self.waiting_bytes = 0;
        }
        self.noted
    }

    /// Somebody is told when what was noted is saved: it is not kept back.
    pub fn expect(&mut self) {
        self.back_until = None;
    }

    /// Somebody waits for what was noted: it is appended as soon as it can be.
    pub fn hurry(&mut self) {
        self.expect();
        self.append_at = Instant::now();
    }

    /// Traces these edits, which were just noted, until they are saved.
    pub fn follow(&mut self, edits: Edits) {
        self.traced.append(edits);
    }

    /// The number of the last note: what is here now is saved when that one is reported.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// The number through which everything is saved.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Whether anything was ever noted or kept, if only that there is a document.
    pub fn exists(&self) -> bool {
        self.noted > 0 || !self.log.is_empty()
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.append.is_none()
            && self.compaction.is_none()
            && self.comparison.is_none()
            && self.wanted.is_empty()
            && !self.waits()
    }

    /// Whether everything is in the store, as far as is known.
    pub fn is_saved(&self) -> bool {
        self.saved == self.noted && !self.lost
    }

    /// Why nothing is saved any more, if so: the document was deleted, and may have been begun anew.
    pub fn over(&self) -> Option<&BackendError> {
        self.over.as_ref()
    }

    /// Gives up what is not saved.
    fn give_up(&mut self, over: BackendError) {
        info!(document = %self.name, reason = %over, unsaved = self.noted - self.saved, "nothing is saved any more");
        self.forget_waiting();
        self.traced = Edits::default();
        self.append = None;
        self.compaction = None;
        self.comparison = None;
        self.lost = false;
        self.over = Some(over);
    }

    /// The position through which the document has what is in the log.
    pub fn through(&self) -> Position {
        self.log.through
    }

    /// How much the log holds, as far as this node knows.
    pub fn log(&self) -> LogSize {
        self.log
    }

    fn waits(&self) -> bool {
        self.dropped || self.lost || !self.waiting.is_empty()
    }

    /// When the next append begins, if there is something to append and nothing in the way.
    fn append_due(&self) -> Option<Instant> {
        let may = self.append.is_none() && !self.lost && self.over.is_none() && self.waits();
        may.then(|| self.back_until.map_or(self.append_at, |until| until.max(self.append_at)))
    }

    /// Begins what can begin: the next append, and a compaction where the log is worth one and the document is
    /// complete, so that it has all that the log has.
    pub fn start(&mut self, document: &Document, complete: bool) -> Result<(), UpdateError> {
        if self.append_due().is_some_and(|due| due <= Instant::now()) {
            let updates = match mem::take(&mut self.dropped) {
                false => mem::take(&mut self.waiting),
                true => vec![Authored { update: document.diff_from(&self.waiting_from)?, user: None }],
            };
            let since = self.waiting_since;
            self.forget_waiting();
            self.append(updates, since);
        }
        if complete && !self.lost && self.compaction.is_none() {
            let saved = self.saved;
            let wanted = self.wanted.extract_if(.., |(through, _)| *through <= saved);
            self.being_kept = wanted.map(|(_, answer)| answer).collect();
            self.worth_compacting |= !self.being_kept.is_empty();
        }
        if mem::take(&mut self.worth_compacting) && complete && !self.lost {
            self.compact(document)?;
        }
        Ok(())
    }

    fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_from.clear();
        self.waiting_bytes = 0;
        self.waiting_since = None;
        self.back_until = None;
        self.dropped = false;
    }

    /// Other nodes have appended records, and the document has taken them in.
    pub fn heard(&mut self, records: usize, bytes: usize, through: Position) {
        self.log.records += records;
        self.log.bytes += bytes;
        self.log.through = through;
        self.last_append = None;
        self.begin_version();
    }

    /// Begins to append what waits although the document cannot be asked any more.
    pub fn start_without_document(&mut self) {
        if mem::take(&mut self.dropped) {
            error!(document = %self.name, "edits that waited for the backend are lost: the document engine failed");
        }
        // There is nothing to compare any more.
        self.comparison = None;
        self.lost = false;
        if self.append.is_none() && !self.waiting.is_empty() {
            let updates = mem::take(&mut self.waiting);
            let since = self.waiting_since.take();
            self.append(updates, since);
        }
    }

    fn append(&mut self, updates: Vec<Authored>, since: Option<Instant>) {
        let record = Record { time: now(), updates }.write();
        let answer = self.backend.append(&self.name, record.clone());
        self.append_at = Instant::now() + self.backend.append_spacing();
        let since = since.unwrap_or_else(Instant::now);
        let (users, traced) = (mem::take(&mut self.users), mem::take(&mut self.traced));
        self.append = Some(Append { through: self.noted, since, record, users, traced, answer, failures: 0 });
    }

    /// Waits until the backend has answered something, or an append may begin; for ever where nothing is under
    /// way. Answers with what the backend has, where it was asked for that.
    pub async fn progress(&mut self) -> Option<Loaded> {
        let append_at = self.append_due();
        let version_at = self.version_at();
        tokio::select! {
            // What is saved first: people wait for it.
            biased;
            answer = next(self.append.as_mut().map(|append| &mut append.answer)) => self.appended(answer),
            answer = next(self.compaction.as_mut()) => {
                self.compaction = None;
                self.compacted(answer);
            }
            loaded = next(self.comparison.as_mut()) => {
                self.comparison = None;
                match loaded {
                    Ok(loaded) => return Some(loaded),
                    Err(over) => self.give_up(over),
                }
            }
            () = sleep_until(append_at.unwrap_or_else(Instant::now)), if append_at.is_some() => {}
            () = sleep_until(version_at.unwrap_or_else(Instant::now)), if version_at.is_some() => {
                self.worth_compacting = true;
                // Where it cannot be made now.
                self.last_append = None;
            }
        }
        None
    }

    fn appended(&mut self, answer: Result<Appended, BackendError>) {
        let append = self.append.as_mut().expect("an answer comes to an append that is under way");
        match answer {
            Ok(appended) => {
                if append.failures > 0 {
                    warn!(document = %self.name, tries = append.failures + 1, "saved at last");
                }
                self.saved = append.through;
                self.webhooks.tell(&self.name, What::Changed { users: mem::take(&mut append.users) });
                mem::take(&mut append.traced).saved();
                let grown = self.log.with(append.record.len(), &appended);
                self.worth_compacting |= grown.thresholds() > self.log.thresholds();
                self.log = grown;
                self.metrics.saved(append.since.elapsed(), append.record.len(), grown.records);
                self.append = None;
                self.last_append = Some(Instant::now());
                self.begin_version();
            }
            Err(over @ (BackendError::Deleted | BackendError::Recreated)) => self.give_up(over),
            Err(BackendError::Lost) => {
                self.troubles.note(&self.name, BackendError::Lost);
                warn!(document = %self.name, "the store has lost edits; what is here is compared with it");
                self.lost = true;
                self.users.extend(mem::take(&mut append.users));
                self.traced.append(mem::take(&mut append.traced));
                self.append = None;
                self.compare(Duration::ZERO);
            }
            Err(error) => {
                if append.failures == 0 {
                    error!(document = %self.name, %error, "edits could not be saved; trying again every second");
                    self.troubles.note(&self.name, format!("edits could not be saved at once: {error}"));
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
}

/// The next of the moments, so far apart, at which all documents append what nobody waits for.
fn next_moment(apart: Duration) -> Option<Instant> {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let passed = START.elapsed().as_millis().checked_div(apart.as_millis())?;
    Some(*START + apart * (passed + 1) as u32)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

async fn next<T>(answer: Option<&mut Answer<T>>) -> Result<T, BackendError> {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;
    use crate::backend::embedded::Embedded;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_appended_with_that_of_other_documents() {
        let folder = tempfile::TempDir::new().unwrap();
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
        let apart = backend.append_delay();
        let saver = |name| {
            let log = LogSize::default();
            let name = DocumentName::new(name).unwrap();
            Saver::new(
                name,
                backend.clone(),
                log,
                Arc::default(),
                Arc::default(),
                Teller::default(),
                Arc::default(),
            )
        };
        let (mut letter, mut plan) = (saver("letter"), saver("plan"));
        let empty = Bytes::from_static(&[0, 0]);
        let moment = next_moment(apart).unwrap();
        sleep_until(moment).await;
        letter.note(empty.clone(), &[], None);
        sleep_until(moment + apart / 2).await;
        plan.note(empty, &[], None);
        assert_eq!(letter.append_due(), Some(moment + apart));
        assert_eq!(plan.append_due(), letter.append_due());
        // Somebody is told when it is saved.
        plan.expect();
        assert!(plan.append_due().unwrap() <= Instant::now());
    }
}
