//! The pacer, which combines all limits.

use std::time::{Duration, Instant};

use super::breaker::{Breaker, RetryBudget};
use super::quota::{BudgetReading, Caps, Class, Quota};
use super::shared::SharedBudget;
use super::throttle::{Delay, Start, ThrottleReason};
use super::window::{DEFAULT_HOLD, QuotaWindow, Spacing};

/// The state of the service as the end of a request shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceHealth {
    /// The service answered, possibly with a refusal.
    Well,
    /// The service requested fewer requests (429), for the given time if it named one.
    Throttling(Option<Duration>),
    /// The service failed: 5xx, a refused or lost connection, no answer.
    Failing,
    /// The request was cancelled for a reason unrelated to the service.
    Unknown,
}

/// The kind of an attempt to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// The first attempt.
    First,
    /// An attempt after a failed one.
    Retry,
}

/// The permission of a request under way, to be returned by [`Pacer::finished`]. A dropped permit counts as under way
/// for a minute.
#[derive(Debug)]
#[must_use = "return it by `Pacer::finished`"]
pub struct Permit {
    class: Class,
    started: Instant,
}

/// Decides when requests may start.
#[derive(Debug)]
pub struct Pacer {
    windows: [QuotaWindow; 3],
    all: Spacing,
    uploads: Spacing,
    breaker: Breaker,
    retry_budget: RetryBudget,
    shared: SharedBudget,
}

impl Pacer {
    /// Creates a pacer whose windows begin at `now`.
    pub fn new(caps: &Caps, now: Instant) -> Pacer {
        let window = |class| QuotaWindow::new(caps.preset.map(|preset| preset.per_minute(class)), now);
        let uploads_a_second = caps.uploads_a_minute.map(|rate| f64::from(rate) / 60.0);
        Pacer {
            windows: [Class::Uploads, Class::Writes, Class::Reads].map(window),
            all: Spacing::new(caps.requests_a_second),
            uploads: Spacing::new(uploads_a_second),
            breaker: Breaker::default(),
            retry_budget: RetryBudget::new(now),
            shared: SharedBudget::default(),
        }
    }

    /// Draws on a budget that other processes share, too.
    pub(crate) fn with_shared(mut self, shared: SharedBudget) -> Pacer {
        self.shared = shared;
        self
    }

    /// Checks if a request of `class` may start at `now`.
    pub fn check(&mut self, class: Class, now: Instant) -> Start {
        match self.wait(class, now) {
            Some(Delay { until, .. }) => Start::NotBefore(until),
            None => Start::Ready,
        }
    }

    /// Returns the longest delay of a request of `class` that is ready at `now`; `None` if the request may start.
    ///
    /// Unlike [`Pacer::delay`], takes requests from the shared budget.
    pub fn wait(&mut self, class: Class, now: Instant) -> Option<Delay> {
        // The own limits come first: a request that has to wait for them would take another host's turn.
        let own = self.delay(class, now);
        own.or_else(|| {
            let until = self.shared.not_before(class, now)?;
            Some(Delay { until, by: ThrottleReason::SharedBudget })
        })
    }

    /// Returns the longest delay of requests of `class` at `now`; `None` if a request may start.
    pub fn delay(&mut self, class: Class, now: Instant) -> Option<Delay> {
        let own = match class {
            Class::Uploads => self.uploads.not_before(),
            Class::Writes | Class::Reads => None,
        };
        let window = &mut self.windows[class as usize];
        let limits = [
            (own.max(self.all.not_before()), ThrottleReason::Caps),
            (window.used_up_until(now), ThrottleReason::Budget),
            (window.held_until(), ThrottleReason::TooManyRequests),
            (self.breaker.not_before(now), self.breaker.reason()),
            (self.retry_budget.not_before(now), ThrottleReason::RetryBudget),
        ];
        // The longest delay is the one to report: the others end before it.
        let held = limits.into_iter().filter_map(|(until, by)| Some(Delay { until: until?, by }));
        held.max_by_key(|held| held.until).filter(|held| held.until > now)
    }

    /// Counts a request of `class` that starts at `now`.
    pub fn started(&mut self, class: Class, kind: RequestKind, now: Instant) -> Permit {
        self.all.started(now);
        if class == Class::Uploads {
            self.uploads.started(now);
        }
        if kind == RequestKind::Retry {
            self.retry_budget.spend();
        }
        // While the breaker is open, the first request that starts becomes the probe.
        self.breaker.started(now);
        self.windows[class as usize].started(now);
        self.shared.started(class, now);
        Permit { class, started: now }
    }

    /// Counts the end of a request. `jitter` in `0.0..1.0` spreads hosts that received the same answer.
    pub fn finished(
        &mut self,
        permit: Permit,
        quota: Option<Quota>,
        health: ServiceHealth,
        now: Instant,
        jitter: f64,
    ) {
        let window = &mut self.windows[permit.class as usize];
        let throttled = match health {
            // A 429 without a time holds the other processes, too.
            ServiceHealth::Throttling(delay) => Some(delay.unwrap_or(DEFAULT_HOLD)),
            _ => None,
        };
        self.shared.finished(permit.class, quota, throttled, now);
        // The window is updated for every answer: a refusal carries the rate headers too.
        window.finished(permit.started, quota, now);
        match health {
            ServiceHealth::Throttling(delay) => window.hold(delay, now, jitter),
            ServiceHealth::Failing => self.breaker.failed(permit.started, now, jitter),
            ServiceHealth::Well | ServiceHealth::Unknown => {}
        }
        // A 429 comes from a service that works: it closes the breaker like any other answer.
        if matches!(health, ServiceHealth::Well | ServiceHealth::Throttling(_)) {
            self.breaker.succeeded();
        }
        // A 429 earns no retry, because it is not a success.
        if health == ServiceHealth::Well {
            self.retry_budget.earn();
        }
    }

    /// Returns the requests of `class` that the service allows a minute; `None` before its first answer and without
    /// a preset.
    pub fn per_minute(&self, class: Class) -> Option<u32> {
        self.windows[class as usize].per_minute()
    }

    /// Returns the budget of `class` at `now`; `None` before the service's first answer and without a preset.
    pub fn budget(&self, class: Class, now: Instant) -> Option<BudgetReading> {
        self.windows[class as usize].reading(now)
    }
}
