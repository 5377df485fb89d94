//! What people would complain about where documents are made and deleted: one that comes back by itself, edits that
//! turn up in another document, and one that was deleted by mistake and is gone.

use std::time::Duration;

use quire::{
    backend::{Backend, embedded::Embedded},
    import::{Found, Import},
    level::Level,
    name::DocumentName,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::common::{
    PATIENCE, Person, Raw, TestServer, cluster::Node, insertion, new_doc, redis::RedisServer, secret, token,
};

const LETTER: &str = "/api/documents/letter";

async fn put(server: &TestServer, path: &str) -> u16 {
    server.request("PUT", path, "Content-Length: 0\r\n").await.status
}

async fn delete(server: &TestServer, path: &str) -> u16 {
    server.request("DELETE", path, "").await.status
}

async fn restore(server: &TestServer, path: &str) -> u16 {
    server.post(&format!("{path}/restore"), "", b"").await.status
}

async fn names(server: &TestServer) -> Vec<Value> {
    let page: Value = serde_json::from_slice(&server.get("/api/documents").await.body).unwrap();
    page["documents"].as_array().unwrap().iter().map(|document| document["name"].clone()).collect()
}

/// Makes the letter with these words.
async fn make(server: &TestServer, words: &str) {
    let made = server.post(LETTER, "", &insertion(&new_doc(), 0, words)).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// Waits for what another node needs a moment to hear of.
async fn until_status(server: &TestServer, path: &str, status: u16) {
    let begin = Instant::now();
    while server.get(path).await.status != status {
        assert!(begin.elapsed() < PATIENCE, "{path} never answers {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn is_closed(person: &mut Person, code: u16) {
    let close = person.raw.is_closed().await;
    assert_eq!(u16::from(close.code), code, "{}", close.reason);
}

/// Somebody who comes to the letter is sent away.
async fn is_deleted_for_who_comes(server: &TestServer) {
    let close = Raw::connect(server, "letter").await.is_closed().await;
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4404, "the document was deleted"));
}

#[tokio::test]
async fn a_document_is_made_once_listed_deleted_and_taken_back() {
    let server = TestServer::start().await;
    assert_eq!(delete(&server, LETTER).await, 404);
    assert_eq!(restore(&server, LETTER).await, 404);
    assert_eq!((put(&server, LETTER).await, put(&server, LETTER).await), (201, 200));
    let update = insertion(&new_doc(), 0, "hello");
    assert_eq!(server.post(LETTER, "", &update).await.status, 409, "it is there");
    assert_eq!(server.post("/api/documents/team%2Fplan", "", &update).await.status, 201);
    assert_eq!(server.text_of("team%2Fplan").await, "hello");
    assert_eq!(server.post("/api/documents/team%2Fplan", "", &update).await.status, 409);
    assert_eq!(server.post("/api/documents/bad", "", &[9, 9]).await.status, 400);
    assert_eq!(server.request("PUT", "/api/documents/bad", "Content-Length: 0\r\n").await.status, 201);
    // The last header's end comes after the body here, which nobody reads.
    let refused = server.request("PUT", "/api/documents/other", "Content-Length: 2\r\n\r\n{}").await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(names(&server).await, ["bad", "letter", "team/plan"]);

    let page = |query: &'static str| {
        let server = &server;
        async move {
            let answer = server.get(&format!("/api/documents?{query}")).await;
            (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap())
        }
    };
    let (_, first) = page("limit=2").await;
    assert_eq!(first["next"], "letter");
    let (_, second) = page("limit=2&after=letter").await;
    assert_eq!((&second["documents"][0]["name"], &second["next"]), (&json!("team/plan"), &Value::Null));
    let plan = &page("prefix=team%2F").await.1["documents"][0];
    assert!(plan["bytes"].as_u64().unwrap() > 5 && plan["changed"].as_u64().unwrap() > 1 << 40, "{plan}");
    for (query, reason) in [("limit=0", "from 1 to 1000"), ("limit=1001", "from 1 to 1000"), ("frm=a", "frm")]
    {
        let (status, problem) = page(query).await;
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
    }

    let plan = "/api/documents/team%2Fplan";
    assert_eq!((delete(&server, plan).await, delete(&server, plan).await), (204, 204));
    let server = server.restart().await;
    assert_eq!(names(&server).await, ["bad", "letter"]);
    assert_eq!(server.get(plan).await.status, 404);
    assert_eq!(server.get(&format!("{plan}/raw")).await.status, 404);
    assert_eq!(delete(&server, &format!("{plan}/sessions")).await, 404);
    let json = "Content-Type: application/json\r\n";
    assert_eq!(server.post(&format!("{plan}/versions"), json, b"{}").await.status, 404);
    assert_eq!((restore(&server, plan).await, restore(&server, plan).await), (204, 404));
    assert_eq!(server.text_of("team%2Fplan").await, "hello");
    assert_eq!(delete(&server, &format!("{plan}?purge=true")).await, 204);
    assert_eq!(restore(&server, plan).await, 404);
    assert_eq!(server.get(plan).await.status, 404);
    assert_eq!(server.post(plan, "", &[9, 9]).await.status, 400, "nothing is begun anew for that");
    assert_eq!(server.get("/d/plan/as-update").await.status, 404);
    let made = server.post(plan, "", &update).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(server.text_of("team%2Fplan").await, "hello");
}

#[tokio::test]
async fn nothing_but_its_maker_brings_a_deleted_document_back() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    alice.types("old words").await;
    Person::joins(&server, "letter").await.reads("old words").await;
    alice.types(", unsaved ones").await;
    assert_eq!(delete(&server, LETTER).await, 204);
    is_closed(&mut alice, 4404).await;

    // Offline edits of one who comes again, in every dialect, and all other ways in.
    is_deleted_for_who_comes(&server).await;
    let mut y_sweet = Raw::try_connect_to(&server, "/d/letter/ws/letter", &[]).await.ok().unwrap();
    assert_eq!(u16::from(y_sweet.is_closed().await.code), 4404);
    let mut hocuspocus = Raw::try_connect_to(&server, "/hocuspocus", &[]).await.ok().unwrap();
    hocuspocus.send(b"\x06letter\x02\x00\x00".to_vec()).await;
    let denied = b"\x06letter\x02\x01\x18the document was deleted";
    while hocuspocus.hears_bytes().await != denied {}
    hocuspocus.send(b"\x04poem\x02\x00\x00".to_vec()).await;
    while !hocuspocus.hears_bytes().await.starts_with(b"\x04poem\x02\x02") {}
    let update = insertion(&new_doc(), 0, "hello");
    assert_eq!(server.post("/d/letter/update", "", &update).await.status, 404);
    assert_eq!(server.post("/doc/letter/auth", "", b"{}").await.status, 404);
    assert_eq!(server.post("/doc/new", "", br#"{"docId":"letter"}"#).await.status, 404);
    assert_eq!(server.get(LETTER).await.status, 404);
    let folder = server.stop().await;
    let imported = {
        let backend = std::sync::Arc::new(Embedded::open(folder.path()).unwrap());
        let found =
            Found { name: "letter".to_owned(), updates: Ok(vec![update.into()]), left: Some("".to_owned()) };
        let mut import = Import::start(Box::new([Ok(found)].into_iter()), backend.clone());
        let imported = import.next().await.unwrap().unwrap();
        assert!(import.next().await.is_none());
        backend.close().await.unwrap();
        imported
    };
    assert!(!imported.is_new && imported.refused[0].contains("it was deleted here"), "{imported:?}");

    let server = TestServer::start_in(folder, |_| {}).await;
    is_deleted_for_who_comes(&server).await;
    assert_eq!(put(&server, LETTER).await, 201);
    let mut bob = Person::joins(&server, "letter").await;
    bob.types("new words").await;
    Person::joins(&server, "letter").await.reads("new words").await;
    // What clients kept they still have, and who brings it to the new document adds it there.
    let mut alice = Person::joins_with(&server, "letter", alice.doc).await;
    alice.types("!").await;
    let begin = Instant::now();
    while !bob.sees().contains("old words") {
        assert!(begin.elapsed() < PATIENCE);
        bob.hears_one().await;
    }
}

#[tokio::test]
async fn who_may_list_delete_and_begin_anew() {
    let server = TestServer::start_with(|config| config.authentication.secret = Some(secret())).await;
    let bearer = |document: &str, level| {
        format!("Content-Length: 0\r\nAuthorization: Bearer {}\r\n", token("alice", document, level))
    };
    let (admin, writer, reader) =
        (bearer("team/*", Level::Admin), bearer("team/*", Level::Write), bearer("team/*", Level::Read));
    let plan = "/api/documents/team%2Fplan";
    let ask =
        async |method: &str, path: &str, headers: &str| server.request(method, path, headers).await.status;
    assert_eq!(ask("PUT", plan, "Content-Length: 0\r\n").await, 401);
    assert_eq!(ask("PUT", plan, &reader).await, 403);
    assert_eq!(ask("PUT", plan, &writer).await, 201);
    for (path, allowed) in [("?prefix=team/", 200), ("?prefix=team/p", 200), ("", 403), ("?prefix=tea", 403)]
    {
        assert_eq!(ask("GET", &format!("/api/documents{path}"), &admin).await, allowed, "{path}");
        assert_eq!(ask("GET", &format!("/api/documents{path}"), &writer).await, 403, "{path}");
    }
    assert_eq!(ask("DELETE", plan, &writer).await, 403);
    assert_eq!(ask("DELETE", plan, &admin).await, 204);
    assert_eq!(ask("POST", &format!("{plan}/restore"), &writer).await, 403);
    assert_eq!(ask("PUT", plan, &writer).await, 403, "it would undo the deletion");
    assert_eq!(ask("PUT", plan, &admin).await, 201);
    assert_eq!(ask("PUT", plan, &writer).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_several_nodes_have_open_is_deleted_on_all() {
    let redis = RedisServer::start();
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url())];
    let [one, two] = [&nodes[0].server, &nodes[1].server];
    make(one, "hello").await;
    let (mut alice, mut bob) = (Person::joins(one, "letter").await, Person::joins(two, "letter").await);
    bob.reads("hello").await;
    assert_eq!(delete(one, LETTER).await, 204);
    assert_eq!(one.get(LETTER).await.status, 404);
    is_closed(&mut alice, 4404).await;
    is_closed(&mut bob, 4404).await;
    until_status(two, LETTER, 404).await;
    is_deleted_for_who_comes(one).await;
    is_deleted_for_who_comes(two).await;
    assert_eq!(names(two).await, [""; 0]);

    assert_eq!(restore(two, LETTER).await, 204);
    assert_eq!(one.text_of("letter").await, "hello");
    let mut alice = Person::joins(one, "letter").await;
    let mut bob = Person::joins(two, "letter").await;
    alice.types(" again").await;
    bob.reads("hello again").await;
    assert_eq!(names(one).await, ["letter"]);

    // Not by the channel, which nobody hears at the moment.
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(delete(two, &format!("{LETTER}?purge=true")).await, 204);
    is_closed(&mut bob, 4404).await;
    is_closed(&mut alice, 4404).await;
    assert_eq!(restore(one, LETTER).await, 404);
    assert_eq!(redis.cli(&["KEYS", "quire:{letter}*"]), "quire:{letter}:m", "only that it is deleted");

    assert_eq!(put(one, LETTER).await, 201);
    let mut alice = Person::joins(one, "letter").await;
    let mut bob = Person::joins(two, "letter").await;
    alice.types("new").await;
    bob.reads("new").await;
    assert_eq!(put(two, LETTER).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_brings_nothing_back() {
    let redis = RedisServer::start();
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url())];
    let [one, two] = [&nodes[0].server, &nodes[1].server];
    for (anew, code) in [(false, 4404), (true, 4409)] {
        make(one, "old").await;
        let mut bob = Person::joins(two, "letter").await;
        bob.reads("old").await;
        nodes[1].stop_signal();
        bob.types(" words that nobody has saved").await;
        assert_eq!(delete(one, LETTER).await, 204);
        if anew {
            make(one, "new").await;
        }
        sleep(Duration::from_millis(500)).await;
        nodes[1].cont();
        is_closed(&mut bob, code).await;
        let (status, text) = if anew { (200, "new") } else { (404, "") };
        until_status(two, LETTER, status).await;
        for server in [one, two] {
            let answer = server.get(&format!("{LETTER}?format=text")).await;
            assert_eq!(answer.status, status);
            assert!(!anew || answer.text() == text, "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_was_deleted_without_time_is_gone() {
    let folder = TempDir::new().unwrap();
    let server = TestServer::start_in(folder, |config| config.keep_deleted = Duration::ZERO).await;
    make(&server, "hello").await;
    assert_eq!(delete(&server, LETTER).await, 204);
    assert_eq!(restore(&server, LETTER).await, 404);
    let folder = server.stop().await;
    let backend = Embedded::open(folder.path()).unwrap();
    let letter = DocumentName::new("letter").unwrap();
    assert!(!backend.undelete(&letter).await.unwrap());
    assert!(backend.load(&letter).await.is_err());
}
