//! Traces of edits, sent to a collector over OTLP: where the time goes between an edit's frame and its "saved". Few edits
//! are traced, and what carries a trace is nothing for the others. In builds without the feature `otlp` it takes no space,
//! and there is nobody to send anything to.
//!
//! ```text
//! edit          from the frame until it is saved; it says of which document, dialect and size, and whether it was saved
//!   wait        until the document takes it from its mailbox
//!   apply       until it is in the document
//!   deliver     until it waits for all neighbours, with the others of its batch
//!   save        until the store has confirmed it
//! ```

use crate::{name::DocumentName, protocol::Message};

pub use self::otlp::Collector;
use self::otlp::Trace;

/// Traced edits of one document that may wait at one place; more are not followed to their end.
const MAX_EDITS: usize = 256;

/// The trace of an edit, if it is one of those that are traced. It ends when this is dropped.
#[derive(Debug, Default)]
pub struct Edit(Option<Trace>);

/// Traced edits that go the same way from here on.
#[derive(Debug, Default)]
pub struct Edits(Vec<Trace>);

impl Edit {
    /// Begins the trace of a message that has just come, if it is an edit whose turn it is.
    pub fn begin(document: &DocumentName, dialect: &'static str, message: &Message) -> Self {
        match message {
            Message::Update(update) => Self(Trace::begin(document, dialect, update.len())),
            _ => Self(None),
        }
    }

    /// Ends the step that the edit is at, and begins this one.
    pub fn step(&mut self, name: &'static str) {
        if let Some(trace) = &mut self.0 {
            trace.step(name);
        }
    }
}

impl Edits {
    /// Adds one, if it is traced.
    pub fn add(&mut self, edit: Edit) {
        if self.0.len() < MAX_EDITS {
            self.0.extend(edit.0);
        }
    }

    /// Adds these.
    pub fn append(&mut self, edits: Self) {
        let space = MAX_EDITS - self.0.len();
        self.0.extend(edits.0.into_iter().take(space));
    }

    /// Ends the steps that they are at, and begins this one.
    pub fn step(&mut self, name: &'static str) {
        self.0.iter_mut().for_each(|trace| trace.step(name));
    }

    /// They are saved, and their traces end.
    pub fn saved(self) {
        self.0.iter().for_each(Trace::saved);
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        time::Duration,
    };

    use opentelemetry::{KeyValue, trace::TracerProvider};
    use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::{
        Resource,
        error::OTelSdkResult,
        trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter},
    };
    use tokio::runtime::{Builder, Runtime};
    use tracing::{Span, field::Empty, info, info_span, level_filters::LevelFilter, warn};
    use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};
    use xxhash_rust::xxh3::xxh3_64;

    use crate::{
        config::{ConfigError, Share, Traces},
        name::DocumentName,
    };

    /// By what the collector's layer knows the spans that are for it.
    const TARGET: &str = "quire::trace";
    /// How long the last traces may take at the end: what a stop leaves of the ten seconds after which Docker kills.
    const CLOSE_WITHIN: Duration = Duration::from_secs(1);

    /// Which share of all edits is traced, and how many there were. Spans are the process's, and so are these.
    static SHARE: OnceLock<Share> = OnceLock::new();
    static EDITS: AtomicU64 = AtomicU64::new(0);

    /// The open spans of an edit.
    #[derive(Debug)]
    pub(super) struct Trace(Box<Spans>);

    #[derive(Debug)]
    struct Spans {
        step: Span,
        edit: Span,
    }

    impl Trace {
        pub(super) fn begin(document: &DocumentName, dialect: &'static str, bytes: usize) -> Option<Self> {
            if !is_its_turn(*SHARE.get()?) {
                return None;
            }
            // Of numbers, only those with a sign arrive as numbers.
            let (document, bytes) = (document.as_str(), bytes as i64);
            let edit =
                info_span!(target: TARGET, parent: None, "edit", document, dialect, bytes, saved = Empty);
            Some(Self(Box::new(Spans { step: step(&edit, "wait"), edit })))
        }

        pub(super) fn step(&mut self, name: &'static str) {
            let spans = &mut *self.0;
            // It ends before the next one begins.
            spans.step = Span::none();
            spans.step = step(&spans.edit, name);
        }

        pub(super) fn saved(&self) {
            self.0.edit.record("saved", true);
        }
    }

    fn step(edit: &Span, name: &'static str) -> Span {
        info_span!(target: TARGET, parent: edit, "step", otel.name = name)
    }

    /// Whether this edit is one of those that are traced. Its number is hashed, so that of people who type by turns not
    /// always the same one is met.
    fn is_its_turn(share: Share) -> bool {
        let number = EDITS.fetch_add(1, Ordering::Relaxed);
        // As many bits as a float holds: a number from 0 to 1, without 1.
        let place = (xxh3_64(&number.to_le_bytes()) >> 11) as f64 / (1_u64 << 53) as f64;
        place < share.get()
    }

    /// The way to the collector, if there is one.
    #[derive(Debug)]
    pub struct Collector(Option<SdkTracerProvider>);

    impl Collector {
        /// Begins to send traces, on a thread of its own, where the settings name a collector. It may be away. One
        /// process has one.
        pub fn start(traces: &Traces) -> Result<Self, ConfigError> {
            let Some(url) = &traces.url else { return Ok(Self(None)) };
            let refuse = |error: String| ConfigError::Contradiction(format!("--otlp: {error}"));
            let endpoint = format!("{}/v1/traces", url.as_str().trim_end_matches('/'));
            // Without tries in between: the next batch is one.
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_endpoint(endpoint)
                .with_retry_policy(opentelemetry_otlp::RetryPolicy::disabled())
                .build()
                .map_err(|error| refuse(error.to_string()))?;
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| refuse(error.to_string()))?;
            let resource = Resource::builder()
                .with_service_name("quire")
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .build();
            let provider = SdkTracerProvider::builder()
                .with_resource(resource)
                // Which edits are traced is decided before there is a span.
                .with_sampler(Sampler::AlwaysOn)
                .with_batch_exporter(Exporter {
                    exporter,
                    runtime: Box::leak(Box::new(runtime)),
                    is_away: AtomicBool::new(false),
                })
                .build();
            // An error: there is a share already, and it stays.
            let _ = SHARE.set(traces.sample);
            Ok(Self(Some(provider)))
        }

        /// What takes traces out of what the process does.
        pub fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
        where
            S: tracing::Subscriber + for<'a> LookupSpan<'a>,
        {
            let tracer = self.0.as_ref()?.tracer("quire");
            let layer = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_tracked_inactivity(false);
            Some(layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO)))
        }

        /// Sends what waits, if that takes no longer than a moment.
        pub fn close(self) {
            let Some(provider) = self.0 else { return };
            if let Err(error) = provider.shutdown_with_timeout(CLOSE_WITHIN) {
                info!(%error, "the last traces are lost");
            }
        }
    }

    /// Sends batches to the collector. Its thread is no runtime's, and the HTTP client needs one.
    #[derive(Debug)]
    struct Exporter {
        exporter: opentelemetry_otlp::SpanExporter,
        /// Never dropped: that would wait for a name that is just looked up.
        runtime: &'static Runtime,
        /// Whether the last batch did not arrive.
        is_away: AtomicBool,
    }

    impl SpanExporter for Exporter {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let sent = self.runtime.block_on(self.exporter.export(batch));
            let was_away = self.is_away.swap(sent.is_err(), Ordering::Relaxed);
            match &sent {
                Err(error) if !was_away => {
                    warn!(%error, "the collector does not take traces; they are lost until it does");
                }
                Ok(()) if was_away => info!("the collector takes traces again"),
                _ => {}
            }
            sent
        }

        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.exporter.shutdown_with_timeout(timeout)
        }

        fn set_resource(&mut self, resource: &Resource) {
            self.exporter.set_resource(resource);
        }
    }
}

/// The same in builds that send nothing.
#[cfg(not(feature = "otlp"))]
mod otlp {
    use tracing_subscriber::layer::Identity;

    use crate::{
        config::{ConfigError, Traces},
        name::DocumentName,
    };

    /// There is none.
    #[derive(Debug)]
    pub(super) enum Trace {}

    impl Trace {
        pub(super) fn begin(_: &DocumentName, _: &'static str, _: usize) -> Option<Self> {
            None
        }

        pub(super) fn step(&mut self, _: &'static str) {
            match *self {}
        }

        pub(super) fn saved(&self) {
            match *self {}
        }
    }

    /// The way to no collector.
    #[derive(Debug)]
    pub struct Collector;

    impl Collector {
        /// Refuses settings that name a collector.
        pub fn start(traces: &Traces) -> Result<Self, ConfigError> {
            match traces.url {
                Some(_) => Err(ConfigError::Contradiction(
                    "this build sends no traces: leave --otlp away, or build with --features otlp".to_owned(),
                )),
                None => Ok(Self),
            }
        }

        /// What takes traces out of what the process does: nothing.
        pub fn layer(&self) -> Option<Identity> {
            None
        }

        /// Does nothing.
        pub fn close(self) {}
    }
}
