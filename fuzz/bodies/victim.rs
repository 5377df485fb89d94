//! A document that takes whatever it is given, and everything that must hold of it all the while.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use quire::{
    document::{
        Document, Received, UpdateError, check_snapshot,
        export::{ExportError, Format, RootKind, export},
    },
    guard::Rest,
    state_vector::StateVector,
    update::{ClientId, Clock, Content, Update, merge},
};

/// How many parts are kept that need what is missing.
const MAX_ASIDE: usize = 8;

/// How many clients' edits are asked for one by one.
const MAX_ASKED: usize = 8;

/// A document, with what its server keeps beside it.
#[derive(Debug, Default)]
pub struct Victim {
    pub document: Document,
    /// What a backend would have: a snapshot, and the changes since.
    stored: Vec<Bytes>,
    /// What waits for something that is missing.
    aside: Vec<Rest>,
}

impl Victim {
    /// One that holds the first half of a real session.
    pub fn filled() -> Self {
        let updates = super::split(super::SESSION);
        let merged = merged(&updates[..updates.len() / 2]).expect("edits of a session follow each other");
        let document = Document::load(&[&merged]).expect("a real session is let in");
        Self { document, stored: vec![merged], aside: Vec::new() }
    }

    /// Offers it an update, and tells whether it, or a part of it, was let in.
    pub fn receives(&mut self, update: &Bytes) -> bool {
        let before = self.fingerprint();
        let vector = self.document.state_vector();
        match self.document.receive(update.clone()) {
            Ok(received) => {
                self.took(received, before);
                true
            }
            Err(UpdateError::Refused(_)) => {
                assert_eq!(self.fingerprint(), before, "a refused update left a trace");
                assert_eq!(self.document.state_vector(), vector, "a refused update left a trace");
                false
            }
            Err(UpdateError::Full) => panic!("no limit was set"),
            Err(UpdateError::Broken(reason)) => panic!("the guard let in what breaks yrs: {reason}"),
        }
    }

    fn took(&mut self, received: Received, before: u128) {
        match received.news {
            Some(news) => {
                let again = self.document.receive(news.update.clone()).expect("what was news is known now");
                assert_eq!(again, Received::default(), "what was news is known now");
                self.stored.push(news.update);
            }
            None => assert_eq!(self.fingerprint(), before, "a change that nobody heard of"),
        }
        if let Some(rest) = received.rest {
            assert!(!self.document.knows_any(&rest), "a part was kept aside whose time has come");
            Update::read(&rest.update).expect("a rest is an update");
            if self.aside.len() < MAX_ASIDE {
                self.aside.push(rest);
            }
        }
    }

    /// Offers again what waits, where what it needs has come.
    pub fn offers_again(&mut self) {
        while let Some(ready) = self.aside.iter().position(|rest| self.document.knows_any(rest)) {
            let rest = self.aside.swap_remove(ready);
            self.receives(&rest.update.into());
        }
    }

    /// What somebody lacks who has this.
    pub fn diff(&self, since: &StateVector) -> Bytes {
        self.document.diff(since).expect("a diff")
    }

    pub fn fingerprint(&self) -> u128 {
        self.document.fingerprint().expect("a fingerprint")
    }

    /// Makes its snapshot the beginning of what is stored.
    pub fn compacts(&mut self) {
        self.stored = vec![self.document.snapshot().expect("a snapshot").0];
    }

    /// Is forgotten, and loaded again from what is stored.
    pub fn reopens(&mut self) {
        let before = self.fingerprint();
        self.document = Document::load(&self.stored).expect("what was stored can be loaded");
        assert_eq!(self.fingerprint(), before, "it was stored as another document");
    }

    /// The guard knows exactly what yrs has.
    fn agrees_with_yrs(&self) {
        let whole = self.diff(&StateVector::default());
        let vector = yrs::encode_state_vector_from_update_v1(&whole).expect("yrs reads its own bytes");
        let vector = StateVector::read(&vector).expect("a state vector");
        assert_eq!(vector, self.document.state_vector(), "the guard and yrs know different things");
    }

    /// Everything that can be asked of it has an answer.
    pub fn is_sound(&self) {
        self.agrees_with_yrs();
        let (snapshot, fingerprint) = self.document.snapshot().expect("a snapshot");
        check_snapshot(&snapshot, fingerprint).expect("a snapshot reads back");
        let copy = Document::load(&self.stored).expect("what was stored can be loaded");
        assert_eq!(copy.fingerprint(), Ok(fingerprint), "it was stored as another document");
        assert_eq!(unbroken(&copy), unbroken(&self.document), "it was stored with other content");
        if let Some(merged) = merged(&self.stored) {
            let copy = Document::load(&[merged]).expect("what was merged can be loaded");
            assert_eq!(copy.fingerprint(), Ok(fingerprint), "merged to another document: {}", self.told());
        }
        self.is_exported();
        let vector = self.document.state_vector();
        for (client, clock) in vector.iter().take(MAX_ASKED) {
            for clock in [0, clock / 2, clock.saturating_sub(1), clock.saturating_add(1), u32::MAX] {
                let since = vector.iter().filter(|(other, _)| *other != client).chain([(client, clock)]);
                let diff = self.diff(&since.collect());
                Update::read(&diff).expect("a diff is an update");
                let missing = HashMap::from([(client, clock)]);
                let diff = self.document.diff_from(&missing).expect("a diff");
                Update::read(&diff).expect("a diff is an update");
            }
        }
        assert_eq!(self.fingerprint(), fingerprint, "asking changed it");
    }

    /// What is stored, in hex.
    fn told(&self) -> String {
        let hex = |update: &Bytes| update.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.stored.iter().map(hex).collect::<Vec<_>>().join(" ")
    }

    fn is_exported(&self) {
        for (_, format) in Format::NAMES {
            export(&self.document, format, &BTreeMap::new()).expect("an export");
        }
        let names: Vec<_> = self.document.roots().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            for (_, kind) in RootKind::NAMES {
                self.is_exported_as(&name, kind, Format::Json);
            }
            self.is_exported_as(&name, RootKind::Text, Format::Text);
            self.is_exported_as(&name, RootKind::Xml, Format::Text);
            self.is_exported_as(&name, RootKind::Xml, Format::Xml);
        }
    }

    fn is_exported_as(&self, name: &str, kind: RootKind, format: Format) {
        match export(&self.document, format, &BTreeMap::from([(name.to_owned(), kind)])) {
            Ok(_) | Err(ExportError::WrongKind { .. }) => {}
            Err(ExportError::Engine(error)) => panic!("{name} as {kind:?}: {error}"),
        }
    }
}

/// Content of a single unit that goes through the engine byte by byte: bytes and subdocuments.
fn unbroken(document: &Document) -> BTreeMap<(ClientId, Clock), Vec<u8>> {
    let (whole, _) = document.snapshot().expect("a snapshot");
    let whole = Update::read(&whole).expect("a snapshot is an update");
    let mut found = BTreeMap::new();
    for section in &whole.sections {
        for index in section.blocks.clone() {
            let block = &whole.blocks[index];
            if matches!(block.content, Content::Subdocument | Content::Binary | Content::Marked) {
                let bytes = whole.bytes_of(section, &(index..index + 1));
                found.insert((section.client, block.clock), bytes.to_vec());
            }
        }
    }
    found
}

/// Several updates as one, where they follow each other.
fn merged(updates: &[Bytes]) -> Option<Bytes> {
    let updates: Vec<_> =
        updates.iter().map(|update| Update::read(update).expect("it was read before")).collect();
    merge(&updates).map(Bytes::from)
}
