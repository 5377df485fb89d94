//! How an actor begins: empty, so that mail can wait for it, and then with what the store has of its document.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::debug;

use super::{Actor, DocumentHandle, Surroundings, relay::Relay, vitals::Vitals};
use crate::{
    backend::{Backend, BackendError},
    capacity::Place,
    config::Limits,
    document::Document,
    end::End,
    name::DocumentName,
    presence::{self, Presence},
    protocol::relay::Relayed,
    saver::{self, LoadError, LogSize, Saver},
    webhooks::Teller,
};

impl Actor {
    /// An actor for a document that is not loaded yet, and the handle that reaches it.
    pub fn new(
        name: DocumentName,
        backend: Arc<dyn Backend>,
        around: Surroundings,
        place: Place,
    ) -> (DocumentHandle, Self) {
        let vitals = Arc::<Vitals>::default();
        let (handle, mailbox) = DocumentHandle::new(vitals.clone());
        let Limits { presences, presence_bytes, .. } = *around.limits;
        let shown = presence::Bounds { clients: presences, state_bytes: presence_bytes };
        let actor = Self {
            saver: Saver::new(
                name.clone(),
                backend.clone(),
                LogSize::default(),
                around.history.clone(),
                around.metrics.clone(),
                Teller::default(),
                around.troubles.clone(),
            ),
            around,
            name,
            backend,
            mailbox,
            document: Document::default(),
            relay: Relay::default(),
            presence: Presence::new(shown),
            members: HashMap::new(),
            lost: VecDeque::new(),
            vitals,
            place,
            measure_at: Instant::now(),
            // A document that is only looked at leaves at once.
            rest_at: Instant::now(),
            last_step_2: None,
            answers: VecDeque::new(),
            suspect: None,
            start: Instant::now(),
            look_through_at: Instant::now(),
        };
        (handle, actor)
    }

    /// Loads the document, or says how sessions end that want to join it.
    pub async fn load(&mut self) -> Result<(), End> {
        // Before it is loaded, so that nothing that comes meanwhile is missed.
        let feed = self.backend.follow(&self.name);
        let loaded = saver::load(&*self.backend, &self.name).await.map_err(|error| match error {
            LoadError::Backend(BackendError::Away(_)) => End::Away,
            LoadError::Backend(BackendError::Deleted) => End::Deleted,
            LoadError::Backend(BackendError::Recreated) => End::Recreated,
            error => End::Unreadable(error.to_string()),
        })?;
        let log = loaded.log;
        if !loaded.gaps.is_empty() && !feed.is_shared() {
            return Err(End::Unreadable("its log needs content that is not in the store".to_owned()));
        }
        debug!(records = log.records, bytes = log.bytes, gaps = loaded.gaps.len(), "document opened");
        self.document = loaded.document;
        if let Some(whole) = loaded.whole {
            self.note_whole(&whole);
        }
        self.document.limit_bytes(self.around.limits.document_bytes);
        self.relay = Relay::new(feed, loaded.gaps);
        let Surroundings { history, metrics, webhooks, troubles, .. } = self.around.clone();
        self.saver =
            Saver::new(self.name.clone(), self.backend.clone(), log, history, metrics, webhooks, troubles);
        self.rest_at = Instant::now();
        self.tell_nodes([Relayed::QueryAwareness]);
        Ok(())
    }
}
