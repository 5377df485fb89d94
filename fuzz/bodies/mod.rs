//! What the fuzzer does with bytes: one function for each target. `tests/fuzz_corpus.rs` does the same with
//! the inputs that once found something, and with inputs from a seed.

#![allow(dead_code, unreachable_pub, reason = "each fuzz target uses its own part")]

mod choices;
mod sequence;
mod victim;
mod websocket;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use quire::{
    access::{own, tokens::Tokens},
    backend::{
        Position,
        redis::envelope::{self, Envelope, Stamp, Words},
    },
    config::{Authentication, Secret, TokenRequest},
    level::Level,
    lib0::Reader,
    name::{DocumentName, MAX_NAME_BYTES, NameError},
    presence::{self, Presence, SessionId},
    protocol::{
        self, Message,
        dialect::{Address, Dialect, News, Request},
        hocuspocus::Hocuspocus,
        relay,
        y_sweet::YSweet,
        y_websocket::{self, YWebsocket},
    },
    record::{Record, read_snapshot, write_snapshot},
    state_vector::StateVector,
    update::{Content, Update},
};
use yrs::updates::decoder::Decode;

pub use self::websocket::websocket;
use self::{choices::Choices, victim::Victim};

/// Updates of one session of real clients, in causal order, each with its length in front.
pub const SESSION: &[u8] = include_bytes!("../../tests/data/fuzz/session");

/// What is done with bytes.
pub type Body = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Body); 13] = [
    ("update", update),
    ("state_vector", state_vector),
    ("awareness", awareness),
    ("message", message),
    ("dialect", dialect),
    ("record", record),
    ("name", name),
    ("websocket", websocket),
    ("token", token),
    ("envelope", envelope),
    ("relayed", relayed),
    ("document", document),
    ("mutated", mutated),
];

/// The reader of updates alone; and yrs's, to which everything goes that ours accepts.
pub fn update(bytes: &[u8]) {
    let Ok(read) = Update::read(bytes) else { return };
    let disguised = read.disguised();
    // An error is refused; a panic or a hang is what is looked for.
    let _ = yrs::Update::decode_v1(&disguised);
    let given = Update::read(&disguised).expect("an update in disguise is an update");
    assert!(given.blocks.iter().all(|block| block.content != Content::Subdocument));
    assert_eq!(given.undisguised(), bytes, "it comes back as another update");
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
            Message::Stateless(_) => unreachable!("this dialect has none"),
        };
        assert_eq!(y_websocket::read(&frame), Ok(vec![message]));
    }
}

/// A dialect, told by the first byte, as a connection uses it: frames come, each with its length in front, and now and
/// then some of what they brought is saved.
pub fn dialect(bytes: &[u8]) {
    let Some((&which, frames)) = bytes.split_first() else { return };
    let mut dialect: Box<dyn Dialect> = match which % 3 {
        0 => Box::new(YWebsocket(Address::default())),
        1 => Box::new(Hocuspocus::default()),
        _ => Box::new(YSweet::default()),
    };
    let mut reader = Reader::new(frames);
    let mut brought = 0;
    let mut address = Address::default();
    // Where a connection has one document, it is there from the start.
    let mut joined = which % 3 != 1;
    let (mut acknowledged, mut saved) = (0, 0);
    while let Ok(frame) = reader.bytes() {
        let Ok(requests) = dialect.read(frame) else { continue };
        for request in requests {
            match request {
                Request::Join { address: joins, token } => {
                    assert!(token.len() <= frame.len() && dialect.document(&joins).len() <= joins.len());
                    // One stay, so that what is counted is of one.
                    if !joined {
                        (address, joined) = (joins, true);
                        assert!(dialect.joined(&address, false).is_some());
                    }
                }
                Request::Receive { address: of, message } if joined && of == address => {
                    brought += u64::from(matches!(message, Message::SyncStep2(_) | Message::Update(_)));
                    dialect.receives(&address, &message);
                }
                Request::Receive { .. } | Request::Leave { .. } | Request::Refuse { .. } => {}
                Request::Answer(answer) => assert!(!answer.is_empty()),
            }
        }
        let mut told = Vec::new();
        saved = saved.max(brought.saturating_sub(frame.len() as u64 % 3));
        dialect.write(&address, &mut News { frames: Vec::new(), saved }, &mut told);
        acknowledged += told.len() as u64;
        assert!(acknowledged <= brought, "more is said to be saved than came");
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

/// The check of tokens, with any text and with a good token of which a part is another: nobody gets more than the good
/// one gives.
pub fn token(bytes: &[u8]) {
    static TOKENS: LazyLock<(Tokens, String)> = LazyLock::new(|| {
        let secret = Some(Secret::new("a secret of more than thirty-two bytes".to_owned()));
        let given = Authentication { secret: secret.clone(), ..Authentication::default() };
        let tokens = Tokens::new(&given, "".as_ref(), true).expect("a secret is given");
        let request = TokenRequest {
            document: vec!["plan".to_owned()],
            user: "alice".to_owned(),
            level: Level::Write,
            ttl: Duration::from_secs(24 * 60 * 60),
            data: PathBuf::new(),
            secret_file: None,
            secret,
        };
        (tokens, own::answer(request).expect("a secret is given"))
    });
    let (tokens, good) = &*TOKENS;
    let Some((&[at, skip], text)) = bytes.split_first_chunk() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let at = usize::from(at).min(good.len());
    let rest = &good[(at + usize::from(skip)).min(good.len())..];
    for token in [text.to_owned(), format!("{}{text}{rest}", &good[..at])] {
        // Nothing has to be fetched, so nothing is waited for.
        let Poll::Ready(checked) = pin!(tokens.check(&token)).poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("a check of a token of the server's own waits");
        };
        let Ok(access) = checked else { continue };
        let level = |document| access.level(&DocumentName::new(document).expect("a name"));
        assert_eq!((access.user(), level("plan"), level("other")), (Some("alice"), Some(Level::Write), None));
    }
}

/// The door for names: as they stand in a path, and decoded.
pub fn name(bytes: &[u8]) {
    // Percent-encoded as a whole, any bytes can stand in a path.
    let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert_eq!(DocumentName::from_path(&encoded), Err(NameError::NotUtf8));
        return;
    };
    let decoded = DocumentName::new(text);
    assert_eq!(DocumentName::from_path(&encoded), decoded);
    if let Ok(name) = &decoded {
        assert_eq!(name.as_str(), text);
    }
    for name in [decoded, DocumentName::from_path(text)].into_iter().flatten() {
        assert_eq!(DocumentName::new(name.as_str()).as_ref(), Ok(&name));
        assert_eq!(name.to_string(), name.as_str());
        assert!((1..=MAX_NAME_BYTES).contains(&name.as_str().len()));
        assert!(!name.as_str().contains(char::is_control));
    }
}

/// The readers of what stands in a log and on a channel of Redis; and an envelope that the bytes choose.
pub fn envelope(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Some(read) = Envelope::read(bytes.clone()) {
        assert_eq!(Envelope::read(read.write()), Some(read));
    }
    if let Some((position, rest)) = envelope::split_message(bytes.clone()) {
        let id = position.map_or_else(String::new, |Position { epoch, number }| format!("{epoch}-{number}"));
        let again = [id.as_bytes(), b"|", &rest].concat();
        assert_eq!(envelope::split_message(again.into()), Some((position, rest)));
    }
    let mut choices = Choices::new(&bytes);
    let kind = choices.below(4);
    let mut number = || u64::from_be_bytes([(); 8].map(|()| choices.byte()));
    let stamp = Stamp { run: number(), number: number() };
    let (one, other) = (number(), number());
    let words = match kind {
        0 => Words::Record(bytes),
        1 => Words::Notice,
        2 => Words::Head(Position { epoch: one, number: other }),
        _ => Words::Told(one, bytes),
    };
    let chosen = Envelope { stamp, words };
    assert_eq!(Envelope::read(chosen.write()), Some(chosen.clone()));
    let begins_as_record = chosen.write().starts_with(&envelope::begin_record(stamp));
    assert_eq!(begins_as_record, matches!(chosen.words, Words::Record(_)));
}

/// The reader of what nodes tell each other beside the log, and how many states are told.
pub fn relayed(bytes: &[u8]) {
    let Ok(read) = relay::Relayed::read(bytes) else { return };
    assert_eq!(relay::Relayed::read(&read.write()), Ok(read.clone()));
    let relay::Relayed::Awareness(states) = read else { return };
    let mut told = Vec::new();
    for message in relay::awareness(states.clone()) {
        let bytes = message.write().len();
        let relay::Relayed::Awareness(some) = message else { panic!("{message:?} tells no states") };
        assert!(!some.is_empty() && (some.len() == 1 || bytes <= 32 * 1024), "{bytes} bytes in one message");
        told.extend(some);
    }
    assert_eq!(told, states);
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
