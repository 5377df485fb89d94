//! The router: every route of the server on one screen.

#[cfg(feature = "demo")]
mod demo;
mod documents;
mod error;
mod health;
mod socket;

use axum::{Router, routing::get};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::compression::CompressionLayer;

use crate::hub::Hub;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The open documents.
    pub hub: Hub,
    /// The WebSockets, so that a stop can wait for their close frames.
    pub connections: TaskTracker,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
}

pub(crate) fn router(shared: Shared) -> Router {
    let pages = Router::new()
        .route("/api/documents/{name}", get(documents::export))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready));
    #[cfg(feature = "demo")]
    let pages = pages.route("/", get(demo::page)).route("/{*path}", get(demo::file));
    pages
        .fallback(error::not_found)
        .layer(CompressionLayer::new())
        .route("/ws/{*name}", get(socket::y_websocket))
        .with_state(shared)
}
