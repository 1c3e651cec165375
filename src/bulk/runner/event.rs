//! The events of a run, and the results of its jobs.

use crate::error::Error;
use crate::session::event::UploadEvent;
use crate::upload::{Progress, Receipt, Uploaded};

/// An event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunnerEvent<K> {
    /// The engine has the upload. It waits there for its turn.
    Started {
        /// The job.
        key: K,
    },
    /// The progress has changed.
    Progress {
        /// The job.
        key: K,
        /// The newest progress.
        progress: Progress,
    },
    /// An event of the upload.
    Upload {
        /// The job.
        key: K,
        /// The event.
        event: UploadEvent,
    },
    /// The service has the whole file, and the wait for a playable video begins.
    Waiting {
        /// The job.
        key: K,
        /// The upload.
        uploaded: Box<Uploaded>,
    },
    /// The job has succeeded.
    Done(Box<DoneJob<K>>),
    /// The job has failed.
    Failed(Box<FailedJob<K>>),
    /// The run ended before the job created or sent anything in this run.
    NotStarted {
        /// The job.
        key: K,
    },
}

/// A job that has succeeded.
#[derive(Debug)]
#[non_exhaustive]
pub struct DoneJob<K> {
    /// The job.
    pub key: K,
    /// The upload.
    pub uploaded: Uploaded,
    /// The SHA-256 in hexadecimal, if it was requested.
    pub sha256: Option<String>,
    /// The receipt, to confirm once the result is recorded durably.
    pub receipt: Receipt,
}

/// A job that has failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedJob<K> {
    /// The job.
    pub key: K,
    /// The error. [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if a shutdown ended the job.
    pub error: Error,
    /// The upload and its receipt, if the upload had succeeded and a step after it failed.
    pub finished: Option<(Uploaded, Receipt)>,
    /// `true` if no other job can succeed: the run ends. No further job starts, and the active ones stop.
    pub ends_run: bool,
}
