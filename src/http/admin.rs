//! `/admin`: a page that shows how the server is doing, and does what the API can do with a document. It holds nothing
//! secret: what it shows it asks the API for, with the token of whoever looks at it.

use axum::{
    Router,
    http::header,
    response::IntoResponse,
    routing::{MethodRouter, get},
};

use super::Shared;

const PAGE: &str = include_str!("admin.html");
const SCRIPT: &str = include_str!("admin.js");
const STYLE: &str = include_str!("admin.css");
/// The page needs nothing but its two files and the API. What it shows was written by others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The page and its files.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/admin", file("text/html; charset=utf-8", PAGE))
        .route("/admin/admin.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/admin/admin.css", file("text/css; charset=utf-8", STYLE))
}

fn file(kind: &'static str, content: &'static str) -> MethodRouter<Shared> {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // It belongs to this server's version.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    get(move || async move { (headers, content).into_response() })
}
