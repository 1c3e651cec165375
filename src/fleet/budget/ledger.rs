//! The requests that this process has taken from the shared budget.
//!
//! Pure but for the lock: the caller passes the time. No call waits for a server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::gcra::{Observation, WindowOrder, interval_us, share};
use crate::pacing::{Class, Quota, SharedBudgetSource};

/// The ledger of one process, between the pacers of its clients and the task that takes blocks.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    classes: Mutex<[ClassLedger; Class::ALL.len()]>,
    /// Wakes the task once a class needs a block, or an answer 429 has to be shared.
    pub(super) wanted: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct ClassLedger {
    /// The requests that may start.
    granted: u32,
    /// The requests of the last block.
    block: u32,
    /// The time at which they expire. The shared budget has moved on then.
    expires: Option<Instant>,
    /// The time before which the shared budget grants nothing.
    ask_at: Option<Instant>,
    /// `true` once a request has waited since the last block.
    is_wanted: bool,
    seen: SeenAnswers,
    /// The known limit a minute, for the time without the servers.
    per_minute: u32,
    /// `true` while the servers cannot be reached.
    is_alone: bool,
    /// The next request without the servers.
    alone_at: Option<Instant>,
}

/// The answers of the service since the last exchange.
#[derive(Clone, Copy, Debug, Default)]
struct SeenAnswers {
    count: u64,
    per_minute: u32,
    /// The smallest remainder of the newest window, and the window's end.
    window: Option<(u32, Instant)>,
    /// The end of the longest delay that a 429 requested.
    held_until: Option<Instant>,
}

/// The needs of a class for its next exchange with the shared budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BudgetNeed {
    pub(super) wants_block: bool,
    pub(super) seen: Observation,
    /// The answers that `seen` is made of.
    pub(super) answers: u64,
}

impl Ledger {
    /// Returns what the class needs from the servers; `None` if nothing.
    pub(super) fn need(&self, class: Class, now: Instant) -> Option<BudgetNeed> {
        self.with(class, |ledger| {
            let may_ask = ledger.ask_at.is_none_or(|at| at <= now);
            let wants_block = ledger.is_wanted && may_ask && ledger.left(now) <= ledger.low_mark();
            let (seen, answers) = (ledger.seen.observation(now), ledger.seen.count);
            (wants_block || seen.throttled_ms.is_some()).then_some(BudgetNeed { wants_block, seen, answers })
        })
    }

    /// Returns the earliest time at which a class that waits may ask again.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        let waiting = |class: &Class| self.with(*class, |ledger| ledger.ask_at.filter(|_| ledger.is_wanted));
        Class::ALL.iter().filter_map(waiting).min()
    }

    /// Records the outcome of an exchange: the block that was granted, or the time until which nothing is.
    pub(super) fn exchanged(
        &self,
        class: Class,
        answers: u64,
        granted: u32,
        ask_at: Option<Instant>,
        per_minute: u32,
        now: Instant,
    ) {
        self.with(class, |ledger| {
            // What was seen meanwhile stays for the next exchange.
            if ledger.seen.count == answers {
                ledger.seen = SeenAnswers::default();
            }
            (ledger.is_alone, ledger.alone_at) = (false, None);
            if per_minute > 0 {
                ledger.per_minute = per_minute;
            }
            ledger.ask_at = ask_at;
            if granted > 0 {
                (ledger.granted, ledger.block) = (ledger.left(now) + granted, granted);
                ledger.expires = Some(now + LIFETIME);
                ledger.is_wanted = false;
            }
        });
    }

    /// Records that the servers cannot be reached. `workers` is the number of processes that were seen last. `phase` in
    /// `0.0..1.0` spreads the workers, which lose the servers at the same time.
    pub(super) fn alone(&self, class: Class, workers: u32, phase: f64, now: Instant) {
        self.with(class, |ledger| {
            ledger.is_alone = true;
            let share = share(ledger.per_minute, workers);
            let interval = Duration::from_micros(interval_us(share));
            // A request of each worker at once would be a burst in each outage.
            let next = *ledger.alone_at.get_or_insert(now + interval.mul_f64(phase));
            // Nothing is known about the limit: the pacer's own count of the service's answers has to do.
            let next = if ledger.per_minute == 0 { now } else { next };
            if next <= now {
                (ledger.granted, ledger.expires) = (1, Some(now + LIFETIME));
                ledger.alone_at = Some(now + interval);
                ledger.is_wanted = false;
            }
            ledger.ask_at = Some(next.max(now + ALONE_PAUSE));
        });
    }

    fn with<T>(&self, class: Class, change: impl FnOnce(&mut ClassLedger) -> T) -> T {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut classes[class as usize])
    }
}

impl ClassLedger {
    fn left(&self, now: Instant) -> u32 {
        if self.expires.is_some_and(|expires| expires > now) { self.granted } else { 0 }
    }

    /// Returns the number of left requests at which the next block is requested.
    ///
    /// A small block is a large part of what all workers may send, and is spent first.
    fn low_mark(&self) -> u32 {
        if self.block >= LARGE_BLOCK { self.block / 2 } else { 0 }
    }
}

impl SeenAnswers {
    /// Adds the headers of an answer.
    fn add(&mut self, quota: Quota, now: Instant) {
        self.per_minute = quota.per_minute;
        // The service counts in windows of a minute. A longer time comes from a gateway.
        let resets_in = quota.resets_in.unwrap_or(MINUTE).min(MINUTE);
        let reported = (quota.remaining.min(quota.per_minute), now + resets_in);
        let known_ms = self.window.map_or(0, |(_, ends)| millis(ends.saturating_duration_since(now)));
        self.window = match (self.window, WindowOrder::of(known_ms, millis(resets_in))) {
            (Some((remaining, ends)), WindowOrder::Same) => {
                // Answers overtake each other: within one window the smaller remainder is the safe one.
                Some((remaining.min(reported.0), ends.min(reported.1)))
            }
            (known, WindowOrder::Older) => known,
            _ => Some(reported),
        };
    }

    /// Returns the answers as they are worth at `now`: the remainder of a window that is over is worth nothing.
    fn observation(&self, now: Instant) -> Observation {
        let left_ms = |end: Instant| millis(end.saturating_duration_since(now));
        let window = self.window.map(|(remaining, ends)| (remaining, left_ms(ends)));
        Observation {
            per_minute: self.per_minute,
            remaining: window.filter(|(_, resets_ms)| *resets_ms > 0),
            throttled_ms: self.held_until.map(left_ms).filter(|delay_ms| *delay_ms > 0),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl SharedBudgetSource for Ledger {
    fn not_before(&self, class: Class, now: Instant) -> Option<Instant> {
        let (until, is_news) = self.with(class, |ledger| {
            if ledger.left(now) > 0 {
                return (None, false);
            }
            let is_news = !ledger.is_wanted;
            ledger.is_wanted = true;
            // The block arrives without a sign to the pacer, which therefore looks again soon.
            let soon = now + LOOK_AGAIN;
            (Some(ledger.ask_at.map_or(soon, |at| at.clamp(soon, now + LONGEST_LOOK))), is_news)
        });
        if is_news {
            // Kept by `Notify` if the task is not waiting at the moment.
            self.wanted.notify_one();
        }
        until
    }

    fn started(&self, class: Class, now: Instant) {
        let is_low = self.with(class, |ledger| {
            // The block may have expired between the grant and the start of the request.
            ledger.granted = ledger.left(now).saturating_sub(1);
            // In time for the next block to arrive before these are spent.
            let is_low = !ledger.is_wanted && ledger.granted > 0 && ledger.granted <= ledger.low_mark();
            ledger.is_wanted |= is_low;
            is_low
        });
        if is_low {
            self.wanted.notify_one();
        }
    }

    fn finished(&self, class: Class, quota: Option<Quota>, throttled: Option<Duration>, now: Instant) {
        self.with(class, |ledger| {
            ledger.seen.count += 1;
            if let Some(quota) = quota.filter(|quota| quota.per_minute > 0) {
                ledger.per_minute = quota.per_minute;
                ledger.seen.add(quota, now);
            }
            if let Some(delay) = throttled {
                ledger.seen.held_until = ledger.seen.held_until.max(now.checked_add(delay));
                // The requests of the block would be refused, too.
                ledger.granted = 0;
            }
        });
        if throttled.is_some() {
            self.wanted.notify_one();
        }
    }
}

/// The service's window, if an answer names no end.
const MINUTE: Duration = Duration::from_secs(60);
/// The time after which requests that were taken and not used are lost.
const LIFETIME: Duration = Duration::from_secs(5);
/// The time after which the pacer looks for a block again: a few exchanges with a server.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// The longest time between two looks. A 429 is shared by all, and a window may end early.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// The size from which a block is replaced before it is spent: 1.5 % of a minute's requests, see `gcra::block`.
const LARGE_BLOCK: u32 = 8;
/// The time between two tries to reach the servers.
const ALONE_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Class = Class::Uploads;

    #[test]
    fn a_block_is_asked_for_once_and_spent_request_by_request() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        assert_eq!(ledger.need(CLASS, now), None);
        assert!(ledger.not_before(CLASS, now).is_some_and(|at| at > now));
        assert!(ledger.need(CLASS, now).unwrap().wants_block);
        ledger.exchanged(CLASS, 0, 2, None, 100, now);
        for _ in 0..2 {
            assert_eq!(ledger.not_before(CLASS, now), None);
            ledger.started(CLASS, now);
        }
        assert!(ledger.not_before(CLASS, now).is_some());
    }

    #[test]
    fn a_large_block_is_replaced_before_it_is_spent() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        assert!(ledger.not_before(CLASS, now).is_some());
        ledger.exchanged(CLASS, 0, 16, None, 1000, now);
        for left in (0..16).rev() {
            assert_eq!(ledger.not_before(CLASS, now), None);
            ledger.started(CLASS, now);
            assert_eq!(ledger.need(CLASS, now).is_some(), left <= 8, "{left} left");
        }
        ledger.exchanged(CLASS, 0, 16, None, 1000, now);
        assert_eq!(ledger.not_before(CLASS, now), None);
        assert_eq!(ledger.need(CLASS, now), None);
    }

    #[test]
    fn requests_that_are_not_used_expire() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.exchanged(CLASS, 0, 3, None, 100, now);
        assert_eq!(ledger.not_before(CLASS, now), None);
        assert!(ledger.not_before(CLASS, now + LIFETIME).is_some());
    }

    #[test]
    fn the_smallest_remainder_and_the_longest_delay_are_shared() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        let quota =
            |remaining| Some(Quota { per_minute: 100, remaining, resets_in: Some(Duration::from_secs(9)) });
        for remaining in [50, 20, 30] {
            ledger.finished(CLASS, quota(remaining), None, now);
        }
        ledger.finished(CLASS, None, Some(Duration::from_secs(3)), now);
        ledger.finished(CLASS, None, Some(Duration::from_secs(2)), now);
        let BudgetNeed { seen, answers, .. } = ledger.need(CLASS, now).unwrap();
        let expected =
            Observation { per_minute: 100, remaining: Some((20, 9_000)), throttled_ms: Some(3_000) };
        assert_eq!(seen, expected);
        ledger.exchanged(CLASS, answers, 0, Some(now + Duration::from_secs(3)), 100, now);
        assert_eq!(ledger.need(CLASS, now), None);
    }

    #[test]
    fn a_remainder_is_shared_with_the_end_of_its_own_window() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        let quota = |remaining, resets_s| {
            Some(Quota { per_minute: 60, remaining, resets_in: Some(Duration::from_secs(resets_s)) })
        };
        assert!(ledger.not_before(CLASS, now).is_some());
        ledger.finished(CLASS, quota(2, 1), None, now);
        let later = now + Duration::from_millis(900);
        assert_eq!(ledger.need(CLASS, later).unwrap().seen.remaining, Some((2, 100)));
        ledger.finished(CLASS, quota(59, 60), None, later);
        assert_eq!(ledger.need(CLASS, later).unwrap().seen.remaining, Some((59, 60_000)));
        assert_eq!(ledger.need(CLASS, later + MINUTE).unwrap().seen.remaining, None);
    }

    #[test]
    fn a_delay_that_is_over_is_not_shared_again() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.finished(CLASS, None, Some(Duration::from_secs(40)), now);
        let BudgetNeed { answers, .. } = ledger.need(CLASS, now).unwrap();
        // Another answer arrives during the exchange, which keeps what was seen for the next one.
        ledger.finished(CLASS, None, None, now);
        ledger.exchanged(CLASS, answers, 0, None, 60, now);
        let later = now + Duration::from_secs(30);
        assert_eq!(ledger.need(CLASS, later).unwrap().seen.throttled_ms, Some(10_000));
        assert_eq!(ledger.need(CLASS, now + Duration::from_secs(40)), None);
    }

    #[test]
    fn without_the_servers_a_worker_keeps_to_its_share() {
        let (ledger, begun) = (Ledger::default(), Instant::now());
        ledger.exchanged(CLASS, 0, 0, None, 100, begun);
        let mut started = 0;
        for step in 0..600 {
            let now = begun + Duration::from_millis(step * 100);
            if ledger.not_before(CLASS, now).is_none() {
                ledger.started(CLASS, now);
                started += 1;
            } else if ledger.need(CLASS, now).is_some() {
                ledger.alone(CLASS, 4, 0.5, now);
            }
        }
        // 100 a minute over 4 workers, less the headroom of a sixteenth.
        assert!((20..=25).contains(&started), "{started}");
    }
}
