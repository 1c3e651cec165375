//! Mercy for a service that fails: one probe at a time, and few retry_budget.

use std::time::{Duration, Instant};

use super::ThrottleReason;

/// Lets everything permit until failures come in a burst; then one request at a time.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success, counted while closed.
    failures: u32,
    open: Option<OpenState>,
}

#[derive(Clone, Copy, Debug)]
struct OpenState {
    since: Instant,
    /// When the next probe may start.
    probe_at: Instant,
    /// How many probes failed.
    probes: u32,
    probing: bool,
}

impl Breaker {
    pub(super) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.open.map(|open| open.probe_at).filter(|&at| at > now)
    }

    /// Why nothing may start.
    pub(super) fn reason(&self) -> ThrottleReason {
        match self.open {
            Some(OpenState { probing: true, .. }) => ThrottleReason::Probe,
            Some(_) | None => ThrottleReason::Failures,
        }
    }

    /// The probe has a while to itself; a long request must not keep the others waiting for ever.
    pub(super) fn started(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.probe_at = now + PROBE_PATIENCE;
            open.probing = true;
        }
    }

    pub(super) fn failed(&mut self, started: Instant, now: Instant, jitter: f64) {
        let probes = match &self.open {
            None => {
                self.failures += 1;
                if self.failures < BURST {
                    return;
                }
                0
            }
            Some(open) if started <= open.since => return,
            Some(open) => open.probes + 1,
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << probes.min(10)).min(LONGEST_PAUSE);
        let since = self.open.map_or(now, |open| open.since);
        self.open = Some(OpenState {
            since,
            probe_at: now + pause.mul_f64(0.5 + jitter / 2.0),
            probes,
            probing: false,
        });
    }

    pub(super) fn succeeded(&mut self) {
        *self = Breaker::default();
    }
}

/// The budget of retry_budget, shared by all lanes: full at first, refilled by successes and, slowly, by time.
#[derive(Debug)]
pub(super) struct RetryBudget {
    tokens: f64,
    refilled: Instant,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> RetryBudget {
        RetryBudget { tokens: MOST_TOKENS, refilled: now }
    }

    pub(super) fn not_before(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = now.saturating_duration_since(self.refilled);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * TOKENS_A_SECOND).min(MOST_TOKENS);
        self.refilled = now;
        let missing = (1.0 - self.tokens) / TOKENS_A_SECOND;
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing) + Duration::from_millis(1))
    }

    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    pub(super) fn earn(&mut self) {
        self.tokens = (self.tokens + TOKENS_A_SUCCESS).min(MOST_TOKENS);
    }
}

/// So many failures without a success between them are the service's fault.
const BURST: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

const MOST_TOKENS: f64 = 20.0;
const TOKENS_A_SECOND: f64 = 1.0;
const TOKENS_A_SUCCESS: f64 = 0.5;
