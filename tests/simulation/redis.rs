//! A Redis in memory that behaves as badly as a real one can: it is slow, away, fails after it has done what was
//! asked, loses messages, cuts connections, forgets everything, and goes back to what it was a while ago.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use quire::{
    backend::{
        Answer, BackendError, Exchange, Exchanged, Position, Segment,
        redis::{
            envelope::{Envelope, Words},
            store::{
                Append, Commit, Committed, Entry, Event, Kept, Keys, Leases, Listener, Meta, Size, Store,
            },
        },
    },
    document::Document,
    name::DocumentName,
    saver,
    update::{ClientId, Clock},
};
use tokio::time::sleep;

use super::{
    disk::{Trouble, note_written},
    random::Random,
};

/// The Redis; it outlives the nodes that use it.
#[derive(Clone)]
pub struct Redis(Arc<Mutex<State>>);

/// One node's link to it.
pub struct Link {
    redis: Redis,
    node: usize,
}

/// A deliberate mistake, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMistake {
    /// What is missing cannot be read from the log.
    GapsStay,
    /// An append that failed is taken for done.
    FailureTakenForDone,
}

struct State {
    random: Random,
    now: u64,
    trouble: Trouble,
    /// Until when it cannot be reached.
    away_until: u64,
    /// How many of a hundred messages are lost, and how many come twice.
    lossy: u64,
    kept: Data,
    /// What it was at some time: a replica that lags behind.
    before: Data,
    nodes: BTreeMap<usize, Node>,
    /// Until when each lasts, and how often it was begun or renewed.
    leases: BTreeMap<u64, (u64, u64)>,
    /// For each client the first clock that no record ever had.
    written: HashMap<ClientId, Clock>,
    mistake: Option<RedisMistake>,
}

#[derive(Clone, Default)]
struct Data {
    meta: Meta,
    log: Vec<Entry>,
    last: Position,
    snapshots: HashMap<String, Bytes>,
    set_aside: Vec<Bytes>,
}

#[derive(Default)]
struct Node {
    listener: Option<Listener>,
    channels: HashSet<String>,
    /// When its connection is there again.
    cut_until: Option<u64>,
    on_their_way: VecDeque<(u64, Event)>,
}

impl Redis {
    pub fn new(random: Random, mistake: Option<RedisMistake>) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            now: 0,
            trouble: Trouble::default(),
            away_until: 0,
            lossy: 0,
            kept: Data::default(),
            before: Data::default(),
            nodes: BTreeMap::new(),
            leases: BTreeMap::new(),
            written: HashMap::new(),
            mistake,
        })))
    }

    /// A node's link; the one that it had before is no more.
    pub fn link(&self, node: usize) -> Link {
        self.lock().nodes.insert(node, Node::default());
        Link { redis: self.clone(), node }
    }

    pub fn forget_link(&self, node: usize) {
        self.lock().nodes.remove(&node);
    }

    pub fn set_trouble(&self, trouble: Trouble, lossy: u64) {
        let mut state = self.lock();
        state.trouble = trouble;
        state.lossy = lossy;
    }

    /// It cannot be reached for so long; it loses nothing, but all connections.
    pub fn go_away(&self, milliseconds: u64) {
        let mut state = self.lock();
        state.away_until = state.now + milliseconds;
        let until = state.away_until;
        state.cut_all(until);
    }

    /// It can be reached, and all connections are there again.
    pub fn come_back(&self) {
        let mut state = self.lock();
        let now = state.now;
        state.away_until = now;
        state.nodes.values_mut().filter_map(|node| node.cut_until.as_mut()).for_each(|until| *until = now);
    }

    /// One node's connection is lost for so long.
    pub fn cut(&self, node: usize, milliseconds: u64) {
        let mut state = self.lock();
        let until = state.now + milliseconds;
        if let Some(node) = state.nodes.get_mut(&node) {
            node.cut(until);
        }
    }

    /// Everything is gone; with the connections, or as by a command.
    pub fn forget_everything(&self, connections: bool) {
        let mut state = self.lock();
        state.kept = Data::default();
        state.before = Data::default();
        state.leases.clear();
        if connections {
            let until = state.now + 1;
            state.cut_all(until);
        }
    }

    /// From now on this is what it may go back to.
    pub fn remember(&self) {
        let mut state = self.lock();
        state.before = state.kept.clone();
    }

    /// A replica takes over that was behind.
    pub fn go_back(&self) {
        let mut state = self.lock();
        state.kept = state.before.clone();
        let until = state.now + 1;
        state.cut_all(until);
    }

    /// Messages that are due arrive.
    pub fn tick(&self, now: u64) {
        let mut due: Vec<(Listener, Event)> = Vec::new();
        {
            let mut state = self.lock();
            state.now = now;
            let away = state.away_until > now;
            for node in state.nodes.values_mut() {
                let Some(listener) = node.listener.clone() else { continue };
                if node.cut_until.is_some_and(|until| until <= now) && !away {
                    node.cut_until = None;
                    due.push((listener.clone(), Event::MissedAll));
                }
                while node.on_their_way.front().is_some_and(|(at, _)| *at <= now) {
                    due.extend(node.on_their_way.pop_front().map(|(_, event)| (listener.clone(), event)));
                }
            }
        }
        due.into_iter().for_each(|(listener, event)| listener(event));
    }

    /// The first clock of a client that was never written.
    pub fn written(&self, client: ClientId) -> Clock {
        self.lock().written.get(&client).copied().unwrap_or(0)
    }

    /// The document as it would be loaded now.
    pub fn document(&self) -> Result<Document, String> {
        let state = self.lock();
        let mut stored = quire::backend::Stored::default();
        if !state.kept.set_aside.is_empty() {
            return Err("an honest update was set aside".to_owned());
        }
        if !state.kept.meta.snapshot.is_empty() {
            let snapshot =
                state.kept.snapshots.get(&state.kept.meta.snapshot).ok_or("the snapshot is gone")?;
            stored.snapshot = Some(snapshot.clone());
        }
        let through = state.kept.meta.through;
        let after = state.kept.log.iter().filter(|entry| entry.position > through);
        stored.log = after.filter_map(|entry| Some((entry.position, record(entry)?))).collect();
        saver::open(&stored).map(|loaded| loaded.document)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

fn record(entry: &Entry) -> Option<Bytes> {
    match Envelope::read(entry.envelope.clone()?)?.words {
        Words::Record(record) => Some(record),
        _ => None,
    }
}

impl Node {
    fn cut(&mut self, until: u64) {
        self.on_their_way.clear();
        self.cut_until = Some(until.max(self.cut_until.unwrap_or(0)));
    }
}

impl State {
    fn cut_all(&mut self, until: u64) {
        self.nodes.values_mut().for_each(|node| node.cut(until));
    }

    fn publish(&mut self, channel: &str, payload: &Bytes) -> u64 {
        let mut heard = 0;
        for node in self.nodes.values_mut() {
            let (lost, twice) = (self.random.percent(self.lossy), self.random.percent(self.lossy / 2));
            let delay = 1 + self.random.below(5);
            if !node.channels.contains(channel) || node.cut_until.is_some() {
                continue;
            }
            heard += 1;
            let channel = Bytes::copy_from_slice(channel.as_bytes());
            let event = Event::Message { channel, payload: payload.clone() };
            // In order, as on any connection.
            let due = node.on_their_way.back().map_or(0, |(at, _)| *at).max(self.now + delay);
            for _ in 0..(1 + usize::from(twice)) * usize::from(!lost) {
                node.on_their_way.push_back((due, event.clone()));
            }
        }
        heard
    }

    fn append(&mut self, keys: &Keys, epoch: u64, envelope: Bytes, message: &Bytes) -> Append {
        let data = &mut self.kept;
        if data.last == Position::default() {
            return Append::NoLog;
        }
        if epoch < data.last.epoch {
            return Append::OldEpoch;
        }
        let number = if epoch == data.last.epoch { data.last.number + 1 } else { 0 };
        let position = Position { epoch, number };
        data.last = position;
        let entry = Entry { position, envelope: Some(envelope) };
        let record = record(&entry).expect("a log has records");
        data.log.push(entry);
        let entries = data.log.len() as u64;
        note_written(&mut self.written, &record);
        let payload = [format!("{epoch}-{number}|").as_bytes(), message].concat().into();
        self.publish(&keys.channel(), &payload);
        Append::Done { position, entries }
    }

    fn begin(&mut self, epoch: u64) -> u64 {
        let data = &mut self.kept;
        data.meta.epoch = data.meta.epoch.max(epoch);
        if data.last == Position::default() {
            data.last = Position { epoch: data.meta.epoch, number: 0 };
            data.log.push(Entry { position: data.last, envelope: None });
        }
        data.meta.epoch
    }

    fn commit(&mut self, keys: &Keys, commit: Commit) -> Committed {
        let data = &mut self.kept;
        if data.meta.epoch != commit.epoch {
            return Committed::OtherLog;
        }
        if data.meta.version != commit.version {
            return Committed::Outrun;
        }
        if let Some((position, beginning)) = commit.stands_on {
            let found = data.log.iter().find(|entry| entry.position == position);
            let same = found
                .and_then(|entry| entry.envelope.as_ref())
                .is_some_and(|found| found.starts_with(&beginning));
            if !same {
                return Committed::OtherLog;
            }
        }
        data.meta.version = commit.version + 1;
        data.meta.snapshot = keys.snapshot(commit.version + 1, commit.node);
        data.meta.through = commit.through;
        data.snapshots.clear();
        data.snapshots.insert(data.meta.snapshot.clone(), commit.snapshot);
        data.log.retain(|entry| entry.position >= commit.keep_from);
        Committed::Done
    }
}

impl Link {
    /// Something that is done now or when it is answered, or fails before or after it was done.
    fn ask<T: Send + 'static>(&self, act: impl FnOnce(&mut State) -> T + Send + 'static) -> Answer<T> {
        let mut state = self.redis.lock();
        let slow = state.trouble.slow.min(1_000);
        let delay = Duration::from_millis(1 + state.random.below(slow + 1));
        let unreachable = state.away_until > state.now
            || state.nodes.get(&self.node).is_none_or(|node| node.cut_until.is_some());
        let fails = state.trouble.fails;
        let fails = unreachable || state.random.percent(fails);
        let happens = !unreachable && (!fails || state.random.percent(50));
        let (now, later) = match (happens, state.random.percent(50)) {
            (true, true) => (Some(act(&mut state)), None),
            (true, false) => (None, Some(act)),
            (false, _) => (None, None),
        };
        drop(state);
        let redis = self.redis.clone();
        Box::pin(async move {
            sleep(delay).await;
            let done = now.or_else(|| Some(later?(&mut redis.lock())));
            match done {
                Some(answer) if !fails => Ok(answer),
                _ => Err(BackendError::Away("the simulation wants it so".to_owned())),
            }
        })
    }
}

impl Store for Link {
    fn listen(&self, listener: Listener) {
        self.redis.lock().nodes.entry(self.node).or_default().listener = Some(listener);
    }

    fn append(&self, keys: &Keys, epoch: u64, envelope: Bytes, message: Bytes) -> Answer<Append> {
        let keys = keys.clone();
        let append = self.ask(move |state| state.append(&keys, epoch, envelope, &message));
        let redis = self.redis.clone();
        Box::pin(async move {
            let appended = append.await;
            let state = redis.lock();
            match appended {
                Err(_) if state.mistake == Some(RedisMistake::FailureTakenForDone) => {
                    let Position { epoch, number } = state.kept.last;
                    Ok(Append::Done { position: Position { epoch, number: number + 1 }, entries: 1 })
                }
                appended => appended,
            }
        })
    }

    fn begin(&self, _: &Keys, epoch: u64) -> Answer<Option<u64>> {
        self.ask(move |state| Some(state.begin(epoch)))
    }

    fn delete(&self, _: &Keys, _: Duration, _: Bytes) -> Answer<bool> {
        self.ask(|_| false)
    }

    fn undelete(&self, _: &Keys) -> Answer<bool> {
        self.ask(|_| false)
    }

    fn create(&self, _: &Keys, _: Option<Bytes>) -> Answer<bool> {
        self.ask(|_| false)
    }

    fn enlist(&self, _: &DocumentName, _: bool) -> Answer<()> {
        // Nobody asks for the list.
        Box::pin(async { Ok(()) })
    }

    fn names(&self, _: &str, _: &str, _: usize) -> Answer<Vec<String>> {
        self.ask(|_| Vec::new())
    }

    fn size(&self, _: &Keys) -> Answer<Option<Size>> {
        self.ask(|_| None)
    }

    fn segments(&self, _: &Keys) -> Answer<Vec<(Position, Bytes)>> {
        self.ask(|_| Vec::new())
    }

    fn segment_data(&self, _: &Keys, segments: Vec<Position>) -> Answer<Vec<Option<Bytes>>> {
        self.ask(move |_| vec![None; segments.len()])
    }

    fn replace_segments(&self, _: &Keys, _: Vec<(Position, Bytes)>, _: Segment) -> Answer<bool> {
        self.ask(|_| false)
    }

    fn read(&self, _: &Keys) -> Answer<Kept> {
        self.ask(|state| Kept {
            meta: state.kept.meta.clone(),
            log: state.kept.log.clone(),
            set_aside: state.kept.set_aside.clone(),
        })
    }

    fn read_snapshot(&self, key: &str) -> Answer<Option<Bytes>> {
        let key = key.to_owned();
        self.ask(move |state| state.kept.snapshots.get(&key).cloned())
    }

    fn read_log(&self, _: &Keys, from: Position, count: usize) -> Answer<Vec<Entry>> {
        if self.redis.lock().mistake == Some(RedisMistake::GapsStay) {
            return Box::pin(async { Err(BackendError::Away("the simulation wants it so".to_owned())) });
        }
        self.ask(move |state| {
            state.kept.log.iter().filter(|entry| entry.position >= from).take(count).cloned().collect()
        })
    }

    fn commit(&self, keys: &Keys, commit: Commit) -> Answer<Committed> {
        let keys = keys.clone();
        self.ask(move |state| state.commit(&keys, commit))
    }

    fn set_aside(&self, _: &Keys, entry: Bytes, _: u32) -> Answer<()> {
        self.ask(move |state| state.kept.set_aside.push(entry))
    }

    fn exchange(&self, _: Exchange) -> Answer<Exchanged> {
        self.ask(|_| Exchanged::default())
    }

    fn publish(&self, channel: &str, message: Bytes) -> Answer<u64> {
        let channel = channel.to_owned();
        self.ask(move |state| state.publish(&channel, &message))
    }

    fn subscribe(&self, channel: &str) -> Answer<()> {
        let (node, channel) = (self.node, channel.to_owned());
        self.ask(move |state| {
            if let Some(node) = state.nodes.get_mut(&node) {
                node.channels.insert(channel);
            }
        })
    }

    fn unsubscribe(&self, channel: &str) {
        if let Some(node) = self.redis.lock().nodes.get_mut(&self.node) {
            node.channels.remove(channel);
        }
    }

    fn lease(&self, node: u64) -> Answer<Leases> {
        self.ask(move |state| {
            let now = state.now;
            state.leases.retain(|_, (until, _)| *until > now);
            let lease = state.leases.entry(node).or_default();
            *lease = (now + 6_000, lease.1 + 1);
            Leases { times: lease.1, live: state.leases.keys().copied().collect() }
        })
    }

    fn end_lease(&self, node: u64) -> Answer<()> {
        self.ask(move |state| {
            state.leases.remove(&node);
        })
    }

    fn admit(&self, _: &str, _: u64, _: &[u64], _: u32) -> Answer<bool> {
        self.ask(|_| true)
    }

    fn dismiss(&self, _: &str, _: u64, _: bool) -> Answer<()> {
        self.ask(|_| ())
    }

    fn away(&self) -> Option<String> {
        let state = self.redis.lock();
        (state.away_until > state.now).then(|| "the simulation wants it so".to_owned())
    }

    fn close(&self) -> Answer<()> {
        Box::pin(async { Ok(()) })
    }
}
