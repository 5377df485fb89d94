//! Half an hour of people who come and go: a thousand documents, into which clients join, type, idle, leave, and come back
//! with other ids. Fails where the server takes more memory at the end than after the first five minutes, or keeps a file
//! descriptor, a session or a document when everybody has gone.
//!
//! `cargo bench --bench soak`, or for as many minutes as `QUIRE_SOAK_MINUTES` says.

mod quire_process;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use quire::protocol;
use quire_process::{AS_SHIPPED, Quire, insertion, try_join};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;

/// Documents in which people are.
const DOCUMENTS: u64 = 1_000;
/// People at the same time.
const PEOPLE: u64 = 300;
/// How long a document stays in memory after its last session, in seconds: shorter than most pauses between visits.
const IDLE: &str = "5";
/// From when on memory is compared.
const SETTLED: Duration = Duration::from_secs(300);
/// How much more it may be at the end.
const MAX_GROWTH: f64 = 1.05;

static CLIENT: AtomicU64 = AtomicU64::new(1);

/// Small numbers that look random.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A person who visits documents until it is time to go.
async fn lives(address: String, number: u64, until: Instant) -> (u64, u64) {
    let mut dice = Dice(number);
    let (mut visits, mut edits) = (0, 0);
    while Instant::now() < until {
        sleep(Duration::from_millis(dice.throw(4_000))).await;
        let document = format!("/ws/soak/{}", dice.throw(DOCUMENTS));
        let mut socket = try_join(&address, &document).await.expect("a connection");
        visits += 1;
        let client = CLIENT.fetch_add(1, Ordering::Relaxed);
        // Some only look.
        for clock in 0..dice.throw(30) {
            let update = insertion(client, clock);
            socket.send(Frame::Binary(protocol::update(&update))).await.expect("an open connection");
            edits += 1;
            let pause = Duration::from_millis(20 + dice.throw(400));
            // Whatever comes meanwhile is read.
            let _ = timeout(pause, async { while socket.next().await.is_some_and(|frame| frame.is_ok()) {} })
                .await;
        }
        match dice.throw(3) {
            // A line that is cut.
            0 => drop(socket),
            _ => {
                // An error: it is closed already.
                let _ = socket.close(None).await;
            }
        }
    }
    (visits, edits)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let minutes =
        std::env::var("QUIRE_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(30);
    let (quire, _) =
        Quire::start_with(&["--idle", IDLE, "--max-new-connections-per-address", "0", "--log", "warn"]);
    let (start, length) = (Instant::now(), Duration::from_secs(minutes * 60));
    let files_before = quire.open_files();
    let people: Vec<_> = (0..PEOPLE)
        .map(|number| tokio::spawn(lives(quire.address.clone(), number, start + length)))
        .collect();
    let mut settled = None;
    while start.elapsed() < length {
        sleep(Duration::from_secs(30).min(length)).await;
        let (memory, open) = (quire.memory_mb(), quire.open_documents().await);
        println!(
            "{:5.0} s: {memory:.1} MB, {open} documents, {} files",
            start.elapsed().as_secs_f64(),
            quire.open_files()
        );
        if start.elapsed() >= SETTLED.min(length / 2) {
            settled.get_or_insert(memory);
        }
    }
    let at_end = quire.memory_mb();
    let (mut visits, mut edits) = (0, 0);
    for person in people {
        let (visited, edited) = person.await.expect("a person");
        (visits, edits) = (visits + visited, edits + edited);
    }
    // Time-outs of lines that were cut, and of documents that nobody uses.
    sleep(Duration::from_secs(60)).await;
    let (files, open) = (quire.open_files(), quire.open_documents().await);
    let metrics = String::from_utf8(quire.get("/metrics").await).expect("UTF-8");
    let sessions: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("quire_sessions{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    let settled = settled.expect("it took its time");
    println!("{visits} visits, {edits} edits, {:.1} s of CPU", quire.cpu());
    println!(
        "memory: {settled:.1} MB when it had settled, {at_end:.1} MB at the end, {:.1} MB when all had gone",
        quire.memory_mb()
    );
    println!("left over: {sessions} sessions, {open} documents, {files} files ({files_before} at the start)");
    quire.stop();
    assert!(sessions == 0.0 && open == 0, "something is left over");
    assert!(files <= files_before + 3, "file descriptors are left over");
    assert!(!AS_SHIPPED || at_end <= settled * MAX_GROWTH, "memory grows");
}
