//! Inputs that give no job.

use super::planner::PlannedJob;
use crate::bulk::entry::ManifestSource;
use crate::bulk::job_source::JobSource;
use crate::bulk::job_state::JobFailure;

/// A file or a line of the inputs that gives no job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InputFailure {
    /// The id that a manifest gives.
    pub id: Option<String>,
    /// The file or the URL; `None` if a line could not be read.
    pub source: Option<ManifestSource>,
    /// The failure. Its text names the line or the file.
    pub failure: JobFailure,
    /// `true` for a row of an earlier report.
    pub(super) is_reported: bool,
}

impl InputFailure {
    pub(super) fn new(
        id: Option<String>,
        source: Option<ManifestSource>,
        failure: JobFailure,
    ) -> Box<InputFailure> {
        Box::new(InputFailure { id, source, failure, is_reported: false })
    }

    /// Returns the failure of a planned job that is not submitted.
    pub(super) fn of_job(job: &PlannedJob, failure: JobFailure) -> Box<InputFailure> {
        let source = match &job.spec.source {
            JobSource::File { path } => ManifestSource::Path(path.clone()),
            JobSource::Url { url } => ManifestSource::Url(url.clone()),
        };
        let failure = InputFailure::new(Some(job.spec.id.as_str().to_owned()), Some(source), failure);
        match &job.place {
            Some(place) => place.name_in(failure),
            None => failure,
        }
    }

    /// Returns the failure of a report's row whose job the queue does not know.
    pub(super) fn unknown_row(job: &PlannedJob) -> Box<InputFailure> {
        let message = format!(
            "job id {}: is not in the queue, and a report has no title, visibility or other metadata; run the command \
             with the folder or the manifest again",
            job.spec.id
        );
        let failure = InputFailure::of_job(job, JobFailure::permanent("unknown_job", message));
        Box::new(InputFailure { is_reported: true, ..*failure })
    }
}
