//! What a client says and hears in each of the two protocols. Both speak of the same things; Hocuspocus puts the
//! document's name before each of them, asks for a token, and tells its clients what is saved.

use clap::ValueEnum;

use crate::{
    lib0::{Reader, write_bytes, write_uint},
    update,
};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    YWebsocket,
    Hocuspocus,
}

const SYNC: u64 = 0;
const PRESENCE: u64 = 1;
const AUTH: u64 = 2;
const SAVED: u64 = 8;

const ASK: u64 = 0;
const WHOLE: u64 = 1;
const UPDATE: u64 = 2;

/// What a client hears.
pub(crate) enum Event<'a> {
    /// The server asks for what it does not have.
    Ask,
    /// The document, as an update: the client has joined.
    Whole(&'a [u8]),
    Update(&'a [u8]),
    Presence(&'a [u8]),
    /// The oldest update that was sent and not answered so far is taken.
    Saved,
}

impl Dialect {
    /// What a client says first: that it has nothing.
    pub(crate) fn greeting(self, document: &str) -> Vec<Vec<u8>> {
        let ask = self.message(document, SYNC, |to| to.extend([ASK as u8, 1, 0]));
        match self {
            Self::YWebsocket => vec![ask],
            Self::Hocuspocus => vec![self.message(document, AUTH, |to| to.extend([0, 0])), ask],
        }
    }

    /// The answer to `Event::Ask` of a client that has nothing.
    pub(crate) fn nothing(self, document: &str) -> Vec<u8> {
        self.sync(document, WHOLE, update::NOTHING)
    }

    pub(crate) fn update(self, document: &str, update: &[u8]) -> Vec<u8> {
        self.sync(document, UPDATE, update)
    }

    /// A client's state for the others to see.
    pub(crate) fn presence(self, document: &str, client: u64, clock: u64, state: &str) -> Vec<u8> {
        let mut states = vec![1];
        write_uint(&mut states, client);
        write_uint(&mut states, clock);
        write_bytes(&mut states, state.as_bytes());
        self.message(document, PRESENCE, |to| write_bytes(to, &states))
    }

    fn sync(self, document: &str, kind: u64, update: &[u8]) -> Vec<u8> {
        self.message(document, SYNC, |to| {
            write_uint(to, kind);
            write_bytes(to, update);
        })
    }

    fn message(self, document: &str, kind: u64, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut message = Vec::with_capacity(64);
        if self == Self::Hocuspocus {
            write_bytes(&mut message, document.as_bytes());
        }
        write_uint(&mut message, kind);
        body(&mut message);
        message
    }

    /// Calls with everything in a frame that matters here; `None` if it cannot be read.
    pub(crate) fn read<'a>(self, frame: &'a [u8], mut each: impl FnMut(Event<'a>)) -> Option<()> {
        let mut reader = Reader(frame);
        if self == Self::Hocuspocus && reader.bytes()?.is_empty() {
            // Keeps the connection alive, and says nothing.
            return Some(());
        }
        // Newer servers of y-websocket's put several messages into a frame.
        while !reader.0.is_empty() {
            match reader.uint()? {
                SYNC => {
                    let kind = reader.uint()?;
                    let body = reader.bytes()?;
                    each(match kind {
                        ASK => Event::Ask,
                        WHOLE => Event::Whole(body),
                        UPDATE => Event::Update(body),
                        _ => return None,
                    });
                }
                PRESENCE => each(Event::Presence(reader.bytes()?)),
                SAVED => match reader.uint()? {
                    1 => each(Event::Saved),
                    _ => return None,
                },
                // Nothing that is measured.
                _ => return Some(()),
            }
        }
        Some(())
    }
}

/// Calls with each client and clock in a presence message; `None` if it cannot be read.
pub(crate) fn presences(message: &[u8], mut each: impl FnMut(u64, u64)) -> Option<()> {
    let mut reader = Reader(message);
    for _ in 0..reader.uint()? {
        let (client, clock) = (reader.uint()?, reader.uint()?);
        reader.bytes()?;
        each(client, clock);
    }
    Some(())
}
