//! Errors as problem documents (RFC 9457): what went wrong, and what to do next.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{self, RefOr},
};

use crate::{access::AccessError, actor::WriteError};

/// An answer that says what went wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
}

/// What went wrong, and what to do next (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body {
    /// The status in words.
    title: String,
    /// The status.
    #[schema(example = 404)]
    status: u16,
    /// What exactly it is about.
    #[schema(example = "there is no document \"notes\"")]
    detail: String,
}

/// What any question about a document may be answered with, in the API's description.
pub(crate) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let answers = [
            (400, "The request breaks a rule."),
            (401, "A token is needed, or the one that was sent is not accepted."),
            (403, "The token does not allow it, or the page that asks may not connect."),
            (404, "There is no such document."),
            (500, "The document cannot be read; its stored bytes stay as they are."),
            (503, "The store cannot be reached, or the node is full or stopping: try again in a moment."),
        ];
        answers.map(|(status, description)| (status.to_string(), refusal(description).into())).into()
    }
}

/// An answer with a problem, in the API's description.
fn refusal(description: &str) -> openapi::Response {
    let problem = openapi::Ref::from_schema_name("Problem");
    let content = openapi::ContentBuilder::new().schema(Some(problem)).build();
    openapi::ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build()
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl ToString) -> Self {
        Self { status, detail: detail.to_string() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn bad_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn unavailable(detail: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Missing | AccessError::Token(_) => Self::new(StatusCode::UNAUTHORIZED, error),
            AccessError::Level { .. } => Self::new(StatusCode::FORBIDDEN, error),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let status = match error {
            WriteError::Refused(_) => StatusCode::BAD_REQUEST,
            WriteError::TooLarge { .. } | WriteError::Full(_) => StatusCode::PAYLOAD_TOO_LARGE,
            WriteError::Lacks | WriteError::Exists => StatusCode::CONFLICT,
            WriteError::Changed => StatusCode::PRECONDITION_FAILED,
            WriteError::Unfit(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = Body { title: title.to_owned(), status: self.status.as_u16(), detail: self.detail };
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        // Asked for with every 401 (RFC 9110, section 11.6.1).
        let challenge =
            (self.status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        (self.status, kind, challenge, Json(body)).into_response()
    }
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not know the method {method}", uri.path()))
}

pub(crate) async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}
