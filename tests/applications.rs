//! What an application would complain about that has documents of its own here, and asks for them over HTTP.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use quire::{config::Config, level::Level, lib0, presence::State};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;
use yrs::{ReadTxn, StateVector, Transact, updates::encoder::Encode};

use crate::common::{
    JSON, Person, Raw, TestServer, bearer, body, insertion, new_doc, redis::RedisServer, said, secret, within,
};

const TEXT: &str = "Content-Type: text/plain\r\n";

#[tokio::test]
async fn an_update_is_taken_on_the_condition_that_is_given() {
    let server = TestServer::start_with(|config| config.limits.update_bytes = 1_000).await;
    let (doc, path) = (new_doc(), "/api/documents/letter/updates");
    let (one, two, three) =
        (insertion(&doc, 0, "one "), insertion(&doc, 4, "two "), insertion(&doc, 8, "three"));
    said(&server.post(path, "", &two).await, 409, "builds on edits");
    said(&server.post(path, "If-Match: *\r\n", &one).await, 412, "If-Match");
    assert_eq!(server.post(path, "Content-Type: application/octet-stream\r\n", &one).await.status, 204);
    let etag = server.get("/api/documents/letter").await.header("etag").unwrap().to_owned();
    assert_eq!(server.post(path, &format!("If-Match: \"other\", {etag}\r\n"), &two).await.status, 204);
    said(&server.post(path, &format!("If-Match: {etag}\r\n"), &three).await, 412, "read it again");
    assert_eq!(server.post(path, "If-Match: *\r\n", &three).await.status, 204);
    assert_eq!(server.text_of("letter").await, "one two three");
    let of_version_2 = doc.transact().encode_state_as_update_v2(&StateVector::default());
    said(&server.post(path, "", &of_version_2).await, 415, "version 2");
    said(&server.post(path, JSON, &one).await, 415, "application/octet-stream");
    said(&server.post(path, "", &[9, 9]).await, 400, "version 1");
    said(&server.post(path, "", &vec![0; 1_001]).await, 413, "--max-update");
    let state_vector = doc.transact().state_vector().encode_v1();
    assert_eq!(server.get("/api/documents/letter?format=state-vector").await.body, state_vector);
    let head = server.request("HEAD", "/api/documents/letter", "").await;
    assert!(head.status == 200 && head.header("etag").is_some() && head.body.is_empty(), "{}", head.head);
    said(&server.request("GET", "/api/documents/nowhere", "").await, 404, "nowhere");
    server.stop().await;
}

#[tokio::test]
async fn a_copy_has_everything_and_goes_its_own_way() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    alice.types("hello").await;
    Person::joins(&server, "letter").await.reads("hello").await;
    let copy = |to: &str| json!({ "to": to }).to_string().into_bytes();
    let path = "/api/documents/letter/copy";
    assert_eq!(server.post(path, JSON, &copy("drafts/letter")).await.status, 201);
    assert_eq!(server.text_of("drafts%2Fletter").await, "hello");
    said(&server.post(path, JSON, &copy("drafts/letter")).await, 409, "there already");
    said(&server.post(path, JSON, &copy("letter")).await, 409, "there already");
    said(&server.post("/api/documents/nowhere/copy", JSON, &copy("x")).await, 404, "nowhere");
    said(&server.post(path, JSON, b"{\"too\":\"x\"}").await, 422, "too");
    said(&server.post(path, JSON, b"{").await, 400, "the body");
    said(&server.post(path, JSON, &copy("")).await, 422, "name");
    said(&server.post(path, TEXT, &copy("x")).await, 415, "application/json");
    // What is typed here is not there.
    alice.types(" again").await;
    Person::joins(&server, "letter").await.reads("hello again").await;
    assert_eq!(server.text_of("drafts%2Fletter").await, "hello");
    assert_eq!(server.request("DELETE", "/api/documents/drafts%2Fletter", "").await.status, 204);
    assert_eq!(server.post(path, JSON, &copy("drafts/letter")).await.status, 201, "its name begins anew");
    assert_eq!(server.text_of("drafts%2Fletter").await, "hello again");
    server.stop().await;
}

#[tokio::test]
async fn each_route_asks_for_a_token_that_allows_it() {
    let server = TestServer::start_with(|config| {
        config.authentication.secret = Some(secret());
    })
    .await;
    let admin = bearer("*", Level::Admin);
    assert_eq!(
        server.post("/api/documents/letter", &admin, &insertion(&new_doc(), 0, "hi")).await.status,
        201
    );
    let routes: [(&str, &str, Level, &str, &[u8]); 16] = [
        ("GET", "/api/documents/letter", Level::Read, "", b""),
        ("HEAD", "/api/documents/letter", Level::Read, "", b""),
        ("GET", "/api/documents/letter/sessions", Level::Read, "", b""),
        ("GET", "/api/documents/letter/stats", Level::Read, "", b""),
        ("POST", "/api/documents/letter/updates", Level::Write, "", &[0, 0]),
        ("POST", "/api/documents/letter/messages", Level::Write, TEXT, b"hello"),
        ("PUT", "/api/documents/letter", Level::Write, "", b""),
        ("PUT", "/api/documents/letter?format=text", Level::Write, "", b"hi, you"),
        ("PATCH", "/api/documents/letter", Level::Write, JSON, b"{\"operations\":[]}"),
        ("GET", "/api/documents/letter/versions", Level::Read, "", b""),
        ("POST", "/api/documents/letter/versions", Level::Write, JSON, b"{}"),
        ("GET", "/api/documents/letter/changes", Level::Read, "", b""),
        ("GET", "/api/documents/letter/attribution", Level::Read, "", b""),
        ("GET", "/api/documents?prefix=letter", Level::Admin, "", b""),
        ("GET", "/api/documents/letter/raw", Level::Admin, "", b""),
        ("DELETE", "/api/documents/letter/sessions", Level::Admin, "", b""),
    ];
    for (method, path, level, headers, content) in routes {
        let length = format!("Content-Length: {}\r\n", content.len());
        let ask = async |token: &str| {
            let headers = format!("{headers}{length}{token}");
            server.request_with(method, path, &headers, content).await.status
        };
        assert_eq!(ask("").await, 401, "{method} {path} without a token");
        assert_eq!(ask("Authorization: Bearer nonsense\r\n").await, 401, "{method} {path} with nonsense");
        let less = match level {
            Level::Read => None,
            Level::Write => Some(Level::Read),
            Level::Admin => Some(Level::Write),
        };
        let less = less.map_or_else(|| bearer("other", Level::Admin), |less| bearer("letter*", less));
        assert_eq!(ask(&less).await, 403, "{method} {path} with too little");
        let status = ask(&bearer("letter*", level)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status}");
    }
    let stats = body(&server.get_with("/api/documents/letter/stats", &admin).await);
    assert_eq!(stats["changedBy"], "app", "{stats}");
    let copy = format!("{JSON}{}", bearer("letter", Level::Write));
    said(&server.post("/api/documents/letter/copy", &copy, br#"{"to":"other"}"#).await, 403, "other");
    server.stop().await;
}

/// A client of Hocuspocus' on a document, as far as stateless messages need one.
async fn listener(server: &TestServer, document: &str) -> Raw {
    let mut raw = Raw::try_connect_to(server, "/hocuspocus", &[]).await.ok().unwrap();
    let mut hello = Vec::new();
    lib0::write_bytes(&mut hello, document.as_bytes());
    hello.extend([2, 0]);
    lib0::write_bytes(&mut hello, b"anyone");
    lib0::write_bytes(&mut hello, b"");
    raw.send(hello).await;
    raw
}

/// Waits for a stateless message.
async fn hears_text(raw: &mut Raw, text: &str) {
    loop {
        match within(raw.socket.next()).await {
            Some(Ok(Frame::Binary(bytes))) if bytes.ends_with(text.as_bytes()) => return,
            Some(Ok(Frame::Ping(ping))) => within(raw.socket.send(Frame::Pong(ping))).await.unwrap(),
            Some(Ok(_)) => {}
            other => panic!("no message but {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_asked_of_one_node_while_it_is_open_on_another() {
    let redis = RedisServer::start();
    let on_redis = |config: &mut Config| config.redis = Some(redis.url());
    let (here, there) = (TestServer::start_with(on_redis).await, TestServer::start_with(on_redis).await);
    let mut alice = Person::joins(&here, "letter").await;
    alice.types("hello").await;
    let state =
        State { client: alice.doc.client_id().get(), clock: 1, json: Some(r#"{"name":"Alice"}"#.into()) };
    alice.raw.says_who_is_here(&[state]).await;
    let mut reader = listener(&here, "letter").await;
    let path = "/api/documents/letter";
    let client = alice.doc.client_id().get();
    for _ in 0..200 {
        let found = body(&there.get(&format!("{path}/sessions")).await);
        if found["presence"] == json!([{ "client": client, "state": { "name": "Alice" } }]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let found = body(&here.get(&format!("{path}/sessions")).await);
    assert_eq!(found["presence"], json!([{ "client": client, "state": { "name": "Alice" } }]));
    assert_eq!(
        found["sessions"],
        json!([{ "user": null, "readOnly": false }, { "user": null, "readOnly": false }])
    );
    // There: an update and a message, heard here.
    assert_eq!(
        there.post(&format!("{path}/updates"), "", &insertion(&new_doc(), 0, "Oh, ")).await.status,
        204
    );
    while alice.sees().len() < 9 {
        alice.hears_one().await;
    }
    assert_eq!(there.post(&format!("{path}/messages"), TEXT, b"lunch!").await.status, 204);
    hears_text(&mut reader, "lunch!").await;
    assert_eq!(there.text_of("letter").await, alice.sees());
    assert_eq!(there.post(&format!("{path}/copy"), JSON, br#"{"to":"copy"}"#).await.status, 201);
    assert_eq!(here.text_of("copy").await, alice.sees());
    let stats = body(&here.get(&format!("{path}/stats")).await);
    assert_eq!((&stats["inserted"], &stats["deleted"], &stats["clients"]), (&json!(9), &json!(0), &json!(2)));
    assert_eq!((&stats["sessions"], &stats["presences"]), (&json!(2), &json!(1)));
    assert!(stats["changed"].as_u64().is_some_and(|changed| changed > 1_700_000_000_000), "{stats}");
    assert!(stats["logRecords"].as_u64() >= Some(2) && stats["logBytes"].as_u64() > Some(20), "{stats}");
    assert_eq!(stats["bytes"], json!(there.get(path).await.body.len()));
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_message_is_refused_that_nobody_could_hear() {
    let server = TestServer::start().await;
    let path = "/api/documents/letter/messages";
    said(&server.post(path, TEXT, b"hello").await, 404, "letter");
    assert_eq!(server.request("PUT", "/api/documents/letter", "Content-Length: 0\r\n").await.status, 201);
    assert_eq!(
        server.post(path, "Content-Type: text/plain; charset=utf-8\r\n", "hällo".as_bytes()).await.status,
        204
    );
    said(&server.post(path, TEXT, &[0xff]).await, 400, "UTF-8");
    said(&server.post(path, JSON, b"{}").await, 415, "text/plain");
    said(&server.post(path, TEXT, &vec![b'x'; 262_145]).await, 413, "262144");
    // It is there, and empty.
    assert_eq!(server.get("/api/documents/letter").await.body, [0, 0]);
    assert_eq!(server.text_of("letter").await, "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_be_saved_that_is_not() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    let on_redis = |config: &mut Config| config.redis = Some(url.clone());
    let server = TestServer::start_with(on_redis).await;
    assert_eq!(server.request("PUT", "/api/documents/letter", "Content-Length: 0\r\n").await.status, 201);
    assert_eq!(server.request("PUT", "/api/documents/notes", "Content-Length: 0\r\n").await.status, 201);
    // Both stay open.
    let _here = [Person::joins(&server, "letter").await, Person::joins(&server, "notes").await];
    redis.kill();
    let doc = new_doc();
    let update = insertion(&doc, 0, "hello");
    let (sent, y_sweet, made) = tokio::join!(
        server.post("/api/documents/letter/updates", "", &update),
        server.post("/d/notes/update", "", &update),
        server.request("PUT", "/api/documents/new", "Content-Length: 0\r\n"),
    );
    said(&sent, 503, "sending it again does no harm");
    said(&y_sweet, 503, "sending it again does no harm");
    said(&made, 503, "");
    // What was said of it is true: it is saved later, and once.
    redis.restart();
    for _ in 0..300 {
        if server.post("/api/documents/letter/updates", "", &update).await.status == 204 {
            break;
        }
    }
    let other = TestServer::start_with(on_redis).await;
    assert_eq!(other.text_of("letter").await, "hello");
    server.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_description_names_every_route_and_what_it_answers() {
    let server = TestServer::start().await;
    let answer = server.get("/api/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let api = body(&answer);
    assert_eq!(api["openapi"], "3.1.0");
    let paths = api["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, operations)| {
        operations.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
    });
    let mut seen = 0;
    for (path, method, operation) in operations {
        seen += 1;
        for status in ["400", "401", "403", "500", "503"] {
            let problem =
                &operation["responses"][status]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{method} {path} {status}");
        }
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
    }
    assert!(seen >= 14, "{seen} operations");
    let page = server.get("/api").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("connect-src 'self'"));
    server.stop().await;
}
