//! The dialect of y-websocket: a frame is one message, without an envelope. A client that asks for it hears its own
//! updates again when they are saved.
//!
//! Source: the npm packages `y-websocket`, 1.5 to 3.1, and `@y/websocket` 4.

use bytes::Bytes;

use super::{
    Carries, Message, ProtocolError,
    dialect::{Address, Dialect, News, Request},
};
use crate::lib0::Reader;

/// The most messages that are taken from one frame. Clients send one; some bundle a few.
pub const MAX_MESSAGES: usize = 16;

/// A frame that says nothing: an awareness message about nobody. The client drops a socket on which it has
/// not seen data for 30 seconds, whatever pings it saw.
pub const KEEP_ALIVE: &[u8] = &[1, 1, 0];

/// The dialect, which remembers nothing but the document's name.
#[derive(Debug)]
pub struct YWebsocket(pub Address);

impl Dialect for YWebsocket {
    fn read(&mut self, frame: &[u8]) -> Result<Vec<Request>, ProtocolError> {
        let messages = read(frame)?.into_iter();
        Ok(messages.map(|message| Request::Receive { address: self.0.clone(), message }).collect())
    }

    fn write(&mut self, _address: &Address, news: &mut News, frames: &mut Vec<Bytes>) {
        // It would log a stateless message as an error.
        let known = news.frames.drain(..).filter(|outgoing| !matches!(outgoing.carries, Carries::Stateless));
        frames.extend(known.map(|outgoing| outgoing.frame.clone()));
    }

    fn keep_alive(&self) -> Bytes {
        Bytes::from_static(KEEP_ALIVE)
    }
}

/// Reads a frame from a client.
pub fn read(frame: &[u8]) -> Result<Vec<Message>, ProtocolError> {
    let mut reader = Reader::new(frame);
    let mut messages = Vec::with_capacity(1);
    while !reader.is_empty() {
        if messages.len() == MAX_MESSAGES {
            return Err(ProtocolError::TooManyMessages(MAX_MESSAGES));
        }
        messages.push(Message::read(&mut reader)?);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;

    #[test]
    fn frames_are_read_as_the_clients_write_them() {
        assert_eq!(read(&[0, 0, 1, 0]), Ok(vec![Message::SyncStep1(Default::default())]));
        assert_eq!(
            read(&[0, 2, 2, 0, 0, 3]),
            Ok(vec![Message::Update(vec![0, 0].into()), Message::QueryAwareness])
        );
        assert_eq!(read(KEEP_ALIVE), Ok(vec![Message::Awareness(vec![])]));
        assert_eq!(read(&protocol::sync_step_2(&[0, 0])), Ok(vec![Message::SyncStep2(vec![0, 0].into())]));
    }

    #[test]
    fn what_is_no_message_says_why() {
        assert_eq!(read(&[7]), Err(ProtocolError::UnknownType(7)));
        assert_eq!(read(&[0, 9]), Err(ProtocolError::UnknownSyncType(9)));
        assert!(matches!(read(&[0, 2, 200]), Err(ProtocolError::Bytes(_))));
        assert_eq!(read(&[3; 17]), Err(ProtocolError::TooManyMessages(16)));
        assert_eq!(read(&[3; 16]).map(|messages| messages.len()), Ok(16));
    }
}
