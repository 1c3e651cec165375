//! The rules for files that only some hosts of a queue can use: their mounts differ.

use std::time::Duration;

use super::{Lease, LostLease, MOST_DECLINES};
use crate::bulk::host_decline::{HostDecline, REST_AFTER_DECLINE};
use crate::bulk::job_record::JobRecord;
use crate::bulk::job_state::{JobFailure, JobState};
use crate::bulk::unix_time::UnixMillis;

// Only the fleet uses some of them, which a build may leave out.
#[allow(dead_code)]
impl JobRecord {
    /// Records that the host of the worker cannot use the file. Other hosts may claim the job at once, and this one
    /// after a minute. The job fails once three hosts have declined it, or one host three times.
    pub(crate) fn decline_on_host(
        &mut self,
        lease: &Lease,
        failure: JobFailure,
        now: UnixMillis,
    ) -> Result<(), LostLease> {
        if !self.is_to_let_go(lease)? {
            return Ok(());
        }
        self.declines += 1;
        let (host, rests_until) = (lease.owner.host(), now.plus(REST_AFTER_DECLINE));
        match self.declined_by.iter_mut().find(|decline| decline.host == host) {
            // A rest that is not over means that this host took over the lease of a vanished worker: no try of its own.
            Some(decline) if decline.rests(now) => {}
            Some(decline) => (decline.tries, decline.rests_until) = (decline.tries + 1, rests_until),
            None => self.declined_by.push(HostDecline { host: host.to_owned(), tries: 1, rests_until }),
        }
        let has_last_try = self.declined_by.iter().any(|decline| decline.tries >= MOST_DECLINES);
        let is_last = has_last_try || self.declined_by.len() >= MOST_DECLINES as usize;
        self.wait_or_fail(failure, is_last, Duration::ZERO, now);
        Ok(())
    }

    /// Returns the end of the rest of a host that has declined this queued job; `None` if the host may claim the job.
    pub(crate) fn rest_of(&self, host: &str, now: UnixMillis) -> Option<UnixMillis> {
        // A job whose worker has vanished waits for no rest: other hosts may not be there.
        let is_queued = matches!(self.state, JobState::Queued { .. });
        let mut declines = self.declined_by.iter().filter(|decline| decline.host == host);
        declines.find(|decline| is_queued && decline.rests(now)).map(|decline| decline.rests_until)
    }

    /// Ends the rests of all hosts. Returns `true` if a host rested.
    pub(super) fn end_rests(&mut self, now: UnixMillis) -> bool {
        let has_rests = self.declined_by.iter().any(|decline| decline.rests(now));
        self.declined_by.iter_mut().for_each(|decline| decline.rests_until = UnixMillis::default());
        has_rests
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bulk::job_id::{JobId, OwnerId};

    const START: u64 = 1_000_000_000;

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::new(START + seconds * 1000)
    }

    /// Claims the job as a worker of the host, and declines it.
    fn decline(record: &mut JobRecord, host: &str, now: UnixMillis) {
        record.claim(&OwnerId::new(host, 1, 1), now, Duration::from_secs(60));
        let lease = record.lease(&JobId::new("a").unwrap()).unwrap();
        let failure = JobFailure::temporary("no_such_file", "there is no such file");
        record.decline_on_host(&lease, failure.clone(), now).unwrap();
        let before = record.clone();
        record.decline_on_host(&lease, failure, now).unwrap();
        assert_eq!(*record, before, "a repeated request counts once");
    }

    #[test]
    fn a_host_that_declines_a_job_rests_for_a_minute_and_others_may_claim_the_job_at_once() {
        let mut record = JobRecord::new(at(0));
        decline(&mut record, "a", at(0));
        assert!(record.is_due(at(0)));
        assert_eq!((record.rest_of("a", at(59)), record.rest_of("b", at(0))), (Some(at(60)), None));
        assert_eq!(record.rest_of("a", at(60)), None);
        // A clock that went back must not lengthen the rest.
        assert_eq!(record.rest_of("a", UnixMillis::new(START / 2)), None);
    }

    #[test]
    fn a_job_fails_with_the_third_host_that_declines_it() {
        let mut record = JobRecord::new(at(0));
        for host in ["a", "b"] {
            decline(&mut record, host, at(0));
            assert!(record.state.is_open(), "{record:?}");
        }
        decline(&mut record, "c", at(0));
        assert!(matches!(record.state, JobState::Failed(_)), "{record:?}");
    }

    #[test]
    fn progress_a_retry_and_a_repeated_submission_end_the_rests() {
        let mut declined = JobRecord::new(at(0));
        decline(&mut declined, "a", at(0));
        let mut hastened = declined.clone();
        assert!(hastened.hasten(at(1)) && !hastened.hasten(at(1)));
        let mut retried = declined.clone();
        assert!(retried.cancel(at(1)) && retried.requeue());
        let mut advanced = declined;
        advanced.claim(&OwnerId::new("b", 1, 1), at(1), Duration::from_secs(60));
        let lease = advanced.lease(&JobId::new("a").unwrap()).unwrap();
        advanced.checkpoint(&lease, 1, 5, at(2)).unwrap();
        advanced.release(&lease, Duration::ZERO, at(2)).unwrap();
        for record in [&hastened, &retried, &advanced] {
            assert_eq!(record.rest_of("a", at(2)), None, "{record:?}");
        }
        // The tries before a repeated submission count.
        decline(&mut hastened, "b", at(2));
        decline(&mut hastened, "c", at(2));
        assert!(!hastened.state.is_open(), "{hastened:?}");
    }

    #[test]
    fn a_record_of_an_earlier_version_has_no_declines() {
        let record = JobRecord::new(at(0));
        let json = serde_json::to_string(&record).unwrap();
        assert!(!json.contains("declined_by"), "{json}");
        assert_eq!(serde_json::from_str::<JobRecord>(&json).unwrap(), record);
    }

    proptest! {
        #[test]
        fn a_job_fails_only_after_three_hosts_or_three_tries_of_one_host_a_minute_apart(
            steps in proptest::collection::vec((0..3_usize, 0..100_u64), 0..20),
        ) {
            let mut record = JobRecord::new(at(0));
            let (mut now, mut tries) = (0, [const { Vec::new() }; 3]);
            for (host, wait) in steps {
                now += wait;
                let name = ["a", "b", "c"][host];
                let may_claim = tries[host].last().is_none_or(|last| now >= last + 60);
                prop_assert_eq!(record.rest_of(name, at(now)).is_none(), may_claim);
                if !may_claim {
                    continue;
                }
                decline(&mut record, name, at(now));
                tries[host].push(now);
                let has_failed = tries.iter().all(|tries| !tries.is_empty()) || tries[host].len() == 3;
                prop_assert_eq!(!record.state.is_open(), has_failed);
                if has_failed {
                    break;
                }
            }
        }
    }
}
