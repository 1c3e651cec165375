//! Claims of jobs.

use super::batch::{Batch, JobQueue, JobRow, state_number};
use super::statements;
use crate::bulk::job_id::{OwnerId, Pool};
use crate::bulk::job_state::JobStateName;
use crate::bulk::lease::{ClaimStep, LONGEST_DELAY};
use crate::bulk::store::{ClaimAnswer, ClaimedJob, JobStoreError};
use crate::bulk::unix_time::UnixMillis;

/// Claims the next job of the pool.
pub(super) fn claim(
    batch: &mut Batch<'_>,
    pool: &Pool,
    owner: &OwnerId,
    now: UnixMillis,
) -> Result<ClaimAnswer, JobStoreError> {
    let Some(queue) = batch.queue(pool)? else { return Ok(ClaimAnswer::Drained) };
    if queue.is_paused {
        return Ok(ClaimAnswer::Paused);
    }
    // The lock has to exist before the first row that names its owner.
    batch.owners.lock(owner);
    end_waits(batch, queue, now)?;
    if let Some(answer) = claim_due(batch, queue, owner, now)? {
        return Ok(answer);
    }
    if batch.owners.may_look()
        && release_dead_owners(batch, queue, now)?
        && let Some(answer) = claim_due(batch, queue, owner, now)?
    {
        return Ok(answer);
    }
    nothing_ready(batch, queue, now)
}

/// Claims the next job of the pool, and the ready ones after it whose files have 1 to `longest` bytes, up to `most` jobs.
pub(super) fn claim_several(
    batch: &mut Batch<'_>,
    pool: &Pool,
    owner: &OwnerId,
    now: UnixMillis,
    most: usize,
    longest: u64,
) -> Result<Vec<ClaimAnswer>, JobStoreError> {
    let mut answers = vec![claim(batch, pool, owner, now)?];
    let Some(queue) = batch.queue(pool)? else { return Ok(answers) };
    // Without a first job no other one is ready either.
    if !matches!(&answers[..], [ClaimAnswer::Claimed(first)] if first.job.record.lost_workers == 0) {
        return Ok(answers);
    }
    while answers.len() < most {
        // Jobs whose leases have run out come first, with the next claim.
        let Some(row) = batch.job(statements::NEXT_READY, [queue.row])? else { break };
        if !row.is_file_of(longest) || row.record.is_claimed_alone() {
            break;
        }
        if let Some(claimed) = claim_row(batch, row, owner, now)? {
            answers.push(claimed);
        }
    }
    Ok(answers)
}

/// Claims the next job that is due; `None` if there is none.
fn claim_due(
    batch: &mut Batch<'_>,
    queue: JobQueue,
    owner: &OwnerId,
    now: UnixMillis,
) -> Result<Option<ClaimAnswer>, JobStoreError> {
    // Ends, as each round claims or fails one job.
    while let Some(row) = next_due(batch, queue, now)? {
        if let Some(claimed) = claim_row(batch, row, owner, now)? {
            return Ok(Some(claimed));
        }
    }
    Ok(None)
}

/// Claims a job that is due. Returns `None` if too many workers vanished with the job, which has failed then.
fn claim_row(
    batch: &mut Batch<'_>,
    mut row: JobRow,
    owner: &OwnerId,
    now: UnixMillis,
) -> Result<Option<ClaimAnswer>, JobStoreError> {
    let step = row.record.claim(owner, now, batch.lease);
    batch.write(&mut row)?;
    if step != ClaimStep::Claimed {
        return Ok(None);
    }
    let job = row.into_job().ok_or_else(|| batch.damaged())?;
    let lease = job.record.lease(&job.spec.id).ok_or_else(|| batch.damaged())?;
    Ok(Some(ClaimAnswer::Claimed(Box::new(ClaimedJob { job, lease }))))
}

/// Returns the next job that is due: one whose lease has run out, or the first of the queue.
fn next_due(batch: &Batch<'_>, queue: JobQueue, now: UnixMillis) -> Result<Option<JobRow>, JobStoreError> {
    let length = batch.lease.as_millis() as i64;
    let now_ms = i64::try_from(now.get()).unwrap_or(i64::MAX);
    let bounds = [
        (statements::RUN_OUT, now_ms.saturating_sub(length)),
        (statements::FROM_THE_FUTURE, now_ms.saturating_add(length)),
    ];
    // The bounds assume the store's lease; the record has its own, and decides.
    for (sql, bound) in bounds {
        if let Some(row) = batch.job(sql, (queue.row, bound))?.filter(|row| row.record.is_due(now)) {
            return Ok(Some(row));
        }
    }
    batch.job(statements::NEXT_READY, [queue.row])
}

/// Makes jobs ready whose wait is over.
fn end_waits(batch: &mut Batch<'_>, queue: JobQueue, now: UnixMillis) -> Result<(), JobStoreError> {
    let to_i64 = |time: UnixMillis| i64::try_from(time.get()).unwrap_or(i64::MAX);
    let Some(first) = first_due(batch, queue, JobStateName::Queued)? else { return Ok(()) };
    // A write for nothing would dirty a page with every claim.
    if first <= now || first > now.plus(LONGEST_DELAY) {
        batch.execute(statements::END_WAITS, (queue.row, to_i64(now), to_i64(now.plus(LONGEST_DELAY))))?;
    }
    Ok(())
}

/// Requeues the jobs of workers of this host that have ended. Returns `true` if there was one.
fn release_dead_owners(
    batch: &mut Batch<'_>,
    queue: JobQueue,
    now: UnixMillis,
) -> Result<bool, JobStoreError> {
    // Read to the end first: a query whose rows change under it may return some twice or not at all
    // (<https://www.sqlite.org/isolation.html>).
    let running = {
        let mut statement = batch.prepare(statements::IN_STATE)?;
        let state = state_number(JobStateName::Running);
        let rows = statement.query_map((queue.row, state, 0, MOST_RUNNING), |row| row.get::<_, i64>(0));
        let seqs: rusqlite::Result<Vec<i64>> = rows.and_then(Iterator::collect);
        seqs.map_err(|error| batch.refused(error))?
    };
    let mut has_released = false;
    for seq in running {
        let Some(mut row) = batch.job(statements::BY_SEQ, [seq])? else { continue };
        if row.record.owner.as_ref().is_some_and(|owner| batch.owners.is_dead(owner)) {
            row.record.lose_worker(now);
            batch.write(&mut row)?;
            has_released = true;
        }
    }
    Ok(has_released)
}

fn nothing_ready(batch: &Batch<'_>, queue: JobQueue, now: UnixMillis) -> Result<ClaimAnswer, JobStoreError> {
    let open = [JobStateName::Queued, JobStateName::Running];
    let mut jobs = 0;
    for state in open {
        jobs += batch.counted(queue.row, state)?.0;
    }
    if jobs <= 0 {
        return Ok(ClaimAnswer::Drained);
    }
    let waiting = first_due(batch, queue, JobStateName::Queued)?;
    let leased = first_due(batch, queue, JobStateName::Running)?.map(|heartbeat| heartbeat.plus(batch.lease));
    let next = [waiting, leased].into_iter().flatten().min().unwrap_or(now);
    Ok(ClaimAnswer::NoneReady { next_at: next.max(now) })
}

fn first_due(
    batch: &Batch<'_>,
    queue: JobQueue,
    state: JobStateName,
) -> Result<Option<UnixMillis>, JobStoreError> {
    let found: Option<Option<i64>> =
        batch.first(statements::FIRST_DUE, (queue.row, state_number(state)), |row| row.get(0))?;
    Ok(found.flatten().map(|millis| UnixMillis::new(millis.unsigned_abs())))
}

/// The most running jobs that are looked at for dead workers, more than one host runs at a time.
const MOST_RUNNING: i64 = 10_000;
