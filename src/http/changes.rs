//! What has changed in a document's text from one version to another, or to now, and who wrote which part of it.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    asking::whole,
    authorize::Caller,
    error::{Problem, Refusals},
    heavy_work::beside_others,
    version::{Named, VersionId, broken, content},
};
use crate::{
    access::Access,
    backend::Position,
    document::Document,
    history::{self, changes},
    level::Level,
    name::DocumentName,
};

/// A part of a text, and who wrote it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Part {
    /// The root type that it is in.
    root: String,
    /// What became of it from one version to the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
    /// Who wrote it, or deleted it; none where no token told.
    user: Option<String>,
    /// The text. After each paragraph stands a line break.
    text: String,
}

/// What became of a text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Change {
    Kept,
    Inserted,
    Deleted,
}

/// A text in parts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Parts {
    /// The parts, in their order.
    parts: Vec<Part>,
}

/// Between which versions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// The id of the earlier version; the one before, where it is not given.
    since: Option<String>,
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

/// Compares two versions
///
/// Their text, with what was inserted and deleted, and by whom.
#[utoipa::path(
    get, path = "/api/documents/{name}/versions/{version}/changes", operation_id = "changes", tag = "history",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("version" = String, Path, description = "The id of the later version.", example = "0-17"),
        Since,
    ),
    responses((status = 200, description = "The text.", body = Parts), Refusals),
)]
pub(crate) async fn compare(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
    since: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Parts>, Problem> {
    let later = named.version()?;
    between(shared, &access, named, since, Some(later)).await
}

/// Compares a version with now
///
/// The text of the document as it is now, with what was inserted and deleted since, and by whom; since the newest version,
/// where none is named.
#[utoipa::path(
    get, path = "/api/documents/{name}/changes", operation_id = "changes_since", tag = "history",
    params(("name" = String, Path, description = "The document's name."), Since),
    responses((status = 200, description = "The text.", body = Parts), Refusals),
)]
pub(crate) async fn compare_now(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
    since: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Parts>, Problem> {
    between(shared, &access, named, since, None).await
}

/// What has changed from one version to a later one, or to what is there now.
async fn between(
    shared: Shared,
    access: &Access,
    named: Named,
    since: Result<Query<Since>, QueryRejection>,
    later: Option<Position>,
) -> Result<Json<Parts>, Problem> {
    let Query(Since { since, .. }) = since.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&named.document, Level::Read)?;
    let since: Option<VersionId> = since.map(|since| since.parse()).transpose()?;
    let work = shared.heavy_work.clone();
    let comparison = async move {
        let after = match later {
            Some(later) => content(&shared, &named, later).await?,
            None => now(&shared, &named.document).await?,
        };
        let earlier = match since {
            Some(since) => Some(since.0),
            None => {
                let versions = history::versions(&*shared.backend, &named.document).await?;
                let mut newest_first = versions.into_iter().rev().map(|version| version.id);
                newest_first.find(|id| later.is_none_or(|later| *id < later))
            }
        };
        let before = earlier_content(&shared, &named.document, earlier).await?;
        let parts = history::compared(&*shared.backend, &named.document, before, (later, after)).await?;
        Ok(Json(compared(parts)))
    };
    work.run(comparison).await
}

/// A version to compare with, and what the document was; an empty one, where there is none.
async fn earlier_content(
    shared: &Shared,
    name: &DocumentName,
    earlier: Option<Position>,
) -> Result<(Position, Document), Problem> {
    let Some(earlier) = earlier else { return Ok((Position::default(), Document::default())) };
    let named = Named { document: name.clone(), version: Some(VersionId(earlier)) };
    Ok((earlier, content(shared, &named, earlier).await?))
}

fn compared(parts: Vec<changes::Part>) -> Parts {
    let parts = parts.into_iter().map(|part| Part {
        change: Some(match part.change {
            changes::Change::Kept => Change::Kept,
            changes::Change::Inserted => Change::Inserted,
            changes::Change::Deleted => Change::Deleted,
        }),
        ..part.into()
    });
    Parts { parts: parts.collect() }
}

/// Who wrote what
///
/// The text of the document as it is now, with the user of each part: the `sub` of the token with which it was written.
#[utoipa::path(
    get, path = "/api/documents/{name}/attribution", operation_id = "attribution", tag = "history",
    params(("name" = String, Path, description = "The document's name.")),
    responses((status = 200, description = "The text.", body = Parts), Refusals),
)]
pub(crate) async fn attribute(
    State(shared): State<Shared>,
    Caller(access): Caller,
    named: Named,
) -> Result<Json<Parts>, Problem> {
    access.require(&named.document, Level::Read)?;
    let work = shared.heavy_work.clone();
    let attribution = async move {
        let now = now(&shared, &named.document).await?;
        let parts = history::attributed(&*shared.backend, &named.document, now).await?;
        Ok(Json(Parts { parts: parts.into_iter().map(Into::into).collect() }))
    };
    work.run(attribution).await
}

impl From<changes::Part> for Part {
    fn from(changes::Part { root, user, text, .. }: changes::Part) -> Self {
        Self { root, change: None, user: user.as_deref().map(str::to_owned), text }
    }
}

/// The document as it is now.
async fn now(shared: &Shared, name: &DocumentName) -> Result<Document, Problem> {
    let whole = whole(shared, name).await?;
    beside_others(move || Document::load(&[whole]).map_err(broken)).await
}
