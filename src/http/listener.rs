//! The server's own listener: takes TCP connections, and gives each request its peer's address. Unlike `axum::serve`
//! it does not wait for ever for a request that does not come.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::admission::Admission;

/// How long a request's headers may take, and how long a kept connection may wait for the next request.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer: longer than a WebSocket may, which ends by itself with a reason.
const TAKEN_WITHIN: Duration = Duration::from_secs(90);
/// How large a request's headers may be: room for a token and a thousand bytes of a name, percent-encoded.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long the listener rests where it cannot take connections, as without free file descriptors.
const REST: Duration = Duration::from_millis(500);
/// How long a request that is under way when the server stops may take: less than the stop itself may.
const ANSWERED_WITHIN: Duration = Duration::from_secs(7);

/// Serves a listener until the server stops and everything that was asked is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    admission: Arc<Admission>,
    stopping: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        match accepted {
            // Who is not let in has been counted. No answer: he would have to be waited for until he has asked.
            Ok((socket, peer)) => {
                if let Ok(place) = admission.admit_socket(peer.ip()) {
                    let (router, stopping) = (router.clone(), stopping.clone());
                    connections.spawn(async move {
                        serve_connection(socket, peer, router, stopping).await;
                        // A WebSocket has a place of its own by now.
                        drop(place);
                    });
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot take connections at the moment");
                sleep(REST).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Whether an error of the listener says that a connection ended before it was taken.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers requests until the client has no more, or its connection becomes a WebSocket.
async fn serve_connection(socket: TcpStream, peer: SocketAddr, router: Router, stopping: CancellationToken) {
    // Small frames must not wait for each other (Nagle's algorithm and delayed acknowledgements).
    if let Err(error) = socket.set_nodelay(true) {
        warn!(%error, "a socket keeps delaying small frames");
    }
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(Taken { socket, waiting: None }), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // A time-out: somebody has asked half a question, or does not take his answer.
            timeout(ANSWERED_WITHIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        debug!(%error, "a connection broke");
    }
}

/// A socket on which writing fails when the client has taken nothing for too long.
struct Taken {
    socket: TcpStream,
    /// Until when something must be taken, while there is something that is not. On the heap, because there hardly ever is.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Taken {
    /// What came of a try to write, or an error where that was tried for too long.
    fn limit<T>(&mut self, context: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.waiting = None;
            return tried;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(TAKEN_WITHIN)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.limit(context, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.limit(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_his_answer_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        let router = Router::new().route("/", get(|| async { vec![0_u8; 64 << 20] }));
        let start = tokio::time::Instant::now();
        serve_connection(socket, peer, router, CancellationToken::new()).await;
        assert!(start.elapsed() >= TAKEN_WITHIN, "{:?}", start.elapsed());
    }
}
