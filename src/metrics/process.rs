//! What the process takes of the machine, under the names that Prometheus' own libraries give it.

use std::sync::atomic::{AtomicU64, Ordering};

use procfs::{
    page_size,
    process::{LimitValue, Process},
    ticks_per_second,
};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{bytes, plain};

/// The figures of this process.
pub(super) struct Figures {
    cpu: Counter<f64, AtomicU64>,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl Figures {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let cpu = Counter::<f64, AtomicU64>::default();
        registry.register_with_unit("process_cpu", "Processor time", Unit::Seconds, cpu.clone());
        Self {
            cpu,
            resident_bytes: bytes(registry, "process_resident_memory", "Memory in use"),
            virtual_bytes: bytes(registry, "process_virtual_memory", "Addresses in use"),
            threads: plain(registry, "process_threads", "Threads"),
            open_fds: plain(registry, "process_open_fds", "Open files and sockets"),
            max_fds: plain(registry, "process_max_fds", "Files and sockets that may be open"),
        }
    }

    /// Looks at the process. What the system does not tell stays as it was.
    pub(super) fn look(&self) {
        let Ok(process) = Process::myself() else { return };
        if let Ok(stat) = process.stat() {
            let cpu = (stat.utime + stat.stime) as f64 / ticks_per_second() as f64;
            self.cpu.inner().store(cpu.to_bits(), Ordering::Relaxed);
            self.resident_bytes.set((stat.rss * page_size()) as i64);
            self.virtual_bytes.set(stat.vsize as i64);
            self.threads.set(stat.num_threads);
        }
        if let Ok(open) = process.fd_count() {
            self.open_fds.set(open as i64);
        }
        if let Ok(limits) = process.limits()
            && let LimitValue::Value(max) = limits.max_open_files.soft_limit
        {
            self.max_fds.set(max as i64);
        }
    }
}
