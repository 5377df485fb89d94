//! `/api/documents/{name}/copy`: a document under another name.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Shared,
    asking::{Named, Repeat, whole, within_time},
    authorize::Caller,
    body::InJson,
    error::{Body, Problem, Refusals},
    lifecycle::make_or_begin_anew,
};
use crate::{actor::DocumentHandle, level::Level, name::DocumentName};

/// Where a copy goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Copy {
    /// The copy's name.
    #[schema(example = "letters/copy")]
    to: String,
}

/// Copies a document
///
/// The copy has the same content, and the same Yjs edits: what was written offline to one fits into the other. It has no
/// history yet.
#[utoipa::path(
    post, path = "/api/documents/{name}/copy", operation_id = "copy", tag = "documents",
    params(("name" = String, Path, description = "The document's name.")),
    request_body = Copy,
    responses(
        (status = 201, description = "The copy is saved."),
        (status = 409, description = "There is a document of this name.", body = Body,
            content_type = "application/problem+json"),
        (status = 413, description = "It is larger than an update may be (--max-update).", body = Body,
            content_type = "application/problem+json"),
        (status = 415, description = "The body is no JSON.", body = Body, content_type = "application/problem+json"),
        (status = 422, description = "The body is something else than it should be.", body = Body,
            content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn copy(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    InJson(Copy { to }): InJson<Copy>,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Read)?;
    let to = DocumentName::new(&to).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    access.require(&to, Level::Write)?;
    let whole = whole(&shared, &name).await?;
    let make = |document: DocumentHandle| {
        let (whole, author) = (whole.clone(), access.author());
        async move { document.make_with(whole, author).await }
    };
    within_time(Repeat::Harmless, make_or_begin_anew(&shared, &access, &to, make, || Ok(()))).await??;
    Ok(StatusCode::CREATED)
}
