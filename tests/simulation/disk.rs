//! A backend in memory that behaves like the worst disk that still keeps the promise: it is slow, it fails, it
//! fails after it has written, and what it has not confirmed when the process is killed may or may not be there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use quire::{
    backend::{
        Answer, Appended, Backend, BackendError, Exchange, Exchanged, Listed, Position, Segment, Stored,
    },
    document::Document,
    name::DocumentName,
    record::{Authored, Record},
    saver,
    update::{ClientId, Clock, Update},
};
use tokio::time::sleep;

use super::random::Random;

/// The disk; it outlives the processes that use it.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    stored: Stored,
    last: u64,
    random: Random,
    trouble: Trouble,
    /// For each client the first clock that no record has.
    written: HashMap<ClientId, Clock>,
}

/// How bad it is at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// The most milliseconds that an answer takes.
    pub slow: u64,
    /// How many of a hundred writes fail; half of these have been written all the same.
    pub fails: u64,
    /// How many of a hundred loads fail.
    pub unreadable: u64,
}

impl Trouble {
    /// Since when it saves within the time that a stopping server has, if it is like this from now on.
    pub fn well_since(self, now: u64) -> Option<u64> {
        (self.fails == 0 && self.slow <= 500).then_some(now)
    }
}

impl Disk {
    pub fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            stored: Stored::default(),
            last: 0,
            random,
            trouble: Trouble::default(),
            written: HashMap::new(),
        })))
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        self.lock().trouble = trouble;
    }

    /// The first clock of a client that was never written.
    pub fn written(&self, client: ClientId) -> Clock {
        self.lock().written.get(&client).copied().unwrap_or(0)
    }

    /// The document as it would be loaded now.
    pub fn document(&self) -> Result<Document, String> {
        let stored = self.lock().stored.clone();
        if !stored.set_aside.is_empty() {
            return Err("an honest update was set aside".to_owned());
        }
        let loaded = saver::open(&stored)?;
        match loaded.gaps.is_empty() {
            true => Ok(loaded.document),
            false => Err("the disk has gaps".to_owned()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// A write that happens now or when it is answered, or fails before or after it has happened.
    fn write<T: Send + 'static>(&self, write: impl FnOnce(&mut State) -> T + Send + 'static) -> Answer<T> {
        let mut state = self.lock();
        let slow = state.trouble.slow;
        let delay = Duration::from_millis(1 + state.random.below(slow + 1));
        let fails = state.trouble.fails;
        let fails = state.random.percent(fails);
        let happens = !fails || state.random.percent(50);
        let (now, later) = match (happens, state.random.percent(50)) {
            (true, true) => (Some(write(&mut state)), None),
            (true, false) => (None, Some(write)),
            (false, _) => (None, None),
        };
        let disk = self.clone();
        Box::pin(async move {
            sleep(delay).await;
            let written = now.or_else(|| Some(later?(&mut disk.lock())));
            match written {
                Some(answer) if !fails => Ok(answer),
                _ => Err(BackendError::Store("the disk has trouble".to_owned())),
            }
        })
    }
}

/// Notes what a record brings: for each client the first clock that none brought yet.
pub fn note_written(written: &mut HashMap<ClientId, Clock>, record: &Bytes) {
    for Authored { update, .. } in Record::read(record).expect("the saver writes records").updates {
        let update = Update::read(&update).expect("the saver writes updates");
        for section in &update.sections {
            let end = update.blocks[section.blocks.end - 1].end_clock();
            let known = written.entry(section.client).or_default();
            *known = end.max(*known);
        }
    }
}

impl State {
    fn append(&mut self, record: Bytes) -> Appended {
        self.last += 1;
        note_written(&mut self.written, &record);
        let position = Position { epoch: 0, number: self.last };
        self.stored.log.push((position, record));
        Appended { position, gapless: true, records: None }
    }

    fn compact(&mut self, through: Position, snapshot: Bytes) {
        if self.stored.log.first().is_some_and(|(position, _)| *position <= through) {
            self.stored.log.retain(|(position, _)| *position > through);
            self.stored.snapshot = Some(snapshot);
        }
    }
}

impl Backend for Disk {
    fn load(&self, _: &DocumentName) -> Answer<Stored> {
        let mut state = self.lock();
        let (slow, unreadable) = (state.trouble.slow, state.trouble.unreadable);
        let delay = Duration::from_millis(state.random.below(slow + 1));
        let fails = state.random.percent(unreadable);
        let disk = self.clone();
        Box::pin(async move {
            sleep(delay).await;
            match fails {
                false => Ok(disk.lock().stored.clone()),
                true => Err(BackendError::Store("the disk has trouble".to_owned())),
            }
        })
    }

    fn append(&self, _: &DocumentName, record: Bytes) -> Answer<Appended> {
        self.write(move |state| state.append(record))
    }

    fn compact(
        &self,
        _: &DocumentName,
        through: Position,
        snapshot: Bytes,
        _: Option<Segment>,
    ) -> Answer<()> {
        self.write(move |state| state.compact(through, snapshot))
    }

    fn segments(&self, _: &DocumentName) -> Answer<Vec<(Position, Bytes)>> {
        self.write(|_| Vec::new())
    }

    fn read_segments(&self, _: &DocumentName, _: Position) -> Answer<Vec<Segment>> {
        self.write(|_| Vec::new())
    }

    fn replace_segments(&self, _: &DocumentName, _: Vec<(Position, Bytes)>, _: Segment) -> Answer<bool> {
        self.write(|_| false)
    }

    fn set_aside(&self, _: &DocumentName, update: Bytes, _: String) -> Answer<()> {
        self.write(move |state| state.stored.set_aside.push(update))
    }

    fn list(&self, _: &str, _: &str, _: usize) -> Answer<Vec<Listed>> {
        self.write(|_| Vec::new())
    }

    fn delete(&self, _: &DocumentName, _: Duration) -> Answer<bool> {
        self.write(|_| false)
    }

    fn undelete(&self, _: &DocumentName) -> Answer<bool> {
        self.write(|_| false)
    }

    fn create(&self, _: &DocumentName, _: Option<Bytes>) -> Answer<bool> {
        self.write(|_| false)
    }

    fn exchange(&self, _: Exchange) -> Answer<Exchanged> {
        self.write(|_| Exchanged::default())
    }

    fn close(&self) -> Answer<()> {
        Box::pin(async { Ok(()) })
    }
}
