//! Honest people are served, all of them: what thousands of random sessions of the published Yjs sent, and what
//! real people typed, is taken in whole, and the document equals Yjs' own.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use quire::{
    document::{
        Document, Received, check_snapshot,
        export::{Format, RootKind, export},
    },
    guard::Rest,
    state_vector::StateVector,
    update::{ClientId, Clock, Content, Update, merge},
};
use serde_json::{Map, Value};
use yrs::{Doc, ReadTxn, Text, Transact, updates::decoder::Decode};

use crate::common::new_doc;

/// How many sessions; others than the first ones where `QUIRE_SESSIONS=<first>..<end>` asks for them.
const SESSIONS: u64 = 2_000;
/// As much as the server's threads have.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// What one session sent, and in which document it ended.
struct Session {
    seed: u64,
    updates: Vec<Bytes>,
    ending: Value,
}

/// A document's contents, in every form that can be compared.
#[derive(Debug, PartialEq)]
struct Contents {
    state_vector: Vec<u8>,
    deletes: Vec<(ClientId, Vec<(Clock, Clock)>)>,
    subdocuments: Vec<(ClientId, Clock, String)>,
    json: String,
    text: String,
    xml: String,
}

impl Contents {
    fn of(document: &Document) -> Self {
        let told = RootKind::NAMES.map(|(name, kind)| (name.to_owned(), kind));
        let told = BTreeMap::from(told);
        let exported = |format| String::from_utf8(export(document, format, &told).unwrap()).unwrap();
        let (whole, _) = document.snapshot().unwrap();
        Self {
            state_vector: document.state_vector().write(),
            deletes: deletes(&whole),
            subdocuments: subdocuments(&whole),
            json: comparable(serde_json::from_str(&exported(Format::Json)).unwrap()).to_string(),
            text: exported(Format::Text),
            xml: exported(Format::Xml),
        }
    }

    fn expected(session: &Session) -> Self {
        let ending = &session.ending;
        let text = |name: &str| ending[name].as_str().unwrap().to_owned();
        let state = session.state();
        let vector = yrs::encode_state_vector_from_update_v1(&state).unwrap();
        Self {
            state_vector: StateVector::read(&vector).unwrap().write(),
            deletes: deletes(&state),
            subdocuments: subdocuments(&state),
            json: comparable(ending["json"].clone()).to_string(),
            text: text("text"),
            xml: text("xml"),
        }
    }
}

/// What an update deletes, sorted and with neighbouring ranges joined.
fn deletes(update: &[u8]) -> Vec<(ClientId, Vec<(Clock, Clock)>)> {
    let mut by_client: BTreeMap<ClientId, Vec<(Clock, Clock)>> = BTreeMap::new();
    for (client, range) in Update::read(update).unwrap().deletes {
        let ranges = by_client.entry(client).or_default();
        match ranges.last_mut().filter(|(_, end)| *end == range.start) {
            Some((_, end)) => *end = range.end,
            None => ranges.push((range.start, range.end)),
        }
    }
    by_client.into_iter().collect()
}

/// Every subdocument in an update, byte by byte as it stands there, with its guid and options.
fn subdocuments(update: &[u8]) -> Vec<(ClientId, Clock, String)> {
    let update = Update::read(update).unwrap();
    let mut found = Vec::new();
    for section in &update.sections {
        for index in section.blocks.clone() {
            let block = &update.blocks[index];
            if block.content == Content::Subdocument {
                let bytes = update.bytes_of(section, &(index..index + 1));
                found.push((section.client, block.clock, hex(bytes)));
            }
        }
    }
    found.sort();
    found
}

/// JSON in which equal numbers are written alike, and what JavaScript's JSON cannot say is turned back.
fn comparable(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap();
            let is_integer = value.fract() == 0.0 && value.abs() < 9e18;
            if is_integer { (value as i64).into() } else { value.into() }
        }
        Value::String(text) => match text.strip_prefix("bigint:") {
            Some(digits) => digits.parse::<i64>().unwrap().into(),
            None => text.into(),
        },
        Value::Array(values) => values.into_iter().map(comparable).collect(),
        Value::Object(values) => {
            let sorted: BTreeMap<_, _> =
                values.into_iter().map(|(key, value)| (key, comparable(value))).collect();
            Value::Object(Map::from_iter(sorted))
        }
        other => other,
    }
}

impl Session {
    fn read(line: &str) -> Self {
        let mut ending: Value = serde_json::from_str(line).unwrap();
        let updates = ending["updates"].take();
        let updates = updates.as_array().unwrap().iter().map(|update| bytes(update).into());
        Self { seed: ending["seed"].as_u64().unwrap(), updates: updates.collect(), ending }
    }

    /// Yjs' own whole document.
    fn state(&self) -> Bytes {
        bytes(&self.ending["state"]).into()
    }

    fn check(&self) {
        let expected = Contents::expected(self);
        let is_expected = |document: &Document, how: &str| {
            let found = Contents::of(document);
            assert_eq!(found, expected, "{how}, session {}", self.seed);
        };
        let (document, log) = self.in_order();
        is_expected(&document, "in the order of sending");
        let (snapshot, fingerprint) = document.snapshot().unwrap();
        check_snapshot(&snapshot, fingerprint).unwrap();
        self.knows_what_yrs_knows(&document, &snapshot);
        self.formats_are_kept(&snapshot);

        is_expected(&self.at_once(self.state()), "from Yjs' own state");
        is_expected(&Document::load(&[snapshot]).unwrap(), "from a snapshot");
        is_expected(&Document::load(&log).unwrap(), "from the log");
        is_expected(&self.reopened_on_the_way(), "reopened on the way");
        is_expected(&Document::load(&merged(&log)).unwrap(), "from merged updates");
        is_expected(&self.out_of_order(), "out of order");
    }

    /// A document that got the updates as they were sent, and what it told the others.
    fn in_order(&self) -> (Document, Vec<Bytes>) {
        let mut document = Document::default();
        let news = self.updates.iter().filter_map(|update| self.takes(&mut document, update)).collect();
        (document, news)
    }

    /// Takes in an update, all of it; what was new in it comes back.
    fn takes(&self, document: &mut Document, update: &Bytes) -> Option<Bytes> {
        let before = document.state_vector();
        let received = self.receives(document, update.clone());
        assert_eq!(
            received.rest,
            None,
            "session {}: {before:?} lacks what is needed for {}",
            self.seed,
            hex(update)
        );
        received.news.map(|news| news.update)
    }

    fn receives(&self, document: &mut Document, update: Bytes) -> Received {
        document.receive(update.clone()).unwrap_or_else(|error| {
            let known = document.snapshot().map(|(known, _)| hex(&known));
            panic!("session {}: {error}: {} on {known:?}", self.seed, hex(&update))
        })
    }

    fn at_once(&self, update: Bytes) -> Document {
        let mut document = Document::default();
        self.takes(&mut document, &update);
        document
    }

    /// A document that is compacted and opened again between any two updates of the session.
    fn reopened_on_the_way(&self) -> Document {
        let mut random = Random(self.seed);
        let mut document = Document::default();
        let mut stored = Vec::new();
        for update in &self.updates {
            stored.extend(self.takes(&mut document, update));
            if random.below(4) == 0 {
                if random.below(2) == 0 {
                    stored = vec![document.snapshot().unwrap().0];
                }
                document = Document::load(&stored).unwrap();
            }
        }
        document
    }

    /// A document that gets every update twice and in any order. What is missing for a part of one is kept until
    /// it has come, as the actor does it.
    fn out_of_order(&self) -> Document {
        let mut random = Random(self.seed);
        let mut updates = [&self.updates[..], &self.updates[..]].concat();
        for index in (1..updates.len()).rev() {
            updates.swap(index, random.below(index + 1));
        }
        let mut document = Document::default();
        let mut aside: Vec<Rest> = Vec::new();
        for update in updates {
            aside.extend(self.receives(&mut document, update).rest);
            while let Some(ready) = aside.iter().position(|rest| document.knows_any(rest)) {
                let rest = aside.swap_remove(ready);
                aside.extend(self.receives(&mut document, rest.update.into()).rest);
            }
        }
        assert_eq!(aside, [], "everything has come, session {}", self.seed);
        document
    }

    fn knows_what_yrs_knows(&self, document: &Document, snapshot: &[u8]) {
        let vector = yrs::encode_state_vector_from_update_v1(snapshot).unwrap();
        let vector = StateVector::read(&vector).unwrap();
        assert_eq!(vector, document.state_vector(), "session {}", self.seed);
    }

    /// The formats of the text, which no export tells.
    fn formats_are_kept(&self, snapshot: &[u8]) {
        let doc = new_doc();
        let text = doc.get_or_insert_text("text");
        let snapshot = Update::read(snapshot).unwrap().disguised();
        doc.transact_mut().apply_update(yrs::Update::decode_v1(&snapshot).unwrap()).unwrap();
        let diff = text.diff(&doc.transact(), yrs::types::text::YChange::identity);
        let parts = diff.into_iter().map(|part| {
            let insert = match part.insert {
                yrs::Out::Any(yrs::Any::String(text)) => Value::from(&*text),
                _ => Value::Null,
            };
            let attributes = part.attributes.iter().flat_map(|attributes| attributes.iter());
            let attributes =
                attributes.map(|(key, value)| (key.to_string(), serde_json::to_value(value).unwrap()));
            let attributes: Map<_, _> = attributes.collect();
            serde_json::json!({ "insert": insert, "attributes": attributes })
        });
        let found = comparable(parts.collect());
        assert_eq!(found, comparable(self.ending["delta"].clone()), "session {}", self.seed);
    }
}

/// Some updates at a time as one, where that can be.
fn merged(log: &[Bytes]) -> Vec<Bytes> {
    let merged = log.chunks(5).flat_map(|chunk| {
        let updates: Vec<_> = chunk.iter().map(|update| Update::read(update).unwrap()).collect();
        merge(&updates).map_or_else(|| chunk.to_vec(), |merged| vec![merged.into()])
    });
    merged.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap()
}

/// Numbers that look random: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// Runs something on a thread like the server's.
fn with_stack<T: Debug + Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Which sessions are asked for.
fn asked() -> (u64, u64) {
    let Ok(asked) = std::env::var("QUIRE_SESSIONS") else { return (0, SESSIONS) };
    let (first, end) = asked.split_once("..").expect("first..end");
    let first = first.parse().expect("a number");
    (first, end.parse::<u64>().expect("a number") - first)
}

/// Plays the sessions with Yjs, and gives each to `check` as it comes.
fn play(check: impl Fn(Session)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let install = "the JavaScript clients are missing: cd tests/clients && npm ci";
    assert!(folder.join("node_modules/yjs").is_dir(), "{install}");
    let (first, count) = asked();
    let mut node = Command::new("node")
        .current_dir(&folder)
        .args(["sessions.mjs", &first.to_string(), &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("node cannot be started ({error}); {install}"));
    let (send, sessions) = mpsc::sync_channel(64);
    let output = node.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if send.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    let mut played = 0;
    for line in sessions {
        check(Session::read(&line));
        played += 1;
    }
    reader.join().unwrap();
    assert!(node.wait().unwrap().success(), "node failed");
    assert_eq!(played, count);
}

#[test]
fn every_session_ends_as_it_does_with_yjs() {
    with_stack(|| play(|session| session.check()));
}

/// What Yjs makes of edits before it sends them: each case is one update after the other.
#[test]
fn what_yjs_joins_and_collects_is_taken_in() {
    let cases = [
        // Three values under one key; an UndoManager keeps the overwritten ones, and they became one block.
        (&["010201002801036d6170016b027d017d02a80101017d030101010002"][..], r#"{"map":{"k":3}}"#),
        // The same for an attribute of an XML element.
        (
            &["01030100070103786d6c03016828000100056c6576656c027d017d02a80102017d030101010102"],
            r#"{"xml":"<h level=\"3\"></h>"}"#,
        ),
        // A text of which only the beginning was sent before it was deleted and collected.
        (
            &[
                "010101002701036d6170016b0200",
                "01010101040001000361626300",
                "010201002101036d6170016b0100060101010007",
            ],
            r#"{"map":{}}"#,
        ),
    ];
    for (updates, expected) in cases {
        let mut document = Document::default();
        let updates = updates.iter().map(|update| decode_hex(update).into());
        takes_all(&mut document, updates.collect());
        let json = export(&document, Format::Json, &BTreeMap::new()).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), expected);
        let (snapshot, fingerprint) = document.snapshot().unwrap();
        check_snapshot(&snapshot, fingerprint).unwrap();
    }
}

fn decode_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn trace(name: &str) -> Value {
    let mut json = String::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/traces/{name}.json.gz"));
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// Makes the edits of one transaction, and gives the updates that they are.
fn type_into(doc: &Doc, transaction: &Value) -> Vec<Bytes> {
    let text = doc.get_or_insert_text("text");
    let patches = transaction["patches"].as_array().unwrap().iter();
    let updates = patches.map(|patch| {
        let number = |index: usize| patch[index].as_u64().unwrap() as u32;
        let mut transaction = doc.transact_mut();
        text.remove_range(&mut transaction, number(0), number(1));
        text.insert(&mut transaction, number(0), patch[2].as_str().unwrap());
        transaction.encode_update_v1().into()
    });
    updates.collect()
}

fn takes_all(document: &mut Document, updates: Vec<Bytes>) {
    for update in updates {
        assert_eq!(document.receive(update).unwrap().rest, None);
    }
}

fn text_of(document: &Document) -> String {
    String::from_utf8(export(document, Format::Text, &BTreeMap::new()).unwrap()).unwrap()
}

fn is_taken_in(name: &str) {
    let trace = trace(name);
    let doc = new_doc();
    let mut document = Document::default();
    for transaction in trace["txns"].as_array().unwrap() {
        takes_all(&mut document, type_into(&doc, transaction));
    }
    assert!(text_of(&document) == trace["endContent"].as_str().unwrap(), "{name}");
}

#[test]
fn a_paper_that_was_really_typed_is_taken_in() {
    is_taken_in("automerge-paper");
}

#[test]
fn source_code_that_was_really_typed_is_taken_in() {
    is_taken_in("rustcode");
    is_taken_in("sveltecomponent");
}

#[test]
fn what_two_friends_typed_at_the_same_time_is_taken_in() {
    let trace = trace("friendsforever");
    let docs = [new_doc(), new_doc()];
    let mut document = Document::default();
    // After each transaction, what its author has.
    let mut seen: Vec<[usize; 2]> = Vec::new();
    let mut sent: [Vec<Vec<Bytes>>; 2] = Default::default();
    let mut heard = [0, 0];
    for transaction in trace["txns"].as_array().unwrap() {
        let agent = transaction["agent"].as_u64().unwrap() as usize;
        let other = 1 - agent;
        let parents = transaction["parents"].as_array().unwrap().iter();
        let known = parents.map(|parent| seen[parent.as_u64().unwrap() as usize]);
        let mut known = known.fold([0, 0], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        for update in sent[other][heard[agent]..known[other].max(heard[agent])].iter().flatten() {
            docs[agent].transact_mut().apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
        }
        heard[agent] = heard[agent].max(known[other]);
        let updates = type_into(&docs[agent], transaction);
        takes_all(&mut document, updates.clone());
        sent[agent].push(updates);
        known[agent] = sent[agent].len();
        seen.push(known);
    }
    let together = new_doc();
    for doc in &docs {
        let whole = doc.transact().encode_diff_v1(&yrs::StateVector::default());
        together.transact_mut().apply_update(yrs::Update::decode_v1(&whole).unwrap()).unwrap();
    }
    let text = together.get_or_insert_text("text");
    assert!(text_of(&document) == yrs::GetString::get_string(&text, &together.transact()));
}
