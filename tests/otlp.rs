//! What somebody who follows edits would complain about: a step that is missing or in another trace, an edit told as saved
//! that is not, and a collector that is away and disturbs those who type.

use std::{
    collections::HashMap,
    fs::{self, File},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use quire::protocol;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::sleep};
use yrs::Text;

use crate::common::{PATIENCE, Person, TestServer};

/// What a stop may take: process managers kill after ten seconds.
const STOP_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_trace_follows_each_edit_to_saved() {
    let collector = Collector::on("127.0.0.1:0").await;
    let node = Node::start(&["--otlp", &collector.url(), "--otlp-sample", "1"]).await;
    let mut alice = Person::joins(&node.server, "team/letter").await;
    let mut bob = Person::joins(&node.server, "team/letter").await;
    for (n, words) in ["one", "two", "three"].into_iter().enumerate() {
        alice.types(words).await;
        bob.reads(&["one", "two", "three"][..=n].concat()).await;
    }
    assert_eq!(node.stop().await, Some(0));

    let spans = collector.spans();
    let edits: Vec<_> = spans.iter().filter(|span| span.name == "edit").collect();
    assert_eq!(edits.len(), 3, "{spans:#?}");
    assert_eq!(spans.len(), 3 * 5, "{spans:#?}");
    for edit in edits {
        assert!(edit.parent.is_empty());
        assert_eq!(edit.attributes["document"], Value::Text("team/letter".to_owned()));
        assert_eq!(edit.attributes["dialect"], Value::Text("y-websocket".to_owned()));
        assert!(matches!(edit.attributes["bytes"], Value::Number(10..100)), "{edit:?}");
        assert_eq!(edit.attributes["saved"], Value::Number(1));
        let mut steps: Vec<_> = spans.iter().filter(|span| span.parent == edit.id).collect();
        steps.sort_by_key(|span| span.start);
        assert_eq!(
            steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(),
            ["wait", "apply", "deliver", "save"]
        );
        for step in steps {
            assert_eq!(step.trace, edit.trace, "{step:?}");
            assert!(edit.start <= step.start && step.start <= step.end && step.end <= edit.end, "{step:?}");
        }
    }
}

#[tokio::test]
async fn an_edit_that_is_known_already_is_not_saved_again() {
    let collector = Collector::on("127.0.0.1:0").await;
    let node = Node::start(&["--otlp", &collector.url(), "--otlp-sample", "1"]).await;
    let mut alice = Person::joins(&node.server, "letter").await;
    let update = alice.edit(|text, transaction| text.insert(transaction, 0, "again"));
    for _ in 0..2 {
        alice.raw.send(protocol::update(&update)).await;
        alice.catches_up().await;
    }
    assert_eq!(node.stop().await, Some(0));
    let spans = collector.spans();
    let steps = |edit: &Span| spans.iter().filter(|span| span.parent == edit.id).count();
    let mut edits: Vec<_> = spans.iter().filter(|span| span.name == "edit").collect();
    edits.sort_by_key(|edit| edit.start);
    let found: Vec<_> =
        edits.into_iter().map(|edit| (steps(edit), edit.attributes.contains_key("saved"))).collect();
    assert_eq!(found, [(4, true), (2, false)]);
}

#[tokio::test]
async fn a_trace_does_not_say_saved_before_the_store_has_confirmed_it() {
    let collector = Collector::on("127.0.0.1:0").await;
    let node = Node::start(&["--otlp", &collector.url(), "--otlp-sample", "1"]).await;
    let mut alice = Person::joins(&node.server, "letter").await;
    // Meanwhile nobody else can write to the store.
    let store = rusqlite::Connection::open(node.server.folder.path().join("data/quire.db")).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    alice.types("held").await;
    alice.catches_up().await;
    sleep(Duration::from_millis(300)).await;
    store.execute_batch("COMMIT").unwrap();
    assert_eq!(node.stop().await, Some(0));
    let spans = collector.spans();
    let save = spans.iter().find(|span| span.name == "save").expect("it was saved");
    assert!(save.end - save.start > 250_000_000, "{save:?}");
}

#[tokio::test]
async fn few_edits_are_traced_unless_more_are_asked_for() {
    let collector = Collector::on("127.0.0.1:0").await;
    let node = Node::start(&["--otlp", &collector.url(), "--otlp-sample", "0.1"]).await;
    let mut alice = Person::joins(&node.server, "letter").await;
    for _ in 0..500 {
        alice.types("x").await;
    }
    alice.catches_up().await;
    assert_eq!(node.server.text_of("letter").await.trim_end().len(), 500);
    assert_eq!(node.stop().await, Some(0));
    let traced = collector.spans().iter().filter(|span| span.name == "edit").count();
    assert!((10..120).contains(&traced), "{traced} of 500");
}

#[tokio::test]
async fn a_collector_that_is_away_disturbs_nobody() {
    let collector = Collector::on("127.0.0.1:0").await;
    let (address, url) = (collector.address.to_string(), collector.url());
    drop(collector);
    let node = Node::start(&["--otlp", &url, "--otlp-sample", "1"]).await;
    let mut alice = Person::joins(&node.server, "letter").await;
    for _ in 0..500 {
        alice.types("x").await;
    }
    alice.catches_up().await;
    assert_eq!(node.server.text_of("letter").await.trim_end().len(), 500);
    node.says("the collector does not take traces").await;

    let collector = Collector::on(&address).await;
    alice.types("y").await;
    node.says("the collector takes traces again").await;
    assert!(collector.spans().iter().any(|span| span.name == "edit"));
    drop(collector);

    alice.types("z").await;
    alice.catches_up().await;
    assert!(node.server.text_of("letter").await.trim_end().ends_with("yz"));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_collector_that_does_not_answer_delays_no_stop() {
    // The system accepts for it, and nobody reads.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let node = Node::start(&["--otlp", &url, "--otlp-sample", "1"]).await;
    let mut alice = Person::joins(&node.server, "letter").await;
    alice.types("hello").await;
    alice.catches_up().await;
    assert_eq!(node.server.text_of("letter").await.trim_end(), "hello");
    assert_eq!(node.stop().await, Some(0));
}

/// A server process of its own.
struct Node {
    server: TestServer,
    process: Child,
}

impl Node {
    async fn start(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let log = folder.path().join("log");
        let mut process = Command::new(env!("CARGO_BIN_EXE_quire"))
            .args(["--listen", "127.0.0.1:0", "--data", "data"])
            .args(arguments)
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        loop {
            let log = fs::read_to_string(&log).unwrap();
            let address = log.split_once("listening on http://").and_then(|(_, rest)| rest.split_once(' '));
            if let Some((address, _)) = address {
                let server = TestServer::at(folder, address.parse().unwrap());
                return Self { server, process };
            }
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "it does not start: {log}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.server.folder.path().join("log")).unwrap()
    }

    /// Waits until the log has this, once.
    async fn says(&self, words: &str) {
        let begin = Instant::now();
        while !self.log().contains(words) {
            assert!(begin.elapsed() < PATIENCE, "{words:?} is not in: {}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.log().matches(words).count(), 1, "{}", self.log());
    }

    /// Stops it in good order, in time; answers with its status.
    async fn stop(mut self) -> Option<i32> {
        let process = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < STOP_WITHIN, "it does not stop: {}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes traces and keeps them, until it is dropped.
struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Collector {
    async fn on(address: &str) -> Self {
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let kept = bodies.clone();
        let take = async move |body: Bytes| kept.lock().unwrap().push(body);
        let router = Router::new().route("/v1/traces", post(take));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, bodies, serving }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans that came.
    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        // ExportTraceServiceRequest.resource_spans, ResourceSpans.scope_spans, ScopeSpans.spans
        let resources = bodies.iter().flat_map(|body| messages(body, 1));
        let scopes = resources.flat_map(|resource| messages(resource, 2));
        scopes.flat_map(|scope| messages(scope, 2)).map(Span::read).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A span as OTLP has it (opentelemetry/proto/trace/v1/trace.proto).
#[derive(Debug)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    start: u64,
    end: u64,
    attributes: HashMap<String, Value>,
}

#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Number(u64),
}

impl Span {
    fn read(bytes: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let bytes_of = |number| messages(bytes, number).next().unwrap_or_default().to_vec();
        let time = |number| u64::from_le_bytes(bytes_of(number).try_into().unwrap());
        let attribute = |attribute| {
            let (key, value) = (messages(attribute, 1).next()?, messages(attribute, 2).next()?);
            let value = match fields(value).next()? {
                (1, Field::Bytes(bytes)) => Value::Text(text(bytes)),
                (2 | 3, Field::Number(number)) => Value::Number(number),
                _ => return None,
            };
            Some((text(key), value))
        };
        Self {
            trace: bytes_of(1),
            id: bytes_of(2),
            parent: bytes_of(4),
            name: text(&bytes_of(5)),
            start: time(7),
            end: time(8),
            attributes: messages(bytes, 9).filter_map(attribute).collect(),
        }
    }
}

/// A field of a protobuf message: a varint, or bytes of any kind.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn messages(bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).filter_map(move |(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    })
}

fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = (!bytes.is_empty()).then(|| varint(&mut bytes))?;
        let length = match key & 7 {
            0 => return Some((key >> 3, Field::Number(varint(&mut bytes)))),
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("no wire type: {other}"),
        };
        Some((key >> 3, Field::Bytes(bytes.split_off(..length).unwrap())))
    })
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = *bytes.split_off_first().unwrap();
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}
