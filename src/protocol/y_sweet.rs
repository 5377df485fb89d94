//! The dialect of Y-Sweet: y-websocket's frames, and a message with which a client asks which version of its own is
//! saved. It numbers its versions by itself.
//!
//! Source: the npm package `@y-sweet/client`, 0.9 (`provider.ts`).

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Carries, Message, ProtocolError,
    dialect::{Address, Dialect, News, Request},
    y_websocket::KEEP_ALIVE,
};
use crate::lib0::{self, Reader};

const QUERY_AWARENESS: u8 = 3;
const SYNC_STATUS: u8 = 102;

/// The most versions of which it is remembered what they wait for; where there are more, the last one waits longer.
const MAX_VERSIONS: usize = 256;

/// The dialect, which remembers what the client's versions wait for.
#[derive(Debug, Default)]
pub struct YSweet {
    address: Address,
    /// How many updates and sync steps 2 have come, and how many of them are saved.
    received: u64,
    saved: u64,
    /// Versions, and how many of those must be saved for each.
    versions: VecDeque<(u64, u64)>,
    /// The newest version that is saved.
    saved_version: Option<u64>,
}

impl YSweet {
    /// A client that comes to this document.
    pub fn new(address: Address) -> Self {
        Self { address, ..Self::default() }
    }

    /// The client is at this version now; what it is told at once.
    fn note(&mut self, version: u64) -> Bytes {
        // Before it has said what we lack, nothing is known of what it has.
        let needs = self.received.max(1);
        if self.versions.back().is_some_and(|(before, _)| *before == needs)
            || self.versions.len() == MAX_VERSIONS
        {
            self.versions.pop_back();
        }
        self.versions.push_back((needs, version));
        self.find_saved();
        match self.saved_version {
            Some(version) => sync_status(version),
            // It must hear something within three seconds.
            None => self.keep_alive(),
        }
    }

    fn find_saved(&mut self) {
        while let Some((_, version)) = self.versions.pop_front_if(|(needs, _)| *needs <= self.saved) {
            self.saved_version = Some(version);
        }
    }
}

impl Dialect for YSweet {
    fn read(&mut self, frame: &[u8]) -> Result<Vec<Request>, ProtocolError> {
        let mut reader = Reader::new(frame);
        let request = match reader.clone().byte()? {
            SYNC_STATUS => {
                reader.byte()?;
                let version = Reader::new(reader.bytes()?).uint()?;
                Request::Answer(self.note(version))
            }
            // Its answer to this message has its kind, too, and states behind it.
            QUERY_AWARENESS => {
                Request::Receive { address: self.address.clone(), message: Message::QueryAwareness }
            }
            _ => Request::Receive { address: self.address.clone(), message: Message::read(&mut reader)? },
        };
        Ok(vec![request])
    }

    fn receives(&mut self, _address: &Address, message: &Message) {
        if let Message::SyncStep2(_) | Message::Update(_) = message {
            self.received += 1;
        }
    }

    fn write(&mut self, _address: &Address, news: &mut News, frames: &mut Vec<Bytes>) {
        // It takes y-protocols' notices for nothing, and stateless messages for errors.
        let known = news.frames.drain(..).filter(|outgoing| !matches!(outgoing.carries, Carries::Stateless));
        frames.extend(known.map(|outgoing| outgoing.frame.clone()));
        let before = self.saved_version;
        self.saved = news.saved;
        self.find_saved();
        if let Some(version) = self.saved_version
            && before != self.saved_version
        {
            frames.push(sync_status(version));
        }
    }

    fn keep_alive(&self) -> Bytes {
        Bytes::from_static(KEEP_ALIVE)
    }
}

fn sync_status(version: u64) -> Bytes {
    let (mut number, mut frame) = (Vec::new(), vec![SYNC_STATUS]);
    lib0::write_uint(&mut number, version);
    lib0::write_bytes(&mut frame, &number);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(dialect: &mut YSweet, version: u8) -> Bytes {
        match dialect.read(&[102, 1, version]).unwrap().remove(0) {
            Request::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn told(dialect: &mut YSweet, saved: u64) -> Vec<Bytes> {
        let (mut news, mut frames) = (News { saved, ..News::default() }, Vec::new());
        dialect.write(&Address::default(), &mut news, &mut frames);
        frames
    }

    #[test]
    fn a_version_is_told_when_everything_before_it_is_saved() {
        let mut dialect = YSweet::default();
        let update = Message::Update(vec![0, 0].into());
        // Nothing is known of what it has written offline.
        assert_eq!(asks(&mut dialect, 0), KEEP_ALIVE);
        dialect.receives(&Address::default(), &Message::SyncStep2(vec![0, 0].into()));
        assert_eq!(asks(&mut dialect, 0), KEEP_ALIVE);
        assert_eq!(told(&mut dialect, 1), [&[102, 1, 0][..]]);
        dialect.receives(&Address::default(), &update);
        assert_eq!(asks(&mut dialect, 1), [102, 1, 0][..]);
        dialect.receives(&Address::default(), &update);
        assert_eq!(asks(&mut dialect, 2), [102, 1, 0][..]);
        assert_eq!(told(&mut dialect, 2), [&[102, 1, 1][..]]);
        assert!(told(&mut dialect, 2).is_empty());
        assert_eq!(told(&mut dialect, 3), [&[102, 1, 2][..]]);
        assert_eq!(asks(&mut dialect, 2), [102, 1, 2][..]);
    }

    #[test]
    fn what_waits_is_bounded_and_never_told_too_early() {
        let mut dialect = YSweet::default();
        for version in 0..=255 {
            dialect.receives(&Address::default(), &Message::Update(vec![0, 0].into()));
            for _ in 0..3 {
                asks(&mut dialect, version / 2);
            }
        }
        assert_eq!(dialect.versions.len(), MAX_VERSIONS);
        assert_eq!(told(&mut dialect, 255), [&[102, 1, 127][..]]);
        assert!(dialect.read(&[102, 1]).is_err() && dialect.read(&[102, 0]).is_err());
        // Its answer to a question has the question's kind.
        assert_eq!(dialect.read(&[3, 9, 9, 9]).unwrap().len(), 1);
    }
}
