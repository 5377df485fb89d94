//! What it costs to type a whole paper: the 259,778 edits of `automerge-paper` through one connection to the
//! real server, one update per edit and one frame per update. Prints CPU microseconds per edit in ten parts
//! of the paper (they must not grow), at full speed and at the pace of a busy document, the start time, and
//! what the guard takes of it.
//!
//! `cargo bench --bench typing`

mod quire_process;

use std::{
    io::Read,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use quire::{
    document::Document,
    guard::{Guard, Ready},
    protocol,
    update::Update,
};
use quire_process::{Quire, Socket, join};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message as Frame;
use yrs::{Doc, OffsetKind, Options, Text, Transact};

const PARTS: usize = 10;
/// Edits that are typed at a pace, and how many of them in a second.
const PACED: usize = 10_000;
const PACE: u32 = 2_000;

/// The paper's edits as updates, and its text in the end.
fn paper() -> (Vec<Bytes>, String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/traces/automerge-paper.json.gz");
    let mut json = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).expect("the trace"))
        .read_to_string(&mut json)
        .expect("text");
    let trace: Value = serde_json::from_str(&json).expect("JSON");
    let doc = Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() });
    let text = doc.get_or_insert_text("text");
    let mut updates = Vec::new();
    for transaction in trace["txns"].as_array().expect("transactions") {
        for patch in transaction["patches"].as_array().expect("patches") {
            let number = |index: usize| patch[index].as_u64().expect("a number") as u32;
            let mut transaction = doc.transact_mut();
            text.remove_range(&mut transaction, number(0), number(1));
            text.insert(&mut transaction, number(0), patch[2].as_str().expect("text"));
            updates.push(transaction.encode_update_v1().into());
        }
    }
    (updates, trace["endContent"].as_str().expect("text").to_owned())
}

/// Takes the paper in without a server: past the guard alone, and into a whole document. Medians of five.
fn take_in(updates: &[Bytes]) {
    let median = |round: &dyn Fn()| {
        let mut times = [0.0; 5].map(|_: f64| {
            let start = Instant::now();
            round();
            start.elapsed().as_secs_f64() * 1e6 / updates.len() as f64
        });
        times.sort_unstable_by(f64::total_cmp);
        times[2]
    };
    let guard = median(&|| {
        let mut guard = Guard::default();
        for update in updates {
            let update = Update::read(update).expect("a good update");
            assert_eq!(guard.admit(&update).expect("a good update").ready, Ready::Whole(Vec::new()));
        }
    });
    let document = median(&|| {
        let mut document = Document::default();
        for update in updates {
            assert!(document.receive(update.clone()).expect("a good update").news.is_some());
        }
    });
    println!("taking in an edit: {document:.2} microseconds, of which the guard {guard:.2}");
}

/// Waits until the server has taken in everything that was sent: it answers questions in their order.
async fn settle(socket: &mut Socket) {
    socket.send(Frame::Binary(Bytes::from_static(&[3]))).await.expect("a question");
    while !matches!(socket.next().await, Some(Ok(Frame::Binary(answer))) if answer[0] == 1) {}
}

async fn type_at_full_speed(quire: &Quire, frames: &[Bytes]) {
    let mut socket = join(quire, "paper").await;
    println!("typing {} edits at full speed: CPU microseconds per edit", frames.len());
    let (start, start_cpu) = (Instant::now(), quire.cpu());
    for part in frames.chunks(frames.len().div_ceil(PARTS)) {
        let cpu = quire.cpu();
        for frame in part {
            socket.send(Frame::Binary(frame.clone())).await.expect("an open connection");
        }
        settle(&mut socket).await;
        println!("  {:6.2}", (quire.cpu() - cpu) * 1e6 / part.len() as f64);
    }
    let cpu = (quire.cpu() - start_cpu) * 1e6 / frames.len() as f64;
    println!(
        "  {cpu:6.2} in all; {:.1} s, {:.0} MB resident",
        start.elapsed().as_secs_f64(),
        quire.memory_mb()
    );
}

async fn type_at_a_pace(quire: &Quire, frames: &[Bytes]) {
    let mut socket = join(quire, "paced").await;
    let cpu = quire.cpu();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PACE);
    for frame in &frames[..PACED] {
        pace.tick().await;
        socket.send(Frame::Binary(frame.clone())).await.expect("an open connection");
    }
    settle(&mut socket).await;
    println!(
        "typing at {PACE} edits per second: {:.1} CPU microseconds per edit",
        (quire.cpu() - cpu) * 1e6 / PACED as f64
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (updates, end) = paper();
    take_in(&updates);
    let frames: Vec<Bytes> = updates.iter().map(|update| protocol::update(update)).collect();
    let mut starts: Vec<Duration> = (0..9).map(|_| Quire::start().1).collect();
    starts.sort_unstable();
    println!("start to first connection: {:.1?} (median of {})", starts[starts.len() / 2], starts.len());
    let (quire, _) = Quire::start();
    type_at_full_speed(&quire, &frames).await;
    type_at_a_pace(&quire, &frames).await;
    let export = format!("http://{}/api/documents/paper?format=text", quire.address);
    let text = Command::new("curl").args(["-sf", &export]).output().expect("curl").stdout;
    assert_eq!(String::from_utf8(text).expect("UTF-8"), end, "the paper as it was typed");
}
