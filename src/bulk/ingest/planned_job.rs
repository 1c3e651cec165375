//! The jobs that inputs give, before their submission.

use std::sync::Arc;

use super::input_failure::InputFailure;
use crate::bulk::entry::ManifestSource;
use crate::bulk::file_stamp::FileStamp;
use crate::bulk::job::JobSpec;
use crate::bulk::job_state::JobFailure;

/// A job of the inputs that is not submitted yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedJob {
    /// The job.
    pub spec: JobSpec,
    /// The file as it was found; `None` for a URL.
    pub stamp: Option<FileStamp>,
    /// `true` for a row of an earlier report, which has no metadata.
    pub is_reported: bool,
    /// The line of a manifest that gives the job.
    pub(super) place: Option<LinePlace>,
}

/// A line of a manifest.
#[derive(Clone, Debug)]
pub(super) struct LinePlace {
    pub(super) manifest: Arc<str>,
    pub(super) line: u64,
}

impl PlannedJob {
    /// Returns the failure of the job before its submission.
    pub(super) fn failed(&self, failure: JobFailure) -> Box<InputFailure> {
        let failure = InputFailure::new(
            Some(self.spec.id.as_str().to_owned()),
            Some(ManifestSource::from(&self.spec.source)),
            failure,
        );
        match &self.place {
            Some(place) => place.name_in(failure),
            None => failure,
        }
    }

    /// Returns the failure of a report's row whose job the queue does not know.
    pub(super) fn unknown_row(&self) -> Box<InputFailure> {
        let message = format!(
            "job id {}: is not in the queue, and a report has no title, visibility or other metadata; run the command \
             with the folder or the manifest again",
            self.spec.id
        );
        let failure = self.failed(JobFailure::permanent("unknown_job", message));
        Box::new(InputFailure { is_reported: true, ..*failure })
    }
}

impl LinePlace {
    /// Names the line in the text of a failure.
    pub(super) fn name_in(&self, mut failure: Box<InputFailure>) -> Box<InputFailure> {
        let LinePlace { manifest, line } = self;
        failure.failure.message = format!("{manifest}:{line}: {}", failure.failure.message);
        failure
    }
}
