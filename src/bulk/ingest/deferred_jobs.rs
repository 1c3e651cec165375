//! The jobs that wait for another attempt, and the rows of the report for those that still wait at the end of the run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::event::IngestEvent;
use super::finish;
use super::ingest_job::IngestJob;
use super::state::{WorkState, with_failure};
use crate::bulk::job_id::JobId;
use crate::bulk::job_state::{JobFailure, JobState};
use crate::bulk::report::{ReportRow, RowState};

/// The rows of the jobs that wait for another attempt, each until the run begins its job again.
#[derive(Debug, Default)]
pub(super) struct DeferredRows(HashMap<JobId, ReportRow>);

impl DeferredRows {
    /// Keeps the row of a job. Returns the row if [`MOST_ROWS`] others are kept.
    fn keep(&mut self, id: &JobId, row: ReportRow) -> Option<ReportRow> {
        if self.0.len() >= MOST_ROWS && !self.0.contains_key(id) {
            return Some(row);
        }
        self.0.insert(id.clone(), row);
        None
    }

    /// Removes the row of a job that begins again: the row of its next end takes its place.
    pub(super) fn remove(&mut self, id: &JobId) {
        self.0.remove(id);
    }
}

/// Reports a job that the store has returned to the queue after a failure, and keeps the row for the end of the run.
pub(super) async fn defer(state: &WorkState, job: &Arc<IngestJob>, failure: JobFailure, delay: Duration) {
    let id = job.job.spec.id.clone();
    // A message may be as long as an answer of the service, and many rows are kept.
    let failure = failure.bounded();
    let row = finish::timed(state, job, state.row(&id, &job.job.spec.source, RowState::Failed));
    // Before the place is free: the next claim may take this job, which removes the row.
    let excess = state.deferred().keep(&id, with_failure(row, &failure));
    state.finish(&id);
    state.emit(IngestEvent::Deferred { job: job.clone(), failure, delay }).await;
    if let Some(row) = excess {
        write(state, id, row).await;
    }
}

/// Writes the rows of the jobs that have had no other end in this run.
pub(super) async fn report_deferred(state: &WorkState) {
    let rows = std::mem::take(&mut *state.deferred()).0;
    // A store that is away may take seconds for each answer.
    let is_answering = AtomicBool::new(!state.cannot_record());
    // At the same time, so that the rows share a flush of the disk.
    let written = stream::iter(rows).for_each_concurrent(MOST_AT_ONCE, |(id, row)| {
        let is_answering = &is_answering;
        async move {
            if let Some(row) = current_row(state, &id, row, is_answering).await {
                write(state, id, row).await;
            }
        }
    });
    written.await;
}

/// Returns the row of a job as its record is now; `None` if another worker has the job or has ended it, and writes
/// the row.
async fn current_row(
    state: &WorkState,
    id: &JobId,
    row: ReportRow,
    is_answering: &AtomicBool,
) -> Option<ReportRow> {
    if !is_answering.load(Ordering::Relaxed) {
        return Some(row);
    }
    match state.store.get(id).await {
        Ok(Some(job)) => match job.record.state {
            JobState::Queued { .. } => Some(row),
            JobState::Cancelled => Some(ReportRow { state: RowState::Cancelled, ..row }),
            JobState::Running { .. } | JobState::Done(_) | JobState::Failed(_) | JobState::Skipped { .. } => {
                None
            }
        },
        // The failure is all that is left of a job that a user has removed.
        Ok(None) => Some(row),
        Err(_) => {
            is_answering.store(false, Ordering::Relaxed);
            Some(row)
        }
    }
}

async fn write(state: &WorkState, id: JobId, row: ReportRow) {
    let row_state = row.state;
    finish::report(state, row).await;
    state.emit(IngestEvent::LeftOpen { id, state: row_state }).await;
}

/// The most rows that are kept, of about 1 KiB. The row of a further job is written at once, although the job may end
/// later in the run.
const MOST_ROWS: usize = 1 << 16;

/// The rows that are written at the same time.
const MOST_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_has_no_place_is_returned_and_a_job_that_has_one_keeps_it() {
        let mut rows = DeferredRows::default();
        let id = |number: usize| JobId::new(&number.to_string()).unwrap();
        let row = |number: usize| ReportRow::new(number.to_string(), None, RowState::Failed);
        assert!((0..MOST_ROWS).all(|number| rows.keep(&id(number), row(number)).is_none()));
        assert!(rows.keep(&id(MOST_ROWS), row(MOST_ROWS)).is_some());
        assert!(rows.keep(&id(7), row(7)).is_none());
        rows.remove(&id(7));
        assert!(rows.keep(&id(MOST_ROWS), row(MOST_ROWS)).is_none());
    }
}
