//! The resource usage of this process.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A meter of the resource usage of this process. Tracks the peak of anonymous memory, which the kernel does not record.
#[derive(Debug, Default)]
pub struct UsageMeter {
    peak_anonymous_bytes: u64,
}

/// The resource usage of a process since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time of all threads, in user space and in the kernel, in milliseconds.
    pub cpu_ms: u64,
    /// Largest number of anonymous bytes among the samples.
    pub peak_anonymous_bytes: u64,
}

impl UsageMeter {
    /// Takes a sample of the memory. Reads a file of procfs, which takes about 50 us: call it a few times a second.
    pub fn sample(&mut self) {
        let now = anonymous_bytes().unwrap_or(0);
        self.peak_anonymous_bytes = self.peak_anonymous_bytes.max(now);
    }

    /// Takes a last sample and returns the usage. Without procfs the memory is 0.
    pub fn usage(&mut self) -> Usage {
        self.sample();
        let cpu_ms = cpu_time().as_millis().try_into().unwrap_or(u64::MAX);
        Usage { cpu_ms, peak_anonymous_bytes: self.peak_anonymous_bytes }
    }
}

/// Returns the CPU time of all threads of this process.
pub(crate) fn cpu_time() -> Duration {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32)
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
        let touched = vec![1u8; 64 << 20];
        meter.sample();
        // No difference of two samples: other tests of this process free memory meanwhile.
        assert!(meter.usage().peak_anonymous_bytes >= touched.len() as u64);
    }
}
