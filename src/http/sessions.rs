//! `/api/documents/{name}/sessions`: who is in a document, and how that ends.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    asking::{Named, ask, not_there},
    authorize::Caller,
    body::{Content, require_type},
    error::{Problem, Refusals},
};
use crate::{actor::DocumentHandle, level::Level, protocol::MAX_STATELESS_BYTES};

/// Who is in a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Here {
    /// The sessions on the node that answers.
    sessions: Vec<Session>,
    /// Everybody's presence, on all nodes: what clients say of themselves.
    presence: Vec<Client>,
}

/// Somebody's connection with a document.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    /// The user that the token names; none where nobody is asked for a token.
    user: Option<String>,
    /// Whether the token allows to read only.
    read_only: bool,
}

/// What a client says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Client {
    /// Its id.
    client: u64,
    /// Its state, as the application made it.
    state: serde_json::Value,
}

/// Who is here
#[utoipa::path(
    get, path = "/api/documents/{name}/sessions", operation_id = "sessions", tag = "sessions",
    params(("name" = String, Path, description = "The document's name.")),
    responses((status = 200, description = "Who is in the document.", body = Here), Refusals),
)]
pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
) -> Result<Json<Here>, Problem> {
    access.require(&name, Level::Read)?;
    let look = |document: DocumentHandle| async move { document.describe().await };
    let described = ask(&shared, &name, look).await?;
    if !described.exists {
        return Err(not_there(&name));
    }
    let sessions = described
        .sessions
        .into_iter()
        .map(|terms| Session { user: terms.user.as_deref().map(str::to_owned), read_only: terms.read_only });
    let presence = described.presence.into_iter().filter_map(|state| {
        let json = state.json?;
        Some(Client { client: state.client, state: serde_json::from_slice(&json).unwrap_or_default() })
    });
    Ok(Json(Here { sessions: sessions.collect(), presence: presence.collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whose {
    /// The user whose sessions end; everybody's, where it is not given.
    user: Option<String>,
    #[serde(rename = "token")]
    #[param(ignore)]
    _token: Option<String>,
}

/// How many sessions were ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ended {
    /// How many they were on the node that answers.
    ended: usize,
}

/// Ends sessions
///
/// On every node, with the close code 4403. It does not keep out whoever still has a good token.
#[utoipa::path(
    delete, path = "/api/documents/{name}/sessions", operation_id = "end_sessions", tag = "sessions",
    params(("name" = String, Path, description = "The document's name."), Whose),
    responses((status = 200, description = "They were told to end.", body = Ended), Refusals),
)]
pub(crate) async fn end(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Ended>, Problem> {
    let Query(Whose { user, .. }) = whose.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&name, Level::Admin)?;
    let end = |document: DocumentHandle| {
        let user = user.clone();
        async move {
            // A deleted document says so, where the next question would only find it gone.
            document.exists().await?;
            Ok(document.end_sessions(user).await?)
        }
    };
    let ended = ask(&shared, &name, end).await?;
    info!(document = %name, user, ended, by = access.user(), "sessions were ended");
    Ok(Json(Ended { ended }))
}

/// Tells everybody something
///
/// Everybody in the document, on all nodes, hears the text: as a stateless message in Hocuspocus' protocol, the only one
/// that has words for it. It is kept nowhere.
#[utoipa::path(
    post, path = "/api/documents/{name}/messages", operation_id = "message", tag = "sessions",
    params(("name" = String, Path, description = "The document's name.")),
    request_body(content = String, content_type = "text/plain"),
    responses(
        (status = 204, description = "Everybody is told."),
        (status = 413, description = "The text is larger than a stateless message may be.",
            body = super::error::Body, content_type = "application/problem+json"),
        (status = 415, description = "It is no plain text.",
            body = super::error::Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn tell(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    headers: HeaderMap,
    Content(text): Content,
) -> Result<StatusCode, Problem> {
    access.require(&name, Level::Write)?;
    require_type(&headers, "text/plain")?;
    if text.len() > MAX_STATELESS_BYTES {
        let detail = format!("the text has {} bytes; the limit is {MAX_STATELESS_BYTES}", text.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    if std::str::from_utf8(&text).is_err() {
        return Err(Problem::bad_request("the body is no UTF-8"));
    }
    let tell = |document: DocumentHandle| {
        let text = text.clone();
        async move {
            let exists = document.exists().await?;
            if exists {
                document.tell(text).await?;
            }
            Ok(exists)
        }
    };
    match ask(&shared, &name, tell).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_there(&name)),
    }
}
