//! The body of a request: bytes, or a value in JSON. What is wrong with it is said as a problem.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
};
use serde::de::DeserializeOwned;

use super::{Shared, error::Problem};

/// The bytes of a body, as many as an update may have.
pub(crate) struct Content(pub Bytes);

/// A value that a body has in JSON.
pub(crate) struct InJson<T>(pub T);

impl FromRequest<Shared> for Content {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        let limit = shared.limits.update_bytes;
        Bytes::from_request(request, shared)
            .await
            .map(Self)
            .map_err(|error| too_large_or_broken(&error, limit))
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for InJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Problem> {
        require_type(request.headers(), "application/json")?;
        let Content(bytes) = Content::from_request(request, shared).await?;
        read_json(&bytes).map(Self)
    }
}

/// The value that JSON says.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Problem::new(status, format!("the body: {error}"))
    })
}

/// Refuses a body that says to be something else.
pub(crate) fn require_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let said = headers.get(header::CONTENT_TYPE).map(|said| said.to_str().unwrap_or("unreadable"));
    let media_type = said.and_then(|said| said.split(';').next()).map(str::trim);
    match media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case(wanted)) {
        true => Ok(()),
        false => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the Content-Type is {:?}, and must be {wanted}", said.unwrap_or_default()),
        )),
    }
}

fn too_large_or_broken(error: &BytesRejection, limit: usize) -> Problem {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(error.status(), format!("the body is larger than {limit} bytes (--max-update)"))
        }
        status => Problem::new(status, error.body_text()),
    }
}
