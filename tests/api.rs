//! What applications would complain about that ask for documents over HTTP.

use std::time::Duration;

use quire::protocol;
use serde_json::{Value, json};
use tempfile::TempDir;
use yrs::{
    Any, Array, ArrayPrelim, Doc, Map, MapPrelim, ReadTxn, StateVector, Text, TextPrelim, Transact, Update,
    WriteTxn, Xml, XmlElementPrelim, XmlFragment, XmlTextPrelim,
    updates::{decoder::Decode, encoder::Encode},
};

use crate::common::{Person, Raw, TestServer, insertion, new_doc};

/// A document with a root type of each kind.
fn rich_document() -> Doc {
    let doc = new_doc();
    let mut transaction = doc.transact_mut();
    let text = transaction.get_or_insert_text("text");
    text.insert(&mut transaction, 0, "héllo 📝 world");
    let map = transaction.get_or_insert_map("map");
    map.insert(&mut transaction, "number", 1.5);
    map.insert(&mut transaction, "bytes", vec![1_u8, 2]);
    map.insert(&mut transaction, "nested", MapPrelim::from([("deep", TextPrelim::new("text"))]));
    let array = transaction.get_or_insert_array("array");
    array.push_back(&mut transaction, Any::Null);
    array.push_back(&mut transaction, "📝");
    array.push_back(&mut transaction, ArrayPrelim::from([1, 2]));
    let xml = transaction.get_or_insert_xml_fragment("xml");
    let heading = xml.push_back(&mut transaction, XmlElementPrelim::empty("heading"));
    heading.insert_attribute(&mut transaction, "level", "1 & <2>");
    heading.push_back(&mut transaction, XmlTextPrelim::new("Title"));
    let paragraph = xml.push_back(&mut transaction, XmlElementPrelim::empty("paragraph"));
    let words = paragraph.push_back(&mut transaction, XmlTextPrelim::new("a < b"));
    words.format(&mut transaction, 0, 1, [("bold".into(), true.into())].into());
    paragraph.push_back(&mut transaction, XmlElementPrelim::empty("hardBreak"));
    paragraph.push_back(&mut transaction, XmlTextPrelim::new("next line"));
    drop(transaction);
    doc
}

async fn served(server: &TestServer, name: &str, doc: &Doc) {
    let mut raw = Raw::connect(server, &format!("{name}?echo=saved")).await;
    raw.is_greeted().await;
    let update = doc.transact().encode_state_as_update_v1(&StateVector::default());
    raw.send(protocol::update(&update)).await;
    raw.hears().await;
}

#[tokio::test]
async fn every_format_has_the_whole_document() {
    let server = TestServer::start().await;
    let doc = rich_document();
    served(&server, "rich", &doc).await;

    let update = server.get("/api/documents/rich").await;
    assert_eq!((update.status, update.header("content-type")), (200, Some("application/octet-stream")));
    let copy = Doc::new();
    copy.transact_mut().apply_update(Update::decode_v1(&update.body).unwrap()).unwrap();
    let state_vector = doc.transact().state_vector();
    assert_eq!(copy.transact().state_vector(), state_vector);

    let answer = server.get("/api/documents/rich?format=state-vector").await;
    assert_eq!(StateVector::decode_v1(&answer.body).unwrap(), state_vector);
    assert_eq!(StateVector::decode_v1(&state_vector.encode_v1()).unwrap(), state_vector);

    let answer = server.get("/api/documents/rich?format=json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let found: Value = serde_json::from_slice(&answer.body).unwrap();
    let xml = "<heading level=\"1 &amp; &lt;2&gt;\">Title</heading><paragraph><bold>a</bold> &lt; b<hardBreak></hardBreak>next line</paragraph>";
    let expected = json!({
        "text": "héllo 📝 world",
        "map": { "number": 1.5, "bytes": "AQI=", "nested": { "deep": "text" } },
        "array": [null, "📝", [1, 2]],
        "xml": xml,
    });
    assert_eq!(found, expected);

    let answer = server.get("/api/documents/rich?format=text").await;
    assert_eq!(answer.text(), "héllo 📝 world\n\nTitle\na < b\nnext line");

    let answer = server.get("/api/documents/rich?format=xml").await;
    assert_eq!(answer.text(), format!("<document><fragment name=\"xml\">{xml}</fragment></document>"));
}

#[tokio::test]
async fn the_accept_header_chooses_where_the_address_does_not() {
    let server = TestServer::start().await;
    Person::joins(&server, "letter").await.types("hello").await;
    Person::joins(&server, "letter").await.reads("hello").await;
    let text = server.get_with("/api/documents/letter", "Accept: text/plain\r\n").await;
    assert_eq!(text.text(), "hello");
    let json = server.get_with("/api/documents/letter?format=json", "Accept: text/plain\r\n").await;
    assert_eq!(json.text(), "{\"text\":\"hello\"}");
    assert_eq!(
        server.get_with("/api/documents/letter", "Accept: Application/JSON\r\n").await.text(),
        json.text()
    );
    let html = server.get_with("/api/documents/letter", "Accept: text/html\r\n").await;
    assert_eq!(html.text(), "<p>hello</p>");
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(html.header("content-security-policy"), Some("sandbox"));
    assert_eq!(server.get("/api/documents/letter?format=delta").await.text(), "[{\"insert\":\"hello\"}]");
    assert_eq!(server.get_with("/api/documents/letter", "Accept: image/png\r\n").await.status, 406);
    let posted = server.request("POST", "/api/documents/letter/raw", "Content-Length: 0\r\n").await;
    assert_eq!((posted.status, posted.header("content-type")), (405, Some("application/problem+json")));
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    alice.types("hello").await;
    Person::joins(&server, "letter").await.reads("hello").await;
    let path = "/api/documents/letter?format=text";
    let first = server.get(path).await;
    let etag = first.header("etag").unwrap().to_owned();
    let asked = format!("If-None-Match: \"other\", {etag}\r\n");
    let again = server.get_with(path, &asked).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), Some(&*etag));
    let other_format = server.get_with("/api/documents/letter?format=json", &asked).await;
    assert_eq!(other_format.status, 200);
    let head = server.request("HEAD", path, "").await;
    assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, Some(&*etag)));
    // A deletion changes no state vector, but the document.
    let deletion = alice.edit(|text, transaction| text.remove_range(transaction, 0, 1));
    alice.raw.send(protocol::update(&deletion)).await;
    Person::joins(&server, "letter").await.reads("ello").await;
    let changed = server.get_with(path, &asked).await;
    assert_eq!((changed.status, changed.text()), (200, "ello".to_owned()));
    // The same document has the same tag after a restart.
    let server = server.restart().await;
    assert_eq!(server.get(path).await.header("etag"), changed.header("etag"));
}

#[tokio::test]
async fn an_unknown_document_or_a_bad_question_is_an_error_with_a_body() {
    let server = TestServer::start_on(TempDir::new().unwrap(), Duration::ZERO).await;
    Person::joins(&server, "letter").await.types("hello").await;
    Person::joins(&server, "letter").await.reads("hello").await;
    let long = format!("/api/documents/{}", "x".repeat(1_001));
    let cases = [
        ("/api/documents/nothing", 404, "nothing"),
        (
            "/api/documents/letter?format=docx",
            400,
            "update, state-vector, json, text, xml, prosemirror, delta, html",
        ),
        ("/api/documents/letter?form=json", 400, "form"),
        ("/api/documents/letter?root=text", 400, "root=content:text"),
        ("/api/documents/letter?root=text:number", 400, "text, map, array, xml"),
        ("/api/documents/letter?format=json&root=text:array", 400, "it holds text"),
        (&long, 400, "1001"),
        ("/api/nothing", 404, "/api/nothing"),
        ("/api/documents/%FF", 400, "UTF-8"),
        ("/ws/letter", 400, "upgrade"),
    ];
    for (path, status, detail) in cases {
        let answer = server.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status"], status);
        assert!(body["detail"].as_str().unwrap().contains(detail), "{path}: {body}");
    }
}

#[tokio::test]
async fn what_a_root_is_can_be_told_where_nobody_can_know_it() {
    let server = TestServer::start().await;
    let doc = new_doc();
    insertion(&doc, 0, "hello");
    doc.get_or_insert_text("text").remove_range(&mut doc.transact_mut(), 0, 5);
    served(&server, "letter", &doc).await;
    // After a restart only deleted content is left, which says nothing about its kind.
    let server = server.restart().await;
    assert_eq!(server.get("/api/documents/letter?format=json").await.text(), "{\"text\":null}");
    assert_eq!(
        server.get("/api/documents/letter?format=json&root=text:text").await.text(),
        "{\"text\":\"\"}"
    );
    assert_eq!(server.get("/api/documents/letter?format=json&root=text:array").await.text(), "{\"text\":[]}");
}

#[tokio::test]
async fn the_demo_and_the_health_pages_are_served() {
    let server = TestServer::start().await;
    let page = server.get("/?document=letter").await;
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-cache")));
    let page = page.text();
    let script = page.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let script = server.get(&script).await;
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    assert!(script.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(server.get("/healthz").await.status, 200);
    let ready: Value = serde_json::from_slice(&server.get("/readyz").await.body).unwrap();
    let expected = json!({
        "ready": true, "status": "ready", "draining": false, "over": [], "documents": 0, "backend": "reachable", "reason": null,
    });
    assert_eq!(ready, expected);
}
