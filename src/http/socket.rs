//! WebSockets: the upgrade, and the way to the document that the client asks for.

use axum::{
    extract::{
        Query, State, WebSocketUpgrade, rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::Uri,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tracing::{Instrument, info, info_span};

use super::{Shared, error::Problem};
use crate::{
    connection,
    end::End,
    hub::{Hub, Stopping},
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
    let Shared { hub, limits, metrics, connections, .. } = shared;
    let upgrade = upgrade
        .max_message_size(limits.frame_bytes)
        .max_frame_size(limits.frame_bytes)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    upgrade.on_upgrade(move |socket| {
        let span = info_span!("connection", document = %name, session = tracing::field::Empty);
        let serve = async move {
            let end = match join(&hub, &name, options.echo.is_some()).await {
                Ok(session) => {
                    tracing::Span::current().record("session", session.id().0);
                    info!("joined");
                    connection::serve(socket, session, &limits).await
                }
                Err(end) => connection::close(socket, end).await,
            };
            metrics.session_ended(&end);
            info!(code = end.code(), reason = end.reason(), "left");
        };
        connections.track_future(serve.instrument(span))
    })
}

/// Joins a document, which is opened where it is not open.
async fn join(hub: &Hub, name: &DocumentName, echo_saved: bool) -> Result<Session, End> {
    for _ in 0..JOIN_TRIES {
        let document = hub.open(name).map_err(|Stopping| End::Stopping)?;
        if let Ok(session) = Session::join(document, echo_saved).await {
            return Ok(session);
        }
    }
    Err(End::Reopening)
}
