//! What the server's processes have taken of the machine, with all their children.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Processes, by their ids.
#[derive(Clone)]
pub(crate) struct Processes(pub Vec<u32>);

impl Processes {
    /// User and system time so far (proc(5): fields 14 and 15, in hundredths of a second).
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for process in self.with_children() {
            let stat = read(process, "stat")?;
            let after_name = stat.rsplit(')').next().context("no name in /proc/PID/stat")?;
            let fields: Vec<_> = after_name.split_whitespace().collect();
            ticks += fields[14 - 3].parse::<u64>()? + fields[15 - 3].parse::<u64>()?;
        }
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let mut kib = 0.0;
        for process in self.with_children() {
            let status = read(process, "status")?;
            let line = status
                .lines()
                .find(|line| line.starts_with("VmRSS"))
                .context("no VmRSS in /proc/PID/status")?;
            kib += line.split_whitespace().nth(1).context("no size in VmRSS")?.parse::<f64>()?;
        }
        Ok(kib)
    }

    fn with_children(&self) -> Vec<u32> {
        let mut all = self.0.clone();
        let mut next = 0;
        while let Some(process) = all.get(next) {
            // An error: the kernel does not tell, or the process has just ended.
            let children =
                fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        all
    }
}

fn read(process: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: has the server ended?"))
}
