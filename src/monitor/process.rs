//! The use of processor, memory and descriptors by this process.

use std::fs;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use crate::usage::cpu_time;

/// The use of resources by this process. A number that the system does not give is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessUsage {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl ProcessUsage {
    /// Reads the numbers.
    pub(super) fn read() -> ProcessUsage {
        let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        // The second number is the resident size in pages (proc_pid_statm(5)).
        let pages = memory.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        ProcessUsage {
            cpu_seconds: cpu_time().as_secs_f64(),
            resident_bytes: pages.map(|pages| pages.saturating_mul(page_size() as u64)),
            // The descriptor that reads the folder is one of them.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = ProcessUsage::read();
        assert!(usage.resident_bytes.unwrap() > 1 << 20, "{usage:?}");
        assert!(usage.open_fds.unwrap() >= 3 && usage.cpu_seconds > 0.0, "{usage:?}");
    }
}
