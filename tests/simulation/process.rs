//! One run of the server: the real hub and what is under it, on a runtime whose clock stands still while nobody
//! waits. Killing it is dropping it.

use std::{sync::Arc, time::Duration};

use quire::{actor::DocumentHandle, document::Document, hub::Hub, name::DocumentName};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

use super::disk::Disk;

/// One run of the server.
pub struct Process {
    pub runtime: Runtime,
    pub hub: Hub,
}

impl Process {
    pub fn start(disk: &Disk, idle: Duration) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime needs no more than memory");
        let hub = Hub::new(Arc::new(disk.clone()), runtime.handle().clone(), idle);
        Self { runtime, hub }
    }

    /// The one document.
    pub fn open(&self) -> Result<DocumentHandle, String> {
        let name = DocumentName::new("document").expect("it is a good name");
        self.hub.open(&name).map_err(|stopping| stopping.to_string())
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
