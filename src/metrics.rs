//! The names of what is counted. Labels are from small fixed sets: never a document, a user or an address.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::end::End;

/// What one server counts.
pub struct Metrics {
    registry: Registry,
    sessions_ended: Family<Reason, Counter>,
    refusals: Family<Limit, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    limit: &'static str,
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
        Self { registry, sessions_ended, refusals }
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

    /// Everything, as Prometheus reads it (OpenMetrics text).
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}
