//! A connection's clients that are not in a document: what they have said before they brought a token, and who was refused.

use std::collections::HashMap;

use crate::protocol::{Message, dialect::Address};

/// Messages and bytes that may wait until a client has brought its token. What is more is dropped: whoever comes in is
/// asked for what it has.
const MAX_EARLY_MESSAGES: usize = 64;
const MAX_EARLY_BYTES: usize = 64 * 1024;

/// Under which addresses there is no session.
#[derive(Default)]
pub(super) struct Outside(HashMap<Address, Client>);

enum Client {
    /// It has not brought its token yet; what it has said, and how many bytes that is.
    Early(Vec<Message>, usize),
    /// It was refused, and is not heard before it brings a token again.
    Refused,
}

impl Outside {
    /// Whether one more may be remembered under this address where so many may be in all.
    pub(super) fn has_room(&self, address: &Address, limit: usize) -> bool {
        self.0.len() < limit || self.0.contains_key(address)
    }

    /// Whether a client was refused and has not brought a token since.
    pub(super) fn is_refused(&self, address: &Address) -> bool {
        matches!(self.0.get(address), Some(Client::Refused))
    }

    /// Keeps what a client says until it has brought its token.
    pub(super) fn keep(&mut self, address: Address, message: Message) {
        let client = self.0.entry(address).or_insert(Client::Early(Vec::new(), 0));
        if let Client::Early(messages, bytes) = client {
            *bytes += message.size();
            if messages.len() < MAX_EARLY_MESSAGES && *bytes <= MAX_EARLY_BYTES {
                messages.push(message);
            }
        }
    }

    /// A client is refused.
    pub(super) fn refuse(&mut self, address: Address) {
        self.0.insert(address, Client::Refused);
    }

    /// A client comes in, or goes for good; answers what it has said before.
    pub(super) fn take(&mut self, address: &Address) -> Vec<Message> {
        match self.0.remove(address) {
            Some(Client::Early(messages, _)) => messages,
            Some(Client::Refused) | None => Vec::new(),
        }
    }
}
