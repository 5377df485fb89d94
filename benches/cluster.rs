//! What many nodes cost on one Redis: edits on one to four nodes, with the time that Redis spends on each; and a
//! hundred thousand open documents on one node, with what comes of them when Redis is started again.
//!
//! `cargo bench --bench cluster`, with `-- 10000` for fewer documents

#[allow(dead_code, unreachable_pub, reason = "the tests use all of it")]
#[path = "../tests/common/redis.rs"]
mod redis;

mod quire_process;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt, future::join_all, stream};
use quire::protocol;
use quire_process::{Quire, Socket, insertion, join};
use redis::RedisServer;
use tokio_tungstenite::tungstenite::Message as Frame;

/// Documents in which somebody types at the same time, and how often.
const TYPED: usize = 200;
const ROUNDS: u64 = 100;
/// More than the time that lies between two appends at least, so that each edit is one.
const ROUND: Duration = Duration::from_millis(40);
/// Documents that one node holds open.
const OPEN: usize = 100_000;
/// Connections that are made at the same time.
const CONNECTING: usize = 32;

/// Seconds of CPU that Redis has used.
fn cpu(redis: &RedisServer) -> f64 {
    number(redis, "cpu", "used_cpu_user") + number(redis, "cpu", "used_cpu_sys")
}

/// A number from a section of what Redis says of itself.
fn number(redis: &RedisServer, section: &str, name: &str) -> f64 {
    let said = redis.cli(&["INFO", section]);
    let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

/// How often a command was run.
fn calls(redis: &RedisServer, command: &str) -> f64 {
    let said = redis.cli(&["INFO", "commandstats"]);
    let line = said.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or_default()
}

/// Reads until so many edits have come.
async fn hears(mut socket: Socket, edits: u64) {
    let mut heard = 0;
    while heard < edits {
        match socket.next().await {
            Some(Ok(Frame::Binary(frame))) => heard += u64::from(frame.starts_with(&[0, 2])),
            Some(Ok(_)) => {}
            other => panic!("no edit but {other:?}"),
        }
    }
}

async fn type_on(nodes: usize) {
    let redis = RedisServer::start();
    let url = redis.url();
    let quires: Vec<Quire> = (0..nodes).map(|_| Quire::start_with(&["--redis", &url]).0).collect();
    let mut typists = Vec::new();
    let mut readers = Vec::new();
    for document in 0..TYPED {
        let name = format!("typed-{document}");
        typists.push(join(&quires[document % nodes], &name).await);
        let mut reader = join(&quires[(document + 1) % nodes], &name).await;
        // Whoever has not joined yet would miss the first edit.
        while !matches!(reader.next().await, Some(Ok(Frame::Binary(_)))) {}
        readers.push(tokio::spawn(hears(reader, ROUNDS)));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, appends, start) = (cpu(&redis), calls(&redis, "xadd"), Instant::now());
    for round in 0..ROUNDS {
        let edits = typists.iter_mut().enumerate().map(|(document, typist)| {
            typist.send(Frame::Binary(protocol::update(&insertion(1 + document as u64, round))))
        });
        join_all(edits).await.into_iter().for_each(|sent| sent.expect("an open connection"));
        tokio::time::sleep(ROUND).await;
    }
    for heard in join_all(readers).await {
        heard.expect("every edit was heard");
    }
    let edits = TYPED as f64 * ROUNDS as f64;
    println!(
        "{nodes} nodes: {:.0} edits a second, {:.2} appends and {:.1} microseconds of Redis for each",
        edits / start.elapsed().as_secs_f64(),
        (calls(&redis, "xadd") - appends) / edits,
        (cpu(&redis) - before) * 1e6 / edits,
    );
}

async fn hold(documents: usize) {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let (quire, _) = Quire::start_with(&["--redis", &redis.url(), "--idle", "3600"]);
    let (memory, redis_memory) = (quire.memory_mb(), number(&redis, "memory", "used_memory"));
    let start = Instant::now();
    let quire = &quire;
    let opening = stream::iter(0..documents).map(|document| async move {
        let mut socket = join(quire, &format!("open-{document}")).await;
        socket.send(Frame::Binary(protocol::update(&insertion(1, 0)))).await.expect("an open connection");
        while !matches!(socket.next().await, Some(Ok(Frame::Binary(_)))) {}
    });
    opening.buffer_unordered(CONNECTING).for_each(|()| async {}).await;
    let opened = start.elapsed();
    while calls(&redis, "xadd") < 2.0 * documents as f64 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{documents} documents: opened and edited once at {:.0} a second, {:.1} KB each in the node and {:.1} KB in Redis",
        documents as f64 / opened.as_secs_f64(),
        (quire.memory_mb() - memory) * 1024.0 / documents as f64,
        (number(&redis, "memory", "used_memory") - redis_memory) / 1024.0 / documents as f64,
    );
    let cpu_before = quire.cpu();
    redis.restart();
    let start = Instant::now();
    while number(&redis, "stats", "pubsub_channels") < documents as f64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let heard = start.elapsed();
    while calls(&redis, "xrange") < documents as f64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "after Redis was started again: all are heard after {:.1} s, all looked at after {:.1} s, with {:.1} s of CPU",
        heard.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        quire.cpu() - cpu_before,
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let documents = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(OPEN);
    for nodes in 1..=4 {
        type_on(nodes).await;
    }
    hold(documents).await;
}
