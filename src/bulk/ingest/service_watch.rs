//! A worker that reaches the queue and not the service: the decision to let its jobs go, and its rest. Pure.

use std::time::Duration;

/// The time since which no request to the service was answered, and the rest after it.
///
/// Times are those of one clock that never goes back.
#[derive(Debug)]
pub(super) struct ServiceWatch {
    patience: Duration,
    /// The first failure since the last answer.
    failing_since: Option<Duration>,
    rest: Option<Rest>,
}

/// The rest of a worker, until its next probe of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    length: Duration,
    until: Duration,
}

impl ServiceWatch {
    /// Creates the watch of a worker that lets its jobs go after `patience` without an answer.
    pub(super) fn new(patience: Duration) -> ServiceWatch {
        ServiceWatch { patience, failing_since: None, rest: None }
    }

    /// Records a request that got no answer of the service.
    pub(super) fn failed(&mut self, now: Duration) {
        self.failing_since.get_or_insert(now);
    }

    /// Records an answer of the service, also a refusal.
    pub(super) fn answered(&mut self) {
        self.failing_since = None;
    }

    /// Returns `true` if the last requests got no answer.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }

    /// Begins a rest if no request was answered for too long, while uploads were under way. Returns `true` if it begins.
    pub(super) fn gives_up(&mut self, now: Duration, has_uploads: bool) -> bool {
        // Without uploads nothing was tried: the last failure is old news.
        let Some(since) = self.failing_since.filter(|_| has_uploads && self.rest.is_none()) else {
            return false;
        };
        if now.saturating_sub(since) < self.patience {
            return false;
        }
        let length = self.first_rest();
        self.rest = Some(Rest { length, until: now + length });
        true
    }

    /// Returns the time until the next probe; `None` if the worker does not rest.
    pub(super) fn rest(&self, now: Duration) -> Option<Duration> {
        self.rest.map(|rest| rest.until.saturating_sub(now))
    }

    /// Records the result of a probe. Returns `true` if it ends the rest, which is twice as long otherwise. `jitter` is
    /// from 0 to 1.
    pub(super) fn probed(&mut self, now: Duration, is_reachable: bool, jitter: f64) -> bool {
        if is_reachable {
            (self.failing_since, self.rest) = (None, None);
            return true;
        }
        let length = self.rest.map_or(self.first_rest(), |rest| rest.length * 2).min(self.longest_rest());
        // The spread keeps the workers of a site from probing together.
        let until = now + length.mul_f64(1.0 - SPREAD * jitter.clamp(0.0, 1.0));
        self.rest = Some(Rest { length, until });
        false
    }

    /// Returns 30 seconds for the usual patience of two minutes.
    fn first_rest(&self) -> Duration {
        self.patience / 4
    }

    /// Returns five minutes for the usual patience of two minutes.
    fn longest_rest(&self) -> Duration {
        self.patience * 5 / 2
    }
}

/// The part of a rest by which it may be shorter.
const SPREAD: f64 = 0.25;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn a_worker_gives_up_two_minutes_after_the_first_failure_without_an_answer() {
        let mut watch = ServiceWatch::new(PATIENCE);
        watch.failed(at(0));
        watch.failed(at(90));
        assert!(watch.is_failing() && !watch.gives_up(at(119), true));
        assert!(watch.gives_up(at(120), true));
        // Once: the jobs are let go already.
        assert!(!watch.gives_up(at(121), true));
        assert_eq!(watch.rest(at(120)), Some(Duration::from_secs(30)));
    }

    #[test]
    fn an_answer_starts_the_two_minutes_anew() {
        let mut watch = ServiceWatch::new(PATIENCE);
        watch.failed(at(0));
        watch.answered();
        assert!(!watch.gives_up(at(200), true));
        watch.failed(at(200));
        assert!(!watch.gives_up(at(319), true) && watch.gives_up(at(320), true));
    }

    #[test]
    fn an_old_failure_is_no_reason_to_rest_while_nothing_is_tried() {
        let mut watch = ServiceWatch::new(PATIENCE);
        watch.failed(at(0));
        assert!(!watch.gives_up(at(5000), false));
        assert_eq!(watch.rest(at(5000)), None);
    }

    #[test]
    fn rests_double_from_30_seconds_to_5_minutes_and_end_with_an_answer() {
        let mut watch = ServiceWatch::new(PATIENCE);
        watch.failed(at(0));
        assert!(watch.gives_up(at(120), true));
        let rests: Vec<u64> = (0..5)
            .map(|_| {
                assert!(!watch.probed(at(0), false, 0.0));
                watch.rest(at(0)).unwrap().as_secs()
            })
            .collect();
        assert_eq!(rests, [60, 120, 240, 300, 300]);
        assert!(watch.probed(at(0), true, 0.0));
        assert_eq!((watch.rest(at(0)), watch.is_failing()), (None, false));
    }

    proptest! {
        #[test]
        fn a_rest_is_never_longer_than_five_minutes_nor_without_a_failure(
            steps in proptest::collection::vec((0u8..5, 0u64..400, 0.0f64..1.0), 1..60),
        ) {
            let (mut watch, mut now, mut has_failed) = (ServiceWatch::new(PATIENCE), 0, false);
            for (step, seconds, jitter) in steps {
                now += seconds;
                match step {
                    0 => { watch.failed(at(now)); has_failed = true; }
                    1 => watch.answered(),
                    2 => { let began = watch.gives_up(at(now), true); prop_assert!(!began || has_failed); }
                    3 if watch.rest(at(now)).is_some() => drop(watch.probed(at(now), false, jitter)),
                    _ => {}
                }
                let longest = Duration::from_secs(300);
                prop_assert!(watch.rest(at(now)).is_none_or(|rest| rest <= longest));
            }
        }
    }
}
