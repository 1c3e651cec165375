//! The jobs that wait in the store, announced to the client: the chunks of a file shall leave requests for the others.

use std::time::{Duration, Instant};

use super::shared::OpenJobs;
use crate::upload::Backlog;

/// The announcement of the jobs that wait in the store. It ends with this value.
#[derive(Debug)]
pub(super) struct QueuedWork {
    backlog: Backlog,
    uploads: u64,
    bytes: u64,
    counted_at: Option<Instant>,
}

impl QueuedWork {
    pub(super) fn new(backlog: Backlog) -> QueuedWork {
        QueuedWork { backlog, uploads: 0, bytes: 0, counted_at: None }
    }

    /// Returns `true` if the jobs in the store are to be counted again.
    pub(super) fn is_outdated(&self, now: Instant) -> bool {
        self.counted_at.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_COUNTS)
    }

    /// Announces the jobs that were counted at `now`.
    pub(super) fn counted(&mut self, open: OpenJobs, now: Instant) {
        self.counted_at = Some(now);
        self.announce(open.queued, open.queued_bytes);
    }

    /// Takes a job out that was claimed: its upload begins, and counts by itself.
    pub(super) fn claimed(&mut self, bytes: u64) {
        self.announce(self.uploads.saturating_sub(1), self.bytes.saturating_sub(bytes));
    }

    fn announce(&mut self, uploads: u64, bytes: u64) {
        // In this order a plan that is made in between has larger chunks, which harms less than smaller ones.
        self.backlog.add(uploads, bytes);
        self.backlog.remove(self.uploads, self.bytes);
        (self.uploads, self.bytes) = (uploads, bytes);
    }
}

impl Drop for QueuedWork {
    fn drop(&mut self) {
        self.announce(0, 0);
    }
}

/// Between two counts, other processes submit and claim jobs, and this one counts down.
const BETWEEN_COUNTS: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_follows_the_queue_beside_that_of_the_caller_and_ends_with_it() {
        let backlog = Backlog::default();
        backlog.add(2, 20);
        let now = Instant::now();
        let mut queued = QueuedWork::new(backlog.clone());
        assert!(queued.is_outdated(now));
        queued.counted(OpenJobs { queued: 5, queued_bytes: 500, running: 1 }, now);
        assert_eq!((backlog.uploads(), backlog.bytes()), (7, 520));
        queued.claimed(100);
        assert_eq!((backlog.uploads(), backlog.bytes()), (6, 420));
        assert!(!queued.is_outdated(now + BETWEEN_COUNTS / 2) && queued.is_outdated(now + BETWEEN_COUNTS));
        queued.counted(OpenJobs { queued: 1, queued_bytes: 10, running: 9 }, now);
        // More claims than the last count found: another process has submitted since.
        (0..3).for_each(|_| queued.claimed(10));
        assert_eq!((backlog.uploads(), backlog.bytes()), (2, 20));
        drop(queued);
        assert_eq!((backlog.uploads(), backlog.bytes()), (2, 20));
    }
}
