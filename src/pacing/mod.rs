//! When a request may start: the service's budget, the user's caps, and mercy for a service that fails.
//!
//! Pure: whoever drives it asks [`Pacer::check`] before a request, says [`Pacer::started`] when it
//! begins and [`Pacer::finished`] when it is over, and brings the clock and the random numbers. All lanes share one.
//!
//! - The budget is what the newest answer's headers say is left, less the requests that are still under
//!   way. So what other hosts spend is followed, and what is spent too much is at most what is in flight.
//! - A 429 holds back its whole class for as long as the service says, and up to a fifth longer.
//! - A burst of failures leaves one request at a time to find out whether the service is back.
//! - Repetitions draw on a budget of their own, which successes refill.
//!
//! Does not know: chunks, connections, which request is asking.

mod breaker;
mod chunk_size;
mod window;

use std::fmt;
use std::time::{Duration, Instant};

use breaker::{Breaker, RetryBudget};
pub use chunk_size::{ChunkSizing, chunk_bytes_for};
use window::{QuotaWindow, Spacing};

/// The service counts requests in classes, each with its own budget a minute.
///
/// `/reference/README`, "Rate limiting"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Chunks and whole files.
    Uploads,
    /// What creates, changes or deletes.
    Writes,
    /// What only asks.
    Reads,
}

/// Whether a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Ready,
    /// Not before this moment, which is always a later one. Ask again then, or after an answer.
    NotBefore(Instant),
}

/// What holds requests back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThrottleReason {
    /// The service answered 429.
    TooManyRequests,
    /// The service's count for this minute is used up.
    Budget,
    /// A burst of failures.
    Failures,
    /// One request is finding out whether the service is back.
    Probe,
    /// Too many requests were retry_budget.
    RetryBudget,
    /// The user's own limits.
    Caps,
}

/// Requests of a class may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Not before this moment, which is a later one.
    pub until: Instant,
    /// What holds them back the longest.
    pub by: ThrottleReason,
}

/// What an answer's rate headers said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests a minute, `X-RateLimit-Limit`.
    pub per_minute: u32,
    /// What is left of them in this window, `X-RateLimit-Remaining`.
    pub remaining: u32,
    /// How long this window lasts, `X-RateLimit-Retry-After`.
    pub resets_in: Option<Duration>,
}

/// What a request that is over says about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceHealth {
    /// It answers, be it with a refusal.
    Well,
    /// It asks for fewer requests (429), and perhaps says for how long.
    Throttling(Option<Duration>),
    /// It failed: 5xx, a refused or lost connection, no answer.
    Failing,
    /// Nothing: the request was given up for another reason.
    Unknown,
}

/// Whether a request is a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// It was not sent before.
    First,
    /// An earlier attempt failed.
    Retry,
}

/// The budgets that the service publishes, for the time before its first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaPreset {
    /// 100 uploads, 200 writes, 500 reads a minute.
    Production,
    /// 40 uploads, 40 writes, 100 reads a minute.
    Sandbox,
}

/// What the user allows. The default sets no limit of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caps {
    /// Requests of all classes a second.
    pub requests_a_second: Option<f64>,
    /// Upload requests a minute.
    pub uploads_a_minute: Option<u32>,
    /// What to assume before the first answer; otherwise there is no limit until then.
    pub preset: Option<QuotaPreset>,
}

impl Caps {
    /// What both caps leave of uploads a minute, rounded up.
    pub fn most_uploads_a_minute(&self) -> Option<u32> {
        // Beyond `u32` the cast ends at its largest.
        let of_all = self.requests_a_second.map(|rate| (rate * 60.0).ceil() as u32);
        of_all.into_iter().chain(self.uploads_a_minute).min()
    }
}

/// A request that is under way: give it back by [`Pacer::finished`]. One that is lost counts as under way
/// for a minute.
#[derive(Debug)]
#[must_use = "give it back by `answered`"]
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
}

impl Pacer {
    /// A pace that begins at `now`.
    pub fn new(caps: &Caps, now: Instant) -> Pacer {
        let window = |class| QuotaWindow::new(caps.preset.map(|preset| preset.per_minute(class)), now);
        let uploads_a_second = caps.uploads_a_minute.map(|rate| f64::from(rate) / 60.0);
        Pacer {
            windows: [Class::Uploads, Class::Writes, Class::Reads].map(window),
            all: Spacing::new(caps.requests_a_second),
            uploads: Spacing::new(uploads_a_second),
            breaker: Breaker::default(),
            retry_budget: RetryBudget::new(now),
        }
    }

    /// Whether a request of `class` may start at `now`.
    pub fn check(&mut self, class: Class, now: Instant) -> Start {
        match self.delay(class, now) {
            Some(Delay { until, .. }) => Start::NotBefore(until),
            None => Start::Ready,
        }
    }

    /// What keeps a request of `class` from starting at `now`, if anything does.
    pub fn delay(&mut self, class: Class, now: Instant) -> Option<Delay> {
        let own = match class {
            Class::Uploads => self.uploads.not_before(),
            Class::Writes | Class::Reads => None,
        };
        let window = &mut self.windows[class as usize];
        let brakes = [
            (own.max(self.all.not_before()), ThrottleReason::Caps),
            (window.used_up_until(now), ThrottleReason::Budget),
            (window.held_until(), ThrottleReason::TooManyRequests),
            (self.breaker.not_before(now), self.breaker.reason()),
            (self.retry_budget.not_before(now), ThrottleReason::RetryBudget),
        ];
        let held = brakes.into_iter().filter_map(|(until, by)| Some(Delay { until: until?, by }));
        held.max_by_key(|held| held.until).filter(|held| held.until > now)
    }

    /// A request of `class` starts at `now`.
    pub fn started(&mut self, class: Class, kind: AttemptKind, now: Instant) -> Permit {
        self.all.started(now);
        if class == Class::Uploads {
            self.uploads.started(now);
        }
        if kind == AttemptKind::Retry {
            self.retry_budget.spend();
        }
        self.breaker.started(now);
        self.windows[class as usize].started(now);
        Permit { class, started: now }
    }

    /// A request is over. `jitter` in `0.0..1.0` spreads the hosts that heard the same.
    pub fn finished(
        &mut self,
        permit: Permit,
        quota: Option<Quota>,
        health: ServiceHealth,
        now: Instant,
        jitter: f64,
    ) {
        let window = &mut self.windows[permit.class as usize];
        window.answered(permit.started, quota, now);
        match health {
            ServiceHealth::Throttling(delay) => window.hold(delay, now, jitter),
            ServiceHealth::Failing => self.breaker.failed(permit.started, now, jitter),
            ServiceHealth::Well | ServiceHealth::Unknown => {}
        }
        if matches!(health, ServiceHealth::Well | ServiceHealth::Throttling(_)) {
            self.breaker.succeeded();
        }
        if health == ServiceHealth::Well {
            self.retry_budget.earn();
        }
    }

    /// How many requests of `class` the service allows a minute, once it has said so.
    pub fn per_minute(&self, class: Class) -> Option<u32> {
        self.windows[class as usize].per_minute()
    }
}

impl Class {
    /// A stable name, for logs and machine-readable output: `uploads`.
    pub fn name(self) -> &'static str {
        match self {
            Class::Uploads => "uploads",
            Class::Writes => "writes",
            Class::Reads => "reads",
        }
    }
}

impl ThrottleReason {
    /// A stable name, for logs and machine-readable output: `too_many_requests`.
    pub fn name(self) -> &'static str {
        match self {
            ThrottleReason::TooManyRequests => "too_many_requests",
            ThrottleReason::Budget => "budget",
            ThrottleReason::Failures => "failures",
            ThrottleReason::Probe => "probe",
            ThrottleReason::RetryBudget => "repetitions",
            ThrottleReason::Caps => "caps",
        }
    }
}

/// In words, to stand behind `uploads wait:`.
impl fmt::Display for ThrottleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ThrottleReason::TooManyRequests => "the service answered 429, too many requests",
            ThrottleReason::Budget => "the service's requests for this minute are used up",
            ThrottleReason::Failures => "the service failed several times in a row",
            ThrottleReason::Probe => "one request is finding out whether the service is back",
            ThrottleReason::RetryBudget => "too many requests were retry_budget",
            ThrottleReason::Caps => "the limits that were set here",
        })
    }
}

impl QuotaPreset {
    /// `/reference/README`, "Rate limiting"
    fn per_minute(self, class: Class) -> u32 {
        match (self, class) {
            (QuotaPreset::Production, Class::Uploads) => 100,
            (QuotaPreset::Production, Class::Writes) => 200,
            (QuotaPreset::Production, Class::Reads) => 500,
            (QuotaPreset::Sandbox, Class::Uploads | Class::Writes) => 40,
            (QuotaPreset::Sandbox, Class::Reads) => 100,
        }
    }
}

#[cfg(test)]
mod tests;
