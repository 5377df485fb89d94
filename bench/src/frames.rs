//! WebSocket frames, as cheap as they can be: the mask of all zeros that the generator uses changes nothing, so nobody
//! needs to apply it.

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The client's half of the handshake's proof, and the server's: the example in RFC 6455.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame at the front of what was received.
pub(crate) struct Frame<'a> {
    pub kind: u8,
    pub is_final: bool,
    pub payload: &'a [u8],
    /// How many bytes it took with its head.
    pub length: usize,
}

/// The first frame, if all of it is there.
pub(crate) fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let [first, second, ..] = *bytes else { return None };
    let (payload, head) = match second & 0x7f {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (short as usize, 2),
    };
    let head = if second & MASKED == 0 { head } else { head + 4 };
    let payload = bytes.get(head..head + payload)?;
    Some(Frame { kind: first & 0x0f, is_final: first & FINAL != 0, payload, length: head + payload.len() })
}

/// Appends a client's frame.
pub(crate) fn write_masked(to: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    write_head(to, kind, payload.len(), MASKED);
    to.extend([0; 4]);
    to.extend_from_slice(payload);
}

/// Appends a server's frame.
pub(crate) fn write(to: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    write_head(to, kind, payload.len(), 0);
    to.extend_from_slice(payload);
}

fn write_head(to: &mut Vec<u8>, kind: u8, length: usize, mask: u8) {
    to.push(kind | FINAL);
    match length {
        ..126 => to.push(mask | length as u8),
        126..=0xffff => {
            to.push(mask | 126);
            to.extend((length as u16).to_be_bytes());
        }
        _ => {
            to.push(mask | 127);
            to.extend((length as u64).to_be_bytes());
        }
    }
}
