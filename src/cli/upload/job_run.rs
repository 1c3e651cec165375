//! One job from its plan to its result.

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringlift::bulk::totals::FileEnd;
use ringlift::source::probe;
use ringlift::{OnChange, Receipt, Running, Upload, UploadEvent, Uploaded};

use crate::cli::console::{UploadRemains, duration, speed};
use crate::cli::digest::{FileDigest, StreamDigest};
use crate::cli::escape::visible;
use crate::cli::events::{ErrorEvent, FileDone, JsonEvent, millis};
use crate::cli::exit::{CommandError, Exit, Interrupt};
use crate::cli::output::PendingWrite;
use crate::cli::values::Size;

use super::after;
use super::context::{KeepCompleted, UploadRun};
use super::plan::{self, IfNew, Job, JobOptions, JobSource};
use super::shutdown::ShutdownStage;
use super::stdin::Stdin;

/// Result of a job.
pub(super) struct JobOutcome {
    /// Number of names on the command line: more than one if several names lead to the same file.
    pub(super) files: usize,
    pub(super) result: Result<CompletedJob, CommandError>,
    /// Completed upload of a job that failed afterwards.
    finished: Option<Uploaded>,
}

/// A completed job.
pub(super) struct CompletedJob {
    pub(super) uploaded: Uploaded,
    pub(super) sha256: Option<String>,
    /// Confirmed once the result was written.
    receipt: Receipt,
}

impl JobOutcome {
    /// Removes the file from the journal after the whole command has succeeded.
    pub(super) fn forget(&self) {
        if let Ok(done) = &self.result {
            done.receipt.confirm();
        }
    }

    fn for_totals(&self) -> FileEnd {
        match &self.result {
            Ok(done) if done.uploaded.already => FileEnd::Skipped { bytes: done.uploaded.bytes },
            Ok(done) => FileEnd::Done { bytes: done.uploaded.bytes },
            Err(failure) if matches!(failure.exit(), Exit::Interrupted(_)) => FileEnd::Cancelled,
            Err(_) => FileEnd::Failed,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        self.result.as_ref().map_or_else(CommandError::exit, |_| Exit::Done)
    }

    /// Returns the video of a failed job: the one that holds the file, or an incomplete one.
    pub(super) fn video_id(&self) -> Option<String> {
        match (&self.finished, &self.result) {
            (Some(uploaded), _) => Some(uploaded.video_id.clone()),
            (None, Err(CommandError::Library(error))) => error.video_id().map(str::to_owned),
            (None, _) => None,
        }
    }

    /// Returns the bytes of the file that the service has confirmed.
    pub(super) fn bytes(&self) -> u64 {
        let uploaded = self.result.as_ref().map(|done| &done.uploaded).ok().or(self.finished.as_ref());
        uploaded.map_or(0, |uploaded| uploaded.bytes)
    }
}

/// Runs a job and reports its result.
pub(super) async fn upload(run: &UploadRun<'_>, job: Job) -> JobOutcome {
    let started = Instant::now();
    let result = execute(run, &job).await;
    // A slow reader of the output delays the next file and everything except signals.
    run.console.output().room().await;
    let end = match result {
        Ok(done) => {
            let files = job.files();
            if is_written(report_done(run, &job, &done)).await {
                match run.options.keep_completed {
                    KeepCompleted::No => done.receipt.confirm(),
                    KeepCompleted::UntilSuccess | KeepCompleted::Always => done.receipt.remember(),
                }
            } else {
                report_lost(run, &job, &done.uploaded.video_id);
            }
            JobOutcome { files, result: Ok(done), finished: None }
        }
        Err(failed) => {
            let write = report_failed(run, &job, &failed, started);
            // After a temporary failure the journal keeps the upload: the same command repeats only the check.
            if !failed.is_temporary() && is_written(write).await {
                failed.confirm();
            }
            let finished = failed.upload.into_uploaded();
            JobOutcome { files: job.files(), result: Err(failed.failure), finished }
        }
    };
    run.totals.borrow_mut().end(&job, end.for_totals());
    run.open_jobs.borrow_mut().remove(&job.index);
    end
}

/// Returns `true` if the line with the video's id was written. Otherwise the journal keeps the upload, so
/// that the same command prints the id later.
async fn is_written(write: Option<PendingWrite>) -> bool {
    match write {
        Some(write) => write.is_written().await,
        None => true,
    }
}

/// Error of a job and the state of its upload.
struct JobError {
    failure: CommandError,
    upload: JobState,
}

/// State of the upload when the job failed.
enum JobState {
    Unfinished,
    Finished(Box<Uploaded>, Receipt),
}

impl JobState {
    fn uploaded(&self) -> Option<&Uploaded> {
        match self {
            JobState::Finished(uploaded, _) => Some(uploaded),
            JobState::Unfinished => None,
        }
    }

    fn into_uploaded(self) -> Option<Uploaded> {
        match self {
            JobState::Finished(uploaded, _) => Some(*uploaded),
            JobState::Unfinished => None,
        }
    }
}

impl JobError {
    /// Returns `true` if the same command finds the file uploaded and repeats only the failed check.
    fn is_temporary(&self) -> bool {
        matches!(self.failure.exit(), Exit::Temporary | Exit::Interrupted(_))
    }

    fn confirm(&self) {
        match &self.upload {
            JobState::Finished(_, receipt) if !self.is_temporary() => receipt.confirm(),
            JobState::Finished(..) | JobState::Unfinished => {}
        }
    }
}

impl<E: Into<CommandError>> From<E> for JobError {
    fn from(error: E) -> JobError {
        JobError { failure: error.into(), upload: JobState::Unfinished }
    }
}

async fn execute(run: &UploadRun<'_>, job: &Job) -> Result<CompletedJob, JobError> {
    // Jobs that wait in the stream start even after a signal: they end here.
    if let Some(interrupt) = run.shutdown.interrupt() {
        return Err(CommandError::Interrupted(interrupt).into());
    }
    if run.console.writes_events() {
        let ring = run.ring.get_or_init(probe::check_ring);
        run.console.output().room().await;
        let plan = async {
            let _permit = run.plans.acquire().await;
            plan::planned_in_time(job, run.settings, ring).await
        };
        let planned = run.shutdown.or_interrupted(plan).await;
        let planned = planned.unwrap_or_else(|interrupt| Err(CommandError::Interrupted(interrupt)));
        let _ = job.emit(run.console, &JsonEvent::Planned(planned?));
    }
    let digest = DigestTask::of(run, job)?;
    let (upload, receipt) = describe(&job.options, open_source(run, job, &digest)).with_receipt();
    let uploaded = follow(run, job, upload.start().await?).await?;
    let finished = async {
        let sha256 = digest.finish(run.settings.patience.body).await?;
        after::verify_and_wait(&run.client, &uploaded, run.options.after, run.console).await?;
        Ok(sha256)
    };
    let interrupted = |interrupt: Interrupt| Err(CommandError::Interrupted(interrupt));
    let sha256 = run.shutdown.or_interrupted(finished).await.unwrap_or_else(interrupted);
    match sha256 {
        Ok(sha256) => Ok(CompletedJob { uploaded, sha256, receipt }),
        Err(failure) => Err(JobError { failure, upload: JobState::Finished(Box::new(uploaded), receipt) }),
    }
}

/// Computation of the digest of a job.
enum DigestTask {
    NotAsked,
    File(FileDigest),
    /// Starts after the upload, because the file may change until then.
    Later(PathBuf),
    Stream(StreamDigest),
}

impl DigestTask {
    fn of(run: &UploadRun<'_>, job: &Job) -> Result<DigestTask, CommandError> {
        match &job.source {
            _ if !run.options.after.sha256 => Ok(DigestTask::NotAsked),
            JobSource::File(path) if job.options.upload.on_change == OnChange::Restart => {
                Ok(DigestTask::Later(path.clone()))
            }
            JobSource::File(path) => FileDigest::start(path).map(DigestTask::File),
            JobSource::Stdin => Ok(DigestTask::Stream(StreamDigest::new())),
        }
    }

    async fn finish(self, silence: Duration) -> Result<Option<String>, CommandError> {
        match self {
            DigestTask::NotAsked => Ok(None),
            DigestTask::File(digest) => digest.finish(silence).await.map(Some),
            DigestTask::Later(path) => FileDigest::start(&path)?.finish(silence).await.map(Some),
            DigestTask::Stream(digest) => Ok(Some(digest.value())),
        }
    }
}

fn open_source(run: &UploadRun<'_>, job: &Job, digest: &DigestTask) -> Upload {
    let stdin = || Stdin::new(run.shutdown.stage());
    match (&job.source, digest) {
        (JobSource::File(path), _) => run.client.upload(path),
        (JobSource::Stdin, DigestTask::Stream(digest)) => {
            run.client.upload_reader(&job.name, digest.over(stdin()))
        }
        (JobSource::Stdin, _) => run.client.upload_reader(&job.name, stdin()),
    }
}

fn describe(options: &JobOptions, mut upload: Upload) -> Upload {
    upload = upload.options(options.upload.clone());
    if options.force {
        upload = upload.again();
    }
    match options.if_new {
        IfNew::Start => upload,
        IfNew::Refuse => upload.only_if_begun(),
    }
}

/// Follows an upload to its end and forwards shutdown requests.
async fn follow(run: &UploadRun<'_>, job: &Job, mut running: Running) -> Result<Uploaded, CommandError> {
    let creates = job.options.upload.video_id.is_none();
    let note = |progress| {
        let video_id = run.totals.borrow_mut().update(job, progress);
        if let Some(video_id) = video_id.filter(|_| creates) {
            let _ = job.emit(run.console, &JsonEvent::Created { file: &job.name, video_id: &video_id });
        }
    };
    let emit = |event: UploadEvent| {
        run.totals.borrow_mut().record(job, &event, run.console);
        if let Some(event) = JsonEvent::of(&job.name, &event) {
            let _ = job.emit(run.console, &event);
        }
    };
    let stopper = running.stopper();
    let mut stage = run.shutdown.stage();
    let (mut progress, mut events) = (running.progress(), running.events());
    let mut joined = pin!(running.join());
    loop {
        tokio::select! {
            // In this order: `created` precedes the events about chunks, and all events precede the result.
            biased;
            Some(newer) = progress.next() => note(newer),
            // Without room in the output queue they stay in the library's queue, which drops and counts the
            // oldest.
            Some(event) = events.next(), if run.console.output().has_room() => emit(event),
            uploaded = &mut joined => return Ok(uploaded?),
            Ok(()) = stage.changed() => match *stage.borrow_and_update() {
                ShutdownStage::Running => {}
                ShutdownStage::Stopping => stopper.stop(),
                ShutdownStage::Cancelled => stopper.cancel(),
            },
        }
    }
}

/// Reports a completed job. Returns the handle of the line with the video's id.
fn report_done(run: &UploadRun<'_>, job: &Job, done: &CompletedJob) -> Option<PendingWrite> {
    let CompletedJob { uploaded, sha256, .. } = done;
    if uploaded.already {
        let Uploaded { video_id, chunks, bytes, .. } = uploaded;
        let resumed = JsonEvent::Resumed { file: &job.name, video_id, chunks: *chunks, bytes: *bytes };
        job.emit(run.console, &resumed);
    }
    let event = JsonEvent::FileDone(FileDone::new(&job.name, uploaded, sha256.as_deref()));
    let event = job.emit(run.console, &event);
    let result = run.console.pending_result(&uploaded.video_id);
    let last = report_other_names(run, job, done);
    if uploaded.already {
        run.console.note(format_args!(
            "{}: uploaded before by an interrupted command; --force uploads it again",
            visible(&job.name)
        ));
        return last.or(event).or(result);
    }
    let retries = match uploaded.retries {
        0 => String::new(),
        retries => format!(", {retries} retries"),
    };
    let sha256 = sha256.as_ref().map(|sha256| format!(", SHA-256 {sha256}")).unwrap_or_default();
    let resumed = run.totals.borrow().resumed_bytes(job.index).min(uploaded.bytes);
    let sent = uploaded.bytes - resumed;
    let earlier = match resumed {
        0 => String::new(),
        resumed => format!(", {} were already uploaded", Size(resumed)),
    };
    run.console.note(format_args!(
        "{}: {} in {} ({}){earlier}{retries}{sha256}",
        visible(&job.name),
        Size(sent),
        duration(uploaded.elapsed),
        speed(sent, uploaded.elapsed),
    ));
    last.or(event).or(result)
}

/// Reports the result for each further name of the same file. Returns the handle of the last line.
fn report_other_names(run: &UploadRun<'_>, job: &Job, done: &CompletedJob) -> Option<PendingWrite> {
    let mut already = done.uploaded.clone();
    already.already = true;
    let mut last = None;
    for name in &job.also {
        run.console.emit(&JsonEvent::FileDone(FileDone::new(name, &already, done.sha256.as_deref())));
        last = run.console.pending_result(&already.video_id);
        run.console.note(format_args!(
            "{}: the same file as {}, named twice; uploaded once",
            visible(name),
            visible(&job.name)
        ));
    }
    last
}

/// Prints an id that could not be written to standard output and would otherwise be lost.
fn report_lost(run: &UploadRun<'_>, job: &Job, video_id: &str) {
    let again = match run.resume_hint(job) {
        UploadRemains::Resumable { .. } => "; run the same command again to print the id",
        _ => "",
    };
    run.console.alert(format_args!(
        "{}: is uploaded as video {video_id}, which could not be written to standard output{again}",
        job.name,
    ));
}

/// Reports a job that is still active and no longer waited for.
pub(super) fn report_abandoned(run: &UploadRun<'_>, job: &Job, interrupt: Interrupt) {
    let failure = CommandError::Interrupted(interrupt);
    let video_id = run.totals.borrow().video_id(job.index).map(str::to_owned);
    let remains = video_id.as_ref().map_or(UploadRemains::Nothing, |_| run.resume_hint(job));
    let resumable = matches!(remains, UploadRemains::Resumable { .. });
    let error = ErrorEvent::new(&failure).of_video(video_id.as_deref());
    let _ =
        job.emit(run.console, &JsonEvent::FileFailed { file: &job.name, elapsed_ms: 0, resumable, error });
    run.console.print_file_error(&job.name, &failure, remains);
}

fn report_failed(
    run: &UploadRun<'_>,
    job: &Job,
    failed: &JobError,
    started: Instant,
) -> Option<PendingWrite> {
    let JobError { failure, upload } = failed;
    let remains = match (failure, upload) {
        (CommandError::Library(error), JobState::Unfinished) => run.remains(job, error),
        (_, JobState::Finished(..)) if failed.is_temporary() => run.resume_hint(job),
        _ => UploadRemains::Nothing,
    };
    let resumable = matches!(remains, UploadRemains::Resumable { .. });
    let video_id = upload.uploaded().map(|uploaded| uploaded.video_id.as_str());
    let elapsed_ms = millis(started.elapsed());
    let event = |file| {
        let error = ErrorEvent::new(failure).of_video(video_id);
        JsonEvent::FileFailed { file, elapsed_ms, resumable, error }
    };
    let write = job.emit(run.console, &event(&job.name));
    job.also.iter().for_each(|name| run.console.emit(&event(name)));
    run.console.print_file_error(&job.name, failure, remains);
    write
}
