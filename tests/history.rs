//! What people would complain about who look back: a version that is missing, wrong, or does not come back; somebody
//! else's name on their words; a history that takes too much.

use std::{io::Read, sync::Arc, time::Duration};

use bytes::Bytes;
use quire::{
    backend::{Backend, embedded::Embedded},
    config::Config,
    document::Document,
    history,
    level::Level,
    name::DocumentName,
    record::{self, Authored, Record},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use yrs::{Text, Transact};

use crate::common::{
    JSON, PATIENCE, Person, TestServer, body, insertion, new_doc, redis::RedisServer, said, secret, token,
};

/// Keeps a version, and answers its id.
async fn keep(server: &TestServer, document: &str, name: &str) -> String {
    let named = json!({ "name": name }).to_string();
    let answer = server.post(&format!("/api/documents/{document}/versions"), JSON, named.as_bytes()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    body(&answer)["id"].as_str().unwrap().to_owned()
}

async fn versions(server: &TestServer, document: &str) -> Vec<Value> {
    let answer = server.get(&format!("/api/documents/{document}/versions?limit=1000")).await;
    body(&answer)["versions"].as_array().cloned().unwrap_or_default()
}

async fn text_of(server: &TestServer, document: &str, version: &str) -> String {
    let answer = server.get(&format!("/api/documents/{document}/versions/{version}?format=text")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

async fn restore(server: &TestServer, document: &str, version: &str) -> String {
    let path = format!("/api/documents/{document}/versions/{version}/restore");
    let answer = server.post(&path, "", b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    body(&answer)["before"].as_str().unwrap().to_owned()
}

/// A paper that was really typed: its edits as updates. The first part of it, unless all of it is asked for.
fn paper() -> Vec<Bytes> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/traces/automerge-paper.json.gz");
    let mut json = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut json).unwrap();
    let trace: Value = serde_json::from_str(&json).unwrap();
    let doc = new_doc();
    let text = doc.get_or_insert_text("text");
    let mut updates = Vec::new();
    let part = if std::env::var_os("QUIRE_TEST_WHOLE_PAPER").is_some() { usize::MAX } else { 40_000 };
    for transaction in trace["txns"].as_array().unwrap().iter().take(part) {
        for patch in transaction["patches"].as_array().unwrap() {
            let number = |index: usize| patch[index].as_u64().unwrap() as u32;
            let mut transaction = doc.transact_mut();
            text.remove_range(&mut transaction, number(0), number(1));
            text.insert(&mut transaction, number(0), patch[2].as_str().unwrap());
            updates.push(transaction.encode_update_v1().into());
        }
    }
    updates
}

#[tokio::test(flavor = "multi_thread")]
async fn any_of_fifty_versions_of_a_paper_comes_back_while_people_type() {
    let server = TestServer::start().await;
    let updates = paper();
    let mut known = Vec::new();
    let mut document = Document::default();
    for part in updates.chunks(updates.len() / 50 + 1) {
        let before = document.state_vector();
        for update in part {
            document.receive(update.clone()).unwrap();
        }
        let answer = server.post("/api/documents/paper/updates", "", &document.diff(&before).unwrap()).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        let version = keep(&server, "paper", &format!("part {}", known.len())).await;
        known.push((version, server.text_of("paper").await));
    }
    assert_eq!(known.len(), 50);
    let listed: Vec<String> = versions(&server, "paper")
        .await
        .iter()
        .rev()
        .map(|version| version["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, known.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
    for (id, text) in &known {
        assert!(text_of(&server, "paper", id).await == *text, "version {id}");
    }
    let (mut alice, mut bob) = (Person::joins(&server, "paper").await, Person::joins(&server, "paper").await);
    for number in [3, 49, 0, 27, 12, 40] {
        let (id, text) = &known[number];
        let mut words = Vec::new();
        let typing = async {
            for word in 0..40 {
                let word = format!("<{number}.{word}>");
                alice.types(&word).await;
                words.push(word);
                // What is here is taken in, so that the next word stands behind it.
                alice.catches_up().await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::join!(typing, restore(&server, "paper", id));
        let start = Instant::now();
        loop {
            alice.catches_up().await;
            bob.catches_up().await;
            if alice.sees() == bob.sees() && alice.sees() == server.text_of("paper").await {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "they do not agree");
        }
        // What was typed after stands behind the version's text; what was typed before is gone.
        let seen = alice.sees();
        let rest = seen.strip_prefix(text.as_str());
        let rest = rest.unwrap_or_else(|| panic!("version {number} is not what is there"));
        assert!(words.concat().ends_with(rest), "{rest}");
    }
    // The way back.
    let before = server.text_of("paper").await;
    let kept = restore(&server, "paper", &known[20].0).await;
    assert!(server.text_of("paper").await == known[20].1);
    restore(&server, "paper", &kept).await;
    assert!(server.text_of("paper").await == before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_edits_costs_little() {
    let updates = paper();
    let folder = TempDir::new().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
    let name = DocumentName::new("paper").unwrap();
    let mut document = Document::default();
    // Typed with pauses: a version every two thousand edits.
    for (session, part) in updates.chunks(2_000).enumerate() {
        let mut through = Default::default();
        for (record, updates) in part.chunks(20).enumerate() {
            for update in updates {
                document.receive(update.clone()).unwrap();
            }
            let by = |update: &Bytes| Authored { update: update.clone(), user: Some("alice".into()) };
            let time = (session * 86_400_000 + record * 1_000) as u64;
            let record = Record { time, updates: updates.iter().map(by).collect() };
            through = backend.append(&name, record.write()).await.unwrap().position;
        }
        let (update, _) = document.snapshot().unwrap();
        let segment = history::gather(&*backend, &name, through, update.len()).await.unwrap();
        assert!(segment.is_some());
        let snapshot = record::write_snapshot(&update).unwrap();
        backend.compact(&name, through, snapshot, segment).await.unwrap();
    }
    let versions = history::versions(&*backend, &name).await.unwrap();
    let bytes: u64 = versions.iter().map(|version| version.about.bytes).sum();
    println!("{} versions of {} edits take {bytes} bytes", versions.len(), updates.len());
    // The whole paper's 259,778 edits take 985 KB as a log under zstd.
    let log = 985_000 * updates.len() as u64 / 259_778;
    assert!(versions.len() == updates.len().div_ceil(2_000) && bytes < 3 * log, "{bytes} bytes");
    // What opening reads does not grow with the history.
    let stored = backend.load(&name).await.unwrap();
    assert!(stored.log.is_empty() && stored.snapshot.unwrap().len() < 400_000);
    let last = versions.last().unwrap().id;
    let read = history::content(&*backend, &name, last).await.unwrap().unwrap();
    assert_eq!(read.fingerprint().unwrap(), document.fingerprint().unwrap());
    let now = Document::load(&[document.diff(&Default::default()).unwrap()]).unwrap();
    let parts = history::attributed(&*backend, &name, now).await.unwrap();
    assert_eq!(parts.len(), 1, "it is all hers");
    assert_eq!(parts[0].user.as_deref(), Some("alice"));
    backend.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_answered_stays_when_versions_are_joined() {
    let folder = TempDir::new().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(Embedded::open(folder.path()).unwrap());
    let updates = paper();
    for round in 0..10 {
        let name = DocumentName::new(&format!("paper {round}")).unwrap();
        let mut ids = Vec::new();
        for part in updates[..8_000].chunks(4_000) {
            let updates = part.iter().map(|update| Authored { update: update.clone(), user: None }).collect();
            let record = Record { time: 0, updates };
            let through = backend.append(&name, record.write()).await.unwrap().position;
            let segment = history::gather(&*backend, &name, through, 0).await.unwrap();
            let snapshot = record::write_snapshot(&[0, 0]).unwrap();
            backend.compact(&name, through, snapshot, segment).await.unwrap();
            ids.push(through);
        }
        // While the two are merged, the second one gets a name.
        let naming = async {
            sleep(Duration::from_millis(round)).await;
            history::rename(&*backend, &name, ids[1], Some("final".to_owned()), None).await
        };
        let (removed, named) = tokio::join!(history::remove(&*backend, &name, ids[0]), naming);
        assert_eq!((removed, named), (Ok(true), Ok(true)));
        let left = history::versions(&*backend, &name).await.unwrap();
        assert_eq!((left.len(), left[0].about.name.as_deref()), (1, Some("final")), "round {round}");
    }
    backend.close().await.unwrap();
}

fn with_secret(config: &mut Config) {
    config.authentication.secret = Some(secret());
}

#[tokio::test]
async fn who_wrote_what_is_known() {
    let server = TestServer::start_with(with_secret).await;
    let admin = format!("Authorization: Bearer {}\r\n", token("root", "*", Level::Admin));
    let (alice, bob) = (token("alice", "*", Level::Write), token("bob", "*", Level::Write));
    let mut alice = Person::joins(&server, &format!("letter?token={alice}")).await;
    alice.types("Dear Bob, how are you?").await;
    let mut bob = Person::joins(&server, &format!("letter?token={bob}")).await;
    bob.reads("Dear Bob, how are you?").await;
    let get = async |path: &str| {
        let answer = server.get_with(&format!("/api/documents/letter/{path}"), &admin).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        body(&answer)
    };
    let headers = format!("{JSON}{admin}");
    let first = server.post("/api/documents/letter/versions", &headers, br#"{"name":"first"}"#).await;
    let first = body(&first);
    assert_eq!(
        (&first["users"], &first["name"], &first["namedBy"]),
        (&json!(["alice"]), &json!("first"), &json!("root"))
    );
    let update = bob.edit(|text, transaction| {
        text.remove_range(transaction, 5, 3);
        text.insert(transaction, 5, "Alice");
    });
    bob.raw.send(quire::protocol::update(&update)).await;
    bob.types(" Well.").await;
    alice.reads("Dear Alice, how are you? Well.").await;
    let second = body(&server.post("/api/documents/letter/versions", &headers, b"{}").await);
    assert_eq!((&second["users"], &second["name"]), (&json!(["bob"]), &Value::Null));
    let part = |user: &str, text: &str| json!({ "root": "text", "user": user, "text": text });
    assert_eq!(
        get("attribution").await["parts"],
        json!([
            part("alice", "Dear "),
            part("bob", "Alice"),
            part("alice", ", how are you?"),
            part("bob", " Well.")
        ])
    );
    let changed = |change: &str, user: &str, text: &str| json!({ "root": "text", "change": change, "user": user, "text": text });
    let changes = get(&format!("versions/{}/changes", second["id"].as_str().unwrap())).await;
    assert_eq!(
        changes["parts"],
        json!([
            changed("kept", "alice", "Dear "),
            changed("deleted", "bob", "Bob"),
            changed("inserted", "bob", "Alice"),
            changed("kept", "alice", ", how are you?"),
            changed("inserted", "bob", " Well."),
        ])
    );
    let since_the_beginning = get(&format!("versions/{}/changes", first["id"].as_str().unwrap())).await;
    assert_eq!(since_the_beginning["parts"], json!([changed("inserted", "alice", "Dear Bob, how are you?")]));
    // With now, and who changed what since.
    let update = alice.edit(|text, transaction| text.insert(transaction, 0, "Oh! "));
    alice.raw.send(quire::protocol::update(&update)).await;
    bob.reads("Oh! Dear Alice, how are you? Well.").await;
    let since = format!("changes?since={}", second["id"].as_str().unwrap());
    let expected = [changed("inserted", "alice", "Oh! "), changed("kept", "alice", "Dear ")];
    // Who wrote something is known when it is saved.
    let deadline = Instant::now() + PATIENCE;
    while get(&since).await["parts"].as_array().unwrap()[..2] != expected {
        assert!(Instant::now() < deadline, "{}", get(&since).await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get("changes").await, get(&since).await, "the newest version is the one to compare with");
    said(&server.get_with("/api/documents/letter/changes?since=0-999", &admin).await, 404, "0-999");
    // Readers may look, and not change.
    let reader = format!("{JSON}Authorization: Bearer {}\r\n", token("rita", "*", Level::Read));
    assert_eq!(server.get_with("/api/documents/letter/versions", &reader).await.status, 200);
    let restore = format!("/api/documents/letter/versions/{}/restore", first["id"].as_str().unwrap());
    said(&server.post(&restore, &reader, b"").await, 403, "Write");
    said(&server.post("/api/documents/letter/versions", &reader, b"{}").await, 403, "Write");
    let writer = format!("Authorization: Bearer {}\r\n", token("bob", "*", Level::Write));
    let version = format!("/api/documents/letter/versions/{}", first["id"].as_str().unwrap());
    said(&server.request("DELETE", &version, &writer).await, 403, "Admin");
    // What a restored version brings back is of who restored it.
    assert_eq!(server.post(&restore, &admin, b"").await.status, 200);
    alice.reads("Dear Bob, how are you?").await;
    assert_eq!(
        get("attribution").await["parts"],
        json!([part("alice", "Dear "), part("root", "Bob"), part("alice", ", how are you?")])
    );
    server.stop().await;
}

#[tokio::test]
async fn versions_are_kept_by_themselves_and_survive() {
    let server = TestServer::start_with(|config| {
        config.history.pause = Duration::from_secs(1);
        config.history.every = Duration::from_secs(1);
    })
    .await;
    let mut alice = Person::joins(&server, "letter").await;
    alice.types("one").await;
    let start = Instant::now();
    while versions(&server, "letter").await.is_empty() {
        assert!(start.elapsed() < PATIENCE, "no version after a pause");
        sleep(Duration::from_millis(100)).await;
    }
    alice.types(" two").await;
    drop(alice);
    // It leaves memory, and a version is kept then if not before.
    let start = Instant::now();
    while versions(&server, "letter").await.len() < 2 {
        assert!(start.elapsed() < PATIENCE, "no version after the last one has left");
        sleep(Duration::from_millis(100)).await;
    }
    let server = server.restart().await;
    let kept = versions(&server, "letter").await;
    assert_eq!(text_of(&server, "letter", kept[1]["id"].as_str().unwrap()).await, "one");
    assert_eq!(text_of(&server, "letter", kept[0]["id"].as_str().unwrap()).await, "one two");
    assert!(
        kept[0]["time"].as_u64() > kept[1]["time"].as_u64()
            && kept[1]["time"].as_u64() > Some(1_700_000_000_000)
    );
    // Gone with the document, and back with it.
    assert_eq!(server.request("DELETE", "/api/documents/letter", "").await.status, 204);
    said(&server.get("/api/documents/letter/versions").await, 404, "letter");
    assert_eq!(server.post("/api/documents/letter/restore", "", b"").await.status, 204);
    assert_eq!(versions(&server, "letter").await, kept);
    assert_eq!(server.request("DELETE", "/api/documents/letter", "").await.status, 204);
    assert_eq!(server.request("PUT", "/api/documents/letter", "Content-Length: 0\r\n").await.status, 201);
    assert!(versions(&server, "letter").await.is_empty(), "the new one has the history of the old one");
    server.stop().await;
}

#[tokio::test]
async fn versions_are_named_listed_and_deleted() {
    let server = TestServer::start().await;
    said(&server.get("/api/documents/letter/versions").await, 404, "letter");
    let doc = new_doc();
    let mut ids = Vec::new();
    for (at, word) in [(0, "one "), (4, "two "), (8, "three")] {
        assert_eq!(
            server.post("/api/documents/letter/updates", "", &insertion(&doc, at, word)).await.status,
            204
        );
        ids.push(keep(&server, "letter", word.trim()).await);
    }
    // Nothing new: the newest one gets the name.
    assert_eq!(keep(&server, "letter", "last").await, ids[2]);
    let page = body(&server.get("/api/documents/letter/versions?limit=2").await);
    assert_eq!(page["versions"].as_array().unwrap().len(), 2);
    assert_eq!((&page["versions"][0]["name"], &page["next"]), (&json!("last"), &json!(ids[1])));
    let page = body(&server.get(&format!("/api/documents/letter/versions?before={}", ids[1])).await);
    assert_eq!((page["versions"][0]["id"].as_str(), &page["next"]), (Some(&*ids[0]), &Value::Null));
    let path = |id: &str| format!("/api/documents/letter/versions/{id}");
    let patch = async |id: &str, body: &str| {
        let headers = format!("{JSON}Content-Length: {}\r\n", body.len());
        server.request_with("PATCH", &path(id), &headers, body.as_bytes()).await
    };
    assert_eq!(patch(&ids[0], r#"{"name":"ONE"}"#).await.status, 204);
    said(&patch("0-999", r#"{"name":"x"}"#).await, 404, "0-999");
    said(&patch("first", r#"{"name":"x"}"#).await, 400, "look like");
    said(&patch(&ids[0], &format!(r#"{{"name":"{}"}}"#, "x".repeat(257))).await, 422, "257 bytes");
    said(&patch(&ids[0], r#"{"nome":"x"}"#).await, 422, "nome");
    // The one in the middle: what it changed belongs to the next one.
    assert_eq!(server.request("DELETE", &path(&ids[1]), "").await.status, 204);
    said(&server.request("DELETE", &path(&ids[1]), "").await, 404, &ids[1]);
    said(&server.get(&path(&ids[1])).await, 404, &ids[1]);
    assert_eq!(text_of(&server, "letter", &ids[0]).await, "one ");
    assert_eq!(text_of(&server, "letter", &ids[2]).await, "one two three");
    let changes = body(&server.get(&format!("{}/changes", path(&ids[2]))).await);
    assert_eq!(
        changes["parts"][1],
        json!({ "root": "text", "change": "inserted", "user": null, "text": "two three" })
    );
    // The newest one only loses its name.
    assert_eq!(server.request("DELETE", &path(&ids[2]), "").await.status, 204);
    let left = versions(&server, "letter").await;
    assert_eq!((left.len(), &left[0]["name"], &left[1]["name"]), (2, &Value::Null, &json!("ONE")));
    for format in ["update", "json", "html", "markdown", "delta", "state-vector"] {
        assert_eq!(server.get(&format!("{}?format={format}", path(&ids[0]))).await.status, 200, "{format}");
    }
    said(&server.get(&format!("{}?format=pdf", path(&ids[0]))).await, 400, "pdf");
    said(&server.get("/api/documents/letter/versions?limit=0").await, 400, "limit=0");
    server.stop().await;
}

#[tokio::test]
async fn a_history_can_be_switched_off_and_is_bounded() {
    let server = TestServer::start_with(|config| config.history.off = true).await;
    let doc = new_doc();
    assert_eq!(
        server.post("/api/documents/letter/updates", "", &insertion(&doc, 0, "one")).await.status,
        204
    );
    said(&server.post("/api/documents/letter/versions", JSON, b"{}").await, 409, "--no-history");
    assert!(versions(&server, "letter").await.is_empty());
    let folder = server.stop().await;

    let server = TestServer::start_in(folder, |config| config.history.bytes = 20_000).await;
    // What was there before belongs to the first version.
    let noise = |seed: u64| -> String {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut letter = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'a' + (state % 26) as u8)
        };
        (0..2_000).map(|_| letter()).collect()
    };
    let mut last = String::new();
    for seed in 1..=40 {
        last = noise(seed);
        let length = doc.get_or_insert_text("text").len(&doc.transact());
        let mut transaction = doc.transact_mut();
        let text = yrs::WriteTxn::get_or_insert_text(&mut transaction, "text");
        text.remove_range(&mut transaction, 0, length);
        text.insert(&mut transaction, 0, &last);
        let update = transaction.encode_update_v1();
        drop(transaction);
        assert_eq!(server.post("/api/documents/letter/updates", "", &update).await.status, 204);
        keep(&server, "letter", "x").await;
    }
    let left = versions(&server, "letter").await;
    assert!(left.len() > 3 && left.len() < 25, "{} versions", left.len());
    assert_eq!(text_of(&server, "letter", left[0]["id"].as_str().unwrap()).await, last);
    for version in &left {
        assert_eq!(text_of(&server, "letter", version["id"].as_str().unwrap()).await.len(), 2_000);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_time_without_history_leaves_no_hole_in_it() {
    let server = TestServer::start().await;
    let doc = new_doc();
    let mut written = String::new();
    let mut write = async |server: &TestServer, word: &str| {
        let update = insertion(&doc, written.len() as u32, word);
        assert_eq!(server.post("/api/documents/letter/updates", "", &update).await.status, 204);
        written.push_str(word);
        written.clone()
    };
    write(&server, "one").await;
    let first = keep(&server, "letter", "first").await;
    let folder = server.stop().await;

    // Enough that the log is compacted when the document leaves memory.
    let off = |config: &mut Config| {
        config.history.off = true;
        config.idle = Duration::from_millis(100);
    };
    let server = TestServer::start_in(folder, off).await;
    for _ in 0..40 {
        write(&server, " two").await;
    }
    said(&server.post("/api/documents/letter/versions", JSON, br#"{"name":"x"}"#).await, 409, "--no-history");
    assert_eq!(versions(&server, "letter").await[0]["name"], "first");
    let start = Instant::now();
    while body(&server.get("/api/documents/letter/stats").await)["logRecords"] != 0 {
        assert!(start.elapsed() < PATIENCE, "the log is not compacted");
        sleep(Duration::from_millis(300)).await;
    }
    let server = TestServer::start_in(server.stop().await, |_| ()).await;
    let whole = write(&server, " three").await;
    let third = keep(&server, "letter", "third").await;
    assert_eq!(text_of(&server, "letter", &first).await, "one");
    assert_eq!(text_of(&server, "letter", &third).await, whole);

    // What a version is restored over is lost where no history is kept, and no older version is said to be that.
    let server = TestServer::start_in(server.stop().await, off).await;
    write(&server, " four").await;
    let restored = server.post(&format!("/api/documents/letter/versions/{third}/restore"), "", b"").await;
    assert_eq!((restored.status, &body(&restored)["before"]), (200, &Value::Null));
    assert_eq!(server.text_of("letter").await, whole);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_that_of_all_nodes() {
    let redis = RedisServer::start();
    let on_redis = |config: &mut Config| config.redis = Some(redis.url());
    let (here, there) = (TestServer::start_with(on_redis).await, TestServer::start_with(on_redis).await);
    let mut alice = Person::joins(&here, "letter").await;
    let mut bob = Person::joins(&there, "letter").await;
    alice.types("one").await;
    bob.reads("one").await;
    let first = keep(&there, "letter", "first").await;
    bob.types(" two").await;
    alice.reads("one two").await;
    let second = keep(&here, "letter", "second").await;
    for node in [&here, &there] {
        assert_eq!(text_of(node, "letter", &first).await, "one");
        assert_eq!(text_of(node, "letter", &second).await, "one two");
        assert_eq!(versions(node, "letter").await.len(), 2);
    }
    let before = restore(&there, "letter", &first).await;
    alice.reads("one").await;
    bob.reads("one").await;
    restore(&here, "letter", &before).await;
    alice.reads("one two").await;
    bob.reads("one two").await;
    assert_eq!(
        here.request("DELETE", &format!("/api/documents/letter/versions/{first}"), "").await.status,
        204
    );
    assert_eq!(there.get(&format!("/api/documents/letter/versions/{first}")).await.status, 404);
    here.stop().await;
    there.stop().await;
}
