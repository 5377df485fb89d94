//! What nodes tell each other about a document beside its log: who is here, and whether they have the same. None
//! of it is kept, and any of it may get lost.

use bytes::Bytes;

use super::{ProtocolError, presence};
use crate::{
    lib0::{self, ReadError, Reader},
    presence::State,
};

/// The most bytes of states in one message, beside one state of any size.
const MAX_STATES_BYTES: usize = 16 * 1024;

const AWARENESS: u8 = 1;
const QUERY_AWARENESS: u8 = 3;
const STATELESS: u8 = 5;
const CHECK: u8 = 100;
const END_SESSIONS: u8 = 101;

/// What a node tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relayed {
    /// The newest states of clients that are here by the node's own sessions.
    Awareness(Vec<State>),
    /// "I have just opened it: who is here?"
    QueryAwareness,
    /// A text of an application, for everybody in the document.
    Stateless(Bytes),
    /// "An administrator ends the sessions of this user, or of everybody."
    EndSessions {
        /// Whose.
        user: Option<String>,
    },
    /// "With everything through this place of the log, and nothing more, this is its fingerprint."
    Check {
        /// The log's epoch.
        epoch: u64,
        /// The number of the last record within it.
        number: u64,
        /// The document's fingerprint.
        fingerprint: u128,
    },
}

impl Relayed {
    /// Reads what another node has told.
    pub fn read(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let (&kind, rest) = bytes.split_first().ok_or(ProtocolError::UnknownType(0))?;
        match kind {
            AWARENESS => Ok(Self::Awareness(presence::read(rest)?)),
            QUERY_AWARENESS => Ok(Self::QueryAwareness),
            STATELESS => Ok(Self::Stateless(Bytes::copy_from_slice(rest))),
            CHECK => {
                let mut reader = Reader::new(rest);
                let (epoch, number) = (reader.uint()?, reader.uint()?);
                let fingerprint = reader.bytes()?.try_into().map_err(|_| ReadError::End)?;
                Ok(Self::Check { epoch, number, fingerprint: u128::from_be_bytes(fingerprint) })
            }
            END_SESSIONS => {
                let mut reader = Reader::new(rest);
                let user = if reader.is_empty() { None } else { Some(reader.text()?.to_owned()) };
                Ok(Self::EndSessions { user })
            }
            other => Err(ProtocolError::UnknownType(other.into())),
        }
    }

    /// The bytes that say this.
    pub fn write(&self) -> Bytes {
        let mut bytes = Vec::new();
        match self {
            Self::Awareness(states) => {
                bytes.push(AWARENESS);
                bytes.extend(presence::write(states));
            }
            Self::QueryAwareness => bytes.push(QUERY_AWARENESS),
            Self::Stateless(text) => {
                bytes.push(STATELESS);
                bytes.extend_from_slice(text);
            }
            Self::EndSessions { user } => {
                bytes.push(END_SESSIONS);
                if let Some(user) = user {
                    lib0::write_bytes(&mut bytes, user.as_bytes());
                }
            }
            Self::Check { epoch, number, fingerprint } => {
                bytes.push(CHECK);
                lib0::write_uint(&mut bytes, *epoch);
                lib0::write_uint(&mut bytes, *number);
                lib0::write_bytes(&mut bytes, &fingerprint.to_be_bytes());
            }
        }
        bytes.into()
    }
}

/// Messages that tell these states, none of them large.
pub fn awareness(states: Vec<State>) -> Vec<Relayed> {
    let mut messages = Vec::new();
    let (mut some, mut bytes) = (Vec::new(), 0);
    for state in states {
        bytes += state.json.as_ref().map_or(4, Bytes::len) + 16;
        if bytes > MAX_STATES_BYTES && !some.is_empty() {
            messages.push(Relayed::Awareness(std::mem::take(&mut some)));
            bytes = 0;
        }
        some.push(state);
    }
    if !some.is_empty() {
        messages.push(Relayed::Awareness(some));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_as_it_was_written() {
        let state = State { client: 7, clock: 3, json: Some("{}".into()) };
        let check = Relayed::Check { epoch: 1 << 20, number: 5, fingerprint: u128::MAX - 9 };
        let end = |user: Option<&str>| Relayed::EndSessions { user: user.map(str::to_owned) };
        for told in
            [Relayed::Awareness(vec![state]), Relayed::QueryAwareness, check, end(None), end(Some("al"))]
        {
            assert_eq!(Relayed::read(&told.write()), Ok(told));
        }
        for bad in [&[][..], &[9], &[CHECK, 1], &[AWARENESS, 1]] {
            assert!(Relayed::read(bad).is_err());
        }
    }

    #[test]
    fn many_states_are_told_in_several_messages() {
        let state = |client| State { client, clock: 1, json: Some("x".repeat(1_000).into()) };
        let messages = awareness((0..100).map(state).collect());
        assert!(
            messages.len() >= 6 && messages.iter().all(|told| told.write().len() <= MAX_STATES_BYTES + 2_000)
        );
    }
}
