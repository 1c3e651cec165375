//! The run loop: many uploads, a few at a time, as one stream of events.

mod fatal;
mod job;

use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::{StreamExt, stream};

use crate::bulk::shutdown::ShutdownSignal;
use crate::error::Error;
use crate::session::event::UploadEvent;
use crate::source::StreamSha256;
use crate::upload::{Client, Progress, Receipt, Upload, Uploaded};

use job::{JobRun, RunState};

/// One upload of a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunnerJob<K> {
    /// The caller's name for the job, returned with every event. Cloned for each.
    pub key: K,
    /// The upload: source and options.
    pub upload: Upload,
    /// The SHA-256 to compute.
    pub sha256: Sha256Request,
    /// The shutdown of this job alone; `None` if only the shutdown of the run ends the job.
    pub shutdown: Option<ShutdownSignal>,
}

impl<K> RunnerJob<K> {
    /// Creates a job without a digest.
    pub fn new(key: K, upload: Upload) -> RunnerJob<K> {
        RunnerJob { key, upload, sha256: Sha256Request::None, shutdown: None }
    }

    /// Sets the digest to compute.
    pub fn with_sha256(self, sha256: Sha256Request) -> RunnerJob<K> {
        RunnerJob { sha256, ..self }
    }

    /// Lets `shutdown` end the upload in place of the shutdown of the run. The caller forwards the stages of the latter.
    pub fn with_shutdown(self, shutdown: ShutdownSignal) -> RunnerJob<K> {
        RunnerJob { shutdown: Some(shutdown), ..self }
    }
}

/// The SHA-256 to compute with an upload.
#[derive(Debug, Default)]
pub enum Sha256Request {
    /// No digest.
    #[default]
    None,
    /// The digest of the file, read a second time: while it is being sent, or after the upload if the upload may
    /// restart with a changed file ([`OnChange::Restart`](crate::OnChange::Restart)).
    File,
    /// The digest of the stream that the upload reads.
    Stream(StreamSha256),
}

/// The options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunnerOptions {
    /// Number of uploads under way, from 1. More than [`Settings::transfers`](crate::Settings::transfers): the rest
    /// waits in the engine, so that the next one starts without delay. Default: 16, twice the default transfers.
    pub concurrent: usize,
    /// `true` to compare the ingested size with the bytes sent, after each upload.
    pub verify: bool,
    /// `true` to wait after each upload until its video is playable.
    pub wait_until_playable: bool,
    /// Limit of each of the two waits. Default: one hour.
    pub wait_timeout: Duration,
    /// Time without a byte after which the computation of a digest fails. Default: one minute.
    pub digest_silence: Duration,
    /// `true` if all jobs with an upload token have the same one: its refusal ends the run.
    pub has_one_token: bool,
}

impl Default for RunnerOptions {
    fn default() -> RunnerOptions {
        RunnerOptions {
            concurrent: 16,
            verify: false,
            wait_until_playable: false,
            wait_timeout: Duration::from_secs(3600),
            digest_silence: Duration::from_secs(60),
            has_one_token: false,
        }
    }
}

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

/// Runs every job of the stream, and returns the events.
///
/// At most [`RunnerOptions::concurrent`] jobs are pulled from `jobs` and not ended; nothing is kept about a job that has
/// ended. A job that fails does not end the run, unless its error concerns every job ([`FailedJob::ends_run`]). After a
/// request to shut down, no job is pulled any more, and each active one ends with an event.
///
/// The run advances only while the stream is polled, under any executor. Uploads under way go on meanwhile, and drop
/// their oldest events if the stream is not polled for long. Dropping the stream cancels the active uploads.
///
/// The last event of each job is [`RunnerEvent::Done`], [`RunnerEvent::Failed`] or [`RunnerEvent::NotStarted`]. The
/// stream ends after the last event of the last job. The run itself stores nothing. A client with [`Settings::journal`]
/// resumes an interrupted file when its job is run again, and has a finished one on record until the caller confirms
/// [`DoneJob::receipt`].
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: ringlift::Client, store: impl Fn(&str, &str)) {
/// use std::pin::pin;
///
/// use futures_util::{StreamExt, stream};
/// use ringlift::bulk::{self, RunnerEvent, RunnerJob, RunnerOptions, Shutdown};
///
/// let files = stream::iter(["a.mp4", "b.mp4"]);
/// let jobs = files.map(|path| RunnerJob::new(path, client.upload(path)));
/// // A signal handler of the program would call `stop` or `cancel`.
/// let shutdown = Shutdown::new();
/// let mut events = pin!(bulk::run(jobs, &client, RunnerOptions::default(), shutdown.signal()));
/// while let Some(event) = events.next().await {
///     match event {
///         RunnerEvent::Done(job) => {
///             store(job.key, &job.uploaded.video_id);
///             job.receipt.confirm();
///         }
///         RunnerEvent::Failed(job) => eprintln!("{}: {}", job.key, job.error),
///         RunnerEvent::NotStarted { key } => eprintln!("{key}: not started"),
///         _ => {}
///     }
/// }
/// # }
/// ```
///
/// [`Settings::journal`]: crate::Settings::journal
pub fn run<K: Clone>(
    jobs: impl Stream<Item = RunnerJob<K>>,
    client: &Client,
    options: RunnerOptions,
    shutdown: ShutdownSignal,
) -> impl Stream<Item = RunnerEvent<K>> {
    let concurrent = options.concurrent.max(1);
    let state = Arc::new(RunState::new(client.clone(), options, shutdown));
    let end = {
        let state = state.clone();
        async move { state.end_requested().await }
    };
    jobs.take_until(end)
        .map(move |job| Box::pin(stream::unfold(JobRun::new(job, state.clone()), JobRun::next)))
        .flatten_unordered(concurrent)
}
