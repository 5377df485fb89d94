//! A document from what a backend keeps of it.

use bytes::Bytes;
use tokio::task::spawn_blocking;

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
    // Beside the actors: a large document takes tens of milliseconds.
    let opened = spawn_blocking(move || open(&stored)).await;
    opened.map_err(|error| error.to_string()).flatten().map_err(LoadError::Unreadable)
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
        updates.extend(record.updates);
        log.through = *position;
        log.records += 1;
        log.bytes += bytes.len();
    }
    let (mut document, gaps) = Document::load_with_gaps(&updates).map_err(|error| error.to_string())?;
    for update in &stored.set_aside {
        document.set_aside(update);
    }
    Ok(Loaded { document, gaps: gaps.into_iter().map(|(_, rest)| rest).collect(), log })
}
