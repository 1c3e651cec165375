//! Detects that no byte moves, so that the log can show what each lane waits for.
//!
//! Every wait has its own limit; this report is for a person who waits for the limit.

use std::time::{Duration, Instant};

/// Watches a number that grows while any byte moves.
#[derive(Debug)]
pub(crate) struct Watchdog {
    moved: u64,
    since: Instant,
    reported: u32,
    /// The end of the latest pause that was reported.
    paused_until: Option<Instant>,
}

impl Watchdog {
    pub(crate) fn new(now: Instant) -> Watchdog {
        Watchdog { moved: 0, since: now, reported: 0, paused_until: None }
    }

    /// Starts the time without movement anew, for a pause whose end is known. Returns `true` if a pause this long was
    /// not reported yet: once for each pause.
    pub(crate) fn pause(&mut self, until: Instant, now: Instant) -> bool {
        self.since = now;
        self.reported = 0;
        let is_known = self.paused_until.is_some_and(|known| known > now);
        if !is_known {
            self.paused_until = Some(until);
        }
        !is_known
    }

    /// Returns the time without movement, each time a report is due.
    pub(crate) fn look(&mut self, moved: u64, now: Instant) -> Option<Duration> {
        if moved != self.moved {
            *self = Watchdog { moved, since: now, reported: 0, ..*self };
            return None;
        }
        let still = now.saturating_duration_since(self.since);
        (still >= REPORT_INTERVAL * (self.reported + 1)).then(|| {
            self.reported += 1;
            still
        })
    }
}

/// Longer than the service needs to assemble a video, yet short for a person who waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_after_each_interval_without_movement() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        assert_eq!(watchdog.look(7, start), None);
        assert_eq!(watchdog.look(7, start + REPORT_INTERVAL / 2), None);
        assert_eq!(watchdog.look(7, start + REPORT_INTERVAL), Some(REPORT_INTERVAL));
        assert_eq!(watchdog.look(7, start + REPORT_INTERVAL), None);
        assert_eq!(watchdog.look(7, start + REPORT_INTERVAL * 2), Some(REPORT_INTERVAL * 2));
        assert_eq!(watchdog.look(8, start + REPORT_INTERVAL * 3), None);
        assert_eq!(watchdog.look(8, start + REPORT_INTERVAL * 4 - Duration::from_secs(1)), None);
    }

    #[test]
    fn a_pause_with_a_known_end_is_no_stall_and_is_reported_once() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        let end = start + REPORT_INTERVAL * 3;
        assert!(watchdog.pause(end, start));
        assert!(!watchdog.pause(end, start + REPORT_INTERVAL * 2));
        assert_eq!(watchdog.look(0, end - REPORT_INTERVAL / 2), None);
        assert_eq!(watchdog.look(0, end + REPORT_INTERVAL), Some(REPORT_INTERVAL * 2));
        assert!(watchdog.pause(end + REPORT_INTERVAL * 9, end + REPORT_INTERVAL));
    }
}
