//! `/api/documents/{name}/raw`: a document's bytes as the store has them, also where they do not make a document.

use axum::{Json, extract::State, http::StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Shared,
    asking::{Named, not_there},
    authorize::Caller,
    error::Problem,
};
use crate::{backend::BackendError, level::Level};

/// `GET /api/documents/{name}/raw`: the snapshot, the log since, and the updates that were set aside, in base64.
pub(crate) async fn fetch(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
) -> Result<Json<Value>, Problem> {
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
    let log = stored.log.iter().map(|(position, record)| {
        json!({ "epoch": position.epoch, "number": position.number, "record": text(record) })
    });
    Ok(Json(json!({
        "snapshot": stored.snapshot.as_deref().map(text),
        "log": log.collect::<Vec<_>>(),
        "setAside": stored.set_aside.iter().map(|update| text(update)).collect::<Vec<_>>(),
    })))
}
