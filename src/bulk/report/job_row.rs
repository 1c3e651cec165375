//! The row of a job in a store.

use std::time::SystemTime;

use super::row::ReportRow;
use super::state::RowState;
use crate::bulk::entry::ManifestSource;
use crate::bulk::job::Job;
use crate::bulk::job_id::OwnerId;
use crate::bulk::job_state::{JobFailure, JobState};

impl ReportRow {
    /// Returns the row of a job that has ended, and `None` for an open job.
    ///
    /// The store keeps the time of the first claim, so that the row's duration includes the pauses between attempts.
    pub fn of_job(job: &Job) -> Option<ReportRow> {
        let (spec, record) = (&job.spec, &job.record);
        let state = match record.state {
            JobState::Done(_) => RowState::Done,
            JobState::Failed(_) => RowState::Failed,
            JobState::Skipped { .. } => RowState::Skipped,
            JobState::Cancelled => RowState::Cancelled,
            JobState::Queued { .. } | JobState::Running { .. } => return None,
        };
        let mut row = ReportRow::new(spec.id.as_str(), Some(ManifestSource::from(&spec.source)), state);
        row.size = spec.stamp.map(|stamp| stamp.size);
        row.started_at = record.started_at.map(SystemTime::from);
        row.finished_at = record.finished_at.map(SystemTime::from);
        row.elapsed = record.started_at.zip(record.finished_at).map(|(start, end)| start.distance(end));
        row.host = record.owner.as_ref().map(OwnerId::host).unwrap_or_default().to_owned();
        match &record.state {
            JobState::Done(result) => {
                row.video_id = Some(result.video_id.clone());
                (row.bytes, row.resent_bytes) = (result.bytes, result.resent_bytes);
                (row.chunks, row.retries) = (result.chunks, result.retries);
            }
            JobState::Failed(failure) => row = row.with_failure(failure),
            JobState::Skipped { reason } => row.message = Some(reason.clone()),
            // A user has to find the video that the upload left.
            _ => row.video_id = job.video_id(),
        }
        Some(row)
    }

    /// Adds a failure. A video that the row has stays.
    pub fn with_failure(mut self, failure: &JobFailure) -> ReportRow {
        self.error_kind = Some(failure.kind.clone());
        self.error_slug.clone_from(&failure.slug);
        self.http_status = failure.http_status;
        self.message = Some(failure.message.clone());
        self.advice.clone_from(&failure.advice);
        self.video_id = self.video_id.or(failure.video_id.clone());
        self
    }
}
