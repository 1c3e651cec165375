//! Resource usage of this process.

use std::fs;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Tracks the peak of anonymous memory, which the kernel does not record.
#[derive(Debug, Default)]
pub(super) struct UsageMeter {
    peak_anonymous_bytes: u64,
}

/// CPU time of all threads, in user space and in the kernel, and peak of anonymous memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) cpu_ms: u64,
    /// Largest value of periodic samples.
    pub(super) peak_anonymous_bytes: u64,
}

impl UsageMeter {
    /// Samples the memory.
    pub(super) fn sample(&mut self) {
        let now = anonymous_bytes().unwrap_or(0);
        self.peak_anonymous_bytes = self.peak_anonymous_bytes.max(now);
    }

    pub(super) fn usage(&mut self) -> Usage {
        self.sample();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_ms = cpu.tv_sec as u64 * 1000 + cpu.tv_nsec as u64 / 1_000_000;
        Usage { cpu_ms, peak_anonymous_bytes: self.peak_anonymous_bytes }
    }
}

/// Returns `RssAnon` (proc_pid_status(5)).
fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_includes_touched_memory() {
        let mut meter = UsageMeter::default();
        let before = meter.usage().peak_anonymous_bytes;
        let touched = vec![1u8; 16 << 20];
        meter.sample();
        assert!(meter.usage().peak_anonymous_bytes >= before + touched.len() as u64 / 2);
    }
}
