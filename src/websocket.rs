//! A WebSocket after its handshake: reads frames and writes them, and keeps no buffer while nothing is under way. Whoever
//! reads and whoever writes share it within one task.
//!
//! The libraries' connections keep what the largest message took for as long as they live, and look at the socket again
//! with every frame that goes out. Source: RFC 6455.

mod decoder;
pub(crate) mod handshake;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::ready,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

pub use self::decoder::{Broken, Decoder, Frame};

/// What is read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Frames of up to so many bytes are put together into one write; larger ones are written from where they are, which
/// many sessions share.
const GATHERED_FRAME_BYTES: usize = 16 * 1024;
/// How much is put together before it is written.
const GATHERED_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where sockets are read into: none needs it for longer than one look.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
    /// Where frames are put together; away while a socket that does not take them holds it.
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A WebSocket on a stream of bytes.
pub struct WebSocket<S> {
    /// Both halves have it, in turns: they are of one task, which may move to another thread.
    stream: Mutex<S>,
    decoder: Decoder,
    unsent: Unsent,
}

/// What was begun to be written. It outlives who wrote it and was given up: a frame must not come in the middle of another.
#[derive(Default)]
struct Unsent {
    gathered: Vec<u8>,
    /// The payload of the last frame of these, where it is large.
    large: Bytes,
    /// How much of `gathered` is written.
    written: usize,
}

/// The half from which frames come.
pub struct Reader<'a, S> {
    stream: &'a Mutex<S>,
    decoder: &'a mut Decoder,
}

/// The half into which frames go.
pub struct Writer<'a, S> {
    stream: &'a Mutex<S>,
    unsent: &'a mut Unsent,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A WebSocket whose messages may have so many bytes.
    pub fn new(stream: S, limit: usize) -> Self {
        Self { stream: Mutex::new(stream), decoder: Decoder::new(limit), unsent: Unsent::default() }
    }

    /// Both halves.
    pub fn split(&mut self) -> (Reader<'_, S>, Writer<'_, S>) {
        let Self { stream, decoder, unsent } = self;
        (Reader { stream, decoder }, Writer { stream, unsent })
    }
}

impl<S: AsyncRead + Unpin> Reader<'_, S> {
    /// The next frame of those that have come.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, Broken> {
        self.decoder.frame()
    }

    /// Whether the client has closed the connection, and with which code, if with one.
    pub fn closed(&self) -> Option<Option<u16>> {
        self.decoder.closed()
    }

    /// How many bytes have come of messages that are not whole.
    pub fn held(&self) -> usize {
        self.decoder.held()
    }

    /// Waits until more has come; answers whether the stream goes on.
    pub async fn more(&mut self) -> io::Result<bool> {
        poll_fn(|context| {
            READ.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *lock(self.stream)).poll_read(context, &mut buffer))?;
                self.decoder.feed(buffer.filled());
                Ok(!buffer.filled().is_empty()).into()
            })
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Writer<'_, S> {
    /// Writes binary messages, in one write where they are small.
    pub async fn send(&mut self, messages: &[Bytes]) -> io::Result<()> {
        self.write().await?;
        for message in messages {
            self.begin(OpCode::Data(Data::Binary), message.len());
            if message.len() <= GATHERED_FRAME_BYTES {
                self.unsent.gathered.extend_from_slice(message);
            } else {
                self.unsent.large = message.clone();
            }
            if !self.unsent.large.is_empty() || self.unsent.gathered.len() >= GATHERED_BYTES {
                self.write().await?;
            }
        }
        self.write().await?;
        self.flush().await
    }

    /// Writes a control frame; its payload has 125 bytes at most.
    pub async fn control(&mut self, kind: Control, payload: &[u8]) -> io::Result<()> {
        self.write().await?;
        self.begin(OpCode::Control(kind), payload.len());
        self.unsent.gathered.extend_from_slice(payload);
        self.write().await?;
        self.flush().await
    }

    /// Says that nothing more comes.
    pub async fn shut_down(&self) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut *lock(self.stream)).poll_shutdown(context)).await
    }

    /// Begins a frame with its header.
    fn begin(&mut self, opcode: OpCode, length: usize) {
        if self.unsent.gathered.capacity() == 0 {
            self.unsent.gathered = GATHERED.take();
        }
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        header
            .format(length as u64, &mut self.unsent.gathered)
            .expect("a vector takes all that is written to it");
    }

    /// Writes what is begun.
    async fn write(&mut self) -> io::Result<()> {
        let Unsent { gathered, large, written } = &mut *self.unsent;
        while *written < gathered.len() {
            *written += write_some(self.stream, &gathered[*written..]).await?;
        }
        while !large.is_empty() {
            let written = write_some(self.stream, large).await?;
            large.advance(written);
        }
        *written = 0;
        gathered.clear();
        if gathered.capacity() > 0 {
            GATHERED.set(mem::take(gathered));
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut *lock(self.stream)).poll_flush(context)).await
    }
}

/// Writes as much as the stream takes.
async fn write_some<S: AsyncWrite + Unpin>(stream: &Mutex<S>, bytes: &[u8]) -> io::Result<usize> {
    match poll_fn(|context| Pin::new(&mut *lock(stream)).poll_write(context, bytes)).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

fn lock<S>(stream: &Mutex<S>) -> MutexGuard<'_, S> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, SinkExt, StreamExt};
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tungstenite::{Message, protocol::Role};

    use super::*;

    const LIMIT: usize = 4 * 1024 * 1024;

    /// A server and a client with so many bytes between them.
    async fn pair(bytes: usize) -> (WebSocket<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(bytes);
        (WebSocket::new(ours, LIMIT), WebSocketStream::from_raw_socket(theirs, Role::Client, None).await)
    }

    fn messages() -> Vec<Bytes> {
        let sizes = [0, 1, 125, 126, 16_384, 16_385, 65_535, 65_536, 3, 1_000_000, 7];
        sizes.iter().zip(1..).map(|(&size, fill)| Bytes::from(vec![fill; size])).collect()
    }

    #[tokio::test]
    async fn a_client_that_takes_little_at_a_time_gets_every_message() {
        for bytes in [1_000, 100_000, 10_000_000] {
            let (mut ours, mut theirs) = pair(bytes).await;
            let (_, mut writer) = ours.split();
            let sent = messages();
            let taken = async {
                for expected in &sent {
                    assert_eq!(theirs.next().await.unwrap().unwrap(), Message::Binary(expected.clone()));
                }
            };
            let (done, ()) = tokio::join!(writer.send(&sent), taken);
            done.unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_client_sends_comes_whole_and_leaves_no_buffer_behind() {
        let (mut ours, mut theirs) = pair(10_000).await;
        let (mut reader, mut writer) = ours.split();
        let sent = messages();
        let sending = async {
            for message in &sent {
                theirs.send(Message::Binary(message.clone())).await.unwrap();
            }
            theirs.send(Message::Ping("there?".into())).await.unwrap();
        };
        let reading = async {
            let mut came = Vec::new();
            loop {
                match reader.frame().unwrap() {
                    Some(Frame::Binary(bytes)) => came.push(Bytes::copy_from_slice(bytes)),
                    Some(frame) => {
                        assert_eq!(frame, Frame::Ping(b"there?"));
                        return came;
                    }
                    None => assert!(reader.more().await.unwrap()),
                }
            }
        };
        let ((), came) = tokio::join!(sending, reading);
        assert!(came == sent);
        assert_eq!(reader.frame(), Ok(None));
        assert_eq!(reader.decoder.capacity(), 0);
        writer.control(Control::Pong, b"there?").await.unwrap();
        assert_eq!(theirs.next().await.unwrap().unwrap(), Message::Pong("there?".into()));
    }

    #[tokio::test]
    async fn what_is_given_up_in_the_middle_of_a_frame_ends_before_the_next() {
        for (size, taken) in [(100_000, 1_000), (20_000, 3), (10_000, 1_000)] {
            let (mut ours, mut theirs) = pair(taken).await;
            let large = Bytes::from(vec![7; size]);
            let (_, mut writer) = ours.split();
            let given_up = writer.send(std::slice::from_ref(&large)).now_or_never();
            assert!(given_up.is_none());
            let (_, mut writer) = ours.split();
            let closing = async {
                writer.control(Control::Close, &1012_u16.to_be_bytes()).await.unwrap();
            };
            let ((), first) = tokio::join!(closing, async {
                let first = theirs.next().await.unwrap().unwrap();
                assert!(matches!(theirs.next().await.unwrap().unwrap(), Message::Close(Some(_))));
                first
            });
            assert_eq!(first, Message::Binary(large));
        }
    }

    #[tokio::test]
    async fn who_promises_a_large_message_takes_no_memory_for_it() {
        let mut decoder = Decoder::new(LIMIT);
        decoder.feed(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3]);
        assert_eq!(decoder.frame(), Ok(None));
        assert!(decoder.capacity() < 100, "{}", decoder.capacity());
        // Without a limit, any length may be said.
        let mut decoder = Decoder::new(usize::MAX);
        decoder.feed(&[[0x82, 0xff].as_slice(), &[0xff; 8], &[0; 7]].concat());
        assert_eq!(decoder.frame(), Ok(None));
        // A limit may be smaller than a ping.
        let mut decoder = Decoder::new(100);
        decoder.feed(&[[0x02, 0x80 | 101, 0, 0, 0, 0].as_slice(), &[7; 101]].concat());
        assert_eq!(decoder.frame(), Err(Broken::TooLarge(100)));
        let mut decoder = Decoder::new(100);
        decoder.feed(&[[0x89, 0x80 | 101, 0, 0, 0, 0].as_slice(), &[7; 101]].concat());
        assert_eq!(decoder.frame(), Ok(Some(Frame::Ping(&[7; 101]))));
        // One more than it may have.
        let mut decoder = Decoder::new(LIMIT);
        decoder.feed(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x40, 0, 1, 0, 0, 0, 0]);
        assert_eq!(decoder.frame(), Err(Broken::TooLarge(LIMIT)));
    }
}
