//! What an attacker does to people on another document: the latency of two people who type to each other,
//! undisturbed and while all known harmful inputs are sent, and the memory of the server before and after.
//!
//! `cargo bench --bench hostile`

#[path = "../tests/common/inputs.rs"]
mod inputs;
mod quire_process;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use quire::protocol;
use quire_process::{Quire, Socket, join};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio_tungstenite::tungstenite::Message as Frame;

/// How long the undisturbed run takes.
const UNDISTURBED: Duration = Duration::from_secs(5);

/// Two people who answer each other's edits, until they are told to stop: median, 99th percentile and maximum of
/// the time from one's frame to the other's, in milliseconds.
async fn type_to_each_other(quire: &Quire, mut stop: oneshot::Receiver<()>) -> (f64, f64, f64) {
    let (mut alice, mut bob) = (join(quire, "undisturbed").await, join(quire, "undisturbed").await);
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

/// The update with which a client inserts a letter behind its last one.
fn insertion(client: u64, clock: u64) -> Vec<u8> {
    let mut update = vec![1, 1];
    quire::lib0::write_uint(&mut update, client);
    quire::lib0::write_uint(&mut update, clock);
    match clock {
        0 => update.extend([4, 1, 1, b't']),
        _ => {
            update.push(0x84);
            quire::lib0::write_uint(&mut update, client);
            quire::lib0::write_uint(&mut update, clock - 1);
        }
    }
    update.extend([1, b'x', 0]);
    update
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

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (quire, _) = Quire::start();
    let (stop, stopped) = oneshot::channel();
    let undisturbed = async {
        tokio::time::sleep(UNDISTURBED).await;
        // An error: they have stopped already.
        let _ = stop.send(());
    };
    let ((median, p99, max), ()) = tokio::join!(type_to_each_other(&quire, stopped), undisturbed);
    println!("undisturbed: median {median:.2} ms, p99 {p99:.2} ms, maximum {max:.1} ms");

    let memory = quire.memory_mb();
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
        // An error: they have stopped already.
        let _ = stop.send(());
    };
    let ((median, p99, max), ()) = tokio::join!(type_to_each_other(&quire, stopped), attacks);
    println!(
        "while {} inputs are sent: median {median:.2} ms, p99 {p99:.2} ms, maximum {max:.1} ms",
        inputs.len()
    );
    println!("memory: {memory:.0} MB before, {:.0} MB after", quire.memory_mb());
}
