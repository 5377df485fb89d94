//! A version of a document in requests and answers: its id, what is told of it, and what went wrong with it.

use std::{collections::HashMap, fmt, str::FromStr};

use axum::{
    extract::{FromRequestParts, Path},
    http::{StatusCode, request::Parts},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Shared,
    asking::{exists, not_there},
    error::Problem,
};
use crate::{
    backend::{BackendError, Position},
    document::Document,
    history::{self, HistoryError},
    name::DocumentName,
};

/// A version's id: the place of its last edit in the document's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VersionId(pub(super) Position);

impl fmt::Display for VersionId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(to)
    }
}

impl FromStr for VersionId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let position = text.split_once('-').and_then(|(epoch, number)| {
            Some(Position { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
        });
        let wrong = || Problem::bad_request(format!("{text:?} is no version's id: those look like 0-17"));
        position.map(Self).ok_or_else(wrong)
    }
}

/// A version of a document.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    /// Its id.
    #[schema(example = "0-17")]
    pub(super) id: String,
    /// Its name, if somebody has given it one.
    name: Option<String>,
    /// Who has given it.
    named_by: Option<String>,
    /// When the first edit since the version before was made, in milliseconds since 1970.
    begin: u64,
    /// When its last edit was made, in milliseconds since 1970.
    time: u64,
    /// How many bytes the document had, as an update.
    bytes: u64,
    /// Whose edits there are since the version before, as far as tokens tell.
    users: Vec<String>,
}

impl From<history::Version> for Version {
    fn from(history::Version { id, about }: history::Version) -> Self {
        Self {
            id: VersionId(id).to_string(),
            name: about.name,
            named_by: about.named_by,
            begin: about.begin,
            time: about.end,
            bytes: about.document_bytes,
            users: about.users,
        }
    }
}

/// The document that a request is about, and the version of it.
pub(crate) struct Named {
    pub(super) document: DocumentName,
    pub(super) version: Option<VersionId>,
}

impl FromRequestParts<Shared> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let names = Path::<HashMap<String, String>>::from_request_parts(parts, shared).await;
        let Path(names) = names.map_err(|error| Problem::bad_request(error.body_text()))?;
        let name = names.get("name").map(String::as_str).unwrap_or_default();
        let document = DocumentName::new(name).map_err(Problem::bad_request)?;
        let version = names.get("version").map(|version| version.parse()).transpose()?;
        Ok(Self { document, version })
    }
}

impl Named {
    /// The version, where the path names one.
    pub(super) fn version(&self) -> Result<Position, Problem> {
        let version = self.version.ok_or_else(|| Problem::bad_request("no version is named"))?;
        Ok(version.0)
    }

    /// Refuses where there is no such document.
    pub(super) async fn require_document(&self, shared: &Shared) -> Result<(), Problem> {
        match exists(shared, &self.document).await? {
            true => Ok(()),
            false => Err(not_there(&self.document)),
        }
    }

    /// There is no such version.
    pub(super) fn no_version(&self) -> Problem {
        let id = self.version.map(|version| version.to_string()).unwrap_or_default();
        let document = self.document.as_str();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no version {id} of the document {document:?}"))
    }
}

/// What is stored, or the engine, failed.
pub(super) fn broken(error: impl ToString) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error)
}

/// The document as it was in a version.
pub(super) async fn content(shared: &Shared, named: &Named, version: Position) -> Result<Document, Problem> {
    let found = history::content(&*shared.backend, &named.document, version).await?;
    found.ok_or_else(|| named.no_version())
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Backend(BackendError::Away(_) | BackendError::Closed | BackendError::Recreated) => {
                Self::unavailable(error)
            }
            HistoryError::Backend(BackendError::Deleted) => Self::new(StatusCode::NOT_FOUND, error),
            error => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}
