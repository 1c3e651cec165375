//! The operations of the store: read, apply a transition, write on a condition, and read again if in doubt.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::bucket::{Bucket, StreamState};
use super::clock::{ServerClock, since_boot};
use super::connection::NatsConnection;
use super::failure::{Failure, Trouble};
use super::last_look::LastLook;
use super::live::Live;
use super::names::{BucketNames, SETTINGS_KEY, job_key, pause_key};
use super::options::NatsOptions;
use super::own_writes::{KnownJob, OwnWrites, RequestMoment};
use super::reading::CachedIndex;
use super::record::{FORMAT, RecordFlaw, StoredJob};
use super::transition::{self, Transition};
use super::tries::Tries;
use crate::bulk::job_id::content_digest;
use crate::bulk::lease::{LONGEST_DELAY, SHORTEST_LEASE};
use crate::bulk::submission::PreparedJob;
use crate::bulk::{
    Account, Job, JobCount, JobId, JobStoreError, Pool, Presence, Resubmit, StoreProblem, Submission,
    UnixMillis,
};
use crate::source::sha256::hex;

/// The store of one account, on the thread of the connection.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) bucket: Bucket,
    pub(super) live: Live,
    pub(super) place: String,
    pub(super) lease: Duration,
    pub(super) last_look: LastLook,
    pub(super) own_writes: OwnWrites,
    account: Account,
    clock: ServerClock,
    /// Locked during a claim: the claims of one process do not compete.
    pub(super) index: Mutex<CachedIndex>,
    /// The caller's time takes the place of the server's.
    #[cfg(test)]
    pub(super) uses_callers_time: bool,
}

/// The settings that all workers share.
#[derive(Debug, Serialize, Deserialize)]
struct SharedSettings {
    v: i64,
    lease_ms: u64,
    /// The plain name, for persons. The bucket's name is a digest of it.
    account: String,
}

impl Engine {
    /// Connects, and creates the bucket if it does not exist.
    pub(super) async fn open(options: NatsOptions) -> Result<Engine, JobStoreError> {
        let connection = NatsConnection::open(&options).await?;
        let description = "jobs of ringlift".to_owned();
        let names = BucketNames::jobs(&options.account);
        let replicas = options.replicas.clamp(1, MOST_REPLICAS);
        let index = Mutex::new(CachedIndex::new(connection.number()));
        let bucket = Bucket { connection, names, description, replicas };
        let live = Bucket { names: BucketNames::live(&options.account), ..bucket.clone() };
        let mut engine = Engine {
            bucket,
            live: Live::new(live),
            place: options.address.to_string(),
            lease: options.lease.clamp(SHORTEST_LEASE, LONGEST_DELAY),
            last_look: LastLook::default(),
            own_writes: OwnWrites::default(),
            account: options.account,
            clock: ServerClock::default(),
            index,
            #[cfg(test)]
            uses_callers_time: false,
        };
        // A server takes requests before its JetStream is there.
        let lease = Tries::new().repeat(|| engine.restore()).await;
        engine.lease = lease.map_err(|trouble| trouble.into_error(&engine.place))?;
        Ok(engine)
    }

    /// Creates the bucket and the shared settings if they do not exist. Returns the shared length of leases.
    async fn restore(&self) -> Result<Duration, Failure> {
        self.bucket.create().await?;
        self.live.create().await?;
        let lease_ms = self.lease.as_millis() as u64;
        let settings = SharedSettings { v: FORMAT, lease_ms, account: self.account.as_str().to_owned() };
        let text = serde_json::to_string(&settings).unwrap_or_default();
        // Fails if the settings exist, or if the answer is lost: the settings that count are read then.
        match self.bucket.write_text(SETTINGS_KEY, text, 0).await {
            Ok(_) => return Ok(self.lease),
            Err(Failure::Refused | Failure::Uncertain(..)) => {}
            Err(failure) => return Err(failure),
        }
        let found = self.bucket.read(SETTINGS_KEY).await?;
        let damaged = |_| Failure::record(RecordFlaw::Damaged);
        let settings: SharedSettings = serde_json::from_slice(&found.payload).map_err(damaged)?;
        if settings.v != FORMAT {
            return Err(Failure::record(RecordFlaw::Format(settings.v)));
        }
        // A length from elsewhere must not disable the rules.
        Ok(Duration::from_millis(settings.lease_ms).clamp(SHORTEST_LEASE, LONGEST_DELAY))
    }

    /// Runs an operation. Creates the bucket anew if it was deleted, and runs the operation again.
    pub(super) async fn run<T, F>(
        self: Arc<Engine>,
        operation: impl Fn(Arc<Engine>) -> F + Send,
    ) -> Result<T, JobStoreError>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        let outcome = match operation(Arc::clone(&self)).await {
            Err(Trouble::Engine(Failure::NoBucket)) => match self.restore().await {
                Ok(_) => operation(Arc::clone(&self)).await,
                Err(failure) => Err(failure.into()),
            },
            outcome => outcome,
        };
        outcome.map_err(|trouble| trouble.into_error(&self.place))
    }

    /// Reads the state of the stream, and sets the clock by it.
    pub(super) async fn state(&self) -> Result<StreamState, Failure> {
        let asked = self.moment();
        let state = self.bucket.state().await?;
        if let Some(time) = state.time() {
            self.clock.set(time);
        }
        let is_here = state.is_only_on(&self.bucket.connection.server_name());
        self.own_writes.found_stream(is_here, asked, self.moment());
        Ok(state)
    }

    /// Returns the connection and the time of a request that is sent, or of an answer that arrives now.
    pub(super) fn moment(&self) -> RequestMoment {
        RequestMoment { connection: self.bucket.connection.number(), at: since_boot() }
    }

    /// Returns the server's time; the caller's if the server reports none.
    pub(super) async fn now(&self, callers: UnixMillis) -> Result<UnixMillis, Failure> {
        if let Some(now) = self.known_time(callers) {
            return Ok(now);
        }
        self.state().await?;
        Ok(self.clock.now().unwrap_or(callers))
    }

    /// Returns the server's time, if it is known without a request.
    fn known_time(&self, _callers: UnixMillis) -> Option<UnixMillis> {
        #[cfg(test)]
        if self.uses_callers_time {
            return Some(_callers);
        }
        self.clock.now()
    }

    /// Returns the server's time.
    pub(super) async fn server_time(&self) -> Result<UnixMillis, Failure> {
        if let Some(now) = self.clock.now() {
            return Ok(now);
        }
        self.state().await?;
        // The caller's time is no substitute: the arrival times of a budget are those of all hosts.
        self.clock.now().ok_or(Failure::timeout())
    }

    /// Reads the job under a key, and the revision that a write has to name.
    pub(super) async fn find(&self, key: &str) -> Result<(Option<StoredJob>, u64), Failure> {
        match self.bucket.read(key).await {
            Ok(found) => Ok((found.job()?, found.revision)),
            Err(Failure::NotFound) => Ok((None, 0)),
            Err(failure) => Err(failure),
        }
    }

    /// Returns the record that this process has written last and the time, if both are known without a request.
    fn known(&self, key: &str, callers: UnixMillis) -> Option<(KnownJob, UnixMillis)> {
        let now = self.known_time(callers)?;
        // While the connection is away, a write waits, and reaches a server that may have another copy of the store.
        let known =
            self.bucket.connection.is_connected().then(|| self.own_writes.take(key, self.moment()))?;
        known.map(|known| (known, now))
    }

    /// Applies a transition to a job.
    pub(super) async fn change<T>(
        &self,
        id: &JobId,
        callers: UnixMillis,
        rule: impl Fn(Option<StoredJob>, UnixMillis) -> Result<Transition<T>, JobStoreError> + Sync,
    ) -> Result<T, Trouble> {
        let (key, mut tries) = (job_key(id), Tries::new());
        self.change_after(&key, callers, None, &mut tries, &rule).await
    }

    /// Applies a transition to a job that this process holds. The record is read only if it may be another one than this
    /// process has written last.
    pub(super) async fn change_held<T>(
        &self,
        id: &JobId,
        callers: UnixMillis,
        rule: impl Fn(Option<StoredJob>, UnixMillis) -> Result<Transition<T>, JobStoreError> + Sync,
    ) -> Result<T, Trouble> {
        let (key, mut tries, mut unanswered) = (job_key(id), Tries::new(), None);
        if let Some((KnownJob { job, revision }, now)) = self.known(&key, callers)
            // A request that needs no write, or that is refused, is decided by the server's record.
            && let Ok(Transition::Write(job, answer)) = rule(Some(job), now)
        {
            let write = fastrand::u64(1..);
            match self.write(&key, job, write, revision).await {
                Ok(()) => return Ok(answer),
                // Another process has changed the record.
                Err(Failure::Refused) => {}
                Err(failure) => {
                    unanswered = matches!(failure, Failure::Uncertain(..)).then_some((write, answer));
                    tries.pause(failure).await?;
                }
            }
        }
        self.change_after(&key, callers, unanswered, &mut tries, &rule).await
    }

    /// Applies a transition to the record that the server has. `unanswered` is the number of an earlier write whose answer
    /// was lost, and the answer to the request in case that the write succeeded.
    async fn change_after<T>(
        &self,
        key: &str,
        callers: UnixMillis,
        mut unanswered: Option<(u64, T)>,
        tries: &mut Tries,
        rule: &(impl Fn(Option<StoredJob>, UnixMillis) -> Result<Transition<T>, JobStoreError> + Sync),
    ) -> Result<T, Trouble> {
        loop {
            let (found, revision) = tries.repeat(|| self.find(key)).await?;
            let last_write = found.as_ref().map(|job| job.write);
            // The job's last write is the one whose answer was lost: applied again, the transition would count twice.
            match unanswered.take() {
                Some((write, answer)) if last_write == Some(write) => return Ok(answer),
                _ => {}
            }
            let now = tries.repeat(|| self.now(callers)).await?;
            // Drawn for each try, so that it is never the number of another worker's write.
            let write = fastrand::u64(1..);
            let (written, answer) = match rule(found, now)? {
                Transition::Keep(answer) => return Ok(answer),
                Transition::Write(job, answer) => (self.write(key, job, write, revision).await, answer),
                Transition::Delete(answer) => (self.bucket.delete(key, revision).await.map(drop), answer),
            };
            match written {
                Ok(()) => return Ok(answer),
                Err(failure) => {
                    // A refused write changed nothing, so that only an unanswered one may be the last write of the job.
                    if matches!(failure, Failure::Uncertain(..)) {
                        unanswered = Some((write, answer));
                    }
                    tries.pause(failure).await?;
                }
            }
        }
    }

    /// Writes a job on the condition that its newest record has this revision.
    async fn write(
        &self,
        key: &str,
        mut job: Box<StoredJob>,
        write: u64,
        revision: u64,
    ) -> Result<(), Failure> {
        job.write = write;
        let asked = self.moment();
        let revision = self.bucket.write_job(key, &job, revision).await?;
        self.own_writes.add(key, *job, revision, asked, self.moment());
        Ok(())
    }

    /// Submits jobs in order.
    pub(super) async fn submit(
        &self,
        jobs: &[PreparedJob],
        how: Resubmit,
        callers: UnixMillis,
    ) -> Result<Vec<Submission>, Trouble> {
        let now = Tries::new().repeat(|| self.now(callers)).await?;
        let mut sent = Vec::with_capacity(jobs.len());
        // The messages go out in order before the first answer is awaited: the server numbers them in that order.
        for job in jobs {
            let spec = &job.spec;
            let content = hex(&content_digest(&self.account, &spec.pool, &spec.source, spec.stamp));
            let mut new = StoredJob::new(job, &content, now);
            new.write = fastrand::u64(1..);
            // Revision 0 expects no message of the key: a job that exists goes through the rules of a resubmission.
            let answer = self.bucket.send_job(&job_key(&spec.id), &new, 0).await;
            sent.push((job, content, new.write, answer));
        }
        let mut answers: Vec<BoxFuture<'_, _>> = Vec::with_capacity(sent.len());
        for (job, content, write, answer) in sent {
            answers.push(Box::pin(async move {
                let created = match answer {
                    Ok(answer) => answer.await,
                    Err(failure) => Err(failure),
                };
                let unanswered = match created {
                    Ok(_) => return Ok(Submission::New),
                    Err(Failure::Uncertain(..)) => Some((write, Submission::New)),
                    Err(Failure::Refused) => None,
                    Err(failure) => return Err(failure.into()),
                };
                let rule = |found, now| Ok(transition::submit(found, job, &content, how, now));
                let (key, mut tries) = (job_key(&job.spec.id), Tries::new());
                self.change_after(&key, callers, unanswered, &mut tries, &rule).await
            }));
        }
        all_submitted(answers).await
    }

    /// Returns the job with this id.
    pub(super) async fn get(&self, id: &JobId) -> Result<Option<Job>, Trouble> {
        Ok(self.find(&job_key(id)).await?.0.map(StoredJob::into_job))
    }

    /// Returns the workers that are present, with the ages of their heartbeats by the server's time.
    pub(super) async fn present(&self) -> Result<Presence, Failure> {
        let now = self.server_time().await?;
        self.live.present(now).await
    }

    /// Returns the sums of every pool and state.
    pub(super) async fn count(&self) -> Result<Vec<JobCount>, Trouble> {
        let mut cached = self.index.lock().await;
        self.catch_up(&mut cached).await?;
        Ok(cached.index.counts())
    }

    /// Pauses or resumes a pool.
    pub(super) async fn set_paused(&self, pool: &Pool, is_paused: bool) -> Result<(), Trouble> {
        let (key, mut tries) = (pause_key(pool), Tries::new());
        loop {
            let (was_paused, revision) = tries.repeat(|| self.find_pause(&key)).await?;
            // Each write wakes the workers that wait for a change.
            if was_paused == is_paused {
                return Ok(());
            }
            let written = if is_paused {
                self.bucket.write_text(&key, pool.as_str().to_owned(), revision).await
            } else {
                self.bucket.delete(&key, revision).await
            };
            match written {
                Ok(_) => return Ok(()),
                Err(failure) => tries.pause(failure).await?,
            }
        }
    }

    /// Returns whether the pool of this key is paused, and the revision that a write has to name.
    async fn find_pause(&self, key: &str) -> Result<(bool, u64), Failure> {
        match self.bucket.read(key).await {
            Ok(found) => Ok((!found.is_deletion(), found.revision)),
            // Revision 0: the write fails if another process creates the key meanwhile.
            Err(Failure::NotFound) => Ok((false, 0)),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn catch_up(&self, cached: &mut CachedIndex) -> Result<(), Failure> {
        let last = self.state().await?.last_revision();
        cached.catch_up(&self.bucket, last, &self.own_writes).await
    }
}

/// Waits for the answers to the messages of a submission.
async fn all_submitted(
    answers: Vec<BoxFuture<'_, Result<Submission, Trouble>>>,
) -> Result<Vec<Submission>, Trouble> {
    let mut submissions = Vec::with_capacity(answers.len());
    let (mut answers, mut full) = (stream::iter(answers).buffered(AT_ONCE), None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(submission) => submissions.push(submission),
            // All messages were sent. When this returns, the caller reads which of them a full store has taken.
            Err(Trouble::Engine(failure @ Failure::Failed(StoreProblem::StorageLimit, _))) => {
                full = Some(failure)
            }
            Err(trouble) => return Err(trouble),
        }
    }
    full.map_or(Ok(submissions), |failure| Err(failure.into()))
}

/// The records that are read or changed at the same time.
pub(super) const AT_ONCE: usize = 32;
/// JetStream keeps at most five copies.
const MOST_REPLICAS: usize = 5;
