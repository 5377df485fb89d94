//! What comes by itself: the documents that are followed, what is heard of them, and what makes up for what was
//! not heard. Nothing here waits for a document: where its inbox is full, the log is read later.

mod tasks;

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep},
};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    super::{Feed, Incoming, NodeId, Nodes as KnownNodes, Position},
    envelope::{Envelope, Stamp, Words, split_message},
    nodes::Nodes,
    place::{Heard, OtherLog, Own, Place},
    record,
    store::{Entry, Event, Kept, Keys, Store},
};

/// What may wait for one document; of records, each below 16 KiB.
const MAX_INCOMING: usize = 64;
/// Entries that are read at once.
const READ_ENTRIES: usize = 128;
/// Logs that are read at the same time after a connection was lost.
const READERS: usize = 64;
/// How long after a failure a log is read again.
const RETRY: Duration = Duration::from_secs(1);
/// How long after the last of a burst of edits the others are told how far the log goes: the last message may have
/// been lost, and no other would show it.
const PROBE_AFTER: Duration = Duration::from_millis(500);
/// Messages that wait to be told; more are dropped.
const MAX_TOLD: usize = 4_096;
/// Appends that wait for their probe; of more, none is made.
const MAX_PROBES: usize = 65_536;
/// How often a node that seems to be alone with a document tells the others all the same.
const TELL_ALONE: Duration = Duration::from_secs(8);
/// Within what time nodes compare that all found out at once that they must.
const COMPARE_WITHIN: u64 = 2_000;

/// All documents that are followed.
pub(super) struct Following {
    store: Arc<dyn Store>,
    run: u64,
    runtime: Handle,
    followers: Mutex<HashMap<Bytes, Arc<Follower>>>,
    nodes: Mutex<Nodes>,
    told: mpsc::Sender<(String, Bytes)>,
    probes: mpsc::Sender<(Instant, Weak<Follower>, Position)>,
    tasks: Mutex<Vec<AbortHandle>>,
    gaps: AtomicU64,
}

/// One document that is followed.
pub(super) struct Follower {
    keys: Keys,
    channel: Bytes,
    incoming: mpsc::Sender<Incoming>,
    place: Mutex<Place>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// Whether nobody else seemed to hear what was told last, and when that was.
    alone: bool,
    at: Option<Instant>,
    /// The last append that is known of.
    appended: Position,
}

impl Follower {
    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nothing panics while it holds this lock")
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nothing panics while it holds this lock")
    }

    /// The channel was not heard for a while: others may follow the document by now.
    fn missed(&self) {
        self.told().alone = false;
    }
}

/// Ends the following of a document when its feed is dropped.
struct Guard {
    following: Arc<Following>,
    follower: Arc<Follower>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut followers = self.following.followers();
        // A successor may follow the document by now.
        if followers.get(&self.follower.channel).is_some_and(|known| Arc::ptr_eq(known, &self.follower)) {
            followers.remove(&self.follower.channel);
            self.following.store.unsubscribe(&self.follower.keys.channel());
        }
    }
}

impl Following {
    /// Begins to listen, and all that is done by itself.
    pub(super) fn start(store: Arc<dyn Store>, run: u64, runtime: &Handle) -> Arc<Self> {
        let (told, to_tell) = mpsc::channel(MAX_TOLD);
        let (probes, to_probe) = mpsc::channel(MAX_PROBES);
        let nodes = Mutex::new(Nodes::new(run));
        let following = Arc::new(Self {
            store: store.clone(),
            run,
            runtime: runtime.clone(),
            followers: Mutex::default(),
            nodes,
            told,
            probes,
            tasks: Mutex::default(),
            gaps: AtomicU64::new(0),
        });
        let listening = Arc::downgrade(&following);
        store.listen(Arc::new(move |event| {
            if let Some(following) = listening.upgrade() {
                following.hear(event);
            }
        }));
        let tasks = [
            runtime.spawn(tasks::tell(Arc::downgrade(&following), to_tell)).abort_handle(),
            runtime.spawn(tasks::probe(Arc::downgrade(&following), to_probe)).abort_handle(),
            runtime.spawn(tasks::scrub(Arc::downgrade(&following))).abort_handle(),
            runtime.spawn(tasks::renew(Arc::downgrade(&following))).abort_handle(),
        ];
        following.tasks.lock().expect("nothing panics while it holds this lock").extend(tasks);
        following
    }

    /// Stops all that, and gives the lease up.
    pub(super) async fn stop(&self) {
        let tasks = mem::take(&mut *self.tasks.lock().expect("nothing panics while it holds this lock"));
        tasks.iter().for_each(AbortHandle::abort);
        let incarnation = self.nodes().incarnation();
        // Where it fails, the lease ends by itself.
        let _ = self.store.end_lease(incarnation).await;
    }

    pub(super) fn follow(self: &Arc<Self>, keys: Keys, since: u64) -> Feed {
        let (incoming, feed) = mpsc::channel(MAX_INCOMING);
        let channel = Bytes::from(keys.channel());
        let follower = Arc::new(Follower {
            keys,
            channel: channel.clone(),
            incoming,
            place: Mutex::new(Place::new(Own { run: self.run, since })),
            told: Mutex::default(),
        });
        self.followers().insert(channel, follower.clone());
        Feed::new(feed, Guard { following: self.clone(), follower })
    }

    pub(super) fn get(&self, keys: &Keys) -> Option<Arc<Follower>> {
        self.followers().get(keys.channel().as_bytes()).cloned()
    }

    /// How often something of a log was missing and had to be read.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// This node and the others, for people to look at.
    pub(super) fn known_nodes(&self) -> KnownNodes {
        self.nodes().known()
    }

    fn followers(&self) -> MutexGuard<'_, HashMap<Bytes, Arc<Follower>>> {
        self.followers.lock().expect("nothing panics while it holds this lock")
    }

    /// The number under which this node tells now, and those of the others that are alive.
    pub(super) fn this_and_alive(&self) -> (u64, Vec<u64>) {
        let mut nodes = self.nodes();
        (nodes.incarnation(), nodes.alive())
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().expect("nothing panics while it holds this lock")
    }

    fn hear(self: &Arc<Self>, event: Event) {
        match event {
            Event::Message { channel, payload } => {
                let follower = self.followers().get(&channel).cloned();
                let message = split_message(payload)
                    .and_then(|(position, words)| Some((position, Envelope::read(words)?)));
                if let (Some(follower), Some((position, envelope))) = (follower, message) {
                    self.hear_message(&follower, position, envelope);
                }
            }
            Event::Missed { channel } => {
                if let Some(follower) = self.followers().get(&channel).cloned() {
                    follower.missed();
                    self.spawn_catch_up(vec![follower]);
                }
            }
            Event::MissedAll => {
                let followers: Vec<_> = self.followers().values().cloned().collect();
                followers.iter().for_each(|follower| follower.missed());
                self.spawn_catch_up(followers);
            }
        }
    }

    fn hear_message(self: &Arc<Self>, follower: &Arc<Follower>, position: Option<Position>, said: Envelope) {
        let stamp = said.stamp;
        if stamp.run != self.run {
            follower.told().alone = false;
        }
        match (position, said.words) {
            (Some(position), Words::Record(record)) => {
                // Before anything is concluded, since what cannot be handed over must be read.
                let Ok(space) = follower.incoming.try_reserve() else {
                    return self.read_if(follower, |place| place.hear_head(position));
                };
                let mut place = follower.place();
                let heard = place.hear(position, stamp);
                let through = place.through();
                match heard {
                    Heard::HandOver => space.send(Incoming::Records { records: vec![record], through }),
                    Heard::Nothing => {}
                    Heard::OtherDocument => {
                        drop(place);
                        self.compare_at_once(follower);
                    }
                    Heard::Unclear => {
                        self.gaps.fetch_add(1, Ordering::Relaxed);
                        drop(place);
                        self.read_if(follower, |_| true);
                    }
                    Heard::OtherLog => {
                        space.send(Incoming::Records { records: vec![record], through });
                        drop(place);
                        self.compare(follower);
                    }
                }
            }
            (Some(position), Words::Notice) => {
                let heard = follower.place().hear_of(position, stamp);
                match heard {
                    Heard::OtherLog => self.compare(follower),
                    _ => self.read_if(follower, |_| heard == Heard::Unclear),
                }
            }
            (None, Words::Deleted) => self.compare_at_once(follower),
            // The last message of a burst was lost.
            (None, Words::Head(position)) => self.read_if(follower, |place| {
                let missing = place.hear_head(position);
                self.gaps.fetch_add(missing.into(), Ordering::Relaxed);
                missing
            }),
            (None, Words::Told(incarnation, message)) => {
                // Our own, under whatever number, is known here already.
                if stamp.run != self.run && !self.nodes().is_dead(incarnation) {
                    // An error: the inbox is full, and what is told may get lost.
                    let _ = follower.incoming.try_send(Incoming::Told { node: NodeId(incarnation), message });
                }
            }
            _ => warn!(document = ?follower.keys, "something without sense was heard"),
        }
    }

    /// The document was loaded.
    pub(super) fn loaded(self: &Arc<Self>, follower: &Arc<Follower>, kept: &Kept) {
        self.read_if(follower, |place| place.loaded(kept));
    }

    /// An entry of ours is in the log. Answers whether a snapshot may go through it.
    pub(super) fn appended(
        self: &Arc<Self>,
        follower: &Arc<Follower>,
        position: Position,
        stamp: Stamp,
    ) -> Result<bool, OtherLog> {
        let mut next = Err(OtherLog);
        self.read_if(follower, |place| {
            next = place.appended(position, stamp);
            next == Ok(false)
        });
        let next = next?;
        // What was handed over and not taken yet is not in a snapshot.
        let taken = follower.incoming.capacity() == MAX_INCOMING;
        follower.told().appended = position;
        let probe = (Instant::now() + PROBE_AFTER, Arc::downgrade(follower), position);
        // An error: too many wait, and the next look at all logs finds what was lost.
        let _ = self.probes.try_send(probe);
        Ok(next && taken)
    }

    /// The document must be compared with what is stored.
    pub(super) fn compare(&self, follower: &Arc<Follower>) {
        let after = xxh3_64_with_seed(&follower.channel, self.run) % COMPARE_WITHIN;
        self.compare_after(follower, Duration::from_millis(after));
    }

    /// The same at once, since it may have been deleted: then there is little to read.
    pub(super) fn compare_at_once(&self, follower: &Arc<Follower>) {
        self.compare_after(follower, Duration::ZERO);
    }

    fn compare_after(&self, follower: &Arc<Follower>, after: Duration) {
        follower.place().doubt();
        let compare = Incoming::Compare { after };
        if let Err(mpsc::error::TrySendError::Full(compare)) = follower.incoming.try_send(compare) {
            let incoming = follower.incoming.clone();
            self.runtime.spawn(async move { incoming.send(compare).await });
        }
    }

    /// Tells those who follow a document.
    pub(super) fn tell(&self, keys: &Keys, message: Bytes) {
        let channel = keys.channel();
        if let Some(follower) = self.followers().get(channel.as_bytes()) {
            let mut told = follower.told();
            if told.alone && told.at.is_some_and(|at| at.elapsed() < TELL_ALONE) {
                return;
            }
            told.at = Some(Instant::now());
        }
        let stamp = Stamp { run: self.run, number: 0 };
        let words = Words::Told(self.nodes().incarnation(), message);
        // An error: more waits than may.
        let _ = self.told.try_send((channel, said(&Envelope { stamp, words })));
    }

    /// Reads the log from where the follower stands, if this says so.
    fn read_if(self: &Arc<Self>, follower: &Arc<Follower>, is_worth_it: impl FnOnce(&mut Place) -> bool) {
        let mut place = follower.place();
        if is_worth_it(&mut place)
            && let Some(from) = place.begin_reading()
        {
            self.runtime.spawn(read_log_from(from, Arc::downgrade(self), follower.clone()));
        }
    }

    /// Looks at the logs of these after something may have been missed of them.
    fn spawn_catch_up(self: &Arc<Self>, followers: Vec<Arc<Follower>>) {
        let following = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let all = stream::iter(followers).map(|follower| {
                let following = following.clone();
                async move {
                    // What was told meanwhile is lost too.
                    let _ = follower.incoming.send(Incoming::Missed).await;
                    read_log(following, follower).await;
                }
            });
            all.buffer_unordered(READERS).for_each(|()| std::future::ready(())).await;
        });
    }
}

/// The bytes of what is said on a channel without being in a log.
pub(super) fn said(envelope: &Envelope) -> Bytes {
    [b"|", &envelope.write()[..]].concat().into()
}

/// Reads a log from where its follower stands, and hands over what is new. Tries until it can.
async fn read_log(following: Weak<Following>, follower: Arc<Follower>) {
    let from = follower.place().begin_reading();
    if let Some(from) = from {
        read_log_from(from, following, follower).await;
    }
}

async fn read_log_from(mut from: Position, following: Weak<Following>, follower: Arc<Follower>) {
    loop {
        let Some(following) = following.upgrade() else { return };
        if follower.incoming.is_closed() {
            return;
        }
        let Ok(entries) = following.store.read_log(&follower.keys, from, READ_ENTRIES).await else {
            drop(following);
            sleep(RETRY).await;
            continue;
        };
        let more = entries.len() == READ_ENTRIES;
        let read = follower.place().read(&entries, more).map(<[Entry]>::to_vec);
        let Ok(new) = read else { return following.compare(&follower) };
        if let Some(last) = new.last() {
            let others = new.iter().filter(|entry| is_others(&follower, entry));
            let records = others.filter_map(record).collect();
            let records = Incoming::Records { records, through: last.position };
            if follower.incoming.send(records).await.is_err() {
                return;
            }
        }
        match follower.place().handed_over(&new, more) {
            Some(place) => from = place,
            None => return,
        }
    }
}

fn is_others(follower: &Follower, entry: &Entry) -> bool {
    let envelope = entry.envelope.clone().and_then(Envelope::read);
    envelope.is_some_and(|envelope| follower.place().is_others(envelope.stamp))
}
