//! The hot paths, each with the edits of a document that somebody really typed.

use std::{array, fs::File, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::read::GzDecoder;
use quire::{
    actor::{Surroundings, Terms},
    backend::{Backend, embedded::Embedded},
    document::Document,
    guard::Guard,
    hub::Hub,
    name::DocumentName,
    outbox::Taken,
    presence::{Bounds, Presence, SessionId, State},
    protocol::{
        self, Carries, Message, Outgoing,
        dialect::{Dialect, News, Request},
        hocuspocus::Hocuspocus,
        y_sweet::YSweet,
        y_websocket::{self, YWebsocket},
    },
    record::{Authored, Record},
    session::Session,
    state_vector::StateVector,
    trace::Edit,
    update::{ClientId, Update},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{runtime::Builder, task::yield_now, time::sleep};
use yrs::{ClientID, Doc, OffsetKind, Options, Text, Transact};

use crate::{callgrind_counts, callgrind_writes};

/// How many edits of the document are typed: so few that each path takes about a second under callgrind.
const EDITS: usize = 2_000;
/// People in one document, and how many of them type at the same time, how often.
const MEMBERS: u64 = 100;
const TYPISTS: usize = 10;
const ROUNDS: usize = 10;

/// A hot path, which runs what is to be counted in [`callgrind_counts`].
pub(crate) type Walk = fn(&[Bytes]);

/// The hot paths by name of which only the thread that takes them is counted.
pub(crate) const ON_ONE_THREAD: [(&str, Walk); 8] = [
    ("guard", guard),
    ("apply", apply),
    ("join", join),
    ("fan-out", fan_out),
    ("presence", presence),
    ("y-websocket", y_websocket),
    ("hocuspocus", hocuspocus),
    ("y-sweet", y_sweet),
];

/// The hot path that goes on in another thread.
pub(crate) const APPEND: (&str, Walk) = ("append", append);

/// The first edits of the document, an update for each.
pub(crate) fn typed() -> Vec<Bytes> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/traces/sveltecomponent.json.gz");
    let trace = GzDecoder::new(File::open(path).expect("the trace"));
    let trace: Value = serde_json::from_reader(trace).expect("JSON");
    let patches =
        trace["txns"].as_array().into_iter().flatten().flat_map(|edit| edit["patches"].as_array()).flatten();
    let mut typist = Typist::new(1);
    patches.take(EDITS).map(|patch| typist.edits(patch)).collect()
}

/// Somebody who edits a text.
struct Typist {
    doc: Doc,
    text: yrs::TextRef,
}

impl Typist {
    fn new(client: ClientId) -> Self {
        let client_id = ClientID::new(client);
        let options = Options { client_id, offset_kind: OffsetKind::Utf16, ..Options::default() };
        let doc = Doc::with_options(options);
        let text = doc.get_or_insert_text("text");
        Self { doc, text }
    }

    /// Makes an edit: a position, how much is deleted there, and what is inserted.
    fn edits(&mut self, patch: &Value) -> Bytes {
        let number = |index: usize| patch[index].as_u64().expect("a number") as u32;
        let mut transaction = self.doc.transact_mut();
        self.text.remove_range(&mut transaction, number(0), number(1));
        self.text.insert(&mut transaction, number(0), patch[2].as_str().expect("text"));
        transaction.encode_update_v1().into()
    }

    fn types(&mut self, text: &str) -> Bytes {
        let mut transaction = self.doc.transact_mut();
        self.text.push(&mut transaction, text);
        transaction.encode_update_v1().into()
    }
}

/// Reading what somebody types, and letting it in.
fn guard(typed: &[Bytes]) {
    let mut guard = Guard::default();
    callgrind_counts(|| {
        for update in typed {
            let update = Update::read_from_outside(update).expect("a good update");
            black_box(guard.admit(&update).expect("a good update"));
        }
    });
}

/// The same, and taking it into the document.
fn apply(typed: &[Bytes]) {
    let mut document = Document::default();
    callgrind_counts(|| {
        for update in typed {
            assert!(document.receive(update.clone()).expect("a good update").news.is_some());
        }
    });
}

/// What is told to those who join: to those who have nothing, and to those who come back.
fn join(typed: &[Bytes]) {
    let document = Document::load(typed).expect("good updates");
    let half: StateVector = [(1, document.next_clock(1) / 2)].into_iter().collect();
    callgrind_counts(|| {
        for _ in 0..ROUNDS {
            for has in [&StateVector::default(), &half] {
                black_box(protocol::sync_step_2(&document.diff(has).expect("a sound document")));
            }
        }
    });
}

/// From what several people type at the same time to what everybody in the document has in hand, through the real actor:
/// one batch.
fn fan_out(_: &[Bytes]) {
    let folder = TempDir::new().expect("a folder");
    // A batch has a time limit, which is not made for so slow a machine as callgrind: the clock stands still.
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let backend = Arc::new(Embedded::open(folder.path()).expect("a good folder"));
    let hub = Hub::new(backend.clone(), runtime.handle().clone(), Surroundings::default());
    let handle = hub.open(&DocumentName::new("plan").expect("a good name")).expect("space");
    let mut typists: [Typist; TYPISTS] = array::from_fn(|number| Typist::new(number as u64 + 1));
    let mut members = Vec::new();
    runtime.block_on(async {
        for _ in 0..MEMBERS {
            let joined = Session::join(handle.clone(), Terms::default(), None, Arc::new(()));
            let member = joined.await.expect("the document is open");
            hears(&member).await;
            members.push(member);
        }
    });
    for _ in 0..ROUNDS {
        let updates = typists.each_mut().map(|typist| typist.types("a word "));
        callgrind_counts(|| {
            runtime.block_on(async {
                for (member, update) in members.iter().zip(updates) {
                    let edit = Message::Update(update);
                    member.receive(edit, Edit::default()).await.expect("the document is open");
                }
                for member in &members {
                    assert_eq!(hears(member).await, 1, "one batch is one frame");
                }
            });
        });
        // This happens at no certain time, on another thread, so it is not counted. The clock must move on meanwhile.
        runtime.block_on(async {
            while handle.figures().unsaved {
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
    drop(members);
    runtime.block_on(async {
        hub.shutdown().await;
        backend.close().await.expect("it closes");
    });
}

/// How many frames come for a session next. It looks again and again: where nothing is to be done, the clock moves on.
async fn hears(session: &Session) -> usize {
    let mut news = News::default();
    while !matches!(session.look(&mut news), Taken::News) {
        yield_now().await;
    }
    news.frames.len()
}

/// Everybody moves the cursor, and everybody is told.
fn presence(_: &[Bytes]) {
    let mut presence = Presence::new(Bounds { clients: 10_000, state_bytes: 64 * 1024 });
    let mut clock = 0;
    let mut everybody_moves = || {
        clock += 1;
        for member in 1..=MEMBERS {
            let cursor =
                format!(r##"{{"user":{{"name":"Ada","color":"#30bced"}},"cursor":{{"anchor":{clock}}}}}"##);
            let heard = protocol::awareness(&[State { client: member, clock, json: Some(cursor.into()) }]);
            let Ok([Message::Awareness(states)]) =
                <[_; 1]>::try_from(y_websocket::read(&heard).expect("a good frame"))
            else {
                unreachable!("it is about who is here")
            };
            let news =
                presence.receive(SessionId(member), states, Duration::ZERO).expect("it is within the bounds");
            assert_eq!(news.len(), 1);
            black_box(protocol::awareness(&news));
        }
        black_box(protocol::awareness(&presence.everybody()));
    };
    callgrind_counts(|| (0..ROUNDS).for_each(|_| everybody_moves()));
}

fn y_websocket(typed: &[Bytes]) {
    speak(YWebsocket("plan".into()), &[], typed);
}

fn hocuspocus(typed: &[Bytes]) {
    let mut dialect = Hocuspocus::default();
    dialect.joined(&"plan".into(), false);
    speak(dialect, b"\x04plan", typed);
}

fn y_sweet(typed: &[Bytes]) {
    speak(YSweet::new("plan".into()), &[], typed);
}

/// What is typed comes in frames of this dialect, behind an envelope, and goes to another client in such frames; and what
/// is saved is told.
fn speak(mut dialect: impl Dialect, envelope: &[u8], typed: &[Bytes]) {
    let frames = typed.iter().map(|update| [envelope, &protocol::update(update)].concat());
    let frames: Vec<_> = frames.collect();
    let outgoing = typed
        .iter()
        .map(|update| Outgoing { frame: protocol::update(update), carries: Carries::Edits(Vec::new()) });
    let outgoing: Vec<_> = outgoing.map(Arc::new).collect();
    callgrind_counts(|| {
        for (number, (frame, outgoing)) in frames.iter().zip(outgoing).enumerate() {
            for request in dialect.read(frame).expect("a good frame") {
                let Request::Receive { address, message } = request else { unreachable!("it is an edit") };
                dialect.receives(&address, &message);
                let mut news = News { frames: vec![outgoing.clone()], saved: number as u64 };
                let mut told = Vec::new();
                dialect.write(&address, &mut news, &mut told);
                assert!(!told.is_empty());
            }
        }
    });
}

/// What is typed by several people is put into records and appended to the log, by the thread that writes.
fn append(typed: &[Bytes]) {
    let folder = TempDir::new().expect("a folder");
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let backend = Embedded::open(folder.path()).expect("a good folder");
    let name = DocumentName::new("plan").expect("a good name");
    let users: [Arc<str>; 4] = ["ada", "bob", "eve", "zoe"].map(Into::into);
    let authored = typed.iter().zip(users.iter().cycle());
    let authored =
        authored.map(|(update, user)| Authored { update: update.clone(), user: Some(user.clone()) });
    let authored: Vec<_> = authored.collect();
    callgrind_counts(|| {
        for (number, updates) in authored.chunks(TYPISTS).enumerate() {
            let record = Record { time: number as u64, updates: updates.to_vec() };
            let appended = runtime.block_on(backend.append(&name, record.write())).expect("there is space");
            assert_eq!(appended.position.number, number as u64 + 1);
        }
    });
    // Here, since closing the database goes on in the other thread, too.
    callgrind_writes();
    runtime.block_on(backend.close()).expect("it closes");
}
