//! Detection of a worker thread that is stuck.
//!
//! A page fault or a `sendfile` on a file whose disk does not answer blocks the whole thread, with the timers that
//! limit everything else on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The worker's side of the heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    asked: Notify,
    answers: AtomicU64,
}

impl Heartbeat {
    /// Answers questions for as long as it is polled. Never completes.
    pub(crate) async fn answer(&self) {
        loop {
            self.asked.notified().await;
            // Relaxed: a count that guards no other memory.
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The driver's side of one worker's heartbeat.
#[derive(Debug)]
pub(crate) struct HeartbeatMonitor {
    beat: Arc<Heartbeat>,
    questions: u64,
    asked_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// The time that the last question has been open while the driver ran.
    pub(crate) silent: Duration,
}

impl HeartbeatMonitor {
    pub(crate) fn new(beat: Arc<Heartbeat>) -> HeartbeatMonitor {
        HeartbeatMonitor { beat, questions: 0, asked_at: None, looked_at: None, silent: Duration::ZERO }
    }

    /// Asks again at intervals, once the last question was answered.
    pub(crate) fn watch(&mut self, now: Instant) {
        let since_look = self.looked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.looked_at = Some(now);
        if self.beat.answers.load(Ordering::Relaxed) < self.questions {
            self.silent += since_look.min(MAX_LOOK_INTERVAL);
            return;
        }
        self.silent = Duration::ZERO;
        if self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= QUESTION_INTERVAL) {
            self.asked_at = Some(now);
            self.questions += 1;
            self.beat.asked.notify_one();
        }
    }
}

const QUESTION_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time between two looks that counts: the process did not run for the rest.
const MAX_LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_worker_is_silent_until_it_answers() {
        let (beat, mut now) = (Arc::<Heartbeat>::default(), Instant::now());
        let mut pulse = HeartbeatMonitor::new(beat.clone());
        pulse.watch(now);
        for _ in 0..10 {
            now += MAX_LOOK_INTERVAL;
            pulse.watch(now);
        }
        assert_eq!(pulse.silent, MAX_LOOK_INTERVAL * 10);
        assert!(beat.answer().now_or_never().is_none());
        pulse.watch(now);
        assert_eq!(pulse.silent, Duration::ZERO);
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let (beat, now) = (Arc::<Heartbeat>::default(), Instant::now());
        let mut pulse = HeartbeatMonitor::new(beat);
        pulse.watch(now);
        pulse.watch(now + 3600 * SECOND);
        assert_eq!(pulse.silent, MAX_LOOK_INTERVAL);
    }
}
