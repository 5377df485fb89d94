//! What a run found out: numbers with names.

use std::{collections::BTreeMap, sync::LazyLock, time::Instant};

use hdrhistogram::Histogram;

/// Figures by their names. The names say the units.
pub(crate) type Figures = BTreeMap<String, f64>;

/// What takes longer counts as this, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;

/// Microseconds since this was first asked.
pub(crate) fn now() -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_micros() as u32
}

/// How long things took.
pub(crate) struct Latency {
    /// In microseconds.
    histogram: Histogram<u64>,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self { histogram: Histogram::new_with_max(LONGEST, 3).expect("three digits are allowed") }
    }

    /// Something that began at the first time is done at the second.
    pub(crate) fn took(&mut self, began: u32, now: u32) {
        self.histogram.saturating_record(u64::from(now.saturating_sub(began)));
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// What this part of them did not exceed, in milliseconds.
    pub(crate) fn at(&self, part: f64) -> f64 {
        self.histogram.value_at_quantile(part) as f64 / 1e3
    }

    pub(crate) fn write(&self, figures: &mut Figures, name: &str) {
        figures.insert(format!("{name}p50_ms"), self.at(0.5));
        figures.insert(format!("{name}p99_ms"), self.at(0.99));
    }
}
