//! Calls of the service's API for the uploads: retries, credentials, the status.

use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::api::{self, ReceivedRange, VideoStatus};
use crate::engine::event_log::Rounded;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::session::ReceivedSet;
use crate::session::event::FailureSummary;
use crate::session::retry::{AttemptKind, Fate, RetryDecision, RetryPolicy, decide};

/// A failed call that is made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repetition<'a> {
    pub(crate) error: &'a Error,
    /// The attempt that failed, counted from 1.
    pub(crate) attempt: u32,
    pub(crate) delay: Duration,
}

/// Retries a call while its failures are temporary, and logs each retry.
pub(crate) async fn with_logged_retries<T>(
    policy: &RetryPolicy,
    call: impl AsyncFn() -> Result<T>,
) -> Result<T> {
    let log = |repetition: Repetition<'_>| {
        tracing::warn!(
            "retrying in {}: {}",
            Rounded(repetition.delay),
            FailureSummary::from(repetition.error).message
        );
    };
    with_retries(policy, log, call).await
}

/// Retries a call while its failures are temporary, and passes each retry to `on_retry`.
///
/// A pause that the service requests counts against the policy's time, not against its retries.
pub(crate) async fn with_retries<T>(
    policy: &RetryPolicy,
    on_retry: impl Fn(Repetition<'_>),
    call: impl AsyncFn() -> Result<T>,
) -> Result<T> {
    let mut attempts = CallAttempts { policy, begun: Instant::now(), attempts: 0, failures: 0 };
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let (error, delay) = attempts.failed(error)?;
        on_retry(Repetition { error: &error, attempt: attempts.attempts, delay });
        tokio::time::sleep(delay).await;
    }
}

/// The attempts at one call.
struct CallAttempts<'a> {
    policy: &'a RetryPolicy,
    begun: Instant,
    attempts: u32,
    /// The attempts that count against the policy's retries.
    failures: u32,
}

impl CallAttempts<'_> {
    /// Returns the error of the attempt and the delay before the next one.
    ///
    /// # Errors
    /// The error itself, if no further attempt may follow.
    fn failed(&mut self, error: Error) -> Result<(Error, Duration)> {
        self.attempts += 1;
        // Every call here may be repeated: reads, deletions, and a creation that first looks for the video of a
        // lost answer.
        let pause = match decide(&error, Fate::NotStored, AttemptKind::First) {
            RetryDecision::Again if self.failures < self.policy.retries => {
                self.failures += 1;
                self.policy.pause(self.failures, fastrand::f64())
            }
            RetryDecision::Throttled(delay) => self.policy.after_throttle(delay, fastrand::f64()),
            RetryDecision::Later(delay) => self.policy.after_throttle(Some(delay), fastrand::f64()),
            _ => return Err(error.after_attempts(self.attempts)),
        };
        // A pause that would end too late is not begun: the caller receives the error now.
        if self.begun.elapsed() + pause > self.policy.max_time {
            return Err(error.after_attempts(self.attempts));
        }
        Ok((error, pause))
    }
}

pub(crate) fn received(status: &VideoStatus) -> ReceivedSet {
    let extent = |range: &ReceivedRange| Extent::from_bounds(range.from, range.to);
    let mut received = ReceivedSet {
        file_bytes: status.ingest.as_ref().and_then(|ingest| ingest.filesize),
        // A status without `ingest` is no statement about missing chunks.
        lists_nothing: status.ingest.is_none(),
        ..ReceivedSet::default()
    };
    match status.received() {
        api::ReceivedContent::Nothing => {}
        // An impossible range (`from` > `to`, or beyond 64 bits) counts as not received.
        api::ReceivedContent::Ranges(ranges) => received.extents = ranges.iter().filter_map(extent).collect(),
        api::ReceivedContent::Parts(parts) => received.parts = parts.parts.clone(),
        api::ReceivedContent::Everything => received.complete = true,
    }
    received
}

/// The `Authorization` header of the next request.
#[derive(Default)]
pub(crate) struct Authorization {
    pub(crate) known: Option<(Option<HeaderValue>, Instant)>,
    pub(crate) is_requested: bool,
}

impl Authorization {
    /// Returns `true` if a newer header should be requested. That costs a request to the service only if the token is
    /// about to expire.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        !self.is_requested && self.known.as_ref().is_none_or(|(_, since)| now >= *since + REFRESH_INTERVAL)
    }
}

/// The interval between checks of the header. A token is renewed when a fifth of its life is left, so this interval
/// is short enough.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
