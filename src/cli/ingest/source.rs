//! The names of jobs for people and programs.

use std::borrow::Cow;

use ringlift::bulk::JobSource;

/// Returns the path or the URL of a job as text.
pub(in crate::cli) fn source_name(source: &JobSource) -> Cow<'_, str> {
    match source {
        JobSource::File { path } => path.to_string_lossy(),
        JobSource::Url { url } => url.into(),
        _ => Cow::Borrowed(""),
    }
}
