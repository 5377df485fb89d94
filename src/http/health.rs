//! Whether the process is alive, whether it can serve, and what it counts.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::Shared;
use crate::metrics::Seen;

/// Whether the process is alive, and whether it can serve.
pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

/// What it counts.
pub(super) fn metrics_routes() -> Router<Shared> {
    Router::new().route("/metrics", get(metrics))
}

async fn alive() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Whether the node takes sessions: not while it stops, and not where it is full.
async fn ready(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let draining = shared.drain.has_begun();
    let over = shared.over();
    let ready = !draining && over.is_empty();
    let (code, status) = match (draining, ready) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    // Where the store is away, all nodes would fail together: open documents are still worth being served.
    let away = shared.backend.away();
    let body = json!({
        "ready": ready,
        "status": status,
        "draining": draining,
        "over": over,
        "documents": shared.hub.open_documents(),
        "backend": if away.is_some() { "away" } else { "reachable" },
        "reason": away,
    });
    (code, Json(body))
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let seen = Seen {
        documents: shared.hub.open_documents(),
        document_bytes: shared.hub.document_bytes(),
        tasks: Handle::current().metrics().num_alive_tasks(),
        backend_up: shared.backend.away().is_none(),
        relay_gaps: shared.backend.gaps(),
    };
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text(seen))
}
