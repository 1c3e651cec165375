//! Reads of jobs and sums.

use super::batch::{Batch, state_number};
use super::statements;
use crate::bulk::job::Job;
use crate::bulk::job_id::{JobId, Pool};
use crate::bulk::job_state::JobStateName;
use crate::bulk::store::{Cursor, JobCount, JobPage, JobQuery, JobStoreError, LONGEST_PAGE, LONGEST_SKIP};

/// Returns the job with this id.
pub(super) fn get(batch: &mut Batch<'_>, id: &JobId) -> Result<Option<Job>, JobStoreError> {
    let Some(row) = batch.job_by_id(id)? else { return Ok(None) };
    row.into_job().map(Some).ok_or_else(|| batch.damaged())
}

/// Returns a page of jobs, oldest first.
pub(super) fn list(batch: &mut Batch<'_>, query: &JobQuery) -> Result<JobPage, JobStoreError> {
    let after: i64 = match &query.after {
        None => 0,
        Some(cursor) => cursor.as_str().parse().map_err(|_| JobStoreError::BadCursor)?,
    };
    let limit = if query.limit == 0 { LONGEST_PAGE } else { query.limit.min(LONGEST_PAGE) };
    let skip = query.skip.min(LONGEST_SKIP);
    // One more than the page has, to know that another page follows.
    let most = skip + limit + 1;
    let mut seqs = first_seqs(batch, query, after, most)?;
    seqs.drain(..skip.min(seqs.len()));
    let has_more = seqs.len() > limit;
    seqs.truncate(limit);
    let next = seqs.last().filter(|_| has_more).map(|seq| Cursor::new(seq.to_string()));
    let mut jobs = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let row = batch.job(statements::BY_SEQ, [seq])?.ok_or_else(|| batch.damaged())?;
        jobs.push(row.into_job().ok_or_else(|| batch.damaged())?);
    }
    Ok(JobPage { jobs, next })
}

/// Returns the sequence numbers of the first `most` jobs after `after` that match the query, in order.
fn first_seqs(
    batch: &mut Batch<'_>,
    query: &JobQuery,
    after: i64,
    most: usize,
) -> Result<Vec<i64>, JobStoreError> {
    let states = query.state.as_ref().map_or(&JobStateName::ALL[..], std::slice::from_ref);
    let mut seqs = Vec::new();
    // Each pair of queue and state is a range of one index. A single statement over several pairs would sort them all.
    for (queue, pool) in queues(batch)? {
        if query.pool.as_ref().is_some_and(|wanted| wanted.as_str() != pool) {
            continue;
        }
        for state in states {
            let mut statement = batch.prepare(statements::IN_STATE)?;
            let params = (queue, state_number(*state), after, most as i64);
            let rows = statement.query_map(params, |row| row.get::<_, i64>(0));
            let found: rusqlite::Result<Vec<i64>> = rows.and_then(Iterator::collect);
            seqs.extend(found.map_err(|error| batch.refused(error))?);
        }
        seqs.sort_unstable();
        seqs.truncate(most);
    }
    Ok(seqs)
}

/// Returns the sums of every pool and state.
pub(super) fn count(batch: &mut Batch<'_>) -> Result<Vec<JobCount>, JobStoreError> {
    let mut counts = Vec::new();
    for (queue, pool) in queues(batch)? {
        for state in JobStateName::ALL {
            let (jobs, bytes) = batch.counted(queue, state)?;
            if jobs > 0 {
                let pool = Pool::new(&pool).map_err(|_| batch.damaged())?;
                // A sum that reached 64 bits stayed there, and falls below 0 when its jobs leave.
                let (jobs, bytes) = (jobs.unsigned_abs(), bytes.max(0).unsigned_abs());
                counts.push(JobCount { pool, state, jobs, bytes });
            }
        }
    }
    Ok(counts)
}

fn queues(batch: &Batch<'_>) -> Result<Vec<(i64, String)>, JobStoreError> {
    let mut statement = batch.prepare(statements::QUEUES)?;
    let rows = statement.query_map([batch.account_row], |row| Ok((row.get(0)?, row.get(1)?)));
    let found: rusqlite::Result<_> = rows.and_then(Iterator::collect);
    found.map_err(|error| batch.refused(error))
}
