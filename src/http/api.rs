//! `/api`: the routes for applications, and their description (OpenAPI 3.1), as a file and as a page to read and try.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared, bundles, changes, copies, documents, history, lifecycle, listing, operations, overview, raw,
    sessions, stats, updates,
};
use crate::config::Limits;

/// Where its page is, which shows the description.
const PAGE: &str = include_str!("api.html");
/// The page needs nothing but itself and the API. What it shows was written by others.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quire",
        description = "Documents that people edit together. A document's name is one segment of a path: a slash in it is \
            `%2F`. Where the server asks for tokens, every request needs one. Errors are problem documents (RFC 9457).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "documents", description = "Documents as a whole."),
        (name = "history", description = "What documents were, and who wrote what."),
        (name = "sessions", description = "The people in a document."),
        (name = "server", description = "How the server is doing."),
    ),
    components(schemas(super::error::Body)),
    modifiers(&Token),
)]
struct Description;

/// The token of a request; none is needed where the server asks nobody.
struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        if let Some(components) = &mut openapi.components {
            components.add_security_scheme("token", SecurityScheme::Http(scheme));
        }
        let anybody = SecurityRequirement::default();
        openapi.security = Some(vec![SecurityRequirement::new("token", [""; 0]), anybody]);
    }
}

/// The routes, with their description.
pub(super) fn routes(limits: &Limits) -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(listing::list))
        .routes(routes!(documents::export, lifecycle::make, lifecycle::make_with, lifecycle::remove))
        .routes(routes!(operations::edit))
        .routes(routes!(lifecycle::restore))
        .routes(routes!(updates::send))
        .routes(routes!(copies::copy))
        .routes(routes!(sessions::list, sessions::end))
        .routes(routes!(sessions::tell))
        .routes(routes!(stats::stats))
        .routes(routes!(raw::fetch))
        .routes(routes!(history::list, history::keep))
        .routes(routes!(history::fetch, history::rename, history::remove))
        .routes(routes!(history::restore))
        .routes(routes!(changes::compare))
        .routes(routes!(changes::compare_now))
        .routes(routes!(changes::attribute))
        .routes(routes!(overview::nodes))
        .routes(routes!(overview::open_documents))
        .routes(routes!(overview::errors))
        .layer(DefaultBodyLimit::max(limits.update_bytes))
        // It has a limit of its own.
        .routes(routes!(bundles::fetch, bundles::put))
}

/// The description, and the page that shows it.
pub(super) fn pages(description: &openapi::OpenApi) -> Router<Shared> {
    let description = description.to_json().expect("a description is JSON");
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let guarding =
        [(header::CONTENT_SECURITY_POLICY, PAGE_POLICY), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Router::new()
        .route("/api", get(move || async move { (guarding, Html(PAGE)).into_response() }))
        .route("/api/openapi.json", get(move || async move { (kind, description).into_response() }))
}
