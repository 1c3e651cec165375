//! Claims of jobs.

use std::future::ready;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use super::bucket::StoredMessage;
use super::failure::{Failure, Trouble};
use super::index::JobRevision;
use super::names::{job_key, pause_key};
use super::operations::{AT_ONCE, Engine};
use super::own_writes::RequestMoment;
use super::reading::CachedIndex;
use super::record::{RecordFlaw, StoredJob};
use super::tries::Tries;
use crate::bulk::lease::ClaimStep;
use crate::bulk::{ClaimAnswer, ClaimedJob, JobState, OwnerId, Pool, UnixMillis};

/// The jobs that one claim may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClaimSize {
    /// The most jobs.
    pub(super) most: usize,
    /// The longest file, in bytes, of a job that is claimed with another one.
    pub(super) longest: u64,
}

impl ClaimSize {
    /// The size of a claim of a single job.
    pub(super) const ONE: ClaimSize = ClaimSize { most: 1, longest: 0 };
}

/// The records of the jobs that are due by the index.
#[derive(Debug, Default)]
struct ClaimCandidates {
    /// The jobs that are due by their records, too, with their revisions.
    due: Vec<(StoredJob, u64)>,
    /// `true` if another worker has changed a job since the index was read.
    is_any_lost: bool,
    /// The failure to read a record.
    failure: Option<Failure>,
}

impl ClaimCandidates {
    /// Adds a job that is due, unless it or the first one is claimed alone. A later claim takes it then.
    fn add(&mut self, due: Option<(StoredJob, u64)>) {
        let Some(found) = due else { return };
        let is_alone = |(stored, _): &(StoredJob, u64)| stored.record.is_claimed_alone();
        if self.due.first().is_none_or(|first| !is_alone(first) && !is_alone(&found)) {
            self.due.push(found);
        }
    }
}

/// The claim of a job that was sent to the server.
struct SentClaim {
    key: String,
    stored: StoredJob,
    step: ClaimStep,
    asked: RequestMoment,
    written: BoxFuture<'static, Result<u64, Failure>>,
}

impl Engine {
    /// Claims the next job of the pool, and small ones after it. Returns several answers only if all are claimed jobs.
    pub(super) async fn claim(
        &self,
        pool: &Pool,
        owner: &OwnerId,
        callers: UnixMillis,
        size: ClaimSize,
    ) -> Result<Vec<ClaimAnswer>, Trouble> {
        let mut cached = self.index.lock().await;
        let (mut tries, mut losses) = (Tries::new(), 0);
        loop {
            if let Err(failure) = self.catch_up(&mut cached).await {
                tries.pause(failure).await?;
                continue;
            }
            let now = tries.repeat(|| self.now(callers)).await?;
            if cached.index.is_paused(&pause_key(pool)) {
                return Ok(vec![ClaimAnswer::Paused]);
            }
            if losses > MOST_LOSSES {
                // Not a failure: the others work. The index may be the reason, and is made anew.
                cached.reset(&self.bucket);
                return Ok(vec![ClaimAnswer::NoneReady { next_at: now.plus(REST_AFTER_LOSSES) }]);
            }
            // Workers that want the same job meet again at the next one unless they spread.
            let skip = if losses == 0 { 0 } else { fastrand::usize(..1 << losses) };
            let Some(first) = cached.index.next_due(pool, now, self.lease, skip) else {
                match cached.index.next_at(pool, now, self.lease) {
                    Some(next_at) => return Ok(vec![ClaimAnswer::NoneReady { next_at }]),
                    None if cached.is_recent() => return Ok(vec![ClaimAnswer::Drained]),
                    // A worker ends for this answer: an index that missed a message must not be the reason.
                    None => cached.reset(&self.bucket),
                }
                continue;
            };
            // At most as many as are read at the same time.
            let places = cached.index.with_small(first, size.most.min(AT_ONCE), size.longest);
            let ClaimCandidates { due, is_any_lost, failure } =
                self.candidates(&mut cached, places, owner, now).await;
            let is_contended = is_any_lost || !due.is_empty();
            let claimed = self.take(due, owner, now, &mut tries).await?;
            if !claimed.is_empty() {
                let answers = claimed.into_iter().map(|job| ClaimAnswer::Claimed(Box::new(job)));
                return Ok(answers.collect());
            }
            if let Some(failure) = failure {
                tries.pause(failure).await?;
            } else {
                losses += u32::from(is_contended);
            }
        }
    }

    /// Reads the records of jobs that are due by the index. Defers or excludes jobs in the index that are not due.
    async fn candidates(
        &self,
        cached: &mut CachedIndex,
        places: Vec<JobRevision>,
        owner: &OwnerId,
        now: UnixMillis,
    ) -> ClaimCandidates {
        let mut candidates = ClaimCandidates::default();
        let reads: Vec<BoxFuture<'_, _>> = places
            .into_iter()
            .map(|place| {
                Box::pin(async move { (place, self.bucket.read_revision(place.revision).await) }) as _
            })
            .collect();
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        while let Some((place, found)) = reads.next().await {
            match found {
                Ok(found) => candidates.add(due_job(cached, place, &found, owner, now)),
                // A message that is gone: another worker has changed the job.
                Err(Failure::NotFound) => candidates.is_any_lost = true,
                Err(failure) => candidates.failure = Some(failure),
            }
        }
        candidates
    }

    /// Writes the claims of due jobs. Returns those that succeeded: another worker may be faster, and a job may fail.
    async fn take(
        &self,
        due: Vec<(StoredJob, u64)>,
        owner: &OwnerId,
        now: UnixMillis,
        tries: &mut Tries,
    ) -> Result<Vec<ClaimedJob>, Trouble> {
        let mut sent = Vec::with_capacity(due.len());
        // All are sent before the first answer is awaited.
        for (stored, revision) in due {
            sent.push(self.send_claim(stored, revision, owner, now).await);
        }
        let mut claimed = Vec::with_capacity(sent.len());
        for claim in sent {
            match self.confirm_claim(claim, tries).await {
                Ok(job) => claimed.extend(job),
                // The jobs that are held count. This one is unavailable until its lease ends, if the claim was carried out.
                Err(trouble) if claimed.is_empty() => return Err(trouble),
                Err(_) => {}
            }
        }
        Ok(claimed)
    }

    async fn send_claim(
        &self,
        mut stored: StoredJob,
        revision: u64,
        owner: &OwnerId,
        now: UnixMillis,
    ) -> SentClaim {
        let step = stored.record.claim(owner, now, self.lease);
        stored.write = fastrand::u64(1..);
        let (key, asked) = (job_key(&stored.spec.id), self.moment());
        let written = match self.bucket.send_job(&key, &stored, revision).await {
            Ok(answer) => answer.boxed(),
            Err(failure) => ready(Err(failure)).boxed(),
        };
        SentClaim { key, stored, step, asked, written }
    }

    /// Waits for the answer to a claim. Returns `None` if another worker was faster, or if the job failed.
    async fn confirm_claim(
        &self,
        claim: SentClaim,
        tries: &mut Tries,
    ) -> Result<Option<ClaimedJob>, Trouble> {
        let SentClaim { key, stored, step, asked, written } = claim;
        match written.await {
            Ok(revision) => {
                self.own_writes.add(&key, stored.clone(), revision, asked, self.moment());
            }
            Err(Failure::Refused) => return Ok(None),
            // The answer was lost. The write may have succeeded, and a job that is given up here waits for a whole lease.
            Err(failure) => {
                if self.last_write(&key, failure, tries).await? != Some(stored.write) {
                    return Ok(None);
                }
            }
        }
        if step == ClaimStep::Failed {
            return Ok(None);
        }
        let job = stored.into_job();
        // A record that was just claimed has a lease.
        let lease = job.record.lease(&job.spec.id).ok_or(Failure::record(RecordFlaw::Damaged))?;
        Ok(Some(ClaimedJob { job, lease }))
    }

    /// Returns the number of the last write to a job, after a pause for each failure.
    async fn last_write(
        &self,
        key: &str,
        mut failure: Failure,
        tries: &mut Tries,
    ) -> Result<Option<u64>, Trouble> {
        loop {
            tries.pause(failure).await?;
            match self.find(key).await {
                Ok((found, _)) => return Ok(found.map(|found| found.write)),
                Err(again) => failure = again,
            }
        }
    }
}

/// Returns the job if it is due by its record, and the host of `owner` does not rest after it has declined the job.
fn due_job(
    cached: &mut CachedIndex,
    place: JobRevision,
    found: &StoredMessage,
    owner: &OwnerId,
    now: UnixMillis,
) -> Option<(StoredJob, u64)> {
    let Ok(Some(stored)) = found.job() else {
        // Left as it is: it may be the record of a newer version, whose workers can use it.
        tracing::warn!(subject = found.subject, "a record of the job store cannot be used");
        cached.index.exclude(place.number);
        return None;
    };
    if let Some(rest_ends) = stored.record.rest_of(owner.host(), now) {
        // In the index of this process only: other hosts may claim the job.
        cached.index.defer(place.number, rest_ends);
        return None;
    }
    if stored.record.is_due(now) {
        return Some((stored, place.revision));
    }
    // A running job has a longer lease than this worker counts with: it is looked at a lease later.
    let is_running = matches!(stored.record.state, JobState::Running { .. });
    let due_at = stored.record.due_at().filter(|_| !is_running);
    cached.index.defer(place.number, due_at.unwrap_or(now));
    None
}

/// The claims in a row that may be lost to other workers: the last ones choose among 64 jobs.
const MOST_LOSSES: u32 = 6;
/// The wait of a worker that has lost all of them.
const REST_AFTER_LOSSES: Duration = Duration::from_millis(200);
