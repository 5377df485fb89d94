//! The web demo, built into the binary.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};
use tower_http::compression::CompressionLayer;

use super::error::Problem;

#[derive(RustEmbed)]
#[folder = "web-demo/dist"]
struct Files;

/// The page and its files. Only they are compressed: a document's strong tag is that of its very bytes.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let routes = Router::new().route("/", get(page)).route("/{*path}", get(file));
    routes.layer(CompressionLayer::new())
}

/// The page; which document it shows is a matter between its address and the browser.
async fn page(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// A file that the page needs.
async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    answer(&path, &headers)
}

fn answer(path: &str, headers: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(path) else {
        return Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at /{path}")).into_response();
    };
    let hash = metadata.sha256_hash();
    // Weak, because the bytes differ where they are compressed.
    let etag = format!("W/\"{}\"", hash[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    // The build puts a hash of the content into the name of everything in this folder.
    let hashed = path.starts_with("assets/");
    let caching = [
        (header::CACHE_CONTROL, if hashed { "public, max-age=31536000, immutable" } else { "no-cache" }),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    if known.is_some_and(|known| known.contains(&etag)) {
        return (StatusCode::NOT_MODIFIED, caching, [(header::ETAG, etag)]).into_response();
    }
    let about = [(header::ETAG, etag), (header::CONTENT_TYPE, media_type(path).to_owned())];
    (caching, about, data).into_response()
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
