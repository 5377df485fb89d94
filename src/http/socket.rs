//! WebSockets: the upgrade, and the dialect that each route speaks.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::{
    Shared, admission,
    asking::{exists, not_there},
    authorize::{SUBPROTOCOL, access, refuse_origin},
    entrance::Entrance,
    error::Problem,
};
use crate::{
    actor::TellSaved,
    connection::{self, Admitted, Entrance as _},
    end::End,
    hub::Stopping,
    name::DocumentName,
    protocol::{dialect::Dialect, hocuspocus::Hocuspocus, y_sweet::YSweet, y_websocket::YWebsocket},
    websocket::{self, handshake::Handshake},
};

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

/// A request that may become a WebSocket: there is a place for it.
pub(crate) struct Upgrade {
    handshake: Handshake,
    place: admission::Place,
    /// Why the page that asks may not connect, if so.
    refused: Option<String>,
}

impl FromRequestParts<Shared> for Upgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let handshake = Handshake::begin(parts, SUBPROTOCOL)
            .map_err(|(status, text)| Problem::new(status, text).into_response())?;
        if shared.drain.has_begun() {
            return Err(Problem::unavailable(Stopping).into_response());
        }
        // Not there where an embedding program does not tell it.
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let admitted = shared.admission.admit_websocket(peer, &parts.headers);
        let place = admitted.map_err(IntoResponse::into_response)?;
        Ok(Self { handshake, place, refused: refuse_origin(&shared.origins, &parts.headers) })
    }
}

impl Upgrade {
    /// Serves the connection in this dialect; `admitted` is for its only document, where clients do not name
    /// documents by themselves.
    fn serve(
        self,
        shared: Shared,
        entrance: Entrance,
        dialect: impl Dialect + 'static,
        admitted: Option<Result<Admitted, (DocumentName, End)>>,
    ) -> Response {
        let Self { handshake, place, .. } = self;
        let (response, connection) = handshake.finish();
        // On the heap, what is needed at the beginning only: the task is as large as everything that it was given.
        let dialect = Box::new(dialect);
        let admitted = admitted.transpose().map(|admitted| admitted.map(Box::new)).map_err(Box::new);
        let Shared { limits, metrics, drain, connections, .. } = shared;
        connections.spawn(async move {
            let Ok(connection) = connection.await else { return };
            let socket = websocket::halves(TokioIo::new(connection), limits.frame_bytes);
            match admitted {
                Ok(admitted) => {
                    let node = connection::Node { limits: &limits, metrics: &metrics, drain: &drain };
                    connection::serve(socket, dialect, &entrance, admitted, node).await;
                }
                // Clients come back for ever where the upgrade itself is refused.
                Err(refused) => {
                    let (document, end) = *refused;
                    entrance.refused(document.as_str(), &end);
                    Box::pin(connection::close(socket, &end)).await;
                }
            }
            drop(place);
        });
        response
    }
}

/// `/ws/{name}`: y-websocket's protocol; the document's name is everything after `/ws/`.
pub(crate) async fn y_websocket(
    State(shared): State<Shared>,
    options: Result<Query<Options>, QueryRejection>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let Query(options) = options.map_err(|error| Problem::bad_request(error.body_text()))?;
    let path = uri.path();
    let name = DocumentName::from_path(path.strip_prefix("/ws/").unwrap_or(path));
    let name = name.map_err(Problem::bad_request)?;
    let tell_saved = match options.echo {
        Some(Echo::Saved) => TellSaved::Echo,
        None => TellSaved::No,
    };
    let access = access(&shared, &headers, &uri).await;
    let entrance = Entrance::new(shared.clone(), "y-websocket", upgrade.refused.clone(), tell_saved);
    let admitted = entrance.allow(access, name.clone()).map_err(|end| (name.clone(), end));
    let dialect = YWebsocket(name.as_str().into());
    Ok(upgrade.serve(shared, entrance, dialect, Some(admitted)))
}

/// `/hocuspocus`, and whatever is below it for balancers: Hocuspocus' protocol; clients name documents by themselves.
pub(crate) async fn hocuspocus(State(shared): State<Shared>, upgrade: Upgrade) -> Response {
    let entrance = Entrance::new(shared.clone(), "hocuspocus", upgrade.refused.clone(), TellSaved::Count);
    upgrade.serve(shared, entrance, Hocuspocus::default(), None)
}

/// `/d/{name}/ws/{name}`: Y-Sweet's protocol. Its clients expect a refused upgrade where they are not let in.
pub(crate) async fn y_sweet(
    State(shared): State<Shared>,
    Path((name, again)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    if name != again {
        return Err(Problem::bad_request(format!("the address names two documents, {name:?} and {again:?}")));
    }
    let name = DocumentName::new(&name).map_err(Problem::bad_request)?;
    let access = access(&shared, &headers, &uri).await;
    let entrance = Entrance::new(shared.clone(), "y-sweet", upgrade.refused.clone(), TellSaved::Count);
    let admitted = entrance.allow(access, name.clone()).map_err(|end| {
        let status = match end {
            End::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        entrance.refused(name.as_str(), &end);
        Problem::new(status, end.reason())
    })?;
    // Who may not write cannot make it.
    if admitted.terms.read_only && !exists(&shared, &name).await? {
        return Err(not_there(&name));
    }
    let dialect = YSweet::new(name.as_str().into());
    Ok(upgrade.serve(shared, entrance, dialect, Some(Ok(admitted))))
}
