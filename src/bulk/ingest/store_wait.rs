//! Outages of a job store that several hosts share: the run waits for the store, for a limited time.

use std::time::Duration;

use super::event::IngestEvent;
use super::leases::boot_time;
use super::outage::OutageStep;
use super::state::WorkState;
use crate::bulk::store::{JobStoreError, StoreFuture, StoreProblem};

impl WorkState {
    /// Waits before the next request after one that failed. Returns `false` if the failure ends the run: another request
    /// would not succeed, the outage is too long, or the run ends already.
    pub(super) async fn waits_for_store(&self, error: &JobStoreError) -> bool {
        // A store of one host has waited for its file already.
        if self.options.shared_account.is_none() || !is_outage(error) || self.is_ending() {
            return false;
        }
        let step = self.outage().failed(boot_time(), self.options.store_patience);
        match step {
            OutageStep::Began => self.emit(IngestEvent::StoreAway { error: error.clone() }).await,
            OutageStep::Continues => {}
            OutageStep::TooLong => return false,
        }
        // Workers that lost the same server come back at different moments.
        let pause = SHORTEST_PAUSE + LONGEST_JITTER.mul_f64(fastrand::f64());
        let news = self.news.notified();
        tokio::select! {
            paused = self.client.pause(pause) => paused.is_ok() && !self.is_ending(),
            // The end of a job is news, too, and no reason to give up.
            () = news => !self.is_ending(),
        }
    }

    /// Records an answer of the store.
    pub(super) async fn store_answered(&self) {
        let ended = self.outage().answered(boot_time());
        if let Some(elapsed) = ended {
            self.emit(IngestEvent::StoreBack { elapsed }).await;
        }
    }

    /// Repeats a write of the store during an outage. The store reads the job before it writes, so that a write that was
    /// carried out is not carried out again.
    pub(super) async fn persist<'a, T>(
        &'a self,
        write: impl Fn() -> StoreFuture<'a, T>,
    ) -> Result<T, JobStoreError> {
        loop {
            match write().await {
                Err(error) if self.waits_for_store(&error).await => {}
                Err(error) => return Err(error),
                Ok(written) => {
                    self.store_answered().await;
                    return Ok(written);
                }
            }
        }
    }
}

/// Returns `true` if the same request may succeed once the servers are back.
fn is_outage(error: &JobStoreError) -> bool {
    use StoreProblem::{Io, Timeout, Unreachable};
    matches!(error.problem(), Some(Unreachable | Timeout | Io))
}

/// The shortest time between two requests during an outage.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// The longest time that is added to it.
const LONGEST_JITTER: Duration = Duration::from_secs(2);
