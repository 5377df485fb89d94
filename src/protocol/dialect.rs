//! What a dialect is: how one client family puts messages into frames, names documents, brings its token, and hears
//! what is saved. Each has a file beside this one and a route; nothing else knows them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Message, Outgoing, ProtocolError};
use crate::end::End;

/// Under which a client and its server speak of one stay in a document; the document's name where a connection has only
/// one.
pub type Address = Arc<str>;

/// What a frame of a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To take a message in.
    Receive {
        /// For which stay.
        address: Address,
        /// What is said.
        message: Message,
    },
    /// To come into a document, or to stay in it with this token.
    Join {
        /// For which stay.
        address: Address,
        /// The token; empty where there is none.
        token: String,
    },
    /// To leave a document.
    Leave {
        /// Which stay ends.
        address: Address,
    },
    /// Something that breaks a rule, and ends the stay.
    Refuse {
        /// For which stay.
        address: Address,
        /// Which rule.
        error: ProtocolError,
    },
    /// To hear this at once.
    Answer(Bytes),
}

/// What a session has for its client.
#[derive(Debug, Default)]
pub struct News {
    /// Frames, in their order.
    pub frames: Vec<Arc<Outgoing>>,
    /// How many of the updates and sync steps 2 that the client has sent are saved, counted from the first one on; for
    /// sessions that asked to be told.
    pub saved: u64,
}

/// How one client family speaks, on one connection.
pub trait Dialect: Send {
    /// Reads a frame from the client. An error ends the connection.
    fn read(&mut self, frame: &[u8]) -> Result<Vec<Request>, ProtocolError>;

    /// A message goes to its document now; those that brought edits are counted, as in [`News::saved`].
    fn receives(&mut self, _address: &Address, _message: &Message) {}

    /// Puts what a session has for the client into frames.
    fn write(&mut self, address: &Address, news: &mut News, frames: &mut Vec<Bytes>);

    /// A frame that says nothing: clients drop a socket on which they see no data.
    fn keep_alive(&self) -> Bytes;

    /// The name of the document that an address stands for.
    fn document<'a>(&self, address: &'a str) -> &'a str {
        address
    }

    /// The client is in the document, or stays in it with another token; what it is told first.
    fn joined(&mut self, _address: &Address, _read_only: bool) -> Option<Bytes> {
        None
    }

    /// The stay has ended; what the client is told, where the connection goes on without it.
    fn ended(&mut self, _address: &Address, _end: &End) -> Option<Bytes> {
        None
    }

    /// Asks the client for a new token, where its clients can be asked.
    fn ask_for_token(&self, _address: &Address) -> Option<Bytes> {
        None
    }
}
