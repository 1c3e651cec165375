//! Inputs that give no job.

use crate::bulk::entry::ManifestSource;
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
}
