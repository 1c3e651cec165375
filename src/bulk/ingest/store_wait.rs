//! Outages of a job store. A run waits for a store that several hosts share, for a limited time, and a run without an end
//! waits for a file that another process has locked.

use std::time::Duration;

use super::event::{IngestEnd, IngestEvent};
use super::leases::boot_time;
use super::outage::OutageStep;
use super::shared::SharedState;
use super::state::WorkState;
use crate::bulk::store::{JobStoreError, StoreFuture, StoreProblem};

impl SharedState {
    /// Records a request that failed. Returns the pause before the next one, and `None` if the failure ends the run: another
    /// request would not succeed, the outage is too long, or the run ends already.
    pub(super) async fn pause_after(&self, error: &JobStoreError) -> Option<Duration> {
        let patience = self.patience(error).filter(|_| !self.is_ending())?;
        let step = self.outage().failed(boot_time(), patience);
        match step {
            OutageStep::Began => self.emit(IngestEvent::StoreAway { error: error.clone() }).await,
            OutageStep::Continues => {}
            OutageStep::TooLong => return None,
        }
        // Workers that lost the same server come back at different moments.
        Some(SHORTEST_PAUSE + LONGEST_JITTER.mul_f64(fastrand::f64()))
    }

    /// Returns the time for which the run waits for the store after this failure; `None` if the run does not wait.
    fn patience(&self, error: &JobStoreError) -> Option<Duration> {
        use StoreProblem::{Io, Locked, Timeout, Unreachable};
        let is_shared = self.options.shared_account.is_some();
        match error.problem()? {
            Unreachable | Timeout | Io if is_shared => Some(self.options.store_patience),
            // The store has waited for ten seconds already, which is enough for a run that ends by itself.
            Locked if self.is_endless => Some(Duration::MAX),
            _ => None,
        }
    }

    /// Ends the run with a failure of the store that concerns no job in hand. A run that ends already does not need a store
    /// that is only locked.
    pub(super) fn end_with_store(&self, error: JobStoreError) {
        if error.problem() != Some(StoreProblem::Locked) || !self.is_ending() {
            self.end_with(IngestEnd::Store(error));
        }
    }

    /// Records an answer of the store to a write.
    pub(super) async fn store_answered(&self) {
        let ended = self.outage().answered(boot_time());
        if let Some(elapsed) = ended {
            self.emit(IngestEvent::StoreBack { elapsed }).await;
        }
    }
}

impl WorkState {
    /// Waits before the next request after one that failed. Returns `false` if the failure ends the run, see
    /// [`SharedState::pause_after`].
    pub(super) async fn waits_for_store(&self, error: &JobStoreError) -> bool {
        let Some(pause) = self.pause_after(error).await else { return false };
        let news = self.news.notified();
        tokio::select! {
            paused = self.client.pause(pause) => paused.is_ok() && !self.is_ending(),
            // The end of a job is news, too, and no reason to give up.
            () = news => !self.is_ending(),
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

/// The shortest time between two requests during an outage.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// The longest time that is added to it.
const LONGEST_JITTER: Duration = Duration::from_secs(2);
