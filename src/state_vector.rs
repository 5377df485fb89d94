//! How much of each client's edits one has: Yjs's state vector, read with a limit of its own.
//!
//! Source of the format: `writeStateVector` of the npm package `yjs`.

use std::collections::HashMap;

use crate::{
    lib0::{self, Reader},
    update::{ClientId, Clock, Malformed},
};

/// The most clients that a state vector from outside may name: more than have edited any document of people,
/// and read in milliseconds.
pub const MAX_STATE_VECTOR_ENTRIES: usize = 100_000;

/// For each client the first clock that one does not have; a client that is not listed stands at 0.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StateVector(HashMap<ClientId, Clock>);

impl StateVector {
    /// Reads a state vector that came from outside.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.count()?;
        if count > MAX_STATE_VECTOR_ENTRIES {
            return Err(Malformed::Rule("a state vector names more than 100,000 clients: send an empty one"));
        }
        let mut clocks = HashMap::with_capacity(count);
        for _ in 0..count {
            clocks.insert(reader.uint()?, reader.u32()?);
        }
        if !reader.is_empty() {
            return Err(Malformed::Rule("bytes follow after the state vector's end"));
        }
        Ok(Self(clocks))
    }

    /// Its bytes, sorted by client: equal state vectors have equal bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut clocks: Vec<_> = self.iter().collect();
        clocks.sort_unstable();
        let mut bytes = Vec::with_capacity(1 + clocks.len() * 8);
        lib0::write_uint(&mut bytes, clocks.len() as u64);
        for (client, clock) in clocks {
            lib0::write_uint(&mut bytes, client);
            lib0::write_uint(&mut bytes, u64::from(clock));
        }
        bytes
    }

    /// The first clock of a client that one does not have.
    pub fn get(&self, client: ClientId) -> Clock {
        self.0.get(&client).copied().unwrap_or(0)
    }

    /// Says that of this client nothing from `clock` on is there.
    pub fn lower(&mut self, client: ClientId, clock: Clock) {
        if let Some(known) = self.0.get_mut(&client) {
            *known = clock.min(*known);
        }
    }

    /// Each client with its clock, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, Clock)> {
        self.0.iter().map(|(&client, &clock)| (client, clock))
    }
}

impl FromIterator<(ClientId, Clock)> for StateVector {
    fn from_iter<I: IntoIterator<Item = (ClientId, Clock)>>(clocks: I) -> Self {
        Self(clocks.into_iter().collect())
    }
}
