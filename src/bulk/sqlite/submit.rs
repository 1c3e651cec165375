//! Submission of jobs.

use super::batch::{Batch, JobRow, state_number};
use super::statements;
use crate::bulk::job::JobSpec;
use crate::bulk::job_id::content_digest;
use crate::bulk::job_record::JobRecord;
use crate::bulk::job_state::JobStateName;
use crate::bulk::store::{JobStoreError, Resubmit, Submission};
use crate::bulk::submission::{PreparedJob, resubmit};
use crate::bulk::unix_time::UnixMillis;

/// Submits one job.
pub(super) fn submit(
    batch: &mut Batch<'_>,
    job: &PreparedJob,
    how: Resubmit,
    now: UnixMillis,
) -> Result<Submission, JobStoreError> {
    let spec = &job.spec;
    let content = content_digest(batch.account, &spec.pool, &spec.source, spec.stamp);
    let Some(mut row) = batch.job_by_id(&spec.id)? else {
        insert(batch, job, &content, now)?;
        return Ok(Submission::New);
    };
    let is_same = row.content == content;
    // The sort key is a column, and no part of the JSON.
    let is_changed = row.spec != job.json || !row.has_key(&spec.sort_key);
    let before = row.record.clone();
    let outcome = resubmit(&mut row.record, is_same, how, now);
    // A folder is submitted whole with every run: a job that stays as it is must cost no write.
    if row.record != before {
        batch.write(&mut row)?;
    }
    if outcome.drops_checkpoint {
        batch.execute(statements::SET_CHECKPOINT, (row.seq, None::<String>))?;
    }
    if outcome.replaces_spec && is_changed {
        set_spec(batch, &row, job, &content)?;
    }
    Ok(outcome.submission)
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
    // `row` still has the queue and the size from before the change.
    batch.discount(row);
    batch.count(queue, state_number(row.record.state.name()), 1, size);
    Ok(())
}

fn size(spec: &JobSpec) -> i64 {
    spec.stamp.map_or(0, |stamp| i64::try_from(stamp.size).unwrap_or(i64::MAX))
}
