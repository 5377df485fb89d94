//! `quire import`: the documents of other servers, from stores that these have really written (tests/data/stores), and
//! what must be told where something is wrong with one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quire::lib0::Reader;
use rusqlite::Connection;
use rustix::fs::{FlockOperation, fcntl_lock};
use serde::Deserialize;
use serde_json::Value as Json;
use tempfile::TempDir;
use yrs::{GetString, Transact};

use crate::common::{Person, TestServer, insertion, new_doc, redis::RedisServer};

/// The server that wrote a store, the store, and how many documents are refused as a whole or in part.
const STORES: [(&str, &str, usize); 4] = [
    ("y-websocket", "y-websocket/store", 1),
    ("y-websocket", "y-leveldb/store", 2),
    ("hocuspocus", "hocuspocus/store.sqlite", 1),
    ("y-sweet", "y-sweet/store", 0),
];

/// What Yjs reads in a document that was written into a store.
#[derive(Deserialize)]
struct Expected {
    content: Json,
    vector: BTreeMap<u64, u64>,
    /// What a reason names, where an update of it is refused.
    refused: Option<String>,
}

fn golden(store: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stores").join(store)
}

fn expected(store: &str) -> BTreeMap<String, Expected> {
    let file = golden(store).parent().unwrap().join("expected.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Runs `quire import` as a process.
fn import(server: &str, store: &Path, target: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quire"))
        .args(["import", server])
        .arg(store)
        .args(target)
        // It refuses settings that it does not know.
        .env_remove("QUIRE_TEST_LONG")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap()
        + &String::from_utf8(output.stderr.clone()).unwrap();
    (output, text)
}

fn import_into(server: &str, store: &Path, data: &TempDir) -> (bool, String) {
    let (output, text) = import(server, store, &["--data", data.path().to_str().unwrap()]);
    (output.status.success(), text)
}

/// Everything in a file or a folder, with its content.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if path.is_file() {
        return BTreeMap::from([(path.to_owned(), fs::read(path).unwrap())]);
    }
    fs::read_dir(path).unwrap().flat_map(|entry| contents(&entry.unwrap().path())).collect()
}

/// A copy that may be damaged.
fn copy(store: &str) -> TempDir {
    let (copy, from) = (TempDir::new().unwrap(), golden(store));
    for (path, content) in contents(&from) {
        let to = copy.path().join(path.strip_prefix(&from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, content).unwrap();
    }
    copy
}

fn address(name: &str, format: &str) -> String {
    format!("/api/documents/{}?format={format}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

async fn json_of(server: &TestServer, name: &str) -> Option<Json> {
    let answer = server.get(&address(name, "json")).await;
    match answer.status {
        404 => None,
        200 => Some(serde_json::from_slice(&answer.body).unwrap()),
        _ => panic!("{name}: {}", answer.text()),
    }
}

async fn vector_of(server: &TestServer, name: &str) -> BTreeMap<u64, u64> {
    let bytes = server.get(&address(name, "state-vector")).await.body;
    let mut reader = Reader::new(&bytes);
    (0..reader.uint().unwrap()).map(|_| (reader.uint().unwrap(), reader.uint().unwrap())).collect()
}

/// Every document of a store is as Yjs reads it, but for what is refused.
async fn check_documents(server: &TestServer, store: &str) {
    for (name, Expected { content, vector, refused }) in expected(store) {
        let found = json_of(server, &name).await;
        if content == Json::Object(Default::default()) {
            assert_eq!(found, None, "{store}: {name}");
        } else if refused.is_none() {
            assert_eq!(found, Some(content), "{store}: {name}");
            assert_eq!(vector_of(server, &name).await, vector, "{store}: {name}");
        } else {
            // Where it is one update, all of it is refused; the others keep what other updates hold.
            let kept = (store != "hocuspocus/store.sqlite").then_some(content);
            assert_eq!(found, kept, "{store}: {name}");
        }
    }
}

#[tokio::test]
async fn what_other_servers_have_kept_comes_over() {
    for (server, store, refused) in STORES {
        let (data, before) = (TempDir::new().unwrap(), contents(&golden(store)));
        let (success, told) = import_into(server, &golden(store), &data);
        assert_eq!(success, refused == 0, "{told}");
        assert!(told.contains("imported 6 documents"), "{told}");
        assert!(refused == 0 || told.contains(&format!("{refused} refused")), "{told}");
        for (name, Expected { refused, .. }) in expected(store) {
            let Some(reason) = refused else { continue };
            let line = told.lines().find(|line| line.starts_with(&format!("{name:?}: ")));
            assert!(line.is_some_and(|line| line.contains("refused: ") && line.contains(&reason)), "{told}");
        }
        if store == "y-leveldb/store" {
            assert!(told.contains(r#""text": not taken over: metadata of the application: title"#), "{told}");
            assert!(
                told.contains(r#""te%78t": refused: another document there is "text" here too"#),
                "{told}"
            );
        }

        let server_of_ours = TestServer::start_in(data, |_| {}).await;
        check_documents(&server_of_ours, store).await;
        let data = server_of_ours.stop().await;

        let (_, told) = import_into(server, &golden(store), &data);
        assert!(told.contains("imported 0 documents"), "{told}");
        assert!(contents(&golden(store)) == before, "{store} is not as it was");
    }
}

#[tokio::test]
async fn what_is_here_already_is_joined() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "typed").await;
    alice.types("hers").await;
    alice.raw.is_answered().await;
    let data = server.stop().await;
    let (_, told) = import_into("y-sweet", &golden("y-sweet/store"), &data);
    assert!(told.contains("imported 6 documents"), "{told}");
    let server = TestServer::start_in(data, |_| {}).await;
    let found = json_of(&server, "typed").await.unwrap();
    assert_eq!(found["text"], "hers");
    assert_eq!(found["content"], expected("y-sweet/store")["typed"].content["content"]);
}

#[tokio::test]
async fn who_has_a_document_open_on_redis_sees_what_is_imported() {
    let redis = RedisServer::start();
    let server = TestServer::start_with(|config| config.redis = Some(redis.url())).await;
    let mut alice = Person::joins(&server, "typed").await;
    alice.types("hers").await;
    let store = golden("y-websocket/store");
    let (_, told) = import("y-websocket", &store, &["--redis", &redis.url()]);
    assert!(told.contains("imported 6 documents"), "{told}");
    let content = alice.doc.get_or_insert_text("content");
    let expected = &expected("y-websocket/store")["typed"].content["content"];
    while content.get_string(&alice.doc.transact()) != expected.as_str().unwrap() {
        alice.hears_one().await;
    }
    assert_eq!(alice.sees(), "hers");
    let (_, told) = import("y-websocket", &store, &["--redis", &redis.url()]);
    assert!(told.contains("imported 0 documents"), "{told}");
    check_others(&server).await;
}

/// The documents that nobody had open.
async fn check_others(server: &TestServer) {
    for (name, Expected { content, refused, .. }) in expected("y-websocket/store") {
        if refused.is_none() && name != "typed" && name != "empty" {
            assert_eq!(json_of(server, &name).await, Some(content), "{name}");
        }
    }
}

#[tokio::test]
async fn a_folder_with_a_server_on_it_is_left_alone() {
    let server = TestServer::start().await;
    let (success, told) = import_into("y-sweet", &golden("y-sweet/store"), &server.folder);
    assert!(
        !success && told.contains("another Quire is using it") && told.contains("stop that one"),
        "{told}"
    );
    assert_eq!(json_of(&server, "text").await, None);
}

#[test]
fn a_store_in_use_is_left_alone() {
    let (store, data) = (copy("y-leveldb/store"), TempDir::new().unwrap());
    let lock = fs::OpenOptions::new().write(true).open(store.path().join("LOCK")).unwrap();
    fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let (success, told) = import_into("y-websocket", store.path(), &data);
    assert!(!success && told.contains("a server is using it: stop that one first"), "{told}");
    drop(lock);
    assert!(import_into("y-websocket", store.path(), &data).1.contains("imported 6 documents"));
}

#[test]
fn a_wrong_place_is_told_and_nothing_is_made() {
    let (empty, parent) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = parent.path().join("data");
    let told = |server: &str, store: &Path| {
        let (output, told) = import(server, store, &["--data", data.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{told}");
        told
    };
    let nowhere = empty.path().join("nowhere");
    for server in ["y-websocket", "hocuspocus", "y-sweet"] {
        let told = told(server, &nowhere);
        assert!(told.contains("cannot read") && told.contains("nowhere"), "{told}");
    }
    let told_of_level = told("y-websocket", empty.path());
    assert!(told_of_level.contains("it is no LevelDB"), "{told_of_level}");
    let file = empty.path().join("file");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    let told_of_database = told("hocuspocus", &file);
    assert!(told_of_database.contains("no such table: documents"), "{told_of_database}");
    let told_of_file = told("hocuspocus", &golden("y-sweet/store/text/data.ysweet"));
    assert!(told_of_file.contains("file is not a database"), "{told_of_file}");
    assert!(!data.exists(), "the data folder was made");
    let told_of_folder = told("y-sweet", empty.path());
    assert!(told_of_folder.contains("there is no document in"), "{told_of_folder}");
}

#[test]
fn damage_is_told_and_never_skipped() {
    let damage = |store: &str, file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let (copy, data) = (copy(store), TempDir::new().unwrap());
        let path = copy.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let server = if store.starts_with("y-sweet") { "y-sweet" } else { "y-websocket" };
        let (success, told) = import_into(server, copy.path(), &data);
        assert!(!success, "{told}");
        told
    };
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    let told = damage("y-leveldb/store", "000008.ldb", &flip(100));
    assert!(told.contains("000008.ldb") && told.contains("checksum"), "{told}");
    let told = damage("y-leveldb/store", "000011.log", &flip(100));
    assert!(
        told.contains("000011.log") && told.contains("start the server that wrote it once more"),
        "{told}"
    );
    let told = damage("y-leveldb/store", "MANIFEST-000009", &flip(100));
    assert!(told.contains("MANIFEST-000009"), "{told}");
    let told = damage("y-leveldb/store", "000010.ldb", &|bytes| bytes.truncate(200));
    assert!(told.contains("it has 200 bytes, and should have 344"), "{told}");
    // A log that breaks off is what a crash leaves behind.
    let told = damage("y-leveldb/store", "000011.log", &|bytes| bytes.truncate(bytes.len() - 5));
    assert!(told.contains("imported") && !told.contains("damaged"), "{told}");
    // The others come over.
    let told = damage("y-sweet/store", "typed/data.ysweet", &|bytes| bytes.truncate(500));
    assert!(told.contains("\"typed\": refused: its file is damaged"), "{told}");
    assert!(told.contains("imported 5 documents, 1 had nothing new, 1 refused"), "{told}");

    let (copy, data) = (copy("y-leveldb/store"), TempDir::new().unwrap());
    fs::remove_file(copy.path().join("000008.ldb")).unwrap();
    let (success, told) = import_into("y-websocket", copy.path(), &data);
    assert!(!success && told.contains("000008") && told.contains("No such file"), "{told}");
}

#[tokio::test]
async fn a_document_that_cannot_be_taken_keeps_no_other_from_coming() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = folder.path().join("store.sqlite");
    let database = Connection::open(&file).unwrap();
    database
        .execute_batch("CREATE TABLE documents (name varchar(255) NOT NULL, data blob NOT NULL)")
        .unwrap();
    let put = |name: &str, data: &dyn rusqlite::ToSql| {
        database.execute("INSERT INTO documents VALUES (?1, ?2)", (name, data)).unwrap();
    };
    let doc = new_doc();
    let (first, second) = (insertion(&doc, 0, "one"), insertion(&doc, 3, " and two"));
    put("", &first);
    put("line\nbreak", &first);
    put("text", &"not bytes");
    put("damaged", &&first[..5]);
    put("gap", &second);
    put("good", &first);
    let (success, told) = import_into("hocuspocus", &file, &data);
    assert!(!success, "{told}");
    for line in [
        r#""": refused: the document's name is empty"#,
        r#""line\nbreak": refused: the document's name holds the control character U+000A"#,
        r#""text": refused: its data is of the type Text, not blob"#,
        r#""damaged": refused: the bytes end in the middle of a value"#,
        r#""gap": refused in part: it needs edits that the store does not have"#,
        "imported 1 document, 5 refused as a whole or in part",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let server = TestServer::start_in(data, |_| {}).await;
    assert_eq!(server.text_of("good").await, "one");
    assert_eq!(json_of(&server, "gap").await, None, "a log with a gap could not be opened");
}

#[test]
fn a_database_that_was_left_in_a_hurry_is_read_whole() {
    for mode in ["WAL", "DELETE"] {
        let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let file = folder.path().join("store.sqlite");
        let database = Connection::open(&file).unwrap();
        database.pragma_update(None, "journal_mode", mode).unwrap();
        database
            .execute_batch("CREATE TABLE documents (name varchar(255) NOT NULL, data blob NOT NULL)")
            .unwrap();
        let update = insertion(&new_doc(), 0, "one");
        database.execute("INSERT INTO documents VALUES ('a', ?1)", [&update]).unwrap();
        // With WAL, what was written is only beside the file as long as it is open.
        let (success, told) = import_into("hocuspocus", &file, &data);
        assert!(success && told.contains("imported 1 document"), "{mode}: {told}");
        drop(database);
    }
}
