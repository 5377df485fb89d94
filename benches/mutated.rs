//! What a hundred thousand changed frames do: frames of real sessions with flipped bits, cuts, doubled parts, other
//! lengths and ends of other frames go to a running server over a few hundred connections, a third of them in each
//! dialect, while two people type to each other on another document. Prints their latency beside an undisturbed run. Fails where the server dies, stops
//! answering, or keeps the memory.
//!
//! `cargo bench --bench mutated`

mod quire_process;
#[allow(dead_code, unreachable_pub, reason = "the simulation uses all of it")]
#[path = "../tests/simulation/random.rs"]
mod random;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::join_all};
use quire::{
    lib0::{Reader, write_bytes},
    protocol::y_websocket::KEEP_ALIVE,
};
use quire_process::{
    AS_SHIPPED, Quire, Socket, try_join,
    typists::{attacked_documents_leave, type_beside},
};
use random::Random;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;

/// Frames of real sessions, each with its length in front: `node sessions.mjs frames` in tests/clients makes them.
const FRAMES: &[u8] = include_bytes!("../tests/data/fuzz/frames");
/// What a session begins with: "I have nothing".
const GREETING: &[u8] = &[0, 0, 1, 0];

/// Connections at the same time, those that share their documents, and changed frames from each.
const CONNECTIONS: u64 = 250;
const TOGETHER: u64 = 5;
const CHANGED_EACH: usize = 400;
/// How long the undisturbed run takes.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// How long a document stays in memory after its last session, in seconds.
const IDLE: &str = "5";
/// How long the server may take to answer, or to take a connection. A session that uses more than its share rests.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the frames may leave behind.
const MAX_GROWTH_MB: f64 = 64.0;

/// What a third of the attackers speaks.
#[derive(Debug, Clone, Copy)]
enum Dialect {
    YWebsocket,
    Hocuspocus,
    YSweet,
}

impl Dialect {
    fn path(self, document: &str) -> String {
        match self {
            Self::YWebsocket => format!("/ws/{document}"),
            Self::Hocuspocus => format!("/hocuspocus/{document}"),
            Self::YSweet => format!("/d/{document}/ws/{document}"),
        }
    }

    /// What stands before each message.
    fn envelope(self, document: &str) -> Vec<u8> {
        let mut envelope = Vec::new();
        if let Self::Hocuspocus = self {
            write_bytes(&mut envelope, document.as_bytes());
        }
        envelope
    }

    /// What a client says first, and after each edit.
    fn also_says(self) -> &'static [u8] {
        match self {
            Self::YWebsocket => KEEP_ALIVE,
            Self::Hocuspocus => &[2, 0, 1, b'x'],
            // One that is answered with its own kind, once something is saved.
            Self::YSweet => &[1, 1, 0],
        }
    }
}

/// How connections ended: close codes, and 0 for none.
type Ends = BTreeMap<u16, usize>;

/// The sessions, each a list of frames.
fn sessions() -> Vec<Vec<Bytes>> {
    let mut reader = Reader::new(FRAMES);
    let mut sessions: Vec<Vec<Bytes>> = Vec::new();
    while !reader.is_empty() {
        let frame = reader.bytes().expect("a frame");
        if frame == GREETING {
            sessions.push(Vec::new());
        }
        sessions.last_mut().expect("it begins with a greeting").push(Bytes::from_static(frame));
    }
    sessions
}

/// A frame that is not the one that it was made of. Half of them say the right length, so that what they hold is looked
/// at.
fn changed(frame: &[u8], other: &[u8], random: &mut Random) -> Bytes {
    let kind = if frame[0] == 0 { 2 } else { 1 };
    let payload = Reader::new(&frame[kind.min(frame.len())..]).bytes();
    loop {
        let bytes = match payload {
            Ok(payload) if random.percent(50) && !payload.is_empty() => {
                let mut bytes = frame[..kind].to_vec();
                write_bytes(&mut bytes, &change(payload.to_vec(), other, random));
                bytes
            }
            _ => change(frame.to_vec(), other, random),
        };
        if bytes != frame {
            return bytes.into();
        }
    }
}

fn change(mut bytes: Vec<u8>, other: &[u8], random: &mut Random) -> Vec<u8> {
    for _ in 0..random.between(1, 3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.index(bytes.len());
        let part = at..bytes.len().min(at + 1 + random.index(16));
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(part)),
            3 => bytes.extend_from_within(part),
            // A number is one larger or smaller, or enormous.
            4 if random.percent(70) => {
                bytes[at] = bytes[at].wrapping_add(random.below(3) as u8).wrapping_sub(1);
            }
            4 => drop(bytes.splice(part, [0xff, 0xff, 0xff, 0xff, 0x07])),
            _ => bytes.splice(at.., other[random.index(other.len())..].iter().copied()).for_each(drop),
        }
    }
    bytes
}

/// Opens a document, and waits where the server or the system has no room for a moment.
async fn connect(address: &str, path: &str) -> Socket {
    let start = Instant::now();
    loop {
        match try_join(address, path).await {
            Ok(socket) => return socket,
            Err(error) if start.elapsed() > PATIENCE => panic!("no connection: {error}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Sends frames, and waits until the server has done with them; answers the close code where it closed the connection,
/// and 1 where it only refuses to hear more of the document.
async fn send(socket: &mut Socket, envelope: &[u8], frames: impl IntoIterator<Item = Bytes>) -> Option<u16> {
    let question = [envelope, &[3]].concat().into();
    for frame in frames.into_iter().chain([question]) {
        // An error: it was thrown out for what it sent before, and will read that.
        let _ = socket.send(Frame::Binary(frame)).await;
    }
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("an answer in time") {
            Some(Ok(Frame::Binary(answer))) => match answer.strip_prefix(envelope) {
                Some([1, ..]) => return None,
                Some([2, 1, ..]) if !envelope.is_empty() => return Some(1),
                _ => {}
            },
            Some(Ok(Frame::Close(close))) => return Some(close.map_or(0, |close| close.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Some(0),
        }
    }
}

/// Plays sessions, and sends a changed frame after each of theirs.
async fn attack(address: &str, number: u64, sessions: &[Vec<Bytes>]) -> Ends {
    let mut random = Random::new(number);
    let dialects = [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet];
    let dialect = dialects[(number % 3) as usize];
    let mut ends = Ends::new();
    let mut left = CHANGED_EACH;
    while left > 0 {
        let played = random.index(sessions.len());
        let document = format!("changed-{}-{played}", number / TOGETHER);
        let envelope = dialect.envelope(&document);
        let mut socket = None;
        for frame in sessions[played].iter().take(left) {
            let others = &sessions[random.index(sessions.len())];
            let other = &others[random.index(others.len())];
            // Some are left out, so that what follows needs them.
            let honest = random.percent(90).then(|| frame.clone());
            let also = Bytes::from_static(dialect.also_says());
            let enveloped = |frame: Bytes| Bytes::from([&envelope, &frame[..]].concat());
            let mut changed = enveloped(changed(frame, other, &mut random));
            if random.percent(10) {
                changed = change(changed.to_vec(), other, &mut random).into();
            }
            // Again at the end: it may have left by what it said.
            let frames = [also.clone()].into_iter().chain(honest).map(enveloped);
            let frames = frames.chain([changed, enveloped(also)]);
            let mut open = match socket.take() {
                Some(open) => open,
                None => connect(address, &dialect.path(&document)).await,
            };
            match send(&mut open, &envelope, frames).await {
                Some(code) => *ends.entry(code).or_default() += 1,
                None => socket = Some(open),
            }
            left -= 1;
        }
    }
    ends
}

/// All connections, on a thread of their own: the two people must not wait for ours.
fn attack_all(address: &str) -> (Ends, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let start = Instant::now();
    let sessions = sessions();
    let attacks = join_all((0..CONNECTIONS).map(|number| attack(address, number, &sessions)));
    let mut all = Ends::new();
    for (code, count) in runtime.block_on(attacks).into_iter().flatten() {
        *all.entry(code).or_default() += count;
    }
    (all, start.elapsed())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // All of them come from one address.
    let arguments = ["--idle", IDLE, "--max-new-connections-per-address", "0"];
    let (quire, _) = Quire::start_with(&arguments);
    let (latency, ()) = type_beside(&quire, sleep(UNDISTURBED)).await;
    println!("undisturbed: {latency}");

    let before = quire.memory_mb();
    let attacks = async {
        let address = quire.address.clone();
        let attacked = tokio::task::spawn_blocking(move || attack_all(&address)).await;
        let (ends, took) = attacked.expect("the server answers all the while");
        println!(
            "{} changed frames over {CONNECTIONS} connections in {:.0} s; closed with (code: times) {ends:?}",
            CONNECTIONS as usize * CHANGED_EACH,
            took.as_secs_f64()
        );
        let right_after = quire.memory_mb();
        attacked_documents_leave(&quire).await;
        (right_after, quire.memory_mb())
    };
    let (latency, (right_after, after)) = type_beside(&quire, attacks).await;
    println!("while they are sent and their documents leave: {latency}");
    println!(
        "memory: {before:.0} MB before, {right_after:.0} MB right after, {after:.0} MB when the documents have left"
    );
    quire.stop();
    assert!(!AS_SHIPPED || after < before + MAX_GROWTH_MB, "the frames have left too much behind");
}
