//! What an attacker does to people on another document: the latency of two people who type to each other,
//! undisturbed and while all known harmful inputs are sent, and the memory of the server before it, right after it,
//! and when the attacked documents have left memory. Fails where that is more than an attack may leave behind.
//!
//! `cargo bench --bench hostile`

#[path = "../tests/common/inputs.rs"]
mod inputs;
mod quire_process;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use quire::protocol;
use quire_process::{Quire, Socket, insertion, join};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio_tungstenite::tungstenite::Message as Frame;

/// How long the undisturbed run takes.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// How long a document stays in memory after its last session, in seconds: most of them outlast the attack.
const IDLE: &str = "5";
/// How long the attacked documents may take to leave memory. One with a long log leaves a snapshot first.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);
/// The allocator gives back what was freed a second ago, but a thread's share only when the thread ends, which an
/// idle one does after ten.
const GIVE_BACK: Duration = Duration::from_secs(15);
/// What an attack may leave behind.
const MAX_GROWTH_MB: f64 = 64.0;
/// The longest pause that people on another document may notice, in milliseconds.
const MAX_PAUSE: f64 = 100.0;
/// The limits are for the server as people run it, not for one in which a tool looks for errors.
const AS_SHIPPED: bool = cfg!(feature = "mimalloc");

/// Two people who answer each other's edits, until they are told to stop: median, 99th percentile and maximum of
/// the time from one's frame to the other's, in milliseconds.
async fn type_to_each_other(quire: &Quire, mut stop: oneshot::Receiver<()>) -> (f64, f64, f64) {
    let (mut alice, mut bob) = (join(quire, "undisturbed").await, join(quire, "undisturbed").await);
    // Bob never asks for what he lacks, so he must be in the document before Alice types: then he is greeted.
    let greeting = bob.next().await;
    assert!(matches!(greeting, Some(Ok(Frame::Binary(_)))), "no greeting but {greeting:?}");
    let mut latencies = Vec::new();
    let mut clock = latest_clock();
    while stop.try_recv() == Err(TryRecvError::Empty) {
        let update = insertion(clock.0, clock.1);
        clock.1 += 1;
        let start = Instant::now();
        alice.send(Frame::Binary(protocol::update(&update))).await.expect("an open connection");
        hears(&mut bob, &update).await;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.99), at(1.0))
}

/// A client id that is used once, and its first clock.
fn latest_clock() -> (u64, u64) {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1_000);
    (NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed), 0)
}

async fn hears(socket: &mut Socket, update: &[u8]) {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Binary(frame))) if frame.ends_with(update) => return,
            Some(Ok(_)) => {}
            other => panic!("no edit but {other:?}"),
        }
    }
}

/// Sends one input to a document of its own, and waits until the server has done with it.
async fn attack(quire: &Quire, number: usize, input: &inputs::Input) {
    let mut attacker = join(quire, &format!("victim-{number}")).await;
    for frame in input.frames() {
        // An error: it was thrown out for what it sent before.
        let _ = attacker.send(Frame::Binary(frame)).await;
    }
    let _ = attacker.send(Frame::Binary(Bytes::from_static(&[3]))).await;
    while let Some(Ok(frame)) = attacker.next().await {
        if matches!(frame, Frame::Binary(answer) if answer[0] == 1) {
            break;
        }
    }
}

/// Waits until nothing is open but the document of the two, and the allocator has had its time.
async fn attacked_documents_leave(quire: &Quire) {
    let start = Instant::now();
    while quire.open_documents().await > 1 {
        assert!(start.elapsed() < LEAVE_WITHIN, "attacked documents stay in memory");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(GIVE_BACK).await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (quire, _) = Quire::start_with(&["--idle", IDLE]);
    let (stop, stopped) = oneshot::channel();
    let undisturbed = async {
        tokio::time::sleep(UNDISTURBED).await;
        // An error: they have stopped already.
        let _ = stop.send(());
    };
    let ((median, p99, max), ()) = tokio::join!(type_to_each_other(&quire, stopped), undisturbed);
    println!("undisturbed: median {median:.2} ms, p99 {p99:.2} ms, maximum {max:.1} ms");

    let before = quire.memory_mb();
    let (stop, stopped) = oneshot::channel();
    let inputs = inputs::all();
    let attacks = async {
        for (number, input) in inputs.iter().enumerate() {
            let start = Instant::now();
            attack(&quire, number, input).await;
            if start.elapsed() > Duration::from_millis(100) {
                println!("  {:.1} s: {}", start.elapsed().as_secs_f64(), input.label);
            }
        }
        let right_after = quire.memory_mb();
        attacked_documents_leave(&quire).await;
        // An error: they have stopped already.
        let _ = stop.send(());
        (right_after, quire.memory_mb())
    };
    let ((median, p99, max), (right_after, after)) =
        tokio::join!(type_to_each_other(&quire, stopped), attacks);
    println!(
        "while {} inputs are sent and leave: median {median:.2} ms, p99 {p99:.2} ms, maximum {max:.1} ms",
        inputs.len()
    );
    println!(
        "memory: {before:.0} MB before, {right_after:.0} MB right after, {after:.0} MB when the documents have left"
    );
    quire.stop();
    assert!(!AS_SHIPPED || after < before + MAX_GROWTH_MB, "the attack has left too much behind");
    assert!(!AS_SHIPPED || max < MAX_PAUSE, "people on another document had to wait");
}
