//! The Sentinels, which know which Redis is the master. They are asked for every connection, and all the time: a
//! master that they have replaced takes writes, which will be lost, until it hears of it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{Client, ConnectionAddr, ConnectionInfo, Pipeline, RedisConnectionInfo};
use tokio::time::timeout;

use super::{address::sibling, checks::Obstacle};

/// How long one of them may take to answer: the next one knows the same.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Some Sentinels and the name of the master that they watch.
pub(super) struct Sentinels {
    all: Vec<ConnectionInfo>,
    master: String,
    /// With whom to begin.
    next: AtomicUsize,
    known: Mutex<Known>,
}

/// What was found last.
#[derive(Default)]
struct Known {
    epoch: u64,
    address: Option<ConnectionAddr>,
}

/// What a Sentinel says about all masters that it watches.
type Masters = Vec<HashMap<String, String>>;

/// What a Sentinel says about a master.
struct Master {
    host: String,
    port: u16,
    /// Grows with every election.
    epoch: u64,
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.all.iter().map(|sentinel| sentinel.addr().to_string()).collect();
        write!(f, "{} of the Sentinels {}", self.master, all.join(", "))
    }
}

impl Sentinels {
    /// These, which watch a master with this name.
    pub(super) fn new(all: Vec<ConnectionInfo>, master: &str) -> Self {
        Self { all, master: master.to_owned(), next: AtomicUsize::new(0), known: Mutex::default() }
    }

    /// Where the master is. A Sentinel that wants a password is given that of Redis.
    pub(super) async fn master(&self, node: &ConnectionInfo) -> Result<ConnectionAddr, Obstacle> {
        let begin = self.next.fetch_add(1, Relaxed);
        let known = self.known().epoch;
        let (mut best, mut obstacle) = (None::<Master>, None);
        for index in 0..self.all.len() {
            let sentinel = &self.all[(begin + index) % self.all.len()];
            match self.ask_with_or_without_password(sentinel, node).await {
                Ok(Some(master)) if best.as_ref().is_none_or(|best| best.epoch < master.epoch) => {
                    let is_new = master.epoch >= known;
                    best = Some(master);
                    // One that is cut off from the others knows an old master.
                    if is_new {
                        break;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => obstacle = Some(Obstacle::NoMaster(self.master.clone())),
                Err(error) => obstacle = obstacle.or(Some(error)),
            }
        }
        let Some(master) = best else {
            return Err(obstacle.unwrap_or_else(|| Obstacle::NoMaster(self.master.clone())));
        };
        let address = sibling(node.addr(), &master.host, master.port);
        *self.known() = Known { epoch: master.epoch, address: Some(address.clone()) };
        Ok(address)
    }

    /// Whether the master is another one than the last that was found.
    pub(super) async fn has_another_master(&self, node: &ConnectionInfo) -> bool {
        let Some(before) = self.known().address.clone() else { return false };
        self.master(node).await.is_ok_and(|now| now != before)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("it is only set while it is locked")
    }

    async fn ask_with_or_without_password(
        &self,
        sentinel: &ConnectionInfo,
        node: &ConnectionInfo,
    ) -> Result<Option<Master>, Obstacle> {
        match self.ask(sentinel.clone()).await {
            Err(Obstacle::Refused(_)) if node.redis_settings().password().is_some() => {
                // It has no databases.
                let settings = node.redis_settings();
                let mut with_password = RedisConnectionInfo::default().set_protocol(settings.protocol());
                if let Some(user) = settings.username() {
                    with_password = with_password.set_username(user);
                }
                if let Some(password) = settings.password() {
                    with_password = with_password.set_password(password);
                }
                self.ask(sentinel.clone().set_redis_settings(with_password)).await
            }
            answer => answer,
        }
    }

    async fn ask(&self, sentinel: ConnectionInfo) -> Result<Option<Master>, Obstacle> {
        let name = sentinel.addr().to_string();
        let asking = async {
            let mut wire = Client::open(sentinel)?.get_multiplexed_async_connection().await?;
            let mut commands = Pipeline::new();
            // The first says who is to be asked from now on already while the others learn it.
            commands.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
            commands.cmd("SENTINEL").arg("MASTERS");
            commands.query_async(&mut wire).await
        };
        match timeout(ASK_TIMEOUT, asking).await {
            Ok(answer) => {
                let (address, masters): (Option<(String, u16)>, Masters) = answer?;
                let named = |master: &&HashMap<_, _>| master.get("name") == Some(&self.master);
                let epoch =
                    masters.iter().find(named).and_then(|master| master.get("config-epoch")?.parse().ok());
                Ok(address.map(|(host, port)| Master { host, port, epoch: epoch.unwrap_or_default() }))
            }
            Err(_) => Err(Obstacle::Unreachable(format!("the Sentinel {name} does not answer"))),
        }
    }
}
