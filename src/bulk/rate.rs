//! Speeds of a growing number of bytes. Pure: the caller passes the clock.

use std::time::{Duration, Instant};

/// The speed of the last ten seconds or so.
///
/// Each byte loses weight exponentially with its age (`TIME_CONSTANT`), so that a pause shows at once and a single
/// large write does not dominate.
#[derive(Clone, Debug)]
pub struct RecentSpeed {
    since: Instant,
    at: Instant,
    /// The bytes, weighted by their age at `at`.
    weight: f64,
}

/// The speeds of a run, each in a period of its own.
#[derive(Clone, Debug)]
pub struct SpeedMeter {
    since: Instant,
    bytes: u64,
    recent: RecentSpeed,
    minute: MinuteWindow,
}

/// Speeds in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Speeds {
    /// The last ten seconds or so, weighted by age.
    pub now: u64,
    /// The last minute, or the time since the start if that is shorter.
    pub minute: u64,
    /// The time since the start.
    pub run: u64,
}

/// The bytes of the last 60 seconds, in one bucket for each second.
#[derive(Clone, Debug)]
struct MinuteWindow {
    buckets: [u64; MINUTE as usize],
    /// The second since the start that the newest bucket stands for.
    newest: u64,
}

impl RecentSpeed {
    /// Creates a meter that starts at `now` without bytes.
    pub fn new(now: Instant) -> RecentSpeed {
        RecentSpeed { since: now, at: now, weight: 0.0 }
    }

    /// Adds bytes that moved at `now`. A time before the last one counts as the last one.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.weight = self.weight_at(now) + bytes as f64;
        self.at = self.at.max(now);
    }

    /// Returns the speed at `now` in bytes per second.
    pub fn bytes_per_second(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).max(SHORTEST_PERIOD);
        // The weights of a constant speed do not add up to 1 before many time constants have passed.
        let share = 1.0 - (-in_time_constants(elapsed)).exp();
        // The cast saturates.
        (self.weight_at(now) / (TIME_CONSTANT.as_secs_f64() * share)) as u64
    }

    fn weight_at(&self, now: Instant) -> f64 {
        self.weight * (-in_time_constants(now.saturating_duration_since(self.at))).exp()
    }
}

impl SpeedMeter {
    /// Creates a meter that starts at `now` without bytes.
    pub fn new(now: Instant) -> SpeedMeter {
        let minute = MinuteWindow { buckets: [0; MINUTE as usize], newest: 0 };
        SpeedMeter { since: now, bytes: 0, recent: RecentSpeed::new(now), minute }
    }

    /// Adds bytes that moved at `now`.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.recent.add(bytes, now);
        self.minute.add(bytes, now.saturating_duration_since(self.since).as_secs());
    }

    /// Returns the speeds at `now`.
    pub fn speeds(&self, now: Instant) -> Speeds {
        let elapsed = now.saturating_duration_since(self.since).max(SHORTEST_PERIOD).as_secs_f64();
        let in_minute = self.minute.bytes(now.saturating_duration_since(self.since).as_secs());
        Speeds {
            now: self.recent.bytes_per_second(now),
            // The casts saturate.
            minute: (in_minute as f64 / elapsed.min(MINUTE as f64)) as u64,
            run: (self.bytes as f64 / elapsed) as u64,
        }
    }
}

impl MinuteWindow {
    fn add(&mut self, bytes: u64, second: u64) {
        // Buckets of seconds without bytes still hold those of the minute before.
        let passed = second.saturating_sub(self.newest).min(MINUTE);
        for i in 1..=passed {
            self.buckets[((self.newest + i) % MINUTE) as usize] = 0;
        }
        if passed == MINUTE {
            self.buckets = [0; MINUTE as usize];
        }
        self.newest = self.newest.max(second);
        let bucket = &mut self.buckets[(self.newest % MINUTE) as usize];
        *bucket = bucket.saturating_add(bytes);
    }

    /// Returns the bytes of the minute that ends with `second`.
    fn bytes(&self, second: u64) -> u64 {
        let outdated = second.saturating_sub(self.newest);
        let kept = MINUTE.saturating_sub(outdated).min(self.newest + 1);
        (0..kept).map(|age| self.buckets[((self.newest - age) % MINUTE) as usize]).sum()
    }
}

fn in_time_constants(time: Duration) -> f64 {
    time.as_secs_f64() / TIME_CONSTANT.as_secs_f64()
}

/// The time in which the weight of a byte falls to 1/e. Two thirds of the weight are younger than this.
const TIME_CONSTANT: Duration = Duration::from_secs(10);

/// Speeds over shorter periods than this measure the start of the threads, not the connection.
const SHORTEST_PERIOD: Duration = Duration::from_millis(500);

/// Seconds.
const MINUTE: u64 = 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Adds `bytes` ten times a second until `end`.
    fn steady(meter: &mut SpeedMeter, start: Instant, from: f64, end: f64, bytes: u64) {
        let mut at = from;
        while at < end {
            at += 0.1;
            meter.add(bytes, start + seconds(at));
        }
    }

    #[test]
    fn a_steady_stream_has_its_speed_from_the_beginning() {
        let start = Instant::now();
        let mut meter = SpeedMeter::new(start);
        for end in [2.0, 30.0, 200.0] {
            steady(&mut meter, start, if end > 2.0 { end / 10.0 } else { 0.0 }, end, 100);
            let Speeds { now, .. } = meter.speeds(start + seconds(end));
            assert!((900..=1200).contains(&now), "{now} after {end} s");
        }
    }

    #[test]
    fn a_pause_lowers_the_speeds_one_after_the_other() {
        let start = Instant::now();
        let mut meter = SpeedMeter::new(start);
        steady(&mut meter, start, 0.0, 100.0, 100);
        let paused = meter.speeds(start + seconds(130.0));
        assert!(paused.now < 60 && (400..600).contains(&paused.minute), "{paused:?}");
        assert!((700..800).contains(&paused.run), "{paused:?}");
        assert_eq!(meter.speeds(start + seconds(1000.0)).minute, 0);
        // A window that was empty for minutes holds nothing of the minutes before.
        meter.add(6, start + seconds(1000.0));
        assert_eq!(meter.speeds(start + seconds(1001.0)).minute, 0);
        meter.add(594, start + seconds(1001.0));
        assert_eq!(meter.speeds(start + seconds(1001.0)).minute, 10);
    }

    #[test]
    fn a_byte_that_moved_at_once_makes_no_endless_speed() {
        let start = Instant::now();
        let mut meter = SpeedMeter::new(start);
        meter.add(1000, start);
        assert!(meter.speeds(start).now <= 2100 && meter.speeds(start).run == 2000);
    }

    proptest! {
        #[test]
        fn speeds_are_finite_and_the_minute_holds_what_moved_in_it(
            moves in proptest::collection::vec((0u64..200_000, 0u64..1 << 40), 0..50),
            end in 0u64..400_000,
        ) {
            let start = Instant::now();
            let mut meter = SpeedMeter::new(start);
            let mut sorted = moves;
            sorted.sort_unstable();
            for (at, bytes) in &sorted {
                meter.add(*bytes, start + Duration::from_millis(*at));
            }
            let end = end.max(sorted.last().map_or(0, |last| last.0));
            let speeds = meter.speeds(start + Duration::from_millis(end));
            let all: u64 = sorted.iter().map(|(_, bytes)| bytes).sum();
            let (second, elapsed) = (end / 1000, (end as f64 / 1000.0).max(0.5));
            let recent = |at: u64| second - at / 1000 < 60;
            let minute: u64 = sorted.iter().filter(|(at, _)| recent(*at)).map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(speeds.run, (all as f64 / elapsed) as u64);
            prop_assert_eq!(speeds.minute, (minute as f64 / elapsed.min(60.0)) as u64);
            prop_assert!(speeds.now < u64::MAX);
        }
    }
}
