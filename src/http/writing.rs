//! Updates that come over HTTP: their bytes, and why they are not taken.

use axum::{body::Bytes, extract::rejection::BytesRejection, http::StatusCode};

use super::error::Problem;
use crate::{actor::WriteError, config::Limits};

/// The update in a request's body.
pub(super) fn taken(body: Result<Bytes, BytesRejection>, limits: &Limits) -> Result<Bytes, Problem> {
    let limit = limits.update_bytes;
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(error.status(), format!("the update is larger than {limit} bytes (--max-update)"))
        }
        status => Problem::new(status, error.body_text()),
    })
}

/// The document does not take an update.
pub(super) fn refused(error: WriteError) -> Problem {
    let status = match error {
        WriteError::Refused(_) => StatusCode::BAD_REQUEST,
        WriteError::TooLarge { .. } | WriteError::Full(_) => StatusCode::PAYLOAD_TOO_LARGE,
        WriteError::Lacks | WriteError::Exists => StatusCode::CONFLICT,
    };
    Problem::new(status, error)
}
