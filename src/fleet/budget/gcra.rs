//! The shared budget of one class: an even rate with a small burst, and the service's own count.
//!
//! Pure. The rate (GCRA, the generic cell rate algorithm) is one number: the theoretical arrival time of the next
//! request. The service counts in windows of a minute instead, and counts other programs too. Both limits hold.

use serde::{Deserialize, Serialize};

/// The shared budget of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SharedLimit {
    /// The requests that the service allows a minute; 0 while that is unknown.
    pub(super) per_minute: u32,
    /// The theoretical arrival time of the next request, in microseconds since 1970.
    arrival_us: u64,
    /// The time before which no worker sends, after a 429.
    not_before_ms: u64,
    /// The requests that are left in the service's window, less those that workers have taken.
    left: u32,
    /// The end of that window.
    window_ends_ms: u64,
}

/// The answers of the service since the last exchange with the shared budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Observation {
    /// The limit a minute in the newest answer; 0 without one.
    pub(super) per_minute: u32,
    /// The smallest remainder, and the milliseconds until the window ends.
    pub(super) remaining: Option<(u32, u64)>,
    /// The longest delay that a 429 requested, in milliseconds.
    pub(super) throttled_ms: Option<u64>,
}

/// The answer to a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reservation {
    /// The worker may send so many requests.
    Granted(u32),
    /// The worker may ask again at this time, in milliseconds since 1970.
    AskAgain(u64),
}

/// The place of an answer's window in relation to the one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowOrder {
    Older,
    Same,
    Newer,
}

impl WindowOrder {
    /// Compares by the milliseconds until each window ends. 0 for `known_ms` means that no window is known.
    ///
    /// The remainder of a window says nothing about the next one: taken for it, the last requests of one minute would be
    /// all of the next.
    pub(super) fn of(known_ms: u64, seen_ms: u64) -> WindowOrder {
        if known_ms == 0 || seen_ms > known_ms + WINDOW_MS / 2 {
            WindowOrder::Newer
        } else if seen_ms + WINDOW_MS / 2 < known_ms {
            WindowOrder::Older
        } else {
            WindowOrder::Same
        }
    }
}

impl SharedLimit {
    /// Takes the service's answers into account.
    pub(super) fn observe(&mut self, seen: Observation, now_ms: u64) {
        if seen.per_minute > 0 {
            self.per_minute = seen.per_minute;
        }
        if let Some((remaining, resets_ms)) = seen.remaining {
            // The service counts in windows of a minute. A longer time comes from a gateway.
            let resets_ms = resets_ms.min(WINDOW_MS);
            let ends_ms = now_ms + resets_ms;
            match WindowOrder::of(self.window_ends_ms.saturating_sub(now_ms), resets_ms) {
                WindowOrder::Newer => (self.left, self.window_ends_ms) = (remaining, ends_ms),
                WindowOrder::Same => {
                    // Answers overtake each other. Within one window the smallest remainder is the safe one. An answer
                    // that was slow on its way makes the end late, never early.
                    self.left = self.left.min(remaining);
                    self.window_ends_ms = self.window_ends_ms.min(ends_ms);
                }
                WindowOrder::Older => {}
            }
        }
        if let Some(delay_ms) = seen.throttled_ms {
            self.not_before_ms = self.not_before_ms.max(now_ms + delay_ms.min(LONGEST_HOLD_MS));
        }
    }

    /// Takes up to `wanted` requests.
    pub(super) fn reserve(&mut self, wanted: u32, now_ms: u64) -> Reservation {
        // A time far ahead was written by a clock that went back since.
        if self.not_before_ms > now_ms && self.not_before_ms <= now_ms + LONGEST_HOLD_MS {
            return Reservation::AskAgain(self.not_before_ms);
        }
        // Before the first answer the limit is unknown, and a block is a single request.
        if self.per_minute == 0 {
            return Reservation::Granted(wanted);
        }
        let in_window = self.window_ends_ms > now_ms && self.window_ends_ms <= now_ms + WINDOW_MS;
        if in_window && self.left == 0 {
            return Reservation::AskAgain(self.window_ends_ms);
        }
        let (now_us, interval_us) = (now_ms * 1000, interval_us(self.per_minute));
        let burst_us = u64::from(burst(self.per_minute)) * interval_us;
        let arrival_us = self.arrival_us.max(now_us);
        // Written by a clock that went back since: without this, no worker would send until that time.
        let is_from_the_future = arrival_us > now_us + burst_us + interval_us;
        let arrival_us = if is_from_the_future { now_us + burst_us } else { arrival_us };
        let room = (now_us + burst_us).saturating_sub(arrival_us) / interval_us;
        if room == 0 {
            let free_us = arrival_us + interval_us - burst_us;
            // Never the present time, at which the worker would ask again at once.
            return Reservation::AskAgain(free_us.div_ceil(1000).max(now_ms + 1));
        }
        let mut granted = wanted.min(u32::try_from(room).unwrap_or(u32::MAX));
        if in_window {
            granted = granted.min(self.left);
            self.left -= granted;
        }
        self.arrival_us = arrival_us + u64::from(granted) * interval_us;
        Reservation::Granted(granted)
    }
}

/// Returns the requests that a worker takes at once: few enough that several workers get their turn, enough that the
/// servers have few writes.
pub(super) fn block(per_minute: u32) -> u32 {
    (per_minute / 33).clamp(1, 16)
}

/// Returns the share of a worker that cannot reach the shared budget: at least one request a minute.
pub(super) fn share(per_minute: u32, workers: u32) -> u32 {
    (per_minute / workers.max(1)).max(1)
}

/// Returns the time between two requests, with a headroom of a sixteenth, which pays for the burst.
pub(super) fn interval_us(per_minute: u32) -> u64 {
    60_000_000 * 16 / (u64::from(per_minute.max(1)) * 15)
}

/// Returns the requests that may start at once after an idle time. With them a minute has no more than the limit.
fn burst(per_minute: u32) -> u32 {
    // Fifteen sixteenths at the even rate and a twentieth at once stay below the limit.
    (per_minute / 20).max(1)
}

/// The service's window.
const WINDOW_MS: u64 = 60_000;
/// The longest delay that a 429 may request.
const LONGEST_HOLD_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(per_minute: u32) -> SharedLimit {
        SharedLimit { per_minute, ..SharedLimit::default() }
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_the_limit(
            per_minute in 5..1000_u32,
            asks in proptest::collection::vec((0..3000_u64, 1..20_u32), 1..300),
        ) {
            let (mut limit, mut now, mut granted) = (limit(per_minute), 1_000_000, Vec::new());
            for (step, wanted) in asks {
                now += step;
                if let Reservation::Granted(count) = limit.reserve(wanted, now) {
                    prop_assert!(count >= 1 && count <= wanted);
                    granted.push((now, count));
                }
            }
            for &(start, _) in &granted {
                let in_minute = granted.iter().filter(|(at, _)| (start..start + 60_000).contains(at));
                let sum: u32 = in_minute.map(|(_, count)| count).sum();
                // The headroom pays for the burst.
                let most = (per_minute * 15).div_ceil(16) + burst(per_minute) + 1;
                prop_assert!(sum <= most && sum <= per_minute + 2, "{sum} of {per_minute}");
            }
        }

        #[test]
        fn a_refusal_names_the_time_of_the_next_grant(
            per_minute in 1..1000_u32,
            remaining in proptest::option::of((0..50_u32, 0..60_000_u64)),
            throttled_ms in proptest::option::of(0..100_000_u64),
        ) {
            let (mut limit, now) = (limit(per_minute), 5_000_000);
            limit.observe(Observation { per_minute: 0, remaining, throttled_ms }, now);
            for _ in 0..100 {
                match limit.reserve(1, now) {
                    Reservation::Granted(_) => {}
                    Reservation::AskAgain(at) => {
                        prop_assert!(at > now);
                        // Two limits may hold one after the other.
                        let mut time = at;
                        for _ in 0..3 {
                            match limit.reserve(1, time) {
                                Reservation::Granted(_) => return Ok(()),
                                Reservation::AskAgain(next) => {
                                    prop_assert!(next > time);
                                    time = next;
                                }
                            }
                        }
                        prop_assert!(false, "no grant after three waits");
                    }
                }
            }
        }

        #[test]
        fn the_service_counts_others_and_its_count_wins(left in 0..5_u32, wanted in 1..20_u32) {
            let (mut limit, now) = (limit(600), 1_000_000);
            let seen = Observation { per_minute: 600, remaining: Some((left, 30_000)), throttled_ms: None };
            limit.observe(seen, now);
            let mut sum = 0;
            while let Reservation::Granted(count) = limit.reserve(wanted, now) {
                sum += count;
            }
            prop_assert_eq!(sum, left);
            prop_assert_eq!(limit.reserve(1, now), Reservation::AskAgain(now + 30_000));
            prop_assert_eq!(limit.reserve(1, now + 30_000), Reservation::Granted(1));
        }

        #[test]
        fn a_clock_that_went_back_stops_no_worker_for_long(back in 0..1_000_000_000_u64) {
            let (mut limit, now) = (limit(100), 2_000_000_000);
            while let Reservation::Granted(_) = limit.reserve(1, now) {}
            limit.observe(Observation { remaining: Some((0, 60_000)), ..Observation::default() }, now);
            let now = now - back;
            match limit.reserve(1, now) {
                Reservation::Granted(_) => {}
                Reservation::AskAgain(at) => prop_assert!(at <= now + WINDOW_MS),
            }
        }
    }

    #[test]
    fn the_end_of_one_window_is_not_the_budget_of_the_next() {
        let (mut limit, now) = (limit(60), 1_000_000);
        let seen = |remaining, resets_ms| Observation {
            per_minute: 60,
            remaining: Some((remaining, resets_ms)),
            throttled_ms: None,
        };
        limit.observe(seen(2, 1_000), now);
        // Answers of one window: the end is rounded to seconds, and the smallest remainder counts.
        limit.observe(seen(3, 1_900), now);
        assert_eq!((limit.left, limit.window_ends_ms), (2, now + 1_000));
        // The answer of the next window arrives before the end as it was rounded.
        limit.observe(seen(59, 60_000), now + 500);
        assert_eq!((limit.left, limit.window_ends_ms), (59, now + 60_500));
        // An answer of the window before was slow on its way.
        limit.observe(seen(1, 2_000), now + 700);
        assert_eq!((limit.left, limit.window_ends_ms), (59, now + 60_500));
    }

    #[test]
    fn an_answer_429_holds_every_worker() {
        let mut limit = limit(100);
        limit.observe(Observation { throttled_ms: Some(7_000), ..Observation::default() }, 1_000_000);
        assert_eq!(limit.reserve(3, 1_000_000), Reservation::AskAgain(1_007_000));
        assert_eq!(limit.reserve(3, 1_007_000), Reservation::Granted(3));
    }

    #[test]
    fn a_worker_alone_has_its_share_and_at_least_one() {
        assert_eq!([share(100, 4), share(100, 0), share(3, 8)], [25, 100, 1]);
    }
}
