//! What whoever watches the server would complain about: a metric that is not in the list, does not move, or costs much.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use quire::protocol::{self, Message};
use tokio::time::{interval, sleep};
use yrs::{Doc, Text, Transact, WriteTxn};

use crate::common::{
    PATIENCE, Raw, TestServer,
    cluster::{Client, Node, agree, long},
    insertion, new_doc,
    redis::RedisServer,
};

/// How long a scrape may take on a machine that does other things besides; usually it is less than a millisecond.
const SCRAPED_WITHIN: Duration = Duration::from_millis(100);

/// How much of a processor's time a scrape may cost.
const SCRAPE_COSTS: Duration = Duration::from_millis(10);

/// Edits of 100 KB each: more than the system keeps for a socket that nobody reads.
const LARGE_EDITS: usize = 150;

/// What a metric is: its type, and each label with its values.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The table of docs/metrics.md.
fn documented() -> BTreeMap<String, Kind> {
    let rows = include_str!("../docs/metrics.md").lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let mut words = quoted(cells[3]).into_iter();
        let labels = words.next().map(|label| (label, words.collect())).into_iter().collect();
        (quoted(cells[1])[0].clone(), Kind { kind: cells[2].to_owned(), labels })
    })
    .collect()
}

/// The value of each series, with its name and labels as they are written.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// What a server says its metrics are.
fn told(text: &str) -> BTreeMap<String, Kind> {
    let mut told = BTreeMap::new();
    let (mut name, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            let (family, of) = about.split_once(' ').unwrap();
            let suffix = match of {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (name, kind) = (format!("{family}{suffix}"), of.to_owned());
        } else if !line.starts_with('#') {
            let metric: &mut Kind = told
                .entry(name.clone())
                .or_insert_with(|| Kind { kind: kind.clone(), labels: BTreeMap::new() });
            let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            for label in labels.into_iter().flat_map(|(labels, _)| labels.split(',')) {
                let (label, value) = label.split_once('=').unwrap();
                if label != "le" {
                    let values = metric.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    told
}

async fn scrape(server: &TestServer) -> String {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    answer.text()
}

async fn moves(server: &TestServer, name: &str, to: impl Fn(f64) -> bool) {
    let begin = Instant::now();
    loop {
        let found =
            series(&scrape(server).await).get(name).copied().unwrap_or_else(|| panic!("there is no {name}"));
        if to(found) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{name} is {found}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A message of Redis is lost: an entry comes into the log of which nobody hears.
fn appends_silently(redis: &RedisServer, document: &str) {
    let script = "local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1] \
                  local epoch, number = string.match(last[1], '(%d+)-(%d+)') \
                  return redis.call('XADD', KEYS[1], epoch .. '-' .. (number + 1), unpack(last[2]))";
    let answer = redis.cli(&["EVAL", script, "1", &format!("quire:{{{document}}}:l")]);
    assert!(answer.contains('-'), "{answer}");
}

/// Somebody who sends large edits, and one who reads none of them until all are sent.
async fn falls_behind(node: &Node) {
    let (mut slow, mut fast) =
        (Raw::connect(&node.server, "large").await, Raw::connect(&node.server, "large").await);
    slow.is_greeted().await;
    fast.is_greeted().await;
    let doc = new_doc();
    for _ in 0..LARGE_EDITS {
        fast.send(protocol::update(&insertion(&doc, 0, &"x".repeat(100_000))).to_vec()).await;
        // So that the document stays small, and so fast.
        let mut transaction = doc.transact_mut();
        transaction.get_or_insert_text("text").remove_range(&mut transaction, 0, 100_000);
        fast.send(protocol::update(&transaction.encode_update_v1()).to_vec()).await;
    }
    fast.is_answered().await;
    let reading = tokio::spawn(async move {
        loop {
            slow.hears_bytes().await;
        }
    });
    moves(&node.server, "quire_resyncs_total", |count| count > 0.0).await;
    reading.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_in_the_list_and_moves() {
    let mut redis = RedisServer::start_durable();
    let (one, two) = (Node::start(&redis.url()), Node::start(&redis.url()));
    let before = scrape(&one.server).await;
    let alice = Client::joins(&one, "letter", "alice").await;
    let carol = Client::joins(&one, "letter", "carol").await;
    let bob = Client::joins(&two, "letter", "bob").await;
    for _ in 0..50 {
        alice.types();
        bob.types();
        sleep(Duration::from_millis(20)).await;
    }
    agree(&[&alice, &bob, &carol]).await;
    appends_silently(&redis, "letter");
    bob.types();
    agree(&[&alice, &bob, &carol]).await;
    moves(&one.server, "quire_relay_gaps_total", |gaps| gaps > 0.0).await;
    falls_behind(&one).await;
    let stranger =
        one.server.get_with("/api/documents/letter", "Origin: https://strangers.example\r\n").await;
    assert_eq!(stranger.status, 403);
    // That somebody has left is noticed a moment later.
    moves(&one.server, r#"quire_sessions{dialect="y-websocket"}"#, |sessions| sessions == 2.0).await;

    let text = scrape(&one.server).await;
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut expected = documented();
    let version = expected.get_mut("quire_info").unwrap().labels.get_mut("version").unwrap();
    version.insert(env!("CARGO_PKG_VERSION").to_owned());
    assert_eq!(told(&text), expected);
    assert_eq!(told(&before), expected, "from the start");

    let (before, after) = (series(&before), series(&text));
    let grown = [
        r#"quire_sessions{dialect="y-websocket"}"#,
        "quire_documents",
        "quire_document_bytes",
        "quire_received_bytes_total",
        "quire_sent_bytes_total",
        "quire_delivery_seconds_count",
        "quire_delivery_seconds_sum",
        "quire_saved_seconds_count",
        "quire_mailbox_depth_count",
        "quire_outbox_bytes_sum",
        "quire_relay_lag_seconds_count",
        "quire_log_appended_bytes_total",
        "quire_log_records_sum",
        "process_cpu_seconds_total",
        "process_open_fds",
        r#"quire_sessions_ended_total{reason="left"}"#,
        r#"quire_refusals_total{limit="allow-origin"}"#,
    ];
    for name in grown {
        assert!(after[name] > before[name], "{name} is {} after {}", after[name], before[name]);
    }
    assert_eq!(after[r#"quire_sessions{dialect="y-websocket"}"#], 2.0);
    // Alice's and the large ones; Bob's are the other node's, and came here through the log.
    let edits = (50 + 2 * LARGE_EDITS) as f64;
    assert_eq!(after["quire_edits_total"], edits);
    // Each of them to one other, each of Bob's to two, as far as none came in one batch with the next.
    assert!((100.0..=edits + 102.0).contains(&after["quire_deliveries_total"]), "{after:?}");
    assert!(after["quire_saved_seconds_sum"] / after["quire_saved_seconds_count"] < 5.0);
    assert_eq!(after["quire_backend_up"], 1.0);

    let begin = Instant::now();
    for _ in 0..50 {
        scrape(&one.server).await;
    }
    let took = begin.elapsed() / 50;
    println!("a scrape of {} bytes takes {took:?}", text.len());
    assert!(took < SCRAPED_WITHIN, "{took:?}");

    // Who leaves is counted no longer, and the log of a document that rests is compacted.
    drop((alice, bob, carol));
    moves(&one.server, r#"quire_sessions{dialect="y-websocket"}"#, |sessions| sessions == 0.0).await;
    moves(&one.server, r#"quire_compactions_total{result="done"}"#, |done| done > 0.0).await;
    moves(&one.server, "quire_documents", |documents| documents == 0.0).await;
    redis.kill();
    moves(&one.server, "quire_backend_up", |up| up == 0.0).await;
}

/// In the load test: documents, the people in each, how often somebody types in each, and how often that is.
const CROWDED: usize = 200;
const PEOPLE: usize = 10;
const ROUNDS: usize = 40;
const ROUND: Duration = Duration::from_millis(500);

/// Somebody in a crowded document, and the bytes of the frames that went either way.
struct Member {
    raw: Raw,
    doc: Doc,
    sent: usize,
    heard: usize,
}

impl Member {
    async fn joins(node: &Node, document: &str) -> Self {
        let mut member =
            Self { raw: Raw::connect(&node.server, document).await, doc: new_doc(), sent: 0, heard: 0 };
        assert!(matches!(member.hears().await, Message::SyncStep1(_)));
        member.sends(&protocol::sync_step_2(yrs::Update::EMPTY_V1)).await;
        // The answer to a question comes after what was caused before.
        member.sends(&[3]).await;
        while !matches!(member.hears().await, Message::Awareness(_)) {}
        member
    }

    async fn hears(&mut self) -> Message {
        let bytes = self.raw.hears_bytes().await;
        self.heard += bytes.len();
        Message::read(&mut quire::lib0::Reader::new(&bytes)).unwrap()
    }

    async fn sends(&mut self, frame: &[u8]) {
        self.sent += frame.len();
        self.raw.send(frame).await;
    }

    async fn types(&mut self) {
        let update = insertion(&self.doc, 0, "x");
        self.sends(&protocol::update(&update)).await;
    }

    /// Waits until somebody else has typed.
    async fn reads(&mut self) {
        while !matches!(self.hears().await, Message::Update(_)) {}
    }
}

/// The people in one document take turns, and each edit is read by everybody else before the next one: so that no two of
/// them are one batch, and every figure is known.
async fn take_turns(members: &mut [Member]) {
    let mut rounds = interval(ROUND);
    for round in 0..ROUNDS {
        rounds.tick().await;
        let turn = round % members.len();
        members[turn].types().await;
        let others = members.iter_mut().enumerate().filter(|(number, _)| *number != turn);
        join_all(others.map(|(_, member)| member.reads())).await;
    }
}

/// How long each of so many scrapes took, from the shortest to the longest.
async fn scrapes(server: &TestServer, count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        scrape(server).await;
        took.push(begin.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_metric_moves_as_it_should() {
    if !long() {
        return;
    }
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let people = CROWDED * PEOPLE;
    let most = people.to_string();
    let redis = RedisServer::start();
    let flags =
        ["--redis", &redis.url(), "--max-new-connections-per-address", "0", "--max-connections", &most];
    let (one, two) = (Node::start_with(&flags, &[]), Node::start_with(&flags, &[]));
    let before = series(&scrape(&one.server).await);

    let mut documents = Vec::new();
    for number in 0..CROWDED {
        let document = &format!("crowded-{number}");
        // The last one is on the other node.
        let nodes = std::iter::repeat_n(&one, PEOPLE).chain([&two]);
        documents.push(join_all(nodes.map(|node| Member::joins(node, document))).await);
    }
    let full = Raw::try_connect(&one.server, "crowded-0", &[]).await.err().expect("it is refused");
    assert_eq!(full.status, 503);

    let typing = join_all(documents.into_iter().map(|mut members| {
        tokio::spawn(async move {
            take_turns(&mut members).await;
            members
        })
    }));
    let typing = tokio::spawn(typing);
    let took = scrapes(&one.server, 100).await;
    println!("while they type a scrape takes {:?}, and at most {:?}", took[50], took[99]);
    assert!(took[50] < SCRAPED_WITHIN);
    let mut documents: Vec<_> = typing.await.unwrap().into_iter().map(Result::unwrap).collect();
    let after = series(&scrape(&one.server).await);
    check_load(&before, &after, &documents);

    let cpu = "process_cpu_seconds_total";
    scrapes(&one.server, 100).await;
    let cost = (series(&scrape(&one.server).await)[cpu] - after[cpu]) / 101.0;
    println!("a scrape costs {:.2} ms of a processor", cost * 1e3);
    assert!(cost < SCRAPE_COSTS.as_secs_f64());

    for member in documents.iter_mut().flatten() {
        // An error: it is closed already.
        let _ = member.raw.socket.close(None).await;
    }
    let back = |name: &'static str| moves(&one.server, name, |value| value == before[name]);
    back(r#"quire_sessions{dialect="y-websocket"}"#).await;
    back("quire_documents").await;
    back("quire_document_bytes").await;
    back("quire_tasks").await;
    moves(&one.server, "process_open_fds", |files| files < before["process_open_fds"] + 20.0).await;
    moves(&one.server, r#"quire_sessions_ended_total{reason="left"}"#, |left| left == people as f64).await;
    moves(&one.server, r#"quire_compactions_total{result="done"}"#, |done| done > 0.0).await;
}

/// What has become of each metric: what is in none of these lists stayed as it was.
fn check_load(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, documents: &[Vec<Member>]) {
    let people = CROWDED * PEOPLE;
    // In each document one edit in eleven is of the one on the other node.
    let theirs = CROWDED * (0..ROUNDS).filter(|round| round % (PEOPLE + 1) == PEOPLE).count();
    let ours = CROWDED * ROUNDS - theirs;
    let here = || documents.iter().flat_map(|members| &members[..PEOPLE]);
    let exactly = [
        (r#"quire_sessions{dialect="y-websocket"}"#, people),
        (r#"quire_refusals_total{limit="max-connections"}"#, 1),
        ("quire_documents", CROWDED),
        ("quire_edits_total", ours),
        ("quire_deliveries_total", ours * (PEOPLE - 1) + theirs * PEOPLE),
        ("quire_delivery_seconds_count", ours),
        ("quire_outbox_bytes_count", ours),
        ("quire_relay_lag_seconds_count", theirs),
        ("quire_received_bytes_total", here().map(|member| member.sent).sum()),
        ("quire_sent_bytes_total", here().map(|member| member.heard).sum()),
    ];
    let at_least = [
        // What an empty document is estimated as.
        ("quire_document_bytes", CROWDED * 10 * 1024),
        ("quire_tasks", people + CROWDED),
        ("process_open_fds", people),
        // Where the store is slow, some edits of a document share a record.
        ("quire_saved_seconds_count", ours / 2),
        ("quire_log_records_count", ours / 2),
        ("quire_log_records_sum", ours),
        ("quire_log_appended_bytes_total", ours * 20),
        ("quire_mailbox_depth_count", ours + theirs),
        ("quire_mailbox_depth_sum", ours),
        ("quire_outbox_bytes_sum", ours),
    ];
    let more = [
        "quire_delivery_seconds_sum",
        "quire_saved_seconds_sum",
        "quire_relay_lag_seconds_sum",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ];
    let changes = ["process_threads", "process_virtual_memory_bytes"];
    for (name, &value) in after.iter().filter(|(name, _)| !name.contains("_bucket{")) {
        let grew = value - before[name];
        if let Some((_, expected)) = exactly.iter().find(|(exact, _)| exact == name) {
            assert_eq!(grew, *expected as f64, "{name}");
        } else if let Some((_, least)) = at_least.iter().find(|(least, _)| least == name) {
            assert!(grew >= *least as f64, "{name} grew by {grew}, not by {least}");
        } else if more.contains(&name.as_str()) {
            assert!(grew > 0.0, "{name} is {value}");
        } else if !changes.contains(&name.as_str()) {
            assert_eq!(grew, 0.0, "{name}");
        }
    }
    assert!(after["quire_saved_seconds_count"] <= ours as f64);
    assert_eq!(after["quire_log_records_count"], after["quire_saved_seconds_count"]);
    assert!(after["quire_tasks"] - before["quire_tasks"] < (people + CROWDED + 20) as f64);
}
