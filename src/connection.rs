//! One WebSocket of a y-websocket client: frames in to its session, frames out from it.

mod pace;

use std::{future::Future, sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use self::pace::Pace;
use crate::{config::Limits, end::End, protocol::y_websocket, session::Session};

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

/// Serves a connection until the client leaves or the session ends.
pub async fn serve(socket: WebSocket, session: Session, limits: &Limits) -> End {
    let (mut sink, mut stream) = socket.split();
    let ping = Notify::new();
    // Both ways go on side by side: a client that does not read may still write, and the other way round.
    let end = tokio::select! {
        end = read(&mut stream, &session, &ping, limits) => end,
        end = write(&mut sink, &session, &ping) => end,
    };
    drop(session);
    let socket = sink.reunite(stream).expect("both halves are of one socket");
    close(socket, end).await
}

/// Ends a connection, and tells the client why.
pub async fn close(mut socket: WebSocket, end: End) -> End {
    let farewell = async {
        if end != End::Left {
            let close = CloseFrame { code: end.code(), reason: end.reason().into() };
            // An error: the client is gone, which is what was wanted.
            let _ = socket.send(Frame::Close(Some(close))).await;
        }
        // A socket that is dropped with something unread is reset, and then the client does not see why.
        while let Some(Ok(_)) = socket.recv().await {}
    };
    // A time-out: the client does not close its side, and has been told.
    let _ = timeout(CLOSE_WITHIN, farewell).await;
    end
}

async fn read(stream: &mut SplitStream<WebSocket>, session: &Session, ping: &Notify, limits: &Limits) -> End {
    // The clock is read once for each frame.
    let mut heard = Instant::now();
    let mut pace = Pace::new(limits, heard);
    // None where that is no longer waited for, or may take for ever.
    let mut first_message_before = heard.checked_add(limits.first_message_within);
    loop {
        let next = next_frame(stream, ping, heard);
        let next = match first_message_before {
            Some(before) => timeout_at(before, next).await,
            None => Ok(next.await),
        };
        let frame = match next {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return end_of(error, limits),
            Ok(None) => return End::Left,
            Err(_) => return End::Silent,
        };
        heard = Instant::now();
        let (bytes, messages) = match &frame {
            Frame::Binary(bytes) => (bytes.len(), y_websocket::read(bytes)),
            Frame::Ping(bytes) | Frame::Pong(bytes) => (bytes.len(), Ok(Vec::new())),
            Frame::Text(_) => return End::Refused("text frame: messages are binary".to_owned()),
            Frame::Close(_) => return End::Left,
        };
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => return End::Refused(error.to_string()),
        };
        if !messages.is_empty() {
            first_message_before = None;
        }
        // A frame without a message costs as much as one with.
        let rest = match pace.note(messages.len().max(1), bytes, heard) {
            Ok(rest) => rest,
            Err(end) => return end,
        };
        for message in messages {
            if let Err(end) = session.receive(message).await {
                return end;
            }
        }
        if let Some(until) = rest {
            sleep_until(until).await;
        }
    }
}

/// The next frame of a client that was heard of last at this time; none where it is lost or has closed the connection.
async fn next_frame(
    stream: &mut SplitStream<WebSocket>,
    ping: &Notify,
    heard: Instant,
) -> Option<Result<Frame, axum::Error>> {
    if let Ok(frame) = timeout_at(heard + PING_AFTER, stream.next()).await {
        return frame;
    }
    ping.notify_one();
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

async fn write(sink: &mut SplitSink<WebSocket, Frame>, session: &Session, ping: &Notify) -> End {
    let mut frames = Vec::new();
    let mut silent_since = Instant::now();
    loop {
        let next = tokio::select! {
            next = timeout_at(silent_since + KEEP_ALIVE, session.next(&mut frames)) => next,
            () = ping.notified() => {
                if let Err(end) = within(0, sink.send(Frame::Ping(Bytes::new()))).await {
                    return end;
                }
                continue;
            }
        };
        let sent = match next {
            Ok(Ok(())) => {
                let bytes = frames.iter().map(|outgoing: &Arc<_>| outgoing.frame.len()).sum();
                // Everything that waits goes out in one write.
                within(bytes, async {
                    for outgoing in frames.drain(..) {
                        sink.feed(Frame::Binary(outgoing.frame.clone())).await?;
                    }
                    sink.flush().await
                })
                .await
            }
            Ok(Err(end)) => return end,
            Err(_) => {
                let nothing = Frame::Binary(Bytes::from_static(y_websocket::KEEP_ALIVE));
                within(0, sink.send(nothing)).await
            }
        };
        if let Err(end) = sent {
            return end;
        }
        // A ping does not count: clients look for data.
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
