//! Who may do what: tokens of every kind, good and bad, in every way that they come; what each level allows; how a
//! session ends that is no longer allowed; which pages may connect.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use quire::{
    config::Config,
    level::Level,
    presence::State,
    protocol::{self, Message},
};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message as Frame, client::IntoClientRequest},
};
use yrs::{ReadTxn, Text, Transact};

use crate::common::{
    PATIENCE, Person, Raw, SECRET, TestServer, insertion, new_doc, redis::RedisServer, secret, token,
    token_for, within,
};

fn key(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys").join(name)
}

fn with_secret(config: &mut Config) {
    config.authentication.secret = Some(secret());
}

/// The claims of a good token, with some of them changed.
fn claims(changes: Value) -> Value {
    let now = get_current_timestamp();
    let mut claims = json!({
        "iss": "https://login.example",
        "aud": "quire.example",
        "sub": "alice",
        "exp": now + 60,
        "nbf": now - 60,
        "documents": [{ "name": "team/*", "level": "write" }],
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

/// What the server answers who asks for a document that does not exist: 404 where the token is good.
async fn answer(server: &TestServer, token: &str) -> (u16, String) {
    let response =
        server.get_with("/api/documents/team%2Fplan", &format!("Authorization: Bearer {token}\r\n")).await;
    if response.status == 401 {
        assert_eq!(response.header("www-authenticate"), Some("bearer"));
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    (response.status, response.text())
}

struct Kind {
    algorithm: Algorithm,
    verifies: &'static str,
    signs: EncodingKey,
    forges: EncodingKey,
}

fn kinds() -> Vec<Kind> {
    let read = |name: &str| std::fs::read(key(name)).unwrap();
    let mut kinds = Vec::new();
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let (signs, forges) =
            (EncodingKey::from_secret(SECRET.as_bytes()), EncodingKey::from_secret(&[7; 64]));
        kinds.push(Kind { algorithm, verifies: "", signs, forges });
    }
    use Algorithm::*;
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        let of = |name: &str| EncodingKey::from_rsa_pem(&read(name)).unwrap();
        kinds.push(Kind {
            algorithm,
            verifies: "rsa.pub.pem",
            signs: of("rsa.pem"),
            forges: of("rsa-other.pem"),
        });
    }
    let of = |name: &str| EncodingKey::from_ec_pem(&read(name)).unwrap();
    kinds.push(Kind {
        algorithm: ES256,
        verifies: "p256.pub.pem",
        signs: of("p256.pem"),
        forges: of("p256-other.pem"),
    });
    kinds.push(Kind {
        algorithm: ES384,
        verifies: "p384.pub.pem",
        signs: of("p384.pem"),
        forges: of("p384-other.pem"),
    });
    let of = |name: &str| EncodingKey::from_ed_pem(&read(name)).unwrap();
    kinds.push(Kind {
        algorithm: EdDSA,
        verifies: "ed25519.pub.pem",
        signs: of("ed25519.pem"),
        forges: of("ed25519-other.pem"),
    });
    kinds
}

/// A token that says that it is not signed at all.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_lets_in_good_tokens_and_no_others() {
    let now = get_current_timestamp();
    for Kind { algorithm, verifies, signs, forges } in kinds() {
        let server = TestServer::start_with(|config| {
            let of_issuer = &mut config.authentication;
            let file = if verifies.is_empty() {
                let file = config.data.join("given-secret");
                std::fs::write(&file, SECRET).unwrap();
                file
            } else {
                key(verifies)
            };
            of_issuer.jwt_key = Some(file);
            of_issuer.jwt_algorithms = vec![format!("{algorithm:?}")];
            of_issuer.jwt_issuer = Some("https://login.example".to_owned());
            of_issuer.jwt_audience = vec!["other.example".to_owned(), "quire.example".to_owned()];
        })
        .await;
        let good = sign(algorithm, &signs, &claims(json!({})));
        assert_eq!(answer(&server, &good).await.0, 404, "{algorithm:?}");
        let refused = [
            (sign(algorithm, &forges, &claims(json!({}))), "signature"),
            (sign(algorithm, &signs, &claims(json!({ "exp": now - 1 }))), "expired"),
            (sign(algorithm, &signs, &claims(json!({ "nbf": now + 60 }))), "not good yet"),
            (sign(algorithm, &signs, &claims(json!({ "aud": "another.example" }))), "aud"),
            (sign(algorithm, &signs, &claims(json!({ "aud": null }))), "aud"),
            (sign(algorithm, &signs, &claims(json!({ "iss": "https://evil.example" }))), "iss"),
            (sign(algorithm, &signs, &claims(json!({ "exp": null }))), "claims"),
            (sign(algorithm, &signs, &claims(json!({ "sub": "" }))), "sub"),
            (sign(algorithm, &signs, &claims(json!({ "documents": "all" }))), "claims"),
            (unsigned(&claims(json!({}))), "algorithm"),
            (good.replace('.', "!"), "JSON Web Token"),
            (String::new(), "a token is needed"),
            ("x".repeat(20_000), "16384"),
        ];
        for (token, reason) in refused {
            let (status, text) = answer(&server, &token).await;
            assert_eq!(status, 401, "{algorithm:?}, {reason}: {text}");
            assert!(text.contains(reason), "{algorithm:?}: {text}");
            assert!(token.len() < 10 || !text.contains(&token), "a token is repeated: {text}");
        }
        if !verifies.is_empty() {
            // The public key is known to everybody: it is no secret to sign with.
            let public = EncodingKey::from_secret(&std::fs::read(key(verifies)).unwrap());
            let (status, text) = answer(&server, &sign(Algorithm::HS256, &public, &claims(json!({})))).await;
            assert!(status == 401 && text.contains("algorithm"), "{algorithm:?}: {text}");
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_tokens_stand_beside_those_of_another_issuer() {
    let server = TestServer::start_with(|config| {
        with_secret(config);
        config.authentication.jwt_key = Some(key("rsa.pub.pem"));
    })
    .await;
    assert_eq!(answer(&server, &token("alice", "team/*", Level::Read)).await.0, 404);
    let of_other = EncodingKey::from_rsa_pem(&std::fs::read(key("rsa.pem")).unwrap()).unwrap();
    let plain = |issuer: &str| {
        let mut claims = claims(json!({ "iss": issuer }));
        claims.as_object_mut().unwrap().remove("aud");
        claims
    };
    assert_eq!(answer(&server, &sign(Algorithm::RS256, &of_other, &plain("anybody"))).await.0, 404);
    // Nobody speaks in the server's own name, nor the server in another's.
    let (status, text) = answer(&server, &sign(Algorithm::RS256, &of_other, &plain("quire"))).await;
    assert!(status == 401 && text.contains("algorithm"), "{text}");
    let own = EncodingKey::from_secret(SECRET.as_bytes());
    assert_eq!(answer(&server, &sign(Algorithm::HS256, &own, &plain("anybody"))).await.0, 401);
    // What is not listed is not allowed, and the answer says so.
    let (status, text) = answer(&server, &token("alice", "other", Level::Admin)).await;
    assert!(status == 403 && text.contains("nothing on") && text.contains("team/plan"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_in_three_ways_and_without_one_nobody_gets_in() {
    let server = TestServer::start_with(with_secret).await;
    let good = token("alice", "letter", Level::Write);
    let mut by_address = Raw::connect(&server, &format!("letter?token={good}")).await;
    by_address.is_greeted().await;

    let address = format!("ws://{}/ws/letter", server.address);
    let with = |name: &'static str, value: String| {
        let mut request = address.clone().into_client_request().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    for (name, value) in
        [("authorization", format!("Bearer {good}")), ("sec-websocket-protocol", format!("quire, {good}"))]
    {
        let (mut socket, response) = connect_async(with(name, value)).await.unwrap();
        let chosen = response.headers().get("sec-websocket-protocol");
        assert_eq!(
            chosen.map(|chosen| chosen.as_bytes()),
            (name != "authorization").then_some(b"quire".as_slice())
        );
        let greeting = within(socket.next()).await;
        assert!(matches!(greeting, Some(Ok(Frame::Binary(_)))), "{name}: {greeting:?}");
    }

    // A browser's client would come back for ever after a refused upgrade; 44xx tells it to stop.
    let close = Raw::connect(&server, "letter").await.is_closed().await;
    assert_eq!(u16::from(close.code), 4401);
    assert!(close.reason.contains("token"), "{}", close.reason);
    let close = Raw::connect(&server, &format!("diary?token={good}")).await.is_closed().await;
    assert_eq!(u16::from(close.code), 4403);
    assert!(close.reason.contains("diary"), "{}", close.reason);
    assert_eq!(server.get("/api/documents/letter").await.status, 401);
    // What says nothing of documents needs none.
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_sees_and_is_seen_and_changes_nothing() {
    let server = TestServer::start_with(with_secret).await;
    let mut alice =
        Person::joins(&server, &format!("letter?token={}", token("alice", "letter", Level::Write))).await;
    alice.types("hello").await;
    let reading = format!("letter?token={}", token("bob", "letter", Level::Read));
    let mut bob = Person::joins(&server, &reading).await;
    bob.reads("hello").await;
    bob.raw.says_who_is_here(&[State { client: 7, clock: 1, json: Some("{}".into()) }]).await;
    loop {
        if let Message::Awareness(states) = alice.raw.hears().await {
            assert_eq!(states[0].client, 7);
            break;
        }
    }
    // What he knows already is no edit, a new word and a deletion are; he is told once.
    let known = bob.doc.transact().encode_diff_v1(&Default::default());
    bob.raw.send(protocol::update(&known)).await;
    let forged = bob.edit(|text, transaction| text.insert(transaction, 0, "no "));
    let deleted = bob.edit(|text, transaction| text.remove_range(transaction, 3, 5));
    bob.raw.send(protocol::update(&forged)).await;
    bob.raw.send(protocol::update(&deleted)).await;
    bob.raw.send(protocol::sync_step_2(&forged)).await;
    let notice = bob.raw.hears_bytes().await;
    assert_eq!(&notice[..2], &[2, 0], "a notice that it is not allowed");
    assert!(String::from_utf8_lossy(&notice).contains("read-only"));
    bob.raw.hears_nothing_more().await;
    alice.types(", world").await;
    let admin = format!("Authorization: Bearer {}\r\n", token("root", "*", Level::Read));
    let text = || async { server.get_with("/api/documents/letter?format=text", &admin).await.text() };
    let until = tokio::time::Instant::now() + PATIENCE;
    while text().await != "hello, world" {
        assert!(tokio::time::Instant::now() < until, "{}", text().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_token_does() {
    let server = TestServer::start_with(with_secret).await;
    let short = token_for("alice", "letter", Level::Write, Duration::from_secs(2));
    let mut alice = Raw::connect(&server, &format!("letter?token={short}")).await;
    alice.is_greeted().await;
    let close = alice.is_closed().await;
    assert_eq!(u16::from(close.code), 4401);
    assert!(close.reason.contains("expired"), "{}", close.reason);
    let close = Raw::connect(&server, &format!("letter?token={short}")).await.is_closed().await;
    assert_eq!(u16::from(close.code), 4401);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_ends_the_sessions_of_one_or_of_all() {
    let server = TestServer::start_with(with_secret).await;
    let join = |user: &str| {
        let token = token(user, "letter", Level::Write);
        let server = &server;
        async move {
            let mut raw = Raw::connect(server, &format!("letter?token={token}")).await;
            raw.is_greeted().await;
            raw
        }
    };
    let (mut alice, mut bob, mut carol) = (join("alice").await, join("bob").await, join("carol").await);
    let end = |whose: &str, level: Level| {
        let header = format!("Authorization: Bearer {}\r\n", token("root", "*", level));
        let path = format!("/api/documents/letter/sessions{whose}");
        let server = &server;
        async move { server.request("DELETE", &path, &header).await }
    };
    let refused = end("", Level::Write).await;
    assert!(refused.status == 403 && refused.text().contains("Admin"), "{}", refused.text());
    let ended = end("?user=bob", Level::Admin).await;
    assert_eq!((ended.status, ended.text()), (200, r#"{"ended":1}"#.to_owned()));
    let close = bob.is_closed().await;
    assert!(u16::from(close.code) == 4403 && close.reason.contains("administrator"), "{close:?}");
    alice.hears_nothing_more().await;
    assert_eq!(end("", Level::Admin).await.text(), r#"{"ended":2}"#);
    assert_eq!(u16::from(alice.is_closed().await.code), 4403);
    assert_eq!(u16::from(carol.is_closed().await.code), 4403);
    assert_eq!(end("?whose=bob", Level::Admin).await.status, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_so_many_connections_and_no_more() {
    let server = TestServer::start_with(with_secret).await;
    let address = format!("letter?token={}", token("alice", "*", Level::Write));
    let mut five = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::connect(&server, &address).await;
        raw.is_greeted().await;
        five.push(raw);
    }
    let close = Raw::connect(&server, &address).await.is_closed().await;
    assert_eq!(u16::from(close.code), 1013);
    assert!(
        close.reason.contains("5 connections") && close.reason.contains("--max-connections-per-user"),
        "{close:?}"
    );
    // Somebody else is not concerned, and whoever leaves makes room.
    Raw::connect(&server, &format!("letter?token={}", token("bob", "*", Level::Write)))
        .await
        .is_greeted()
        .await;
    five.pop();
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::connect(&server, &address).await;
        match within(raw.socket.next()).await {
            Some(Ok(Frame::Binary(_))) => break,
            other => assert!(tokio::time::Instant::now() < until, "{other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_that_are_named_may_connect() {
    let server = TestServer::start_with(|config| {
        with_secret(config);
        config.authentication.allow_origin = vec!["https://app.example".to_owned()];
    })
    .await;
    let good = token("alice", "*", Level::Write);
    let from = |origin: &str| {
        let mut request =
            format!("ws://{}/ws/letter?token={good}", server.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        request
    };
    let own = format!("http://{}", server.address);
    for fine in ["https://app.example", &own] {
        let (mut socket, _) = connect_async(from(fine)).await.unwrap();
        let greeting = within(socket.next()).await;
        assert!(matches!(greeting, Some(Ok(Frame::Binary(_)))), "{fine}: {greeting:?}");
    }
    let (mut socket, _) = connect_async(from("https://evil.example")).await.unwrap();
    match within(socket.next()).await {
        Some(Ok(Frame::Close(Some(close)))) => {
            assert_eq!(u16::from(close.code), 4403);
            assert!(close.reason.contains("--allow-origin https://evil.example"), "{}", close.reason);
        }
        other => panic!("{other:?}"),
    }
    let ask = |origin: &str| {
        let headers = format!("Origin: {origin}\r\nAuthorization: Bearer {good}\r\n");
        let server = &server;
        async move { server.get_with("/api/documents/letter", &headers).await }
    };
    assert_eq!(ask("https://evil.example").await.status, 403);
    let answer = ask("https://app.example").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    let metrics = || async { server.get("/metrics").await.text() };
    assert!(metrics().await.contains(r#"quire_refusals_total{limit="allow-origin"} 1"#));
    // A connection has ended when the client has answered the close frame, or has not for a while.
    let until = tokio::time::Instant::now() + PATIENCE;
    while !metrics().await.contains(r#"quire_sessions_ended_total{reason="forbidden"} 1"#) {
        assert!(tokio::time::Instant::now() < until, "{}", metrics().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_only_this_machine_is_served() {
    let server = TestServer::start().await;
    let ask = |host: &str, origin: &str| {
        let mut request = format!("ws://{}/ws/letter", server.address).into_client_request().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        if !origin.is_empty() {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        async move {
            let (mut socket, _) = connect_async(request).await.unwrap();
            matches!(within(socket.next()).await, Some(Ok(Frame::Binary(_))))
        }
    };
    assert!(ask("localhost:8080", "http://localhost:5173").await);
    assert!(ask("127.0.0.1:8080", "").await);
    assert!(!ask("127.0.0.1:8080", "https://evil.example").await);
    // A page whose own name leads to this machine.
    assert!(!ask("evil.example", "http://evil.example").await);
    assert!(!ask("evil.example", "").await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_keys_is_read_again_when_a_new_key_signs() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("keys.json");
    let write = |keys: &[(&str, &str)]| {
        let keys = keys.iter().map(|(id, name)| {
            let pem = std::fs::read(key(name)).unwrap();
            let signing = EncodingKey::from_rsa_pem(&pem).unwrap();
            let mut jwk = serde_json::to_value(
                jsonwebtoken::jwk::Jwk::from_encoding_key(&signing, Algorithm::RS256).unwrap(),
            )
            .unwrap();
            jwk["kid"] = json!(id);
            jwk
        });
        // A secret in a public place opens nothing.
        let secret = json!({ "kty": "oct", "kid": "secret", "alg": "HS256", "k": BASE64_URL_SAFE_NO_PAD.encode(SECRET) });
        let all: Vec<_> = keys.chain([secret]).collect();
        std::fs::write(&file, json!({ "keys": all }).to_string()).unwrap();
    };
    write(&[("one", "rsa.pem")]);
    let server = TestServer::start_with(|config| {
        config.authentication.jwt_jwks = Some(file.to_str().unwrap().to_owned());
        config.authentication.jwt_audience = vec!["quire.example".to_owned()];
    })
    .await;
    let signed = |id: &str, name: &str| {
        let signing = EncodingKey::from_rsa_pem(&std::fs::read(key(name)).unwrap()).unwrap();
        encode(
            &Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::RS256) },
            &claims(json!({})),
            &signing,
        )
        .unwrap()
    };
    assert_eq!(answer(&server, &signed("one", "rsa.pem")).await.0, 404);
    assert_eq!(answer(&server, &signed("one", "rsa-other.pem")).await.0, 401);
    let header = Header { kid: Some("secret".to_owned()), ..Header::new(Algorithm::HS256) };
    let by_secret =
        encode(&header, &claims(json!({})), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    write(&[("one", "rsa.pem"), ("two", "rsa-other.pem")]);
    assert_eq!(answer(&server, &signed("two", "rsa-other.pem")).await.0, 404, "the new key is picked up");
    assert_eq!(answer(&server, &by_secret).await.0, 401);
    // Within half a minute it is not asked for again, whoever brings unknown keys.
    write(&[("three", "rsa.pem")]);
    let (status, text) = answer(&server, &signed("three", "rsa.pem")).await;
    assert!(status == 401 && text.contains("kid"), "{text}");
    assert_eq!(answer(&server, &signed("one", "rsa.pem")).await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_an_address_once_for_many_who_wait() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let pem = std::fs::read(key("ed25519.pem")).unwrap();
    let signing = EncodingKey::from_ed_pem(&pem).unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&signing, Algorithm::EdDSA).unwrap();
    let body = json!({ "keys": [jwk] }).to_string();
    let counted = asked.clone();
    let keys = axum::Router::new().route(
        "/keys",
        axum::routing::get(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let body = body.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                body
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, keys).await });
    let server = TestServer::start_with(|config| {
        config.authentication.jwt_jwks = Some(format!("http://{address}/keys"));
        config.authentication.jwt_audience = vec!["quire.example".to_owned()];
    })
    .await;
    let good = sign(Algorithm::EdDSA, &signing, &claims(json!({})));
    let answers = futures_util::future::join_all((0..20).map(|_| answer(&server, &good))).await;
    assert!(answers.iter().all(|(status, _)| *status == 404), "{answers:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_fetches_the_raw_bytes() {
    let server = TestServer::start_with(with_secret).await;
    let mut alice =
        Raw::connect(&server, &format!("letter?echo=saved&token={}", token("alice", "*", Level::Write)))
            .await;
    alice.is_greeted().await;
    let update = insertion(&new_doc(), 0, "hello");
    alice.send(protocol::update(&update)).await;
    // It hears its own edit when that is saved.
    assert_eq!(alice.hears().await, Message::Update(update.clone().into()));
    let ask = |level: Level, path: &str| {
        let header = format!("Authorization: Bearer {}\r\n", token("root", "*", level));
        let (server, path) = (&server, path.to_owned());
        async move { server.get_with(&path, &header).await }
    };
    assert_eq!(ask(Level::Write, "/api/documents/letter/raw").await.status, 403);
    assert_eq!(ask(Level::Admin, "/api/documents/diary/raw").await.status, 404);
    let raw = ask(Level::Admin, "/api/documents/letter/raw").await;
    assert_eq!(raw.status, 200);
    let raw: Value = serde_json::from_slice(&raw.body).unwrap();
    let record = raw["log"][0]["record"].as_str().expect("a record");
    let record = base64::prelude::BASE64_STANDARD.decode(record).unwrap();
    assert!(record.windows(update.len()).any(|part| part == update), "the update is in the log");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_and_ended_is_counted_and_ended_on_every_node() {
    let redis = RedisServer::start();
    let on_redis = |config: &mut Config| {
        with_secret(config);
        config.redis = Some(redis.url());
        config.limits.connections_per_user = 3;
    };
    let nodes = [TestServer::start_with(on_redis).await, TestServer::start_with(on_redis).await];
    let address = format!("letter?token={}", token("alice", "*", Level::Write));
    let mut here = Vec::new();
    // Nodes know each other after a moment; until then each counts what it knows.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in [0, 1, 0] {
        let mut raw = Raw::connect(&nodes[node], &address).await;
        raw.is_greeted().await;
        here.push(raw);
    }
    for node in &nodes {
        let close = Raw::connect(node, &address).await.is_closed().await;
        assert!(u16::from(close.code) == 1013 && close.reason.contains("3 connections"), "{close:?}");
    }
    let header = format!("Authorization: Bearer {}\r\n", token("root", "*", Level::Admin));
    let ended = nodes[1].request("DELETE", "/api/documents/letter/sessions?user=alice", &header).await;
    assert_eq!(ended.text(), r#"{"ended":1}"#);
    for raw in &mut here {
        assert_eq!(u16::from(raw.is_closed().await.code), 4403);
    }
    // Now there is room again on both.
    for node in &nodes {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut raw = Raw::connect(node, &address).await;
            match within(raw.socket.next()).await {
                Some(Ok(Frame::Binary(_))) => break,
                other => assert!(tokio::time::Instant::now() < until, "{other:?}"),
            }
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Runs the command, with these variables, and gives its exit code and what it wrote.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quire"));
    let output = command.args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn nobody_is_let_in_from_outside_by_mistake() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let (code, _, said) = run(&["--listen", "0.0.0.0:0", "--data", data], &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("--auth") && said.contains("--insecure-no-auth"), "{said}");
    let (code, _, said) = run(&["--data", data], &[("QUIRE_SECRET", "tiny-secret")]);
    assert_eq!(code, Some(2));
    assert!(said.contains("QUIRE_SECRET has 11 bytes") && !said.contains("tiny-secret"), "{said}");
    let (code, _, said) = run(&["--data", data, "--jwt-key", key("rsa.pem").to_str().unwrap()], &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("private key"), "{said}");
    let with_wrong_kind = ["--data", data, "--jwt-algorithms", "HS256", "--jwt-key"];
    let public = key("rsa.pub.pem");
    let (code, _, said) = run(&[&with_wrong_kind[..], &[public.to_str().unwrap()]].concat(), &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("RSA key") && said.contains("HS256"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_the_command_line_opens_the_document() {
    let server = TestServer::start_with(|config| config.authentication.auth = true).await;
    let data = server.folder.path().to_str().unwrap();
    let arguments = [
        "token",
        "--data",
        data,
        "--document",
        "team/*",
        "--user",
        "alice",
        "--level",
        "read",
        "--ttl",
        "60",
    ];
    let (code, printed, said) = run(&arguments, &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(answer(&server, printed.trim_end()).await.0, 404);
    let (code, _, said) = run(&["token", "--user", "alice"], &[]);
    assert!(code == Some(2) && said.contains("--document"), "{said}");
    server.stop().await;
}
