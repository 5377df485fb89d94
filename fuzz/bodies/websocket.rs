//! Bytes of a client as WebSocket frames: whatever tungstenite makes of them, the server's decoder must make of them, too,
//! wherever they are cut.

use std::io::{self, Cursor, Read, Write};

use quire::websocket::{Decoder, Frame};
use tungstenite::{
    Error, Message,
    error::ProtocolError,
    protocol::{Role, WebSocketConfig},
};

/// The most bytes of a message: few, so that the limit is met.
const LIMIT: usize = 600;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Binary(Vec<u8>),
    Text(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// Too large, or against a rule.
    Broken,
}

/// How it ends for the library.
#[derive(PartialEq, Eq)]
enum Ending {
    /// With a close frame, or broken.
    Over,
    /// With the last of the bytes.
    Open,
    /// With bad text, at which the server does not look.
    BadText,
}

/// The first byte says into how large pieces the others are cut.
pub fn websocket(bytes: &[u8]) {
    let Some((&cut, wire)) = bytes.split_first() else { return };
    let ours = ours(wire, usize::from(cut) + 1);
    let (theirs, ending) = theirs(wire);
    match (ending, ours.last()) {
        (Ending::BadText, _) => assert!(ours.starts_with(&theirs), "{ours:?} {theirs:?}"),
        // The library waits for all of a frame whose header is against a rule.
        (Ending::Open, Some(Said::Broken)) => assert_eq!(ours[..ours.len() - 1], theirs),
        // It tells of a code that nobody may send as of this one.
        (Ending::Over, Some(Said::Broken)) if theirs.ends_with(&[Said::Close(Some(1002))]) => {
            assert_eq!(ours[..ours.len() - 1], theirs[..theirs.len() - 1]);
        }
        (Ending::Open | Ending::Over, _) => assert_eq!(ours, theirs),
    }
}

fn ours(wire: &[u8], cut: usize) -> Vec<Said> {
    let mut decoder = Decoder::new(LIMIT);
    let mut said = Vec::new();
    for piece in wire.chunks(cut) {
        decoder.feed(piece);
        loop {
            said.push(match decoder.frame() {
                Ok(None) => break,
                Ok(Some(Frame::Part)) => continue,
                Ok(Some(Frame::Binary(bytes))) => Said::Binary(bytes.to_vec()),
                Ok(Some(Frame::Text(text))) => Said::Text(text.to_vec()),
                Ok(Some(Frame::Ping(bytes))) => Said::Ping(bytes.to_vec()),
                Ok(Some(Frame::Pong(bytes))) => Said::Pong(bytes.to_vec()),
                Ok(Some(Frame::Close(code))) => {
                    assert_eq!(decoder.closed(), Some(code));
                    said.push(Said::Close(code));
                    return said;
                }
                Err(broken) => {
                    assert_eq!(decoder.frame(), Err(broken));
                    assert_eq!(decoder.closed(), None);
                    said.push(Said::Broken);
                    return said;
                }
            });
        }
    }
    said
}

fn theirs(wire: &[u8]) -> (Vec<Said>, Ending) {
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut socket =
        tungstenite::WebSocket::from_raw_socket(Given(Cursor::new(wire)), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Message::Text(text)) => Said::Text(text.as_str().as_bytes().to_vec()),
            Ok(Message::Ping(bytes)) => Said::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Said::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                said.push(Said::Close(close.map(|close| close.code.into())));
                return (said, Ending::Over);
            }
            Ok(Message::Frame(_)) => unreachable!("it is never read"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (said, Ending::Open),
            Err(Error::Utf8(_)) => return (said, Ending::BadText),
            Err(_) => {
                said.push(Said::Broken);
                return (said, Ending::Over);
            }
        });
    }
}

/// A client that has said all that it says, and takes everything.
struct Given<'a>(Cursor<&'a [u8]>);

impl Read for Given<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Given<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
