//! The timeouts of one request. The clock is passed as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The timeouts of one request. There is no total timeout: a request may take as long as it makes progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// Longest time in which the socket accepts no byte although there are bytes to send.
    pub stall: Duration,
    /// Longest time in which the request's body yields nothing although the socket would take it.
    pub body: Duration,
    /// Longest time from the request's last byte to the answer's last byte.
    ///
    /// Includes the time to drain the kernel's send buffer and the server's time to process the body.
    pub answer: Duration,
    /// The minimum speed; `None` for no minimum.
    pub min_speed: Option<MinSpeed>,
}

/// The speed below which a request fails.
///
/// Measured over whole windows on the bytes that the socket accepts. Windows with a wait for the body or with
/// a bandwidth limit in effect are not judged, nor is the wait for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinSpeed {
    /// Bytes per second.
    pub bytes_per_s: u64,
    /// The duration of a window.
    pub window: Duration,
}

impl Default for Timeouts {
    /// One minute without progress, two minutes for the body and for the answer, no minimum speed.
    fn default() -> Timeouts {
        Timeouts {
            stall: Duration::from_secs(60),
            body: Duration::from_secs(120),
            answer: Duration::from_secs(120),
            min_speed: None,
        }
    }
}

/// The party that a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitPhase {
    /// The socket has to accept bytes that are ready.
    Sending,
    /// The bandwidth limit blocks writing until the given time; the peer is not to blame.
    Throttled(Instant),
    /// The body has to yield bytes.
    AwaitingBody,
    /// The server has to answer.
    AwaitingAnswer,
}

/// The progress of a request at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestSnapshot {
    pub(super) phase: WaitPhase,
    /// Bytes that the socket has accepted since it was opened.
    pub(super) socket_bytes: u64,
}

/// The timeout that expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeoutKind {
    Stalled(Duration),
    BodyStalled(Duration),
    NoAnswer(Duration),
    TooSlow(MinSpeed),
}

/// Checks one request's progress against its timeouts.
#[derive(Debug)]
pub(super) struct ProgressMonitor {
    timeouts: Timeouts,
    last: RequestSnapshot,
    /// The time of the last progress.
    changed_at: Instant,
    window_start: Instant,
    window_bytes: u64,
}

impl ProgressMonitor {
    /// Starts to monitor a request.
    pub(super) fn new(timeouts: Timeouts, snapshot: RequestSnapshot, now: Instant) -> ProgressMonitor {
        ProgressMonitor {
            timeouts,
            last: snapshot,
            changed_at: now,
            window_start: now,
            window_bytes: snapshot.socket_bytes,
        }
    }

    /// Records a snapshot. Returns the latest time of the next check, or the timeout that expired.
    pub(super) fn check(&mut self, snapshot: RequestSnapshot, now: Instant) -> Result<Instant, TimeoutKind> {
        if snapshot.phase != self.last.phase {
            // Only windows spent in one phase are comparable with the minimum speed.
            self.restart_window(snapshot, now);
        }
        if self.is_progress(snapshot) {
            self.changed_at = now;
        }
        if let WaitPhase::Throttled(until) = snapshot.phase {
            // Time spent under the bandwidth limit is no stall.
            self.changed_at = self.changed_at.max(until);
        }
        self.last = snapshot;
        let (bound, kind) = self.bound();
        let deadline = later(self.changed_at, bound);
        if now >= deadline {
            return Err(kind);
        }
        Ok(deadline.min(self.judge_speed(snapshot, now)?.unwrap_or(deadline)))
    }

    /// Returns `true` if the request made progress. While the answer is awaited, bytes are no progress: the
    /// last ones may come from the TLS layer.
    fn is_progress(&self, snapshot: RequestSnapshot) -> bool {
        snapshot.phase != self.last.phase
            || snapshot.phase != WaitPhase::AwaitingAnswer && snapshot.socket_bytes != self.last.socket_bytes
    }

    fn bound(&self) -> (Duration, TimeoutKind) {
        let Timeouts { stall, body, answer, .. } = self.timeouts;
        match self.last.phase {
            WaitPhase::Sending | WaitPhase::Throttled(_) => (stall, TimeoutKind::Stalled(stall)),
            WaitPhase::AwaitingBody => (body, TimeoutKind::BodyStalled(body)),
            WaitPhase::AwaitingAnswer => (answer, TimeoutKind::NoAnswer(answer)),
        }
    }

    /// Checks the speed at the end of a window. Returns the end of the present window, if there is one.
    fn judge_speed(
        &mut self,
        snapshot: RequestSnapshot,
        now: Instant,
    ) -> Result<Option<Instant>, TimeoutKind> {
        let Some(minimum) = self.timeouts.min_speed.filter(|_| snapshot.phase == WaitPhase::Sending) else {
            return Ok(None);
        };
        let window_end = later(self.window_start, minimum.window);
        if now >= window_end {
            let expected = minimum.bytes_per_s as f64 * (now - self.window_start).as_secs_f64();
            if ((snapshot.socket_bytes - self.window_bytes) as f64) < expected {
                return Err(TimeoutKind::TooSlow(minimum));
            }
            self.restart_window(snapshot, now);
        }
        Ok(Some(later(self.window_start, minimum.window)))
    }

    fn restart_window(&mut self, snapshot: RequestSnapshot, now: Instant) {
        self.window_start = now;
        self.window_bytes = snapshot.socket_bytes;
    }
}

/// Adds `wait` to `start`. A sum beyond the clock's range becomes ten years, longer than any request.
fn later(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait).unwrap_or_else(|| start + FAR)
}

const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timeouts() -> Timeouts {
        Timeouts { stall: 10 * SECOND, body: 20 * SECOND, answer: 30 * SECOND, min_speed: None }
    }

    fn snapshot(phase: WaitPhase, socket_bytes: u64) -> RequestSnapshot {
        RequestSnapshot { phase, socket_bytes }
    }

    fn monitor(timeouts: Timeouts) -> (ProgressMonitor, Instant) {
        let now = Instant::now();
        (ProgressMonitor::new(timeouts, snapshot(WaitPhase::Sending, 0), now), now)
    }

    #[test]
    fn each_wait_has_its_own_bound() {
        for (phase, bound, kind) in [
            (WaitPhase::Sending, 10, TimeoutKind::Stalled(10 * SECOND)),
            (WaitPhase::AwaitingBody, 20, TimeoutKind::BodyStalled(20 * SECOND)),
            (WaitPhase::AwaitingAnswer, 30, TimeoutKind::NoAnswer(30 * SECOND)),
        ] {
            let (mut monitor, start) = monitor(timeouts());
            assert_eq!(monitor.check(snapshot(phase, 0), start), Ok(start + bound * SECOND));
            assert!(monitor.check(snapshot(phase, 0), start + (bound - 1) * SECOND).is_ok());
            assert_eq!(monitor.check(snapshot(phase, 0), start + bound * SECOND), Err(kind));
        }
    }

    #[test]
    fn every_byte_restarts_the_stall_timeout() {
        let (mut monitor, start) = monitor(timeouts());
        for i in 1..100 {
            let now = start + i * 9 * SECOND;
            assert_eq!(monitor.check(snapshot(WaitPhase::Sending, i.into()), now), Ok(now + 10 * SECOND));
        }
    }

    #[test]
    fn bytes_after_the_request_do_not_renew_the_wait_for_the_answer() {
        let (mut monitor, start) = monitor(timeouts());
        assert!(monitor.check(snapshot(WaitPhase::AwaitingAnswer, 1), start).is_ok());
        assert!(monitor.check(snapshot(WaitPhase::AwaitingAnswer, 2), start + 29 * SECOND).is_ok());
        assert_eq!(
            monitor.check(snapshot(WaitPhase::AwaitingAnswer, 3), start + 30 * SECOND),
            Err(TimeoutKind::NoAnswer(30 * SECOND))
        );
    }

    #[test]
    fn a_trickle_below_the_minimum_speed_fails_at_the_end_of_its_window() {
        let minimum = MinSpeed { bytes_per_s: 100, window: 5 * SECOND };
        let (mut monitor, start) = monitor(Timeouts { min_speed: Some(minimum), ..timeouts() });
        for second in 1..5 {
            let look =
                monitor.check(snapshot(WaitPhase::Sending, u64::from(second) * 99), start + second * SECOND);
            assert_eq!(look, Ok(start + 5 * SECOND));
        }
        let end = monitor.check(snapshot(WaitPhase::Sending, 5 * 99), start + 5 * SECOND);
        assert_eq!(end, Err(TimeoutKind::TooSlow(minimum)));
    }

    #[test]
    fn timeouts_beyond_the_clock_never_expire() {
        let now = Instant::now();
        let min_speed = Some(MinSpeed { bytes_per_s: u64::MAX, window: Duration::MAX });
        let timeouts =
            Timeouts { stall: Duration::MAX, body: Duration::MAX, answer: Duration::MAX, min_speed };
        for phase in [WaitPhase::Sending, WaitPhase::AwaitingBody, WaitPhase::AwaitingAnswer] {
            let snapshot = RequestSnapshot { phase, socket_bytes: 0 };
            let mut monitor = ProgressMonitor::new(timeouts, snapshot, now);
            assert!(
                monitor.check(snapshot, now + Duration::from_secs(1)).unwrap() > now + FAR / 2,
                "{phase:?}"
            );
        }
    }

    #[test]
    fn time_under_a_bandwidth_limit_is_neither_a_stall_nor_slow() {
        let minimum = MinSpeed { bytes_per_s: 100, window: 5 * SECOND };
        let (mut monitor, start) = monitor(Timeouts { min_speed: Some(minimum), ..timeouts() });
        let held_until = |seconds| snapshot(WaitPhase::Throttled(start + seconds * SECOND), 1);
        assert_eq!(monitor.check(held_until(60), start), Ok(start + 70 * SECOND));
        assert_eq!(monitor.check(held_until(60), start + 69 * SECOND), Ok(start + 70 * SECOND));
        assert!(monitor.check(held_until(90), start + 69 * SECOND).is_ok());
        // From then on it is the socket's turn.
        assert_eq!(
            monitor.check(snapshot(WaitPhase::Sending, 1), start + 90 * SECOND),
            Ok(start + 95 * SECOND)
        );
        assert_eq!(
            monitor.check(snapshot(WaitPhase::Sending, 1), start + 95 * SECOND),
            Err(TimeoutKind::TooSlow(minimum))
        );
    }

    #[test]
    fn a_window_in_which_the_body_was_waited_for_is_not_judged() {
        let minimum = MinSpeed { bytes_per_s: 100, window: 5 * SECOND };
        let (mut monitor, start) = monitor(Timeouts { min_speed: Some(minimum), ..timeouts() });
        assert!(monitor.check(snapshot(WaitPhase::Sending, 1), start + 2 * SECOND).is_ok());
        assert!(monitor.check(snapshot(WaitPhase::AwaitingBody, 1), start + 4 * SECOND).is_ok());
        let again = monitor.check(snapshot(WaitPhase::Sending, 2), start + 6 * SECOND);
        assert_eq!(again, Ok(start + 11 * SECOND));
    }
}
