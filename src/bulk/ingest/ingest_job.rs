//! The jobs that this process works on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::bulk::file_stamp::FileStamp;
use crate::bulk::job::Job;
use crate::bulk::job_source::JobSource;
use crate::bulk::lease::Lease;
use crate::bulk::shutdown::ShutdownSignal;

/// A job that this process works on.
#[derive(Debug)]
#[non_exhaustive]
pub struct IngestJob {
    /// The number of the claim in this run, from 1.
    pub number: u64,
    /// The job as it was claimed.
    pub job: Job,
    /// The path or the URL as text.
    pub name: String,
    /// The time of the claim.
    pub started: Instant,
    pub(super) started_at: SystemTime,
    /// Shared with the run, which replaces the lease if this process claims the job again.
    pub(super) lease: Arc<Mutex<Lease>>,
    pub(super) stamp: Option<FileStamp>,
}

impl IngestJob {
    pub(super) fn lease(&self) -> Lease {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the file; `None` for a URL.
    pub fn path(&self) -> Option<&Path> {
        match &self.job.spec.source {
            JobSource::File { path } => Some(path),
            JobSource::Url { .. } => None,
        }
    }

    /// Returns the length of the file, if it has one.
    pub fn bytes(&self) -> Option<u64> {
        self.job.spec.stamp.map(|stamp| stamp.size)
    }
}

/// A job whose URL the service fetches, and the shutdown of the job.
#[derive(Debug)]
pub(super) struct FetchJob {
    pub(super) job: Arc<IngestJob>,
    pub(super) shutdown: ShutdownSignal,
}

/// The video that a worker had begun to fill when it lost the job.
#[derive(Debug)]
pub(super) struct LeftVideo {
    pub(super) job: Arc<IngestJob>,
    pub(super) video_id: String,
}
