//! The history of a document, made of segments: what a compaction takes out of the log is kept, with the text of what
//! was deleted later, and with who made it. A version is a point behind a segment, and its content is that of all
//! segments up to it.

pub mod changes;
pub mod segment;
mod thinning;

use std::{slice, sync::Arc};

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use self::{
    changes::{Authors, Part},
    segment::{About, Edits},
};
use crate::{
    backend::{Backend, BackendError, Position, Segment, Stored},
    config::History,
    document::{Document, pieces::pieces},
    name::DocumentName,
    record::{self, Record},
};

/// A version in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The position of its last record.
    pub id: Position,
    /// What is known of it.
    pub about: About,
}

/// How often a segment is read again that changes meanwhile.
const TRIES: usize = 5;

/// Why there is no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The backend does not answer with one.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What is stored makes none.
    #[error("the history cannot be read: {0}")]
    Unreadable(String),
}

/// The segment of what the log has through a position; none where it has nothing that is in no segment yet.
pub async fn gather(
    backend: &dyn Backend,
    name: &DocumentName,
    through: Position,
    document_bytes: usize,
) -> Result<Option<Segment>, BackendError> {
    let stored = backend.load(name).await?;
    let is_first = backend.segments(name).await?.is_empty();
    let make = move || segment_of(&stored, is_first, through, document_bytes);
    beside_others(make).await.map_err(|error| BackendError::Store(error.to_string()))
}

fn segment_of(
    stored: &Stored,
    is_first: bool,
    through: Position,
    document_bytes: usize,
) -> Result<Option<Segment>, HistoryError> {
    let mut edits = Edits::default();
    let (mut begin, mut end) = (None, 0);
    if let (true, Some(snapshot)) = (is_first, &stored.snapshot) {
        // What was before there was a history: nobody knows any more who wrote it, nor when.
        let update =
            record::read_snapshot(snapshot).map_err(|error| BackendError::Store(error.to_string()))?;
        edits.push(None, update.into());
    }
    for (_, bytes) in stored.log.iter().filter(|(position, _)| *position <= through) {
        let record = Record::read(bytes).map_err(unreadable)?;
        begin = begin.or(Some(record.time));
        end = record.time;
        record.updates.into_iter().for_each(|authored| edits.push(authored.user, authored.update));
    }
    if edits.is_empty() {
        return Ok(None);
    }
    let edits = edits.merged();
    let data = edits.write().map_err(unreadable)?;
    let about = About {
        begin: begin.unwrap_or(end),
        end,
        document_bytes: document_bytes as u64,
        bytes: data.len() as u64,
        users: edits.users(),
        name: None,
        named_by: None,
    };
    Ok(Some(Segment { through, about: about.write(), data }))
}

/// All versions, oldest first.
pub async fn versions(backend: &dyn Backend, name: &DocumentName) -> Result<Vec<Version>, HistoryError> {
    let segments = backend.segments(name).await?;
    segments.into_iter().map(|(id, about)| Ok(Version { id, about: read_about(&about)? })).collect()
}

/// The document as it was in a version; none where there is no such version.
pub async fn content(
    backend: &dyn Backend,
    name: &DocumentName,
    version: Position,
) -> Result<Option<Document>, HistoryError> {
    let segments = backend.read_segments(name, version).await?;
    if segments.last().is_none_or(|last| last.through != version) {
        return Ok(None);
    }
    beside_others(move || open(&segments)).await.map(Some)
}

/// A document from all that happened.
fn open(segments: &[Segment]) -> Result<Document, HistoryError> {
    let mut updates = Vec::new();
    for segment in segments {
        updates.extend(read_edits(segment)?.together());
    }
    let (document, gaps) = Document::load_with_gaps(&updates).map_err(unreadable)?;
    if !gaps.is_empty() {
        warn!(gaps = gaps.len(), "a version lacks edits that the store has lost");
    }
    Ok(document)
}

/// Who made what through a version, oldest first; through the newest edit that is saved, where none is named.
async fn edits(
    backend: &dyn Backend,
    name: &DocumentName,
    through: Option<Position>,
) -> Result<Vec<(Position, Edits)>, HistoryError> {
    let last = Position { epoch: u64::MAX, number: u64::MAX };
    let segments = backend.read_segments(name, through.unwrap_or(last)).await?;
    let log = match through {
        Some(_) => Vec::new(),
        None => backend.load(name).await?.log,
    };
    beside_others(move || {
        let mut all = Vec::new();
        for segment in &segments {
            all.push((segment.through, read_edits(segment)?));
        }
        let mut newest = Edits::default();
        for (_, bytes) in &log {
            let record = Record::read(bytes).map_err(unreadable)?;
            record.updates.into_iter().for_each(|authored| newest.push(authored.user, authored.update));
        }
        all.push((last, newest));
        Ok(all)
    })
    .await
}

/// Gives a version another name, or none. Answers whether there is such a version.
pub async fn rename(
    backend: &dyn Backend,
    name: &DocumentName,
    version: Position,
    new: Option<String>,
    by: Option<Arc<str>>,
) -> Result<bool, HistoryError> {
    let named_by = new.as_ref().and(by).map(|by| by.to_string());
    for _ in 0..TRIES {
        let segments = backend.read_segments(name, version).await?;
        let Some(segment) = segments.into_iter().last().filter(|last| last.through == version) else {
            return Ok(false);
        };
        let old = known(slice::from_ref(&segment));
        let about = read_about(&segment.about)?;
        let about = About { name: new.clone(), named_by: named_by.clone(), ..about }.write();
        if backend.replace_segments(name, old, Segment { about, ..segment }).await? {
            return Ok(true);
        }
    }
    Err(restless())
}

/// Deletes a version: what happened before it belongs to the next one then. Answers whether there is such a version; the
/// newest one cannot be deleted, for the document builds on it, and only loses its name.
pub async fn remove(
    backend: &dyn Backend,
    name: &DocumentName,
    version: Position,
) -> Result<bool, HistoryError> {
    for _ in 0..TRIES {
        let versions = versions(backend, name).await?;
        let Some(at) = versions.iter().position(|found| found.id == version) else { return Ok(false) };
        let Some(with_next) = versions.get(at..at + 2) else {
            return rename(backend, name, version, None, None).await;
        };
        if join(backend, name, with_next).await? {
            return Ok(true);
        }
    }
    Err(restless())
}

/// Thins out what is old, and keeps what there is within its bound.
pub async fn thin(backend: &dyn Backend, name: &DocumentName, history: &History, now: u64) {
    let thinned = async {
        let versions = versions(backend, name).await?;
        for group in thinning::too_close(&versions, history.every, now) {
            join(backend, name, group).await?;
        }
        collapse(backend, name, history.bytes as u64).await
    };
    if let Err(error) = thinned.await {
        // It is tried again after the next compaction.
        debug!(document = %name, %error, "the history was not thinned out");
    }
}

/// Makes one version of several that follow each other: the last of them. It keeps its name. Answers whether they were
/// all there, and nobody has changed them meanwhile.
async fn join(backend: &dyn Backend, name: &DocumentName, group: &[Version]) -> Result<bool, HistoryError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(false) };
    let mut segments = backend.read_segments(name, last.id).await?;
    segments.retain(|segment| segment.through >= first.id);
    let found: Vec<Version> = segments
        .iter()
        .map(|segment| Ok(Version { id: segment.through, about: read_about(&segment.about)? }))
        .collect::<Result<_, HistoryError>>()?;
    if found != group {
        return Ok(false);
    }
    let old = known(&segments);
    let joined = beside_others(move || joined(&segments)).await?;
    Ok(backend.replace_segments(name, old, joined).await?)
}

fn joined(segments: &[Segment]) -> Result<Segment, HistoryError> {
    let newest = segments.last().ok_or_else(|| unreadable("there is nothing to join"))?;
    let (mut edits, mut begin) = (Edits::default(), u64::MAX);
    for segment in segments {
        begin = begin.min(read_about(&segment.about)?.begin);
        edits.extend(read_edits(segment)?);
    }
    let edits = edits.merged();
    let data = edits.write().map_err(unreadable)?;
    let about = read_about(&newest.about)?;
    let about = About { begin, bytes: data.len() as u64, users: edits.users(), ..about }.write();
    Ok(Segment { through: newest.through, about, data })
}

/// Where the history takes more than it may, its older half becomes one version, without what was deleted by then and
/// without who wrote it.
async fn collapse(backend: &dyn Backend, name: &DocumentName, bound: u64) -> Result<(), HistoryError> {
    let versions = versions(backend, name).await?;
    let all: u64 = versions.iter().map(|version| version.about.bytes).sum();
    if all <= bound || versions.len() < 2 {
        return Ok(());
    }
    let mut sum = 0;
    let newest = &versions[..versions.len() - 1];
    let old = newest.iter().take_while(|version| {
        sum += version.about.bytes;
        sum <= all / 2 || version.id == newest[0].id
    });
    let old: Vec<&Version> = old.collect();
    let Some(last) = old.last() else { return Ok(()) };
    // A single one that was collapsed before is as small as it gets.
    if old.len() == 1 && last.about.users.is_empty() {
        return Ok(());
    }
    let segments = backend.read_segments(name, last.id).await?;
    let old = known(&segments);
    let collapsed = beside_others(move || collapsed(&segments)).await?;
    backend.replace_segments(name, old, collapsed).await?;
    Ok(())
}

fn collapsed(segments: &[Segment]) -> Result<Segment, HistoryError> {
    let (Some(oldest), Some(newest)) = (segments.first(), segments.last()) else {
        return Err(unreadable("there is nothing to collapse"));
    };
    let mut edits = Edits::default();
    edits.push(None, open(segments)?.diff(&Default::default()).map_err(unreadable)?);
    let data = edits.write().map_err(unreadable)?;
    let begin = read_about(&oldest.about)?.begin;
    let about = read_about(&newest.about)?;
    let about = About { begin, bytes: data.len() as u64, users: vec![], ..about }.write();
    Ok(Segment { through: newest.through, about, data })
}

/// What must still be known of segments when others come in their place: a name may have been given meanwhile.
fn known(segments: &[Segment]) -> Vec<(Position, Bytes)> {
    segments.iter().map(|segment| (segment.through, segment.about.clone())).collect()
}

/// Who changed a document last, as far as that is known.
pub async fn last_author(backend: &dyn Backend, name: &DocumentName) -> Result<Option<String>, HistoryError> {
    let stored = backend.load(name).await?;
    if let Some((_, newest)) = stored.log.last() {
        let newest = Record::read(newest).map_err(unreadable)?;
        return Ok(newest.updates.last().and_then(|authored| authored.user.as_deref()).map(str::to_owned));
    }
    // Of several in one version nobody knows who came last.
    let newest = versions(backend, name).await?.pop();
    Ok(newest
        .and_then(|mut newest| if newest.about.users.len() == 1 { newest.about.users.pop() } else { None }))
}

/// The text of a document as it is now, with who wrote it.
pub async fn attributed(
    backend: &dyn Backend,
    name: &DocumentName,
    now: Document,
) -> Result<Vec<Part>, HistoryError> {
    let edits = edits(backend, name, None).await?;
    beside_others(move || {
        let mut authors = Authors::default();
        edits.iter().for_each(|(_, edits)| authors.note(edits));
        Ok(changes::attributed(&pieces(&now).map_err(unreadable)?, &authors))
    })
    .await
}

/// What is different in a later document, by whom; `through` is its version, none where it is as it is now.
pub async fn compared(
    backend: &dyn Backend,
    name: &DocumentName,
    before: (Position, Document),
    after: (Option<Position>, Document),
) -> Result<Vec<Part>, HistoryError> {
    let edits = edits(backend, name, after.0).await?;
    beside_others(move || {
        let mut authors = Authors::default();
        for (through, edits) in &edits {
            // What is in both was not deleted since, whoever had deleted it before.
            if *through > before.0 {
                authors.note(edits);
            } else {
                authors.note_inserted(edits);
            }
        }
        let (before, after) = (pieces(&before.1).map_err(unreadable)?, pieces(&after.1).map_err(unreadable)?);
        Ok(changes::compared(&before, &after, &authors))
    })
    .await
}

/// Does work that takes long, without keeping other tasks from their thread.
async fn beside_others<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    spawn_blocking(work).await.map_err(unreadable).flatten()
}

fn read_about(bytes: &[u8]) -> Result<About, HistoryError> {
    About::read(bytes).map_err(unreadable)
}

fn read_edits(segment: &Segment) -> Result<Edits, HistoryError> {
    Edits::read(&segment.data).map_err(unreadable)
}

fn restless() -> HistoryError {
    BackendError::Store("the history changes again and again; try again".to_owned()).into()
}

fn unreadable(error: impl ToString) -> HistoryError {
    HistoryError::Unreadable(error.to_string())
}
