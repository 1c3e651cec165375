//! Jobs.

use serde::{Deserialize, Serialize};

use super::job_id::{JobId, Pool, token_digest};
use super::job_record::JobRecord;
use super::job_source::{ContentStamp, JobSource};
use super::job_state::JobState;
use super::order::SortKey;
use crate::upload::UploadOptions;

/// A job as it is submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobSpec {
    /// The identity of the job in its account.
    pub id: JobId,
    /// The workers that can open the source.
    pub pool: Pool,
    /// The place of the bytes.
    pub source: JobSource,
    /// The size and mtime of the file; `None` for a URL.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stamp: Option<ContentStamp>,
    /// The options of the upload. The upload token is not stored; see [`JobSpec::token_sha256`].
    pub options: UploadOptions,
    /// The SHA-256 that the file must have, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// The digest of the upload token that a worker has to provide. A worker without that token must not run the job:
    /// the job would create a video in another account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token_sha256: Option<String>,
    /// The priority. Jobs with a higher one are claimed first.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub priority: i32,
    /// The position among jobs of the same priority. Jobs with equal keys are claimed in the order of submission.
    #[serde(skip)]
    pub sort_key: SortKey,
}

/// A job and its state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Job {
    /// The job as it was submitted.
    pub spec: JobSpec,
    /// The state of the job.
    pub record: JobRecord,
    /// The last checkpoint of a worker; `None` before the first. The store does not interpret it.
    pub checkpoint: Option<String>,
}

impl JobSpec {
    /// Creates a job with priority 0 that is claimed in the order of submission.
    ///
    /// An upload token in `options` is replaced by its digest when the job is stored.
    pub fn new(
        id: JobId,
        pool: Pool,
        source: JobSource,
        stamp: Option<ContentStamp>,
        options: UploadOptions,
    ) -> JobSpec {
        let token_sha256 = options.upload_token.as_ref().map(|token| token_digest(token.reveal()));
        let (sha256, priority, sort_key) = (None, 0, SortKey::default());
        JobSpec { id, pool, source, stamp, options, sha256, token_sha256, priority, sort_key }
    }
}

impl Job {
    /// Returns the video that holds the file, or that workers have begun to fill; `None` if none is known.
    pub fn video_id(&self) -> Option<String> {
        match &self.record.state {
            JobState::Done(result) => Some(result.video_id.clone()),
            // The failure is newer than the checkpoint: it may be that the video was deleted.
            JobState::Failed(failure) => failure.video_id.clone(),
            _ => self.checkpoint_video().or_else(|| self.record.last_failure.as_ref()?.video_id.clone()),
        }
    }

    /// Returns the video that the checkpoint names.
    pub(super) fn checkpoint_video(&self) -> Option<String> {
        let checkpoint = serde_json::from_str::<serde_json::Value>(self.checkpoint.as_deref()?).ok()?;
        Some(checkpoint.get("video_id")?.as_str()?.to_owned())
    }
}

fn is_zero(priority: &i32) -> bool {
    *priority == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_token_is_stored_as_its_digest_only() {
        let upload_token = Some("to1tcmSFHeYY5KzyhOqVKMKb".into());
        let options = UploadOptions { upload_token, ..UploadOptions::default() };
        let (id, pool) = (JobId::new("1").unwrap(), Pool::new("p").unwrap());
        let source = JobSource::File { path: "/a".into() };
        let stored = serde_json::to_string(&JobSpec::new(id, pool, source, None, options)).unwrap();
        assert!(!stored.contains("to1tcmSFHeYY5KzyhOqVKMKb"), "{stored}");
        assert!(stored.contains("token_sha256"), "{stored}");
    }
}
