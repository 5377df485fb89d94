//! The way to a client: what its sessions have for it is put into frames and written, by the connection's own task, or by
//! whoever has news for it and finds that the socket takes them at once.

use std::{
    cell::Cell,
    future::poll_fn,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::Notify, task::coop::unconstrained, time::Instant};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{outside::Outside, stay::Stay};
use crate::{
    end::End,
    outbox::{Carrier, Taken},
    protocol::dialect::{Address, Dialect, News},
    websocket::Writer,
};

thread_local! {
    /// Where news and frames are put between an outbox and a socket.
    static SCRATCH: Cell<(News, Vec<Bytes>)> = Cell::default();
}

/// The way to one client.
pub(super) struct Line {
    state: Mutex<State>,
    writing: Mutex<Writing>,
    news: Notify,
    /// Bytes of data for clients.
    sent: Counter,
}

/// What the client is told, and who tells it.
pub(super) struct State {
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) stays: Vec<Arc<Stay>>,
    /// Under which addresses there is no session.
    pub(super) outside: Outside,
    /// What the client is told beside what its sessions have.
    pub(super) frames: Vec<Bytes>,
    /// Pings and pongs for the client.
    pub(super) controls: Vec<(Control, Bytes)>,
}

/// Held by whoever writes, from looking for frames on: they leave in the order in which they were found.
struct Writing {
    /// None when the connection is over.
    writer: Option<Writer>,
    /// When the client was last sent data.
    spoke_at: Instant,
}

/// What was found for a client.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// Frames, which have been written.
    Frames,
    /// A session that must catch up.
    Behind(Arc<Stay>),
    /// A session that is over.
    Over(Arc<Stay>, End),
}

impl Line {
    pub(super) fn new(dialect: Box<dyn Dialect>, writer: Writer, sent: Counter) -> Self {
        let state = State {
            dialect,
            stays: Vec::new(),
            outside: Outside::default(),
            frames: Vec::new(),
            controls: Vec::new(),
        };
        let writing = Writing { writer: Some(writer), spoke_at: Instant::now() };
        Self { state: Mutex::new(state), writing: Mutex::new(writing), news: Notify::new(), sent }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there may be something to be written.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// When the client was last sent data.
    pub(super) fn spoke_at(&self) -> Instant {
        self.writing().spoke_at
    }

    /// Whether there is something that the client has not taken yet.
    pub(super) fn is_writing(&self) -> bool {
        self.writing().is_under_way()
    }

    /// How many bytes the client has not taken yet, about.
    pub(super) fn waiting(&self) -> usize {
        self.writing().writer.as_ref().map_or(0, Writer::waiting)
    }

    /// Writes what there is for the client, and waits until it has taken that.
    pub(super) async fn write(&self) -> io::Result<Found> {
        poll_fn(|context| self.poll_write(&mut self.writing(), self.lock(), context)).await
    }

    /// The writer, for the last words. From now on nothing else is written.
    pub(super) fn take_writer(&self) -> Option<Writer> {
        self.writing().writer.take()
    }

    fn poll_write(
        &self,
        writing: &mut Writing,
        mut state: MutexGuard<'_, State>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Found>> {
        let Some(writer) = &mut writing.writer else { return Poll::Ready(Ok(Found::Nothing)) };
        let mut found = Found::Frames;
        if writer.is_done() {
            let bytes;
            (found, bytes) = state.gather(writer);
            if bytes > 0 {
                writing.spoke_at = Instant::now();
                self.sent.inc_by(bytes as u64);
            }
        }
        drop(state);
        ready!(writer.poll_write(context))?;
        Poll::Ready(Ok(found))
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier for Line {
    fn call(&self) {
        self.news.notify_one();
    }

    fn carry(&self) {
        // Unconstrained: whoever carries writes to many, and tokio refuses a task that has done so much in one go.
        let write = unconstrained(poll_fn(|context| {
            match (self.writing.try_lock(), self.state.try_lock()) {
                (Ok(mut writing), Ok(state)) if !writing.is_under_way() => {
                    self.poll_write(&mut writing, state, context)
                }
                // Nobody is waited for who is at work on it at this moment. And where the task waits for the socket, only it
                // may ask for that: the socket wakes who has asked last.
                _ => Poll::Pending,
            }
        }));
        if !matches!(write.now_or_never(), Some(Ok(Found::Nothing | Found::Frames))) {
            // The rest is the task's.
            self.call();
        }
    }
}

impl Writing {
    /// Whether something was begun that the client has not taken yet.
    fn is_under_way(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| !writer.is_done())
    }
}

impl State {
    /// Takes a session from the line.
    pub(super) fn take(&mut self, address: &Address) -> Option<Arc<Stay>> {
        let at = self.stays.iter().position(|stay| stay.address == *address)?;
        Some(self.stays.swap_remove(at))
    }

    /// Puts everything that the client must hear into the writer. Answers what was found, and how many bytes of data.
    fn gather(&mut self, writer: &mut Writer) -> (Found, usize) {
        let Self { dialect, stays, frames: own, controls, .. } = self;
        let mut found = if controls.is_empty() { Found::Nothing } else { Found::Frames };
        for (kind, payload) in mem::take(controls) {
            writer.put(OpCode::Control(kind), payload);
        }
        // Taken, so that a panic leaves nothing for another client.
        let (mut news, mut frames) = SCRATCH.take();
        // What is said of a session comes before what it has.
        frames.extend(mem::take(own));
        for stay in stays {
            match stay.session.look(&mut news) {
                Taken::News => dialect.write(&stay.address, &mut news, &mut frames),
                Taken::Nothing => {}
                Taken::Behind => found = Found::Behind(stay.clone()),
                Taken::End(end) => found = Found::Over(stay.clone(), end),
            }
            if stay.ask_now() {
                frames.extend(dialect.ask_for_token(&stay.address));
            }
        }
        if !frames.is_empty() && matches!(found, Found::Nothing) {
            found = Found::Frames;
        }
        let bytes = frames.iter().map(Bytes::len).sum();
        for frame in frames.drain(..) {
            writer.put(OpCode::Data(Data::Binary), frame);
        }
        SCRATCH.set((news, frames));
        (found, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::{protocol::y_websocket::YWebsocket, websocket::halves};

    /// A line to a client that takes so many bytes before it reads.
    fn line(bytes: usize) -> (Line, DuplexStream) {
        let (ours, theirs) = duplex(bytes);
        let (_, writer) = halves(ours, 1_000);
        (Line::new(Box::new(YWebsocket("letter".into())), writer, Counter::default()), theirs)
    }

    /// How many bytes a carrier finds and writes, or begins to.
    fn carried(line: &Line) -> u64 {
        let before = line.sent.get();
        line.carry();
        line.sent.get() - before
    }

    fn is_called(line: &Line) -> bool {
        line.news().now_or_never().is_some()
    }

    #[tokio::test]
    async fn what_the_client_takes_at_once_needs_no_task() {
        let (line, mut theirs) = line(1_000);
        assert_eq!(carried(&line), 0);
        line.lock().frames.push("news".into());
        assert_eq!(carried(&line), 4);
        let mut came = [0; 6];
        theirs.read_exact(&mut came).await.unwrap();
        assert_eq!(came, *b"\x82\x04news");
        assert!(!is_called(&line));
    }

    #[tokio::test]
    async fn the_task_ends_what_the_client_does_not_take() {
        let (line, mut theirs) = line(10);
        line.lock().frames.push("a longer story".into());
        assert_eq!(carried(&line), 14);
        assert!(is_called(&line) && line.is_writing());
        line.lock().frames.push("news".into());
        assert_eq!(carried(&line), 0, "the story comes first");
        assert!(is_called(&line));
        let mut came = [0; 22];
        let task = async { while matches!(line.write().await.unwrap(), Found::Frames) {} };
        let ((), read) = tokio::join!(task, theirs.read_exact(&mut came));
        read.unwrap();
        assert_eq!((line.sent.get(), came), (18, *b"\x82\x0ea longer story\x82\x04news"));
        assert!(!line.is_writing());
    }

    #[tokio::test]
    async fn a_task_that_waits_for_the_socket_is_woken_by_it() {
        let (line, mut theirs) = line(10);
        line.lock().frames.push("a longer story".into());
        let line = Arc::new(line);
        let writing = tokio::spawn({
            let line = line.clone();
            async move { line.write().await.unwrap() }
        });
        tokio::task::yield_now().await;
        assert!(line.is_writing());
        line.lock().frames.push("news".into());
        assert_eq!(carried(&line), 0);
        let taken = async {
            theirs.read_exact(&mut [0; 16]).await.unwrap();
            writing.await.unwrap()
        };
        let written = tokio::time::timeout(Duration::from_secs(10), taken).await;
        assert!(matches!(written, Ok(Found::Frames)));
        assert_eq!(line.sent.get(), 14);
        assert_eq!(carried(&line), 4);
    }

    #[tokio::test]
    async fn nobody_waits_for_who_is_at_work_on_the_line() {
        let (line, _theirs) = line(1_000);
        let reading = line.lock();
        assert_eq!(carried(&line), 0);
        assert!(is_called(&line));
        drop(reading);
        drop(line.take_writer());
        line.lock().frames.push("too late".into());
        assert_eq!(carried(&line), 0);
    }
}
