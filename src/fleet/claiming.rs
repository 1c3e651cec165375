//! Claims of jobs.

use std::time::Duration;

use super::failure::{Failure, Trouble};
use super::index::JobRevision;
use super::names::{job_key, pause_key};
use super::operations::Engine;
use super::reading::CachedIndex;
use super::record::{RecordFlaw, StoredJob};
use super::tries::Tries;
use crate::bulk::lease::ClaimStep;
use crate::bulk::{ClaimAnswer, ClaimedJob, JobState, OwnerId, Pool, UnixMillis};

/// The record of a job that is due by the index.
#[derive(Debug)]
enum ClaimCandidate {
    Due(Box<StoredJob>),
    /// The index was wrong or could not be checked, and another job may be due.
    NotDue,
    /// Another worker has changed the job since the index was read.
    Lost,
}

impl Engine {
    /// Claims the next job of the pool.
    pub(super) async fn claim(
        &self,
        pool: &Pool,
        owner: &OwnerId,
        callers: UnixMillis,
    ) -> Result<ClaimAnswer, Trouble> {
        let mut cached = self.index.lock().await;
        let (mut tries, mut losses) = (Tries::new(), 0);
        loop {
            if let Err(failure) = self.catch_up(&mut cached).await {
                tries.pause(failure).await?;
                continue;
            }
            let now = self.now(callers).await?;
            if cached.index.is_paused(&pause_key(pool)) {
                return Ok(ClaimAnswer::Paused);
            }
            if losses > MOST_LOSSES {
                // Not a failure: the others work. The index may be the reason, and is made anew.
                cached.reset(&self.bucket);
                return Ok(ClaimAnswer::NoneReady { next_at: now.plus(REST_AFTER_LOSSES) });
            }
            // Workers that want the same job meet again at the next one unless they spread.
            let skip = if losses == 0 { 0 } else { fastrand::usize(..1 << losses) };
            let Some(place) = cached.index.next_due(pool, now, self.lease, skip) else {
                match cached.index.next_at(pool, now, self.lease) {
                    Some(next_at) => return Ok(ClaimAnswer::NoneReady { next_at }),
                    None if cached.is_recent() => return Ok(ClaimAnswer::Drained),
                    // A worker ends for this answer: an index that missed a message must not be the reason.
                    None => cached.reset(&self.bucket),
                }
                continue;
            };
            let stored = match self.candidate(&mut cached, place, now, &mut tries).await? {
                ClaimCandidate::Due(stored) => stored,
                ClaimCandidate::NotDue => continue,
                ClaimCandidate::Lost => {
                    losses += 1;
                    continue;
                }
            };
            if let Some(claimed) = self.take(*stored, place.revision, owner, now, &mut tries).await? {
                return Ok(ClaimAnswer::Claimed(Box::new(claimed)));
            }
            losses += 1;
        }
    }

    /// Reads the record of a job that is due by the index. Defers or excludes a job in the index that is not due.
    async fn candidate(
        &self,
        cached: &mut CachedIndex,
        place: JobRevision,
        now: UnixMillis,
        tries: &mut Tries,
    ) -> Result<ClaimCandidate, Trouble> {
        let found = match self.bucket.read_revision(place.revision).await {
            Ok(found) => found,
            // A message that is gone: another worker has changed the job.
            Err(Failure::NotFound) => return Ok(ClaimCandidate::Lost),
            Err(failure) => {
                tries.pause(failure).await?;
                return Ok(ClaimCandidate::NotDue);
            }
        };
        let Ok(Some(stored)) = found.job() else {
            // Left as it is: it may be the record of a newer version, whose workers can use it.
            tracing::warn!(subject = found.subject, "a record of the job store cannot be used");
            cached.index.exclude(place.number);
            return Ok(ClaimCandidate::NotDue);
        };
        if stored.record.is_due(now) {
            return Ok(ClaimCandidate::Due(Box::new(stored)));
        }
        // A running job has a longer lease than this worker counts with: it is looked at a lease later.
        let is_running = matches!(stored.record.state, JobState::Running { .. });
        let due_at = stored.record.due_at().filter(|_| !is_running);
        cached.index.defer(place.number, due_at.unwrap_or(now));
        Ok(ClaimCandidate::NotDue)
    }

    /// Writes the claim of a due job. Returns `None` if another worker was faster, or if the job failed.
    async fn take(
        &self,
        mut stored: StoredJob,
        revision: u64,
        owner: &OwnerId,
        now: UnixMillis,
        tries: &mut Tries,
    ) -> Result<Option<ClaimedJob>, Trouble> {
        let step = stored.record.claim(owner, now, self.lease);
        stored.write = fastrand::u64(1..);
        let key = job_key(&stored.spec.id);
        if let Err(failure) = self.bucket.write_job(&key, &stored, revision).await {
            if matches!(failure, Failure::Refused) {
                return Ok(None);
            }
            // The answer was lost. The write may have succeeded, and a job that is given up here waits for a whole lease.
            let mut failure = failure;
            let found = loop {
                tries.pause(failure).await?;
                match self.find(&key).await {
                    Ok((found, _)) => break found,
                    Err(again) => failure = again,
                }
            };
            if found.map(|found| found.write) != Some(stored.write) {
                return Ok(None);
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
}

/// The claims in a row that may be lost to other workers: the last ones choose among 64 jobs.
const MOST_LOSSES: u32 = 6;
/// The wait of a worker that has lost all of them.
const REST_AFTER_LOSSES: Duration = Duration::from_millis(200);
