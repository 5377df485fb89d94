//! What an attacker does to people on another document: the latency of two people who type to each other,
//! undisturbed and while all known harmful inputs are sent, and the memory of the server before it, right after it,
//! and when the attacked documents have left memory. Fails where that is more than an attack may leave behind.
//!
//! `cargo bench --bench hostile`

#[allow(unreachable_pub, reason = "the tests use it too")]
#[path = "../tests/common/inputs.rs"]
mod inputs;
mod quire_process;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use quire_process::{
    AS_SHIPPED, Quire, join,
    typists::{attacked_documents_leave, type_beside},
};
use tokio_tungstenite::tungstenite::Message as Frame;

/// How long the undisturbed run takes.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// How long a document stays in memory after its last session, in seconds: most of them outlast the attack.
const IDLE: &str = "5";
/// What an attack may leave behind.
const MAX_GROWTH_MB: f64 = 64.0;
/// The longest pause that people on another document may notice, in milliseconds.
const MAX_PAUSE: f64 = 100.0;

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
    let (quire, _) = Quire::start_with(&["--idle", IDLE]);
    let (latency, ()) = type_beside(&quire, tokio::time::sleep(UNDISTURBED)).await;
    println!("undisturbed: {latency}");

    let before = quire.memory_mb();
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
        (right_after, quire.memory_mb())
    };
    let (latency, (right_after, after)) = type_beside(&quire, attacks).await;
    println!("while {} inputs are sent and leave: {latency}", inputs.len());
    println!(
        "memory: {before:.0} MB before, {right_after:.0} MB right after, {after:.0} MB when the documents have left"
    );
    quire.stop();
    assert!(!AS_SHIPPED || after < before + MAX_GROWTH_MB, "the attack has left too much behind");
    assert!(!AS_SHIPPED || latency.at(1.0) < MAX_PAUSE, "people on another document had to wait");
}
