//! The task that tells: it puts what has happened into the store's queue, takes out what is due, and tells it. It does one
//! thing at a time with the store and never waits for it, nor for the receiver, while something else has come.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    mem,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Dropped,
    event::{Event, document_of},
    pending::Pending,
    receiver::{ANSWER_WITHIN, Receiver, Untold, again_after},
};
use crate::{
    backend::{Again, Answer, Backend, BackendError, CLAIMED_FOR, Exchange, Exchanged, Notification},
    metrics::{Metrics, WebhookResult},
};

/// Notifications that wait in the store, and here while the store is away.
const MAX_WAITING: usize = 100_000;
/// Notifications that go into the store at once.
const MAX_ADDED: usize = 500;
/// Notifications that are told at the same time.
const MAX_AT_ONCE: usize = 8;
/// Notifications that are told or wait here to be: so many that nothing has to wait for the store.
const MAX_CLAIMED: usize = 64;
/// The least time between the starts of two exchanges: each may be a wait for the disk, which edits share.
const EXCHANGE_SPACING: Duration = Duration::from_millis(100);
/// How often it is looked for what is due: here, and in the store.
const LOOK_HERE: Duration = Duration::from_millis(100);
const LOOK_IN_STORE: Duration = Duration::from_secs(1);
/// How long it may take at the end until what was begun is told, and until all is in the store.
const TELL_AT_END: Duration = Duration::from_secs(1);
const SAVE_AT_END: Duration = Duration::from_secs(3);

/// The task, and what it knows.
pub(super) struct Delivery {
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    receiver: Arc<Receiver>,
    dropped: Arc<Dropped>,
    pending: Pending,
    /// A number that no other run has, and how many notifications this one has made.
    run: u64,
    made: u64,
    /// What the store is to be told next.
    next: Exchange,
    added: VecDeque<Notification>,
    exchange: Option<(Exchange, Answer<Exchanged>)>,
    /// When the store may be told news, when it is asked again in any case, and whether it is away until then.
    free_at: Instant,
    look_at: Instant,
    away: bool,
    /// The documents of which something is being told or waits to be, with what is to be told, and when it was claimed.
    documents: HashMap<String, VecDeque<(Instant, Notification)>>,
    /// Those of them of which nothing is being told.
    ready: VecDeque<String>,
    tries: FuturesUnordered<BoxFuture<'static, Tried>>,
    claimed: usize,
    /// Whether the receiver could not be told the last time, and the log says so.
    failing: bool,
}

/// What came of telling a notification.
struct Tried {
    document: String,
    notification: Notification,
    result: Result<(), Untold>,
}

impl Delivery {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        metrics: Arc<Metrics>,
        receiver: Receiver,
        dropped: Arc<Dropped>,
        pause: Duration,
    ) -> Self {
        Self {
            backend,
            metrics,
            receiver: Arc::new(receiver),
            dropped,
            pending: Pending::new(pause),
            run: getrandom::u64().unwrap_or_default(),
            made: 0,
            next: Exchange::default(),
            added: VecDeque::new(),
            exchange: None,
            free_at: Instant::now(),
            look_at: Instant::now(),
            away: false,
            documents: HashMap::new(),
            ready: VecDeque::new(),
            tries: FuturesUnordered::new(),
            claimed: 0,
            failing: false,
        }
    }

    /// Tells what comes until it is stopped; then everything that was not told is in the store.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>, stopping: CancellationToken) {
        // What may not go into the store yet goes with the next look.
        let mut look = interval(LOOK_HERE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.tell();
            self.start_exchange(MAX_CLAIMED.saturating_sub(self.claimed));
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(event) = events.recv() => self.take(event),
                exchanged = answer(&mut self.exchange) => self.exchanged(exchanged),
                Some(tried) = self.tries.next() => self.tried(tried),
                _ = look.tick() => {
                    let due = self.pending.due(Instant::now());
                    self.add(due);
                }
            }
        }
        while let Ok(event) = events.try_recv() {
            self.take(event);
        }
        let held = self.pending.all();
        self.add(held);
        if timeout(SAVE_AT_END, self.finish()).await.is_err() {
            warn!(lost = self.added.len(), "not all notifications could be saved before the deadline");
        }
    }

    async fn finish(&mut self) {
        let begun = async {
            while let Some(tried) = self.tries.next().await {
                self.tried(tried);
            }
        };
        // What is not told by then comes again when it is nobody's any more.
        let _ = timeout(TELL_AT_END, begun).await;
        loop {
            self.give_back();
            // Nobody edits any more whom it would hold up.
            self.free_at = Instant::now();
            self.start_exchange(0);
            if self.exchange.is_none() && !self.has_news() {
                return;
            }
            if self.exchange.is_some() {
                let exchanged = answer(&mut self.exchange).await;
                self.exchanged(exchanged);
            } else {
                sleep(LOOK_HERE).await;
            }
        }
    }

    /// Lets any node tell what was claimed and not begun to be told.
    fn give_back(&mut self) {
        for (_, Notification { id, tries, .. }) in self.documents.drain().flat_map(|(_, waiting)| waiting) {
            self.next.again.push(Again { id, tries, after: Duration::ZERO });
        }
    }

    fn take(&mut self, event: Event) {
        let now_told = self.pending.take(event, Instant::now());
        self.add(now_told);
    }

    /// Puts events in front of the store.
    fn add(&mut self, events: Vec<Event>) {
        for event in events {
            if self.added.len() >= MAX_WAITING {
                self.dropped.note(1);
                continue;
            }
            let notification = Notification { id: self.new_id(), body: event.body(), tries: 0 };
            self.added.push_back(notification);
        }
    }

    /// An id that no other notification has, and that is greater than those before while the clock goes forward.
    fn new_id(&mut self) -> String {
        self.made += 1;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        format!("msg_{time:012x}{:08x}{:016x}", self.made, self.run)
    }

    fn has_news(&self) -> bool {
        !self.added.is_empty() || !self.next.remove.is_empty() || !self.next.again.is_empty()
    }

    /// Asks the store, if there is a reason to.
    fn start_exchange(&mut self, claim: usize) {
        let now = Instant::now();
        let is_time = now >= self.look_at || (now >= self.free_at && self.has_news() && !self.away);
        if self.exchange.is_some() || !is_time {
            return;
        }
        self.free_at = now + EXCHANGE_SPACING;
        let add = self.added.drain(..self.added.len().min(MAX_ADDED)).collect();
        let exchange = Exchange { add, most: MAX_WAITING, claim, ..mem::take(&mut self.next) };
        let answer = self.backend.exchange(exchange.clone());
        self.exchange = Some((exchange, answer));
    }

    fn exchanged(&mut self, (exchange, answer): (Exchange, Result<Exchanged, BackendError>)) {
        self.look_at = Instant::now() + LOOK_IN_STORE;
        match answer {
            Ok(Exchanged { dropped, claimed, waiting }) => {
                self.away = false;
                self.dropped.note(dropped);
                self.metrics.webhooks_waiting(waiting);
                for notification in claimed {
                    self.claim(notification);
                }
            }
            Err(error) => {
                debug!(%error, "the queue of notifications cannot be reached; it is tried again");
                self.away = true;
                exchange.add.into_iter().rev().for_each(|notification| self.added.push_front(notification));
                self.next.remove.extend(exchange.remove);
                self.next.again.extend(exchange.again);
            }
        }
    }

    /// Puts a notification behind those of its document.
    fn claim(&mut self, notification: Notification) {
        self.claimed += 1;
        let document = document_of(&notification.body).unwrap_or_default();
        let waiting = self.documents.entry(document.clone()).or_insert_with(|| {
            self.ready.push_back(document);
            VecDeque::new()
        });
        waiting.push_back((Instant::now(), notification));
    }

    /// Tells as much as may be told at the same time.
    fn tell(&mut self) {
        while self.tries.len() < MAX_AT_ONCE
            && let Some(document) = self.ready.pop_front()
        {
            self.tell_next(document);
        }
    }

    /// Tells what comes next of a document.
    fn tell_next(&mut self, document: String) {
        let Some(waiting) = self.documents.get_mut(&document) else { return };
        while let Some((claimed_at, notification)) = waiting.pop_front() {
            // Another node may get it before there is an answer.
            if claimed_at.elapsed() + ANSWER_WITHIN > CLAIMED_FOR {
                self.claimed -= 1;
                continue;
            }
            let receiver = self.receiver.clone();
            self.tries.push(Box::pin(async move {
                let result = receiver.tell(&notification.id, notification.body.clone()).await;
                Tried { document, notification, result }
            }));
            return;
        }
        self.documents.remove(&document);
    }

    /// Notes what came of telling a notification.
    fn tried(&mut self, Tried { document, notification, result }: Tried) {
        self.claimed -= 1;
        let Notification { id, tries, .. } = notification;
        let tries = tries + 1;
        let after = match &result {
            Err(Untold::Failed(_)) => again_after(tries),
            Ok(()) | Err(Untold::Unwanted) => None,
        };
        let host = self.receiver.host();
        match (&result, after) {
            (Ok(()), _) => {
                self.metrics.webhook_tried(WebhookResult::Delivered);
                if mem::take(&mut self.failing) {
                    info!(host, "webhooks are delivered again");
                }
            }
            (Err(reason), Some(_)) => {
                self.metrics.webhook_tried(WebhookResult::Failed);
                if !mem::replace(&mut self.failing, true) {
                    warn!(host, id, document, %reason, "a webhook was not delivered; it is tried again");
                }
            }
            (Err(reason), None) => {
                self.metrics.webhook_tried(WebhookResult::GivenUp);
                warn!(host, id, document, tries, %reason, "a webhook was given up");
            }
        }
        match after {
            Some(after) => self.next.again.push(Again { id, tries, after }),
            None => self.next.remove.push(id),
        }
        self.ready.push_back(document);
    }
}

/// Waits for what comes of an exchange; for ever where there is none.
async fn answer(
    exchange: &mut Option<(Exchange, Answer<Exchanged>)>,
) -> (Exchange, Result<Exchanged, BackendError>) {
    let Some((_, answer)) = exchange else { return pending().await };
    let answered = answer.await;
    let (exchange, _) = exchange.take().expect("it was there a moment ago");
    (exchange, answered)
}
