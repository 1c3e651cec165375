//! The use of processor, memory and descriptors by this process.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The use of resources by this process. A number that the system does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessUsage {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl ProcessUsage {
    /// Reads the numbers from `/proc`.
    pub(super) fn read() -> ProcessUsage {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = memory.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        ProcessUsage {
            cpu_seconds: cpu_ticks(&stat).map(|ticks| ticks as f64 / clock_ticks_per_second() as f64),
            resident_bytes: pages.map(|pages| pages.saturating_mul(page_size() as u64)),
            // The descriptor that reads the folder is one of them.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// Returns the ticks in user and kernel mode of a line as in proc_pid_stat(5).
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name of the program is in parentheses and may contain spaces and parentheses.
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_a_name_with_parentheses() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4 1 0 0 0 30 12 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = ProcessUsage::read();
        assert!(usage.resident_bytes.unwrap() > 1 << 20, "{usage:?}");
        assert!(usage.open_fds.unwrap() >= 3 && usage.cpu_seconds.is_some(), "{usage:?}");
    }
}
