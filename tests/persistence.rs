//! What people would complain about who come back later: text that was there and is gone.

use std::time::Duration;

use quire::protocol::{self, Message};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::common::{Person, Raw, TestServer, insertion, new_doc, within};

#[tokio::test]
async fn a_restart_keeps_everything() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    for word in ["one", " two", " three"] {
        alice.types(word).await;
    }
    alice.reads("one two three").await;
    Person::joins(&server, "letter").await.reads("one two three").await;
    let server = server.restart().await;
    assert_eq!(server.text_of("letter").await, "one two three");
    Person::joins(&server, "letter").await.reads("one two three").await;
}

#[tokio::test]
async fn a_stop_closes_sessions_with_1012_and_saves_what_was_just_typed() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    alice.types("hello").await;
    bob.reads("hello").await;
    let (folder, close) = tokio::join!(server.stop(), alice.raw.is_closed());
    assert_eq!(u16::from(close.code), 1012);
    let server = TestServer::start_on(folder, Duration::from_secs(30)).await;
    assert_eq!(server.text_of("letter").await, "hello");
}

#[tokio::test]
async fn a_document_that_nobody_uses_leaves_memory_and_comes_back() {
    let server = TestServer::start_on(TempDir::new().unwrap(), Duration::ZERO).await;
    for round in 0..20 {
        let mut alice = Person::joins(&server, "letter").await;
        alice.types("x").await;
        let text = "x".repeat(round + 1);
        alice.reads(&text).await;
        // Joining while it is about to leave is the interesting moment.
        if round % 2 == 0 {
            drop(alice);
            within(async {
                while !server.get("/readyz").await.text().contains("\"documents\":0") {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
    assert_eq!(server.text_of("letter").await, "x".repeat(20));
}

#[tokio::test]
async fn a_long_log_becomes_a_snapshot_and_says_the_same() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter?echo=saved").await;
    alice.is_greeted().await;
    let doc = new_doc();
    for index in 0..300 {
        let update = insertion(&doc, index * 1_000, &"abcdefghij".repeat(100));
        alice.send(protocol::update(&update)).await;
        // One record each: the next is sent when this one is saved.
        assert!(matches!(alice.hears().await, Message::Update(_)));
    }
    let database = Connection::open(server.folder.path().join("quire.db")).unwrap();
    let count = |table| {
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    within(async {
        while count("snapshot") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(count("log") < 300, "the snapshot stands in place of what it contains");
    let server = server.restart().await;
    assert_eq!(server.text_of("letter").await, "abcdefghij".repeat(30_000));
}

#[tokio::test]
async fn a_document_that_cannot_be_read_is_refused_and_never_overwritten() {
    let server = TestServer::start().await;
    for name in ["letter", "other"] {
        let mut alice = Person::joins(&server, name).await;
        alice.types("hello").await;
        Person::joins(&server, name).await.reads("hello").await;
    }
    let folder = server.stop().await;
    let damage =
        "UPDATE log SET record = x'01FF' WHERE document = (SELECT id FROM document WHERE name = 'letter')";
    let database = Connection::open(folder.path().join("quire.db")).unwrap();
    assert!(database.execute(damage, []).unwrap() > 0);
    drop(database);
    let damaged = records(&folder);

    let server = TestServer::start_on(folder, Duration::ZERO).await;
    let mut alice = Raw::connect(&server, "letter").await;
    let close = alice.is_closed().await;
    assert_eq!(u16::from(close.code), 1011);
    assert!(close.reason.contains("damaged"), "{}", close.reason);
    let refused = server.get("/api/documents/letter").await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("damaged"), "{}", refused.text());
    assert_eq!(server.text_of("other").await, "hello");
    let folder = server.stop().await;
    assert_eq!(records(&folder), damaged);
}

/// All records of the log, as they are.
fn records(folder: &TempDir) -> Vec<Vec<u8>> {
    let database = Connection::open(folder.path().join("quire.db")).unwrap();
    let mut rows = database.prepare("SELECT record FROM log ORDER BY document, position").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}
