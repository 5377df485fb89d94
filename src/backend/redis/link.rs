//! The supervised connections to Redis, which are the real [`Store`]. Its promise is that every command ends within
//! seconds, whatever happens to Redis or to the network, and that a listener never believes to hear what it does
//! not hear: the client library's own reconnection knows neither.

mod address;
mod channels;
mod checks;
mod commands;
mod keeper;
mod line;
mod queue;
mod scripts;
mod sentinel;
mod shards;
mod slots;
mod snapshot;
mod wire;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

pub use self::checks::Obstacle;
use self::{address::Deployment, commands::Commands, line::Failure, scripts::Scripts, shards::Shards};
use super::{
    super::{Answer, BackendError, Exchange, Exchanged, Position, Segment},
    store::{Append, Commit, Committed, Entry, Kept, Keys, Leases, Listener, Size, Store},
};
use crate::name::DocumentName;

/// How long it may take until a channel is heard for the first time.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A link to Redis: three connections, for small commands, for large ones, and for channels, each made anew for as
/// long as it takes when it is lost. Dropping it ends it too.
pub struct Link {
    commands: Arc<Commands>,
}

/// A Redis that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use Redis at {address}: {obstacle}")]
pub struct ConnectError {
    /// Where it is, without the password.
    pub address: String,
    /// What is in the way.
    pub obstacle: Obstacle,
}

impl Link {
    /// Connects to the Redis at a URL, and sees whether Quire can use it:
    ///
    /// * `redis://host:port`, with `user:password@` before the host and `/database` behind the port where they are
    ///   needed; `redis+unix:///path/to/socket` for a socket;
    /// * `redis-sentinel://host:port,host:port/master` for the master with this name, which some Sentinels know;
    /// * `redis-cluster://host:port,host:port` for a cluster with these nodes and others;
    /// * `rediss://`, `rediss-sentinel://` and `rediss-cluster://` for TLS. What this machine trusts is trusted, and where the variable
    ///   `SSL_CERT_FILE` is set, what stands in that file.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let deployment = Deployment::read(url)
            .map_err(|obstacle| ConnectError { address: "the given URL".to_owned(), obstacle })?;
        let address = deployment.name();
        let scripts = Scripts::new(matches!(deployment, Deployment::Cluster(_)));
        match Shards::open(deployment, &scripts).await {
            Ok(shards) => Ok(Self { commands: Arc::new(Commands { shards, scripts }) }),
            Err(obstacle) => Err(ConnectError { address, obstacle }),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.commands.shards.close());
    }
}

impl Store for Link {
    fn listen(&self, listener: Listener) {
        self.commands.shards.listen(listener);
    }

    fn append(&self, keys: &Keys, epoch: u64, envelope: Bytes, message: Bytes) -> Answer<Append> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.append(&keys, epoch, &envelope, &message).await })
    }

    fn begin(&self, keys: &Keys, epoch: u64) -> Answer<Option<u64>> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.begin(&keys, epoch).await })
    }

    fn delete(&self, keys: &Keys, keep_for: Duration, message: Bytes) -> Answer<bool> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.delete(&keys, keep_for, &message).await })
    }

    fn undelete(&self, keys: &Keys) -> Answer<bool> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.undelete(&keys).await })
    }

    fn create(&self, keys: &Keys, envelope: Option<Bytes>) -> Answer<bool> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.create(&keys, envelope.as_deref()).await })
    }

    fn enlist(&self, name: &DocumentName, is_there: bool) -> Answer<()> {
        let (commands, name) = (self.commands.clone(), name.clone());
        answer(async move { commands.enlist(name.as_str(), is_there).await })
    }

    fn names(&self, prefix: &str, after: &str, limit: usize) -> Answer<Vec<String>> {
        let (commands, prefix, after) = (self.commands.clone(), prefix.to_owned(), after.to_owned());
        answer(async move { commands.names(&prefix, &after, limit).await })
    }

    fn size(&self, keys: &Keys) -> Answer<Option<Size>> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.size(&keys).await })
    }

    fn read(&self, keys: &Keys) -> Answer<Kept> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.read(&keys).await })
    }

    fn read_snapshot(&self, key: &str) -> Answer<Option<Bytes>> {
        let (commands, key) = (self.commands.clone(), key.to_owned());
        answer(async move { commands.read_snapshot(&key).await })
    }

    fn read_log(&self, keys: &Keys, from: Position, count: usize) -> Answer<Vec<Entry>> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.read_log(&keys, from, count).await })
    }

    fn commit(&self, keys: &Keys, commit: Commit) -> Answer<Committed> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.commit(&keys, &commit).await })
    }

    fn segments(&self, keys: &Keys) -> Answer<Vec<(Position, Bytes)>> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.segments(&keys).await })
    }

    fn segment_data(&self, keys: &Keys, segments: Vec<Position>) -> Answer<Vec<Option<Bytes>>> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.segment_data(&keys, &segments).await })
    }

    fn replace_segments(&self, keys: &Keys, old: Vec<(Position, Bytes)>, new: Segment) -> Answer<bool> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.replace_segments(&keys, &old, &new).await })
    }

    fn set_aside(&self, keys: &Keys, entry: Bytes, keep: u32) -> Answer<()> {
        let (commands, keys) = (self.commands.clone(), keys.clone());
        answer(async move { commands.set_aside(&keys, &entry, keep).await })
    }

    fn exchange(&self, exchange: Exchange) -> Answer<Exchanged> {
        let commands = self.commands.clone();
        answer(async move { commands.exchange(&exchange).await })
    }

    fn publish(&self, channel: &str, message: Bytes) -> Answer<u64> {
        let (commands, channel) = (self.commands.clone(), channel.to_owned());
        answer(async move { commands.publish(&channel, &message).await })
    }

    fn subscribe(&self, channel: &str) -> Answer<()> {
        let (commands, channel) = (self.commands.clone(), channel.to_owned());
        let hears = commands.shards.want(&channel);
        answer(async move {
            let Some(hears) = hears else { return Ok(()) };
            match timeout(SUBSCRIBE_TIMEOUT, hears).await {
                Ok(Ok(())) => Ok(()),
                _ => Err(commands.shards.keeper(&channel).subscriber.failure().unwrap_or_else(|| {
                    Failure::Away(format!("Redis did not confirm a channel within {SUBSCRIBE_TIMEOUT:?}"))
                })),
            }
        })
    }

    fn unsubscribe(&self, channel: &str) {
        self.commands.shards.leave(channel);
    }

    fn lease(&self, node: u64) -> Answer<Leases> {
        let commands = self.commands.clone();
        answer(async move { commands.lease(node).await })
    }

    fn end_lease(&self, node: u64) -> Answer<()> {
        let commands = self.commands.clone();
        answer(async move { commands.end_lease(node).await })
    }

    fn admit(&self, user: &str, node: u64, live: &[u64], limit: u32) -> Answer<bool> {
        let (commands, user, live) = (self.commands.clone(), user.to_owned(), live.to_owned());
        answer(async move { commands.admit(&user, node, &live, limit).await })
    }

    fn dismiss(&self, user: &str, node: u64, last: bool) -> Answer<()> {
        let (commands, user) = (self.commands.clone(), user.to_owned());
        answer(async move { commands.dismiss(&user, node, last).await })
    }

    fn away(&self) -> Option<String> {
        self.commands.shards.failure().map(|failure| failure.to_string())
    }

    fn close(&self) -> Answer<()> {
        let closed = self.commands.shards.close();
        answer(async move {
            closed.await;
            Ok(())
        })
    }
}

fn answer<T>(answer: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Answer<T> {
    Box::pin(async move { answer.await.map_err(BackendError::from) })
}
