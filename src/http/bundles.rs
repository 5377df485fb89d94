//! `/api/documents/{name}/bundle`: a document with its history, to be carried to another server or kept as a backup.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tracing::{Instrument, info, warn};
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
    hub::KeptClosed,
    level::Level,
    name::DocumentName,
};

/// The most bytes of a bundle: a document as large as any, and a history beside it.
const MAX_BUNDLE_BYTES: usize = 1 << 30;

/// How long a document that gives way can be taken back, should the server die before there is another in its place.
const KEPT_MEANWHILE: Duration = Duration::from_secs(24 * 60 * 60);

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
    // Whoever has it open on this node would not hear what is put beside them; and nobody else replaces it now.
    let Some(kept_closed) = shared.hub.keep_closed(&name) else {
        return Err(Problem::new(StatusCode::CONFLICT, "the document is being restored already"));
    };
    let put = async move {
        let first = Bundle::first(whole);
        if replace {
            give_way(&shared, &name, &kept_closed, &first).await?;
        } else {
            kept_closed.close().await;
            require_nothing(&shared, &name).await?;
            shared.backend.append(&name, first.clone()).await.map_err(refused)?;
        }
        bundle.put(&*shared.backend, &name, &first).await.map_err(refused)?;
        info!(document = %name, replace, by = access.user(), "restored from a bundle");
        Ok(StatusCode::CREATED)
    };
    // Of its own, as it goes on to its end also where who sent it goes away.
    tokio::spawn(put.in_current_span())
        .await
        .unwrap_or_else(|error| Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error)))
}

/// Puts the first record of another document in the place of this one, which stays as it was where that fails.
async fn give_way(
    shared: &Shared,
    name: &DocumentName,
    kept_closed: &KeptClosed,
    first: &Bytes,
) -> Result<(), Problem> {
    let was_deleted = match shared.backend.load(name).await {
        Ok(_) => false,
        Err(BackendError::Deleted) => true,
        Err(error) => return Err(refused(error)),
    };
    let delete = || shared.backend.delete(name, KEPT_MEANWHILE);
    let mut deleted = delete().await.map_err(refused)?;
    shared.hub.let_go(name).await;
    kept_closed.close().await;
    if !deleted {
        // What was written a moment ago is saved only now.
        deleted = delete().await.map_err(refused)?;
    }
    let put = async {
        // Where there was nothing, or another node has put something meanwhile, this comes beside it.
        if !shared.backend.create(name, Some(first.clone())).await? {
            shared.backend.append(name, first.clone()).await?;
        }
        Ok(())
    };
    let put: Result<(), BackendError> = put.await;
    if put.is_err()
        && deleted
        && !was_deleted
        && let Err(error) = shared.backend.undelete(name).await
    {
        warn!(document = %name, %error, "not replaced, and deleted: POST .../restore takes it back");
    }
    put.map_err(refused)
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
