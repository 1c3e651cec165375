//! The rules of leases, retries and poisoned jobs.
//!
//! Every rule is a pure function of the record, the lease and the time. A store reads a record, applies a rule, and
//! writes the record in one atomic step. Then a rule needs no trust in the order, the number or the timeliness of the
//! workers' requests.
//!
//! - A claim raises the epoch. Each later write names owner and epoch, and is refused if the record has others.
//! - A lease is live while the time is within one lease length of the last heartbeat, before or after it. A clock that
//!   went back therefore delays a takeover by at most one lease length, and the epoch still excludes the old holder.
//! - Only attempts without progress count: an upload that gains bytes each time never fails for its failures.

mod declines;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::host_decline::REST_AFTER_DECLINE;
use super::job_id::{JobId, OwnerId};
use super::job_record::{Epoch, JobRecord};
use super::job_state::{JobEnd, JobFailure, JobState, JobStateName};
use super::unix_time::UnixMillis;

/// The right to work on a job. It ends one lease length after the last renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// The worker that holds the lease.
    pub owner: OwnerId,
    /// The number of the claim.
    pub epoch: Epoch,
    /// The length of the lease, counted from each renewal.
    pub length: Duration,
}

/// The reason why a worker no longer holds its lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LostLease {
    /// A user cancelled the job.
    #[error("the job was cancelled")]
    Cancelled,
    /// Another claim followed, as the lease had run out.
    #[error("{owner} took over the job")]
    TakenOver {
        /// The worker that claimed the job.
        owner: OwnerId,
    },
    /// The job is no longer running.
    #[error("the job is {}", state.as_str())]
    Ended {
        /// The state of the job.
        state: JobStateName,
    },
    /// The store has no such job.
    #[error("the job was forgotten")]
    Forgotten,
}

/// The times at which a worker renews a lease and stops, on the clock that the worker measures by.
///
/// The clock must count the time during which the machine is suspended (`CLOCK_BOOTTIME`): other workers see that time
/// pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimer {
    length: Duration,
    asked_at: Duration,
}

/// The result of applying a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimStep {
    /// The worker holds the job.
    Claimed,
    /// The job failed: too many workers vanished with it.
    Failed,
}

impl LeaseTimer {
    /// Starts the timer of a lease that was claimed by a request sent at `asked_at`.
    pub fn new(length: Duration, asked_at: Duration) -> LeaseTimer {
        LeaseTimer { length, asked_at }
    }

    /// Records a renewal whose request was sent at `asked_at`. A late answer does not move the deadline back.
    pub fn renewed(&mut self, asked_at: Duration) {
        self.asked_at = self.asked_at.max(asked_at);
    }

    /// Returns the time of the next renewal: a third of the lease, so that two renewals may be lost.
    pub fn renew_at(&self) -> Duration {
        self.asked_at + self.length / 3
    }

    /// Returns the time from which the worker starts no request for the job until a renewal succeeds.
    ///
    /// Counts from the request, not from the answer: the store may have counted from any moment between the two.
    pub fn deadline(&self) -> Duration {
        self.asked_at + self.length - self.length / MARGIN
    }
}

impl JobRecord {
    /// Creates the record of a new job.
    pub(crate) fn new(now: UnixMillis) -> JobRecord {
        JobRecord {
            state: JobState::Queued { not_before: UnixMillis::default() },
            epoch: Epoch::default(),
            owner: None,
            attempts_without_progress: 0,
            lost_workers: 0,
            declines: 0,
            declined_by: Vec::new(),
            acknowledged_bytes: 0,
            checkpoint_number: 0,
            last_failure: None,
            restarts: 0,
            submitted_at: now,
            started_at: None,
            finished_at: None,
            held_until: None,
            orphans: Vec::new(),
        }
    }

    /// Returns `true` if a worker may claim the job.
    pub(crate) fn is_due(&self, now: UnixMillis) -> bool {
        match &self.state {
            // No rule delays a job for longer: a later time was written by a clock that went back since.
            JobState::Queued { not_before } => *not_before <= now || *not_before > now.plus(LONGEST_DELAY),
            JobState::Running { heartbeat, lease_ms } => {
                heartbeat.distance(now) >= Duration::from_millis(*lease_ms)
            }
            _ => false,
        }
    }

    /// Returns the time at which [`JobRecord::is_due`] becomes `true`; `None` if the job is not open.
    pub(crate) fn due_at(&self) -> Option<UnixMillis> {
        match &self.state {
            JobState::Queued { not_before } => Some(*not_before),
            JobState::Running { heartbeat, lease_ms } => {
                Some(heartbeat.plus(Duration::from_millis(*lease_ms)))
            }
            _ => None,
        }
    }

    /// Gives a due job to `owner`.
    pub(crate) fn claim(&mut self, owner: &OwnerId, now: UnixMillis, length: Duration) -> ClaimStep {
        // A claim of a running job means that its holder let the lease run out.
        if matches!(self.state, JobState::Running { .. }) {
            self.lost_workers += 1;
        }
        if self.lost_workers >= MOST_LOST_WORKERS {
            self.end(JobState::Failed(self.poison()), now);
            return ClaimStep::Failed;
        }
        self.epoch = self.epoch.next(now);
        self.owner = Some(owner.clone());
        // Checkpoints are counted anew in each lease.
        self.checkpoint_number = 0;
        self.held_until = None;
        self.started_at.get_or_insert(now);
        self.state = JobState::Running { heartbeat: now, lease_ms: length.as_millis() as u64 };
        ClaimStep::Claimed
    }

    /// Returns `true` if a claim of this due job has to be one of this job alone: a worker has vanished with the job since
    /// its last progress.
    ///
    /// Alone it begins at once. A job that waits behind others would count every worker that vanishes meanwhile, and fail
    /// without ever having begun.
    pub(crate) fn is_claimed_alone(&self) -> bool {
        self.lost_workers > 0 || matches!(self.state, JobState::Running { .. })
    }

    /// Requeues a running job whose worker has ended without a word.
    pub(crate) fn lose_worker(&mut self, now: UnixMillis) {
        self.lost_workers += 1;
        if self.lost_workers >= MOST_LOST_WORKERS {
            self.end(JobState::Failed(self.poison()), now);
        } else {
            // At once: the end of a process says little about the job, and `MOST_LOST_WORKERS` bounds the repetitions.
            self.state = JobState::Queued { not_before: UnixMillis::default() };
        }
    }

    /// Returns the lease on this record.
    pub(crate) fn lease(&self, id: &JobId) -> Option<Lease> {
        let JobState::Running { lease_ms, .. } = &self.state else { return None };
        let length = Duration::from_millis(*lease_ms);
        Some(Lease { id: id.clone(), owner: self.owner.clone()?, epoch: self.epoch, length })
    }

    /// Extends the lease from `now`.
    pub(crate) fn renew(&mut self, lease: &Lease, now: UnixMillis) -> Result<(), LostLease> {
        self.check_held(lease)?;
        if let JobState::Running { heartbeat, lease_ms } = &mut self.state {
            // A renewal that arrives late must not shorten the lease, and a clock that went back must not stop it.
            let is_from_the_future = *heartbeat > now.plus(Duration::from_millis(*lease_ms));
            *heartbeat = if is_from_the_future { now } else { now.max(*heartbeat) };
        }
        Ok(())
    }

    /// Records a checkpoint and extends the lease. Returns `false` if the epoch has a newer checkpoint: a delayed or
    /// repeated one must not replace it.
    pub(crate) fn checkpoint(
        &mut self,
        lease: &Lease,
        number: u64,
        acknowledged_bytes: u64,
        now: UnixMillis,
    ) -> Result<bool, LostLease> {
        self.renew(lease, now)?;
        if number <= self.checkpoint_number {
            return Ok(false);
        }
        self.checkpoint_number = number;
        // An upload that began anew has to get further than the one before. Otherwise a file that changes all the
        // time would never fail.
        if acknowledged_bytes > self.acknowledged_bytes {
            self.acknowledged_bytes = acknowledged_bytes;
            self.clear_tries();
        }
        Ok(true)
    }

    /// Ends a job that did not fail. Returns `false` if the same end is recorded already: its answer was lost.
    pub(crate) fn finish(&mut self, lease: &Lease, end: JobEnd, now: UnixMillis) -> Result<bool, LostLease> {
        let state = match end {
            JobEnd::Done(result) => JobState::Done(result),
            JobEnd::Skipped { reason } => JobState::Skipped { reason },
        };
        if self.is_of(lease) && self.state == state {
            return Ok(false);
        }
        self.check_held(lease)?;
        self.end(state, now);
        Ok(true)
    }

    /// Records a failed attempt. The job waits for the next one, or fails.
    pub(crate) fn fail(
        &mut self,
        lease: &Lease,
        failure: JobFailure,
        now: UnixMillis,
    ) -> Result<(), LostLease> {
        if !self.is_to_let_go(lease)? {
            return Ok(());
        }
        self.attempts_without_progress += 1;
        let attempts = self.attempts_without_progress;
        self.wait_or_fail(failure, attempts >= MOST_ATTEMPTS, delay_after(attempts), now);
        Ok(())
    }

    /// Records that the worker could not open the file, which other workers may be able to do.
    pub(crate) fn decline(
        &mut self,
        lease: &Lease,
        failure: JobFailure,
        now: UnixMillis,
    ) -> Result<(), LostLease> {
        if !self.is_to_let_go(lease)? {
            return Ok(());
        }
        self.declines += 1;
        self.wait_or_fail(failure, self.declines >= MOST_DECLINES, REST_AFTER_DECLINE, now);
        Ok(())
    }

    /// Returns the job to the queue without counting an attempt. `delay` is limited to ten minutes.
    pub(crate) fn release(
        &mut self,
        lease: &Lease,
        delay: Duration,
        now: UnixMillis,
    ) -> Result<(), LostLease> {
        if !self.is_to_let_go(lease)? {
            return Ok(());
        }
        // A longer wait would be taken for one that a clock wrote before it went back, see `is_due`.
        self.state = JobState::Queued { not_before: now.plus(delay.min(LONGEST_DELAY)) };
        Ok(())
    }

    /// Returns the job to the queue as [`JobRecord::release`] does, and records the reason.
    pub(crate) fn set_aside(
        &mut self,
        lease: &Lease,
        failure: JobFailure,
        delay: Duration,
        now: UnixMillis,
    ) -> Result<(), LostLease> {
        if self.is_to_let_go(lease)? {
            self.last_failure = Some(failure.bounded());
        }
        self.release(lease, delay, now)
    }

    /// Cancels an open job. Returns `false` if the job has ended.
    pub(crate) fn cancel(&mut self, now: UnixMillis) -> bool {
        if !self.state.is_open() {
            return false;
        }
        if matches!(self.state, JobState::Running { .. }) {
            // The holder learns of it with its next renewal and may send until then.
            self.held_until = self.due_at();
        }
        self.end(JobState::Cancelled, now);
        true
    }

    /// Returns an ended job to the queue, with all attempts before it. Returns `false` if the job is open.
    pub(crate) fn requeue(&mut self) -> bool {
        if self.state.is_open() {
            return false;
        }
        self.clear_tries();
        (self.finished_at, self.last_failure) = (None, None);
        // A worker that does not know of the cancellation yet could otherwise create a second video.
        self.state = JobState::Queued { not_before: self.held_until.unwrap_or_default() };
        true
    }

    /// Lets a job that waits for another attempt be claimed at once by any host, with the attempts before it. Returns
    /// `false` if the job does not wait.
    pub(super) fn hasten(&mut self, now: UnixMillis) -> bool {
        let JobState::Queued { not_before } = self.state else { return false };
        let has_rests = self.end_rests(now);
        // A worker that does not know of a cancellation yet may send until this time.
        let earliest = self.held_until.unwrap_or_default();
        if not_before <= now || not_before <= earliest {
            return has_rests;
        }
        self.state = JobState::Queued { not_before: earliest };
        true
    }

    /// Returns `true` if a worker holds the job, or may believe so after a cancellation.
    pub(crate) fn is_held(&self, now: UnixMillis) -> bool {
        // No lease is longer than that: a later end was written by a clock that went back since.
        let may_believe = self.held_until.is_some_and(|end| end > now && end <= now.plus(LONGEST_DELAY));
        (matches!(self.state, JobState::Running { .. }) && !self.is_due(now)) || may_believe
    }

    fn clear_tries(&mut self) {
        (self.attempts_without_progress, self.lost_workers, self.declines) = (0, 0, 0);
        self.declined_by.clear();
    }

    fn wait_or_fail(&mut self, failure: JobFailure, is_last: bool, delay: Duration, now: UnixMillis) {
        let failure = failure.bounded();
        if failure.permanent || is_last {
            self.end(JobState::Failed(failure), now);
        } else {
            self.last_failure = Some(failure);
            self.state = JobState::Queued { not_before: now.plus(delay) };
        }
    }

    fn end(&mut self, state: JobState, now: UnixMillis) {
        self.state = state;
        self.finished_at = Some(now);
    }

    fn poison(&self) -> JobFailure {
        let message = format!("{} workers in a row ended while they held this job", self.lost_workers);
        let mut failure = JobFailure::temporary("internal", message);
        failure.video_id = self.last_failure.as_ref().and_then(|last| last.video_id.clone());
        failure
    }

    fn is_of(&self, lease: &Lease) -> bool {
        self.epoch == lease.epoch && self.owner.as_ref() == Some(&lease.owner)
    }

    /// Returns `true` if the lease is held, and `false` if the worker has let go of it already: the first answer was
    /// lost.
    fn is_to_let_go(&self, lease: &Lease) -> Result<bool, LostLease> {
        if self.is_of(lease) && matches!(self.state, JobState::Queued { .. } | JobState::Failed(_)) {
            return Ok(false);
        }
        self.check_held(lease).map(|()| true)
    }

    fn check_held(&self, lease: &Lease) -> Result<(), LostLease> {
        if self.state == JobState::Cancelled {
            return Err(LostLease::Cancelled);
        }
        match &self.owner {
            // The epoch alone is no fence: an older copy of a store that comes back counts the same epochs again.
            Some(owner) if !self.is_of(lease) => Err(LostLease::TakenOver { owner: owner.clone() }),
            Some(_) if matches!(self.state, JobState::Running { .. }) => Ok(()),
            _ => Err(LostLease::Ended { state: self.state.name() }),
        }
    }
}

/// Returns the wait after the given number of attempts without progress: 30 seconds, doubling to ten minutes.
fn delay_after(attempts: u32) -> Duration {
    // The exponent is limited before the shift, which would overflow.
    (FIRST_DELAY * (1 << attempts.saturating_sub(1).min(10))).min(LONGEST_DELAY)
}

/// Attempts without progress after which a job fails.
const MOST_ATTEMPTS: u32 = 5;

/// Vanished workers without progress after which a job fails. A killed process is weaker evidence against its job than
/// a failure: a user may kill an unattended run many times.
const MOST_LOST_WORKERS: u32 = 20;

/// Tries without a file that can be used, at least a minute apart or by different hosts, after which a job fails.
const MOST_DECLINES: u32 = 3;

const FIRST_DELAY: Duration = Duration::from_secs(30);

/// The longest time that a job waits in the queue.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// The part of a lease that a worker leaves unused at its end, for a request that is on its way: a tenth.
const MARGIN: u32 = 10;

/// The length of a lease unless the store was opened with another.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(60);
/// A shorter lease would end while the disk is busy.
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_secs(3);
