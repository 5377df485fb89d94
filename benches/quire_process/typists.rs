//! Two people on a document of their own, who notice whatever holds the server up; and what an attack on other
//! documents leaves behind in its memory.

use std::{
    fmt,
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use quire::protocol;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{Quire, Socket, insertion, join};

/// How long the attacked documents may take to leave memory. One with a long log leaves a snapshot first.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);
/// The allocator gives back what was freed a second ago, but a thread's share only when the thread ends, which an
/// idle one does after ten.
const GIVE_BACK: Duration = Duration::from_secs(15);

/// How long things took, in milliseconds.
pub struct Latency {
    sorted: Vec<f64>,
}

impl Latency {
    pub fn new(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        Self { sorted: times }
    }

    /// What this part of them did not exceed.
    pub fn at(&self, part: f64) -> f64 {
        self.sorted[((self.sorted.len() - 1) as f64 * part) as usize]
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, max) = (self.at(0.5), self.at(0.99), self.at(1.0));
        write!(f, "median {median:.2} ms, p99 {p99:.2} ms, maximum {max:.1} ms")
    }
}

/// Two people answer each other's edits for as long as something else goes on: the times from one's frame to the
/// other's, and what came of the other thing.
pub async fn type_beside<T>(quire: &Quire, other: impl Future<Output = T>) -> (Latency, T) {
    let (stop, stopped) = oneshot::channel();
    let other = async {
        let done = other.await;
        // An error: they have stopped already.
        let _ = stop.send(());
        done
    };
    tokio::join!(type_to_each_other(quire, stopped), other)
}

async fn type_to_each_other(quire: &Quire, mut stop: oneshot::Receiver<()>) -> Latency {
    let (mut alice, mut bob) = (join(quire, "undisturbed").await, join(quire, "undisturbed").await);
    // Bob never asks for what he lacks, so he must be in the document before Alice types: then he is greeted.
    let greeting = bob.next().await;
    assert!(matches!(greeting, Some(Ok(Frame::Binary(_)))), "no greeting but {greeting:?}");
    // Who says nothing at all is sent away after a while.
    let nothing = Bytes::from_static(protocol::y_websocket::KEEP_ALIVE);
    bob.send(Frame::Binary(nothing)).await.expect("an open connection");
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
    Latency::new(latencies)
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

/// Waits until nothing is open but the document of the two, and the allocator has had its time.
pub async fn attacked_documents_leave(quire: &Quire) {
    let start = Instant::now();
    while quire.open_documents().await > 1 {
        assert!(start.elapsed() < LEAVE_WITHIN, "attacked documents stay in memory");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(GIVE_BACK).await;
}
