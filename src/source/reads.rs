//! Tracking of reads that were abandoned while the kernel still worked on them.
//!
//! Each abandoned read holds a block of memory until it returns, which on a disk or network file system that
//! does not respond may be never. A source with abandoned reads therefore starts no others until those have
//! returned: its memory stays bounded however often its chunk is retried.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};

/// The reads in flight of one source. A clone counts the same reads.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadTracker {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Reads that the kernel is working on.
    in_kernel: AtomicUsize,
    /// Reads with a waiting caller. A read counts here at least as long as in `in_kernel`, unless it is
    /// abandoned.
    awaited: AtomicUsize,
    returned: Notify,
}

/// Dropped by the caller that waits for a read.
#[derive(Debug)]
pub(super) struct AwaitedGuard(Arc<Counts>);

/// Dropped when the kernel is done with a read.
#[derive(Debug)]
pub(super) struct KernelGuard(Arc<Counts>);

impl ReadTracker {
    /// Waits until every abandoned read has returned.
    pub(super) async fn wait_for_abandoned(&self) {
        loop {
            let returned = self.counts.returned.notified();
            tokio::pin!(returned);
            // Registered before the counters are read: otherwise a read that returns in between would be
            // missed.
            returned.as_mut().enable();
            // The reverse of the order in `begin`: a read that begins between these loads never looks abandoned.
            let in_kernel = self.counts.in_kernel.load(Ordering::Acquire);
            if in_kernel <= self.counts.awaited.load(Ordering::Acquire) {
                return;
            }
            returned.await;
        }
    }

    /// Runs a read on a blocking thread, once every abandoned read has returned.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.wait_for_abandoned().await;
        let (_awaited, in_kernel) = self.begin();
        // Moved to the blocking thread: dropped when the kernel is done, whatever happens to the caller.
        let counted = move || {
            let _in_kernel = in_kernel;
            read()
        };
        spawn_blocking(counted).await
    }

    /// Counts a read that starts now.
    pub(super) fn begin(&self) -> (AwaitedGuard, KernelGuard) {
        // Before `in_kernel`: a read with a caller must not look abandoned, not even for a moment.
        self.counts.awaited.fetch_add(1, Ordering::AcqRel);
        self.counts.in_kernel.fetch_add(1, Ordering::AcqRel);
        (AwaitedGuard(Arc::clone(&self.counts)), KernelGuard(Arc::clone(&self.counts)))
    }
}

impl Drop for AwaitedGuard {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for KernelGuard {
    fn drop(&mut self) {
        // Before the notification, so that a woken caller sees the lower number.
        self.0.in_kernel.fetch_sub(1, Ordering::AcqRel);
        self.0.returned.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_an_abandoned_read_delays_other_reads() {
        let reads = ReadTracker::default();
        let (first, second) = (reads.begin(), reads.begin());
        assert!(reads.wait_for_abandoned().now_or_never().is_some());
        let (awaited, in_kernel) = first;
        drop(awaited);
        let mut waiting = Box::pin(reads.wait_for_abandoned());
        assert!((&mut waiting).now_or_never().is_none());
        drop(in_kernel);
        assert!(waiting.now_or_never().is_some());
        drop(second);
        assert!(reads.wait_for_abandoned().now_or_never().is_some());
    }
}
