//! The service's budget of one class, and the spacing that the user asked for.

use std::time::{Duration, Instant};

use super::Quota;

/// What is left of a class's budget.
#[derive(Debug)]
pub(super) struct QuotaWindow {
    known: Option<KnownQuota>,
    /// When each request that is under way started; as many as there are lanes.
    in_flight: Vec<Instant>,
    held_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct KnownQuota {
    per_minute: u32,
    /// When nothing is under way.
    remaining: u32,
    resets: Instant,
}

impl QuotaWindow {
    pub(super) fn new(per_minute: Option<u32>, now: Instant) -> QuotaWindow {
        let known = per_minute.map(|per_minute| KnownQuota::full(per_minute, now));
        QuotaWindow { known, in_flight: Vec::new(), held_until: None }
    }

    /// When the service counts anew, while nothing is left.
    pub(super) fn used_up_until(&mut self, now: Instant) -> Option<Instant> {
        self.forget_lost(now);
        let under_way = self.in_flight.len() as u32;
        let known = self.known.as_mut()?;
        if known.resets <= now {
            *known = KnownQuota::full(known.per_minute, now);
        }
        (known.remaining <= under_way).then_some(known.resets)
    }

    /// Until when the service wants no request.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// A request that takes longer than a window was counted in an earlier one.
    fn forget_lost(&mut self, now: Instant) {
        self.in_flight.retain(|&started| now.saturating_duration_since(started) < MINUTE);
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.in_flight.push(now);
    }

    /// Without headers the request may have been counted nevertheless.
    pub(super) fn answered(&mut self, started: Instant, quota: Option<Quota>, now: Instant) {
        if let Some(at) = self.in_flight.iter().position(|&other| other == started) {
            self.in_flight.swap_remove(at);
        }
        match (quota, &mut self.known) {
            (Some(quota), known) if quota.per_minute > 0 => {
                *known = Some(KnownQuota::learn(*known, quota, started, now))
            }
            (_, Some(known)) => known.remaining = known.remaining.saturating_sub(1),
            (_, None) => {}
        }
    }

    /// The service said: not now.
    pub(super) fn hold(&mut self, delay: Option<Duration>, now: Instant, jitter: f64) {
        let resets_in = self.known.map(|known| known.resets.saturating_duration_since(now));
        let delay = delay.or(resets_in).unwrap_or(UNSAID_HOLD).clamp(SHORTEST_HOLD, LONGEST_HOLD);
        let until = now + delay.mul_f64(1.0 + jitter / 5.0);
        self.held_until = self.held_until.max(Some(until));
    }

    pub(super) fn per_minute(&self) -> Option<u32> {
        self.known.map(|known| known.per_minute)
    }
}

impl KnownQuota {
    /// A window that begins at `now`.
    fn full(per_minute: u32, now: Instant) -> KnownQuota {
        KnownQuota { per_minute, remaining: per_minute, resets: now + MINUTE }
    }

    /// Headers may be written when the request arrives or when it is answered, and answers overtake each
    /// other. So a window counts as the same while it can be, and of what is heard of it the least holds.
    fn learn(before: Option<KnownQuota>, quota: Quota, started: Instant, now: Instant) -> KnownQuota {
        let resets_in = quota.resets_in.unwrap_or(MINUTE).min(MINUTE);
        let heard = KnownQuota {
            per_minute: quota.per_minute,
            remaining: quota.remaining.min(quota.per_minute),
            resets: now + resets_in + ROUNDING,
        };
        match before.filter(|before| before.resets > now && started + resets_in <= before.resets) {
            Some(before) => KnownQuota {
                remaining: heard.remaining.min(before.remaining),
                resets: heard.resets.min(before.resets),
                ..heard
            },
            None => heard,
        }
    }
}

/// At most one request each so often.
#[derive(Debug)]
pub(super) struct Spacing {
    interval: Option<Duration>,
    next: Option<Instant>,
}

impl Spacing {
    /// A rate that is not above zero is none.
    pub(super) fn new(a_second: Option<f64>) -> Spacing {
        let seconds =
            a_second.filter(|&rate| rate > 0.0).map(|rate| (1.0 / rate).min(LONGEST_HOLD.as_secs_f64()));
        Spacing { interval: seconds.map(Duration::from_secs_f64), next: None }
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.next = self.interval.map(|interval| self.next.map_or(now, |next| next.max(now)) + interval);
    }
}

/// The service's window (`/reference/README`).
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// The headers count whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// How long a class is held back when the service says so without a time.
const UNSAID_HOLD: Duration = Duration::from_secs(30);
const SHORTEST_HOLD: Duration = Duration::from_millis(500);
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
