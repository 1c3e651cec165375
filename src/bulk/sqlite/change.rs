//! Changes of jobs that exist.

use super::batch::{Batch, JobRow};
use super::statements;
use crate::bulk::job_id::{JobId, Pool};
use crate::bulk::job_record::JobRecord;
use crate::bulk::job_state::JobState;
use crate::bulk::lease::{Lease, LostLease};
use crate::bulk::store::{JobCheckpoint, JobStoreError};
use crate::bulk::unix_time::UnixMillis;

/// Applies a rule to the record of a leased job, and returns the new state.
pub(super) fn held(
    batch: &mut Batch<'_>,
    lease: &Lease,
    rule: impl FnOnce(&mut JobRecord) -> Result<(), LostLease>,
) -> Result<JobState, JobStoreError> {
    let lost = |reason| JobStoreError::LeaseLost { id: lease.id.clone(), reason };
    let mut row = batch.job_by_id(&lease.id)?.ok_or_else(|| lost(LostLease::Forgotten))?;
    let before = row.record.clone();
    rule(&mut row.record).map_err(lost)?;
    // A repeated request changes nothing, and saves the write.
    if row.record != before {
        batch.write(&mut row)?;
    }
    Ok(row.record.state)
}

/// Records a checkpoint.
pub(super) fn checkpoint(
    batch: &mut Batch<'_>,
    lease: &Lease,
    checkpoint: &JobCheckpoint,
    now: UnixMillis,
) -> Result<(), JobStoreError> {
    let mut is_newer = false;
    held(batch, lease, |record| {
        is_newer = record.checkpoint(lease, checkpoint.number, checkpoint.acknowledged_bytes, now)?;
        Ok(())
    })?;
    if is_newer {
        let row = batch.job_by_id(&lease.id)?.ok_or_else(|| batch.damaged())?;
        batch.execute(statements::SET_CHECKPOINT, (row.seq, &checkpoint.content))?;
    }
    Ok(())
}

/// Cancels an open job, and returns the state that it had.
pub(super) fn cancel(batch: &mut Batch<'_>, id: &JobId, now: UnixMillis) -> Result<JobState, JobStoreError> {
    let mut row = existing(batch, id)?;
    let state = row.record.state.clone();
    if row.record.cancel(now) {
        batch.write(&mut row)?;
    }
    Ok(state)
}

/// Queues a failed, skipped or cancelled job, and returns the state that it had.
pub(super) fn retry(batch: &mut Batch<'_>, id: &JobId) -> Result<JobState, JobStoreError> {
    let mut row = existing(batch, id)?;
    let state = row.record.state.clone();
    // The video of a job that is done would be created twice.
    if !matches!(state, JobState::Done(_)) && row.record.requeue() {
        batch.write(&mut row)?;
    }
    Ok(state)
}

/// Records videos beside the one of a job, and removes those that are gone.
pub(super) fn note_orphans(
    batch: &mut Batch<'_>,
    id: &JobId,
    found: &[String],
    gone: &[String],
) -> Result<(), JobStoreError> {
    let Some(mut row) = batch.job_by_id(id)? else { return Ok(()) };
    let before = row.record.orphans.clone();
    row.record.note_orphans(found, gone);
    if row.record.orphans != before {
        batch.write(&mut row)?;
    }
    Ok(())
}

/// Deletes a job that no worker holds.
pub(super) fn forget(batch: &mut Batch<'_>, id: &JobId, now: UnixMillis) -> Result<bool, JobStoreError> {
    let Some(row) = batch.job_by_id(id)? else { return Ok(false) };
    // Its worker could not record the end, and a new submission would upload the file a second time.
    if row.record.is_held(now) {
        return Err(JobStoreError::Held { id: id.clone() });
    }
    batch.execute(statements::DELETE, [row.seq])?;
    batch.discount(&row);
    Ok(true)
}

/// Pauses or resumes a pool.
pub(super) fn set_paused(batch: &mut Batch<'_>, pool: &Pool, is_paused: bool) -> Result<(), JobStoreError> {
    let queue = batch.queue_or_new(pool)?;
    batch.execute(statements::PAUSE, (queue.row, is_paused)).map(drop)
}

fn existing(batch: &Batch<'_>, id: &JobId) -> Result<JobRow, JobStoreError> {
    batch.job_by_id(id)?.ok_or_else(|| JobStoreError::NoSuchJob { id: id.clone() })
}
