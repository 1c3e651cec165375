//! The job store of one host: a SQLite file.
//!
//! A thread of the store owns the connection. It takes all requests that wait, applies them in one transaction, and
//! answers after the commit: many small jobs share one flush of the disk. A claim survives the process, and may be lost
//! in a power failure, which no holder survives either. Submissions, ends and durable checkpoints survive a power
//! failure.
//!
//! Each worker holds a lock (flock(2)) on a file of its own beside the store. The kernel releases the lock with the
//! process, so that the jobs of a killed worker are free at once on the same host, and after the lease elsewhere.

mod batch;
mod change;
mod claim;
mod database;
mod list;
#[cfg(test)]
mod measure;
mod need;
mod open;
mod owners;
mod statements;
mod submit;
#[cfg(test)]
mod tests;
mod thread;

use std::path::PathBuf;
use std::time::Duration;

use super::job::{Job, JobSpec};
use super::job_id::{Account, JobId, OwnerId, Pool};
use super::job_record::JobRecord;
use super::job_state::{JobEnd, JobFailure, JobState};
use super::lease::{DEFAULT_LEASE, LONGEST_DELAY, Lease, SHORTEST_LEASE};
use super::store::{
    ClaimAnswer, JobCheckpoint, JobCount, JobPage, JobQuery, JobStore, JobStoreError, LONGEST_CHECKPOINT,
    Resubmit, Revision, StoreFuture, Submission,
};
use super::submission::prepare;
use super::unix_time::UnixMillis;
use batch::Batch;
use database::JobDatabase;
use need::Need;
use thread::StoreThread;

/// The settings of a [`SqliteJobStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The path of the file. The file and the directories above it are created if they are missing.
    pub path: PathBuf,
    /// The account whose jobs are used.
    pub account: Account,
    /// The length of a lease, 3 seconds to 10 minutes, by default 60 seconds. It is stored with the file: the length
    /// that the first process chose is used by all.
    pub lease: Duration,
}

/// A job store in a SQLite file.
///
/// Dropping the store carries out the requests that wait, ends its thread, and blocks for that at most 15 seconds.
/// A process must not use a store that it inherited by fork(2).
#[derive(Debug)]
pub struct SqliteJobStore {
    thread: StoreThread,
}

impl SqliteOptions {
    /// Creates the settings for the jobs of `account` in the file at `path`.
    pub fn new(path: impl Into<PathBuf>, account: Account) -> SqliteOptions {
        SqliteOptions { path: path.into(), account, lease: DEFAULT_LEASE }
    }
}

impl SqliteJobStore {
    /// Opens the store, and creates it if the file is missing or empty. Only the owner can read or write it.
    ///
    /// Blocks while the disk works, and at most ten seconds for other processes.
    ///
    /// # Errors
    /// The file is not a job store, was made by another version, or cannot be written or locked. It is unchanged then.
    pub fn open(options: SqliteOptions) -> Result<SqliteJobStore, JobStoreError> {
        let SqliteOptions { path, account, lease } = options;
        let database = JobDatabase::open(path, &account, lease.clamp(SHORTEST_LEASE, LONGEST_DELAY))?;
        Ok(SqliteJobStore { thread: StoreThread::start(database)? })
    }

    /// Returns the accounts that have jobs in the file at `path`, oldest first. Creates no file.
    ///
    /// # Errors
    /// There is no such file, or it cannot be opened. See [`SqliteJobStore::open`].
    pub fn accounts(path: impl Into<PathBuf>) -> Result<Vec<Account>, JobStoreError> {
        database::accounts(&path.into())
    }

    fn run<T: Send + 'static>(
        &self,
        need: Need,
        operation: impl FnMut(&mut Batch<'_>) -> Result<T, JobStoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        self.thread.run(need, operation)
    }
}

impl JobStore for SqliteJobStore {
    fn submit(
        &self,
        jobs: Vec<JobSpec>,
        resubmit: Resubmit,
        now: UnixMillis,
    ) -> StoreFuture<'_, Vec<Submission>> {
        let prepared = match prepare(jobs) {
            Ok(prepared) => prepared,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        self.run(Need::Disk, move |batch| {
            prepared.iter().map(|job| submit::submit(batch, job, resubmit, now)).collect()
        })
    }

    fn claim(&self, pool: &Pool, owner: &OwnerId, now: UnixMillis) -> StoreFuture<'_, ClaimAnswer> {
        let (pool, owner) = (pool.clone(), owner.clone());
        self.run(Need::Write, move |batch| claim::claim(batch, &pool, &owner, now))
    }

    fn claim_several<'a>(
        &'a self,
        pool: &Pool,
        owner: &OwnerId,
        now: UnixMillis,
        most: usize,
        longest: u64,
    ) -> StoreFuture<'a, Vec<ClaimAnswer>> {
        let (pool, owner) = (pool.clone(), owner.clone());
        // The jobs are in memory together, and their rows are locked for one transaction.
        let most = most.clamp(1, MOST_CLAIMED);
        self.run(Need::Write, move |batch| claim::claim_several(batch, &pool, &owner, now, most, longest))
    }

    fn renew(&self, lease: &Lease, now: UnixMillis) -> StoreFuture<'_, ()> {
        let lease = lease.clone();
        self.run(Need::Write, move |batch| {
            change::held(batch, &lease, |record| record.renew(&lease, now)).map(drop)
        })
    }

    fn checkpoint(&self, lease: &Lease, checkpoint: JobCheckpoint, now: UnixMillis) -> StoreFuture<'_, ()> {
        let (len, limit) = (checkpoint.content.len(), LONGEST_CHECKPOINT);
        if len > limit {
            let what = format!("the bytes of the checkpoint of job {} are", lease.id);
            return Box::pin(std::future::ready(Err(JobStoreError::TooLarge { what, len, limit })));
        }
        let lease = lease.clone();
        let need = if checkpoint.is_durable { Need::Disk } else { Need::Write };
        self.run(need, move |batch| change::checkpoint(batch, &lease, &checkpoint, now))
    }

    fn finish(&self, lease: &Lease, end: JobEnd, now: UnixMillis) -> StoreFuture<'_, ()> {
        let lease = lease.clone();
        self.run(Need::Disk, move |batch| {
            change::held(batch, &lease, |record| record.finish(&lease, end.clone(), now).map(drop)).map(drop)
        })
    }

    fn fail(&self, lease: &Lease, failure: JobFailure, now: UnixMillis) -> StoreFuture<'_, JobState> {
        let lease = lease.clone();
        self.run(Need::Disk, move |batch| {
            change::held(batch, &lease, |record| record.fail(&lease, failure.clone(), now))
        })
    }

    fn decline(&self, lease: &Lease, failure: JobFailure, now: UnixMillis) -> StoreFuture<'_, JobState> {
        let lease = lease.clone();
        self.run(Need::Disk, move |batch| {
            change::held(batch, &lease, |record| record.decline(&lease, failure.clone(), now))
        })
    }

    fn release(&self, lease: &Lease, delay: Duration, now: UnixMillis) -> StoreFuture<'_, ()> {
        let lease = lease.clone();
        // Without a flush: if a power failure takes the release back, the lease runs out.
        self.run(Need::Write, move |batch| {
            change::held(batch, &lease, |record| record.release(&lease, delay, now)).map(drop)
        })
    }

    fn set_aside(
        &self,
        lease: &Lease,
        reason: JobFailure,
        delay: Duration,
        now: UnixMillis,
    ) -> StoreFuture<'_, ()> {
        let lease = lease.clone();
        // Without a flush, as a release: the lease runs out if a power failure takes the write back.
        self.run(Need::Write, move |batch| {
            let rule = |record: &mut JobRecord| record.set_aside(&lease, reason.clone(), delay, now);
            change::held(batch, &lease, rule).map(drop)
        })
    }

    fn cancel(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, JobState> {
        let id = id.clone();
        self.run(Need::Disk, move |batch| change::cancel(batch, &id, now))
    }

    fn retry(&self, id: &JobId, _now: UnixMillis) -> StoreFuture<'_, JobState> {
        let id = id.clone();
        self.run(Need::Disk, move |batch| change::retry(batch, &id))
    }

    fn forget(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, bool> {
        let id = id.clone();
        self.run(Need::Disk, move |batch| change::forget(batch, &id, now))
    }

    fn note_orphans(&self, id: &JobId, found: Vec<String>, gone: Vec<String>) -> StoreFuture<'_, ()> {
        let id = id.clone();
        self.run(Need::Disk, move |batch| change::note_orphans(batch, &id, &found, &gone))
    }

    fn get(&self, id: &JobId) -> StoreFuture<'_, Option<Job>> {
        let id = id.clone();
        self.run(Need::Read, move |batch| list::get(batch, &id))
    }

    fn list(&self, query: JobQuery) -> StoreFuture<'_, JobPage> {
        self.run(Need::Read, move |batch| list::list(batch, &query))
    }

    fn count(&self) -> StoreFuture<'_, Vec<JobCount>> {
        self.run(Need::Read, list::count)
    }

    fn set_paused(&self, pool: &Pool, is_paused: bool) -> StoreFuture<'_, ()> {
        let pool = pool.clone();
        self.run(Need::Disk, move |batch| change::set_paused(batch, &pool, is_paused))
    }

    fn changed(&self, seen: Revision) -> StoreFuture<'_, Revision> {
        self.thread.changed(seen)
    }
}

/// The most jobs of one claim.
const MOST_CLAIMED: usize = 64;
