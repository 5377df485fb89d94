//! What the fuzzer does with bytes: one function for each target. `tests/fuzz_corpus.rs` does the same with
//! the inputs that once found something, and with inputs from a seed.

#![allow(dead_code, unreachable_pub, reason = "each fuzz target uses its own part")]

mod choices;
mod sequence;
mod victim;

use std::collections::BTreeSet;

use bytes::Bytes;
use quire::{
    lib0::Reader,
    presence::{self, Presence, SessionId},
    protocol::{self, Message, y_websocket},
    record::{Record, read_snapshot, write_snapshot},
    state_vector::StateVector,
    update::Update,
};
use yrs::updates::decoder::Decode;

use self::victim::Victim;

/// Updates of one session of real clients, in causal order, each with its length in front.
pub const SESSION: &[u8] = include_bytes!("../../tests/data/fuzz/session");

/// What is done with bytes.
pub type Body = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Body); 7] = [
    ("update", update),
    ("state_vector", state_vector),
    ("awareness", awareness),
    ("message", message),
    ("record", record),
    ("document", document),
    ("mutated", mutated),
];

/// The reader of updates alone; and yrs's, to which everything goes that ours accepts.
pub fn update(bytes: &[u8]) {
    let Ok(read) = Update::read(bytes) else { return };
    // An error is refused; a panic or a hang is what is looked for.
    let _ = yrs::Update::decode_v1(bytes);
    let all: Vec<_> = read.sections.iter().map(|section| section.blocks.clone()).collect();
    let Some(copy) = read.part(&all, &read.deletes, &BTreeSet::new()) else { return };
    let copy = Update::read(&copy).expect("a part of an update is an update");
    assert_eq!(copy.deletes, read.deletes);
    let blocks = |update: &Update<'_>| -> Vec<_> {
        let blocks = update.blocks.iter();
        blocks.map(|block| format!("{:?}", (block.clock, block.len, block.content))).collect()
    };
    assert_eq!(blocks(&copy), blocks(&read));
}

/// The reader of state vectors.
pub fn state_vector(bytes: &[u8]) {
    let Ok(read) = StateVector::read(bytes) else { return };
    assert_eq!(StateVector::read(&read.write()), Ok(read));
}

/// The reader of awareness messages, and what two sessions make of what was read.
pub fn awareness(bytes: &[u8]) {
    let Ok(states) = presence::read(bytes) else { return };
    assert_eq!(presence::read(&presence::write(&states)), Ok(states.clone()));
    let mut presence = Presence::new(presence::Bounds { clients: 10_000, state_bytes: 64 * 1024 });
    let seconds = core::time::Duration::from_secs;
    for (second, half) in states.chunks(states.len().div_ceil(2).max(1)).enumerate() {
        for session in [SessionId(1), SessionId(2)] {
            let Ok(news) = presence.receive(session, half.to_vec(), seconds(second as u64)) else { return };
            assert!(news.len() <= half.len());
        }
    }
    assert!(presence.everybody().len() <= states.len());
    presence.remove(SessionId(1), seconds(2));
    presence.expire(seconds(60));
    assert_eq!(presence.everybody(), []);
    presence.expire(seconds(120));
    assert!(presence.is_empty());
}

/// The reader of y-websocket frames.
pub fn message(bytes: &[u8]) {
    let Ok(messages) = y_websocket::read(bytes) else { return };
    for message in messages {
        let frame = match &message {
            Message::SyncStep1(state_vector) => protocol::sync_step_1(state_vector),
            Message::SyncStep2(update) => protocol::sync_step_2(update),
            Message::Update(update) => protocol::update(update),
            Message::Awareness(states) => protocol::awareness(states),
            Message::QueryAwareness => Bytes::from_static(&[3]),
        };
        assert_eq!(y_websocket::read(&frame), Ok(vec![message]));
    }
}

/// The readers of what is stored.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = Record::read(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(Record::read(&record.write()), Ok(record));
    }
    if let Ok(update) = read_snapshot(bytes) {
        let written = write_snapshot(&update).expect("memory takes everything");
        assert_eq!(read_snapshot(&written), Ok(update));
    }
}

/// Sequences of updates that are nearly right, into one document: the bytes choose what is in them.
pub fn document(bytes: &[u8]) {
    sequence::run(bytes);
}

/// Updates, each with its length in front: into an empty document, and into one that has content already.
pub fn mutated(bytes: &[u8]) {
    let updates = split(bytes);
    for mut victim in [Victim::default(), Victim::filled()] {
        for update in &updates {
            victim.receives(update);
        }
        victim.is_sound();
    }
}

/// The updates of the session that [`SESSION`] holds, or of what was made of it.
pub fn split(bytes: &[u8]) -> Vec<Bytes> {
    let mut reader = Reader::new(bytes);
    let mut updates = Vec::new();
    while let Ok(update) = reader.bytes()
        && updates.len() < 100
    {
        updates.push(Bytes::copy_from_slice(update));
    }
    updates
}
