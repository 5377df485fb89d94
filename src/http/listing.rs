//! `/api/documents`: which documents there are.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    authorize::Caller,
    error::{Problem, Refusals},
    lifecycle::refused,
};
use crate::{backend, level::Level};

/// Documents of a page, unless it is told otherwise, and the most that it may have.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// Which documents are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// How their names begin.
    #[serde(default)]
    #[param(required = false)]
    prefix: String,
    /// After which name.
    #[serde(default)]
    #[param(required = false)]
    after: String,
    /// How many at most.
    #[serde(default = "page")]
    #[param(required = false, minimum = 1, maximum = 1000)]
    limit: usize,
    /// Looked at elsewhere.
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

fn page() -> usize {
    PAGE
}

/// A page of the list of all documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page {
    documents: Vec<Listed>,
    /// What to ask for as `after` to get the next page; nothing where this is the last one.
    next: Option<String>,
}

/// A document in a list.
#[derive(Debug, Serialize, ToSchema)]
struct Listed {
    name: String,
    /// About how many bytes the store has of it.
    bytes: u64,
    /// About when it was changed, in milliseconds since 1970; nothing where that is not known.
    changed: Option<u64>,
}

impl From<backend::Listed> for Listed {
    fn from(backend::Listed { name, bytes, changed }: backend::Listed) -> Self {
        Self { name: name.as_str().to_owned(), bytes, changed }
    }
}

/// Lists documents
///
/// In the order of their names' bytes. The token must allow `admin` for all names with the prefix.
#[utoipa::path(
    get, path = "/api/documents", operation_id = "list", tag = "documents",
    params(Which),
    responses((status = 200, description = "A page of the list.", body = Page), Refusals),
)]
pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(access): Caller,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(Which { prefix, after, limit, .. }) =
        which.map_err(|error| Problem::bad_request(error.body_text()))?;
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit={limit} must be from 1 to {MAX_PAGE}")));
    }
    access.require_prefix(&prefix, Level::Admin)?;
    let listed = shared.backend.list(&prefix, &after, limit).await.map_err(refused)?;
    let documents: Vec<Listed> = listed.into_iter().map(Into::into).collect();
    let next = documents.last().filter(|_| documents.len() == limit).map(|last| last.name.clone());
    Ok(Json(Page { documents, next }))
}
