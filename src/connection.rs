//! One WebSocket: frames in to its sessions, frames out from them. In most dialects it has one session; where clients
//! speak of several documents, each has its own.

mod alarm;
mod line;
mod outside;
mod pace;
mod stay;
mod stays;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::protocol::frame::coding::{Control, OpCode};

pub use self::stays::{Admitted, Entrance};
use self::{
    alarm::by,
    line::{Found, Line},
    pace::Pace,
    stays::Stays,
};
use crate::{
    config::Limits,
    drain::Drain,
    end::End,
    metrics::Metrics,
    protocol::dialect::Dialect,
    websocket::{Broken, Frame, Reader, Writer},
};

/// The longest time without a frame to the client. Clients drop a socket after 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A client that was not heard of for so long is asked with a ping ...
const PING_AFTER: Duration = Duration::from_secs(30);
/// ... and is lost when it has not been heard of for so long.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what it is sent, or bring nothing of what it began, and how fast large frames must
/// go at least.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;
/// How long a close frame may take to leave.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What a connection knows of its node.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// How much is taken from clients.
    pub limits: &'a Limits,
    /// What is counted.
    pub metrics: &'a Metrics,
    /// When connections must end because the node stops.
    pub drain: &'a Drain,
}

/// Serves a connection until the client leaves or there is a reason to send it away. Where clients do not name
/// documents by themselves, `admitted` is for the only one.
pub async fn serve(
    (mut reader, writer): (Reader, Writer),
    dialect: Box<dyn Dialect>,
    entrance: &dyn Entrance,
    admitted: Option<Box<Admitted>>,
    node: Node<'_>,
) {
    let line = Arc::new(Line::new(dialect, writer, node.metrics.sent_bytes.clone()));
    let stays = Stays::new(line.clone(), entrance, node.limits);
    let serving = async {
        match admitted {
            // On the heap, as everything that is soon over: a connection is as large as the largest thing that it does.
            Some(admitted) => Box::pin(stays.begin(*admitted)).await?,
            // Clients of several documents take a connection that ends without a frame for two failures, and come
            // back twice as often each time.
            None => stays.say_nothing(),
        }
        // Both ways go on side by side: a client that does not read may still write, and the other way round. Each is
        // looked at only when it has been woken.
        let mut ways = FuturesUnordered::<BoxFuture<'_, _>>::new();
        ways.push(Box::pin(read(&mut reader, &line, &stays, node)));
        ways.push(Box::pin(write(&line, &stays)));
        ways.push(Box::pin(node.drain.turn().map(|()| Err(End::Stopping))));
        ways.next().await.expect("none of them has ended before")
    };
    let Err(end) = serving.await;
    stays.end_all(&end);
    drop(stays);
    if let Some(writer) = line.take_writer() {
        Box::pin(close((reader, writer), &end)).await;
    }
}

/// Ends a connection, and tells the client why.
pub async fn close((mut reader, mut writer): (Reader, Writer), end: &End) {
    let farewell = async {
        if let Some(code) = reader.closed() {
            let payload = code.map(u16::to_be_bytes).as_slice().concat();
            writer.put(OpCode::Control(Control::Close), payload.into());
            writer.write().await?;
        } else if *end != End::Left {
            let payload = [&end.code().to_be_bytes(), end.reason().as_bytes()].concat();
            writer.put(OpCode::Control(Control::Close), payload.into());
            writer.write().await?;
            // A socket that is dropped with something unread is reset, and then the client does not see why.
            loop {
                match reader.frame() {
                    Ok(Some(Frame::Close(_))) => break,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => {
                        if !reader.more().await? {
                            break;
                        }
                    }
                }
            }
        }
        writer.shut_down().await
    };
    // A time-out: the client does not close its side, and has been told. An error: it is gone, which is what was wanted.
    let _: Result<io::Result<()>, _> = timeout(CLOSE_WITHIN, farewell).await;
}

async fn read(
    reader: &mut Reader,
    line: &Line,
    stays: &Stays<'_>,
    Node { limits, metrics, .. }: Node<'_>,
) -> Result<Infallible, End> {
    let mut alarm = pin!(sleep_until(Instant::now() + PING_AFTER));
    // The clock is read once for all that comes at once.
    let mut heard = Instant::now();
    let mut pace = Pace::new(limits, heard);
    // Since when a message is coming that is not whole.
    let mut begun = None;
    // None where that is no longer waited for, or may take for ever.
    let mut first_message_before = heard.checked_add(limits.first_message_within);
    loop {
        let frame = reader.frame().map_err(|broken| match broken {
            Broken::Rule(_) => End::Refused(broken.to_string()),
            Broken::TooLarge(limit) => End::FrameTooLarge(limit),
        })?;
        let (bytes, requests) = match frame {
            Some(Frame::Binary(bytes)) => {
                begun = None;
                (bytes.len(), stays.read(bytes)?)
            }
            Some(Frame::Ping(bytes)) => {
                stays.pong(bytes);
                (bytes.len(), Vec::new())
            }
            Some(Frame::Pong(bytes)) => (bytes.len(), Vec::new()),
            // Its bytes count with the whole message.
            Some(Frame::Part) => (0, Vec::new()),
            Some(Frame::Text(_)) => {
                return Err(End::Refused("text frame: messages are binary".to_owned()));
            }
            Some(Frame::Close(_)) => return Err(End::Left),
            None => {
                let now = Instant::now();
                let held = reader.held();
                if held == 0 {
                    begun = None;
                } else if now >= *begun.get_or_insert(now) + patience(held) {
                    return Err(End::Left);
                }
                let soon = |at: Instant| first_message_before.map_or(at, |before| before.min(at));
                let is_silent = || first_message_before.is_some_and(|before| before <= Instant::now());
                let mut more = by(alarm.as_mut(), soon(heard + PING_AFTER), reader.more()).await;
                if more.is_none() && !is_silent() {
                    stays.ping();
                    // From now on: where it was not read for long, it must still have the time to answer.
                    let lost_at = Instant::now() + (LOST_AFTER - PING_AFTER);
                    more = by(alarm.as_mut(), soon(lost_at), reader.more()).await;
                }
                match more {
                    Some(Ok(true)) => heard = Instant::now(),
                    None if is_silent() => return Err(End::Silent),
                    // It takes what it is sent, and the ping is behind that. Whether it takes enough, the writer sees.
                    None if line.is_writing() => heard = Instant::now(),
                    _ => return Err(End::Left),
                }
                continue;
            }
        };
        metrics.received_bytes.inc_by(bytes as u64);
        if requests.is_empty() && first_message_before.is_some_and(|before| before <= heard) {
            return Err(End::Silent);
        }
        let is_first = !requests.is_empty() && first_message_before.is_some();
        // A frame without a message costs as much as one with.
        let rest = pace.note(requests.len().max(1), bytes, heard)?;
        for request in requests {
            Box::pin(stays.serve(request)).await?;
        }
        // Somebody who only knocks has said nothing yet.
        if is_first && stays.has_any() {
            first_message_before = None;
        }
        if let Some(until) = rest {
            sleep_until(until).await;
            heard = Instant::now();
        }
    }
}

async fn write(line: &Line, stays: &Stays<'_>) -> Result<Infallible, End> {
    let mut alarm = pin!(sleep_until(Instant::now() + KEEP_ALIVE));
    loop {
        match within(line).await? {
            Found::Frames => {}
            Found::Behind(stay) => Box::pin(stays.catch_up(&stay)).await?,
            Found::Over(stay, end) => stays.ended(&stay, end)?,
            Found::Nothing => {
                // A ping does not count: clients look for data.
                let silent_until = line.spoke_at() + KEEP_ALIVE;
                let wake_at = stays.timer().map_or(silent_until, |timer| timer.min(silent_until));
                // A time-out is as good a reason to look again as news.
                let rang = by(alarm.as_mut(), wake_at, line.news()).await.is_none();
                if rang && Instant::now() >= line.spoke_at() + KEEP_ALIVE {
                    stays.say_nothing();
                }
            }
        }
    }
}

/// Writes what there is, and waits as long as a client that is slow but alive may take for it.
async fn within(line: &Line) -> Result<Found, End> {
    let mut write = pin!(line.write());
    // Nearly always a socket takes everything at once.
    let written = match poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await {
        Poll::Ready(written) => Ok(written),
        Poll::Pending => Box::pin(timeout(patience(line.waiting()), write)).await,
    };
    match written {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(_)) => Err(End::Left),
        Err(_) => Err(End::Stuck),
    }
}

/// How long so many bytes may take on their way to or from a client.
fn patience(bytes: usize) -> Duration {
    STUCK_AFTER + Duration::from_secs(bytes as u64 / SLOWEST_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::SinkExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::sleep,
    };
    use tokio_tungstenite::WebSocketStream;
    use tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    };

    use super::*;
    use crate::{
        name::DocumentName, outbox::Carrier, presence::SessionId, protocol::y_websocket::YWebsocket,
        session::Session, websocket::halves,
    };

    /// A way in that nobody goes.
    struct Closed;

    impl Entrance for Closed {
        fn needs_token(&self) -> bool {
            true
        }

        fn dialect(&self) -> &'static str {
            "y-websocket"
        }

        fn admit<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Admitted, End>> {
            unreachable!("nobody brings a token")
        }

        fn join<'a>(&'a self, _: &'a Admitted, _: Arc<dyn Carrier>) -> BoxFuture<'a, Result<Session, End>> {
            unreachable!("nobody joins")
        }

        fn left(&self, _: &DocumentName, _: SessionId, _: Option<&str>, _: &End) {}

        fn refused(&self, _: &str, _: &End) {}
    }

    /// Serves a client that nothing is expected of, told this first; answers why it ended, and after how long.
    async fn served(stream: DuplexStream, told: usize) -> (End, Duration) {
        let limits = Limits { first_message_within: Duration::MAX, ..Limits::default() };
        let (metrics, drain) = (Metrics::default(), Drain::default());
        let (mut reader, writer) = halves(stream, limits.frame_bytes);
        let dialect = Box::new(YWebsocket("letter".into()));
        let line = Arc::new(Line::new(dialect, writer, metrics.sent_bytes.clone()));
        let stays = Stays::new(line.clone(), &Closed, &limits);
        stays.say(vec![7; told].into());
        let node = Node { limits: &limits, metrics: &metrics, drain: &drain };
        let start = Instant::now();
        let ended = tokio::select! {
            ended = read(&mut reader, &line, &stays, node) => ended,
            ended = write(&line, &stays) => ended,
        };
        let Err(end) = ended;
        (end, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_and_says_nothing_is_not_lost() {
        let (ours, mut theirs) = duplex(1024);
        let serving = tokio::spawn(served(ours, 3_000_000));
        // Two and a half minutes, at a little more than the slowest pace.
        let mut taken = 0;
        while taken < 3_000_000 {
            let mut bytes = vec![0; 20_000];
            theirs.read_exact(&mut bytes).await.unwrap();
            taken += bytes.len();
            sleep(Duration::from_secs(1)).await;
        }
        assert!(!serving.is_finished());
        // Now it takes nothing at all, and would have to answer a ping.
        let (end, after) = serving.await.unwrap();
        assert_eq!(end, End::Left);
        assert!(after < Duration::from_secs(150) + 2 * LOST_AFTER, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_stuck() {
        let (ours, _theirs) = duplex(1024);
        let (end, after) = served(ours, 1_000_000).await;
        assert_eq!(end, End::Stuck);
        // What it took before that does not count.
        assert!((patience(998_000)..=patience(1_000_000)).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_must_end_within_its_time() {
        let (ours, mut theirs) = duplex(1024 * 1024);
        let serving = tokio::spawn(served(ours, 1));
        // The head of a message of 100,000 bytes, and then a byte now and then.
        theirs.write_all(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0]).await.unwrap();
        while theirs.write_all(&[1]).await.is_ok() {
            sleep(Duration::from_secs(10)).await;
        }
        let (end, after) = serving.await.unwrap();
        assert_eq!(end, End::Left);
        assert!((60..=80).contains(&after.as_secs()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_farewell_is_heard_behind_other_frames() {
        let (ours, theirs) = duplex(1024);
        let serving = tokio::spawn(served(ours, 1));
        let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let farewell = CloseFrame { code: 1000.into(), reason: "".into() };
        for frame in [Message::Ping("there?".into()), Message::Close(Some(farewell))] {
            theirs.feed(frame).await.unwrap();
        }
        theirs.flush().await.unwrap();
        let (end, after) = serving.await.unwrap();
        assert_eq!((end, after), (End::Left, Duration::ZERO));
    }
}
