//! The transitions of stored jobs: pure functions of the record, the request and the time.
//!
//! The caller reads a record, applies a transition, and writes the result on the condition that the record is still the
//! one that was read. A refused write is repeated from the start. The rules of leases and submissions are those of every
//! store (`crate::bulk::lease`, `crate::bulk::submission`).

#[cfg(test)]
mod tests;

use super::record::StoredJob;
use crate::bulk::submission::{PreparedJob, resubmit};
use crate::bulk::{
    JobCheckpoint, JobEnd, JobId, JobRecord, JobState, JobStoreError, Lease, LostLease, Resubmit, Submission,
    UnixMillis,
};

/// The write that a transition requires, and the answer to the request once the write has succeeded.
#[derive(Debug)]
pub(super) enum Transition<T> {
    Keep(T),
    Write(Box<StoredJob>, T),
    Delete(T),
}

/// Submits a job, of which the store may have a record.
pub(super) fn submit(
    found: Option<StoredJob>,
    job: &PreparedJob,
    content: &str,
    how: Resubmit,
    now: UnixMillis,
) -> Transition<Submission> {
    let new = StoredJob::new(job, content, now);
    let Some(mut stored) = found else { return Transition::Write(Box::new(new), Submission::New) };
    let before = stored.record.clone();
    let outcome = resubmit(&mut stored.record, stored.content == content, how, now);
    let is_changed = stored.sort_key != new.sort_key
        || serde_json::to_string(&stored.spec).is_ok_and(|json| json != job.json);
    let replaces_spec = outcome.replaces_spec && is_changed;
    if stored.record == before && !replaces_spec {
        return Transition::Keep(outcome.submission);
    }
    if replaces_spec {
        (stored.spec, stored.sort_key, stored.content) = (new.spec, new.sort_key, new.content);
    }
    if outcome.drops_checkpoint {
        stored.checkpoint = None;
    }
    Transition::Write(Box::new(stored), outcome.submission)
}

/// Applies a rule to the record of a leased job, and returns the new state.
pub(super) fn held(
    found: Option<StoredJob>,
    lease: &Lease,
    rule: impl FnOnce(&mut JobRecord) -> Result<(), LostLease>,
) -> Result<Transition<JobState>, JobStoreError> {
    let lost = |reason| JobStoreError::LeaseLost { id: lease.id.clone(), reason };
    let mut stored = found.ok_or_else(|| lost(LostLease::Forgotten))?;
    let before = stored.record.clone();
    rule(&mut stored.record).map_err(lost)?;
    let state = stored.record.state.clone();
    Ok(if stored.record == before {
        Transition::Keep(state)
    } else {
        Transition::Write(Box::new(stored), state)
    })
}

/// Ends a job, and returns the videos that are recorded beside its own.
pub(super) fn finish(
    found: Option<StoredJob>,
    lease: &Lease,
    end: &JobEnd,
    now: UnixMillis,
) -> Result<Transition<Vec<String>>, JobStoreError> {
    let orphans = found.as_ref().map(|stored| stored.record.orphans.clone()).unwrap_or_default();
    Ok(match held(found, lease, |record| record.finish(lease, end.clone(), now).map(drop))? {
        Transition::Keep(_) => Transition::Keep(orphans),
        Transition::Write(stored, _) => Transition::Write(stored, orphans),
        Transition::Delete(_) => Transition::Delete(orphans),
    })
}

/// Records a checkpoint.
pub(super) fn checkpoint(
    found: Option<StoredJob>,
    lease: &Lease,
    checkpoint: &JobCheckpoint,
    now: UnixMillis,
) -> Result<Transition<JobState>, JobStoreError> {
    let mut is_newer = false;
    let step = held(found, lease, |record| {
        is_newer = record.checkpoint(lease, checkpoint.number, checkpoint.acknowledged_bytes, now)?;
        Ok(())
    })?;
    Ok(match step {
        Transition::Write(mut stored, state) if is_newer => {
            stored.checkpoint = Some(checkpoint.content.clone());
            Transition::Write(stored, state)
        }
        step => step,
    })
}

/// Cancels an open job, and returns the state that it had.
pub(super) fn cancel(
    found: Option<StoredJob>,
    id: &JobId,
    now: UnixMillis,
) -> Result<Transition<JobState>, JobStoreError> {
    let mut stored = found.ok_or_else(|| JobStoreError::NoSuchJob { id: id.clone() })?;
    let state = stored.record.state.clone();
    Ok(if stored.record.cancel(now) {
        Transition::Write(Box::new(stored), state)
    } else {
        Transition::Keep(state)
    })
}

/// Queues a failed, skipped or cancelled job, and returns the state that it had.
pub(super) fn retry(found: Option<StoredJob>, id: &JobId) -> Result<Transition<JobState>, JobStoreError> {
    let mut stored = found.ok_or_else(|| JobStoreError::NoSuchJob { id: id.clone() })?;
    let state = stored.record.state.clone();
    let is_requeued = !matches!(state, JobState::Done(_)) && stored.record.requeue();
    Ok(if is_requeued { Transition::Write(Box::new(stored), state) } else { Transition::Keep(state) })
}

/// Records videos beside the one of a job, and removes those that are gone.
pub(super) fn note_orphans(found: Option<StoredJob>, new: &[String], gone: &[String]) -> Transition<()> {
    let Some(mut stored) = found else { return Transition::Keep(()) };
    let before = stored.record.orphans.clone();
    stored.record.note_orphans(new, gone);
    if stored.record.orphans == before {
        Transition::Keep(())
    } else {
        Transition::Write(Box::new(stored), ())
    }
}

/// Deletes a job that no worker holds.
pub(super) fn forget(
    found: Option<StoredJob>,
    id: &JobId,
    now: UnixMillis,
) -> Result<Transition<bool>, JobStoreError> {
    match found {
        None => Ok(Transition::Keep(false)),
        Some(stored) if stored.record.is_held(now) => Err(JobStoreError::Held { id: id.clone() }),
        Some(_) => Ok(Transition::Delete(true)),
    }
}
