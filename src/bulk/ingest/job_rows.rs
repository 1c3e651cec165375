//! The rows of the report for jobs that end.

use super::event::IngestEnd;
use super::ingest_job::IngestJob;
use super::state::WorkState;
use crate::bulk::report::{ReportRow, RowState};

/// Writes a row, and ends the run if it cannot be written.
pub(super) async fn report(state: &WorkState, row: ReportRow) {
    if let Err(error) = state.report.write(row).await {
        state.end_with(IngestEnd::Report(error));
    }
}

/// Adds the size and the times of a job to its row.
pub(super) fn timed(state: &WorkState, job: &IngestJob, mut row: ReportRow) -> ReportRow {
    row.size = job.bytes();
    row.started_at = Some(job.started_at);
    row.finished_at = Some(state.time());
    row.elapsed = Some(job.started.elapsed());
    row
}

pub(super) fn cancelled_row(state: &WorkState, job: &IngestJob) -> ReportRow {
    timed(state, job, state.row(&job.job.spec.id, &job.job.spec.source, RowState::Cancelled))
}
