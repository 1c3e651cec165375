//! The rules of submission, which are the same for every store.

use super::job::JobSpec;
use super::job_record::JobRecord;
use super::job_state::JobState;
use super::store::{JobStoreError, LONGEST_JOB, MOST_SUBMITTED, Resubmit, Submission};
use super::unix_time::UnixMillis;

/// A job with its stored form.
#[derive(Debug)]
pub(crate) struct PreparedJob {
    pub(crate) spec: JobSpec,
    pub(crate) json: String,
}

/// The effect of a submission on a job that the store has already.
#[derive(Debug)]
pub(crate) struct Resubmitted {
    /// The answer.
    pub(crate) submission: Submission,
    /// `true` if the submitted content and options replace the stored ones.
    pub(crate) replaces_spec: bool,
    /// `true` if the upload begins anew.
    pub(crate) drops_checkpoint: bool,
}

/// Serializes the jobs, on the caller's thread.
pub(crate) fn prepare(jobs: Vec<JobSpec>) -> Result<Vec<PreparedJob>, JobStoreError> {
    let too_large = |what: String, len, limit| Err(JobStoreError::TooLarge { what, len, limit });
    if jobs.len() > MOST_SUBMITTED {
        return too_large("the jobs of one submission are".to_owned(), jobs.len(), MOST_SUBMITTED);
    }
    let mut prepared = Vec::with_capacity(jobs.len());
    for spec in jobs {
        // Nothing in a job fails to serialize: its maps have text as keys.
        let json = serde_json::to_string(&spec).unwrap_or_default();
        if json.len() > LONGEST_JOB {
            return too_large(format!("the bytes of job {} are", spec.id), json.len(), LONGEST_JOB);
        }
        prepared.push(PreparedJob { spec, json });
    }
    Ok(prepared)
}

/// Applies a submission to the record of a job. `is_same` is `true` if the submitted content is the stored one.
pub(crate) fn resubmit(
    record: &mut JobRecord,
    is_same: bool,
    resubmit: Resubmit,
    now: UnixMillis,
) -> Resubmitted {
    let state = record.state.clone();
    if resubmit == Resubmit::Anew && !record.is_held(now) {
        // The epoch goes on, so that a worker of the former content stays excluded.
        let (epoch, owner, restarts) = (record.epoch, record.owner.take(), record.restarts + 1);
        *record = JobRecord { epoch, owner, restarts, ..JobRecord::new(now) };
        let submission = Submission::Requeued(state);
        return Resubmitted { submission, replaces_spec: true, drops_checkpoint: true };
    }
    if !is_same {
        let submission = Submission::Conflict(state);
        return Resubmitted { submission, replaces_spec: false, drops_checkpoint: false };
    }
    // A running worker has read the options already, and a job that is done needs none.
    let replaces_spec = !matches!(state, JobState::Running { .. } | JobState::Done(_));
    let may_retry = !matches!(state, JobState::Done(_)) && resubmit == Resubmit::RetryFailed;
    let is_requeued = may_retry && record.requeue();
    if !is_requeued {
        // A user who repeats a command has removed the cause of a failure, or wants to see that it remains.
        record.hasten(now);
    }
    let submission = if is_requeued { Submission::Requeued(state) } else { Submission::Same(state) };
    Resubmitted { submission, replaces_spec, drops_checkpoint: false }
}
