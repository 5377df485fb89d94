//! WebSockets: the upgrade, and the way to the document that the client asks for.

use std::{net::SocketAddr, time::SystemTime};

use axum::{
    Extension,
    extract::{
        ConnectInfo, Query, State, WebSocketUpgrade, rejection::QueryRejection,
        ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::{
    Shared,
    authorize::{SUBPROTOCOL, access, refuse_origin},
    error::Problem,
};
use crate::{
    access::{Access, AccessError},
    actor::Terms,
    backend::{Backend, Counted},
    config::Limits,
    connection,
    end::End,
    hub::{Hub, Stopping},
    level::Level,
    name::DocumentName,
    session::Session,
};

/// What is read from a socket at once. The library's default, 128 KiB, is kept for every connection.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// From this size on, what waits for a socket is written.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// How often a session tries to join a document that is being closed at that moment.
const JOIN_TRIES: usize = 5;

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    echo: Option<Echo>,
}

/// Which of its own updates a client wants to hear again.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Echo {
    /// Those that are saved, when they are.
    Saved,
}

/// `/ws/{name}`: y-websocket's protocol; the document's name is everything after `/ws/`.
pub(crate) async fn y_websocket(
    State(shared): State<Shared>,
    options: Result<Query<Options>, QueryRejection>,
    uri: Uri,
    // Not there where an embedding program does not tell it.
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Query(options) = match options {
        Ok(options) => options,
        Err(error) => return Problem::bad_request(error.body_text()).into_response(),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(error) => return Problem::new(error.status(), error.body_text()).into_response(),
    };
    let path = uri.path();
    let name = match DocumentName::from_path(path.strip_prefix("/ws/").unwrap_or(path)) {
        Ok(name) => name,
        Err(error) => return Problem::bad_request(error).into_response(),
    };
    if shared.stopping.is_cancelled() {
        return Problem::unavailable(Stopping).into_response();
    }
    let peer = peer.map(|Extension(ConnectInfo(peer))| peer.ip());
    let place = match shared.admission.admit_websocket(peer, &headers) {
        Ok(place) => place,
        Err(refusal) => return refusal.into_response(),
    };
    let terms = match refuse_origin(&shared.origins, &headers) {
        Some(reason) => Err(End::Forbidden(reason)),
        None => allowed(access(&shared, &headers, &uri).await, &name, options.echo.is_some()),
    };
    let Shared { hub, backend, limits, metrics, connections, .. } = shared;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(limits.frame_bytes)
        .max_frame_size(limits.frame_bytes)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    upgrade.on_upgrade(move |socket| {
        let user = terms.as_ref().ok().and_then(|(terms, _)| terms.user.clone());
        let span = info_span!("connection", document = %name, user = user.as_deref(), session = tracing::field::Empty);
        let serve = async move {
            let joined = async {
                let (terms, until) = terms?;
                let counted = count(&*backend, terms.user.as_deref(), &limits).await?;
                Ok((join(&hub, &name, terms, until).await?, counted))
            };
            let end = match joined.await {
                // The connection counts until it has ended.
                Ok((session, _counted)) => {
                    tracing::Span::current().record("session", session.id().0);
                    info!("joined");
                    connection::serve(socket, session, &limits).await
                }
                // Clients come back for ever where the upgrade itself is refused.
                Err(end) => connection::close(socket, end).await,
            };
            metrics.session_ended(&end);
            info!(code = end.code(), reason = end.reason(), "left");
            drop(place);
        };
        connections.track_future(serve.instrument(span))
    })
}

/// What a session may do, and until when.
fn allowed(
    access: Result<Access, AccessError>,
    name: &DocumentName,
    echo_saved: bool,
) -> Result<(Terms, Option<Instant>), End> {
    let allowed = access.and_then(|access| Ok((access.require(name, Level::Read)?, access)));
    let (level, access) = allowed.map_err(|error| match error {
        AccessError::Missing | AccessError::Token(_) => End::Unauthorized(error.to_string()),
        AccessError::Level { .. } => End::Forbidden(error.to_string()),
    })?;
    let left = access.expires().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    let terms = Terms { echo_saved, read_only: level < Level::Write, user: access.user().map(Into::into) };
    Ok((terms, left.map(|left| Instant::now() + left)))
}

/// Counts a user's connection, unless the user has too many.
async fn count(backend: &dyn Backend, user: Option<&str>, limits: &Limits) -> Result<Option<Counted>, End> {
    let (Some(user), limit) = (user, limits.connections_per_user) else { return Ok(None) };
    match backend.admit(user, limit).await {
        Ok(Some(counted)) => Ok(Some(counted)),
        Ok(None) => Err(End::Full(format!(
            "{user:?} has {limit} connections already, and no more are allowed (--max-connections-per-user)"
        ))),
        Err(error) => Err(End::Full(error.to_string())),
    }
}

/// Joins a document, which is opened where it is not open.
async fn join(hub: &Hub, name: &DocumentName, terms: Terms, until: Option<Instant>) -> Result<Session, End> {
    for _ in 0..JOIN_TRIES {
        let document = hub.open(name).map_err(|unopened| unopened.end())?;
        if let Ok(session) = Session::join(document, terms.clone(), until).await {
            return Ok(session);
        }
    }
    Err(End::Reopening)
}
