//! `/api/documents/{name}`: how a document is made, deleted and taken back.

use std::time::Duration;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
};
use serde::Deserialize;
use tracing::info;
use utoipa::IntoParams;

use super::{
    Shared,
    asking::{Named, Repeat, ask, ask_unless_deleted, not_there, within_time},
    authorize::Caller,
    body::{Content, require_type},
    contents,
    error::{Body, Problem, Refusals},
    updates::expected,
};
use crate::{
    access::Access,
    actor::{DocumentHandle, ReadError, WriteError},
    backend::BackendError,
    document::{Document, UpdateError},
    level::Level,
    name::DocumentName,
    webhooks::event::What,
};

/// How often a name is begun anew that others delete at that moment.
const TRIES: usize = 3;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Removal {
    /// Whether the document cannot be taken back.
    #[serde(default)]
    purge: bool,
    /// Looked at elsewhere.
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

/// Deletes a document
///
/// On all nodes: its sessions end with the close code 4404. It can be taken back for a while (`--keep-deleted`); with
/// `purge` it cannot, nor can one that was deleted before. Neither a client that comes back nor a node that was cut off
/// brings it back.
#[utoipa::path(
    delete, path = "/api/documents/{name}", operation_id = "remove", tag = "documents",
    params(("name" = String, Path, description = "The document's name."), Removal),
    responses((status = 204, description = "It is deleted, now or before."), Refusals),
)]
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
    shared.webhooks.tell(&name, What::Deleted { user: access.user().map(str::to_owned) });
    info!(document = %name, purge, by = access.user(), "deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a deleted document back
///
/// As it was when it was deleted.
#[utoipa::path(
    post, path = "/api/documents/{name}/restore", operation_id = "restore", tag = "documents",
    params(("name" = String, Path, description = "The document's name.")),
    responses((status = 204, description = "It is there again."), Refusals),
)]
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

/// Makes a document, or gives it content
///
/// Without `format` and body an empty one, unless it is there already. With `format` it has this content afterwards: what
/// is different is changed and nothing else, so that who has it open keeps caret and place, and what the format cannot
/// say stays where its text stays. Markdown and HTML become what Tiptap makes of them. The name of a deleted document
/// begins anew, for which the token must allow `admin`.
#[utoipa::path(
    put, path = "/api/documents/{name}", operation_id = "make", tag = "documents",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("format" = inline(Option<contents::FormatName>), Query, description = "What the body is."),
        ("root" = Option<String>, Query, description = "Into which root type it goes, where that is not clear: its \
            name, and for a new one perhaps a colon and `text` or `xml`.", example = "content:text"),
        ("If-Match" = Option<String>, Header, description = "The ETag that `?format=update` had: then it is done only \
            if the document did not change since. `*`: only if there is something in it."),
    ),
    request_body(content = String, content_type = "text/plain",
        description = "The content; `text/markdown`, `text/html` and `application/json` are fine, too."),
    responses(
        (status = 200, description = "It was there, and has the content."),
        (status = 201, description = "It is made."),
        (status = 412, description = "The document has changed since.", body = Body,
            content_type = "application/problem+json"),
        (status = 413, description = "The body is too large, or the document is full.", body = Body,
            content_type = "application/problem+json"),
        (status = 422, description = "The document cannot have this content.", body = Body,
            content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn make(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
    Content(body): Content,
) -> Result<StatusCode, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&name, Level::Write)?;
    let content = contents::read(&parameters, &body)?;
    let expected = expected(&headers)?;
    if content.is_none() && expected.is_some() {
        return Err(Problem::bad_request("If-Match goes with content, and this request has none"));
    }
    let make = |document: DocumentHandle| {
        let (content, expected, author) = (content.clone(), expected.clone(), access.author());
        async move {
            let exists = document.exists().await?;
            let Some(content) = content else { return Ok(Ok(document.make().await?)) };
            if let Err(refused) = document.edit(content.bytes(), author, content.edit(expected)).await? {
                return Ok(Err(refused));
            }
            // Where there was nothing to change it is made all the same.
            document.make().await?;
            Ok(Ok(exists))
        }
    };
    let exists = within_time(Repeat::Harmless, make_or_begin_anew(&shared, &access, &name, make)).await??;
    Ok(if exists { StatusCode::OK } else { StatusCode::CREATED })
}

/// Makes a document with content
///
/// The content is a Yjs update of version 1. The name of a deleted document begins anew, for which the token must allow
/// `admin`.
#[utoipa::path(
    post, path = "/api/documents/{name}", operation_id = "make_with", tag = "documents",
    params(("name" = String, Path, description = "The document's name.")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "It is saved."),
        (status = 409, description = "There is such a document, or the update builds on edits that it does not hold.",
            body = Body, content_type = "application/problem+json"),
        (status = 413, description = "The update is too large.", body = Body, content_type = "application/problem+json"),
        (status = 415, description = "It is something else.", body = Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn make_with(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    headers: HeaderMap,
    Content(update): Content,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Write)?;
    if headers.contains_key(header::CONTENT_TYPE) {
        require_type(&headers, "application/octet-stream")?;
    }
    // Before what was deleted gives way to it.
    check(&update)?;
    let make = |document: DocumentHandle| {
        let (update, author) = (update.clone(), access.author());
        async move { document.make_with(update, author).await }
    };
    within_time(Repeat::Harmless, make_or_begin_anew(&shared, &access, &name, make)).await??;
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
pub(super) async fn make_or_begin_anew<T, Made>(
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
