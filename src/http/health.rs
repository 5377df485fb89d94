//! Whether the process is alive, whether it can serve, and what it counts.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::Shared;
use crate::metrics::Seen;

pub(crate) async fn alive() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

pub(crate) async fn ready(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let (code, status) = match shared.stopping.is_cancelled() {
        false => (StatusCode::OK, "ready"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    // Where the store is away, all nodes would fail together: open documents are still worth being served.
    let away = shared.backend.away();
    let backend = if away.is_some() { "away" } else { "reachable" };
    let mut body = json!({ "status": status, "documents": shared.hub.open_documents(), "backend": backend });
    if let Some(reason) = away {
        body["reason"] = reason.into();
    }
    (code, Json(body))
}

pub(crate) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let seen = Seen {
        documents: shared.hub.open_documents(),
        document_bytes: shared.hub.document_bytes(),
        backend_up: shared.backend.away().is_none(),
        relay_gaps: shared.backend.gaps(),
    };
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text(seen))
}
