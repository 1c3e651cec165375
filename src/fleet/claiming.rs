//! Claims of jobs.

use super::failure::{Failure, Trouble};
use super::names::{job_key, pause_key};
use super::operations::Engine;
use super::record::{RecordFlaw, StoredJob};
use super::tries::Tries;
use crate::bulk::lease::ClaimStep;
use crate::bulk::{ClaimAnswer, ClaimedJob, JobState, OwnerId, Pool, UnixMillis};

impl Engine {
    /// Claims the next job of the pool.
    pub(super) async fn claim(
        &self,
        pool: &Pool,
        owner: &OwnerId,
        callers: UnixMillis,
    ) -> Result<ClaimAnswer, Trouble> {
        let mut tries = Tries::new();
        let mut cached = self.index.lock().await;
        loop {
            if let Err(failure) = self.catch_up(&mut cached).await {
                tries.pause(failure).await?;
                continue;
            }
            let now = self.now(callers).await?;
            if cached.index.is_paused(&pause_key(pool)) {
                return Ok(ClaimAnswer::Paused);
            }
            let Some(place) = cached.index.next_due(pool, now, self.lease) else {
                match cached.index.next_at(pool, now, self.lease) {
                    Some(next_at) => return Ok(ClaimAnswer::NoneReady { next_at }),
                    None if cached.is_recent() => return Ok(ClaimAnswer::Drained),
                    // A worker ends for this answer: an index that missed a message must not be the reason.
                    None => cached.reset(&self.bucket),
                }
                continue;
            };
            let found = match self.bucket.read_revision(place.revision).await {
                Ok(found) => found,
                Err(failure) => {
                    // A message that is gone: another worker has changed the job.
                    let is_gone = matches!(failure, Failure::NotFound);
                    tries.pause(if is_gone { Failure::Refused } else { failure }).await?;
                    continue;
                }
            };
            let stored = match found.job() {
                Ok(Some(stored)) => stored,
                Ok(None) | Err(_) => {
                    tracing::warn!(subject = found.subject, "a record of the job store cannot be used");
                    cached.index.exclude(place.number);
                    continue;
                }
            };
            if !stored.record.is_due(now) {
                // A running job has a longer lease than this worker counts with: it is looked at a lease later.
                let is_running = matches!(stored.record.state, JobState::Running { .. });
                let due_at = stored.record.due_at().filter(|_| !is_running);
                cached.index.defer(place.number, due_at.unwrap_or(now));
                continue;
            }
            if let Some(claimed) = self.take(stored, place.revision, owner, now, &mut tries).await? {
                return Ok(ClaimAnswer::Claimed(Box::new(claimed)));
            }
        }
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
            let is_uncertain = matches!(failure, Failure::Uncertain(..));
            tries.pause(failure).await?;
            if !is_uncertain || self.find(&key).await?.0.map(|found| found.write) != Some(stored.write) {
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
