//! The dialect of Hocuspocus: many documents on one connection, each frame behind an address; tokens come as
//! messages; each update and each asked-for sync step 2 is acknowledged.
//!
//! Source: the npm package `@hocuspocus/provider`, 2.15 to 4.8 (`HocuspocusProvider.ts`, `MessageReceiver.ts`).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{
    Carries, MAX_STATELESS_BYTES, Message, Outgoing, ProtocolError,
    dialect::{Address, Dialect, News, Request},
};
use crate::{
    end::End,
    lib0::{self, Reader},
    name::MAX_NAME_BYTES,
    state_vector::StateVector,
    update::Update,
};

/// The most bytes of an address: a document's name, and the number of a client's session behind a zero.
const MAX_ADDRESS_BYTES: usize = MAX_NAME_BYTES + 128;

/// A frame that says nothing, in all versions: a message of no type for no document.
const NOTHING: &[u8] = &[0];

// Kinds of messages, beside those of y-protocols.
const AUTH: u8 = 2;
const STATELESS: u8 = 5;
const CLOSE: u8 = 7;
const SYNC_STATUS: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

// Kinds of messages about access.
const TOKEN: u8 = 0;
const PERMISSION_DENIED: u8 = 1;
const AUTHENTICATED: u8 = 2;

/// The dialect, which remembers for each document what is not acknowledged yet.
#[derive(Debug, Default)]
pub struct Hocuspocus {
    stays: HashMap<Address, Stay>,
}

#[derive(Debug, Default)]
struct Stay {
    read_only: bool,
    /// How many updates and sync steps 2 have come, and how many of them have been dealt with.
    received: u64,
    acknowledged: u64,
    /// Of those after them, which the client does not count.
    not_counted: VecDeque<u64>,
    /// What the client had when it asked for what it lacked, until it has said what we lack. It counts that answer.
    asked_with: Option<StateVector>,
}

impl Stay {
    fn receives(&mut self, message: &Message) {
        match message {
            Message::SyncStep1(has) => {
                // The client counts anew: one for the answer to our question, and the updates from now on.
                self.acknowledged = self.received;
                self.not_counted.clear();
                self.asked_with = Some(has.clone());
            }
            Message::SyncStep2(_) => {
                self.received += 1;
                if self.asked_with.take().is_none() {
                    self.not_counted.push_back(self.received);
                }
            }
            Message::Update(update) => {
                self.received += 1;
                // What a client wrote while it was connecting waits, and comes after it has begun to count anew.
                if self.asked_with.as_ref().is_some_and(|has| is_within(update, has)) {
                    self.not_counted.push_back(self.received);
                }
            }
            Message::Awareness(_) | Message::QueryAwareness | Message::Stateless(_) => {}
        }
    }

    /// How many acknowledgements the client must get, now that so many of its edits are saved.
    fn acknowledge(&mut self, saved: u64) -> u64 {
        let through = saved.max(self.acknowledged);
        let not_counted = self.not_counted.iter().take_while(|number| **number <= through).count();
        self.not_counted.drain(..not_counted);
        let all = through - std::mem::replace(&mut self.acknowledged, through);
        all - not_counted as u64
    }
}

/// Whether who has this has all that an update adds, if it adds anything.
fn is_within(update: &[u8], has: &StateVector) -> bool {
    let Ok(update) = Update::read(update) else { return false };
    let mut ends = update
        .sections
        .iter()
        .map(|section| (section.client, update.blocks[section.blocks.end - 1].end_clock()));
    !update.sections.is_empty() && ends.all(|(client, end)| end <= has.get(client))
}

impl Dialect for Hocuspocus {
    fn read(&mut self, frame: &[u8]) -> Result<Vec<Request>, ProtocolError> {
        match frame {
            [PING] => return Ok(vec![Request::Answer(Bytes::from_static(&[PONG]))]),
            [PONG] => return Ok(Vec::new()),
            _ => {}
        }
        let mut reader = Reader::new(frame);
        let address = reader.text()?;
        if address.len() > MAX_ADDRESS_BYTES {
            return Err(ProtocolError::AddressTooLong { bytes: address.len(), limit: MAX_ADDRESS_BYTES });
        }
        let address = match self.stays.get_key_value(address) {
            Some((known, _)) => known.clone(),
            None => address.into(),
        };
        let request = read_request(address.clone(), &mut reader);
        Ok(vec![request.unwrap_or_else(|error| Request::Refuse { address, error })])
    }

    fn receives(&mut self, address: &Address, message: &Message) {
        if let Some(stay) = self.stays.get_mut(address) {
            stay.receives(message);
        }
    }

    fn write(&mut self, address: &Address, news: &mut News, frames: &mut Vec<Bytes>) {
        frames.extend(news.frames.drain(..).map(|outgoing| envelope(address, &outgoing)));
        let Some(stay) = self.stays.get_mut(address) else { return };
        let acknowledgements = stay.acknowledge(news.saved);
        if acknowledgements > 0 {
            let one = behind(address, &[SYNC_STATUS, 1]);
            frames.extend((0..acknowledgements).map(|_| one.clone()));
        }
    }

    fn keep_alive(&self) -> Bytes {
        Bytes::from_static(NOTHING)
    }

    /// What stands before the number of a client's session.
    fn document<'a>(&self, address: &'a str) -> &'a str {
        address.split_once('\0').map_or(address, |(document, _)| document)
    }

    fn joined(&mut self, address: &Address, read_only: bool) -> Option<Bytes> {
        let scope = if read_only { "readonly" } else { "read-write" };
        let before = self.stays.get(address).map(|stay| stay.read_only);
        self.stays.entry(address.clone()).or_default().read_only = read_only;
        (before != Some(read_only)).then(|| about_access(address, AUTHENTICATED, scope))
    }

    fn ended(&mut self, address: &Address, end: &End) -> Option<Bytes> {
        self.stays.remove(address);
        // Who may come back later is sent away with the whole connection, since no message says so.
        let for_good = matches!(
            end,
            End::Refused(_)
                | End::Unauthorized(_)
                | End::Forbidden(_)
                | End::DocumentFull(_)
                | End::Unreadable(_)
        );
        for_good.then(|| about_access(address, PERMISSION_DENIED, &end.reason()))
    }

    fn ask_for_token(&self, address: &Address) -> Option<Bytes> {
        Some(behind(address, &[AUTH, TOKEN]))
    }
}

fn read_request(address: Address, reader: &mut Reader<'_>) -> Result<Request, ProtocolError> {
    let kind = reader.clone().byte()?;
    match kind {
        AUTH => {
            reader.byte()?;
            match reader.byte()? {
                // Newer clients add their version.
                TOKEN => Ok(Request::Join { address, token: reader.text()?.to_owned() }),
                other => Err(ProtocolError::UnknownType(other.into())),
            }
        }
        STATELESS => {
            reader.byte()?;
            let text = reader.text()?;
            match text.len() {
                0..=MAX_STATELESS_BYTES => {
                    let message = Message::Stateless(Bytes::copy_from_slice(text.as_bytes()));
                    Ok(Request::Receive { address, message })
                }
                bytes => Err(ProtocolError::StatelessTooLarge { bytes }),
            }
        }
        CLOSE => Ok(Request::Leave { address }),
        _ => Ok(Request::Receive { address, message: Message::read(reader)? }),
    }
}

fn envelope(address: &str, outgoing: &Outgoing) -> Bytes {
    match outgoing.carries {
        Carries::Edits(_) | Carries::Presence(_) | Carries::Question => behind(address, &outgoing.frame),
        Carries::Refusal => behind(address, &[SYNC_STATUS, 0]),
        Carries::Stateless => {
            let mut text = vec![STATELESS];
            lib0::write_bytes(&mut text, &outgoing.frame);
            behind(address, &text)
        }
    }
}

fn about_access(address: &str, kind: u8, text: &str) -> Bytes {
    let mut message = vec![AUTH, kind];
    lib0::write_bytes(&mut message, text.as_bytes());
    behind(address, &message)
}

/// A frame for an address.
fn behind(address: &str, message: &[u8]) -> Bytes {
    // The length of an address takes two bytes at most.
    let mut frame = Vec::with_capacity(2 + address.len() + message.len());
    lib0::write_bytes(&mut frame, address.as_bytes());
    frame.extend_from_slice(message);
    frame.into()
}
