//! A client as the simulation has it: it lives through a history that Yjs made, speaks the protocol as
//! y-websocket does, and keeps what it cannot understand yet, as Yjs does.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use quire::{
    actor::TellSaved,
    document::Document,
    guard::Rest,
    protocol::{self, Message},
    state_vector::StateVector,
    update::{ClientId, Clock, Update},
};
use xxhash_rust::xxh3::xxh3_128;
use yrs::{
    Doc, OffsetKind, Options, ReadTxn, Transact,
    updates::{decoder::Decode, encoder::Encode},
};

use super::{
    judge::Edit,
    world::{Mistake, Trial},
};

pub struct Client {
    pub replica: Replica,
    /// What it will do.
    pub edits: VecDeque<Edit>,
    /// The numbers under which it edits, and the one that its page has now.
    pub numbers: HashSet<ClientId>,
    pub number: ClientId,
    /// Edits that it has made, of which it may send some again.
    pub made: Vec<Bytes>,
    /// How it hears that its edits are saved: they come back to it, or it is told how many of them are.
    pub tell_saved: TellSaved,
    /// What it takes for saved: the first clock that is not, and whole updates.
    pub saved: HashMap<ClientId, Clock>,
    pub saved_updates: Vec<Bytes>,
    /// From when on it wants to be connected.
    pub back_at: u64,
    /// It never edits, and forgets everything when it goes.
    pub forgetful: bool,
    pub presence_clock: u32,
}

/// A client's copy of the document.
pub enum Replica {
    /// Like Yjs: what has gaps waits until they are filled.
    Honest { document: Box<Document>, aside: Vec<Rest> },
    /// One of the deliberate mistakes: what has gaps goes to yrs.
    LetsGapsThrough(Doc),
}

impl Client {
    /// A client that has made none of its edits yet. Its page has the number of the first, or another one.
    pub fn new(replica: Replica, edits: Vec<Edit>, otherwise: ClientId, tell_saved: TellSaved) -> Self {
        Self {
            replica,
            numbers: edits.iter().filter_map(Edit::number).collect(),
            number: edits.iter().find_map(Edit::number).unwrap_or(otherwise),
            forgetful: edits.is_empty(),
            edits: edits.into(),
            made: Vec::new(),
            tell_saved,
            saved: HashMap::new(),
            saved_updates: Vec::new(),
            back_at: 0,
            presence_clock: 0,
        }
    }

    /// Whether it can make its next edit.
    pub fn can_edit(&self) -> bool {
        let Some(next) = self.edits.front() else { return false };
        let have = self.replica.state_vector();
        next.needs.iter().all(|&(client, clock)| have.get(client) >= clock)
    }

    /// The number under which it makes its next edit, if that is not the one that it has now: somebody has loaded
    /// the page again.
    pub fn new_number(&self) -> Option<ClientId> {
        self.edits.front().and_then(Edit::number).filter(|number| *number != self.number)
    }

    /// Makes its next edit.
    pub fn edit(&mut self) -> Result<Bytes, String> {
        let edit = self.edits.pop_front().expect("there is a next edit");
        self.replica
            .receive(edit.update.clone())
            .map_err(|error| format!("its edit {}: {error}", self.made.len()))?;
        self.made.push(edit.update.clone());
        Ok(edit.update)
    }

    /// Takes in a message. Answers with its reply, and with what is new to it.
    pub fn hear(&mut self, message: Message) -> Result<(Option<Bytes>, Vec<Bytes>), String> {
        match message {
            Message::SyncStep1(since) => {
                Ok((Some(protocol::sync_step_2(&self.replica.diff(&since)?)), Vec::new()))
            }
            Message::SyncStep2(update) | Message::Update(update) => Ok((None, self.replica.receive(update)?)),
            Message::Awareness(_) | Message::QueryAwareness | Message::Stateless(_) => Ok((None, Vec::new())),
        }
    }

    /// Notes an update of its own of which it was told that it is saved.
    pub fn note_counted(&mut self, update: Bytes) -> Vec<(ClientId, Clock)> {
        let ends = ends(&update);
        for &(client, end) in &ends {
            let saved = self.saved.entry(client).or_default();
            *saved = end.max(*saved);
        }
        self.saved_updates.push(update);
        ends
    }

    /// Notes what a frame from the server says to be saved: its own edits.
    pub fn note_saved(&mut self, update: &Bytes, also_others: &HashSet<Bytes>) -> Vec<(ClientId, Clock)> {
        let read = Update::read(update).expect("the server sends well-formed updates");
        let own = read.sections.iter().filter(|section| self.numbers.contains(&section.client));
        let ends = own.map(|section| (section.client, read.blocks[section.blocks.end - 1].end_clock()));
        let ends: Vec<_> = ends.collect();
        for &(client, end) in &ends {
            let saved = self.saved.entry(client).or_default();
            *saved = end.max(*saved);
        }
        // A deletion that somebody else has made in the same words may be theirs.
        if self.made.contains(update) && !also_others.contains(update) {
            self.saved_updates.push(update.clone());
        }
        ends
    }
}

/// For each client id the first clock after what an update brings.
pub fn ends(update: &Bytes) -> Vec<(ClientId, Clock)> {
    let read = Update::read(update).expect("clients send well-formed updates");
    let sections = read.sections.iter();
    sections.map(|section| (section.client, read.blocks[section.blocks.end - 1].end_clock())).collect()
}

impl Replica {
    /// An empty one.
    pub fn new(trial: Trial) -> Self {
        if trial != Trial::With(Mistake::GapLetThrough) {
            return Self::Honest { document: Box::default(), aside: Vec::new() };
        }
        let options =
            Options { offset_kind: OffsetKind::Utf16, cleanup_formatting: false, ..Options::default() };
        Self::LetsGapsThrough(Doc::with_options(options))
    }

    pub fn state_vector(&self) -> StateVector {
        match self {
            Self::Honest { document, .. } => document.state_vector(),
            Self::LetsGapsThrough(doc) => {
                let state_vector = doc.transact().state_vector();
                state_vector.iter().map(|(client, clock)| (client.get(), *clock)).collect()
            }
        }
    }

    /// Takes in an update, and answers with what was news.
    fn receive(&mut self, update: Bytes) -> Result<Vec<Bytes>, String> {
        match self {
            Self::Honest { document, aside } => {
                let mut news = Vec::new();
                let mut next = Some(update);
                while let Some(update) = next {
                    let received = document.receive(update).map_err(|error| error.to_string())?;
                    news.extend(received.news.map(|news| news.update));
                    aside.extend(received.rest);
                    let ready = aside.iter().position(|rest| document.knows_any(rest));
                    next = ready.map(|ready| aside.swap_remove(ready).update.into());
                }
                Ok(news)
            }
            Self::LetsGapsThrough(doc) => {
                let decoded = yrs::Update::decode_v1(&update).map_err(|error| error.to_string())?;
                let mut transaction = doc.transact_mut();
                transaction.apply_update(decoded).map_err(|error| error.to_string())?;
                Ok(if transaction.has_changes() { vec![update] } else { Vec::new() })
            }
        }
    }

    /// What somebody lacks, with everything that waits for something itself.
    pub fn diff(&self, since: &StateVector) -> Result<Bytes, String> {
        match self {
            Self::Honest { document, aside } => {
                let diff = document.diff(since).map_err(|error| error.to_string())?;
                if aside.is_empty() {
                    return Ok(diff);
                }
                let mut all = vec![diff];
                all.extend(aside.iter().map(|rest| Bytes::from(rest.update.clone())));
                yrs::merge_updates_v1(&all).map(Bytes::from).map_err(|error| error.to_string())
            }
            Self::LetsGapsThrough(doc) => {
                let since = since.iter().map(|(client, clock)| (yrs::ClientID::new(client), clock));
                let since = yrs::StateVector::new(since.collect());
                Ok(doc.transact().encode_state_as_update_v1(&since).into())
            }
        }
    }

    /// What waits for something that is missing.
    pub fn waits(&self) -> usize {
        match self {
            Self::Honest { aside, .. } => aside.len(),
            Self::LetsGapsThrough(doc) => usize::from(doc.transact().has_missing_updates()),
        }
    }

    /// A number that is equal for equal documents.
    pub fn fingerprint(&self) -> Result<u128, String> {
        match self {
            Self::Honest { document, .. } => document.fingerprint().map_err(|error| error.to_string()),
            Self::LetsGapsThrough(doc) => {
                let mut bytes = self.state_vector().write();
                bytes.extend(doc.transact().snapshot().delete_set.encode_v1());
                Ok(xxh3_128(&bytes))
            }
        }
    }
}
