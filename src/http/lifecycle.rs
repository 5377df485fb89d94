//! `/api/documents/{name}`: how a document is made, deleted and taken back.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State, rejection::BytesRejection, rejection::QueryRejection},
    http::StatusCode,
    routing::{MethodRouter, delete},
};
use serde::Deserialize;
use tracing::info;

use super::{
    Shared,
    asking::{Named, ask, ask_unless_deleted, not_there},
    authorize::Caller,
    error::Problem,
    writing,
};
use crate::{
    access::Access,
    actor::{DocumentHandle, ReadError, WriteError},
    backend::BackendError,
    config::Limits,
    document::{Document, UpdateError},
    level::Level,
    name::DocumentName,
};

/// How often a name is begun anew that others delete at that moment.
const TRIES: usize = 3;

pub(super) fn routes(limits: &Limits) -> MethodRouter<Shared> {
    delete(remove).put(make).post(make_with).layer(DefaultBodyLimit::max(limits.update_bytes))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removal {
    /// Whether the document cannot be taken back.
    #[serde(default)]
    purge: bool,
    /// Looked at elsewhere.
    #[serde(rename = "token")]
    _token: Option<String>,
}

/// `DELETE /api/documents/{name}`: deletes a document on all nodes. It can be taken back for a while; with
/// `?purge=true` it cannot, nor can one that was deleted before.
pub(crate) async fn remove(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    removal: Result<Query<Removal>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Query(Removal { purge, .. }) = removal.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&name, Level::Admin)?;
    let keep_for = if purge { Duration::ZERO } else { shared.keep_deleted };
    if !shared.backend.delete(&name, keep_for).await.map_err(refused)? {
        // What was written a moment ago may be on its way to the store, and is waited for.
        let is_saved =
            |document: DocumentHandle| async move { Ok(document.exists().await? && document.make().await?) };
        let is_there = ask(&shared, &name, is_saved).await?;
        if !is_there || !shared.backend.delete(&name, keep_for).await.map_err(refused)? {
            return Err(not_there(&name));
        }
    }
    // Who asks this node next is not answered by what was deleted.
    shared.hub.let_go(&name).await;
    info!(document = %name, purge, by = access.user(), "deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/documents/{name}/restore`: takes a deleted document back as it was.
pub(crate) async fn restore(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Admin)?;
    if !shared.backend.undelete(&name).await.map_err(refused)? {
        let reason = format!(
            "no deleted document {:?} can be taken back: it was not deleted, or its time is over (--keep-deleted)",
            name.as_str()
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, reason));
    }
    info!(document = %name, by = access.user(), "taken back");
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /api/documents/{name}`: makes an empty document, unless there is one. The name of a deleted one begins anew.
pub(crate) async fn make(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Write)?;
    if !writing::taken(body, &shared.limits)?.is_empty() {
        let reason = "no body is taken here: POST makes a document with an update as its content";
        return Err(Problem::bad_request(reason));
    }
    let make = |document: DocumentHandle| async move { document.make().await };
    let exists = make_or_begin_anew(&shared, &access, &name, make).await?;
    Ok(if exists { StatusCode::OK } else { StatusCode::CREATED })
}

/// `POST /api/documents/{name}`: makes a document with an update as its content, where there is none. The name of a
/// deleted one begins anew.
pub(crate) async fn make_with(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Write)?;
    let update = writing::taken(body, &shared.limits)?;
    // Before what was deleted gives way to it.
    check(&update).map_err(writing::refused)?;
    let make = |document: DocumentHandle| {
        let update = update.clone();
        async move { document.make_with(update).await }
    };
    make_or_begin_anew(&shared, &access, &name, make).await?.map_err(writing::refused)?;
    Ok(StatusCode::CREATED)
}

/// Whether an update is one that can make a document.
fn check(update: &[u8]) -> Result<(), WriteError> {
    match Document::default().lacks_for(update) {
        Ok(false) => Ok(()),
        Ok(true) => Err(WriteError::Lacks),
        Err(UpdateError::Refused(rule)) => Err(WriteError::Refused(rule.to_string())),
        Err(error) => Err(WriteError::Refused(error.to_string())),
    }
}

/// Makes a document. Where it is deleted, its name begins anew, for which one must be allowed to delete it.
async fn make_or_begin_anew<T, Made>(
    shared: &Shared,
    access: &Access,
    name: &DocumentName,
    make: impl Fn(DocumentHandle) -> Made,
) -> Result<T, Problem>
where
    Made: Future<Output = Result<T, ReadError>>,
{
    for _ in 0..TRIES {
        if let Some(made) = ask_unless_deleted(shared, name, &make).await? {
            return Ok(made);
        }
        access.require(name, Level::Admin)?;
        shared.backend.create(name).await.map_err(refused)?;
    }
    Err(Problem::unavailable("the document is being deleted; try again"))
}

/// The backend could not do what it was asked to.
pub(super) fn refused(error: BackendError) -> Problem {
    match error {
        BackendError::Away(_) | BackendError::Closed => Problem::unavailable(error),
        error => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}
