//! States and results of jobs.

use serde::{Deserialize, Serialize};

use super::unix_time::UnixMillis;
use crate::error::Error;
use crate::session::event::FailureSummary;

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// The job waits for a worker.
    Queued {
        /// The time before which no worker takes the job; 0 for at once.
        not_before: UnixMillis,
    },
    /// A worker holds the job. The record names the worker and the epoch.
    Running {
        /// The time of the claim or of the last renewal.
        heartbeat: UnixMillis,
        /// The length of the lease in milliseconds.
        lease_ms: u64,
    },
    /// The service has confirmed the video.
    Done(JobResult),
    /// The job failed, and no worker takes it until it is retried.
    Failed(JobFailure),
    /// The job needed no upload.
    Skipped {
        /// The reason, for a person.
        reason: String,
    },
    /// A user cancelled the job.
    Cancelled,
}

/// The name of a job's state, to select and to count jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum JobStateName {
    /// [`JobState::Queued`].
    Queued,
    /// [`JobState::Running`].
    Running,
    /// [`JobState::Done`].
    Done,
    /// [`JobState::Failed`].
    Failed,
    /// [`JobState::Skipped`].
    Skipped,
    /// [`JobState::Cancelled`].
    Cancelled,
}

/// The result of a job that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobResult {
    /// The video that holds the file.
    pub video_id: String,
    /// The length of the file.
    pub bytes: u64,
    /// The bytes that were sent again after failures.
    pub resent_bytes: u64,
    /// The number of chunks.
    pub chunks: u32,
    /// The attempts that were repetitions.
    pub retries: u32,
}

/// The failure of a job, as reports show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobFailure {
    /// The stable name of the kind of failure, such as `no_such_file`.
    pub kind: String,
    /// The text for a person, on one line.
    pub message: String,
    /// Advice for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The HTTP status of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The stable name of the service's problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// The video that the job had begun to fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_id: Option<String>,
    /// `true` if another attempt cannot succeed without a change.
    pub permanent: bool,
}

/// The end of a job that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobEnd {
    /// The service has confirmed the video.
    Done(JobResult),
    /// The job needs no upload.
    Skipped {
        /// The reason, for a person.
        reason: String,
    },
}

impl JobState {
    /// Returns the name of the state.
    pub fn name(&self) -> JobStateName {
        match self {
            JobState::Queued { .. } => JobStateName::Queued,
            JobState::Running { .. } => JobStateName::Running,
            JobState::Done(_) => JobStateName::Done,
            JobState::Failed(_) => JobStateName::Failed,
            JobState::Skipped { .. } => JobStateName::Skipped,
            JobState::Cancelled => JobStateName::Cancelled,
        }
    }

    /// Returns `true` if a worker holds the job or may still take it.
    pub fn is_open(&self) -> bool {
        matches!(self, JobState::Queued { .. } | JobState::Running { .. })
    }
}

impl JobStateName {
    /// Every state.
    pub const ALL: [JobStateName; 6] = [
        JobStateName::Queued,
        JobStateName::Running,
        JobStateName::Done,
        JobStateName::Failed,
        JobStateName::Skipped,
        JobStateName::Cancelled,
    ];

    /// Returns the name in reports and machine-readable output, such as `done`.
    pub fn as_str(self) -> &'static str {
        match self {
            JobStateName::Queued => "queued",
            JobStateName::Running => "running",
            JobStateName::Done => "done",
            JobStateName::Failed => "failed",
            JobStateName::Skipped => "skipped",
            JobStateName::Cancelled => "cancelled",
        }
    }
}

impl JobResult {
    /// Creates the result of a job whose `bytes` are in `video_id`.
    pub fn new(video_id: impl Into<String>, bytes: u64) -> JobResult {
        JobResult { video_id: video_id.into(), bytes, ..JobResult::default() }
    }
}

impl JobFailure {
    /// Creates a failure that another attempt may overcome.
    pub fn temporary(kind: impl Into<String>, message: impl Into<String>) -> JobFailure {
        JobFailure { kind: kind.into(), message: message.into(), ..JobFailure::default() }
    }

    /// Creates a failure that no other attempt overcomes.
    pub fn permanent(kind: impl Into<String>, message: impl Into<String>) -> JobFailure {
        JobFailure { permanent: true, ..JobFailure::temporary(kind, message) }
    }

    /// Limits the texts, which may come from a service, to [`LONGEST_TEXT`] bytes each.
    pub(super) fn bounded(mut self) -> JobFailure {
        let texts = [Some(&mut self.kind), Some(&mut self.message), self.advice.as_mut(), self.slug.as_mut()];
        for text in texts.into_iter().flatten() {
            let mut len = text.len().min(LONGEST_TEXT);
            // Ends at 0 at the latest, which is a boundary.
            while !text.is_char_boundary(len) {
                len -= 1;
            }
            text.truncate(len);
        }
        self
    }
}

/// An error is permanent unless it is temporary or a later attempt can resume the upload.
impl From<&Error> for JobFailure {
    fn from(error: &Error) -> JobFailure {
        let refusal = error.refusal();
        JobFailure {
            kind: error.kind().name().to_owned(),
            message: FailureSummary::from(error).message,
            advice: error.advice().map(str::to_owned),
            http_status: refusal.map(|refusal| refusal.status),
            slug: refusal.and_then(|refusal| refusal.slug.clone()),
            video_id: error.video_id().map(str::to_owned),
            permanent: !error.is_temporary() && !error.is_resumable(),
        }
        .bounded()
    }
}

/// The longest text of a failure, in bytes: a screenful, so that a million failures fit on a disk.
const LONGEST_TEXT: usize = 2048;
