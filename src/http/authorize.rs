//! Who asks, and whether they may: the token of a request, and the page that it comes from.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{Shared, error::Problem};
use crate::access::{Access, AccessError, origins::Origins};

/// What a client offers as WebSocket subprotocol before its token, and what is chosen then.
pub(crate) const SUBPROTOCOL: &str = "quire";

/// Who asks, for handlers that nobody reaches without a good token.
pub(crate) struct Caller(pub Access);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        Ok(Self(access(shared, &parts.headers, &parts.uri).await?))
    }
}

/// What a request's token allows; everything, where nobody is asked for one.
pub(crate) async fn access(shared: &Shared, headers: &HeaderMap, uri: &Uri) -> Result<Access, AccessError> {
    let Some(tokens) = &shared.tokens else { return Ok(Access::anonymous()) };
    let token = token_of(headers, uri).ok_or(AccessError::Missing)?;
    tokens.check(&token).await
}

/// The token: of the header for APIs, of the subprotocol or the address for browsers, whose WebSockets have no headers.
fn token_of(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let offered = || {
        let mut protocols = text(header::SEC_WEBSOCKET_PROTOCOL)?.split(',').map(str::trim);
        protocols.find(|protocol| *protocol == SUBPROTOCOL)?;
        protocols.next().map(str::to_owned)
    };
    let in_address = || {
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
        parameters.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token)
    };
    bearer.or_else(offered).or_else(in_address)
}

/// Why a request must not be answered, if so, because of the page that sends it.
pub(crate) fn refuse_origin(origins: &Origins, headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    origins.refuse(text(header::ORIGIN), text(header::HOST))
}

/// Turns away what pages send that may not connect; WebSockets are turned away in a way that their clients understand.
pub(crate) async fn check_origin(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let is_socket = request.headers().contains_key(header::SEC_WEBSOCKET_KEY);
    match refuse_origin(&shared.origins, request.headers()) {
        Some(reason) if !is_socket => {
            shared.metrics.refused("allow-origin");
            Problem::new(StatusCode::FORBIDDEN, reason).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Tells browsers that the named pages may read what the API answers.
pub(crate) fn cors(origins: &Arc<Origins>) -> CorsLayer {
    let origins = origins.clone();
    let allowed =
        move |origin: &HeaderValue, _: &Parts| origin.to_str().is_ok_and(|origin| origins.allows(origin));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::IF_NONE_MATCH, header::IF_MATCH, header::CONTENT_TYPE])
        .expose_headers([header::ETAG])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[(HeaderName, &str)], uri: &str) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        token_of(&headers.collect(), &uri.parse().unwrap())
    }

    #[test]
    fn a_token_comes_in_three_ways() {
        assert_eq!(found(&[(header::AUTHORIZATION, "bearer a.b.c")], "/"), Some("a.b.c".to_owned()));
        assert_eq!(found(&[(header::SEC_WEBSOCKET_PROTOCOL, "quire, a.b.c")], "/"), Some("a.b.c".to_owned()));
        assert_eq!(found(&[], "/ws/x?echo=saved&token=a.b%2Ec"), Some("a.b.c".to_owned()));
        assert_eq!(found(&[(header::AUTHORIZATION, "Basic a.b.c")], "/"), None);
        assert_eq!(found(&[(header::SEC_WEBSOCKET_PROTOCOL, "chat, a.b.c")], "/"), None);
    }
}
