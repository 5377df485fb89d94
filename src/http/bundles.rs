//! `/api/documents/{name}/bundle`: a document with its history, to be carried to another server or kept as a backup.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tracing::info;
use utoipa::IntoParams;

use super::{
    Shared,
    asking::{Named, not_there},
    authorize::Caller,
    error::{Body, Problem, Refusals},
    lifecycle::refused,
};
use crate::{
    backend::BackendError,
    bundle::{Bundle, is_nothing},
    level::Level,
    name::DocumentName,
};

/// The most bytes of a bundle: a document as large as any, and a history beside it.
const MAX_BUNDLE_BYTES: usize = 1 << 30;

/// What becomes of a document that is here.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Replacing {
    /// Whether a document that is here, or was deleted, gives way. It cannot be taken back.
    #[serde(default)]
    replace: bool,
    /// Looked at elsewhere.
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

/// Fetches a document with its history
///
/// All that is saved of it, to be put into any server as it is: the content, its versions, and who wrote what.
#[utoipa::path(
    get, path = "/api/documents/{name}/bundle", operation_id = "bundle", tag = "documents",
    params(("name" = String, Path, description = "The document's name.")),
    responses(
        (status = 200, description = "The bundle.", body = Vec<u8>, content_type = "application/octet-stream"),
        Refusals,
    ),
)]
pub(crate) async fn fetch(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
) -> Result<Response, Problem> {
    access.require(&name, Level::Admin)?;
    let gathered = Bundle::gather(&*shared.backend, &name).await.map_err(|error| match error {
        BackendError::Deleted => not_there(&name),
        error => refused(error),
    })?;
    let bundle = gathered.ok_or_else(|| not_there(&name))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bundle.write()).into_response())
}

/// Puts a document with its history
///
/// A bundle that was fetched here or from another server. Its versions get new ids.
#[utoipa::path(
    put, path = "/api/documents/{name}/bundle", operation_id = "put_bundle", tag = "documents",
    params(("name" = String, Path, description = "The document's name."), Replacing),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "It is saved."),
        (status = 409, description = "There is such a document, or it was deleted: `replace` puts this one in its place.",
            body = Body, content_type = "application/problem+json"),
        (status = 413, description = "The bundle is too large.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "It is no bundle, or makes no document.", body = Body,
            content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn put(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    replacing: Result<Query<Replacing>, QueryRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Query(Replacing { replace, .. }) =
        replacing.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&name, Level::Admin)?;
    // Not before it is known who sends it, as it may be large; and before anything else is answered, which who is still
    // sending might not hear.
    let body = read_body(request).await?;
    if !replace {
        require_nothing(&shared, &name).await?;
    }
    let unfit = |reason: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the bundle cannot be read: {reason}"))
    };
    let bundle = Bundle::read(&body).map_err(|error| unfit(error.to_string()))?;
    let carried = bundle.clone();
    let whole = shared.heavy_work.run(async move { carried.whole().await.map_err(unfit) }).await?;
    if replace {
        shared.backend.delete(&name, Duration::ZERO).await.map_err(refused)?;
        shared.hub.let_go(&name).await;
    }
    // Whoever has it open on this node, empty as it is, would not hear what is put beside them.
    let Some(_kept_closed) = shared.hub.keep_closed(&name).await else {
        return Err(Problem::new(StatusCode::CONFLICT, "the document is being restored already"));
    };
    if replace {
        shared.backend.create(&name).await.map_err(refused)?;
    }
    require_nothing(&shared, &name).await?;
    bundle.put(&*shared.backend, &name, whole).await.map_err(refused)?;
    info!(document = %name, replace, by = access.user(), "restored from a bundle");
    Ok(StatusCode::CREATED)
}

/// Refuses where there is such a document, or was one.
async fn require_nothing(shared: &Shared, name: &DocumentName) -> Result<(), Problem> {
    let conflict = |reason| Err(Problem::new(StatusCode::CONFLICT, reason));
    match shared.backend.load(name).await {
        Ok(stored) if is_nothing(&stored) => Ok(()),
        Ok(_) => conflict("the document is there already; replace=true puts this one in its place"),
        Err(BackendError::Deleted) => conflict("the document was deleted; replace=true begins it anew"),
        Err(error) => Err(refused(error)),
    }
}

async fn read_body(mut request: Request) -> Result<Bytes, Problem> {
    DefaultBodyLimit::max(MAX_BUNDLE_BYTES).apply(&mut request);
    Bytes::from_request(request, &()).await.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(error.status(), format!("the bundle is larger than {MAX_BUNDLE_BYTES} bytes"))
        }
        status => Problem::new(status, error.body_text()),
    })
}
