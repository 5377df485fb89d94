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
                | End::Deleted
                | End::Recreated
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol;

    const HELLO: &[u8] = b"\x01\x01\x07\x00\x04\x01\x01t\x05hello\x00";

    fn stay() -> (Hocuspocus, Address) {
        let (mut dialect, address) = (Hocuspocus::default(), Address::from("d"));
        assert!(dialect.joined(&address, false).is_some());
        (dialect, address)
    }

    fn acknowledged(dialect: &mut Hocuspocus, address: &Address, saved: u64) -> usize {
        let (mut news, mut frames) = (News { saved, ..News::default() }, Vec::new());
        dialect.write(address, &mut news, &mut frames);
        assert!(frames.iter().all(|frame| **frame == *b"\x01d\x08\x01"));
        frames.len()
    }

    fn asks(has: &[(u64, u32)]) -> Message {
        Message::SyncStep1(has.iter().copied().collect())
    }

    #[test]
    fn frames_are_read_as_the_clients_write_them() {
        let (mut dialect, address) = stay();
        let token = Request::Join { address: address.clone(), token: "tok".to_owned() };
        assert_eq!(dialect.read(b"\x01d\x02\x00\x03tok\x054.8.0"), Ok(vec![token.clone()]));
        assert_eq!(dialect.read(b"\x01d\x02\x00\x03tok"), Ok(vec![token]));
        let receive = |message| Ok(vec![Request::Receive { address: address.clone(), message }]);
        assert_eq!(dialect.read(b"\x01d\x00\x00\x01\x00"), receive(asks(&[])));
        assert_eq!(dialect.read(b"\x01d\x00\x02\x02\0\0"), receive(Message::Update(vec![0, 0].into())));
        assert_eq!(dialect.read(b"\x01d\x05\x02hi"), receive(Message::Stateless("hi".into())));
        assert_eq!(dialect.read(b"\x01d\x07"), Ok(vec![Request::Leave { address: address.clone() }]));
        assert_eq!(dialect.read(b"\x09"), Ok(vec![Request::Answer(vec![10].into())]));
        assert_eq!(dialect.read(b"\x0a"), Ok(Vec::new()));
        assert_eq!((dialect.document("d\0session"), dialect.document("d")), ("d", "d"));
    }

    #[test]
    fn what_is_no_message_ends_only_its_own_stay() {
        let (mut dialect, address) = stay();
        for (frame, error) in [
            (&b"\x01d\x06\x01x"[..], ProtocolError::UnknownType(6)),
            (b"\x01d\x02\x01\x01x", ProtocolError::UnknownType(1)),
            (b"\x01d", lib0::ReadError::End.into()),
        ] {
            assert_eq!(dialect.read(frame), Ok(vec![Request::Refuse { address: address.clone(), error }]));
        }
        // Where not even the document is known, nobody can be told.
        assert!(dialect.read(b"").is_err() && dialect.read(b"\x05d").is_err());
        let long = [&[0xff, 0x7f][..], &[b'x'; 16_383]].concat();
        assert!(matches!(dialect.read(&long), Err(ProtocolError::AddressTooLong { bytes: 16_383, .. })));
        let mut large = b"\x01d\x05".to_vec();
        lib0::write_bytes(&mut large, &[b'x'; MAX_STATELESS_BYTES + 1]);
        let error = ProtocolError::StatelessTooLarge { bytes: MAX_STATELESS_BYTES + 1 };
        assert_eq!(dialect.read(&large), Ok(vec![Request::Refuse { address, error }]));
    }

    #[test]
    fn each_update_and_the_answer_to_the_greeting_are_acknowledged_once() {
        let (mut dialect, address) = stay();
        for message in
            [asks(&[]), Message::SyncStep2(vec![0, 0].into()), Message::Update(HELLO.into()), asks(&[])]
        {
            assert_eq!(acknowledged(&mut dialect, &address, 0), 0);
            dialect.receives(&address, &message);
        }
        // It has begun to count anew, so what came before does not count any more.
        assert_eq!(acknowledged(&mut dialect, &address, 2), 0);
        dialect.receives(&address, &Message::SyncStep2(HELLO.into()));
        dialect.receives(&address, &Message::Update(HELLO.into()));
        // An answer that we asked for by ourselves.
        dialect.receives(&address, &Message::SyncStep2(HELLO.into()));
        dialect.receives(&address, &Message::Update(HELLO.into()));
        assert_eq!(acknowledged(&mut dialect, &address, 3), 1);
        assert_eq!(acknowledged(&mut dialect, &address, 3), 0);
        assert_eq!(acknowledged(&mut dialect, &address, 6), 2);
    }

    #[test]
    fn an_update_from_before_the_client_began_to_count_is_not_acknowledged() {
        let (mut dialect, address) = stay();
        dialect.receives(&address, &asks(&[(7, 5)]));
        dialect.receives(&address, &Message::Update(HELLO.into()));
        // A deletion says of no time when it was made.
        dialect.receives(&address, &Message::Update(b"\x00\x01\x07\x01\x00\x01"[..].into()));
        dialect.receives(&address, &Message::SyncStep2(HELLO.into()));
        assert_eq!(acknowledged(&mut dialect, &address, 3), 2);
        dialect.receives(&address, &Message::Update(HELLO.into()));
        assert_eq!(acknowledged(&mut dialect, &address, 4), 1);
    }

    #[test]
    fn the_client_hears_of_its_access_and_of_each_refused_edit() {
        let (mut dialect, address) = (Hocuspocus::default(), Address::from("d"));
        assert_eq!(dialect.joined(&address, true).unwrap(), b"\x01d\x02\x02\x08readonly"[..]);
        assert_eq!(dialect.joined(&address, true), None);
        assert_eq!(dialect.joined(&address, false).unwrap(), b"\x01d\x02\x02\x0aread-write"[..]);
        let outgoing = |frame: Bytes, carries| Arc::new(Outgoing { frame, carries });
        let mut news = News {
            frames: vec![
                outgoing(protocol::update(HELLO), Carries::Edits(Vec::new())),
                outgoing(protocol::permission_denied("no"), Carries::Refusal),
                outgoing("hi".into(), Carries::Stateless),
            ],
            saved: 0,
        };
        let mut frames = Vec::new();
        dialect.write(&address, &mut news, &mut frames);
        assert_eq!(frames[0], [b"\x01d\x00\x02\x0f", HELLO].concat());
        assert_eq!(frames[1..], [&b"\x01d\x08\x00"[..], b"\x01d\x05\x02hi"]);
        let ended = dialect.ended(&address, &End::Forbidden("nope".to_owned()));
        assert_eq!(ended.unwrap(), b"\x01d\x02\x01\x04nope"[..]);
        assert_eq!(dialect.ended(&address, &End::Stopping), None);
    }
}
