//! Webhooks: an application is told of what happens to documents. Who has something to tell leaves it in a mailbox and
//! goes on; one task puts it into the store's queue, from which any node tells it, over restarts and as often as it takes
//! for some days.

mod delivery;
pub mod event;
mod pending;
mod receiver;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use self::{
    delivery::Delivery,
    event::{Event, What},
    receiver::Receiver,
};
use crate::{
    backend::Backend,
    config::{self, ConfigError},
    metrics::Metrics,
    name::DocumentName,
};

/// Events that may wait for the task.
const MAX_EVENTS: usize = 16 * 1024;

/// The task that tells.
pub struct Webhooks {
    teller: Teller,
    running: TaskTracker,
    stopping: CancellationToken,
}

/// Where those leave what has happened who do not wait for it to be told. It does nothing where nobody is told.
#[derive(Clone, Default)]
pub struct Teller(Option<Arc<Mailbox>>);

struct Mailbox {
    events: mpsc::Sender<Event>,
    dropped: Arc<Dropped>,
}

/// Counts what is not told because there is no space for it.
struct Dropped {
    metrics: Arc<Metrics>,
    logged: AtomicBool,
}

impl Webhooks {
    /// Starts the task on `runtime`, if somebody is to be told.
    pub fn start(
        settings: &config::Webhooks,
        backend: Arc<dyn Backend>,
        metrics: Arc<Metrics>,
        runtime: &Handle,
    ) -> Result<Self, ConfigError> {
        let (running, stopping) = (TaskTracker::new(), CancellationToken::new());
        let Some((url, key)) = settings.receiver()? else {
            return Ok(Self { teller: Teller::default(), running, stopping });
        };
        let receiver = Receiver::new(url.clone(), &key)
            .map_err(|error| ConfigError::Contradiction(format!("--webhook: {}", error.without_url())))?;
        let dropped = Arc::new(Dropped { metrics: metrics.clone(), logged: AtomicBool::new(false) });
        let (events, told) = mpsc::channel(MAX_EVENTS);
        let delivery = Delivery::new(backend, metrics, receiver, dropped.clone(), settings.pause);
        running.spawn_on(delivery.run(told, stopping.clone()), runtime);
        Ok(Self { teller: Teller(Some(Arc::new(Mailbox { events, dropped }))), running, stopping })
    }

    /// Where to leave what has happened.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// Stops when everything that was left is in the store.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

impl Teller {
    /// Whether anybody is told.
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves what has happened. Never waits: where too much waits, it is dropped and counted.
    pub fn tell(&self, document: &DocumentName, what: What) {
        let Some(mailbox) = &self.0 else { return };
        let event = Event { document: document.clone(), at: SystemTime::now(), what };
        if mailbox.events.try_send(event).is_err() {
            mailbox.dropped.note(1);
        }
    }
}

impl Dropped {
    fn note(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.metrics.webhooks_dropped(count);
        if !self.logged.swap(true, Ordering::Relaxed) {
            warn!(
                "more happens than can be told: webhooks are dropped, and quire_webhooks_dropped_total counts them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let metrics = Arc::<Metrics>::default();
        let dropped = Arc::new(Dropped { metrics: metrics.clone(), logged: AtomicBool::new(false) });
        let (events, mut told) = mpsc::channel(1);
        let teller = Teller(Some(Arc::new(Mailbox { events, dropped })));
        let letter = DocumentName::new("letter").unwrap();
        for user in ["alice", "bob", "carol"] {
            teller.tell(&letter, What::Began { user: Some(user.to_owned()) });
        }
        let first = What::Began { user: Some("alice".to_owned()) };
        assert_eq!(told.try_recv().map(|event| event.what), Ok(first));
        assert!(told.try_recv().is_err());
        let metrics = metrics.text(Default::default());
        assert!(metrics.contains("quire_webhooks_dropped_total 2\n"), "{metrics}");
    }
}
