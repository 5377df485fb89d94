//! One WebSocket: frames in to its sessions, frames out from them. In most dialects it has one session; where clients
//! speak of several documents, each has its own.

mod pace;
mod stays;

use std::{convert::Infallible, future::Future, time::Duration};

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

pub use self::stays::{Admitted, Entrance};
use self::{
    pace::Pace,
    stays::{Known, Stays},
};
use crate::{config::Limits, drain::Drain, end::End, metrics::Metrics, protocol::dialect::Dialect};

/// The longest time without a frame to the client. Clients drop a socket after 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A client that was not heard of for so long is asked with a ping ...
const PING_AFTER: Duration = Duration::from_secs(30);
/// ... and is lost when it has not been heard of for so long.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what it is sent, and how fast it must take large frames at least.
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
    socket: WebSocket,
    dialect: Box<dyn Dialect>,
    entrance: &dyn Entrance,
    admitted: Option<Admitted>,
    node: Node<'_>,
) {
    let (mut sink, mut stream) = socket.split();
    let stays = Stays::new(dialect, entrance, node.limits);
    let serving = async {
        match admitted {
            Some(admitted) => stays.begin(admitted).await?,
            // Clients of several documents take a connection that ends without a frame for two failures, and come
            // back twice as often each time.
            None => stays.say_nothing(),
        }
        // Both ways go on side by side: a client that does not read may still write, and the other way round.
        tokio::select! {
            ended = read(&mut stream, &stays, node) => ended,
            ended = write(&mut sink, &stays, node.metrics) => ended,
            () = node.drain.turn() => Err(End::Stopping),
        }
    };
    let Err(end) = serving.await;
    stays.end_all(&end);
    drop(stays);
    let socket = sink.reunite(stream).expect("both halves are of one socket");
    close(socket, &end).await;
}

/// Ends a connection, and tells the client why.
pub async fn close(mut socket: WebSocket, end: &End) {
    let farewell = async {
        if *end != End::Left {
            let close = CloseFrame { code: end.code(), reason: end.reason().into() };
            // An error: the client is gone, which is what was wanted.
            let _ = socket.send(Frame::Close(Some(close))).await;
        }
        // A socket that is dropped with something unread is reset, and then the client does not see why.
        while let Some(Ok(_)) = socket.recv().await {}
    };
    // A time-out: the client does not close its side, and has been told.
    let _ = timeout(CLOSE_WITHIN, farewell).await;
}

async fn read(
    stream: &mut SplitStream<WebSocket>,
    stays: &Stays<'_>,
    Node { limits, metrics, .. }: Node<'_>,
) -> Result<Infallible, End> {
    // The clock is read once for each frame.
    let mut heard = Instant::now();
    let mut pace = Pace::new(limits, heard);
    // None where that is no longer waited for, or may take for ever.
    let mut first_message_before = heard.checked_add(limits.first_message_within);
    loop {
        let next = next_frame(stream, stays, heard);
        let next = match first_message_before {
            Some(before) => timeout_at(before, next).await,
            None => Ok(next.await),
        };
        let frame = match next {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(end_of(error, limits)),
            Ok(None) => return Err(End::Left),
            Err(_) => return Err(End::Silent),
        };
        heard = Instant::now();
        let (bytes, requests) = match &frame {
            Frame::Binary(bytes) => (bytes.len(), stays.read(bytes)?),
            Frame::Ping(bytes) | Frame::Pong(bytes) => (bytes.len(), Vec::new()),
            Frame::Text(_) => return Err(End::Refused("text frame: messages are binary".to_owned())),
            Frame::Close(_) => return Err(End::Left),
        };
        metrics.received_bytes.inc_by(bytes as u64);
        let is_first = !requests.is_empty() && first_message_before.is_some();
        // A frame without a message costs as much as one with.
        let rest = pace.note(requests.len().max(1), bytes, heard)?;
        for request in requests {
            stays.serve(request).await?;
        }
        // Somebody who only knocks has said nothing yet.
        if is_first && stays.has_any() {
            first_message_before = None;
        }
        if let Some(until) = rest {
            sleep_until(until).await;
        }
    }
}

/// The next frame of a client that was heard of last at this time; none where it is lost or has closed the connection.
async fn next_frame(
    stream: &mut SplitStream<WebSocket>,
    stays: &Stays<'_>,
    heard: Instant,
) -> Option<Result<Frame, axum::Error>> {
    if let Ok(frame) = timeout_at(heard + PING_AFTER, stream.next()).await {
        return frame;
    }
    stays.ping();
    // From now on: where it was not read for long, it must still have the time to answer.
    timeout(LOST_AFTER - PING_AFTER, stream.next()).await.unwrap_or(None)
}

/// Why reading failed, as an end: a frame over the limit is the client's fault, all else is a lost socket.
fn end_of(error: axum::Error, limits: &Limits) -> End {
    use tungstenite::error::{CapacityError, Error};
    match error.into_inner().downcast_ref::<Error>() {
        Some(Error::Capacity(CapacityError::MessageTooLong { .. })) => End::FrameTooLarge(limits.frame_bytes),
        _ => End::Left,
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Frame>,
    stays: &Stays<'_>,
    metrics: &Metrics,
) -> Result<Infallible, End> {
    let (mut known, mut frames) = (Known::default(), Vec::new());
    let mut silent_since = Instant::now();
    loop {
        if stays.gather(&mut known, &mut frames).await? {
            within(0, sink.send(Frame::Ping(Bytes::new()))).await?;
        }
        if frames.is_empty() {
            // A ping does not count: clients look for data.
            let silent_until = silent_since + KEEP_ALIVE;
            let wake_at = known.timer().map_or(silent_until, |timer| timer.min(silent_until));
            // A time-out is as good a reason to look again as news.
            let _ = timeout_at(wake_at, stays.news()).await;
            if Instant::now() >= silent_until {
                stays.say_nothing();
                silent_since = Instant::now();
            }
            continue;
        }
        let bytes = frames.iter().map(Bytes::len).sum();
        // Everything that waits goes out in one write.
        within(bytes, async {
            for frame in frames.drain(..) {
                sink.feed(Frame::Binary(frame)).await?;
            }
            sink.flush().await
        })
        .await?;
        metrics.sent_bytes.inc_by(bytes as u64);
        silent_since = Instant::now();
    }
}

/// Waits for a write, as long as a client that is slow but alive may take for so many bytes.
async fn within(bytes: usize, write: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
    let limit = STUCK_AFTER + Duration::from_secs(bytes as u64 / SLOWEST_BYTES_PER_SECOND);
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_) => Err(End::Stuck),
    }
}
