//! What is said of clients: states as values, and as the bytes of an awareness message.
//!
//! Source of the format: `awareness.js` of the npm package `y-protocols`.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::{
    lib0::{self, Reader},
    update::{ClientId, Malformed},
};

/// The most clients in one message: reading it takes memory for each. Clients send back everybody that they were
/// told of, so it is more than are shown in any document of people.
const MAX_CLIENTS: usize = 100_000;

/// What is said of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whom it is about.
    pub client: ClientId,
    /// Grows with each state of this client.
    pub clock: u32,
    /// The state, JSON that is passed on as it came; `None`: the client has left.
    pub json: Option<Bytes>,
}

/// Reads what a client says of who is here.
pub fn read(bytes: &[u8]) -> Result<Vec<State>, Malformed> {
    let mut reader = Reader::new(bytes);
    let count = reader.count()?;
    if count > MAX_CLIENTS {
        return Err(Malformed::Rule("an awareness message names more than 100,000 clients"));
    }
    let mut states = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let (client, clock, json) = (reader.uint()?, reader.u32()?, reader.text()?);
        // Clients parse the states of a message one after the other: a bad one would hide those behind it.
        if serde_json::from_str::<IgnoredAny>(json).is_err() {
            return Err(Malformed::Rule("an awareness state is not JSON"));
        }
        let json = (json != "null").then(|| Bytes::copy_from_slice(json.as_bytes()));
        states.push(State { client, clock, json });
    }
    if !reader.is_empty() {
        return Err(Malformed::Rule("bytes follow after the awareness message's end"));
    }
    Ok(states)
}

/// The bytes that say this.
pub fn write(states: &[State]) -> Vec<u8> {
    let mut bytes = Vec::new();
    lib0::write_uint(&mut bytes, states.len() as u64);
    for state in states {
        lib0::write_uint(&mut bytes, state.client);
        lib0::write_uint(&mut bytes, u64::from(state.clock));
        lib0::write_bytes(&mut bytes, state.json.as_deref().unwrap_or(b"null"));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_as_they_were_written() {
        let state =
            |client, clock, json: Option<&'static str>| State { client, clock, json: json.map(Into::into) };
        let states = vec![state(10, 3, Some(r#"{"name":"é"}"#)), state(1 << 50, 0, None)];
        assert_eq!(read(&write(&states)), Ok(states));
        assert!(read(&write(&[state(1, 1, Some("{"))])).is_err());
        assert!(read(&[0xff, 0xff, 0x03]).is_err());
    }
}
