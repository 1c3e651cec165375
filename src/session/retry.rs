//! The retry policy: one exhaustive match decides every failure.
//!
//! Pure: time and random numbers are arguments.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Knowledge of a chunk after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Certainly not stored: the request was never complete, or was refused.
    NotStored,
    /// The request may have arrived whole; only the service knows.
    Unknown,
}

/// Position of an attempt among those of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    /// No earlier attempt can have stored it, in this process or an earlier one.
    First,
    /// An earlier attempt may have stored it.
    Repeated,
}

/// Reaction to a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Send the chunk again after a pause.
    Again,
    /// Send the chunk again after a pause, a few times: an intermediary answered in place of the service.
    AgainBriefly,
    /// Send the chunk again after the service's own delay. Does not count as a failure.
    Throttled(Option<Duration>),
    /// Send the chunk again after the delay that a failing service announced. Does not count as a failure.
    Later(Duration),
    /// Query the status before sending again.
    AskFirst,
    /// The service already holds the chunk, and an earlier attempt explains that.
    AlreadyThere,
    /// The service already holds the chunk, and no earlier attempt explains that.
    Disputed,
    /// The service does not know the video: deleted, or not yet on the replica that answered.
    Missing,
    /// Renew the credentials, then send the chunk again.
    Renew,
    /// No attempt can help.
    GiveUp,
}

/// Decides what follows a failed attempt. No other function decides whether to retry.
pub(crate) fn decide(error: &Error, fate: Fate, attempt: AttemptKind) -> RetryDecision {
    match error.kind() {
        // A malformed answer is a failure of the answer, not of the request: the chunk may be stored.
        ErrorKind::Connect | ErrorKind::Unavailable | ErrorKind::Stalled | ErrorKind::MalformedAnswer => {
            match (fate, error.retry_after()) {
                (Fate::Unknown, _) => RetryDecision::AskFirst,
                // RFC 9110 section 10.2.3: Retry-After of a 503 is the expected downtime.
                (Fate::NotStored, Some(delay)) => RetryDecision::Later(delay),
                (Fate::NotStored, None) => RetryDecision::Again,
            }
        }
        ErrorKind::RateLimited => RetryDecision::Throttled(error.retry_after()),
        // An access token lives 3600 s, so a long upload sees a 401 without any fault.
        ErrorKind::NotAuthorized => RetryDecision::Renew,
        ErrorKind::AlreadySent | ErrorKind::AlreadyFilled => match attempt {
            AttemptKind::First => RetryDecision::Disputed,
            AttemptKind::Repeated => RetryDecision::AlreadyThere,
        },
        // A replica may lag behind the one that created the video, so a 404 is not final at once.
        ErrorKind::NotFound => RetryDecision::Missing,
        ErrorKind::Refused if error.is_from_intermediary() => {
            error.retry_after().map_or(RetryDecision::AgainBriefly, RetryDecision::Later)
        }
        ErrorKind::Refused
        // Repeating a deterministic failure only delays its report.
        | ErrorKind::InvalidInput
        | ErrorKind::NoSuchFile
        // The reader has repeated the read already.
        | ErrorKind::SourceUnreadable
        | ErrorKind::SourceChanged
        | ErrorKind::PlanImpossible
        | ErrorKind::Untrusted
        | ErrorKind::WrongProtocol
        | ErrorKind::Mismatch
        | ErrorKind::Journal
        | ErrorKind::Busy
        | ErrorKind::Cancelled
        | ErrorKind::Internal => RetryDecision::GiveUp,
    }
}

/// Limits and pauses of retries.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Retries of a chunk after its first failed attempt. Attempts that the service answered with a delay do
    /// not count.
    pub retries: u32,
    /// Longest time without a stored chunk before the session gives up.
    pub max_time: Duration,
    /// The pause before the first repetition; doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Time for the service to list a chunk whose answer was lost, before the chunk counts as absent.
    pub grace: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            retries: 10,
            max_time: Duration::from_secs(15 * 60),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            grace: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// Returns the pause before repetition `repetition` (counted from 1): exponential, and scaled to between half
    /// and all of itself by `jitter` in `0.0..1.0`.
    pub fn pause(&self, repetition: u32, jitter: f64) -> Duration {
        // The shift is bounded: an exponent of 32 or more would overflow `u32`.
        let doubled = self.first_pause.saturating_mul(1 << repetition.saturating_sub(1).min(20));
        // At least half of the pause stays, so that jitter never turns it into an immediate retry.
        doubled.min(self.longest_pause).mul_f64(0.5 + jitter / 2.0)
    }

    /// Returns the longest time for which a replica of the service may not know a video that exists.
    pub fn replica_lag(&self) -> Duration {
        self.grace.saturating_mul(REPLICA_LAG)
    }

    /// Returns a delay that the service asked for, longer by up to a fifth, so that hosts with the same delay do
    /// not return at the same moment.
    pub fn after_throttle(&self, delay: Option<Duration>, jitter: f64) -> Duration {
        // A delay of 0 would make a busy loop of requests that are refused.
        let delay = delay.unwrap_or(self.longest_pause).clamp(self.first_pause, LONGEST_DELAY);
        delay.mul_f64(1.0 + jitter / 5.0)
    }
}

/// Longest replication lag, as a multiple of the grace.
const REPLICA_LAG: u32 = 5;

/// Upper bound of an announced delay: a sum of it and `Instant` cannot overflow.
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Refusal;

    #[test]
    fn a_lost_answer_is_a_question_and_a_broken_request_is_not() {
        let lost = Error::new(ErrorKind::Unavailable, "send a chunk");
        assert_eq!(decide(&lost, Fate::Unknown, AttemptKind::First), RetryDecision::AskFirst);
        assert_eq!(decide(&lost, Fate::NotStored, AttemptKind::First), RetryDecision::Again);
    }

    #[test]
    fn already_sent_is_disputed_at_first_and_an_answer_on_a_repetition() {
        for kind in [ErrorKind::AlreadySent, ErrorKind::AlreadyFilled] {
            let error = Error::new(kind, "send a chunk");
            assert_eq!(decide(&error, Fate::NotStored, AttemptKind::First), RetryDecision::Disputed);
            assert_eq!(decide(&error, Fate::NotStored, AttemptKind::Repeated), RetryDecision::AlreadyThere);
        }
        let other = Error::new(ErrorKind::Refused, "send a chunk");
        assert_eq!(decide(&other, Fate::NotStored, AttemptKind::Repeated), RetryDecision::GiveUp);
    }

    #[test]
    fn a_delay_that_a_failing_service_names_is_kept_whatever_its_status() {
        let delay = Duration::from_secs(6);
        let refusal = |status| Refusal { status, ..Refusal::default() };
        for (kind, status) in
            [(ErrorKind::Unavailable, 503), (ErrorKind::Unavailable, 408), (ErrorKind::Refused, 423)]
        {
            let failed = Error::new(kind, "send a chunk").with_refusal(refusal(status));
            let with_delay = Error::new(kind, "send a chunk").with_refusal(refusal(status));
            let with_delay = with_delay.with_retry_after(delay);
            assert_ne!(decide(&failed, Fate::NotStored, AttemptKind::First), RetryDecision::Later(delay));
            assert_eq!(decide(&with_delay, Fate::NotStored, AttemptKind::First), RetryDecision::Later(delay));
        }
    }

    #[test]
    fn a_refusal_without_the_service_s_own_document_is_tried_again_briefly() {
        let page = Refusal { status: 404, title: Some("Not Found".into()), ..Refusal::default() };
        let own = Refusal { slug: Some("invalid-attribute".into()), ..page.clone() };
        let refused = |refusal| Error::new(ErrorKind::Refused, "send a chunk").with_refusal(refusal);
        assert_eq!(decide(&refused(page), Fate::NotStored, AttemptKind::First), RetryDecision::AgainBriefly);
        assert_eq!(decide(&refused(own), Fate::NotStored, AttemptKind::First), RetryDecision::GiveUp);
    }

    #[test]
    fn throttling_waits_as_long_as_the_service_says_and_a_little_longer() {
        let policy = RetryPolicy::default();
        let asked = Duration::from_secs(7);
        assert_eq!(policy.after_throttle(Some(asked), 0.0), asked);
        assert!(policy.after_throttle(Some(asked), 0.99) > asked);
        assert!(policy.after_throttle(Some(Duration::ZERO), 0.0) > Duration::ZERO);
        assert!(policy.after_throttle(Some(Duration::MAX), 0.99) > policy.max_time);
    }

    proptest! {
        #[test]
        fn pauses_grow_and_stay_bounded(repetition in 1u32..200, jitter in 0.0..1.0f64) {
            let policy = RetryPolicy::default();
            let pause = policy.pause(repetition, jitter);
            prop_assert!(pause >= policy.first_pause / 2);
            prop_assert!(pause <= policy.longest_pause);
            prop_assert!(policy.pause(repetition + 1, 0.0) >= policy.pause(repetition, 0.0));
        }
    }
}
