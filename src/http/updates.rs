//! `/api/documents/{name}/updates`: updates from applications that have a Yjs library.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};

use super::{
    Shared,
    asking::{Named, Repeat, save},
    authorize::Caller,
    body::{Content, require_type},
    documents::update_etag,
    error::{Problem, Refusals},
};
use crate::{
    actor::{DocumentHandle, Edit, WriteError},
    document::{Document, UpdateError},
    level::Level,
};

/// Gives a document a Yjs update
///
/// The update is of version 1, as `Y.encodeStateAsUpdate` makes it. It is taken in as a whole or not at all, and
/// answered when it is saved; everybody in the document sees it. A document that is not there is made. What is known
/// already changes nothing, so sending an update again does no harm.
#[utoipa::path(
    post, path = "/api/documents/{name}/updates", tag = "documents",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("If-Match" = Option<String>, Header, description = "The ETag that `?format=update` had: then the update is \
            taken only if the document did not change since. `*`: only if there is something in it."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 204, description = "It is saved."),
        (status = 409, description = "It builds on edits that the document does not have.",
            body = super::error::Body, content_type = "application/problem+json"),
        (status = 412, description = "The document has changed since.",
            body = super::error::Body, content_type = "application/problem+json"),
        (status = 413, description = "It is too large, or the document is full.",
            body = super::error::Body, content_type = "application/problem+json"),
        (status = 415, description = "It is something else, or an update of version 2.",
            body = super::error::Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn send(
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
    let expected = expected(&headers)?;
    let send = |document: DocumentHandle| {
        let (update, expected, author) = (update.clone(), expected.clone(), access.author());
        async move {
            if expected.is_none() {
                return document.write(update, author).await;
            }
            let bytes = update.len();
            document.edit(bytes, author, unless_changed(expected, |_| Ok(Ok(Some(update))))).await
        }
    };
    match save(&shared, &name, Repeat::Harmless, send).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        // An update of version 1 that begins so has deletions only, and hardly anything can be wrong with them.
        Err(problem) if problem.status() == StatusCode::BAD_REQUEST && update.first() == Some(&0) => {
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this seems to be an update of version 2: send one of version 1, from Y.encodeStateAsUpdate or \
                 Y.convertUpdateFormatV2ToV1",
            ))
        }
        Err(problem) => Err(problem),
    }
}

/// What `If-Match` says.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let read = |value: &HeaderValue| value.to_str().map(str::to_owned);
    let expected = headers.get(header::IF_MATCH).map(read).transpose();
    expected.map_err(|_| Problem::bad_request("If-Match is no text"))
}

/// An edit that is done only if the document is as it is expected to be.
pub(super) fn unless_changed(
    expected: Option<String>,
    edit: impl FnOnce(&Document) -> Result<Result<Option<Bytes>, WriteError>, UpdateError> + Send + 'static,
) -> Edit {
    Box::new(move |document| match expected {
        Some(expected) if !matches(&expected, document)? => Ok(Err(WriteError::Changed)),
        _ => edit(document),
    })
}

/// Whether one of these tags is the document's (RFC 9110, section 13.1.1).
fn matches(expected: &str, document: &Document) -> Result<bool, UpdateError> {
    if expected.trim() == "*" {
        return Ok(!document.is_empty());
    }
    let etag = update_etag(document)?;
    Ok(expected.split(',').any(|expected| expected.trim() == etag))
}
