//! The waits of a run's claims: for news, for the store, for a job's next attempt, and for the service.

use std::time::Duration;

use super::event::{IngestEnd, IngestEvent};
use super::leases::boot_time;
use super::shared::OpenJobs;
use super::work::Claims;
use crate::bulk::store::JobStoreError;
use crate::bulk::unix_time::UnixMillis;

impl Claims {
    /// Waits for the next attempt of a job. Returns `None` if the run ends.
    pub(super) async fn wait_for_attempt(
        &self,
        news: impl Future<Output = ()>,
        next_at: UnixMillis,
        are_inputs_read: bool,
    ) -> Option<()> {
        let state = &self.state;
        let delay = Duration::from_millis(next_at.get().saturating_sub(state.now().get()));
        if are_inputs_read && state.active().is_empty() {
            if self.ends_deferred(delay).await {
                return None;
            }
            state.emit(IngestEvent::Idle { delay }).await;
        }
        self.wait(news, delay.clamp(SHORTEST_WAIT, LONGEST_WAIT)).await
    }

    /// Ends the run if every open job waits for another attempt. Returns `true` if the run ends.
    ///
    /// A job that another process holds is waited for: that process may vanish.
    async fn ends_deferred(&self, delay: Duration) -> bool {
        let state = &self.state;
        let waits = state.options.waits_for_attempts || state.options.waits_for_jobs;
        if waits || delay < SHORT_DELAY {
            return false;
        }
        match state.open_jobs().await {
            Ok(OpenJobs { queued, running: 0, .. }) if queued > 0 => {
                state.end_with(IngestEnd::Deferred { jobs: queued, delay });
                true
            }
            Ok(_) => false,
            Err(error) => self.wait_for_store(error).await.is_none(),
        }
    }

    /// Rests while the service does not answer, and probes the service when the rest is over. Returns `None` if the run
    /// ends: the client has ended, or other workers have done every job.
    pub(super) async fn rest(&self, news: impl Future<Output = ()>, rest: Duration) -> Option<()> {
        let state = &self.state;
        if !rest.is_zero() {
            return self.wait(news, rest.min(LONGEST_WAIT)).await;
        }
        let is_reachable = tokio::select! {
            answered = state.client.is_service_reachable() => answered.unwrap_or(false),
            _ = state.client.pause(LONGEST_PROBE) => false,
        };
        let is_over = state.service().probed(boot_time(), is_reachable, fastrand::f64());
        if is_over {
            state.emit(IngestEvent::ServiceBack).await;
            return Some(());
        }
        if state.options.waits_for_jobs || !state.are_inputs_read() {
            return Some(());
        }
        // A store that is away, too, does not say that the work is done.
        if state.open_jobs().await.is_ok_and(|open| open == OpenJobs::default()) {
            state.end_with(IngestEnd::Drained);
            return None;
        }
        Some(())
    }

    /// Waits for news, or until the state has to be looked at again. Returns `None` if the client has ended.
    pub(super) async fn wait_for_news(&self, news: impl Future<Output = ()>) -> Option<()> {
        self.wait(news, LONGEST_WAIT).await
    }

    /// Waits for news, up to `longest`. Returns `None` if the client has ended.
    async fn wait(&self, news: impl Future<Output = ()>, longest: Duration) -> Option<()> {
        tokio::select! {
            () = news => Some(()),
            paused = self.state.client.pause(longest) => match paused {
                Ok(()) => Some(()),
                Err(error) => {
                    self.state.end_with(IngestEnd::Fatal(Box::new(error)));
                    None
                }
            },
        }
    }

    /// Waits for a store that is away. Returns `None` if the run ends with the error.
    pub(super) async fn wait_for_store(&self, error: JobStoreError) -> Option<()> {
        let state = &self.state;
        if state.waits_for_store(&error).await {
            return Some(());
        }
        state.end_with_store(error);
        None
    }

    /// Waits until a process has changed the store. Returns `None` if the client has ended.
    pub(super) async fn wait_for_change(&mut self, news: impl Future<Output = ()>) -> Option<()> {
        let (store, seen) = (self.state.store.clone(), self.seen);
        // The first call returns at once with the revision to compare with: a job that came meanwhile is claimed.
        let changed = async move {
            match store.changed(seen).await {
                Ok(revision) => revision,
                // A store that cannot wait is asked again after the longest wait.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            revision = changed => {
                self.seen = revision;
                Some(())
            }
            waited = self.wait(news, LONGEST_IDLE) => waited,
        }
    }
}

/// The longest time for one probe of the service.
const LONGEST_PROBE: Duration = Duration::from_secs(20);

/// A claim after less time finds nothing new.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// A shorter wait for the next attempt of a job is not worth another run.
const SHORT_DELAY: Duration = Duration::from_secs(5);
/// A store without a way to wait for changes is asked for new jobs this often.
const LONGEST_IDLE: Duration = Duration::from_secs(5);

/// The end of a job in another process is found by asking again.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
