//! The jobs that wait for another attempt, and their end in the report if they still wait at the end of the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::event::IngestEvent;
use super::ingest_job::IngestJob;
use super::job_rows::{report, timed};
use super::state::{WorkState, with_failure};
use crate::bulk::job_id::JobId;
use crate::bulk::job_state::{JobFailure, JobState};
use crate::bulk::report::{ReportRow, RowState};

/// Reports a job that the store has returned to the queue after a failure, and keeps the row for the end of the run.
pub(super) async fn defer(state: &WorkState, job: &Arc<IngestJob>, failure: JobFailure, delay: Duration) {
    let id = job.job.spec.id.clone();
    // A message may be as long as an answer of the service, and many rows are kept.
    let failure = failure.bounded();
    let row = timed(state, job, state.row(&id, &job.job.spec.source, RowState::Failed));
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
    let rows = state.deferred().take();
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
    report(state, row).await;
    state.emit(IngestEvent::LeftOpen { id, state: row_state }).await;
}

/// The rows that are written at the same time.
const MOST_AT_ONCE: usize = 64;
