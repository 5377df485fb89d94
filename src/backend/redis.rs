//! A backend on Redis, shared by many nodes: log, relay and snapshots. Nobody owns a document: every node appends
//! what was edited on it, in one step with the message that tells the others, and snapshots replace each other by
//! compare-and-set.
//!
//! An epoch begins where a log does. An append in an older one than the log's is refused by Redis itself, since ids
//! of a stream only grow. Positions only detect that something is missing; then the log is read. Where the log
//! itself may have lost something, whoever has the document open compares it ([`Incoming::Compare`]) and appends what
//! is missing.
//!
//! The high bits of an epoch are the document's generation, which begins with a deletion: whoever loaded the document
//! before that is refused in the same way, and is told that there is another one.

pub mod envelope;
mod following;
mod lifecycle;
pub mod link;
mod nodes;
mod place;
pub mod store;
mod users;

use std::{
    future::{Future, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bincode::config;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use self::{
    envelope::{Envelope, Stamp, Words, begin_record},
    following::{Follower, Following},
    place::{GENERATION_SHIFT, OtherLog},
    store::{Append, Commit, Committed, Entry, Kept, Keys, Store},
};
use super::{
    Answer, Appended, Backend, BackendError, Counted, Exchange, Exchanged, Feed, Listed, MAX_SET_ASIDE,
    Nodes, Position, Segment, Stored, users::Users,
};
use crate::name::DocumentName;

/// The epoch of a document that has never been.
const FIRST_EPOCH: u64 = 1 << GENERATION_SHIFT;
/// Larger records are not sent on the channel: a message of many megabytes costs every subscriber its connection.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Entries that stay in the log behind a snapshot, so that who missed some need not load everything.
const KEEP_ENTRIES: usize = 50;
/// How often something is tried again that somebody else was faster with.
const TRIES: usize = 5;
/// Most bytes of the header of what is set aside: the reason.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Keeps documents on Redis, and carries news between the nodes that use it.
pub struct Redis(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    /// The number of this run of the process.
    run: u64,
    /// How many entries this run has written.
    written: AtomicU64,
    following: Arc<Following>,
    users: Arc<Users>,
    runtime: Handle,
    /// What is under way; closed when no more is taken.
    ongoing: TaskTracker,
}

impl Redis {
    /// A backend on a store that nobody else uses. `run` is a number that no other run of a node has; what the
    /// backend does by itself runs on `runtime`.
    pub fn new(store: Arc<dyn Store>, run: u64, runtime: &Handle) -> Self {
        let following = Following::start(store.clone(), run, runtime);
        Self(Arc::new(Inner {
            store,
            run,
            written: AtomicU64::new(1),
            following,
            users: Arc::default(),
            runtime: runtime.clone(),
            ongoing: TaskTracker::new(),
        }))
    }

    /// Does something, unless the backend was closed before; a close waits for it.
    fn ask<T, Asked>(&self, ask: impl FnOnce(Arc<Inner>) -> Asked) -> Answer<T>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        if self.0.ongoing.is_closed() {
            return Box::pin(ready(Err(BackendError::Closed)));
        }
        Box::pin(self.0.ongoing.track_future(ask(self.0.clone())))
    }
}

impl Backend for Redis {
    fn load(&self, name: &DocumentName) -> Answer<Stored> {
        let name = name.clone();
        self.ask(|inner| async move { inner.load(&name).await })
    }

    fn append(&self, name: &DocumentName, record: Bytes) -> Answer<Appended> {
        let name = name.clone();
        self.ask(|inner| async move { inner.append(&name, record).await })
    }

    fn compact(
        &self,
        name: &DocumentName,
        through: Position,
        snapshot: Bytes,
        segment: Option<Segment>,
    ) -> Answer<()> {
        let keys = Keys::new(name);
        self.ask(|inner| async move { inner.compact(&keys, through, snapshot, segment).await })
    }

    fn segments(&self, name: &DocumentName) -> Answer<Vec<(Position, Bytes)>> {
        let keys = Keys::new(name);
        self.ask(|inner| inner.store.segments(&keys))
    }

    fn read_segments(&self, name: &DocumentName, through: Position) -> Answer<Vec<Segment>> {
        let keys = Keys::new(name);
        self.ask(move |inner| async move { inner.read_segments(&keys, through).await })
    }

    fn replace_segments(
        &self,
        name: &DocumentName,
        old: Vec<(Position, Bytes)>,
        new: Segment,
    ) -> Answer<bool> {
        let keys = Keys::new(name);
        self.ask(|inner| inner.store.replace_segments(&keys, old, new))
    }

    fn set_aside(&self, name: &DocumentName, update: Bytes, reason: String) -> Answer<()> {
        let mut entry = bincode::encode_to_vec(reason, config::standard()).expect("a text can be encoded");
        entry.extend_from_slice(&update);
        let keys = Keys::new(name);
        self.ask(|inner| inner.store.set_aside(&keys, entry.into(), MAX_SET_ASIDE))
    }

    fn list(&self, prefix: &str, after: &str, limit: usize) -> Answer<Vec<Listed>> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.ask(move |inner| async move { inner.list(&prefix, after, limit).await })
    }

    fn delete(&self, name: &DocumentName, keep_for: Duration) -> Answer<bool> {
        let name = name.clone();
        self.ask(move |inner| async move { inner.delete(&name, keep_for).await })
    }

    fn undelete(&self, name: &DocumentName) -> Answer<bool> {
        let name = name.clone();
        self.ask(|inner| async move { inner.undelete(&name).await })
    }

    fn create(&self, name: &DocumentName, first: Option<Bytes>) -> Answer<bool> {
        let name = name.clone();
        self.ask(|inner| async move { inner.create(&name, first).await })
    }

    fn exchange(&self, exchange: Exchange) -> Answer<Exchanged> {
        self.ask(|inner| inner.store.exchange(exchange))
    }

    fn follow(&self, name: &DocumentName) -> Feed {
        self.0.following.follow(Keys::new(name), self.0.written.load(Ordering::Relaxed))
    }

    fn tell(&self, name: &DocumentName, message: Bytes) {
        self.0.following.tell(&Keys::new(name), message);
    }

    fn append_spacing(&self) -> Duration {
        Duration::from_millis(25)
    }

    fn admit(&self, user: &str, limit: usize) -> Answer<Option<Counted>> {
        let user = user.to_owned();
        self.ask(move |inner| async move { Ok(inner.admit(&user, limit).await) })
    }

    fn away(&self) -> Option<String> {
        self.0.store.away()
    }

    fn nodes(&self) -> Nodes {
        self.0.following.known_nodes()
    }

    fn gaps(&self) -> u64 {
        self.0.following.gaps()
    }

    fn close(&self) -> Answer<()> {
        let inner = self.0.clone();
        inner.ongoing.close();
        Box::pin(async move {
            inner.ongoing.wait().await;
            inner.following.stop().await;
            inner.store.close().await
        })
    }
}

impl Inner {
    async fn load(self: &Arc<Self>, name: &DocumentName) -> Result<Stored, BackendError> {
        let keys = &Keys::new(name);
        let follower = self.following.get(keys);
        if follower.is_some() {
            // First of all, so that nothing falls between what is read and what is heard.
            self.store.subscribe(&keys.channel()).await?;
        }
        for _ in 0..TRIES {
            let mut kept = self.store.read(keys).await?;
            self.check_generation(follower.as_deref(), &kept)?;
            let known = follower.as_ref().map_or(0, |follower| follower.place().epoch());
            let epoch = known.max(kept.meta.epoch);
            // A log that was begun has an entry, whatever is dropped.
            let lost = epoch > 0 && kept.log.is_empty();
            if lost || kept.meta.epoch < known {
                // Redis has lost what there was. Who comes with older knowledge must notice.
                self.begin(name, epoch + u64::from(lost)).await?;
                kept = self.store.read(keys).await?;
            }
            let snapshot = match kept.meta.snapshot.as_str() {
                "" => None,
                key => match self.store.read_snapshot(key).await? {
                    Some(snapshot) => Some(snapshot),
                    // Another one has taken its place meanwhile.
                    None => continue,
                },
            };
            if let Some(follower) = &follower {
                self.following.loaded(follower, &kept);
                if !kept.log.is_empty() {
                    // It may be lacking, where a node died before it was there.
                    self.enlist_some_time(name);
                }
            }
            return Ok(stored(&kept, snapshot));
        }
        Err(BackendError::Store(format!("the snapshot of {} is gone", keys.meta())))
    }

    /// Refuses a document that is deleted, or another one than the follower has.
    fn check_generation(&self, follower: Option<&Follower>, kept: &Kept) -> Result<(), BackendError> {
        if kept.meta.deleted {
            return Err(BackendError::Deleted);
        }
        match follower.is_some_and(|follower| follower.place().is_before(kept.meta.epoch)) {
            true => Err(BackendError::Recreated),
            false => Ok(()),
        }
    }

    /// What no other record has.
    fn stamp(&self) -> Stamp {
        Stamp { run: self.run, number: self.written.fetch_add(1, Ordering::Relaxed) }
    }

    /// Begins a log where there is none, and answers the epoch in which it is.
    async fn begin(self: &Arc<Self>, name: &DocumentName, epoch: u64) -> Result<u64, BackendError> {
        let begun = self.store.begin(&Keys::new(name), epoch).await?.ok_or(BackendError::Deleted)?;
        self.enlist_some_time(name);
        Ok(begun)
    }

    async fn append(self: &Arc<Self>, name: &DocumentName, record: Bytes) -> Result<Appended, BackendError> {
        let keys = &Keys::new(name);
        let stamp = self.stamp();
        let large = record.len() > MAX_MESSAGE_BYTES;
        let envelope = Envelope { stamp, words: Words::Record(record) }.write();
        let message = match large {
            true => Envelope { stamp, words: Words::Notice }.write(),
            false => envelope.clone(),
        };
        let follower = self.following.get(keys);
        let mut epoch = match &follower {
            Some(follower) => follower.place().epoch(),
            None => self.begin(name, FIRST_EPOCH).await?,
        };
        for _ in 0..TRIES {
            match self.store.append(keys, epoch, envelope.clone(), message.clone()).await? {
                Append::Done { position, entries } => {
                    let gapless = match &follower {
                        Some(follower) => self.following.appended(follower, position, stamp),
                        None => Ok(true),
                    };
                    let gapless = gapless.map_err(|OtherLog| BackendError::Lost)?;
                    return Ok(Appended { position, gapless, records: Some(entries as usize) });
                }
                Append::NoLog if epoch == 0 => {
                    epoch = self.begin(name, FIRST_EPOCH).await?;
                    if let Some(follower) = &follower {
                        follower.place().began(epoch);
                    }
                }
                Append::NoLog | Append::OldEpoch => {
                    if let Some(follower) = &follower {
                        follower.place().doubt();
                    }
                    return Err(BackendError::Lost);
                }
            }
        }
        Err(BackendError::Store(format!("the log {} is gone whenever it is begun", keys.log())))
    }

    async fn read_segments(&self, keys: &Keys, through: Position) -> Result<Vec<Segment>, BackendError> {
        for _ in 0..TRIES {
            let mut segments = self.store.segments(keys).await?;
            segments.retain(|(position, _)| *position <= through);
            let positions = segments.iter().map(|(position, _)| *position).collect();
            let data = self.store.segment_data(keys, positions).await?;
            let found = segments.into_iter().zip(data);
            let found =
                found.map(|((through, about), data)| Some(Segment { through, about, data: data? })).collect();
            // Some may have become one meanwhile.
            if let Some(segments) = found {
                return Ok(segments);
            }
        }
        Err(BackendError::Store("the history changes again and again".to_owned()))
    }

    async fn compact(
        &self,
        keys: &Keys,
        through: Position,
        snapshot: Bytes,
        segment: Option<Segment>,
    ) -> Result<(), BackendError> {
        let follower = self.following.get(keys);
        for _ in 0..TRIES {
            let kept = self.store.read(keys).await?;
            self.check_generation(follower.as_deref(), &kept)?;
            let last = kept.log.last().map_or(kept.meta.through, |last| last.position);
            let through = through.min(last);
            let is_of_another = through.epoch >> GENERATION_SHIFT < kept.meta.epoch >> GENERATION_SHIFT;
            if through < kept.meta.through || kept.meta.epoch == 0 || is_of_another {
                return Ok(());
            }
            let stands_on = follower.as_ref().and_then(|follower| follower.place().stands_on());
            let kept_entries = kept.log.iter().filter(|entry| entry.position <= through);
            let keep_from =
                kept_entries.rev().take(KEEP_ENTRIES).last().map_or(through, |entry| entry.position);
            let commit = Commit {
                epoch: kept.meta.epoch,
                version: kept.meta.version,
                node: self.run,
                through,
                stands_on: stands_on.map(|(position, stamp)| (position, begin_record(stamp).into())),
                keep_from,
                snapshot: snapshot.clone(),
                segment: segment.clone(),
            };
            match self.store.commit(keys, commit).await? {
                Committed::Done => return Ok(()),
                Committed::Outrun => {}
                Committed::OtherLog => {
                    if let Some(follower) = &follower {
                        self.following.compare(follower);
                    }
                    return Err(BackendError::Lost);
                }
            }
        }
        Err(BackendError::Store("others' snapshots came first again and again".to_owned()))
    }
}

fn stored(kept: &Kept, snapshot: Option<Bytes>) -> Stored {
    let after = kept.log.iter().filter(|entry| entry.position > kept.meta.through);
    let log = after.filter_map(|entry| Some((entry.position, record(entry)?))).collect();
    let set_aside = kept.set_aside.iter().filter_map(|entry| {
        let limited = config::standard().with_limit::<MAX_HEADER_BYTES>();
        let read = bincode::decode_from_slice::<String, _>(entry, limited);
        let (_, length) =
            read.inspect_err(|error| warn!(%error, "what was set aside cannot be read")).ok()?;
        Some(entry.slice(length..))
    });
    Stored { snapshot, log, set_aside: set_aside.collect() }
}

/// The record in an entry of the log; `None` for one that begins an epoch.
fn record(entry: &Entry) -> Option<Bytes> {
    match Envelope::read(entry.envelope.clone()?) {
        Some(Envelope { words: Words::Record(record), .. }) => Some(record),
        _ => {
            error!(position = ?entry.position, "an entry of a log cannot be read; is another version of Quire at work?");
            None
        }
    }
}
