//! The time for which a job store has not answered. Pure.

use std::time::Duration;

/// The time since which the store has not answered.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Duration>,
}

/// The state of an outage after a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutageStep {
    /// The request was the first one to fail.
    Began,
    /// Requests failed before.
    Continues,
    /// The outage lasts longer than the run waits.
    TooLong,
}

impl Outage {
    /// Records a request that failed at `now`, on a clock that counts suspended time, too.
    pub(super) fn failed(&mut self, now: Duration, longest: Duration) -> OutageStep {
        match self.since {
            None => {
                self.since = Some(now);
                OutageStep::Began
            }
            Some(since) if now.saturating_sub(since) < longest => OutageStep::Continues,
            Some(_) => OutageStep::TooLong,
        }
    }

    /// Records an answer. Returns the length of the outage that it ends.
    pub(super) fn answered(&mut self, now: Duration) -> Option<Duration> {
        self.since.take().map(|since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(600);

    #[test]
    fn an_outage_is_counted_from_its_first_failure_to_the_next_answer() {
        let (mut outage, at) = (Outage::default(), Duration::from_secs);
        assert_eq!(outage.answered(at(1)), None);
        assert_eq!(outage.failed(at(10), LONGEST), OutageStep::Began);
        assert_eq!(outage.failed(at(609), LONGEST), OutageStep::Continues);
        assert_eq!(outage.answered(at(609)), Some(at(599)));
        assert_eq!(outage.failed(at(900), LONGEST), OutageStep::Began);
        assert_eq!(outage.failed(at(1500), LONGEST), OutageStep::TooLong);
    }

    proptest! {
        #[test]
        fn no_outage_is_waited_for_longer_than_its_limit(times in proptest::collection::vec(0u64..2000, 1..50)) {
            let (mut times, mut outage) = (times, Outage::default());
            times.sort_unstable();
            for &time in &times {
                let step = outage.failed(Duration::from_secs(time), LONGEST);
                let is_over = time - times[0] >= LONGEST.as_secs();
                prop_assert_eq!(step == OutageStep::TooLong, is_over && time != times[0]);
            }
        }
    }
}
