//! The y-protocols messages, which all client families speak: bytes to [`Message`], and back as frames
//! that are encoded once for everybody. The envelopes around them are the dialects beside this file.
//!
//! Source of the format: `sync.js` and `awareness.js` of the npm package `y-protocols`.

pub mod dialect;
pub mod hocuspocus;
pub mod relay;
pub mod y_sweet;
pub mod y_websocket;

use bytes::Bytes;

use crate::{
    lib0::{self, ReadError, Reader},
    presence::{self, State},
    state_vector::StateVector,
    update::{ClientId, Clock, Malformed},
};

/// What a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "This is what I have": answered with a sync step 2.
    SyncStep1(StateVector),
    /// "This is what you lack": an update.
    SyncStep2(Bytes),
    /// A change.
    Update(Bytes),
    /// Who is here, as far as the sender knows.
    Awareness(Vec<State>),
    /// "Who is here?"
    QueryAwareness,
    /// A text of the application, for the others in the document; only some dialects have it.
    Stateless(Bytes),
}

/// A frame on its way to sessions, encoded once and shared by all of them.
#[derive(Debug)]
pub struct Outgoing {
    /// The y-protocols message; of a stateless message only its text.
    pub frame: Bytes,
    /// What a session misses that does not get it.
    pub carries: Carries,
}

/// What a frame carries, as far as it can be made up for.
#[derive(Debug)]
pub enum Carries {
    /// Edits: for each client the first clock that it brings; empty for deletions only.
    Edits(Vec<(ClientId, Clock)>),
    /// States of these clients, with their clocks.
    Presence(Vec<(ClientId, u32)>),
    /// "This is what I have", which comes only once and so is never dropped.
    Question,
    /// An edit is not taken; never dropped either.
    Refusal,
    /// A text of an application, which may get lost.
    Stateless,
}

/// Why a frame is no message. The text is what the client's developer reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are no lib0 values.
    #[error("malformed message: {0}")]
    Bytes(#[from] ReadError),
    /// The message's content is not what its kind says.
    #[error("malformed message: {0}")]
    Content(#[from] Malformed),
    /// A kind of message that this protocol does not have.
    #[error("unknown message type {0}")]
    UnknownType(u64),
    /// A kind of sync message that this protocol does not have.
    #[error("unknown sync message type {0}")]
    UnknownSyncType(u64),
    /// More messages in one frame than are taken.
    #[error("a frame holds more than {0} messages")]
    TooManyMessages(usize),
    /// An address is too long.
    #[error("an address has {bytes} bytes; at most {limit} are allowed")]
    AddressTooLong {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A stateless message is too large.
    #[error("a stateless message has {bytes} bytes; at most {MAX_STATELESS_BYTES} are allowed")]
    StatelessTooLarge {
        /// How many bytes it has.
        bytes: usize,
    },
}

/// The most bytes of a stateless message: everybody in the document gets it.
pub const MAX_STATELESS_BYTES: usize = 256 * 1024;

const SYNC: u8 = 0;
const AWARENESS: u8 = 1;
const AUTH: u8 = 2;
const PERMISSION_DENIED: u8 = 0;
const STEP_1: u8 = 0;
const STEP_2: u8 = 1;
const UPDATE: u8 = 2;

impl Message {
    /// Reads one message from the front of a frame.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        match reader.uint()? {
            0 => match reader.uint()? {
                0 => Ok(Self::SyncStep1(StateVector::read(reader.bytes()?)?)),
                // Copied, because a slice of the frame would keep the connection's whole read buffer.
                1 => Ok(Self::SyncStep2(Bytes::copy_from_slice(reader.bytes()?))),
                2 => Ok(Self::Update(Bytes::copy_from_slice(reader.bytes()?))),
                other => Err(ProtocolError::UnknownSyncType(other)),
            },
            1 => Ok(Self::Awareness(presence::read(reader.bytes()?)?)),
            3 => Ok(Self::QueryAwareness),
            other => Err(ProtocolError::UnknownType(other)),
        }
    }

    /// How much memory it takes, about, for the limits on what waits.
    pub fn size(&self) -> usize {
        match self {
            Self::SyncStep2(update) | Self::Update(update) => update.len(),
            Self::Awareness(states) => states
                .iter()
                .map(|state| size_of::<State>() + state.json.as_ref().map_or(0, Bytes::len))
                .sum(),
            // A client and a clock, in a map.
            Self::SyncStep1(since) => 32 * since.iter().count(),
            Self::Stateless(text) => text.len(),
            Self::QueryAwareness => 0,
        }
    }
}

/// A frame that says what we have.
pub fn sync_step_1(state_vector: &StateVector) -> Bytes {
    frame(&[SYNC, STEP_1], &state_vector.write())
}

/// A frame that brings what the peer lacks.
pub fn sync_step_2(update: &[u8]) -> Bytes {
    frame(&[SYNC, STEP_2], update)
}

/// A frame that brings a change.
pub fn update(update: &[u8]) -> Bytes {
    frame(&[SYNC, UPDATE], update)
}

/// A frame that says who is here.
pub fn awareness(states: &[State]) -> Bytes {
    frame(&[AWARENESS], &presence::write(states))
}

/// A frame that says why something is not allowed (`auth.js` of `y-protocols`).
pub fn permission_denied(reason: &str) -> Bytes {
    frame(&[AUTH, PERMISSION_DENIED], reason.as_bytes())
}

fn frame(kind: &[u8], payload: &[u8]) -> Bytes {
    // A length takes five bytes at most, since frames stay below 4 GiB.
    let mut frame = Vec::with_capacity(kind.len() + 5 + payload.len());
    frame.extend_from_slice(kind);
    lib0::write_bytes(&mut frame, payload);
    frame.into()
}
