//! Decisions to start a request or to delay it.

use std::fmt;
use std::time::Instant;

/// The answer to the question if a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The request may start at once.
    Ready,
    /// The request must not start before this moment, which is later than now. Check again then, or after an answer.
    NotBefore(Instant),
}

/// The reason for a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThrottleReason {
    /// The service answered 429.
    TooManyRequests,
    /// The service's budget for this minute is used up.
    Budget,
    /// A burst of failures.
    Failures,
    /// One request is probing if the service is back.
    Probe,
    /// Too many requests were retries.
    RetryBudget,
    /// The workers of this account use up the budget that they share.
    SharedBudget,
    /// The user's own limits.
    Caps,
}

/// A delay of all requests of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The end of the delay, which is later than now.
    pub until: Instant,
    /// The reason that delays them the longest.
    pub by: ThrottleReason,
}

impl ThrottleReason {
    /// Returns a stable name for logs and machine-readable output: `too_many_requests`.
    pub fn name(self) -> &'static str {
        match self {
            ThrottleReason::TooManyRequests => "too_many_requests",
            ThrottleReason::Budget => "budget",
            ThrottleReason::Failures => "failures",
            ThrottleReason::Probe => "probe",
            ThrottleReason::RetryBudget => "repetitions",
            ThrottleReason::SharedBudget => "shared_budget",
            ThrottleReason::Caps => "caps",
        }
    }
}

/// Describes the reason in words, for a line that begins with `uploads wait:`.
impl fmt::Display for ThrottleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ThrottleReason::TooManyRequests => "the service answered 429, too many requests",
            ThrottleReason::Budget => "the service's requests for this minute are used up",
            ThrottleReason::Failures => "the service failed several times in a row",
            ThrottleReason::Probe => "one request is finding out whether the service is back",
            ThrottleReason::RetryBudget => "too many requests were repetitions",
            ThrottleReason::SharedBudget => "the workers of this account share its requests",
            ThrottleReason::Caps => "the limits that were set here",
        })
    }
}
