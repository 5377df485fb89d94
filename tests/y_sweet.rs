//! Y-Sweet's HTTP: what is refused, and that nothing of it is in the document then. What works, and the client, is tested
//! with the real packages.

use serde_json::json;

use crate::common::{Person, TestServer, body, insertion, new_doc, said};

#[tokio::test]
async fn a_document_that_was_made_is_there_and_stays() {
    let server = TestServer::start().await;
    said(&server.post("/doc/notes/auth", "", b"{}").await, 404, "notes");
    said(&server.get("/d/notes/as-update").await, 404, "notes");
    assert_eq!(
        body(&server.post("/doc/new", "", br#"{"docId":"notes"}"#).await),
        json!({ "docId": "notes" })
    );
    let server = server.restart().await;
    let answer = server.post("/doc/notes/auth", "", b"").await;
    assert_eq!(
        body(&answer),
        json!({
            "url": "ws://localhost/d/notes/ws", "baseUrl": "http://localhost/d/notes",
            "docId": "notes", "authorization": "full",
        })
    );
    assert_eq!(server.get("/d/notes/as-update").await.body, [0, 0]);
    // A proxy of this machine is believed what it says of its clients.
    let answer = server.post("/doc/notes/auth", "X-Forwarded-Proto: https\r\n", b"{}").await;
    assert_eq!(body(&answer)["url"], "wss://localhost/d/notes/ws");
    said(&server.post("/doc/new", "", br#"{"docId":"a/b"}"#).await, 400, "a/b");
    said(&server.post("/doc/new", "", b"{").await, 400, "the body");
    let answer = server.get("/check_store").await;
    assert!(answer.status == 200 && answer.text().contains(r#"{"ok":true}"#), "{}", answer.text());
}

#[tokio::test]
async fn an_update_is_taken_as_a_whole_or_not_at_all() {
    let server = TestServer::start_with(|config| {
        config.limits.update_bytes = 1_000;
        config.limits.document_bytes = 2_000;
    })
    .await;
    let mut alice = Person::joins(&server, "notes").await;
    let doc = new_doc();
    let (first, second) = (insertion(&doc, 0, "one "), insertion(&doc, 4, "two"));
    said(&server.post("/d/notes/update", "", &second).await, 409, "builds on edits");
    assert_eq!(server.get("/api/documents/notes").await.status, 404);
    assert_eq!(server.post("/d/notes/update", "", &first).await.status, 200);
    assert_eq!(server.post("/doc/notes/update", "", &second).await.status, 200);
    alice.reads("one two").await;
    // Known already.
    assert_eq!(server.post("/d/notes/update", "", &second).await.status, 200);
    said(&server.post("/d/notes/update", "", &[9, 9]).await, 400, "version 1");
    said(&server.post("/d/notes/update", "", &vec![0; 1_001]).await, 413, "--max-update");
    for at in [7, 907] {
        assert_eq!(
            server.post("/d/notes/update", "", &insertion(&doc, at, &"x".repeat(900))).await.status,
            200
        );
    }
    said(
        &server.post("/d/notes/update", "", &insertion(&doc, 0, &"x".repeat(900))).await,
        413,
        "--max-document",
    );
    let server = server.restart().await;
    assert_eq!(server.text_of("notes").await.len(), 1_807);
}
