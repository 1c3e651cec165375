//! The jobs, times and shortcuts of the rules.

use pollster::block_on;

use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobResult;
use crate::bulk::lease::LostLease;
use crate::bulk::store::*;
use crate::upload::UploadOptions;

/// Opens another handle on the store under test.
pub(crate) type Open<'a> = &'a (dyn Fn() -> Box<dyn JobStore> + Sync);

/// The length of leases in the stores under test.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn at(seconds: u64) -> UnixMillis {
    UnixMillis::new(1_800_000_000_000 + seconds * 1000)
}

pub(super) fn pool() -> Pool {
    Pool::new("films").unwrap()
}

pub(super) fn owner(pid: u32) -> OwnerId {
    OwnerId::new("host", pid, 7)
}

pub(super) fn id(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

pub(super) fn job(name: &str) -> JobSpec {
    job_of_size(name, 10)
}

pub(super) fn job_of_size(name: &str, size: u64) -> JobSpec {
    let source = JobSource::File { path: format!("/films/{name}").into() };
    JobSpec::new(id(name), pool(), source, Some(ContentStamp { size, mtime_ns: 5 }), UploadOptions::default())
}

pub(super) fn submit(store: &dyn JobStore, jobs: Vec<JobSpec>) -> Vec<Submission> {
    block_on(store.submit(jobs, Resubmit::Keep, at(0))).unwrap()
}

pub(super) fn claim(store: &dyn JobStore, pid: u32, now: UnixMillis) -> ClaimedJob {
    match block_on(store.claim(&pool(), &owner(pid), now)).unwrap() {
        ClaimAnswer::Claimed(claimed) => *claimed,
        other => panic!("expected a job, got {other:?}"),
    }
}

/// Submits the job `a`, and claims it for process 1 at time 0.
pub(super) fn claimed(store: &dyn JobStore) -> Lease {
    submit(store, vec![job("a")]);
    claim(store, 1, at(0)).lease
}

pub(super) fn done(video_id: &str) -> JobEnd {
    JobEnd::Done(JobResult::new(video_id, 10))
}

pub(super) fn unavailable() -> JobFailure {
    JobFailure::temporary("unavailable", "the service failed")
}

pub(super) fn state(store: &dyn JobStore, name: &str) -> JobState {
    block_on(store.get(&id(name))).unwrap().unwrap().record.state
}

pub(super) fn lost<T: fmt::Debug>(result: Result<T, JobStoreError>) -> LostLease {
    match result {
        Err(JobStoreError::LeaseLost { reason, .. }) => reason,
        other => panic!("expected a lost lease, got {other:?}"),
    }
}

pub(super) fn count(store: &dyn JobStore, state: JobStateName) -> (u64, u64) {
    let counts = block_on(store.count()).unwrap();
    counts.iter().find(|count| count.state == state).map_or((0, 0), |count| (count.jobs, count.bytes))
}
