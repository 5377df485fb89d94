//! How a request becomes a WebSocket: what the client must ask, and what it is answered (RFC 6455, section 4.2).

use axum::{
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
            SEC_WEBSOCKET_VERSION, UPGRADE,
        },
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use hyper::upgrade::OnUpgrade;
use tungstenite::handshake::derive_accept_key;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const VERSION: &str = "13";

/// A request that may become a WebSocket.
pub(crate) struct Handshake {
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
    connection: OnUpgrade,
}

impl Handshake {
    /// Looks at a request; `protocol` is the one that is spoken where the client offers it. Otherwise says what is not
    /// as it must be.
    pub(crate) fn begin(parts: &mut Parts, protocol: &'static str) -> Result<Self, (StatusCode, String)> {
        let headers = &parts.headers;
        let must = |what: &str| (StatusCode::BAD_REQUEST, format!("a WebSocket begins with {what}"));
        if parts.method != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET".to_owned()));
        }
        if !has(headers, CONNECTION, "upgrade") {
            return Err(must("the header `Connection: upgrade`"));
        }
        if !has(headers, UPGRADE, "websocket") {
            return Err(must("the header `Upgrade: websocket`"));
        }
        if !has(headers, SEC_WEBSOCKET_VERSION, VERSION) {
            return Err(must("the header `Sec-WebSocket-Version: 13`"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| must("the header `Sec-WebSocket-Key`"))?;
        let accept = derive_accept_key(key.as_bytes()).try_into().expect("base64 is a header value");
        let offered = words(headers, SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == protocol);
        let protocol = offered.then_some(HeaderValue::from_static(protocol));
        let connection = parts.extensions.remove().ok_or_else(|| {
            (
                StatusCode::UPGRADE_REQUIRED,
                "this connection cannot become a WebSocket: use HTTP/1.1".to_owned(),
            )
        })?;
        Ok(Self { accept, protocol, connection })
    }

    /// What the client is answered, and the connection once it has been.
    pub(crate) fn finish(self) -> (Response, OnUpgrade) {
        let Self { accept, protocol, connection } = self;
        let headers = [
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (UPGRADE, WEBSOCKET),
            (SEC_WEBSOCKET_ACCEPT, accept),
        ];
        let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
        response.headers_mut().extend(protocol.map(|protocol| (SEC_WEBSOCKET_PROTOCOL, protocol)));
        (response, connection)
    }
}

/// Whether a header holds this word in its list, in whatever case.
fn has(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    words(headers, name).any(|listed| listed.eq_ignore_ascii_case(word))
}

/// The words of a header's list.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim))
}
