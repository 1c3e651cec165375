//! The job store of a fleet.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::budget;
use super::claiming::ClaimSize;
use super::failure::Trouble;
use super::operations::Engine;
use super::options::NatsOptions;
use super::record::StoredJob;
use super::transition::{self, Transition};
use super::tries::Tries;
use super::watch::AbortOnDrop;
use crate::bulk::submission::prepare;
use crate::bulk::{
    ClaimAnswer, Job, JobCheckpoint, JobCount, JobEnd, JobFailure, JobId, JobPage, JobQuery, JobSpec,
    JobState, JobStore, JobStoreError, LONGEST_CHECKPOINT, Lease, MOST_WATCHERS, OwnerId, Pool, Presence,
    Resubmit, Revision, StoreFuture, StoreProblem, Submission, UnixMillis,
};
use crate::pacing::SharedBudget;

/// A job store in NATS JetStream, shared by the workers of many hosts.
///
/// The store has a thread of its own, so that its futures work under any executor. It reconnects by itself; a request
/// fails after about 20 seconds without the servers. Dropping the store abandons requests without an answer, which the
/// servers may have carried out.
///
/// The records are as durable as the servers' configuration makes them: by default a server flushes to its disk every
/// two minutes (`sync_interval`). After a power failure workers may repeat work, and no video is created twice, as
/// workers look for the video of a job before they create one.
pub struct NatsJobStore {
    /// `None` only while the store is dropped.
    runtime: Option<Runtime>,
    engine: Arc<Engine>,
    room: Semaphore,
    room_for_watchers: Semaphore,
}

impl NatsJobStore {
    /// Connects to the servers, and creates the account's bucket if it does not exist. Blocks for at most a minute.
    ///
    /// # Errors
    /// No server can be reached or used; see [`StoreProblem`].
    pub fn connect(options: NatsOptions) -> Result<NatsJobStore, JobStoreError> {
        let place = options.address.to_string();
        let failed = |problem, source: Option<std::io::Error>| JobStoreError::Store {
            place: place.clone(),
            problem,
            source: source.map(|source| Arc::new(source) as _),
        };
        let runtime = Builder::new_multi_thread()
            // A current-thread runtime would run only while some thread blocks on it.
            .worker_threads(1)
            .thread_name("ringlift-fleet")
            .enable_all()
            .build()
            .map_err(|error| failed(StoreProblem::Io, Some(error)))?;
        // Not `Runtime::block_on`, which panics in a caller's runtime.
        let opening = async move { tokio::time::timeout(LONGEST_OPEN, Engine::open(options)).await };
        let opened = pollster::block_on(runtime.spawn(opening));
        match opened {
            Ok(Ok(Ok(engine))) => Ok(NatsJobStore {
                runtime: Some(runtime),
                engine: Arc::new(engine),
                room: Semaphore::new(MOST_REQUESTS),
                room_for_watchers: Semaphore::new(MOST_WATCHERS),
            }),
            failure => {
                runtime.shutdown_background();
                match failure {
                    Ok(Ok(Err(error))) => Err(error),
                    Ok(_) => Err(failed(StoreProblem::Timeout, None)),
                    Err(_) => Err(failed(StoreProblem::Closed, None)),
                }
            }
        }
    }

    /// Returns the length of leases, which all workers share. It is the one that the first worker chose.
    pub fn lease(&self) -> Duration {
        self.engine.lease
    }

    /// Returns the request budget that all workers of the account share, for
    /// [`Settings::shared_budget`](crate::Settings::shared_budget). The clients of one process share one budget.
    ///
    /// Requests start at an even rate of fifteen sixteenths of the limit that the service states, and not at all for the time
    /// that the service requested from any of the workers. While the servers are away, a worker keeps to its share.
    pub fn budget(&self) -> SharedBudget {
        let engine = Arc::clone(&self.engine);
        self.runtime
            .as_ref()
            .map_or_else(SharedBudget::default, |runtime| budget::start(runtime.handle(), engine))
    }

    /// Announces a worker of this process until the store is dropped; the servers forget it 45 seconds later.
    pub fn announce(&self, owner: &OwnerId) {
        let (engine, owner) = (Arc::clone(&self.engine), owner.clone());
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move { engine.live.announce(owner).await });
        }
    }

    /// Returns the workers that are announced, as [`OwnerId::as_str`] gives them.
    pub fn workers(&self) -> StoreFuture<'_, Vec<String>> {
        self.read(|engine| async move { Ok(engine.live.workers().await?) })
    }

    /// Judges leases by the caller's time.
    #[cfg(test)]
    pub(super) fn with_callers_time(mut self) -> NatsJobStore {
        Arc::get_mut(&mut self.engine).unwrap().uses_callers_time = true;
        self
    }

    /// Returns the number of messages that were sent to the servers.
    #[cfg(test)]
    pub(super) fn messages_sent(&self) -> u64 {
        self.engine.bucket.connection.messages_sent()
    }

    /// Deletes the bucket, as an administrator may.
    #[cfg(test)]
    pub(super) fn wipe(&self) {
        let engine = Arc::clone(&self.engine);
        let wipe = async move {
            engine.bucket.connection.jetstream.delete_stream(&engine.bucket.names.stream).await.unwrap();
        };
        pollster::block_on(self.runtime.as_ref().unwrap().spawn(wipe)).unwrap();
    }

    /// Runs an operation on the thread of the store. At most [`MOST_REQUESTS`] run at the same time, the others wait.
    fn run<T, F>(&self, operation: impl Fn(Arc<Engine>) -> F + Send + 'static) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        Box::pin(async move {
            let _permit = self.room.acquire().await.map_err(|_| self.problem(StoreProblem::Closed))?;
            let Some(runtime) = &self.runtime else { return Err(self.problem(StoreProblem::Closed)) };
            let task = runtime.spawn(Arc::clone(&self.engine).run(operation));
            task.await.unwrap_or_else(|_| Err(self.problem(StoreProblem::Closed)))
        })
    }

    /// Runs an operation that only reads. It is repeated while a server starts or a cluster elects its leader.
    fn read<T, F>(
        &self,
        operation: impl Fn(Arc<Engine>) -> F + Clone + Send + Sync + 'static,
    ) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        self.run(move |engine| {
            let operation = operation.clone();
            async move { Tries::new().repeat(|| operation(Arc::clone(&engine))).await }
        })
    }

    /// Applies a transition to a job that this process holds. The rule gets the record, the lease and the time.
    fn change_held<T: Send + 'static>(
        &self,
        lease: &Lease,
        now: UnixMillis,
        rule: impl Fn(Option<StoredJob>, &Lease, UnixMillis) -> Result<Transition<T>, JobStoreError>
        + Send
        + Sync
        + 'static,
    ) -> StoreFuture<'_, T> {
        let request = Arc::new((lease.clone(), rule));
        self.run(move |engine| {
            let request = Arc::clone(&request);
            async move {
                let (lease, rule) = &*request;
                engine.change_held(&lease.id, now, |found, now| rule(found, lease, now)).await
            }
        })
    }

    /// Applies a transition to a job.
    fn change<T: Send + 'static>(
        &self,
        id: &JobId,
        now: UnixMillis,
        rule: impl Fn(Option<StoredJob>, UnixMillis) -> Result<Transition<T>, JobStoreError>
        + Send
        + Sync
        + 'static,
    ) -> StoreFuture<'_, T> {
        let request = Arc::new((id.clone(), rule));
        self.run(move |engine| {
            let request = Arc::clone(&request);
            async move { engine.change(&request.0, now, &request.1).await }
        })
    }

    fn problem(&self, problem: StoreProblem) -> JobStoreError {
        JobStoreError::Store { place: self.engine.place.clone(), problem, source: None }
    }
}

impl Drop for NatsJobStore {
    fn drop(&mut self) {
        // A runtime that is dropped in another runtime would panic.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for NatsJobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsJobStore").field("place", &self.engine.place).finish_non_exhaustive()
    }
}

impl JobStore for NatsJobStore {
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
        let prepared = Arc::new(prepared);
        self.run(move |engine| {
            let prepared = Arc::clone(&prepared);
            async move { engine.submit(&prepared, resubmit, now).await }
        })
    }

    fn claim(&self, pool: &Pool, owner: &OwnerId, now: UnixMillis) -> StoreFuture<'_, ClaimAnswer> {
        let (pool, owner) = (pool.clone(), owner.clone());
        self.run(move |engine| {
            let (pool, owner) = (pool.clone(), owner.clone());
            async move {
                let mut answers = engine.claim(&pool, &owner, now, ClaimSize::ONE).await?;
                // A claim has one answer at least.
                Ok(answers.pop().unwrap_or(ClaimAnswer::NoneReady { next_at: now }))
            }
        })
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
        self.run(move |engine| {
            let (pool, owner, size) = (pool.clone(), owner.clone(), ClaimSize { most, longest });
            async move { engine.claim(&pool, &owner, now, size).await }
        })
    }

    fn renew(&self, lease: &Lease, now: UnixMillis) -> StoreFuture<'_, ()> {
        let renewed = self.change_held(lease, now, move |found, lease, now| {
            transition::held(found, lease, |record| record.renew(lease, now))
        });
        without_state(renewed)
    }

    fn checkpoint(&self, lease: &Lease, checkpoint: JobCheckpoint, now: UnixMillis) -> StoreFuture<'_, ()> {
        let (len, limit) = (checkpoint.content.len(), LONGEST_CHECKPOINT);
        if len > limit {
            let what = format!("the bytes of the checkpoint of job {} are", lease.id);
            return Box::pin(std::future::ready(Err(JobStoreError::TooLarge { what, len, limit })));
        }
        let written = self.change_held(lease, now, move |found, lease, now| {
            transition::checkpoint(found, lease, &checkpoint, now)
        });
        without_state(written)
    }

    fn finish(&self, lease: &Lease, end: JobEnd, now: UnixMillis) -> StoreFuture<'_, ()> {
        let finished = self.finish_with_orphans(lease, end, now);
        Box::pin(async move { finished.await.map(drop) })
    }

    fn finish_with_orphans<'a>(
        &'a self,
        lease: &Lease,
        end: JobEnd,
        now: UnixMillis,
    ) -> StoreFuture<'a, Vec<String>> {
        self.change_held(lease, now, move |found, lease, now| transition::finish(found, lease, &end, now))
    }

    fn fail(&self, lease: &Lease, failure: JobFailure, now: UnixMillis) -> StoreFuture<'_, JobState> {
        self.change_held(lease, now, move |found, lease, now| {
            transition::held(found, lease, |record| record.fail(lease, failure.clone(), now))
        })
    }

    fn decline(&self, lease: &Lease, failure: JobFailure, now: UnixMillis) -> StoreFuture<'_, JobState> {
        self.change_held(lease, now, move |found, lease, now| {
            transition::held(found, lease, |record| record.decline(lease, failure.clone(), now))
        })
    }

    fn decline_on_host(
        &self,
        lease: &Lease,
        failure: JobFailure,
        now: UnixMillis,
    ) -> StoreFuture<'_, JobState> {
        self.change_held(lease, now, move |found, lease, now| {
            transition::held(found, lease, |record| record.decline_on_host(lease, failure.clone(), now))
        })
    }

    fn release(&self, lease: &Lease, delay: Duration, now: UnixMillis) -> StoreFuture<'_, ()> {
        let released = self.change_held(lease, now, move |found, lease, now| {
            transition::held(found, lease, |record| record.release(lease, delay, now))
        });
        without_state(released)
    }

    fn set_aside(
        &self,
        lease: &Lease,
        reason: JobFailure,
        delay: Duration,
        now: UnixMillis,
    ) -> StoreFuture<'_, ()> {
        let released = self.change_held(lease, now, move |found, lease, now| {
            transition::held(found, lease, |record| record.set_aside(lease, reason.clone(), delay, now))
        });
        without_state(released)
    }

    fn cancel(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, JobState> {
        let id = id.clone();
        self.change(&id.clone(), now, move |found, now| transition::cancel(found, &id, now))
    }

    fn retry(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, JobState> {
        let id = id.clone();
        self.change(&id.clone(), now, move |found, _| transition::retry(found, &id))
    }

    fn forget(&self, id: &JobId, now: UnixMillis) -> StoreFuture<'_, bool> {
        let id = id.clone();
        self.change(&id.clone(), now, move |found, now| transition::forget(found, &id, now))
    }

    fn note_orphans(&self, id: &JobId, found: Vec<String>, gone: Vec<String>) -> StoreFuture<'_, ()> {
        // The time plays no part in it.
        self.change(id, UnixMillis::default(), move |stored, _| {
            Ok(transition::note_orphans(stored, &found, &gone))
        })
    }

    fn present(&self) -> StoreFuture<'_, Presence> {
        self.read(|engine| async move { Ok(engine.present().await?) })
    }

    fn get(&self, id: &JobId) -> StoreFuture<'_, Option<Job>> {
        let id = id.clone();
        self.read(move |engine| {
            let id = id.clone();
            async move { engine.get(&id).await }
        })
    }

    fn list(&self, query: JobQuery) -> StoreFuture<'_, JobPage> {
        self.read(move |engine| {
            let query = query.clone();
            async move { engine.list(&query).await }
        })
    }

    fn count(&self) -> StoreFuture<'_, Vec<JobCount>> {
        self.read(|engine| async move { engine.count().await })
    }

    fn set_paused(&self, pool: &Pool, is_paused: bool) -> StoreFuture<'_, ()> {
        let pool = pool.clone();
        self.run(move |engine| {
            let pool = pool.clone();
            async move { engine.set_paused(&pool, is_paused).await }
        })
    }

    fn changed(&self, seen: Revision) -> StoreFuture<'_, Revision> {
        Box::pin(async move {
            // Fails rather than waits: a watcher keeps its place for as long as the store does not change.
            let permit = self.room_for_watchers.try_acquire();
            let _permit = permit.map_err(|_| self.problem(StoreProblem::TooManyWatchers))?;
            // Aborted with this future: an abandoned watcher must not look for ever.
            let watch = Arc::clone(&self.engine).run(move |engine| async move { engine.changed(seen).await });
            let Some(runtime) = &self.runtime else { return Err(self.problem(StoreProblem::Closed)) };
            let task = AbortOnDrop(runtime.spawn(watch));
            task.join().await.unwrap_or_else(|| Err(self.problem(StoreProblem::Closed)))
        })
    }
}

fn without_state(future: StoreFuture<'_, JobState>) -> StoreFuture<'_, ()> {
    Box::pin(async move { future.await.map(drop) })
}

/// The requests that run at the same time: a few for each of a hundred transfers.
const MOST_REQUESTS: usize = 256;

/// The longest time to connect and to create the bucket.
const LONGEST_OPEN: Duration = Duration::from_secs(45);
