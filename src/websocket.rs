//! A WebSocket after its handshake: reads frames and writes them, and keeps no buffer while nothing is under way. Its
//! halves may belong to different tasks.
//!
//! The libraries' connections keep what the largest message took for as long as they live, and look at the socket again
//! with every frame that goes out. Source: RFC 6455.

mod decoder;
pub(crate) mod handshake;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{FrameHeader, coding::OpCode};

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

/// What a WebSocket stands on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The half from which frames come.
pub struct Reader {
    stream: Arc<Mutex<dyn Stream>>,
    decoder: Decoder,
}

/// The half into which frames go.
pub struct Writer {
    stream: Arc<Mutex<dyn Stream>>,
    unsent: Unsent,
}

/// What was put in and has not left. It outlives who wrote it and was given up: a frame must not come in the middle of
/// another.
#[derive(Default)]
struct Unsent {
    gathered: Vec<u8>,
    /// How much of `gathered` is written.
    written: usize,
    /// The payload of the last frame of `gathered`, where it is large.
    large: Bytes,
    /// Frames that come behind that.
    behind: VecDeque<(OpCode, Bytes)>,
    /// Whether the stream may hold what it has taken.
    unflushed: bool,
}

/// Both halves of a WebSocket on a stream of bytes, whose messages may have so many bytes.
pub fn halves(stream: impl Stream + 'static, limit: usize) -> (Reader, Writer) {
    let stream: Arc<Mutex<dyn Stream>> = Arc::new(Mutex::new(stream));
    (
        Reader { stream: stream.clone(), decoder: Decoder::new(limit) },
        Writer { stream, unsent: Unsent::default() },
    )
}

impl Reader {
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
                ready!(Pin::new(&mut *lock(&self.stream)).poll_read(context, &mut buffer))?;
                self.decoder.feed(buffer.filled());
                Ok(!buffer.filled().is_empty()).into()
            })
        })
        .await
    }
}

impl Writer {
    /// Puts in a frame. The payload of a control frame has 125 bytes at most.
    pub fn put(&mut self, opcode: OpCode, payload: Bytes) {
        if self.unsent.has_room() && self.unsent.behind.is_empty() {
            self.unsent.gather(opcode, payload);
        } else {
            self.unsent.behind.push_back((opcode, payload));
        }
    }

    /// Whether everything that was put in has left.
    pub fn is_done(&self) -> bool {
        self.unsent.gathered.is_empty() && !self.unsent.unflushed
    }

    /// How many bytes have not left, about.
    pub fn waiting(&self) -> usize {
        let Unsent { gathered, large, behind, .. } = &self.unsent;
        gathered.len() + large.len() + behind.iter().map(|(_, payload)| payload.len()).sum::<usize>()
    }

    /// Writes what was put in, in one write where it is small.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unsent } = self;
        let mut stream = lock(stream);
        while !unsent.gathered.is_empty() {
            unsent.unflushed = true;
            while unsent.written < unsent.gathered.len() {
                unsent.written +=
                    ready!(write_some(&mut *stream, &unsent.gathered[unsent.written..], context))?;
            }
            while !unsent.large.is_empty() {
                let written = ready!(write_some(&mut *stream, &unsent.large, context))?;
                unsent.large.advance(written);
            }
            unsent.go_on();
        }
        if unsent.unflushed {
            ready!(Pin::new(&mut *stream).poll_flush(context))?;
            unsent.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was put in.
    pub async fn write(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_write(context)).await
    }

    /// Says that nothing more comes.
    pub async fn shut_down(&mut self) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut *lock(&self.stream)).poll_shutdown(context)).await
    }
}

impl Unsent {
    /// Whether one more frame can be put together with those that are.
    fn has_room(&self) -> bool {
        self.large.is_empty() && self.gathered.len() < GATHERED_BYTES
    }

    fn gather(&mut self, opcode: OpCode, payload: Bytes) {
        if self.gathered.capacity() == 0 {
            self.gathered = GATHERED.take();
        }
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        header
            .format(payload.len() as u64, &mut self.gathered)
            .expect("a vector takes all that is written to it");
        if payload.len() <= GATHERED_FRAME_BYTES {
            self.gathered.extend_from_slice(&payload);
        } else {
            self.large = payload;
        }
    }

    /// Goes on with the frames behind those that are written, and gives back the room where there are none.
    fn go_on(&mut self) {
        self.gathered.clear();
        self.written = 0;
        while self.has_room()
            && let Some((opcode, payload)) = self.behind.pop_front()
        {
            self.gather(opcode, payload);
        }
        if self.gathered.is_empty() {
            GATHERED.set(mem::take(&mut self.gathered));
            self.behind = VecDeque::new();
        }
    }
}

/// Writes as much as the stream takes.
fn write_some(stream: &mut dyn Stream, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(stream).poll_write(context, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}

fn lock<'a>(stream: &'a Mutex<dyn Stream>) -> MutexGuard<'a, dyn Stream + 'static> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, SinkExt, StreamExt};
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tungstenite::{
        Message,
        protocol::{
            Role,
            frame::coding::{Control, Data},
        },
    };

    use super::*;

    const LIMIT: usize = 4 * 1024 * 1024;

    const BINARY: OpCode = OpCode::Data(Data::Binary);

    /// A server's halves and a client with so many bytes between them.
    async fn pair(bytes: usize) -> (Reader, Writer, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(bytes);
        let (reader, writer) = halves(ours, LIMIT);
        (reader, writer, WebSocketStream::from_raw_socket(theirs, Role::Client, None).await)
    }

    fn messages() -> Vec<Bytes> {
        let sizes = [0, 1, 125, 126, 16_384, 16_385, 65_535, 65_536, 3, 1_000_000, 7];
        sizes.iter().zip(1..).map(|(&size, fill)| Bytes::from(vec![fill; size])).collect()
    }

    #[tokio::test]
    async fn a_client_that_takes_little_at_a_time_gets_every_message() {
        for bytes in [1_000, 100_000, 10_000_000] {
            let (_reader, mut writer, mut theirs) = pair(bytes).await;
            let sent = messages();
            sent.iter().for_each(|message| writer.put(BINARY, message.clone()));
            let taken = async {
                for expected in &sent {
                    assert_eq!(theirs.next().await.unwrap().unwrap(), Message::Binary(expected.clone()));
                }
            };
            let (done, ()) = tokio::join!(writer.write(), taken);
            done.unwrap();
            assert!(writer.is_done());
            assert_eq!((writer.unsent.gathered.capacity(), writer.unsent.behind.capacity()), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_a_client_sends_comes_whole_and_leaves_no_buffer_behind() {
        let (mut reader, mut writer, mut theirs) = pair(10_000).await;
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
        writer.put(OpCode::Control(Control::Pong), "there?".into());
        writer.write().await.unwrap();
        assert_eq!(theirs.next().await.unwrap().unwrap(), Message::Pong("there?".into()));
    }

    #[tokio::test]
    async fn what_is_given_up_in_the_middle_of_a_frame_ends_before_the_next() {
        for (size, taken) in [(100_000, 1_000), (20_000, 3), (10_000, 1_000)] {
            let (_reader, mut writer, mut theirs) = pair(taken).await;
            let large = Bytes::from(vec![7; size]);
            writer.put(BINARY, large.clone());
            assert!(writer.write().now_or_never().is_none());
            assert!(!writer.is_done());
            let closing = async {
                let code = Bytes::copy_from_slice(&1012_u16.to_be_bytes());
                writer.put(OpCode::Control(Control::Close), code);
                writer.write().await.unwrap();
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
