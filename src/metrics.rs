//! The names of what is counted. Labels are from small fixed sets: never a document, a user or an address.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::end::End;

/// What one server counts.
pub struct Metrics {
    registry: Registry,
    sessions_ended: Family<Reason, Counter>,
    refusals: Family<Limit, Counter>,
    webhook_tries: Family<Outcome, Counter>,
    webhooks_dropped: Counter,
    webhooks_waiting: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// What came of telling somebody something once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookResult {
    /// It was taken.
    Delivered,
    /// It is tried again.
    Failed,
    /// It is not tried any more.
    GivenUp,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("quire");
        let (sessions_ended, refusals) = (Family::default(), Family::default());
        registry.register("sessions_ended", "Sessions that ended, by reason", sessions_ended.clone());
        registry.register(
            "refusals",
            "Requests that were refused before there was a session, by the limit",
            refusals.clone(),
        );
        let (webhook_tries, webhooks_dropped, webhooks_waiting) =
            (Family::default(), Counter::default(), Gauge::default());
        registry.register(
            "webhook_tries",
            "Webhooks that were sent, by what came of it",
            webhook_tries.clone(),
        );
        registry.register(
            "webhooks_dropped",
            "Webhooks that were never sent, because too many waited",
            webhooks_dropped.clone(),
        );
        registry.register(
            "webhooks_waiting",
            "Webhooks that wait in the store, those of all nodes",
            webhooks_waiting.clone(),
        );
        Self { registry, sessions_ended, refusals, webhook_tries, webhooks_dropped, webhooks_waiting }
    }
}

impl Metrics {
    /// A session has ended.
    pub fn session_ended(&self, end: &End) {
        self.sessions_ended.get_or_create(&Reason { reason: end.label() }).inc();
    }

    /// A request was refused; the limit is named as its flag is, without dashes in front.
    pub fn refused(&self, limit: &'static str) {
        self.refusals.get_or_create(&Limit { limit }).inc();
    }

    /// A webhook was sent, and this came of it.
    pub fn webhook_tried(&self, result: WebhookResult) {
        let result = match result {
            WebhookResult::Delivered => "delivered",
            WebhookResult::Failed => "failed",
            WebhookResult::GivenUp => "given_up",
        };
        self.webhook_tries.get_or_create(&Outcome { result }).inc();
    }

    /// So many webhooks will never be sent.
    pub fn webhooks_dropped(&self, count: usize) {
        self.webhooks_dropped.inc_by(count as u64);
    }

    /// So many webhooks wait in the store.
    pub fn webhooks_waiting(&self, count: usize) {
        self.webhooks_waiting.set(count as i64);
    }

    /// Everything, as Prometheus reads it (OpenMetrics text).
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}
