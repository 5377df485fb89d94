//! What people would complain about whose application is told of what happens: something that it never hears of, that it
//! cannot trust, or that costs those who edit.

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use axum::{Router, extract::State, http::HeaderMap, routing::post};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use quire::{
    config::{Config, Secret, Webhooks},
    level::Level,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::common::{
    PATIENCE, Person, Raw, TestServer, cluster::Node, redis::RedisServer, secret, token, within,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
const JSON: &str = "Content-Type: application/json\r\n";

/// An application that is told.
struct Application {
    port: u16,
    heard: Arc<Mutex<Heard>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    told: Vec<Told>,
    /// What it answers, one after the other; 204 when there are no more. 0 is no answer at all.
    answers: Vec<u16>,
}

#[derive(Debug, Clone)]
struct Told {
    id: String,
    at: Instant,
    body: Value,
}

impl Told {
    fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    fn data(&self) -> &Value {
        &self.body["data"]
    }
}

impl Application {
    async fn start(answers: &[u16]) -> Self {
        Self::start_on(0, answers).await
    }

    async fn start_on(port: u16, answers: &[u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Heard { answers: answers.to_vec(), ..Heard::default() }));
        let routes = Router::new().route("/hook/{secret}", post(hear)).with_state(heard.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { port, heard, serving }
    }

    /// A port on which nobody is.
    async fn absent() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    fn told(&self) -> Vec<Told> {
        self.heard.lock().unwrap().told.clone()
    }

    /// Waits until it was told so often.
    async fn is_told(&self, times: usize, limit: Duration) -> Vec<Told> {
        let begin = Instant::now();
        while self.told().len() < times {
            assert!(begin.elapsed() < limit, "told only of {:#?}", self.told());
            sleep(Duration::from_millis(20)).await;
        }
        self.told()
    }

    /// Waits until it is told this of a document.
    async fn is_told_that(&self, kind: &str, document: &str, limit: Duration) -> Told {
        let begin = Instant::now();
        loop {
            let is_it = |told: &Told| told.kind() == kind && told.data()["document"] == document;
            if let Some(told) = self.told().into_iter().find(is_it) {
                return told;
            }
            assert!(begin.elapsed() < limit, "told only of {:#?}", self.told());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Every signature is checked.
async fn hear(
    State(heard): State<Arc<Mutex<Heard>>>,
    headers: HeaderMap,
    body: String,
) -> axum::http::StatusCode {
    let header = |name| headers[name].to_str().unwrap();
    let (id, time) = (header("webhook-id"), header("webhook-timestamp"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time.parse().unwrap()) < 5, "{time} is not now");
    let key = BASE64_STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let signature = BASE64_STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    let signed = format!("{id}.{time}.{body}");
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes(), &signature).unwrap();
    assert_eq!(header("content-type"), "application/json");
    let status = {
        let mut heard = heard.lock().unwrap();
        let body = serde_json::from_str(&body).unwrap();
        heard.told.push(Told { id: id.to_owned(), at: Instant::now(), body });
        match heard.answers.is_empty() {
            true => 204,
            false => heard.answers.remove(0),
        }
    };
    if status == 0 {
        std::future::pending::<()>().await;
    }
    axum::http::StatusCode::from_u16(status).unwrap()
}

fn address(port: u16) -> String {
    format!("http://127.0.0.1:{port}/hook/secret-of-the-address")
}

fn tell(config: &mut Config, port: u16) {
    config.webhooks = Webhooks {
        url: Some(address(port).parse().unwrap()),
        secret: Some(Secret::new(SECRET.to_owned())),
        pause: Duration::from_secs(1),
        ..Webhooks::default()
    };
}

/// The value of a line in the metrics; 0 where there is none.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let text = server.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

async fn until_metric(server: &TestServer, name: &str, value: u64) {
    let begin = Instant::now();
    while metric(server, name).await != value {
        assert!(begin.elapsed() < PATIENCE, "{name} is not {value}: {}", server.get("/metrics").await.text());
        sleep(Duration::from_millis(20)).await;
    }
}

const DELIVERED: &str = "quire_webhook_tries_total{result=\"delivered\"}";
const FAILED: &str = "quire_webhook_tries_total{result=\"failed\"}";
const GIVEN_UP: &str = "quire_webhook_tries_total{result=\"given_up\"}";
const WAITING: &str = "quire_webhooks_waiting";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_happens_is_told_once() {
    let application = Application::start(&[]).await;
    let server = TestServer::start_with(|config| {
        tell(config, application.port);
        config.authentication.secret = Some(secret());
    })
    .await;
    let (alice, bob) = (token("alice", "*", Level::Admin), token("bob", "*", Level::Admin));
    let mut alices = Person::joins(&server, &format!("letter?token={alice}")).await;
    let mut bobs = Person::joins(&server, &format!("letter?token={bob}")).await;
    for number in 0..10 {
        alices.types(&format!("{number} ")).await;
    }
    bobs.reads("0 1 2 3 4 5 6 7 8 9 ").await;
    bobs.types("and more").await;
    alices.reads("0 1 2 3 4 5 6 7 8 9 and more").await;
    let told = application.is_told(3, PATIENCE).await;
    let said = |told: &Told| (told.kind().to_owned(), told.data().clone());
    let began = |user: &str| ("session.began".to_owned(), json!({ "document": "letter", "user": user }));
    assert_eq!(said(&told[0]), began("alice"));
    assert_eq!(said(&told[1]), began("bob"));
    let changed = json!({ "document": "letter", "users": ["alice", "bob"] });
    assert_eq!(said(&told[2]), ("document.changed".to_owned(), changed));

    let bearer = format!("{JSON}Authorization: Bearer {alice}\r\n");
    let kept = server.post("/api/documents/letter/versions", &bearer, br#"{"name":"sent"}"#).await;
    assert_eq!(kept.status, 201, "{}", kept.text());
    let id = serde_json::from_slice::<Value>(&kept.body).unwrap()["id"].clone();
    let told = application.is_told(4, PATIENCE).await;
    let saved = json!({ "document": "letter", "version": id, "name": "sent", "users": ["alice", "bob"] });
    assert_eq!(said(&told[3]), ("version.saved".to_owned(), saved));

    alices.raw.socket.close(None).await.unwrap();
    let told = application.is_told(5, PATIENCE).await;
    let ended = json!({ "document": "letter", "user": "alice", "code": 1000, "reason": "left" });
    assert_eq!(said(&told[4]), ("session.ended".to_owned(), ended));
    assert_eq!(server.request("DELETE", "/api/documents/letter", &bearer).await.status, 204);
    application.is_told(7, PATIENCE).await;
    // A refused session is none.
    drop(Raw::connect(&server, "letter").await.is_closed().await);
    sleep(Duration::from_secs(3)).await;
    let told = application.told();
    assert_eq!(told.len(), 7, "{told:#?}");
    // These two happen at the same time.
    let ended = json!({ "document": "letter", "user": "bob", "code": 4404, "reason": "deleted" });
    assert!(
        told[5..].iter().any(|told| said(told) == ("session.ended".to_owned(), ended.clone())),
        "{told:#?}"
    );
    let deleted = json!({ "document": "letter", "user": "alice" });
    let deleted = ("document.deleted".to_owned(), deleted);
    assert!(told[5..].iter().any(|told| said(told) == deleted), "{told:#?}");
    let mut ids: Vec<_> = told.iter().map(|told| told.id.clone()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 7);
    assert_eq!((metric(&server, DELIVERED).await, metric(&server, WAITING).await), (7, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_taken_is_tried_again_unless_it_is_unwanted() {
    // A redirection is not followed.
    let application = Application::start(&[500, 302, 204, 410]).await;
    let server = TestServer::start_with(|config| tell(config, application.port)).await;
    let put = |name| format!("/api/documents/{name}");
    for name in ["letter", "poem"] {
        assert_eq!(server.request("PUT", &put(name), "Content-Length: 0\r\n").await.status, 201);
    }
    let told = application.is_told(4, PATIENCE).await;
    let of = |document: &str| -> Vec<Told> {
        told.iter().filter(|told| told.data()["document"] == document).cloned().collect()
    };
    for told in [of("letter"), of("poem")] {
        assert_eq!(told.len(), 2, "{told:#?}");
        assert_eq!((&told[0].id, &told[0].body), (&told[1].id, &told[1].body));
        let after = told[1].at - told[0].at;
        assert!(after > Duration::from_millis(4_500), "{after:?}");
    }
    until_metric(&server, WAITING, 0).await;
    let metrics = [FAILED, DELIVERED, GIVEN_UP].map(|name| metric(&server, name));
    assert_eq!(futures_util::future::join_all(metrics).await, [2, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_told_outlives_the_server() {
    let (data, port) = (TempDir::new().unwrap(), Application::absent().await);
    let address = address(port);
    let arguments = ["--data", data.path().to_str().unwrap(), "--webhook", &address, "--webhook-pause", "0"];
    let variables = [("QUIRE_WEBHOOK_SECRET", SECRET), ("QUIRE_LOG", "trace")];
    let mut node = Node::start_with(&arguments, &variables);
    Person::joins(&node.server, "letter").await.types("hello").await;
    // It began, was changed, and ended.
    until_metric(&node.server, WAITING, 3).await;
    node.kill();
    let first_log = node.log();
    drop(node);

    let application = Application::start_on(port, &[]).await;
    let node = Node::start_with(&arguments, &variables);
    let changed = application.is_told_that("document.changed", "letter", Duration::from_secs(90)).await;
    assert_eq!(changed.data()["users"], json!([]));
    application.is_told(3, Duration::from_secs(90)).await;
    until_metric(&node.server, WAITING, 0).await;
    for log in [first_log, node.log()] {
        assert!(log.contains("listening on"), "{log}");
        for secret in [SECRET, SECRET.strip_prefix("whsec_").unwrap(), "secret-of-the-address"] {
            assert!(!log.contains(secret), "the log shows {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_tells_what_a_dead_one_left() {
    let (redis, port) = (RedisServer::start(), Application::absent().await);
    let (url, address, folder) = (redis.url(), address(port), TempDir::new().unwrap());
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["--redis", &url, "--webhook", &address, "--webhook-secret-file", file];
    let start = || Node::start_with(&[&arguments[..], &["--webhook-pause", "0"]].concat(), &[]);
    let mut dead = start();
    Person::joins(&dead.server, "letter").await.types("hello").await;
    until_metric(&dead.server, WAITING, 3).await;
    dead.kill();

    let application = Application::start_on(port, &[]).await;
    let other = start();
    application.is_told_that("document.changed", "letter", Duration::from_secs(90)).await;
    application.is_told(3, Duration::from_secs(90)).await;
    until_metric(&other.server, WAITING, 0).await;
    assert_eq!(redis.cli(&["KEYS", "quire:{webhooks}*"]), "", "nothing is left");
    // Both tell of their own people, and each event comes from one node alone.
    let third = start();
    let before = application.told().len();
    let mut alice = Person::joins(&other.server, "letter").await;
    let mut bob = Person::joins(&third.server, "letter").await;
    alice.types("!").await;
    bob.reads("hello!").await;
    application.is_told(before + 3, PATIENCE).await;
    sleep(Duration::from_secs(2)).await;
    let mut kinds: Vec<_> = application.told()[before..].iter().map(|told| told.kind().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["document.changed", "session.began", "session.began"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_hangs_costs_those_who_edit_nothing() {
    let application = Application::start(&[0; 1_000]).await;
    let server = TestServer::start_with(|config| {
        tell(config, application.port);
        config.webhooks.pause = Duration::ZERO;
    })
    .await;
    let mut alice = Person::joins(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    let (mut words, mut longest) = (String::new(), Duration::ZERO);
    for number in 0..100 {
        let begin = Instant::now();
        let word = format!("{number} ");
        words.push_str(&word);
        alice.types(&word).await;
        bob.reads(&words).await;
        longest = longest.max(begin.elapsed());
        if number % 10 == 0 {
            Person::joins(&server, &format!("poem-{number}")).await.types("hello").await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    println!("the slowest edit took {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let hanging = application.told().len();
    assert!((1..=8).contains(&hanging), "{hanging} hang at the same time");
    let begin = Instant::now();
    let folder = server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "it stops all the same: {:?}", begin.elapsed());
    // What hangs was not told, and all of it is in the store, with what happened while the server stopped.
    let server = TestServer::start_in(folder, |config| tell(config, application.port)).await;
    until(&server, WAITING, 20).await;
    within(server.stop()).await;
}

async fn until(server: &TestServer, name: &str, least: u64) {
    let begin = Instant::now();
    while metric(server, name).await < least {
        assert!(begin.elapsed() < PATIENCE, "{}", server.get("/metrics").await.text());
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn without_a_good_secret_the_server_does_not_start() {
    let folder = TempDir::new().unwrap();
    let start = |secret: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quire"));
        command.args(["--listen", "127.0.0.1:0", "--webhook", "https://app.example.com/quire"]);
        command.env_remove("QUIRE_TEST_LONG").current_dir(folder.path());
        command.envs(secret.map(|secret| ("QUIRE_WEBHOOK_SECRET", secret)));
        let ended = command.output().unwrap();
        assert!(!ended.status.success());
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    let said = start(None);
    assert!(said.contains("--webhook-secret-file") && said.contains("QUIRE_WEBHOOK_SECRET"), "{said}");
    let said = start(Some("whsec_c2hvcnQ="));
    assert!(said.contains("5 bytes") && said.contains("24 to 64") && !said.contains("c2hvcnQ"), "{said}");
}
