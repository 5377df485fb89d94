//! The HTTP part of Y-Sweet: an application makes documents, gets tokens for its clients, and reads and writes documents.
//! Its server token is a token of this server with the level `admin`.
//!
//! Source: the npm package `@y-sweet/sdk`, 0.9 (`main.ts`, `connection.ts`, `http.ts`).

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Shared,
    asking::{Repeat, ask, exists, not_there, save, whole, within_time},
    authorize::Caller,
    body::Content,
    error::Problem,
};
use crate::{
    access::{Claims, Rule, own},
    actor::DocumentHandle,
    config::Limits,
    level::Level,
    name::DocumentName,
};

/// How long a client's token is good unless it is asked for otherwise.
const VALID_FOR: Duration = Duration::from_secs(3_600);
/// Letters of an id that the server makes, and of what they are. Each says six bits.
const ID_LETTERS: usize = 21;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
/// The most bytes of what is asked for in JSON.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

pub(super) fn routes(limits: &Limits) -> Router<Shared> {
    let written = || post(update).layer(DefaultBodyLimit::max(limits.update_bytes));
    Router::new()
        .route("/doc/new", post(make))
        .route("/doc/{id}/auth", post(authorize))
        .route("/doc/{id}/as-update", get(as_update))
        .route("/doc/{id}/update", written())
        .route("/d/{id}/as-update", get(as_update))
        .route("/d/{id}/update", written())
        .route("/check_store", get(check_store).post(check_store))
        .route("/ready", get(ready))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
}

/// The id in a request's path.
struct Id(DocumentName);

impl FromRequestParts<Shared> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, shared).await;
        let Path(id) = id.map_err(|error| Problem::bad_request(error.body_text()))?;
        checked(&id).map(Self)
    }
}

fn checked(id: &str) -> Result<DocumentName, Problem> {
    if !id.bytes().all(|byte| LETTERS.contains(&byte)) {
        return Err(Problem::bad_request(format!(
            "the document's id {id:?} may hold letters, digits, _ and -"
        )));
    }
    DocumentName::new(id).map_err(Problem::bad_request)
}

fn random_id() -> Result<String, Problem> {
    let mut bytes = [0; ID_LETTERS];
    getrandom::fill(&mut bytes).map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 64)])).collect())
}

/// What is asked for in JSON; nothing, where the body is empty.
fn read<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewDocument {
    doc_id: Option<String>,
}

/// `POST /doc/new`: makes a document, unless there is one of this id.
async fn make(
    State(shared): State<Shared>,
    Caller(access): Caller,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let NewDocument { doc_id } = read(&body)?;
    let name = match doc_id {
        Some(id) => checked(&id)?,
        None => checked(&random_id()?)?,
    };
    access.require(&name, Level::Admin)?;
    let make = ask(&shared, &name, |document: DocumentHandle| async move { document.make().await });
    within_time(Repeat::Harmless, make).await?;
    Ok(Json(json!({ "docId": name.as_str() })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessRequest {
    authorization: Authorization,
    user_id: Option<String>,
    valid_for_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Authorization {
    #[default]
    Full,
    ReadOnly,
}

/// `POST /doc/{id}/auth`: what a client needs to open the document; with a token where everybody needs one.
async fn authorize(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Id(name): Id,
    // Not there where an embedding program does not tell it.
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    access.require(&name, Level::Admin)?;
    let AccessRequest { authorization, user_id, valid_for_seconds } = read(&body)?;
    if !exists(&shared, &name).await? {
        return Err(not_there(&name));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.ok_or_else(|| Problem::bad_request("the request has no Host"))?;
    let peer = peer.map(|Extension(ConnectInfo(peer))| peer.ip());
    let end = if shared.admission.is_secure(peer, &headers) { "s" } else { "" };
    let (said, level) = match authorization {
        Authorization::Full => ("full", Level::Write),
        Authorization::ReadOnly => ("read-only", Level::Read),
    };
    let mut answer = json!({
        "url": format!("ws{end}://{host}/d/{name}/ws"),
        "baseUrl": format!("http{end}://{host}/d/{name}"),
        "docId": name.as_str(),
        "authorization": said,
    });
    if let Some(tokens) = &shared.tokens {
        let secret = tokens.secret().ok_or_else(|| {
            let reason = "this server has no secret of its own to sign with: give it one (--secret-file)";
            Problem::new(StatusCode::NOT_IMPLEMENTED, reason)
        })?;
        let user = user_id.map_or_else(nameless_user, Ok)?;
        let rule = Rule { name: name.as_str().to_owned(), level };
        let claims = Claims { sub: user, documents: vec![rule], ..Claims::default() };
        // Not longer than the token that asks for it.
        let left = access.expires().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        let valid_for = valid_for_seconds.map_or(VALID_FOR, Duration::from_secs);
        answer["token"] = own::sign(secret, claims, valid_for.min(left.unwrap_or(valid_for))).into();
    }
    Ok(Json(answer))
}

/// A user for a client whose application names none: one of its own, since the connections of a user are counted.
fn nameless_user() -> Result<String, Problem> {
    Ok(format!("anonymous/{}", random_id()?))
}

/// `GET /d/{id}/as-update`: the whole document.
async fn as_update(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Id(name): Id,
) -> Result<Response, Problem> {
    access.require(&name, Level::Read)?;
    let whole = whole(&shared, &name).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], whole).into_response())
}

/// `POST /d/{id}/update`: gives the document an update; answers when it is saved.
async fn update(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Id(name): Id,
    Content(update): Content,
) -> Result<(), Problem> {
    access.require(&name, Level::Write)?;
    let write = |document: DocumentHandle| {
        let (update, author) = (update.clone(), access.author());
        async move { document.write(update, author).await }
    };
    save(&shared, &name, Repeat::Harmless, write).await
}

/// `POST /check_store`: whether documents can be kept.
async fn check_store(State(shared): State<Shared>, _: Caller) -> Json<Value> {
    Json(match shared.backend.away() {
        None => json!({ "ok": true }),
        Some(reason) => json!({ "ok": false, "error": reason }),
    })
}

async fn ready() -> Json<Value> {
    Json(json!({ "ok": true }))
}
