//! The service's budget of one class, and the spacing that the user configured.

use std::time::{Duration, Instant};

use super::quota::{BudgetReading, Quota};

/// The remaining budget of a class.
#[derive(Debug)]
pub(super) struct QuotaWindow {
    known: Option<KnownQuota>,
    /// The start of each request under way; at most as many as there are lanes.
    in_flight: Vec<Instant>,
    held_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct KnownQuota {
    per_minute: u32,
    /// The remaining requests if none is under way.
    remaining: u32,
    resets: Instant,
}

impl QuotaWindow {
    pub(super) fn new(per_minute: Option<u32>, now: Instant) -> QuotaWindow {
        let known = per_minute.map(|per_minute| KnownQuota::full(per_minute, now));
        QuotaWindow { known, in_flight: Vec::new(), held_until: None }
    }

    /// Returns the end of the window if no request is left in it.
    pub(super) fn used_up_until(&mut self, now: Instant) -> Option<Instant> {
        self.forget_lost(now);
        let under_way = self.in_flight.len() as u32;
        let known = self.known.as_mut()?;
        // The service's window is over, and no answer has reported the next one yet.
        if known.resets <= now {
            *known = KnownQuota::full(known.per_minute, now);
        }
        // Requests in flight are not in the remainder of the last answer, so they are subtracted.
        (known.remaining <= under_way).then_some(known.resets)
    }

    /// Returns the end of the delay after a 429.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Removes requests that take longer than a window: the service counted them in an earlier one.
    fn forget_lost(&mut self, now: Instant) {
        self.in_flight.retain(|&started| now.saturating_duration_since(started) < MINUTE);
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.in_flight.push(now);
    }

    /// Counts the end of a request. `quota` is `None` for an answer without headers.
    pub(super) fn finished(&mut self, started: Instant, quota: Option<Quota>, now: Instant) {
        if let Some(at) = self.in_flight.iter().position(|&other| other == started) {
            // Requests that started at the same moment differ in nothing else, so that any of them may be removed.
            self.in_flight.swap_remove(at);
        }
        match (quota, &mut self.known) {
            // A limit of 0 is no usable statement: it would stop the class for ever.
            (Some(quota), known) if quota.per_minute > 0 => {
                *known = Some(KnownQuota::learn(*known, quota, started, now))
            }
            // The service may have counted a request whose answer has no headers.
            (_, Some(known)) => known.remaining = known.remaining.saturating_sub(1),
            (_, None) => {}
        }
    }

    /// Delays the class after a 429, for the time that the service named if it did.
    pub(super) fn hold(&mut self, delay: Option<Duration>, now: Instant, jitter: f64) {
        let resets_in = self.known.map(|known| known.resets.saturating_duration_since(now));
        // Without a named time the window's own end is the best estimate.
        let delay = delay.or(resets_in).unwrap_or(DEFAULT_HOLD).clamp(SHORTEST_HOLD, LONGEST_HOLD);
        // The spread avoids that all hosts start again at the same moment.
        let until = now + delay.mul_f64(1.0 + jitter / 5.0);
        // A later 429 may name a shorter delay. The longer one stays in effect.
        self.held_until = self.held_until.max(Some(until));
    }

    pub(super) fn per_minute(&self) -> Option<u32> {
        self.known.map(|known| known.per_minute)
    }

    /// Returns the budget at `now`, without the requests in flight; `None` before the first answer.
    pub(super) fn reading(&self, now: Instant) -> Option<BudgetReading> {
        let known = self.known?;
        let is_over = known.resets <= now;
        let remaining = if is_over { known.per_minute } else { known.remaining };
        Some(BudgetReading {
            per_minute: known.per_minute,
            left: remaining.saturating_sub(self.in_flight.len() as u32),
            resets: if is_over { now + MINUTE } else { known.resets },
        })
    }
}

impl KnownQuota {
    /// Returns a full window that begins at `now`.
    fn full(per_minute: u32, now: Instant) -> KnownQuota {
        KnownQuota { per_minute, remaining: per_minute, resets: now + MINUTE }
    }

    /// Combines the headers of an answer with the previous ones.
    fn learn(before: Option<KnownQuota>, quota: Quota, started: Instant, now: Instant) -> KnownQuota {
        // The windows last a minute, so a longer time is another header's or an epoch number.
        let resets_in = quota.resets_in.unwrap_or(MINUTE).min(MINUTE);
        let reported = KnownQuota {
            per_minute: quota.per_minute,
            remaining: quota.remaining.min(quota.per_minute),
            resets: now + resets_in + ROUNDING,
        };
        // The service may write headers when the request arrives or when it answers, and answers overtake each other.
        // While they may belong to the same window, the smaller remainder is the safe one.
        match before.filter(|before| before.resets > now && started + resets_in <= before.resets) {
            Some(before) => KnownQuota {
                remaining: reported.remaining.min(before.remaining),
                resets: reported.resets.min(before.resets),
                ..reported
            },
            None => reported,
        }
    }
}

/// A minimum interval between requests.
#[derive(Debug)]
pub(super) struct Spacing {
    interval: Option<Duration>,
    next: Option<Instant>,
}

impl Spacing {
    /// Creates the spacing for a rate. A rate that is not positive sets no limit.
    pub(super) fn new(a_second: Option<f64>) -> Spacing {
        let seconds =
            // The interval of a tiny rate is bounded, because `Duration::from_secs_f64` panics on overflow.
            a_second.filter(|&rate| rate > 0.0).map(|rate| (1.0 / rate).min(LONGEST_HOLD.as_secs_f64()));
        Spacing { interval: seconds.map(Duration::from_secs_f64), next: None }
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn started(&mut self, now: Instant) {
        // Not from the planned time of an idle spacing: saved time would allow a burst.
        self.next = self.interval.map(|interval| self.next.map_or(now, |next| next.max(now)) + interval);
    }
}

/// The service's window (`/reference/README`).
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// The headers count whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// The delay after a 429 that names no time.
pub(super) const DEFAULT_HOLD: Duration = Duration::from_secs(30);
// A 429 may name a delay of 0, which would be followed by the same answer at once.
const SHORTEST_HOLD: Duration = Duration::from_millis(500);
// A longer delay is an epoch number, or a date of a clock that is wrong.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
