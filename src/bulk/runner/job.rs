//! One job of a run: from its start to its last event.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use tokio::sync::watch;

use super::event::{DoneJob, FailedJob, RunnerEvent};
use super::fatal::{Circumstances, ends_run};
use super::request::{RunnerJob, RunnerOptions, Sha256Request};
use crate::bulk::shutdown::{ShutdownSignal, ShutdownStage};
use crate::error::{Error, ErrorKind, Result};
use crate::session::event::{StatusReason, UploadEvent};
use crate::source::{FileSha256, StreamSha256};
use crate::upload::{Client, Events, OnChange, ProgressStream, Receipt, Stopper, Upload, Uploaded};

/// The state that the jobs of one run share.
#[derive(Debug)]
pub(super) struct RunState {
    client: Client,
    options: RunnerOptions,
    shutdown: ShutdownSignal,
    /// `true` once an error has ended the run.
    has_fatal_error: watch::Sender<bool>,
    /// `true` once the service has accepted anything.
    has_succeeded: AtomicBool,
}

impl RunState {
    pub(super) fn new(client: Client, options: RunnerOptions, shutdown: ShutdownSignal) -> RunState {
        let (has_fatal_error, _) = watch::channel(false);
        RunState { client, options, shutdown, has_fatal_error, has_succeeded: AtomicBool::new(false) }
    }

    /// Waits until no further job may start.
    pub(super) async fn end_requested(&self) {
        let mut fatal = self.has_fatal_error.subscribe();
        tokio::select! {
            () = self.shutdown.requested() => {}
            // The sender lives as long as this state.
            _ = fatal.wait_for(|is_fatal| *is_fatal) => {}
        }
    }

    fn is_ending(&self) -> bool {
        self.shutdown.stage() != ShutdownStage::Running || *self.has_fatal_error.borrow()
    }
}

/// One job of a run.
pub(super) struct JobRun<K> {
    key: K,
    state: Arc<RunState>,
    circumstances: Circumstances,
    /// The shutdown of the job: its own, or that of the run.
    shutdown: ShutdownSignal,
    phase: Phase,
}

/// The phase of a job.
enum Phase {
    New(Box<Upload>, Sha256Request),
    Uploading(Box<ActiveUpload>),
    /// The service has the whole file, and the video is not known to be playable.
    Waiting(Box<FinishedUpload>),
    Over,
}

/// A job whose upload is under way.
struct ActiveUpload {
    progress: ProgressStream,
    events: Events,
    end: Pin<Box<dyn Future<Output = Result<Uploaded>> + Send>>,
    stopper: Stopper,
    shutdown: ShutdownSignal,
    fatal: watch::Receiver<bool>,
    receipt: Receipt,
    sha256: DigestWork,
    traces: Traces,
}

impl ActiveUpload {
    /// Ends the upload as a stage of the shutdown requires.
    fn enter(&self, stage: ShutdownStage) {
        match stage {
            ShutdownStage::Running => {}
            ShutdownStage::Stopping => self.stopper.stop(),
            ShutdownStage::Cancelled | ShutdownStage::Abandoned => self.stopper.cancel(),
        }
    }
}

/// The traces that an upload has left at the service.
#[derive(Clone, Copy, Debug, Default)]
struct Traces {
    /// `true` once the upload has a video or has sent bytes, in this run or in an earlier one.
    has_begun: bool,
    /// `true` if an earlier run began the upload.
    is_resumed: bool,
    /// `true` once this run has sent a chunk.
    has_sent_chunk: bool,
}

impl Traces {
    fn add(&mut self, event: &UploadEvent) {
        match event {
            UploadEvent::ChunkDone { .. } => self.has_sent_chunk = true,
            UploadEvent::Resumed { .. } | UploadEvent::StatusAsked { reason: StatusReason::Resume, .. } => {
                self.is_resumed = true;
            }
            _ => {}
        }
    }

    /// Returns `true` if the upload has not changed anything in this run. A resumed upload that a shutdown ends counts as
    /// begun, so that its journal entry is reported.
    fn is_untouched(self, has_fatal_error: bool) -> bool {
        let is_left_as_found = has_fatal_error && self.is_resumed && !self.has_sent_chunk;
        !self.has_begun || is_left_as_found
    }
}

/// A job whose upload has succeeded.
struct FinishedUpload {
    uploaded: Uploaded,
    receipt: Receipt,
    sha256: DigestWork,
}

/// The computation of the SHA-256 of a job.
enum DigestWork {
    None,
    Running(FileSha256),
    /// Starts after the upload, because the file may change until then.
    Later(PathBuf),
    Stream(StreamSha256),
    Done(String),
}

impl DigestWork {
    fn start(request: Sha256Request, upload: &Upload) -> Result<DigestWork> {
        match (request, upload.path()) {
            (Sha256Request::Stream(digest), _) => Ok(DigestWork::Stream(digest)),
            (Sha256Request::File, Some(path)) if upload.described().on_change == OnChange::Restart => {
                Ok(DigestWork::Later(path.to_owned()))
            }
            (Sha256Request::File, Some(path)) => Ok(DigestWork::Running(FileSha256::start(path)?)),
            (Sha256Request::None | Sha256Request::File, _) => Ok(DigestWork::None),
        }
    }

    async fn finish(self, options: &RunnerOptions) -> Result<DigestWork> {
        let digest = match self {
            DigestWork::Running(digest) => digest,
            DigestWork::Later(path) => FileSha256::start(&path)?,
            DigestWork::Stream(digest) => return Ok(DigestWork::Done(digest.value())),
            DigestWork::None | DigestWork::Done(_) => return Ok(self),
        };
        let digest = digest.finish(options.digest_silence).await;
        let digest = digest.map_err(|error| Error::from(error).doing("compute the SHA-256 of the file"))?;
        Ok(DigestWork::Done(digest))
    }

    fn into_value(self) -> Option<String> {
        match self {
            DigestWork::Done(digest) => Some(digest),
            _ => None,
        }
    }
}

impl<K: Clone> JobRun<K> {
    pub(super) fn new(job: RunnerJob<K>, state: Arc<RunState>) -> JobRun<K> {
        let RunnerJob { key, upload, sha256, shutdown } = job;
        let options = upload.described();
        let uses_token = options.upload_token.is_some();
        let circumstances = Circumstances {
            has_succeeded: false,
            uses_token,
            has_own_token: uses_token && !state.options.has_one_token,
            names_video: options.video_id.is_some(),
        };
        let shutdown = shutdown.unwrap_or_else(|| state.shutdown.clone());
        JobRun { key, state, circumstances, shutdown, phase: Phase::New(Box::new(upload), sha256) }
    }

    /// Returns the next event; `None` after the last one.
    pub(super) async fn next(mut self) -> Option<(RunnerEvent<K>, JobRun<K>)> {
        let event = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::New(..) if self.state.is_ending() => RunnerEvent::NotStarted { key: self.key.clone() },
            Phase::New(upload, sha256) => match self.start(*upload, sha256).await {
                Ok(started) => started,
                Err(error) => self.failed(error, None),
            },
            Phase::Uploading(active) => self.follow(active).await,
            Phase::Waiting(finished) => self.wait(finished).await,
            Phase::Over => return None,
        };
        Some((event, self))
    }

    async fn start(&mut self, upload: Upload, sha256: Sha256Request) -> Result<RunnerEvent<K>> {
        let sha256 = DigestWork::start(sha256, &upload)?;
        // Taken before the start: a request that arrives meanwhile must not be missed.
        let (shutdown, fatal) = (self.shutdown.clone(), self.state.has_fatal_error.subscribe());
        let (upload, receipt) = upload.with_receipt();
        let mut running = upload.start().await?;
        let (progress, events, stopper) = (running.progress(), running.events(), running.stopper());
        self.phase = Phase::Uploading(Box::new(ActiveUpload {
            progress,
            events,
            end: Box::pin(running.join()),
            stopper,
            shutdown,
            fatal,
            receipt,
            sha256,
            traces: Traces::default(),
        }));
        Ok(RunnerEvent::Started { key: self.key.clone() })
    }

    /// Follows the upload to its next event.
    async fn follow(&mut self, mut active: Box<ActiveUpload>) -> RunnerEvent<K> {
        let key = self.key.clone();
        loop {
            tokio::select! {
                // In this order: the id of the video precedes the events about chunks, and all events precede the
                // result.
                biased;
                stage = active.shutdown.changed() => active.enter(stage),
                Ok(()) = active.fatal.changed() => active.stopper.stop(),
                Some(progress) = active.progress.next() => {
                    active.traces.has_begun |= progress.video_id.is_some() || progress.sent_bytes > 0;
                    self.phase = Phase::Uploading(active);
                    return RunnerEvent::Progress { key, progress };
                }
                Some(event) = active.events.next() => {
                    active.traces.add(&event);
                    if active.traces.has_sent_chunk {
                        self.state.has_succeeded.store(true, Ordering::Relaxed);
                    }
                    self.phase = Phase::Uploading(active);
                    return RunnerEvent::Upload { key, event };
                }
                end = &mut active.end => return self.ended(*active, end).await,
            }
        }
    }

    /// Takes in the end of the upload.
    async fn ended(&mut self, active: ActiveUpload, end: Result<Uploaded>) -> RunnerEvent<K> {
        match end {
            Ok(uploaded) => {
                self.state.has_succeeded.store(true, Ordering::Relaxed);
                let ActiveUpload { receipt, sha256, .. } = active;
                self.check(Box::new(FinishedUpload { uploaded, receipt, sha256 })).await
            }
            Err(error) if self.is_untouched(active.traces) && self.is_end_of_run(&error) => {
                RunnerEvent::NotStarted { key: self.key.clone() }
            }
            Err(error) => self.failed(error, None),
        }
    }

    /// Completes the digest and verifies the size.
    async fn check(&mut self, mut finished: Box<FinishedUpload>) -> RunnerEvent<K> {
        let (RunState { client, options, .. }, shutdown) = (&*self.state, &self.shutdown);
        let sha256 = std::mem::replace(&mut finished.sha256, DigestWork::None);
        let check = async {
            let sha256 = sha256.finish(options).await?;
            if options.verify {
                client.verify(&finished.uploaded, options.wait_timeout).await?;
            }
            Ok(sha256)
        };
        match unless_stopped(shutdown, &finished.uploaded, check).await {
            Ok(sha256) => finished.sha256 = sha256,
            Err(error) => return self.failed(error, Some((finished.uploaded, finished.receipt))),
        }
        if options.wait_until_playable {
            let uploaded = Box::new(finished.uploaded.clone());
            self.phase = Phase::Waiting(finished);
            return RunnerEvent::Waiting { key: self.key.clone(), uploaded };
        }
        self.done(*finished)
    }

    async fn wait(&mut self, finished: Box<FinishedUpload>) -> RunnerEvent<K> {
        let (RunState { client, options, .. }, shutdown) = (&*self.state, &self.shutdown);
        let playable = client.wait_until_playable(&finished.uploaded.video_id, options.wait_timeout);
        match unless_stopped(shutdown, &finished.uploaded, playable).await {
            Ok(()) => self.done(*finished),
            Err(error) => self.failed(error, Some((finished.uploaded, finished.receipt))),
        }
    }

    fn done(&self, finished: FinishedUpload) -> RunnerEvent<K> {
        let FinishedUpload { uploaded, receipt, sha256 } = finished;
        RunnerEvent::Done(Box::new(DoneJob {
            key: self.key.clone(),
            uploaded,
            sha256: sha256.into_value(),
            receipt,
        }))
    }

    fn failed(&self, error: Error, finished: Option<(Uploaded, Receipt)>) -> RunnerEvent<K> {
        // A failure after the upload concerns one video.
        let ends_run = finished.is_none() && ends_run(&error, self.circumstances());
        if ends_run {
            // `send` would not store the value if no receiver existed at the moment.
            self.state.has_fatal_error.send_replace(true);
        }
        RunnerEvent::Failed(Box::new(FailedJob { key: self.key.clone(), error, finished, ends_run }))
    }

    fn is_untouched(&self, traces: Traces) -> bool {
        traces.is_untouched(*self.state.has_fatal_error.borrow())
    }

    /// Returns `true` if the error says only that the run has ended: a cancellation, or the error that ended the run.
    fn is_end_of_run(&self, error: &Error) -> bool {
        let is_repetition = *self.state.has_fatal_error.borrow() && ends_run(error, self.circumstances());
        self.state.is_ending() && (error.kind() == ErrorKind::Cancelled || is_repetition)
    }

    fn circumstances(&self) -> Circumstances {
        Circumstances {
            has_succeeded: self.state.has_succeeded.load(Ordering::Relaxed),
            ..self.circumstances
        }
    }
}

/// Runs a step after the upload until it completes or a shutdown is requested.
async fn unless_stopped<T>(
    shutdown: &ShutdownSignal,
    uploaded: &Uploaded,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        // In this order: a job with nothing left to do has succeeded, also during a shutdown.
        biased;
        done = step => done,
        () = shutdown.requested() => {
            Err(Error::new(ErrorKind::Cancelled, "check the uploaded video").with_video_id(&uploaded.video_id))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_untouched_until_it_has_a_trace_of_this_run() {
        let begun = Traces { has_begun: true, ..Traces::default() };
        let resumed = Traces { is_resumed: true, ..begun };
        assert!(Traces::default().is_untouched(false) && !begun.is_untouched(true));
        assert!(resumed.is_untouched(true) && !resumed.is_untouched(false));
        assert!(!Traces { has_sent_chunk: true, ..resumed }.is_untouched(true));
    }
}
