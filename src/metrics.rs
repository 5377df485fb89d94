//! What is counted, and under which name: `docs/metrics.md` says what each one means. Labels are from small fixed sets:
//! never a document, a user or an address.
//!
//! What is asked for once for each batch or frame is an atomic addition, or a moment under a lock of its own; what can be
//! looked at is looked at when somebody asks ([`Seen`]).

#[cfg(target_os = "linux")]
mod process;

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Metric, Registry, Unit},
};

use crate::end::End;

/// The limits that refuse requests before there is a session, named as their flags are, without dashes in front.
pub const LIMITS: [&str; 6] = [
    "max-connections",
    "max-connections-per-address",
    "max-new-connections-per-address",
    "max-open-documents",
    "max-memory",
    "allow-origin",
];
/// The client families, as a label.
pub const DIALECTS: [&str; 3] = ["y-websocket", "hocuspocus", "y-sweet"];

/// What one server counts.
pub struct Metrics {
    registry: Registry,
    began: Instant,
    sessions: Family<Dialect, Gauge>,
    sessions_ended: Family<Reason, Counter>,
    refusals: Family<Limit, Counter>,
    /// Updates from clients and over HTTP that brought something new.
    pub edits: Counter,
    /// Bytes of the frames that came over WebSockets.
    pub received_bytes: Counter,
    /// Bytes of the frames that went out over WebSockets.
    pub sent_bytes: Counter,
    /// Frames with edits that were put into a session's outbox.
    pub deliveries: Counter,
    delivery: Histogram,
    saved: Histogram,
    mailbox: Histogram,
    outbox: Histogram,
    /// How often a session that had fallen behind got one diff for all that it had missed.
    pub resyncs: Counter,
    relay_lag: Histogram,
    log_records: Histogram,
    /// Bytes of the records that were appended to documents' logs.
    pub log_bytes: Counter,
    compactions: Family<Done, Counter>,
    webhook_tries: Family<Done, Counter>,
    webhooks_dropped: Counter,
    webhooks_waiting: Gauge,
    looked_at: LookedAt,
}

/// What is not counted, but looked at when somebody asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The open documents.
    pub documents: usize,
    /// How many bytes of memory they take, as estimated.
    pub document_bytes: usize,
    /// The tasks that run: some for the server, and those of each connection and open document.
    pub tasks: usize,
    /// Whether the store can be reached.
    pub backend_up: bool,
    /// How often something of a log was missing that had to be read.
    pub relay_gaps: u64,
}

/// Some of what is counted, as plain numbers.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// For how long.
    pub during: Duration,
    /// Clients in documents at the moment.
    pub sessions: u64,
    /// Updates of clients that brought something new.
    pub edits: u64,
    /// Bytes of the frames that came over WebSockets.
    pub received_bytes: u64,
    /// Bytes of the frames that went out over WebSockets.
    pub sent_bytes: u64,
}

/// Where it is put when it was looked at.
struct LookedAt {
    documents: Gauge,
    document_bytes: Gauge,
    tasks: Gauge,
    backend_up: Gauge,
    relay_gaps: Counter,
    #[cfg(target_os = "linux")]
    process: process::Figures,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dialect {
    dialect: &'static str,
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
struct Done {
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
        let mut registry = Registry::default();
        let r = &mut registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("quire", "Which Quire this is", version);
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()));
        r.register_with_unit(
            "process_start_time",
            "When the server was started, since 1970",
            Unit::Seconds,
            started,
        );
        let sessions =
            family(r, "quire_sessions", "Clients in documents", DIALECTS.map(|dialect| Dialect { dialect }));
        let ended = End::LABELS.map(|reason| Reason { reason });
        let ended = family(r, "quire_sessions_ended", "Sessions that ended, by reason", ended);
        let refusals = LIMITS.map(|limit| Limit { limit });
        let refusals = family(
            r,
            "quire_refusals",
            "Requests that were refused before there was a session, by the limit",
            refusals,
        );
        let compactions = ["done", "failed"].map(|result| Done { result });
        let compactions =
            family(r, "quire_compactions", "Snapshots that took the place of a log", compactions);
        let tries = ["delivered", "failed", "given_up"].map(|result| Done { result });
        Self {
            began: Instant::now(),
            sessions,
            sessions_ended: ended,
            refusals,
            edits: plain(r, "quire_edits", "Updates of clients that brought something new"),
            received_bytes: bytes(r, "quire_received", "Frames that came over WebSockets"),
            sent_bytes: bytes(r, "quire_sent", "Frames that went out over WebSockets"),
            deliveries: plain(
                r,
                "quire_deliveries",
                "Frames with edits that were put into a session's outbox",
            ),
            delivery: seconds(
                r,
                "quire_delivery",
                "From a frame until it is in everybody's outbox; the oldest of a batch",
            ),
            saved: seconds(
                r,
                "quire_saved",
                "From an edit that was taken in until it is saved; the oldest of a record",
            ),
            mailbox: sizes(r, "quire_mailbox_depth", "Messages that wait when a document looks", 1.0, 4.0, 6),
            outbox: sizes(
                r,
                "quire_outbox_bytes",
                "What waits in the fullest outbox after a batch",
                256.0,
                4.0,
                7,
            ),
            resyncs: plain(r, "quire_resyncs", "Sessions that fell behind and got one diff"),
            relay_lag: seconds(r, "quire_relay_lag", "From an append on one node until another takes it in"),
            log_records: sizes(
                r,
                "quire_log_records",
                "Records in a document's log after an append",
                1.0,
                4.0,
                7,
            ),
            log_bytes: bytes(r, "quire_log_appended", "Records that were appended to logs"),
            compactions,
            webhook_tries: family(
                r,
                "quire_webhook_tries",
                "Webhooks that were sent, by what came of it",
                tries,
            ),
            webhooks_dropped: plain(
                r,
                "quire_webhooks_dropped",
                "Webhooks that were never sent, because too many waited",
            ),
            webhooks_waiting: plain(
                r,
                "quire_webhooks_waiting",
                "Webhooks that wait in the store, of all nodes",
            ),
            looked_at: LookedAt {
                documents: plain(r, "quire_documents", "Open documents"),
                document_bytes: bytes(r, "quire_document", "Memory that open documents take, as estimated"),
                tasks: plain(r, "quire_tasks", "Tasks that run"),
                backend_up: plain(r, "quire_backend_up", "Whether the store can be reached"),
                relay_gaps: plain(
                    r,
                    "quire_relay_gaps",
                    "Times that a part of a log was missing and had to be read",
                ),
                #[cfg(target_os = "linux")]
                process: process::Figures::new(r),
            },
            registry,
        }
    }
}

impl Metrics {
    /// A client is in a document.
    pub fn session_began(&self, dialect: &'static str) {
        self.sessions.get_or_create(&Dialect { dialect }).inc();
    }

    /// A client is in a document no longer.
    pub fn session_left(&self, dialect: &'static str) {
        self.sessions.get_or_create(&Dialect { dialect }).dec();
    }

    /// A session has ended, or was refused.
    pub fn session_ended(&self, end: &End) {
        self.sessions_ended.get_or_create(&Reason { reason: end.label() }).inc();
    }

    /// A request was refused, by one of the [`LIMITS`].
    pub fn refused(&self, limit: &'static str) {
        self.refusals.get_or_create(&Limit { limit }).inc();
    }

    /// A batch is in everybody's outbox: how long its oldest frame took, and how many bytes wait in the fullest.
    pub fn delivered(&self, took: Duration, outbox_bytes: usize) {
        self.delivery.observe(took.as_secs_f64());
        self.outbox.observe(outbox_bytes as f64);
    }

    /// A record is saved: how long its oldest edit took, and what the log has now.
    pub fn saved(&self, took: Duration, bytes: usize, log_records: usize) {
        self.saved.observe(took.as_secs_f64());
        self.log_bytes.inc_by(bytes as u64);
        self.log_records.observe(log_records as f64);
    }

    /// A document has looked into its mailbox, and so many messages waited.
    pub fn looked_into_mailbox(&self, waiting: usize) {
        self.mailbox.observe(waiting as f64);
    }

    /// Another node's record was taken in so long after it was appended.
    pub fn relayed(&self, lag: Duration) {
        self.relay_lag.observe(lag.as_secs_f64());
    }

    /// A log was compacted, or could not be.
    pub fn compacted(&self, done: bool) {
        self.compactions.get_or_create(&Done { result: if done { "done" } else { "failed" } }).inc();
    }

    /// A webhook was sent, and this came of it.
    pub fn webhook_tried(&self, result: WebhookResult) {
        let result = match result {
            WebhookResult::Delivered => "delivered",
            WebhookResult::Failed => "failed",
            WebhookResult::GivenUp => "given_up",
        };
        self.webhook_tries.get_or_create(&Done { result }).inc();
    }

    /// So many webhooks will never be sent.
    pub fn webhooks_dropped(&self, count: usize) {
        self.webhooks_dropped.inc_by(count as u64);
    }

    /// So many webhooks wait in the store.
    pub fn webhooks_waiting(&self, count: usize) {
        self.webhooks_waiting.set(count as i64);
    }

    /// Some of it, as plain numbers.
    pub fn counts(&self) -> Counts {
        let in_dialect = |dialect| self.sessions.get_or_create(&Dialect { dialect }).get().max(0) as u64;
        Counts {
            during: self.began.elapsed(),
            sessions: DIALECTS.into_iter().map(in_dialect).sum(),
            edits: self.edits.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
        }
    }

    /// Everything, as Prometheus reads it (OpenMetrics text).
    pub fn text(&self, seen: Seen) -> String {
        let LookedAt { documents, document_bytes, tasks, backend_up, relay_gaps, .. } = &self.looked_at;
        documents.set(seen.documents as i64);
        document_bytes.set(seen.document_bytes as i64);
        tasks.set(seen.tasks as i64);
        backend_up.set(seen.backend_up.into());
        relay_gaps.inner().store(seen.relay_gaps, std::sync::atomic::Ordering::Relaxed);
        #[cfg(target_os = "linux")]
        self.looked_at.process.look();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

fn plain<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn bytes<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

/// Times from a tenth of a millisecond to half a minute.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let steps = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0,
    ];
    let histogram = Histogram::new(steps);
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

fn sizes(registry: &mut Registry, name: &str, help: &str, first: f64, factor: f64, steps: u16) -> Histogram {
    let histogram = Histogram::new(exponential_buckets(first, factor, steps));
    registry.register(name, help, histogram.clone());
    histogram
}

/// One of each label, from the start: what never happened yet is zero, and not missing.
fn family<L, M, const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: [L; N],
) -> Family<L, M>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
    M: Metric + Default + Clone,
    Family<L, M>: Metric,
{
    let family = Family::<L, M>::default();
    labels.iter().for_each(|label| drop(family.get_or_create(label)));
    registry.register(name, help, family.clone());
    family
}
