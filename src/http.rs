//! The router: every route of the server on one screen.

mod address;
mod admin;
pub(crate) mod admission;
mod api;
mod asking;
mod authorize;
mod body;
mod bundles;
mod changes;
mod contents;
mod copies;
#[cfg(feature = "demo")]
mod demo;
mod documents;
mod entrance;
mod error;
mod health;
pub(crate) mod heavy_work;
mod history;
mod lifecycle;
pub(crate) mod listener;
mod listing;
mod operations;
mod overview;
mod raw;
mod sessions;
mod socket;
mod stats;
mod updates;
mod version;
mod y_sweet;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware, routing::get};
use tokio_util::task::TaskTracker;
use tower_http::timeout::RequestBodyTimeoutLayer;

use self::{admission::Admission, heavy_work::HeavyWork};
use crate::{
    access::{origins::Origins, tokens::Tokens},
    backend::Backend,
    config::Limits,
    drain::Drain,
    hub::Hub,
    metrics::Metrics,
    webhooks::Teller,
};

/// How long a part of a request's body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The open documents.
    pub hub: Hub,
    /// Where they are kept, to ask whether that can be reached.
    pub backend: Arc<dyn Backend>,
    /// How much is taken from clients.
    pub limits: Arc<Limits>,
    /// Whose tokens are believed; none where everybody may do everything.
    pub tokens: Option<Arc<Tokens>>,
    /// How long a deleted document can be taken back.
    pub keep_deleted: Duration,
    /// Whether there are new versions of documents.
    pub keeps_history: bool,
    /// From which pages browsers may connect.
    pub origins: Arc<Origins>,
    /// Who is let in.
    pub admission: Arc<Admission>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where applications are told of what happens.
    pub webhooks: Teller,
    /// Where histories are looked into.
    pub heavy_work: Arc<HeavyWork>,
    /// The WebSockets, so that a stop can wait for their close frames.
    pub connections: TaskTracker,
    /// Whether the node empties, because it will stop.
    pub drain: Arc<Drain>,
}

impl Shared {
    /// The limits that keep the node from taking more, named as their flags are.
    fn over(&self) -> Vec<&'static str> {
        let documents = self.hub.is_full().map(|full| full.limit());
        [self.admission.is_full(), documents].into_iter().flatten().collect()
    }
}

/// What everybody reaches; `/metrics` too, unless it has a port of its own.
pub(crate) fn router(shared: Shared, with_metrics: bool) -> Router {
    let sockets = Router::new()
        .route("/ws/{*name}", get(socket::y_websocket))
        .route("/hocuspocus", get(socket::hocuspocus))
        .route("/hocuspocus/{*hint}", get(socket::hocuspocus))
        .route("/d/{name}/ws/{again}", get(socket::y_sweet))
        .merge(y_sweet::routes(&shared.limits))
        .layer(authorize::cors(&shared.origins));
    let routes = sockets.merge(for_applications(&shared));
    let routes = if with_metrics { routes.merge(health::metrics_routes()) } else { routes };
    #[cfg(feature = "demo")]
    let routes = routes.merge(demo::routes());
    finish(routes, shared)
}

/// What has a port of its own: the API, with the same tokens, and what watches the server asks for.
pub(crate) fn admin_router(shared: Shared) -> Router {
    let routes = for_applications(&shared).merge(health::metrics_routes());
    finish(routes, shared)
}

/// The API with its pages, and what says how the node is.
fn for_applications(shared: &Shared) -> Router<Shared> {
    let (api, description) = api::routes(&shared.limits).split_for_parts();
    api.layer(authorize::cors(&shared.origins))
        .merge(api::pages(&description))
        .merge(admin::routes())
        .merge(health::routes())
}

/// What holds for all routes.
fn finish(routes: Router<Shared>, shared: Shared) -> Router {
    routes
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), authorize::check_origin))
        .layer(RequestBodyTimeoutLayer::new(BODY_WITHIN))
        .with_state(shared)
}
