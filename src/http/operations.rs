//! Edits of a document in JSON, for applications that have no Yjs library.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Shared,
    asking::{Named, Repeat, save},
    authorize::Caller,
    body::{Content, read_json, require_type},
    error::{Body, Problem, Refusals},
    updates::{expected, unless_changed},
};
use crate::{
    actor::{DocumentHandle, WriteError},
    document::edit::operations::{Operation, operated},
    level::Level,
};

/// How much operations hold while they wait, for each byte of their JSON, about.
const BYTES: usize = 4;

/// What is done to a document.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operations {
    /// One after the other.
    #[schema(max_items = 256, example = json!([
        { "op": "insert", "root": "content", "at": 0, "text": "Hello " },
        { "op": "replace", "root": "content", "find": "wrold", "text": "world" },
    ]))]
    operations: Vec<Operation>,
}

/// Edits a document
///
/// With operations in JSON, which are done in their order, all of them or none. Text is meant by its position, or by what
/// is written there. Maps and arrays take plain values. A document that is not there is made. With `If-Match` it is safe to
/// send it again; without, it may be done twice.
#[utoipa::path(
    patch, path = "/api/documents/{name}", operation_id = "edit", tag = "documents",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("If-Match" = Option<String>, Header, description = "The ETag that `?format=update` had: then it is done only \
            if the document did not change since. `*`: only if there is something in it."),
    ),
    request_body = Operations,
    responses(
        (status = 204, description = "It is done and saved."),
        (status = 412, description = "The document has changed since.", body = Body,
            content_type = "application/problem+json"),
        (status = 413, description = "It is too large, or the document is full.", body = Body,
            content_type = "application/problem+json"),
        (status = 415, description = "The body is no JSON.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "An operation is wrong, or does not fit the document; nothing is done.", body = Body,
            content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn edit(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    headers: HeaderMap,
    Content(body): Content,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Write)?;
    require_type(&headers, "application/json")?;
    let Operations { operations } = read_json(&body)?;
    let expected = expected(&headers)?;
    let repeat = if expected.is_some() { Repeat::Harmless } else { Repeat::Again };
    let operations: Arc<[Operation]> = operations.into();
    let (bytes, max_bytes) = (body.len() * BYTES, shared.limits.update_bytes);
    let edit = |document: DocumentHandle| {
        let (operations, expected, author) = (operations.clone(), expected.clone(), access.author());
        let edit = unless_changed(expected, move |document| {
            Ok(operated(document, &operations, max_bytes)?.map_err(WriteError::from))
        });
        async move { document.edit(bytes, author, edit).await }
    };
    save(&shared, &name, repeat, edit).await?;
    Ok(StatusCode::NO_CONTENT)
}
