//! `/api/documents/{name}/versions`: what a document was, and how it becomes that again.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    asking::{Repeat, ask, save, within_time},
    authorize::Caller,
    body::InJson,
    documents::{FormatName, accepted, read_parameters},
    error::{Body, Problem, Refusals},
    heavy_work::beside_others,
    version::{Named, Version, VersionId, broken, content},
};
use crate::{
    actor::{DocumentHandle, Edit},
    backend::Position,
    document::{
        edit,
        export::{ExportError, export},
    },
    history,
    level::Level,
    name::DocumentName,
    webhooks::event::{self, What},
};

/// Versions of a page, unless it is told otherwise, and the most that it may have.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// The most bytes of a version's name.
const MAX_NAME_BYTES: usize = 256;

/// A page of a document's versions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    /// The versions, newest first.
    versions: Vec<Version>,
    /// What to ask for as `before` to get the next page; nothing where this is the last one.
    next: Option<String>,
}

/// Which versions are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Before which version's id.
    before: Option<String>,
    /// How many at most.
    #[serde(default = "page")]
    #[param(required = false, minimum = 1, maximum = 1000)]
    limit: usize,
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

fn page() -> usize {
    PAGE
}

/// Lists the versions of a document
///
/// A version is kept when nobody has edited for a while (`--version-pause`), at most every so often
/// (`--version-every`), when the last person has left, and when one is made by name. Old ones are thinned out; those with
/// a name stay.
#[utoipa::path(
    get, path = "/api/documents/{name}/versions", operation_id = "versions", tag = "history",
    params(("name" = String, Path, description = "The document's name."), Which),
    responses((status = 200, description = "A page of the list.", body = Versions), Refusals),
)]
pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Versions>, Problem> {
    let Query(Which { before, limit, .. }) =
        which.map_err(|error| Problem::bad_request(error.body_text()))?;
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit={limit} must be from 1 to {MAX_PAGE}")));
    }
    let before: Option<VersionId> = before.map(|before| before.parse()).transpose()?;
    access.require(&named.document, Level::Read)?;
    named.require_document(&shared).await?;
    let all = history::versions(&*shared.backend, &named.document).await?;
    let older = all.into_iter().rev().filter(|version| before.is_none_or(|before| version.id < before.0));
    let mut versions: Vec<Version> = older.take(limit + 1).map(Into::into).collect();
    let more = versions.len() > limit;
    versions.truncate(limit);
    let next = versions.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(Versions { versions, next }))
}

/// A name for a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Naming {
    /// The name; none takes a name away.
    #[schema(example = "sent to print")]
    name: Option<String>,
}

impl Naming {
    fn checked(self) -> Result<Option<String>, Problem> {
        match self.name {
            Some(name) if name.is_empty() || name.len() > MAX_NAME_BYTES => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the name has {} bytes; from 1 to {MAX_NAME_BYTES} are allowed", name.len()),
            )),
            name => Ok(name),
        }
    }
}

/// Keeps a version now
///
/// Of everything that is in the document. Where nothing has changed since the newest version, that one gets the name.
#[utoipa::path(
    post, path = "/api/documents/{name}/versions", operation_id = "keep_version", tag = "history",
    params(("name" = String, Path, description = "The document's name.")),
    request_body = Naming,
    responses(
        (status = 201, description = "It is kept.", body = Version),
        (status = 409, description = "The server keeps no history (--no-history), or the document is empty.", body = Body,
            content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Body, content_type = "application/problem+json"),
        (status = 415, description = "The body is no JSON.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "The name is too long.", body = Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn keep(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
    InJson(naming): InJson<Naming>,
) -> Result<(StatusCode, Json<Version>), Problem> {
    access.require(&named.document, Level::Write)?;
    let name = naming.checked()?;
    named.require_document(&shared).await?;
    let keep = async || {
        let newest = keep_now(&shared, &named.document).await?;
        newest.ok_or_else(|| {
            let reason =
                "there is no version: the server keeps no history (--no-history), or nothing was ever written";
            Problem::new(StatusCode::CONFLICT, reason)
        })
    };
    let mut newest = keep().await?;
    if name.is_some() {
        let by = access.author();
        // It may have become a part of a newer one before it had a name.
        while !give_name(&shared, &named.document, newest.id, name.clone(), by.clone()).await? {
            newest = keep().await?;
        }
        newest.about.name = name;
        newest.about.named_by = access.user().map(str::to_owned);
        let (id, name, users) =
            (newest.id.to_string(), newest.about.name.clone(), newest.about.users.clone());
        shared.webhooks.tell(&named.document, What::Saved(event::Version { id, name, users }));
    }
    Ok((StatusCode::CREATED, Json(newest.into())))
}

/// The newest version, when everything that was in the document is in it; none, where no history is kept.
async fn keep_now(shared: &Shared, name: &DocumentName) -> Result<Option<history::Version>, Problem> {
    // Of an older time there may be versions, but none of what is there now.
    if !shared.keeps_history {
        return Ok(None);
    }
    let keep = |document: DocumentHandle| async move {
        // A deleted document says so, where the next question would only find it gone.
        document.exists().await?;
        Ok(document.keep_version().await?)
    };
    within_time(Repeat::Harmless, ask(shared, name, keep)).await?;
    Ok(history::versions(&*shared.backend, name).await?.pop())
}

/// Gives a version a name, or none. Answers whether there is such a version.
async fn give_name(
    shared: &Shared,
    document: &DocumentName,
    version: Position,
    name: Option<String>,
    by: Option<Arc<str>>,
) -> Result<bool, Problem> {
    let (backend, document) = (shared.backend.clone(), document.clone());
    let naming = async move { Ok(history::rename(&*backend, &document, version, name, by).await?) };
    shared.heavy_work.run(naming).await
}

/// Fetches a version
///
/// In any format in which the document itself can be exported.
#[utoipa::path(
    get, path = "/api/documents/{name}/versions/{version}", operation_id = "version", tag = "history",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("version" = String, Path, description = "The version's id.", example = "0-17"),
        ("format" = inline(Option<FormatName>), Query, description = "The format."),
        ("root" = Option<Vec<String>>, Query, explode = true,
            description = "What a root type is where its content does not tell, as for the document itself."),
        ("Accept" = Option<String>, Header, description = "Which formats are wanted, where `format` is not given."),
    ),
    responses(
        (status = 200, description = "The document as it was.",
            content(
                (Vec<u8> = "application/octet-stream"), (serde_json::Value = "application/json"),
                (String = "text/plain"), (String = "application/xml"), (String = "text/html"),
                (String = "text/markdown"),
            )),
        (status = 406, description = "There is no such format.", body = Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn fetch(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&named.document, Level::Read)?;
    let (format, roots) = read_parameters(&parameters)?;
    let format = match format {
        Some(format) => format,
        None => accepted(&headers)?,
    };
    let version = named.version()?;
    let work = shared.heavy_work.clone();
    let exported = async move {
        let document = content(&shared, &named, version).await?;
        let exported = move || {
            export(&document, format, &roots).map_err(|error| match error {
                ExportError::WrongKind { .. } => Problem::bad_request(error),
                ExportError::Engine(_) => broken(error),
            })
        };
        beside_others(exported).await
    };
    let content = work.run(exported).await?;
    // What people wrote is no page of this server: opened in a browser, it must not act as one.
    let guarding =
        [(header::CONTENT_SECURITY_POLICY, "sandbox"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((guarding, [(header::CONTENT_TYPE, format.media_type())], content).into_response())
}

/// Names a version
#[utoipa::path(
    patch, path = "/api/documents/{name}/versions/{version}", operation_id = "name_version", tag = "history",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("version" = String, Path, description = "The version's id.", example = "0-17"),
    ),
    request_body = Naming,
    responses(
        (status = 204, description = "It has the name."),
        (status = 413, description = "The body is too large.", body = Body, content_type = "application/problem+json"),
        (status = 415, description = "The body is no JSON.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "The name is too long.", body = Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn rename(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
    InJson(naming): InJson<Naming>,
) -> Result<StatusCode, Problem> {
    access.require(&named.document, Level::Write)?;
    let name = naming.checked()?;
    let version = named.version()?;
    match give_name(&shared, &named.document, version, name, access.author()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(named.no_version()),
    }
}

/// Deletes a version
///
/// What was changed in it belongs to the next one then. The newest version only loses its name, because the document
/// builds on it.
#[utoipa::path(
    delete, path = "/api/documents/{name}/versions/{version}", operation_id = "remove_version", tag = "history",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("version" = String, Path, description = "The version's id.", example = "0-17"),
    ),
    responses((status = 204, description = "It is deleted."), Refusals),
)]
pub(crate) async fn remove(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
) -> Result<StatusCode, Problem> {
    access.require(&named.document, Level::Admin)?;
    let version = named.version()?;
    let (backend, document) = (shared.backend.clone(), named.document.clone());
    let removal = async move { Ok(history::remove(&*backend, &document, version).await?) };
    match shared.heavy_work.run(removal).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(named.no_version()),
    }
}

/// What restoring a version has done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Restored {
    /// The version of what was there before: restoring it undoes this. None where the server keeps no history.
    #[schema(example = "0-23")]
    before: Option<String>,
}

/// Restores a version
///
/// The document becomes what it was, by an ordinary edit that everybody in it sees at once. A version of what was there
/// before is kept, so that restoring that one brings it back.
#[utoipa::path(
    post, path = "/api/documents/{name}/versions/{version}/restore", operation_id = "restore_version", tag = "history",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("version" = String, Path, description = "The version's id.", example = "0-17"),
    ),
    responses(
        (status = 200, description = "It is restored, and saved.", body = Restored),
        (status = 413, description = "The document is full.", body = Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn restore(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
) -> Result<Json<Restored>, Problem> {
    access.require(&named.document, Level::Write)?;
    let version = named.version()?;
    let work = shared.heavy_work.clone();
    let restored = async move {
        let (id, name) = (VersionId(version), &named.document);
        let wanted = content(&shared, &named, version).await?;
        let read = move || Ok((wanted.bytes(), edit::content(&wanted).map_err(broken)?));
        let (bytes, wanted) = beside_others(read).await?;
        let before = keep_now(&shared, name).await?.map(|before| VersionId(before.id).to_string());
        let restore = |document: DocumentHandle| {
            let (wanted, author) = (wanted.clone(), access.author());
            let edit: Edit = Box::new(move |document| Ok(Ok(edit::difference_to(document, wanted)?)));
            async move { document.edit(bytes, author, edit).await }
        };
        save(&shared, name, Repeat::Harmless, restore).await?;
        info!(document = %name, version = %id, by = access.user(), "a version was restored");
        Ok(Json(Restored { before }))
    };
    work.run(restored).await
}
