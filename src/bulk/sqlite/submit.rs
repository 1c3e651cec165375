//! Submission of jobs.

use super::batch::{Batch, JobRow, state_number};
use super::statements;
use crate::bulk::job::JobSpec;
use crate::bulk::job_id::content_digest;
use crate::bulk::job_record::JobRecord;
use crate::bulk::job_state::{JobState, JobStateName};
use crate::bulk::store::{JobStoreError, LONGEST_JOB, MOST_SUBMITTED, Resubmit, Submission};
use crate::bulk::unix_time::UnixMillis;

/// A job with its stored form.
#[derive(Debug)]
pub(super) struct PreparedJob {
    spec: JobSpec,
    json: String,
}

/// Serializes the jobs, on the caller's thread.
pub(super) fn prepare(jobs: Vec<JobSpec>) -> Result<Vec<PreparedJob>, JobStoreError> {
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

/// Submits one job.
pub(super) fn submit(
    batch: &mut Batch<'_>,
    job: &PreparedJob,
    resubmit: Resubmit,
    now: UnixMillis,
) -> Result<Submission, JobStoreError> {
    let spec = &job.spec;
    let content = content_digest(batch.account, &spec.pool, &spec.source, spec.stamp);
    let Some(mut row) = batch.job_by_id(&spec.id)? else {
        insert(batch, job, &content, now)?;
        return Ok(Submission::New);
    };
    let state = row.record.state.clone();
    let is_same = row.content == content;
    if resubmit == Resubmit::Anew && !row.record.is_held(now) {
        begin_anew(batch, row, job, &content, now)?;
        return Ok(Submission::Requeued(state));
    }
    if !is_same {
        return Ok(Submission::Conflict(state));
    }
    let is_changed = row.spec != job.json || !row.has_key(&spec.sort_key);
    // A running worker has read the options already, and a job that is done needs none.
    if is_changed && !matches!(state, JobState::Running { .. } | JobState::Done(_)) {
        set_spec(batch, &row, job, &content)?;
    }
    let may_retry = !matches!(state, JobState::Done(_)) && resubmit == Resubmit::RetryFailed;
    if may_retry && row.record.requeue() {
        batch.write(&mut row)?;
        return Ok(Submission::Requeued(state));
    }
    // A user who repeats a command has removed the cause of a failure, or wants to see that it remains.
    if row.record.hasten(now) {
        batch.write(&mut row)?;
    }
    Ok(Submission::Same(state))
}

fn insert(
    batch: &mut Batch<'_>,
    job: &PreparedJob,
    content: &[u8],
    now: UnixMillis,
) -> Result<(), JobStoreError> {
    let (spec, size) = (&job.spec, size(&job.spec));
    let queue = batch.queue_or_new(&spec.pool)?.row;
    let record = batch.json(&JobRecord::new(now))?;
    let key = spec.sort_key.as_bytes();
    let account = batch.account_row;
    batch.execute(
        statements::INSERT,
        (account, spec.id.as_str(), queue, spec.priority, key, size, content, &job.json, record),
    )?;
    batch.count(queue, state_number(JobStateName::Queued), 1, size);
    Ok(())
}

/// Queues the job from its beginning. The epoch goes on, so that a worker of the former content stays excluded.
fn begin_anew(
    batch: &mut Batch<'_>,
    mut row: JobRow,
    job: &PreparedJob,
    content: &[u8],
    now: UnixMillis,
) -> Result<(), JobStoreError> {
    let (epoch, owner) = (row.record.epoch, row.record.owner.take());
    row.record = JobRecord { epoch, owner, ..JobRecord::new(now) };
    batch.write(&mut row)?;
    batch.execute(statements::SET_CHECKPOINT, (row.seq, None::<String>))?;
    set_spec(batch, &row, job, content)
}

/// Replaces the submitted part of a job.
fn set_spec(
    batch: &mut Batch<'_>,
    row: &JobRow,
    job: &PreparedJob,
    content: &[u8],
) -> Result<(), JobStoreError> {
    let (spec, size) = (&job.spec, size(&job.spec));
    let queue = batch.queue_or_new(&spec.pool)?.row;
    batch.execute(
        statements::SET_SPEC,
        (row.seq, queue, spec.priority, spec.sort_key.as_bytes(), size, content, &job.json),
    )?;
    batch.discount(row);
    batch.count(queue, state_number(row.record.state.name()), 1, size);
    Ok(())
}

fn size(spec: &JobSpec) -> i64 {
    spec.stamp.map_or(0, |stamp| i64::try_from(stamp.size).unwrap_or(i64::MAX))
}
