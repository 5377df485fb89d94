//! What an operator would complain about at a terminal: a command that says something else than the server, a backup that
//! lacks what was saved, one that cannot be restored, or one that was damaged and is restored all the same.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quire::level::Level;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::common::{
    JSON, PATIENCE, Person, Raw, SECRET, TestServer, insertion, new_doc, redis::RedisServer, token,
};

fn as_root() -> String {
    format!("Authorization: Bearer {}\r\n", token("root", "*", Level::Admin))
}

fn quire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quire"));
    command.args(arguments).stdin(Stdio::null()).env_clear();
    command
}

/// What a command leaves behind: its exit code, and what it wrote to either output.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    fn says(self, code: i32, reason: &str) -> Self {
        assert!(self.code == Some(code) && self.stderr.contains(reason), "no {reason:?} in {self:?}");
        self
    }
}

fn end(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ended { code: status.code(), stdout, stderr: String::from_utf8(stderr).unwrap() }
}

/// Runs a command with root's token, beside the test.
async fn run(arguments: &[&str]) -> Ended {
    let mut command = quire(arguments);
    command.env("QUIRE_TOKEN", token("root", "*", Level::Admin));
    tokio::task::spawn_blocking(move || end(&mut command)).await.unwrap()
}

/// A server as a process of its own, which asks for tokens.
struct Process {
    child: Killed,
    server: TestServer,
    url: String,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        Self::start_on(TempDir::new().unwrap(), arguments)
    }

    fn start_on(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = quire(&["--listen", "127.0.0.1:0", "--data", folder.path().to_str().unwrap()]);
        let mut child =
            command.args(arguments).env("QUIRE_SECRET", SECRET).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("listening on http://")).expect("it listens");
        let address = line.rsplit_once("http://").unwrap().1.split_whitespace().next().unwrap();
        let address: SocketAddr = address.parse().unwrap();
        // Its log is not to fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child: Killed(child),
            server: TestServer::at(folder, address),
            url: format!("http://{address}"),
        }
    }

    /// Stops it in good order, and gives the folder back.
    async fn stop(mut self) -> TempDir {
        assert!(Command::new("kill").arg(self.child.0.id().to_string()).status().unwrap().success());
        let child = tokio::task::spawn_blocking(move || self.child.0.wait().unwrap());
        assert!(timeout(PATIENCE, child).await.unwrap().unwrap().success());
        self.server.stop().await
    }

    async fn write(&self, document: &str, words: &str) {
        self.send(document, &insertion(&new_doc(), 0, words)).await;
    }

    async fn send(&self, document: &str, update: &[u8]) {
        let path = format!("/api/documents/{document}/updates");
        let answer = self.server.post(&path, &as_root(), update).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    async fn keep_version(&self, document: &str, name: &str) {
        let (path, body) =
            (format!("/api/documents/{document}/versions"), json!({ "name": name }).to_string());
        let answer = self.server.post(&path, &format!("{JSON}{}", as_root()), body.as_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.server.get_with(path, &as_root()).await;
        (answer.status, answer.text())
    }

    /// The text of a document; none where there is no such document.
    async fn text_of(&self, document: &str) -> Option<String> {
        match self.get(&format!("/api/documents/{document}?format=text")).await {
            (200, text) => Some(text),
            (404, _) => None,
            other => panic!("{other:?}"),
        }
    }

    /// The versions of a document, oldest first, without their ids, and each with its text; and who wrote what.
    async fn history_of(&self, document: &str) -> (Vec<(Value, String)>, Value) {
        let (status, versions) = self.get(&format!("/api/documents/{document}/versions?limit=1000")).await;
        assert_eq!(status, 200, "{versions}");
        let versions: Value = serde_json::from_str(&versions).unwrap();
        let mut history = Vec::new();
        for version in versions["versions"].as_array().unwrap().iter().rev() {
            let id = version["id"].as_str().unwrap();
            let (status, text) =
                self.get(&format!("/api/documents/{document}/versions/{id}?format=text")).await;
            assert_eq!(status, 200, "{text}");
            let mut about = version.clone();
            about.as_object_mut().unwrap().remove("id");
            history.push((about, text));
        }
        let (status, parts) = self.get(&format!("/api/documents/{document}/attribution")).await;
        assert_eq!(status, 200, "{parts}");
        (history, serde_json::from_str(&parts).unwrap())
    }

    async fn joins(&self, document: &str, user: &str) -> Person {
        Person::joins(&self.server, &format!("{document}?token={}", token(user, "*", Level::Write))).await
    }

    /// A letter of two people, with two versions and something behind them.
    async fn has_a_letter(&self) {
        let mut alice = self.joins("letter", "alice").await;
        alice.types("Dear Bob,").await;
        let mut bob = self.joins("letter", "bob").await;
        bob.reads("Dear Bob,").await;
        self.keep_version("letter", "first").await;
        bob.types(" hello").await;
        alice.reads("Dear Bob, hello").await;
        self.keep_version("letter", "second").await;
        alice.types(" and bye").await;
        bob.reads("Dear Bob, hello and bye").await;
        self.reads_saved("letter", " and bye").await;
    }

    /// Waits until the store has these words.
    async fn reads_saved(&self, document: &str, words: &str) {
        let start = Instant::now();
        loop {
            let (_, raw) = self.get(&format!("/api/documents/{document}/raw")).await;
            let raw: Value = serde_json::from_str(&raw).unwrap();
            let records =
                raw["log"].as_array().unwrap().iter().map(|record| record["record"].as_str().unwrap());
            let is_saved = records
                .map(decoded)
                .any(|record| record.windows(words.len()).any(|window| window == words.as_bytes()));
            if is_saved {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{words:?} is not saved");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // An error: it has ended.
        let _ = self.0.kill();
    }
}

fn decoded(base64: &str) -> Vec<u8> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(base64).unwrap()
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_its_folder_say_the_same() {
    let process = Process::start(&[]);
    process.has_a_letter().await;
    for number in 0..3 {
        process.write(&format!("team%2F{number}"), "plan").await;
    }
    let url = process.url.clone();
    let version = run(&["versions", "letter", "--json", "--server", &url]).await.good().text();
    let versions: Vec<Value> = version.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&versions[0]["name"], &versions[1]["users"]), (&json!("second"), &json!(["alice"])));
    let first = versions[1]["id"].as_str().unwrap();
    let questions: [&[&str]; 8] = [
        &["list"],
        &["list", "--prefix", "team/", "--json"],
        &["versions", "letter"],
        &["export", "letter"],
        &["export", "letter", "--format", "text"],
        &["export", "letter", "--format", "json", "--root", "other:map"],
        &["export", "letter", "--format", "markdown"],
        &["export", "letter", "--format", "text", "--version", first],
    ];
    let mut said = Vec::new();
    for question in questions {
        said.push(run(&[question, &["--server", &url]].concat()).await.good().stdout);
    }
    let text = |at: usize| String::from_utf8(said[at].clone()).unwrap();
    let names: Vec<String> =
        text(0).lines().map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect();
    assert_eq!(names, ["letter", "team/0", "team/1", "team/2"]);
    assert!(text(0).lines().all(|line| line.contains("Z  ")), "{}", text(0));
    assert_eq!(text(1).lines().count(), 3);
    let second = text(2).lines().next().unwrap().to_owned();
    assert!(second.contains("second") && second.ends_with("bob"), "{second}");
    assert_eq!(text(4), "Dear Bob, hello and bye");
    assert_eq!(serde_json::from_str::<Value>(&text(5)).unwrap()["text"], json!("Dear Bob, hello and bye"));
    assert_eq!(text(7), "Dear Bob,");

    // While the server runs, its folder is its own.
    let folder = process.server.folder.path().to_str().unwrap().to_owned();
    run(&["list", "--data", &folder]).await.says(1, "ask it with --server");
    let folder = process.stop().await;
    let data = folder.path().to_str().unwrap();
    for (question, said) in questions.iter().zip(&said) {
        let of_folder = run(&[question, &["--data", data][..]].concat()).await.good().stdout;
        if question[0] == "list" {
            // How much a log takes changes when the server stops.
            let (there, here) = (String::from_utf8_lossy(said), String::from_utf8_lossy(&of_folder));
            assert_eq!(there.lines().count(), here.lines().count(), "{here}");
        } else {
            assert_eq!(of_folder, *said, "{question:?}");
        }
    }
    // Into a file, and the folder named by a variable.
    let file = path(&folder, "letter.txt");
    let mut command = quire(&["export", "letter", "--format", "text", "--output", &file]);
    end(command.env("QUIRE_DATA", data)).good();
    assert_eq!(fs::read_to_string(file).unwrap(), "Dear Bob, hello and bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_all_that_was_saved_and_can_be_restored_anywhere() {
    let process = Arc::new(Process::start(&[]));
    process.has_a_letter().await;
    for number in 0..40 {
        process.write(&format!("team%2F{number}"), &format!("plan {number}")).await;
    }
    process.write("gone", "deleted before").await;
    assert_eq!(process.server.request("DELETE", "/api/documents/gone", &as_root()).await.status, 204);
    // Eight people write all the time; what was answered is saved.
    let saved: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (process, saved, over) = (process.clone(), saved.clone(), over.clone());
            tokio::spawn(async move {
                let (document, doc) = (format!("busy{}", writer % 4), new_doc());
                for word in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let word = format!("<{writer}.{word}>");
                    process.send(&document, &insertion(&doc, 0, &word)).await;
                    saved.lock().unwrap().push((document.clone(), word));
                }
            })
        })
        .collect();
    let start = Instant::now();
    while saved.lock().unwrap().len() < 200 {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    let files = TempDir::new().unwrap();
    let file = path(&files, "all.tar.zst");
    let before = saved.lock().unwrap().clone();
    let ended = run(&["backup", &file, "--server", &process.url]).await.good();
    assert!(saved.lock().unwrap().len() > before.len(), "nobody wrote meanwhile");
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(ended.stderr.contains("documents in the backup: 45 ("), "{}", ended.stderr);
    assert!(!Path::new(&format!("{file}.partial")).exists());
    let was = process.history_of("letter").await;
    assert_eq!((was.0.len(), was.1["parts"].as_array().unwrap().len()), (2, 3), "{was:?}");

    // Into a folder that is not there yet, and into a server on Redis.
    let new = TempDir::new().unwrap();
    let data = path(&new, "data");
    let restored = run(&["restore", &file, "--data", &data]).await.good();
    assert!(restored.stderr.contains("documents restored: 45\n"), "{}", restored.stderr);
    let (redis, copy) = (RedisServer::start_durable(), TempDir::new().unwrap());
    fs::copy(path(&new, "data/quire.db"), copy.path().join("quire.db")).unwrap();
    let on_redis = Process::start(&["--redis", &redis.url()]);
    run(&["restore", &file, "--server", &on_redis.url]).await.good();
    for process in [Process::start_on(copy, &[]), on_redis] {
        assert_eq!(process.history_of("letter").await, was);
        assert_eq!(process.text_of("letter").await.unwrap(), "Dear Bob, hello and bye");
        for number in 0..40 {
            let text = process.text_of(&format!("team%2F{number}")).await;
            assert_eq!(text.unwrap(), format!("plan {number}"));
        }
        for (document, word) in &before {
            assert!(process.text_of(document).await.unwrap().contains(word), "{word} was saved before");
        }
        assert_eq!(process.text_of("gone").await, None);
        // It is a document like any other, and its history goes on.
        let mut carol = process.joins("letter", "carol").await;
        carol.types("!").await;
        carol.catches_up().await;
        process.keep_version("letter", "third").await;
        let (history, parts) = process.history_of("letter").await;
        assert_eq!(history[..2], was.0);
        assert_eq!(
            (&history[2].0["users"], &*history[2].1),
            (&json!(["alice", "carol"]), "Dear Bob, hello and bye!")
        );
        assert_eq!(parts["parts"].as_array().unwrap().last().unwrap()["user"], "carol");
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_through_a_pipe() {
    let process = Process::start(&[]);
    process.has_a_letter().await;
    let backup = run(&["backup", "-", "--server", &process.url]).await.good();
    let new = TempDir::new().unwrap();
    let (file, data) = (path(&new, "piped"), path(&new, "data"));
    fs::write(&file, &backup.stdout).unwrap();
    let piped =
        |file: &str| end(quire(&["restore", "-", "--data", &data]).stdin(fs::File::open(file).unwrap()));
    piped(&file).good();
    assert_eq!(
        run(&["export", "letter", "--format", "text", "--data", &data]).await.text(),
        "Dear Bob, hello and bye"
    );
    fs::write(&file, &backup.stdout[..backup.stdout.len() / 2]).unwrap();
    piped(&file).says(1, "stopped early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_changes_nothing() {
    let process = Process::start(&[]);
    process.has_a_letter().await;
    for number in 0..5 {
        process.write(&format!("plan{number}"), "plan").await;
    }
    let files = TempDir::new().unwrap();
    let (file, damaged) = (path(&files, "all.tar.zst"), path(&files, "damaged"));
    run(&["backup", &file, "--server", &process.url]).await.good();
    let good = fs::read(&file).unwrap();
    let data = path(&files, "data");
    let refuses = async |bytes: &[u8], how: String| {
        fs::write(&damaged, bytes).unwrap();
        let ended = run(&["restore", &damaged, "--data", &data]).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("nothing was restored"), "{how}: {ended:?}");
        assert!(ended.stderr.contains("damaged") || ended.stderr.contains("no backup"), "{how}: {ended:?}");
    };
    for part in 0..10 {
        let cut = good.len() * part / 10;
        refuses(&good[..cut], format!("cut to {cut} bytes")).await;
        let mut flipped = good.clone();
        // Behind what only says how much memory it takes to read it.
        flipped[cut + 9] ^= 0x10;
        refuses(&flipped, format!("byte {cut} flipped")).await;
    }
    refuses(&good[..good.len() - 1], "without its last byte".to_owned()).await;
    // What is whole, and says something else: its entries are looked at one by one.
    let tar = zstd::decode_all(&good[..]).unwrap();
    let compressed = |tar: &[u8]| zstd::encode_all(tar, 1).unwrap();
    let at = tar
        .windows(9)
        .position(|window| window == b"Dear Bob,")
        .or_else(|| tar.windows(6).position(|window| window == b"bundle").map(|at| at + 600));
    let mut other = tar.clone();
    other[at.unwrap()] ^= 1;
    fs::write(&damaged, compressed(&other)).unwrap();
    let ended = run(&["restore", &damaged, "--data", &data]).await.says(1, "documents/000001/bundle");
    assert!(ended.stderr.contains("\"letter\""), "{ended:?}");
    let end_at = tar.windows(8).rposition(|window| window == b"end.json").unwrap();
    let mut short = tar[..end_at].to_vec();
    short.extend([0; 1024]);
    refuses(&compressed(&short), "without its end".to_owned()).await;
    refuses(b"something else", "no archive at all".to_owned()).await;
    assert_eq!(run(&["list", "--data", &data]).await.says(0, "").text(), "");
    run(&["restore", &file, "--data", &data]).await.good();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_stays_unless_it_is_replaced() {
    let process = Process::start(&[]);
    process.has_a_letter().await;
    process.write("team%2Fplan", "plan").await;
    process.write("deleted", "taken away later").await;
    process.write("waited-for", "here at last").await;
    process.write("large", &"large ".repeat(1 << 20)).await;
    let files = TempDir::new().unwrap();
    let file = path(&files, "all.tar.zst");
    run(&["backup", &file, "--server", &process.url]).await.good();
    let was = process.history_of("letter").await;
    run(&["backup", &file, "--server", &process.url]).await.says(1, "is there already");

    let mut alice = process.joins("letter", "alice").await;
    alice.types(", and more").await;
    process.reads_saved("letter", ", and more").await;
    for gone in ["deleted", "waited-for"] {
        let path = format!("/api/documents/{gone}?purge=true");
        assert_eq!(process.server.request("DELETE", &path, &as_root()).await.status, 204);
    }
    let ended = run(&["restore", &file, "--server", &process.url]).await.good();
    assert!(
        ended.stderr.contains(
            "documents restored: 0\nleft as they are, because they are there already or were deleted: 5 "
        ),
        "{}",
        ended.stderr
    );
    assert_eq!(process.text_of("letter").await.unwrap(), "Dear Bob, hello and bye, and more");
    assert_eq!(process.text_of("deleted").await, None);

    let replace = ["restore", &file, "--replace", "--server", &process.url, "--prefix"];
    let ended = run(&[&replace[..], &["letter"]].concat()).await.good();
    assert!(ended.stderr.contains("documents restored: 1\n"), "{}", ended.stderr);
    // Who had it open does not bring back what was replaced.
    assert_eq!(u16::from(alice.raw.is_closed().await.code), 4404);
    assert_eq!(process.text_of("letter").await.unwrap(), "Dear Bob, hello and bye");
    assert_eq!(process.history_of("letter").await, was);
    assert_eq!(process.text_of("deleted").await, None);
    run(&[&replace[..], &["deleted"]].concat()).await.good();
    assert_eq!(process.text_of("deleted").await.unwrap(), "taken away later");

    // Somewhere else somebody waits in a document that comes only now: nothing of it is lost by what she writes.
    let other = Process::start(&[]);
    let mut waiting = other.joins("waited-for", "alice").await;
    run(&["restore", &file, "--server", &other.url]).await.good();
    assert_eq!(u16::from(waiting.raw.is_closed().await.code), 1012);
    let (doc, query) = (waiting.doc, format!("waited-for?token={}", token("alice", "*", Level::Write)));
    let mut back = Person::joins_with(&other.server, &query, doc).await;
    back.reads("here at last").await;
    back.types(", finally").await;
    other.reads_saved("waited-for", ", finally").await;
    let other = Process::start_on(other.stop().await, &[]);
    assert_eq!(other.text_of("waited-for").await.unwrap(), "here at last, finally");
}

/// A document's bundle, and the bytes of the request that puts it in the place of another document.
async fn replacing(process: &Process, from: &str, to: &str) -> Vec<u8> {
    let bundle = process.server.get_with(&format!("/api/documents/{from}/bundle"), &as_root()).await.body;
    let head = format!(
        "PUT /api/documents/{to}/bundle?replace=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}Content-Length: {}\r\n\r\n",
        as_root(),
        bundle.len()
    );
    [head.as_bytes(), &bundle].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replaced_stays_as_it_was() {
    let process = Process::start(&[]);
    process.has_a_letter().await;
    process.write("other", "something else").await;
    let was = process.history_of("letter").await;
    let database = Connection::open(process.server.folder.path().join("quire.db")).unwrap();
    database
        .execute_batch("CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'no space'); END")
        .unwrap();
    let request = replacing(&process, "other", "letter").await;
    let mut socket = TcpStream::connect(&process.server.address).await.unwrap();
    socket.write_all(&request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(process.text_of("letter").await.as_deref(), Some("Dear Bob, hello and bye"));
    assert_eq!(process.history_of("letter").await, was);
    database.execute_batch("DROP TRIGGER full").unwrap();
    let mut socket = TcpStream::connect(&process.server.address).await.unwrap();
    socket.write_all(&request).await.unwrap();
    answer.clear();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(process.text_of("letter").await.as_deref(), Some("something else"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_replaced_to_the_end_by_who_goes_away_or_comes_at_the_same_time() {
    let process = Process::start(&[]);
    process.write("other", &"something else ".repeat(1 << 16)).await;
    let request = replacing(&process, "other", "letter").await;
    process.write("letter", "hello").await;
    let updates = "/api/documents/letter/updates";
    let mut last = Vec::new();
    for round in 0..20 {
        last.clear();
        for _ in 0..3 {
            let mut socket = TcpStream::connect(&process.server.address).await.unwrap();
            socket.write_all(&request).await.unwrap();
            last.push(socket);
        }
        sleep(Duration::from_millis(10 * round)).await;
        if round < 19 {
            last.clear();
        }
        sleep(Duration::from_millis(300)).await;
        // It is away for a moment at most.
        let start = Instant::now();
        while process.server.post(updates, &as_root(), &insertion(&new_doc(), 0, "hello")).await.status != 204
        {
            assert!(start.elapsed() < PATIENCE, "round {round}: it is gone");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let mut statuses = Vec::new();
    for mut socket in last {
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        statuses.push(answer[9..12].to_owned());
    }
    assert!(statuses.contains(&"201".to_owned()), "{statuses:?}");
    assert!(statuses.iter().all(|status| status == "201" || status == "409"), "{statuses:?}");
    assert!(process.text_of("letter").await.unwrap().contains("something else"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_replaced_while_people_of_another_node_write_it() {
    let redis = RedisServer::start();
    let nodes = [(); 2].map(|()| Process::start(&["--redis", &redis.url()]));
    let [process, other] = nodes.map(Arc::new);
    process.write("other", "something else").await;
    process.write("letter", "hello").await;
    let request = replacing(&process, "other", "letter").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let stop = stop.clone();
        async move {
            while !stop.load(Ordering::Relaxed) {
                let update = insertion(&new_doc(), 0, "and more ");
                // It is refused while there is no document.
                other.server.post("/api/documents/letter/updates", &as_root(), &update).await;
            }
        }
    });
    for round in 0..10 {
        let mut socket = TcpStream::connect(&process.server.address).await.unwrap();
        socket.write_all(&request).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "round {round}: {answer}");
        let text = process.text_of("letter").await.unwrap();
        assert!(text.contains("something else"), "round {round}: {text}");
        assert!(!text.contains("hello"), "round {round}: {text}");
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_document_that_fails_does_not_stop_the_others() {
    let process = Process::start(&[]);
    for number in 0..5 {
        process.write(&format!("plan{number}"), "plan").await;
    }
    let folder = process.stop().await;
    let database = Connection::open(folder.path().join("quire.db")).unwrap();
    let damage = "SET record = x'0900' WHERE document = (SELECT id FROM document WHERE name = 'plan2')";
    assert_eq!(database.execute(&format!("UPDATE log {damage}"), []).unwrap(), 1);
    drop(database);
    let data = folder.path().to_str().unwrap();
    let (file, new) = (path(&folder, "all.tar.zst"), path(&folder, "new"));
    // Its bytes are kept as they are, as nobody knows better yet.
    run(&["backup", &file, "--data", data]).await.good();
    let ended =
        run(&["restore", &file, "--data", &new]).await.says(1, "\"plan2\": the bundle cannot be read");
    assert!(
        ended.stderr.contains("documents restored: 4\nnot restored, for the reasons above: 1"),
        "{}",
        ended.stderr
    );
    assert_eq!(run(&["list", "--data", &new]).await.text().lines().count(), 4);
}

/// Stands before a server and decodes addresses, as proxies do that were set up by a careless hand.
async fn decoding(server: String) -> String {
    use axum::{body::Body, extract::Request};
    let forward = move |request: Request| {
        let url = format!("{server}{}", request.uri().to_string().replace("%2F", "/"));
        async move {
            let token = request.headers()["authorization"].clone();
            let client = reqwest::Client::new();
            let answer = client.get(url).header("authorization", token).send().await.unwrap();
            let status = answer.status();
            (status, Body::from(answer.bytes().await.unwrap()))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(forward)).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_through_a_proxy_that_decodes_addresses_says_what_it_lacks() {
    let process = Process::start(&[]);
    process.write("letter", "hello").await;
    process.write("team%2Fplan", "plan").await;
    let files = TempDir::new().unwrap();
    let proxy = decoding(process.url.clone()).await;
    let ended = run(&["backup", &path(&files, "all.tar.zst"), "--server", &proxy]).await;
    let ended = ended.says(1, "\"team/plan\": it is in the list, but the server answers that there is none");
    assert!(ended.stderr.contains("documents in the backup: 1 "), "{}", ended.stderr);
    assert!(ended.stderr.contains("not in it, for the reasons above: 1"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_into_a_folder_leaves_it_as_it_is() {
    let mut process = Process::start(&["--version-every", "1"]);
    process.has_a_letter().await;
    // More than a document at rest has without a snapshot.
    for _ in 0..40 {
        process.write("letter", "more ").await;
    }
    process.child.0.kill().unwrap();
    process.child.0.wait().unwrap();
    let folder = process.server.stop().await;
    let data = folder.path().to_str().unwrap();
    let stored = || {
        let database = Connection::open(folder.path().join("quire.db")).unwrap();
        ["log", "segment"].map(|table| {
            let count = format!("SELECT count(*) FROM {table}");
            database.query_row(&count, [], |row| row.get::<_, i64>(0)).unwrap()
        })
    };
    let was = stored();
    assert!(was[0] >= 40 && was[1] == 2, "{was:?}");
    run(&["export", "letter", "--data", data]).await.good();
    run(&["versions", "letter", "--data", data]).await.good();
    run(&["list", "--data", data]).await.good();
    assert_eq!(stored(), was);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_to_do() {
    let process = Process::start(&[]);
    process.write("letter", "hello").await;
    let at = ["--server", &process.url];
    let ask = |arguments: &[&str]| quire(&[arguments, &at[..]].concat());
    let away = ["list", "--server", "http://127.0.0.1:1"];
    end(&mut quire(&away)).says(1, "is it running?");
    end(&mut ask(&["list"])).says(1, "--token-file");
    end(ask(&["list"]).env("QUIRE_TOKEN", "nonsense")).says(1, "--token-file");
    end(ask(&["list"]).env("QUIRE_TOKEN", token("bob", "*", Level::Write))).says(1, "Admin is needed");
    let folder = TempDir::new().unwrap();
    let file = path(&folder, "token");
    end(&mut ask(&["list", "--token-file", &file])).says(1, "cannot read the token");
    fs::write(&file, token("root", "*", Level::Admin) + "\n").unwrap();
    end(&mut ask(&["list", "--token-file", &file])).good();
    end(quire(&["list", "--token-file", &file]).env("QUIRE_SERVER", &process.url)).good();

    run(&[&["export", "lettre"], &at[..]].concat()).await.says(1, "there is no document \"lettre\"");
    run(&[&["export", "letter", "--version", "0-99"], &at[..]].concat()).await.says(1, "no version 0-99");
    run(&[&["versions", "lettre"], &at[..]].concat()).await.says(1, "there is no document \"lettre\"");
    run(&[&["export", "letter", "--format", "json", "--root", "text"], &at[..]].concat())
        .await
        .says(1, "root=content:text");
    run(&[&["restore", &path(&folder, "none")], &at[..]].concat()).await.says(1, "cannot read");
    run(&[&["backup", &path(&folder, "no/such/folder")], &at[..]].concat()).await.says(1, "cannot write");
    let none = path(&folder, "none");
    run(&["list", "--data", &none]).await.says(1, "there are no documents in");
    assert!(!Path::new(&none).exists(), "a look makes no folder");
    run(&["restore", &file, "--data", &path(&folder, "new")]).await.says(1, "damaged");

    run(&[&["export", "letter", "--format", "pdf"], &at[..]].concat())
        .await
        .says(2, "possible values: update");
    run(&[&["list", "--data", &none], &at[..]].concat()).await.says(2, "cannot be used with");
    run(&["list", "--server", "localhost"]).await.says(2, "such as http://127.0.0.1:8080");
    run(&["list", "--token-file", &file]).await.says(2, "--server");
    run(&["backup"]).await.says(2, "<FILE>");
    // Only who may do everything fetches or puts a whole document.
    let writer = format!("Authorization: Bearer {}\r\n", token("bob", "*", Level::Write));
    let bundle = "/api/documents/letter/bundle";
    assert_eq!(process.server.get_with(bundle, &writer).await.status, 403);
    assert_eq!(
        process
            .server
            .request_with("PUT", bundle, &format!("{writer}Content-Length: 1\r\n"), b"x")
            .await
            .status,
        403
    );
    let put = async |path: &str, body: &[u8]| {
        let headers = format!("{}Content-Length: {}\r\n", as_root(), body.len());
        process.server.request_with("PUT", path, &headers, body).await
    };
    assert_eq!(put(bundle, b"x").await.status, 409);
    // What is no bundle takes nothing away.
    assert_eq!(put(&format!("{bundle}?replace=true"), b"x").await.status, 422);
    assert_eq!(process.text_of("letter").await.unwrap(), "hello");
    let query = format!("letter?token={}", token("bob", "*", Level::Write));
    drop(Raw::connect(&process.server, &query).await);
}
