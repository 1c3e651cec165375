//! Reads that were given up while the kernel was still at them.
//!
//! Each holds a block of memory until it returns, which on a disk or a network file system that does not answer
//! may be never. So a source whose reads were given up begins no others until those have returned: what it holds
//! stays bounded however often its chunk is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};

/// The reads of one source under way. A clone counts the same reads.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadTracker {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// The kernel is at them.
    in_kernel: AtomicUsize,
    /// Somebody waits for them. A read counts here for at least as long as it does above, unless it is given up.
    awaited: AtomicUsize,
    returned: Notify,
}

/// To be dropped by whoever waits for a read.
#[derive(Debug)]
pub(super) struct AwaitedGuard(Arc<Counts>);

/// To be dropped when the kernel is done with a read.
#[derive(Debug)]
pub(super) struct KernelGuard(Arc<Counts>);

impl ReadTracker {
    /// Waits until every read that was given up has returned.
    pub(super) async fn wait_for_abandoned(&self) {
        loop {
            let returned = self.counts.returned.notified();
            tokio::pin!(returned);
            // Before the look, or a read that returns between the two would be missed.
            returned.as_mut().enable();
            let in_kernel = self.counts.in_kernel.load(Ordering::Acquire);
            if in_kernel <= self.counts.awaited.load(Ordering::Acquire) {
                return;
            }
            returned.await;
        }
    }

    /// Reads on a blocking thread, once every read that was given up has returned.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.wait_for_abandoned().await;
        let (_awaited, in_kernel) = self.begin();
        let counted = move || {
            let _in_kernel = in_kernel;
            read()
        };
        spawn_blocking(counted).await
    }

    /// Counts a read that begins now.
    pub(super) fn begin(&self) -> (AwaitedGuard, KernelGuard) {
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
        self.0.in_kernel.fetch_sub(1, Ordering::AcqRel);
        self.0.returned.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_read_that_is_waited_for_holds_up_no_other_and_one_that_was_given_up_does() {
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
