//! `/api/documents/{name}/raw`: a document's bytes as the store has them, also where they do not make a document.

use axum::{Json, extract::State, http::StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Shared,
    asking::{Named, not_there},
    authorize::Caller,
    error::{Problem, Refusals},
};
use crate::{backend::BackendError, level::Level};

/// A document's bytes as the store has them, in base64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Raw {
    /// The newest snapshot.
    snapshot: Option<String>,
    /// The records since, oldest first.
    log: Vec<RawRecord>,
    /// The updates that were set aside, oldest first.
    set_aside: Vec<String>,
}

/// A record of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RawRecord {
    /// The epoch of its position.
    epoch: u64,
    /// Its number in the epoch.
    number: u64,
    /// Its bytes.
    record: String,
}

/// Fetches a document's stored bytes
///
/// Also where they do not make a document that can be opened.
#[utoipa::path(
    get, path = "/api/documents/{name}/raw", operation_id = "raw", tag = "documents",
    params(("name" = String, Path, description = "The document's name.")),
    responses((status = 200, description = "What the store has.", body = Raw), Refusals),
)]
pub(crate) async fn fetch(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
) -> Result<Json<Raw>, Problem> {
    access.require(&name, Level::Admin)?;
    let stored = shared.backend.load(&name).await.map_err(|error| match error {
        BackendError::Deleted => not_there(&name),
        BackendError::Away(_) | BackendError::Recreated | BackendError::Closed => Problem::unavailable(error),
        error => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error),
    })?;
    if stored.snapshot.is_none() && stored.log.is_empty() {
        return Err(not_there(&name));
    }
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let log = stored.log.iter().map(|(position, record)| RawRecord {
        epoch: position.epoch,
        number: position.number,
        record: text(record),
    });
    Ok(Json(Raw {
        snapshot: stored.snapshot.as_deref().map(text),
        log: log.collect(),
        set_aside: stored.set_aside.iter().map(|update| text(update)).collect(),
    }))
}
