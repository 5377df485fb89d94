//! A client in a document: connects, joins, sends, and hands on what it hears.
//!
//! All sessions live on one thread and read into one buffer, so that an idle one costs next to nothing.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    sync::{Notify, oneshot},
    task::spawn_local,
    time::timeout,
};

use crate::{
    dialect::{Dialect, Event},
    figures::now,
    frames,
    socket::try_read,
};

/// How long a join may take.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// What an empty buffer may keep for later.
const KEPT_BUFFER: usize = 64 * 1024;

/// The server under test.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Where it listens; with several nodes, one session connects to one and the next to the next.
    #[arg(long = "address", required = true)]
    pub addresses: Vec<String>,
    /// The path, in which {document} stands for the document's name.
    #[arg(long, default_value = "/{document}")]
    pub path: String,
    #[arg(long, value_enum, default_value = "y-websocket")]
    pub dialect: Dialect,
}

/// A session; it ends when it is told to leave, or the server closes it.
pub(crate) struct Session {
    stream: TcpStream,
    dialect: Dialect,
    document: String,
    /// What the socket did not take at once.
    unsent: RefCell<Vec<u8>>,
    wake: Notify,
    paused: Cell<bool>,
    leaving: Cell<bool>,
    failure: RefCell<Option<String>>,
}

impl Target {
    /// Joins a document, and returns when all of it is here. What the session hears, then and later, is handed to
    /// `hear` with the time at which it was read.
    pub(crate) async fn join(
        &self,
        number: usize,
        document: &str,
        hear: impl FnMut(Event<'_>, u32) + 'static,
    ) -> Result<Rc<Session>> {
        let address = &self.addresses[number % self.addresses.len()];
        let joining = async {
            let (stream, rest) = connect(address, &self.path.replace("{document}", document)).await?;
            let session = Rc::new(Session {
                stream,
                dialect: self.dialect,
                document: document.to_owned(),
                unsent: RefCell::default(),
                wake: Notify::new(),
                paused: Cell::new(false),
                leaving: Cell::new(false),
                failure: RefCell::default(),
            });
            let (tell, joined) = oneshot::channel();
            spawn_local(session.clone().run(rest, Some(tell), hear));
            for message in self.dialect.greeting(document) {
                session.send(&message);
            }
            if joined.await.is_err() {
                bail!("{}", session.failure().unwrap_or_default());
            }
            Ok(session)
        };
        timeout(JOIN_WITHIN, joining).await.with_context(|| {
            format!("{address} does not let anybody into \"{document}\" within {JOIN_WITHIN:?}")
        })?
    }
}

impl Session {
    pub(crate) fn update(&self, update: &[u8]) {
        self.send(&self.dialect.update(&self.document, update));
    }

    pub(crate) fn presence(&self, client: u64, clock: u64, state: &str) {
        self.send(&self.dialect.presence(&self.document, client, clock, state));
    }

    fn send(&self, message: &[u8]) {
        let mut frame = Vec::with_capacity(message.len() + 14);
        frames::write_masked(&mut frame, frames::BINARY, message);
        self.write(&frame);
    }

    fn write(&self, bytes: &[u8]) {
        let mut unsent = self.unsent.borrow_mut();
        let taken = if unsent.is_empty() { self.stream.try_write(bytes).unwrap_or(0) } else { 0 };
        if taken < bytes.len() {
            unsent.extend_from_slice(&bytes[taken..]);
            self.wake.notify_one();
        }
    }

    /// How many bytes the socket did not take yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.borrow().len()
    }

    /// From now on it reads nothing, or again.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.set(paused);
        self.wake.notify_one();
    }

    pub(crate) fn leave(&self) {
        self.leaving.set(true);
        self.wake.notify_one();
    }

    /// Why it ended, unless it left or is still here.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    async fn run(
        self: Rc<Self>,
        rest: Vec<u8>,
        mut tell: Option<oneshot::Sender<()>>,
        mut hear: impl FnMut(Event<'_>, u32),
    ) {
        let mut inbox = Inbox { rest, message: Vec::new() };
        let mut receive = |message: &[u8], now: u32| {
            let read = self.dialect.read(message, |event| {
                let is_whole = matches!(event, Event::Whole(_));
                if matches!(event, Event::Ask) {
                    self.send(&self.dialect.nothing(&self.document));
                }
                hear(event, now);
                if let (true, Some(tell)) = (is_whole, tell.take_if(|_| is_whole)) {
                    // An error: nobody waits any more.
                    let _ = tell.send(());
                }
            });
            read.with_context(|| {
                format!("a message that cannot be read: {:02x?}", &message[..message.len().min(40)])
            })
        };
        // What came with the answer to the handshake.
        let mut ended = inbox.take(&self, &[], &mut receive);
        while ended.is_ok() && !self.leaving.get() {
            let reads = if self.paused.get() { None } else { Some(Interest::READABLE) };
            let writes = (self.unsent() > 0).then_some(Interest::WRITABLE);
            let interest = match (reads, writes) {
                (Some(reads), Some(writes)) => reads | writes,
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => {
                    self.wake.notified().await;
                    continue;
                }
            };
            let ready = tokio::select! {
                ready = self.stream.ready(interest) => ready.expect("the runtime is there"),
                () = self.wake.notified() => continue,
            };
            if ready.is_writable() {
                self.flush();
            }
            if ready.is_readable() {
                ended = self.read(&mut inbox, &mut receive);
            }
        }
        if let (Err(error), false) = (ended, self.leaving.get()) {
            *self.failure.borrow_mut() = Some(format!("{error:#}"));
        }
    }

    fn flush(&self) {
        let mut unsent = self.unsent.borrow_mut();
        // An error that is not "later" is seen again when reading.
        let taken = self.stream.try_write(&unsent).unwrap_or(0);
        unsent.drain(..taken);
        if unsent.is_empty() {
            unsent.shrink_to(KEPT_BUFFER);
        }
    }

    fn read(&self, inbox: &mut Inbox, receive: &mut impl FnMut(&[u8], u32) -> Result<()>) -> Result<()> {
        try_read(&self.stream, |received| inbox.take(self, received, receive))?.unwrap_or(Ok(()))
    }
}

/// What was received and is not whole yet.
struct Inbox {
    rest: Vec<u8>,
    /// Of a message in several frames.
    message: Vec<u8>,
}

impl Inbox {
    fn take(
        &mut self,
        session: &Session,
        received: &[u8],
        receive: &mut impl FnMut(&[u8], u32) -> Result<()>,
    ) -> Result<()> {
        if self.rest.is_empty() {
            let taken = self.frames(session, received, receive)?;
            self.rest.extend_from_slice(&received[taken..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(received);
            let taken = self.frames(session, &rest, receive)?;
            rest.drain(..taken);
            self.rest = rest;
        }
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
        Ok(())
    }

    /// How many bytes the whole frames at the front took.
    fn frames(
        &mut self,
        session: &Session,
        bytes: &[u8],
        receive: &mut impl FnMut(&[u8], u32) -> Result<()>,
    ) -> Result<usize> {
        let mut taken = 0;
        let now = now();
        while let Some(frame) = frames::first(&bytes[taken..]) {
            taken += frame.length;
            match frame.kind {
                frames::BINARY if frame.is_final => receive(frame.payload, now)?,
                frames::BINARY => self.message = frame.payload.to_vec(),
                frames::CONTINUATION => {
                    self.message.extend_from_slice(frame.payload);
                    if frame.is_final {
                        receive(&std::mem::take(&mut self.message), now)?;
                    }
                }
                frames::PING => {
                    let mut pong = Vec::new();
                    frames::write_masked(&mut pong, frames::PONG, frame.payload);
                    session.write(&pong);
                }
                frames::CLOSE => {
                    let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                    bail!("the server closed a session: {code} {reason}");
                }
                _ => {}
            }
        }
        Ok(taken)
    }
}

/// A WebSocket, and what came behind the answer to its handshake.
async fn connect(address: &str, path: &str) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("no connection to {address}"))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        frames::KEY
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "{address} hung up on the handshake");
        if let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            ensure!(
                answer.starts_with(b"HTTP/1.1 101"),
                "{address} refuses {path}: {}",
                String::from_utf8_lossy(&answer)
            );
            return Ok((stream, answer.split_off(head + 4)));
        }
    }
}
