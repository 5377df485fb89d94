//! One run of the server: the real hub and what is under it, on a runtime whose clock stands still while nobody
//! waits. Killing it is dropping it.

use std::{sync::Arc, time::Duration};

use quire::{
    actor::{DocumentHandle, Surroundings},
    backend::{Backend, redis::Redis as RedisBackend},
    config::History,
    document::Document,
    hub::Hub,
    name::DocumentName,
    update::{ClientId, Clock},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

use super::{
    disk::{Disk, Trouble},
    redis::Redis,
};

/// What keeps the documents, and outlives the processes.
pub enum Store {
    /// Of one node alone.
    Disk(Disk),
    /// Of all nodes.
    Redis(Redis),
}

impl Store {
    /// The first clock of a client that was never written.
    pub fn written(&self, client: ClientId) -> Clock {
        match self {
            Self::Disk(disk) => disk.written(client),
            Self::Redis(redis) => redis.written(client),
        }
    }

    /// The document as it would be loaded now.
    pub fn document(&self) -> Result<Document, String> {
        match self {
            Self::Disk(disk) => disk.document(),
            Self::Redis(redis) => redis.document(),
        }
    }

    /// How bad it is from now on.
    pub fn set_trouble(&self, trouble: Trouble, lossy: u64) {
        match self {
            Self::Disk(disk) => disk.set_trouble(trouble),
            Self::Redis(redis) => redis.set_trouble(trouble, lossy),
        }
    }
}

/// One run of the server.
pub struct Process {
    pub runtime: Runtime,
    pub hub: Hub,
}

impl Process {
    /// A process of this node; `run` is the number of this run of it.
    pub fn start(store: &Store, node: usize, run: u64, idle: Duration) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime needs no more than memory");
        let backend: Arc<dyn Backend> = match store {
            Store::Disk(disk) => Arc::new(disk.clone()),
            Store::Redis(redis) => {
                Arc::new(RedisBackend::new(Arc::new(redis.link(node)), run, runtime.handle()))
            }
        };
        let history = Arc::new(History { off: true, ..History::default() });
        let around = Surroundings { idle, history, ..Surroundings::default() };
        let hub = Hub::new(backend, runtime.handle().clone(), around);
        Self { runtime, hub }
    }

    /// The one document.
    pub fn open(&self) -> Result<DocumentHandle, String> {
        let name = DocumentName::new("document").expect("it is a good name");
        self.hub.open(&name).map_err(|stopping| stopping.to_string())
    }

    /// Whether the document is open here.
    pub fn holds(&self) -> bool {
        self.hub.open_documents() > 0
    }

    /// Waits until the document that nobody uses has left memory; before, it makes a snapshot of a long log.
    pub fn rest(&self, within: Duration) -> Result<(), String> {
        self.runtime.block_on(async {
            let rested = async {
                while self.hub.open_documents() > 0 {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(within, rested).await.map_err(|_| "a document that nobody uses stays open".to_owned())
        })
    }

    pub fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Document) -> T + Send + 'static,
    ) -> Result<T, String> {
        let document = self.open()?;
        self.runtime.block_on(document.read(look)).map_err(|error| error.to_string())
    }
}
