//! What people and operators would complain about when a node stops: everybody comes back in the same second, an edit is
//! lost, or the node does not end, or ends as if all were well.

use std::{
    collections::BTreeSet,
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all};
use quire::protocol;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::common::{PATIENCE, Raw, TestServer, insertion, new_doc, redis::RedisServer, within};

/// What a node may take to save everything, after its sessions were sent away.
const SAVED_WITHIN: Duration = Duration::from_secs(9);

/// A node as a process of its own.
struct Node {
    server: TestServer,
    process: Process,
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    fn start(flags: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), flags)
    }

    fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let file = folder.path().join("log");
        let process = Command::new(env!("CARGO_BIN_EXE_quire"))
            .args(["--listen", "127.0.0.1:0", "--max-new-connections-per-address", "0"])
            .args(flags)
            .env_remove("QUIRE_TEST_LONG")
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(File::create(&file).unwrap())
            .spawn();
        let process = Process(process.unwrap());
        let begin = Instant::now();
        loop {
            let log = std::fs::read_to_string(&file).unwrap();
            let address =
                log.split_once("http://").and_then(|(_, rest)| rest.split_once(char::is_whitespace));
            if let Some((address, _)) = address {
                return Self { server: TestServer::at(folder, address.parse().unwrap()), process };
            }
            assert!(begin.elapsed() < PATIENCE, "it does not start: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: &str) {
        let process = self.process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.server.folder.path().join("log")).unwrap()
    }

    /// Waits until it has ended, and answers its exit code and its log.
    async fn ends(mut self, within: Duration) -> (Option<i32>, String, TempDir) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.0.try_wait().unwrap() {
                let log = self.log();
                return (status.code(), log, self.server.folder);
            }
            assert!(begin.elapsed() < within, "it has not ended within {within:?}: {}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Somebody in one of some documents, who says a word of his own.
async fn joins_and_types(server: &TestServer, number: usize) -> Raw {
    let mut raw = Raw::connect(server, &format!("{}?echo=saved", document(number))).await;
    raw.is_greeted().await;
    types(&mut raw, &word(number)).await;
    raw
}

async fn types(raw: &mut Raw, word: &str) {
    raw.send(protocol::update(&insertion(&new_doc(), 0, word)).to_vec()).await;
}

/// Reads until the server says goodbye, and answers which of these words did not come back before that: what comes
/// back is saved.
async fn hears_until_closed(raw: &mut Raw, mut words: Vec<String>) -> Vec<String> {
    loop {
        match within(raw.socket.next()).await {
            Some(Ok(Frame::Binary(bytes))) => {
                words.retain(|word| !bytes.windows(word.len()).any(|window| window == word.as_bytes()));
            }
            Some(Ok(Frame::Close(Some(close)))) => {
                assert_eq!(close.code, 1012.into());
                return words;
            }
            Some(Ok(_)) => {}
            other => panic!("no close frame but {other:?}"),
        }
    }
}

fn document(number: usize) -> String {
    format!("letter-{}", number % 20)
}

fn word(number: usize) -> String {
    format!("[{number}]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_sent_away_one_after_the_other_and_nothing_is_lost() {
    let people = if std::env::var_os("QUIRE_TEST_LONG").is_some() { 1_000 } else { 300 };
    let time = Duration::from_secs(3);
    let node = Node::start(&["--drain", "3"]);
    let mut raws = Vec::new();
    for number in 0..people {
        raws.push(joins_and_types(&node.server, number).await);
    }
    let ready: Value = serde_json::from_slice(&node.server.get("/readyz").await.body).unwrap();
    assert_eq!((&ready["ready"], &ready["draining"]), (&true.into(), &false.into()), "{ready}");

    node.signal("-TERM");
    let start = Instant::now();
    // At the same moment everybody says one more thing, and goes when told so.
    let leaving = raws.into_iter().enumerate().map(|(number, mut raw)| async move {
        let last = word(number + people);
        types(&mut raw, &last).await;
        let unsaved = hears_until_closed(&mut raw, vec![word(number), last]).await;
        (start.elapsed(), unsaved)
    });
    let leaving = tokio::spawn(join_all(leaving));
    let begin = Instant::now();
    let refusal = loop {
        let answer = node.server.get("/readyz").await;
        if answer.status == 503 {
            break answer;
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "it is ready all the same");
    };
    let told: Value = serde_json::from_slice(&refusal.body).unwrap();
    assert_eq!((&told["ready"], &told["draining"]), (&false.into(), &true.into()), "{told}");
    assert_eq!(node.server.get("/healthz").await.status, 200);
    let Err(refused) = Raw::try_connect(&node.server, "letter-0", &[]).await else {
        panic!("somebody new is in")
    };
    assert_eq!(refused.status, 503);

    let (left, unsaved): (Vec<_>, Vec<_>) = leaving.await.unwrap().into_iter().unzip();
    let (code, log, folder) = node.ends(SAVED_WITHIN).await;
    assert_eq!(code, Some(0), "{log}");
    let took = start.elapsed();
    println!("{people} were sent away in {:?}, and it ended after {took:?}", left.iter().max().unwrap());
    assert!(took < time + SAVED_WITHIN);
    // In each third of the time about a third of them, as far as a busy machine notes it in time.
    for third in 0..3 {
        let here = left.iter().filter(|at| (time / 3 * third..time / 3 * (third + 1)).contains(*at)).count();
        assert!(here > people / 10 && here < people * 3 / 5, "{here} of {people} in third {third}");
    }

    let node = Node::start_in(folder, &[]);
    let server = &node.server;
    // As every client does, they bring again what they were not told is saved.
    let count = unsaved.iter().map(Vec::len).sum::<usize>();
    println!("of {} words {count} were not told to be saved", 2 * people);
    assert!(count < people / 2, "{unsaved:?}");
    for (number, words) in unsaved.into_iter().enumerate().filter(|(_, words)| !words.is_empty()) {
        let mut raw = Raw::connect(server, &document(number)).await;
        raw.is_greeted().await;
        for word in words {
            types(&mut raw, &word).await;
        }
        raw.is_answered().await;
    }
    let texts = join_all((0..20).map(|number| async move { server.text_of(&document(number)).await })).await;
    check_words(&texts, people);
}

fn check_words(texts: &[String], people: usize) {
    let here: BTreeSet<&str> = texts.iter().flat_map(|text| text.split_inclusive(']')).collect();
    let lost: Vec<_> = (0..2 * people).map(word).filter(|word| !here.contains(&**word)).collect();
    assert!(lost.is_empty(), "{lost:?} are lost");
}

#[tokio::test]
async fn who_has_nobody_to_send_away_ends_at_once() {
    let node = Node::start(&["--drain", "60"]);
    let start = Instant::now();
    node.signal("-TERM");
    let (code, log, _folder) = node.ends(PATIENCE).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// A node whose Redis is gone, with an edit that is nowhere else.
async fn unsaved() -> (Node, Raw) {
    let mut redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url(), "--drain", "2"]);
    let mut raw = joins_and_types(&node.server, 0).await;
    raw.is_answered().await;
    redis.kill();
    types(&mut raw, "nowhere else").await;
    raw.is_answered().await;
    (node, raw)
}

#[tokio::test]
async fn what_cannot_be_saved_is_named_and_the_exit_code_says_so() {
    let (node, mut raw) = unsaved().await;
    let start = Instant::now();
    node.signal("-TERM");
    assert_eq!(raw.is_closed().await.code, 1012.into());
    let (code, log, _folder) =
        node.ends(Duration::from_secs(2) + SAVED_WITHIN + Duration::from_secs(1)).await;
    println!("it ended after {:?}", start.elapsed());
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("edits of 1 documents could not be saved: \"letter-0\""), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (signal, expected) in [("-INT", 130), ("-TERM", 143)] {
        let (node, mut raw) = unsaved().await;
        node.signal("-TERM");
        assert_eq!(raw.is_closed().await.code, 1012.into());
        let start = Instant::now();
        node.signal(signal);
        let (code, log, _folder) = node.ends(PATIENCE).await;
        assert_eq!(code, Some(expected), "{log}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_second_port_has_the_metrics_and_the_first_one_no_longer() {
    let node = Node::start(&["--admin-listen", "127.0.0.1:0", "--auth"]);
    let log = node.log();
    let (_, admin) = log.split_once("the API are also on ").expect("it says where");
    let admin = admin.split_whitespace().next().unwrap().parse().unwrap();
    let admin = TestServer::at(TempDir::new().unwrap(), admin);
    assert_eq!(node.server.get("/metrics").await.status, 404);
    assert!(admin.get("/metrics").await.text().contains("quire_info"));
    for server in [&node.server, &admin] {
        assert_eq!(server.get("/healthz").await.status, 200);
        assert_eq!(server.get("/readyz").await.status, 200);
        // With the same tokens.
        assert_eq!(server.get("/api/documents/letter").await.status, 401);
    }
    assert_eq!(admin.get("/").await.status, 404, "no editor");
    let Err(refused) = Raw::try_connect(&admin, "letter", &[]).await else { panic!("a session") };
    assert_eq!(refused.status, 404);
    node.signal("-TERM");
    assert_eq!(node.ends(PATIENCE).await.0, Some(0));
}
