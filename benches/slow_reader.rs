//! What somebody who stops reading costs the others: twenty people follow a document in which one pastes a thousand
//! times a second, with and without one more who joins and then does not read her socket. Prints how long the pastes
//! take to the twenty and what memory the server needs, and, when the one reads again, how long she takes to have
//! everything and how much she is sent for it. Fails where she costs more than her outbox, or is not brought up to date.
//!
//! `cargo bench --bench slow_reader`

mod quire_process;

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::join_all};
use quire::{
    lib0::{Reader, write_uint},
    protocol::{self, y_websocket::KEEP_ALIVE},
    update::Update,
};
use quire_process::{Quire, Socket, join, typists::Latency};
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message as Frame;

const READERS: usize = 20;
/// Pastes, how many in a second, and the letters of each.
const PASTES: u64 = 60 * PACE as u64;
const PACE: u32 = 1_000;
const LETTERS: u64 = 1_024;
/// Who pastes.
const WRITER: u64 = 7;
/// How often a client says something that has nothing to say, and so is not taken for lost.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// When memory is looked at: for so long before the end. The least counts, because a snapshot in the making is a second
/// copy of the document.
const LAST: Duration = Duration::from_secs(20);
/// More memory than without the one who does not read: her outbox has 1 MiB, and the rest is what one run differs from
/// another.
const MAX_MORE_MB: f64 = 8.0;
/// How long she may take to have everything. A second is usual; the machine may be busy.
const UP_TO_DATE_WITHIN: Duration = Duration::from_secs(5);
/// What she may be sent for it, in sizes of the document.
const MAX_SENT: f64 = 2.0;

/// When each paste was sent.
type Sent = Arc<Mutex<Vec<Instant>>>;

/// What was seen in one run.
struct Run {
    latency: Latency,
    /// Memory of the server beside the letters that it holds.
    memory_mb: f64,
    document_bytes: usize,
    took: Duration,
    /// How long the one who did not read took, and the bytes that she was sent.
    caught_up: Option<(Duration, usize)>,
}

/// A paste at the front of the text: at its end, all of them would be one block.
fn paste(number: u64) -> Vec<u8> {
    let mut update = vec![1, 1];
    write_uint(&mut update, WRITER);
    write_uint(&mut update, number * LETTERS);
    match number {
        0 => update.extend([4, 1, 1, b't']),
        _ => {
            update.push(0x44);
            write_uint(&mut update, WRITER);
            write_uint(&mut update, (number - 1) * LETTERS);
        }
    }
    write_uint(&mut update, LETTERS);
    update.extend((0..LETTERS).map(|letter| b'a' + ((number + letter) % 26) as u8));
    update.push(0);
    update
}

/// The pastes that a frame brings.
fn pastes_in(frame: &[u8]) -> Vec<Range<u64>> {
    if !matches!(frame, [0, 1 | 2, ..]) {
        return Vec::new();
    }
    let update = Reader::new(&frame[2..]).bytes().expect("a length and an update");
    let blocks = Update::read(update).expect("a good update").blocks;
    let clocks = blocks.iter().map(|block| (u64::from(block.clock), u64::from(block.len)));
    clocks.map(|(clock, len)| clock / LETTERS..(clock + len) / LETTERS).collect()
}

async fn next(socket: &mut Socket) -> Bytes {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Binary(frame))) => return frame,
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
            other => panic!("no frame but {other:?}"),
        }
    }
}

/// Joins, and hears that there is nothing yet: from then on, all news comes.
async fn arrive(quire: &Quire) -> Socket {
    let mut socket = join(quire, "pasted").await;
    socket.send(Frame::Binary(Bytes::from_static(&[0, 0, 1, 0]))).await.expect("an open connection");
    while !next(&mut socket).await.starts_with(&[0, 1]) {}
    socket
}

/// Reads until all pastes are there: how long each took, in milliseconds.
async fn follow(mut socket: Socket, sent: Sent) -> Vec<f64> {
    let mut times = Vec::with_capacity(PASTES as usize);
    while times.len() < PASTES as usize {
        let frame = next(&mut socket).await;
        let now = Instant::now();
        for pastes in pastes_in(&frame) {
            let sent = sent.lock().expect("nobody has panicked");
            assert!(pastes.start <= times.len() as u64, "something was left out");
            let news = sent[..pastes.end as usize].iter().skip(times.len());
            times.extend(news.map(|&sent| (now - sent).as_secs_f64() * 1e3));
        }
    }
    times
}

async fn write(mut socket: Socket, sent: Sent) {
    let mut pace = interval(Duration::from_secs(1) / PACE);
    for number in 0..PASTES {
        let frame = protocol::update(&paste(number));
        pace.tick().await;
        sent.lock().expect("nobody has panicked").push(Instant::now());
        socket.send(Frame::Binary(frame)).await.expect("an open connection");
    }
}

/// Says that she lives, and reads nothing.
async fn sleep_at(socket: &mut Socket) {
    loop {
        sleep(SIGN_OF_LIFE).await;
        socket.send(Frame::Binary(Bytes::from_static(KEEP_ALIVE))).await.expect("an open connection");
    }
}

/// Reads what waits until everything is there: how long that took, and how many bytes it were.
async fn catch_up(mut socket: Socket) -> (Duration, usize) {
    let start = Instant::now();
    let mut has = vec![false; PASTES as usize];
    let (mut lacks, mut bytes) = (has.len(), 0);
    while lacks > 0 {
        let frame = next(&mut socket).await;
        bytes += frame.len();
        for paste in pastes_in(&frame).into_iter().flatten() {
            lacks -= usize::from(!std::mem::replace(&mut has[paste as usize], true));
        }
    }
    (start.elapsed(), bytes)
}

/// The least memory that the server has in the last part of the writing, beside the letters until then.
async fn watch_memory(quire: &Quire, sent: &Sent) -> f64 {
    let first = PASTES as usize - LAST.as_secs() as usize * PACE as usize;
    let mut samples = Vec::new();
    loop {
        sleep(Duration::from_millis(100)).await;
        match sent.lock().expect("nobody has panicked").len() {
            written if written == PASTES as usize => {
                return samples.into_iter().fold(f64::INFINITY, f64::min);
            }
            written if written > first => {
                samples.push(quire.memory_mb() - megabytes(written * LETTERS as usize));
            }
            _ => {}
        }
    }
}

async fn run(with_sleeper: bool) -> Run {
    let (quire, _) = Quire::start_with(&["--max-bytes", "0", "--max-messages", "0"]);
    let sent = Sent::default();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(tokio::spawn(follow(arrive(&quire).await, sent.clone())));
    }
    let mut sleeper = if with_sleeper { Some(arrive(&quire).await) } else { None };
    let writer = arrive(&quire).await;
    let start = Instant::now();
    let work = async { tokio::join!(write(writer, sent.clone()), watch_memory(&quire, &sent)).1 };
    let memory_mb = match &mut sleeper {
        Some(socket) => tokio::select! {
            memory = work => memory,
            () = sleep_at(socket) => unreachable!("she sleeps until she is woken"),
        },
        None => work.await,
    };
    let took = start.elapsed();
    let caught_up = match sleeper {
        Some(socket) => Some(catch_up(socket).await),
        None => None,
    };
    let times = join_all(readers).await.into_iter().flat_map(|times| times.expect("a reader that gets all"));
    let latency = Latency::new(times.collect());
    let document_bytes = quire.get("/api/documents/pasted?format=update").await.len();
    quire.stop();
    Run { latency, memory_mb, document_bytes, took, caught_up }
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let without = run(false).await;
    let with = run(true).await;
    println!(
        "{PASTES} pastes of {LETTERS} letters to {READERS} readers, a document of {:.1} MB in the end",
        megabytes(with.document_bytes)
    );
    for (who, run) in [("without", &without), ("with", &with)] {
        println!(
            "{who} one who does not read: {}; {:.1} MB of memory beside the letters; {:.1} s of writing",
            run.latency,
            run.memory_mb,
            run.took.as_secs_f64()
        );
    }
    let (within, bytes) = with.caught_up.expect("somebody slept");
    let sent = bytes as f64 / with.document_bytes as f64;
    println!(
        "when she reads again she has everything after {:.2} s, and is sent {:.1} MB, {sent:.2} times the document",
        within.as_secs_f64(),
        megabytes(bytes)
    );
    assert!(with.memory_mb - without.memory_mb <= MAX_MORE_MB, "who does not read costs too much memory");
    assert!(within <= UP_TO_DATE_WITHIN, "who reads again is brought up to date too slowly");
    assert!(sent < MAX_SENT, "who reads again is sent too much");
}
