//! A document from what a backend keeps of it.

use bytes::Bytes;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::spawn_blocking,
};

use super::LogSize;
use crate::{
    backend::{Backend, BackendError, Position, Stored},
    document::Document,
    guard::Rest,
    name::DocumentName,
    record::{self, Record},
};

/// A document as the backend has it.
pub struct Loaded {
    /// The document.
    pub document: Document,
    /// All of it as one update, where it was stored as that.
    pub whole: Option<Bytes>,
    /// What is in its log too, but needs something that is not.
    pub gaps: Vec<Rest>,
    /// The size of its log.
    pub log: LogSize,
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The backend does not answer with one.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// What is stored makes none.
    #[error("{0}")]
    Unreadable(String),
}

/// A document from what the backend keeps of it.
pub async fn load(backend: &dyn Backend, name: &DocumentName) -> Result<Loaded, LoadError> {
    let stored = backend.load(name).await?;
    beside_actors(move || open(&stored)).await.map_err(LoadError::Unreadable)
}

/// Does work beside the actors, since for a large document it takes tens of milliseconds. Where everything shares one
/// thread it is done at once, so that a simulation repeats itself.
pub(super) async fn beside_actors<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => spawn_blocking(work).await.map_err(|error| error.to_string()).flatten(),
        _ => work(),
    }
}

/// A document from what the backend has answered.
pub fn open(stored: &Stored) -> Result<Loaded, String> {
    let mut updates = Vec::new();
    let mut log = LogSize::default();
    if let Some(snapshot) = &stored.snapshot {
        let update = record::read_snapshot(snapshot).map_err(|error| format!("its snapshot: {error}"))?;
        log.document_bytes = update.len();
        updates.push(Bytes::from(update));
    }
    for (position, bytes) in &stored.log {
        let Position { epoch, number } = position;
        let record = Record::read(bytes)
            .map_err(|error| format!("record {number} of its log (epoch {epoch}): {error}"))?;
        updates.extend(record.updates.into_iter().map(|authored| authored.update));
        log.since = log.since.or(Some(record.time));
        log.through = *position;
        log.records += 1;
        log.bytes += bytes.len();
    }
    let (mut document, gaps) = Document::load_with_gaps(&updates).map_err(|error| error.to_string())?;
    for update in &stored.set_aside {
        document.set_aside(update);
    }
    let whole = if log.records == 0 && gaps.is_empty() { updates.pop() } else { None };
    let gaps = gaps.into_iter().map(|(_, rest)| rest).collect();
    Ok(Loaded { document, whole, gaps, log })
}
