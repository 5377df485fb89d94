//! What whoever watches the server would complain about: a metric that is not in the list, does not move, or costs much.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use quire::protocol;
use tokio::time::sleep;
use yrs::{Text, Transact, WriteTxn};

use crate::common::{
    PATIENCE, Raw, TestServer,
    cluster::{Client, Node, agree},
    insertion, new_doc,
    redis::RedisServer,
};

/// How long a scrape may take on a machine that does other things besides; usually it is less than a millisecond.
const SCRAPED_WITHIN: Duration = Duration::from_millis(100);

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
