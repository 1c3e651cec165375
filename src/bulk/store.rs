//! The interface of job stores.

#[cfg(test)]
pub(crate) mod contract;
mod error;
mod presence;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::job::{Job, JobSpec};
use super::job_id::{JobId, OwnerId, Pool};
use super::job_state::{JobEnd, JobFailure, JobState, JobStateName};
use super::lease::Lease;
use super::unix_time::UnixMillis;

pub use error::{JobStoreError, StoreProblem};
pub use presence::{MOST_PRESENT, Presence, PresentWorker};

/// The future of a store's method.
///
/// Dropping it abandons the answer. The store may carry out the operation, so that a caller has to read before it
/// decides.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, JobStoreError>> + Send + 'a>>;

/// A store of the jobs of one account. Several processes may use the same store.
///
/// `now` is the caller's time. A store with a clock of its own uses that clock in its place. Every method that takes a
/// [`Lease`] fails with [`JobStoreError::LeaseLost`] if the job is no longer held by that owner and epoch, and changes
/// nothing then. Repeating a request that succeeded does no harm and succeeds while no other worker has the job.
pub trait JobStore: Send + Sync + fmt::Debug {
    /// Submits jobs, in order. Returns one answer for each. The new jobs are on the disk when the future is ready.
    ///
    /// A job with new options that is not running and not done takes the options over. A job that waits for another
    /// attempt may be claimed at once; its attempts still count.
    ///
    /// # Errors
    /// A job is too large, there are more than [`MOST_SUBMITTED`], or the store failed. No job is submitted then, except
    /// that a store without transactions may have some of the jobs after it failed. Submitting all again does no harm.
    fn submit(
        &self,
        jobs: Vec<JobSpec>,
        resubmit: Resubmit,
        now: UnixMillis,
    ) -> StoreFuture<'_, Vec<Submission>>;

    /// Claims the next job of the pool: one whose lease has run out, else the highest priority, then the lowest sort key,
    /// then the oldest.
    ///
    /// If the future is dropped, the claimed job is unavailable until its lease ends.
    ///
    /// # Errors
    /// The store failed.
    fn claim(&self, pool: &Pool, owner: &OwnerId, now: UnixMillis) -> StoreFuture<'_, ClaimAnswer>;

    /// Claims jobs, as [`JobStore::claim`] does one after the other: the next one, and further ones while these have files of
    /// 1 to `longest` bytes, up to `most` jobs. Returns at least one answer, and several only if all are
    /// [`ClaimAnswer::Claimed`].
    ///
    /// A job that a worker has vanished with since its last progress is claimed alone.
    ///
    /// A store may claim fewer jobs than it could. This one, by default, claims one.
    ///
    /// If the future is dropped, the claimed jobs are unavailable until their leases end.
    ///
    /// # Errors
    /// The store failed. A store that is reached over a network may have claimed a job all the same, which is unavailable
    /// until its lease ends.
    fn claim_several<'a>(
        &'a self,
        pool: &Pool,
        owner: &OwnerId,
        now: UnixMillis,
        most: usize,
        longest: u64,
    ) -> StoreFuture<'a, Vec<ClaimAnswer>> {
        let (_, _) = (most, longest);
        let claim = self.claim(pool, owner, now);
        Box::pin(async move { claim.await.map(|answer| vec![answer]) })
    }

    /// Extends the lease.
    ///
    /// # Errors
    /// The lease is lost, or the store failed. A worker that cannot renew stops at [`super::LeaseTimer::deadline`].
    fn renew(&self, lease: &Lease, now: UnixMillis) -> StoreFuture<'_, ()>;

    /// Records a checkpoint and extends the lease. A checkpoint with a lower number than the last one is ignored.
    ///
    /// # Errors
    /// The lease is lost, the checkpoint is too large, or the store failed.
    fn checkpoint(&self, lease: &Lease, checkpoint: JobCheckpoint, now: UnixMillis) -> StoreFuture<'_, ()>;

    /// Ends a job that did not fail. The end survives a power failure when the future is ready.
    ///
    /// # Errors
    /// The lease is lost, or the store failed.
    fn finish(&self, lease: &Lease, end: JobEnd, now: UnixMillis) -> StoreFuture<'_, ()>;

    /// Ends a job as [`JobStore::finish`] does. Returns the videos beside the job's own that were on record then, see
    /// [`JobRecord::orphans`](crate::bulk::JobRecord).
    ///
    /// By default this is a finish and a read. A store whose answer to the write has the record needs no read.
    ///
    /// # Errors
    /// The lease is lost, or the store failed. If only the read after the end fails, the list is empty.
    fn finish_with_orphans<'a>(
        &'a self,
        lease: &Lease,
        end: JobEnd,
        now: UnixMillis,
    ) -> StoreFuture<'a, Vec<String>> {
        let (finished, id) = (self.finish(lease, end, now), lease.id.clone());
        Box::pin(async move {
            finished.await?;
            let job = self.get(&id).await.ok().flatten();
            Ok(job.map(|job| job.record.orphans).unwrap_or_default())
        })
    }

    /// Ends an attempt that failed, and returns the new state of the job.
    ///
    /// After a temporary failure the job waits for 30 seconds, doubling to ten minutes, and fails with the fifth
    /// attempt without progress. A permanent failure fails the job at once.
    ///
    /// # Errors
    /// The lease is lost, or the store failed.
    fn fail(&self, lease: &Lease, failure: JobFailure, now: UnixMillis) -> StoreFuture<'_, JobState>;

    /// Returns a job whose file this worker cannot open, and returns the new state of the job.
    ///
    /// The job rests for a minute, and fails when it is declined for the third time without progress.
    ///
    /// # Errors
    /// The lease is lost, or the store failed.
    fn decline(&self, lease: &Lease, failure: JobFailure, now: UnixMillis) -> StoreFuture<'_, JobState>;

    /// Returns a job whose file this worker's host cannot use, and which other hosts may claim at once. Returns the new
    /// state of the job.
    ///
    /// The host rests for a minute. The job fails when three hosts have declined it, or one host three times, without
    /// progress. By default this is [`JobStore::decline`], as a store of one host has no others.
    ///
    /// # Errors
    /// The lease is lost, or the store failed.
    fn decline_on_host(
        &self,
        lease: &Lease,
        failure: JobFailure,
        now: UnixMillis,
    ) -> StoreFuture<'_, JobState> {
        self.decline(lease, failure, now)
    }

    /// Returns a job to the queue without counting an attempt. `delay` is at most ten minutes.
    ///
    /// # Errors
    /// The lease is lost, or the store failed.
    fn release(&self, lease: &Lease, delay: Duration, now: UnixMillis) -> StoreFuture<'_, ()>;

    /// Returns a job to the queue as [`JobStore::release`] does, and records the reason in
    /// [`JobRecord::last_failure`](crate::bulk::JobRecord). Counts no attempt: the job is not to blame.
    ///
    /// By default the reason is not recorded.
    ///
    /// # Errors
    /// The lease is lost, or the store failed.
    fn set_aside(
        &self,
        lease: &Lease,
        reason: JobFailure,
        delay: Duration,
        now: UnixMillis,
    ) -> StoreFuture<'_, ()> {
        drop(reason);
        self.release(lease, delay, now)
    }

    /// Cancels an open job, and returns the state that the job had. A job that has ended is unchanged.
    ///
    /// # Errors
    /// There is no such job, or the store failed.
    fn cancel(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, JobState>;

    /// Returns a failed, skipped or cancelled job to the queue, and returns the state that the job had. A job that is
    /// open or done is unchanged.
    ///
    /// # Errors
    /// There is no such job, or the store failed.
    fn retry(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, JobState>;

    /// Deletes a job that no worker holds. Returns `false` if there was none.
    ///
    /// # Errors
    /// [`JobStoreError::Held`] if a worker holds the job, or the store failed.
    fn forget(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, bool>;

    /// Records videos that were left beside the one of a job in [`JobRecord::orphans`](crate::bulk::JobRecord), and
    /// removes those that are gone. Needs no lease. Does nothing if the store has no such job.
    ///
    /// # Errors
    /// The store failed.
    fn note_orphans(&self, _: &JobId, _found: Vec<String>, _gone: Vec<String>) -> StoreFuture<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the workers that are present, at most [`MOST_PRESENT`]. A store of one host knows none.
    ///
    /// # Errors
    /// The store failed.
    fn present(&self) -> StoreFuture<'_, Presence> {
        Box::pin(std::future::ready(Ok(Presence::default())))
    }

    /// Returns the job; `None` if there is none.
    ///
    /// # Errors
    /// The store failed.
    fn get(&self, id: &JobId) -> StoreFuture<'_, Option<Job>>;

    /// Returns a page of jobs in the order of submission.
    ///
    /// # Errors
    /// The cursor is not of this store, or the store failed.
    fn list(&self, query: JobQuery) -> StoreFuture<'_, JobPage>;

    /// Returns the number of jobs for each pool and state that has any.
    ///
    /// # Errors
    /// The store failed.
    fn count(&self) -> StoreFuture<'_, Vec<JobCount>>;

    /// Pauses a pool, so that claims answer [`ClaimAnswer::Paused`], or resumes the pool. Running jobs go on.
    ///
    /// # Errors
    /// The store failed.
    fn set_paused(&self, pool: &Pool, is_paused: bool) -> StoreFuture<'_, ()>;

    /// Returns a new revision once any process has changed the store since `seen`; at once for the default revision.
    ///
    /// Waits without a limit otherwise: callers set their own, and read again. A change may be reported twice.
    ///
    /// # Errors
    /// More than [`MOST_WATCHERS`] calls wait, or the store failed.
    fn changed(&self, seen: Revision) -> StoreFuture<'_, Revision>;
}

/// The treatment of a submitted job that the store has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resubmit {
    /// The job stays as it is.
    #[default]
    Keep,
    /// A failed, skipped or cancelled job is queued again, and goes on from its checkpoint.
    RetryFailed,
    /// A job that no worker holds is queued again from its beginning, with the submitted content.
    Anew,
}

/// The answer to one submitted job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Submission {
    /// The store did not have the job.
    New,
    /// The store has the job already, in this state.
    Same(JobState),
    /// The store had the job in this state, and has queued it again.
    Requeued(JobState),
    /// The store has a job with this id and other content, in this state. The submitted job is not stored.
    Conflict(JobState),
}

/// The answer to a claim.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClaimAnswer {
    /// The worker holds a job.
    Claimed(Box<ClaimedJob>),
    /// Open jobs remain and none can be claimed now.
    NoneReady {
        /// The earliest time at which an open job may become ready, unless another worker ends that job before.
        next_at: UnixMillis,
    },
    /// The pool is paused.
    Paused,
    /// The pool has no open job.
    Drained,
}

/// A claimed job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClaimedJob {
    /// The job.
    pub job: Job,
    /// The lease on the job.
    pub lease: Lease,
}

/// A worker's record of the progress of a job, from which the next worker goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobCheckpoint {
    /// The number, counted from 1 in each lease. It orders delayed and repeated requests.
    pub number: u64,
    /// The bytes that the service has acknowledged.
    pub acknowledged_bytes: u64,
    /// The content, which the store does not interpret: at most [`LONGEST_CHECKPOINT`] bytes.
    pub content: String,
    /// `true` if the checkpoint must survive a power failure, as one before the creation of a container.
    pub is_durable: bool,
}

/// A selection of jobs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JobQuery {
    /// The state; `None` for every state.
    pub state: Option<JobStateName>,
    /// The pool; `None` for every pool.
    pub pool: Option<Pool>,
    /// The end of the page before; `None` for the first page.
    pub after: Option<Cursor>,
    /// The jobs to pass over, after `after`: at most [`LONGEST_SKIP`], a larger number counts as that. A store passes over
    /// jobs without reading them.
    pub skip: usize,
    /// The most jobs to return: 1 to [`LONGEST_PAGE`]; 0 stands for the most.
    pub limit: usize,
}

/// A page of jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The start of the next page; `None` after the last one.
    pub next: Option<Cursor>,
}

/// A place in a list of jobs. Jobs that are submitted or forgotten meanwhile do not move it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(String);

/// The number of jobs of a pool that are in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobCount {
    /// The pool.
    pub pool: Pool,
    /// The state.
    pub state: JobStateName,
    /// The number of jobs.
    pub jobs: u64,
    /// The sum of the sizes of their files.
    pub bytes: u64,
}

/// A state of the whole store, to wait for the next change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revision(u64);

impl JobCheckpoint {
    /// Creates a checkpoint that survives the process and may be lost in a power failure.
    pub fn new(number: u64, acknowledged_bytes: u64, content: impl Into<String>) -> JobCheckpoint {
        JobCheckpoint { number, acknowledged_bytes, content: content.into(), is_durable: false }
    }

    /// Makes the checkpoint survive a power failure.
    pub fn durable(mut self) -> JobCheckpoint {
        self.is_durable = true;
        self
    }
}

impl Cursor {
    /// Creates the cursor from the text of [`Cursor::as_str`].
    pub fn new(text: impl Into<String>) -> Cursor {
        Cursor(text.into())
    }

    /// Returns the text of the cursor, which only its store interprets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Revision {
    /// Creates the revision that a store counts as `number`; not 0, which is before every revision.
    pub(crate) fn new(number: u64) -> Revision {
        Revision(number)
    }
}

/// The most jobs in one submission. It bounds the memory and the time of one write.
pub const MOST_SUBMITTED: usize = 1000;
/// The most jobs in a page.
pub const LONGEST_PAGE: usize = 1000;
/// The most jobs that one list passes over. It bounds the memory and the time of one read.
pub const LONGEST_SKIP: usize = 100_000;
/// The longest checkpoint in bytes: ten times the bits of 10,000 chunks in base64.
pub const LONGEST_CHECKPOINT: usize = 64 * 1024;
/// The longest stored job in bytes. With its checkpoint it fits into a message of NATS, 1 MiB by default.
pub const LONGEST_JOB: usize = 256 * 1024;
/// The most calls of [`JobStore::changed`] that wait at the same time.
pub const MOST_WATCHERS: usize = 256;
