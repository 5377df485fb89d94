//! Bytes of a client to frames, without any I/O. It holds what has come of a frame that is not whole, and the parts of a
//! message that is not.

use std::{io::Cursor, ops::Range};

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message of bytes.
    Binary(&'a [u8]),
    /// A whole message of text; whether it is UTF-8 is not looked at.
    Text(&'a [u8]),
    /// A part of a message.
    Part,
    /// "Are you there?", to be answered with the same bytes.
    Ping(&'a [u8]),
    /// The answer to that, or a sign of life.
    Pong(&'a [u8]),
    /// The client ends the connection, with this code.
    Close(Option<u16>),
}

/// Why there is no next frame, and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// What came is not what RFC 6455 allows.
    #[error("not a WebSocket frame of a client: {0} (RFC 6455)")]
    Rule(&'static str),
    /// A message has more bytes than it may have.
    #[error("a message is larger than {0} bytes")]
    TooLarge(usize),
}

/// Bytes in, frames out.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// What has come and is not read, from `read` on.
    input: Vec<u8>,
    read: usize,
    /// The message of which parts have come: its kind, and they.
    parts: Option<(Data, Vec<u8>)>,
    /// The last message that came in parts; lent to who reads.
    whole: Vec<u8>,
    /// How it has ended: with a close frame, or broken. What comes then means nothing.
    over: Option<Result<Option<u16>, Broken>>,
}

/// A frame all of which has come.
struct Found {
    header: FrameHeader,
    mask: [u8; 4],
    /// Where its payload is in the input.
    payload: Range<usize>,
}

impl Decoder {
    /// A decoder for messages of so many bytes at most.
    pub fn new(limit: usize) -> Self {
        Self { limit, input: Vec::new(), read: 0, parts: None, whole: Vec::new(), over: None }
    }

    /// Takes in what has come.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.over.is_none() {
            self.input.drain(..self.read);
            self.read = 0;
            self.input.extend_from_slice(bytes);
        }
    }

    /// How many bytes have come of messages that are not whole.
    pub fn held(&self) -> usize {
        self.input.len() - self.read + self.parts.as_ref().map_or(0, |(_, parts)| parts.len())
    }

    /// How many bytes of memory it takes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.input.capacity()
            + self.whole.capacity()
            + self.parts.as_ref().map_or(0, |(_, parts)| parts.capacity())
    }

    /// The client's close frame, once it was read: its code, if it has one.
    pub fn closed(&self) -> Option<Option<u16>> {
        self.over.and_then(Result::ok)
    }

    /// The next frame, if it is whole.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, Broken> {
        self.whole = Vec::new();
        if self.over.is_none() {
            match self.find() {
                Ok(Some(Found { header, mask, payload })) => {
                    self.read = payload.end;
                    unmask(&mut self.input[payload.clone()], mask);
                    match header.opcode {
                        OpCode::Control(Control::Close) => self.over = Some(code(&self.input[payload])),
                        _ => return Ok(Some(self.take(&header, payload))),
                    }
                }
                Ok(None) => {
                    if self.read == self.input.len() {
                        (self.input, self.read) = (Vec::new(), 0);
                    }
                    return Ok(None);
                }
                Err(broken) => self.over = Some(Err(broken)),
            }
            (self.input, self.read, self.parts) = (Vec::new(), 0, None);
        }
        self.over.transpose().map(|code| code.map(Frame::Close))
    }

    /// The next frame, if all of it has come.
    fn find(&self) -> Result<Option<Found>, Broken> {
        let mut input = Cursor::new(&self.input[self.read..]);
        let parsed = FrameHeader::parse(&mut input).map_err(|_| Broken::Rule("an unknown opcode"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Broken::Rule("a reserved bit is set"));
        }
        let mask = header.mask.ok_or(Broken::Rule("it is not masked"))?;
        let limit = match (header.opcode, &self.parts) {
            (OpCode::Control(_), _) if !header.is_final => {
                return Err(Broken::Rule("a control frame in parts"));
            }
            (OpCode::Control(_), _) if length > 125 => {
                return Err(Broken::Rule("a control frame of over 125 bytes"));
            }
            (OpCode::Data(Data::Continue), None) => return Err(Broken::Rule("it goes on with nothing")),
            (OpCode::Data(Data::Text | Data::Binary), Some(_)) => {
                return Err(Broken::Rule("a message within a message"));
            }
            (OpCode::Control(_), _) => 125,
            (OpCode::Data(_), Some((_, parts))) => self.limit - parts.len(),
            (OpCode::Data(_), None) => self.limit,
        };
        if length > limit as u64 {
            return Err(Broken::TooLarge(self.limit));
        }
        let start = self.read + input.position() as usize;
        // Not the other way round: without a limit, a length may be as large as numbers are.
        if length > (self.input.len() - start) as u64 {
            return Ok(None);
        }
        Ok(Some(Found { header, mask, payload: start..start + length as usize }))
    }

    /// Takes a frame of which all has come.
    fn take(&mut self, header: &FrameHeader, payload: Range<usize>) -> Frame<'_> {
        let payload = &self.input[payload];
        let kind = match header.opcode {
            OpCode::Control(Control::Ping) => return Frame::Ping(payload),
            OpCode::Control(_) => return Frame::Pong(payload),
            OpCode::Data(kind) => kind,
        };
        let (kind, message) = match self.parts.take() {
            None if header.is_final => (kind, payload),
            before => {
                let (kind, mut parts) = before.unwrap_or((kind, Vec::new()));
                parts.extend_from_slice(payload);
                if !header.is_final {
                    self.parts = Some((kind, parts));
                    return Frame::Part;
                }
                self.whole = parts;
                (kind, &*self.whole)
            }
        };
        match kind {
            Data::Text => Frame::Text(message),
            _ => Frame::Binary(message),
        }
    }
}

/// The code of a close frame.
fn code(payload: &[u8]) -> Result<Option<u16>, Broken> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Broken::Rule("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Broken::Rule("a close code that nobody may send"));
    }
    std::str::from_utf8(reason).map_err(|_| Broken::Rule("a close reason that is not UTF-8"))?;
    Ok(Some(code))
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let key = u32::from_ne_bytes(mask);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}
