//! The events of an ingestion.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::ingest_job::IngestJob;
use super::input_failure::InputFailure;
use crate::bulk::after_action::{AfterActionError, AfterOutcome};
use crate::bulk::job_id::JobId;
use crate::bulk::job_source::JobSource;
use crate::bulk::job_state::{JobFailure, JobResult};
use crate::bulk::report::{ReportError, RowState};
use crate::bulk::store::JobStoreError;
use crate::error::Error;
use crate::session::event::UploadEvent;
use crate::upload::{Progress, Uploaded};

/// An event of an ingestion.
#[derive(Debug)]
#[non_exhaustive]
pub enum IngestEvent {
    /// Earlier runs left open jobs in the store, and this run works on them, too.
    EarlierJobs {
        /// The number of these jobs.
        jobs: u64,
    },
    /// A job is in the store and open.
    Submitted {
        /// The id.
        id: JobId,
        /// The file or the URL.
        source: JobSource,
        /// The length of its file, if it has one.
        bytes: Option<u64>,
    },
    /// A job of the inputs needs no upload, or failed in an earlier run.
    Skipped(Box<SkippedJob>),
    /// The inputs name a job a second time. It is one job.
    Doubled {
        /// The id.
        id: JobId,
        /// The file or the URL.
        source: JobSource,
    },
    /// A file or a line of the inputs gives no job.
    InputFailed(Box<InputFailure>),
    /// All inputs were read.
    InputsRead {
        /// The files of folders that were left out, because they are no videos or by a filter.
        ignored: u64,
        /// The rules of the filter that decided about no file.
        unused_rules: Vec<String>,
    },
    /// The job begins.
    Started(Arc<IngestJob>),
    /// The progress of a job has changed.
    Progress(Arc<IngestJob>, Progress),
    /// An event of the upload of a job.
    Upload(Arc<IngestJob>, UploadEvent),
    /// The service has confirmed the job, and the store and the report have its end. A report that another process has
    /// locked gets the row later.
    Done {
        /// The job.
        job: Arc<IngestJob>,
        /// The result.
        result: JobResult,
        /// The upload; `None` if the service fetched a URL.
        uploaded: Option<Box<Uploaded>>,
        /// The SHA-256 in hexadecimal, if it was requested.
        sha256: Option<String>,
        /// The fate of the file.
        after: Result<AfterOutcome, AfterActionError>,
    },
    /// An attempt failed, and the job waits for another one.
    Deferred {
        /// The job.
        job: Arc<IngestJob>,
        /// The failure.
        failure: JobFailure,
        /// The time until the next attempt.
        delay: Duration,
    },
    /// A job that was deferred has had no other end in this run, and its row is in the report. Comes at the end of the
    /// run; at once for a job that is deferred while more than 65,000 others wait.
    LeftOpen {
        /// The id.
        id: JobId,
        /// The state in the row: failed, or cancelled if a user has cancelled the job since.
        state: RowState,
    },
    /// The job failed.
    Failed {
        /// The job.
        job: Arc<IngestJob>,
        /// The failure.
        failure: JobFailure,
        /// The error, if it is one of an upload.
        error: Option<Box<Error>>,
    },
    /// The run ended before the job did. The next run goes on with it.
    Cancelled(Arc<IngestJob>),
    /// The job met an error that concerns every job, which ends the run. The next run goes on with the job.
    Stopped {
        /// The job.
        job: Arc<IngestJob>,
        /// The error.
        error: Box<Error>,
    },
    /// Another worker has the job, or a user cancelled it.
    Lost {
        /// The job.
        job: Arc<IngestJob>,
        /// The reason.
        reason: String,
        /// `true` if a user cancelled the job, which has a row in the report then.
        is_cancelled: bool,
        /// The video that the job has begun to fill; `None` if this worker knows none.
        video_id: Option<String>,
    },
    /// A video was found that another one of the same job has replaced: two workers created one at the same time.
    Orphan {
        /// The job.
        job: Arc<IngestJob>,
        /// The video that was replaced.
        video_id: String,
        /// The fate of the video.
        fate: OrphanFate,
    },
    /// The job store does not answer, or another process has locked its file. Uploads go on until the deadlines of their
    /// leases, and no job is claimed.
    StoreAway {
        /// The first failure.
        error: JobStoreError,
    },
    /// The job store answers again.
    StoreBack {
        /// The time since the first failure.
        elapsed: Duration,
    },
    /// The service does not answer, and the store does. The jobs under way are free for other workers, and this run
    /// claims none until the service answers.
    ServiceAway {
        /// The number of jobs that were let go.
        jobs: usize,
        /// The time until the first probe of the service.
        rest: Duration,
    },
    /// The service answers again.
    ServiceBack,
    /// No job can be claimed for this time, because each waits for another attempt or is with another worker.
    Idle {
        /// The time until one may become ready.
        delay: Duration,
    },
    /// The pool is paused. The jobs under way go on.
    Paused,
    /// The last event.
    Ended(IngestEnd),
}

/// A job of the inputs that needs no upload, or that failed in an earlier run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SkippedJob {
    /// The id.
    pub id: JobId,
    /// The path or the URL as text.
    pub name: String,
    /// The file; `None` for a URL.
    pub path: Option<PathBuf>,
    /// The length of the file.
    pub bytes: u64,
    /// The video, if the job is done.
    pub video_id: Option<String>,
    /// The reason, for a person.
    pub reason: String,
    /// The failure of the earlier run.
    pub failure: Option<JobFailure>,
    /// An action on the file that an earlier run did not complete, and that failed again.
    pub after_failure: Option<String>,
}

/// The fate of a video that another one of the same job has replaced, or may have replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrphanFate {
    /// The video was empty, and is deleted.
    Deleted,
    /// The video was gone already.
    Gone,
    /// The video is kept, and the record of the job names it.
    Kept {
        /// The reason, for a person.
        reason: String,
    },
    /// The record of the job could not be read, and may name this video as the one of the job. The next worker of the
    /// job decides.
    Unknown {
        /// The failure to read the record.
        reason: String,
    },
}

/// The reason why an ingestion ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum IngestEnd {
    /// No open job is left.
    Drained,
    /// Every open job waits for another attempt.
    Deferred {
        /// The number of these jobs.
        jobs: u64,
        /// The time until the first of the attempts.
        delay: Duration,
    },
    /// All inputs are in the store.
    Submitted,
    /// A shutdown was requested.
    Shutdown,
    /// The limit of bytes was reached.
    MaxTransfer,
    /// The limit of time was reached.
    MaxDuration,
    /// The limit of failed jobs was reached.
    MaxErrors,
    /// An error concerns every job.
    Fatal(Box<Error>),
    /// The job store failed.
    Store(JobStoreError),
    /// The report cannot be written.
    Report(ReportError),
}
