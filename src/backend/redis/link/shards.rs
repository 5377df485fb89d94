//! The masters that there are, one or those of a cluster, and which of them has what. A cluster moves slots and
//! elects masters as it likes: its nodes are asked how it is now whenever something does not fit.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{Value, cmd};
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::store::Listener,
    address::{Address, Deployment},
    checks::{self, Obstacle},
    keeper::{Keeper, random},
    line::Failure,
    scripts::Scripts,
    slots::{Range, SLOTS, read_ranges, slot_of},
};

/// How often the nodes of a cluster are asked when all seems well.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long they are left alone at least.
const ASK_AT_MOST_EVERY: Duration = Duration::from_millis(200);
/// The masters.
pub(super) struct Shards {
    map: RwLock<Map>,
    /// Nodes of the cluster to begin with; none where there is no cluster.
    seeds: Vec<Address>,
    shared: Shared,
    /// With whom to begin asking.
    next: AtomicUsize,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What all keepers have in common.
#[derive(Default, Clone)]
pub(super) struct Shared {
    /// Where what is heard goes.
    pub(super) listener: Arc<OnceLock<Listener>>,
    /// Told when something does not fit to what is known of the cluster.
    pub(super) wrong: Arc<Notify>,
}

struct Map {
    keepers: Vec<Arc<Keeper>>,
    /// The index of the keeper of each slot; empty where there is only one.
    slots: Vec<usize>,
}

impl Map {
    fn keeper(&self, key: &str) -> &Arc<Keeper> {
        &self.keepers[if self.slots.is_empty() { 0 } else { self.slots[usize::from(slot_of(key))] }]
    }
}

impl Shards {
    /// Connects, and sees whether what is there can be used.
    pub(super) async fn open(deployment: Deployment, scripts: &Scripts) -> Result<Arc<Self>, Obstacle> {
        let mut shards = Self {
            map: RwLock::new(Map { keepers: Vec::new(), slots: Vec::new() }),
            seeds: Vec::new(),
            shared: Shared::default(),
            next: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        };
        match deployment {
            Deployment::One(address) => {
                let keeper = Arc::new(Keeper::new(*address, shards.shared.clone()));
                keeper.open(scripts, &random_key()).await?;
                shards.keep(&keeper);
                shards.map.get_mut().expect("nobody had it yet").keepers.push(keeper);
                Ok(Arc::new(shards))
            }
            Deployment::Cluster(seeds) => {
                shards.seeds = seeds;
                shards.open_cluster(scripts).await?;
                let shards = Arc::new(shards);
                let refreshed = shards.clone();
                shards.spawn(async move { refreshed.refresh_for_ever().await });
                Ok(shards)
            }
        }
    }

    /// Who has this key or channel.
    pub(super) fn keeper(&self, key: &str) -> Arc<Keeper> {
        self.map().keeper(key).clone()
    }

    /// Wants a channel; see [`Channels::want`](super::channels::Channels::want).
    pub(super) fn want(&self, channel: &str) -> Option<oneshot::Receiver<()>> {
        // Within the lock, so that it does not come to a keeper whose channels were taken over.
        self.map().keeper(channel).channels.want(channel)
    }

    /// Wants a channel no longer.
    pub(super) fn leave(&self, channel: &str) {
        self.map().keeper(channel).channels.leave(channel);
    }

    /// Says where what is heard goes. The first one stays.
    pub(super) fn listen(&self, listener: Listener) {
        let _ = self.shared.listener.set(listener);
    }

    /// Why some commands fail at once; `None` where none does.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.map().keepers.iter().find_map(|keeper| keeper.command.failure())
    }

    /// Closes all connections; the answer comes when all tasks have ended.
    pub(super) fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stopping.cancel();
        self.tasks.close();
        self.map().keepers.iter().for_each(|keeper| keeper.close());
        let tasks = self.tasks.clone();
        async move { tasks.wait().await }
    }

    async fn open_cluster(&self, scripts: &Scripts) -> Result<(), Obstacle> {
        let ranges = self.ask_seeds().await?;
        let all = ranges.iter().map(|range| usize::from(range.last - range.first) + 1).sum::<usize>();
        if all != SLOTS {
            return Err(Obstacle::Other(format!("the cluster has nodes for {all} of its {SLOTS} slots")));
        }
        self.apply(ranges, false);
        let keepers = self.map().keepers.clone();
        let mut obstacle = None;
        for keeper in &keepers {
            let key = std::iter::repeat_with(random_key).find(|key| Arc::ptr_eq(&self.keeper(key), keeper));
            match keeper.open(scripts, &key.expect("it has a slot")).await {
                Ok(()) => {}
                // The cluster will elect another one in its place.
                Err(Obstacle::Unreachable(why)) => obstacle = Some(Obstacle::Unreachable(why)),
                Err(obstacle) => return Err(obstacle),
            }
        }
        if keepers.iter().all(|keeper| keeper.command.failure().is_some()) {
            return Err(obstacle.unwrap_or_else(|| Obstacle::Other("the cluster has no nodes".to_owned())));
        }
        keepers.iter().for_each(|keeper| self.keep(keeper));
        Ok(())
    }

    async fn refresh_for_ever(&self) {
        loop {
            // Either way it is time.
            let _ = timeout(ASK_EVERY, self.shared.wrong.notified()).await;
            if let Some(ranges) = self.ask().await {
                self.apply(ranges, true);
            }
            sleep(ASK_AT_MOST_EVERY).await;
        }
    }

    /// Asks one node after the other how the cluster is.
    async fn ask(&self) -> Option<Vec<Range>> {
        let keepers = self.map().keepers.clone();
        let begin = self.next.fetch_add(1, Relaxed);
        for index in 0..keepers.len() {
            let keeper = &keepers[(begin + index) % keepers.len()];
            let answer = keeper.command.ask::<Value>(cmd("CLUSTER").arg("SLOTS")).await;
            if let Some(ranges) = answer.ok().and_then(|answer| read_ranges(answer, &keeper.address)) {
                return Some(ranges);
            }
        }
        self.ask_seeds().await.ok()
    }

    async fn ask_seeds(&self) -> Result<Vec<Range>, Obstacle> {
        let mut obstacle = Obstacle::Other("no node of the cluster is given".to_owned());
        for seed in &self.seeds {
            let asking = async {
                let mut wire = seed.connect(Arc::new(|_| {})).await?;
                checks::within(cmd("CLUSTER").arg("SLOTS").query_async(&mut wire)).await
            };
            match asking.await.map(|answer| read_ranges(answer, seed)) {
                Ok(Some(ranges)) => return Ok(ranges),
                Ok(None) => obstacle = Obstacle::Other("a node does not say how its cluster is".to_owned()),
                Err(error) => obstacle = error,
            }
        }
        Err(obstacle)
    }

    /// Takes over how the cluster is now. A slot that nobody has stays with whom it was.
    fn apply(&self, ranges: Vec<Range>, keep: bool) {
        let mut map = self.map.write().expect("nothing panics while the map is written");
        let mut keepers = map.keepers.clone();
        let mut slots = map.slots.clone();
        slots.resize(SLOTS, 0);
        for Range { first, last, master } in ranges {
            let name = master.name();
            let known = keepers.iter().position(|keeper| keeper.address.name() == name);
            let index = known.unwrap_or_else(|| {
                keepers.push(Arc::new(Keeper::new(master, self.shared.clone())));
                keepers.len() - 1
            });
            slots[usize::from(first)..=usize::from(last)].fill(index);
        }
        if slots == map.slots {
            return;
        }
        let mut used: Vec<usize> = slots.clone();
        used.sort_unstable();
        used.dedup();
        let is_new = |index: usize| index >= map.keepers.len();
        used.iter().filter(|&&index| keep && is_new(index)).for_each(|&index| self.keep(&keepers[index]));
        slots.iter_mut().for_each(|slot| *slot = used.binary_search(slot).expect("it is used"));
        let before = std::mem::replace(
            &mut *map,
            Map { keepers: used.iter().map(|&index| keepers[index].clone()).collect(), slots },
        );
        for keeper in before.keepers {
            for channel in keeper.channels.take(|channel| !Arc::ptr_eq(map.keeper(channel), &keeper)) {
                map.keeper(&channel.name).channels.put(channel);
            }
            if !map.keepers.iter().any(|kept| Arc::ptr_eq(kept, &keeper)) {
                keeper.retire();
            }
        }
    }

    fn keep(&self, keeper: &Arc<Keeper>) {
        let keeper = keeper.clone();
        self.spawn(async move {
            keeper.ended.run_until_cancelled(keeper.keep_all()).await;
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move { stopping.run_until_cancelled(task).await });
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().expect("nothing panics while the map is written")
    }
}

/// A key of ours in any slot.
fn random_key() -> String {
    format!("quire:probe:{:x}", random())
}
