//! The document that a request is about: its name in the path, and what it answers.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequestParts, Path},
    http::{StatusCode, request::Parts},
};
use tokio::time::{sleep, timeout};

use super::{Shared, error::Problem};
use crate::{
    actor::{DocumentHandle, ReadError, WriteError},
    document::Document,
    end::End,
    hub::Unopened,
    name::DocumentName,
};

/// How often a document is asked that is being closed at that moment, and how long that may take at first.
const TRIES: u32 = 8;
const CLOSING: Duration = Duration::from_millis(5);

/// How long a change may take to be saved.
const SAVED_WITHIN: Duration = Duration::from_secs(10);

/// The name in a request's path, one segment of it.
pub(crate) struct Named(pub DocumentName);

impl FromRequestParts<Shared> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, shared).await;
        let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
        DocumentName::new(&name).map(Self).map_err(Problem::bad_request)
    }
}

/// Asks a document, which is opened where it is not open, without keeping it open.
pub(crate) async fn ask<T, Asked>(
    shared: &Shared,
    name: &DocumentName,
    ask: impl Fn(DocumentHandle) -> Asked,
) -> Result<T, Problem>
where
    Asked: Future<Output = Result<T, ReadError>>,
{
    ask_unless_deleted(shared, name, ask).await?.ok_or_else(|| not_there(name))
}

/// The same; nothing, where the document is deleted.
pub(crate) async fn ask_unless_deleted<T, Asked>(
    shared: &Shared,
    name: &DocumentName,
    ask: impl Fn(DocumentHandle) -> Asked,
) -> Result<Option<T>, Problem>
where
    Asked: Future<Output = Result<T, ReadError>>,
{
    for tried in 0..TRIES {
        let document = shared.hub.open(name).map_err(|unopened| {
            if let Unopened::Full(full) = &unopened {
                shared.metrics.refused(full.limit());
            }
            Problem::unavailable(unopened)
        })?;
        match ask(document).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(ReadError::Gone(_) | ReadError::Refused(End::Recreated)) => {
                sleep(CLOSING * 2_u32.pow(tried)).await
            }
            Err(ReadError::Refused(End::Deleted)) => return Ok(None),
            Err(error @ ReadError::Refused(End::Away)) => return Err(Problem::unavailable(error)),
            Err(error @ ReadError::Refused(_)) => {
                return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error));
            }
        }
    }
    Err(Problem::unavailable("the document is being opened anew; try again"))
}

/// Whether there is such a document.
pub(crate) async fn exists(shared: &Shared, name: &DocumentName) -> Result<bool, Problem> {
    ask(shared, name, |document| async move { document.exists().await }).await
}

/// All that is in a document, as an update; refused where there is none.
pub(crate) async fn whole(shared: &Shared, name: &DocumentName) -> Result<Bytes, Problem> {
    let look = |document: DocumentHandle| async move {
        let exists = document.exists().await?;
        let whole = document.read(|document: &Document| document.diff(&Default::default())).await?;
        Ok(exists.then_some(whole))
    };
    let whole = ask(shared, name, look).await?.ok_or_else(|| not_there(name))?;
    whole.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error))
}

/// What sending a request again does, where it is not known whether it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The same as sending it once.
    Harmless,
    /// It is done again.
    Again,
}

/// Changes a document, and answers when that is saved: within the time that somebody waits for an answer.
pub(crate) async fn save<Asked>(
    shared: &Shared,
    name: &DocumentName,
    repeat: Repeat,
    change: impl Fn(DocumentHandle) -> Asked,
) -> Result<(), Problem>
where
    Asked: Future<Output = Result<Result<(), WriteError>, ReadError>>,
{
    Ok(within_time(repeat, ask(shared, name, change)).await??)
}

/// What a change answers when it is saved, or that it was not saved in time.
pub(crate) async fn within_time<T>(
    repeat: Repeat,
    change: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let next = match repeat {
        Repeat::Harmless => "sending it again does no harm",
        Repeat::Again => "it may be saved yet: look at the document before you send it again",
    };
    timeout(SAVED_WITHIN, change).await.unwrap_or_else(|_| {
        let seconds = SAVED_WITHIN.as_secs();
        Err(Problem::unavailable(format!("the change was not saved within {seconds} seconds; {next}")))
    })
}

/// There is no such document.
pub(crate) fn not_there(name: &DocumentName) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no document {:?}", name.as_str()))
}
