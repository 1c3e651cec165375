//! Limits for a failing service: one probe at a time, and few retries.

use std::time::{Duration, Instant};

use super::throttle::ThrottleReason;

/// A circuit breaker: closed until a burst of failures, then open for one probe at a time.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// The failures since the last success, counted while the breaker is closed.
    failures: u32,
    open: Option<OpenState>,
}

#[derive(Clone, Copy, Debug)]
struct OpenState {
    since: Instant,
    /// The time of the next probe.
    probe_at: Instant,
    /// The number of failed probes.
    probes: u32,
    probing: bool,
}

impl Breaker {
    pub(super) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.open.map(|open| open.probe_at).filter(|&at| at > now)
    }

    /// Returns the reason for the delay while the breaker is open.
    pub(super) fn reason(&self) -> ThrottleReason {
        match self.open {
            Some(OpenState { probing: true, .. }) => ThrottleReason::Probe,
            Some(_) | None => ThrottleReason::Failures,
        }
    }

    /// Counts a request as the probe if the breaker is open.
    pub(super) fn started(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            // A probe may be a long upload: the next one does not wait for its end for ever.
            open.probe_at = now + PROBE_TIMEOUT;
            open.probing = true;
        }
    }

    pub(super) fn failed(&mut self, started: Instant, now: Instant, jitter: f64) {
        let probes = match &self.open {
            None => {
                self.failures += 1;
                // A single failure is left to the retry of its own request.
                if self.failures < BURST {
                    return;
                }
                0
            }
            // Requests that began before the breaker opened are part of the burst, and prove nothing new.
            Some(open) if started <= open.since => return,
            Some(open) => open.probes + 1,
        };
        // The exponent is bounded against overflow; the pause is at its maximum long before.
        let pause = FIRST_PAUSE.saturating_mul(1 << probes.min(10)).min(LONGEST_PAUSE);
        // Kept over failed probes: a slow probe that began before the last one failed counts, too.
        let since = self.open.map_or(now, |open| open.since);
        self.open = Some(OpenState {
            since,
            // Spread, as all hosts saw the same outage begin.
            probe_at: now + pause.mul_f64(0.5 + jitter / 2.0),
            probes,
            probing: false,
        });
    }

    pub(super) fn succeeded(&mut self) {
        // One answer proves that the service is back, so all lanes may send again at once.
        *self = Breaker::default();
    }
}

/// The budget of retries, shared by all lanes. It starts full. Successes refill it, and slowly time. While it is spent,
/// first attempts wait, too: the chunk to send is chosen only after the pacer has allowed a request.
#[derive(Debug)]
pub(super) struct RetryBudget {
    tokens: f64,
    refilled: Instant,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> RetryBudget {
        // A start with an empty budget would delay the first retry of a healthy run.
        RetryBudget { tokens: MOST_TOKENS, refilled: now }
    }

    pub(super) fn not_before(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = now.saturating_duration_since(self.refilled);
        // Capped: an idle hour must not save up a burst of retries.
        self.tokens = (self.tokens + elapsed.as_secs_f64() * TOKENS_A_SECOND).min(MOST_TOKENS);
        self.refilled = now;
        let missing = (1.0 - self.tokens) / TOKENS_A_SECOND;
        // The extra millisecond makes up for rounding, so that the token is there when the delay ends.
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing) + Duration::from_millis(1))
    }

    pub(super) fn spend(&mut self) {
        // The budget may go below zero, because several lanes may start a retry at the same moment.
        self.tokens -= 1.0;
    }

    pub(super) fn earn(&mut self) {
        self.tokens = (self.tokens + TOKENS_A_SUCCESS).min(MOST_TOKENS);
    }
}

/// The failures in a row that open the breaker.
const BURST: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

const MOST_TOKENS: f64 = 20.0;
const TOKENS_A_SECOND: f64 = 1.0;
// Two successes pay for one retry: retries must not multiply the load of a service that fails.
const TOKENS_A_SUCCESS: f64 = 0.5;
