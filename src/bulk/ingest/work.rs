//! The claims of a run: each gives an upload, or a URL for the service to fetch.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::event::{IngestEnd, IngestEvent};
use super::examiner::LONGEST_SILENCE;
use super::finish;
use super::ingest_job::{FetchJob, IngestJob};
use super::leases::boot_time;
use super::options::CutoffMode;
use super::orphans;
use super::planner::regular_stamp;
use super::queued_work::QueuedWork;
use super::state::WorkState;
use crate::bulk::file_stamp::FileStamp;
use crate::bulk::job::Job;
use crate::bulk::job_id::{Account, token_digest, video_mark};
use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobFailure;
use crate::bulk::runner::{RunnerJob, Sha256Request};
use crate::bulk::shutdown::ShutdownSignal;
use crate::bulk::store::{ClaimAnswer, ClaimedJob, JobStoreError, Resubmit, Revision};
use crate::upload::{Settings, Upload};

/// The claims of a run.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) state: Arc<WorkState>,
    /// Jobs whose URL the service fetches.
    pub(super) urls: mpsc::Sender<FetchJob>,
    /// Jobs that were claimed together and have not begun.
    pub(super) ready: VecDeque<ReadyJob>,
    /// The jobs that are not claimed.
    queued: QueuedWork,
    pub(super) number: u64,
    /// The revision of the store that the last wait returned.
    pub(super) seen: Revision,
    /// `true` since the last claim found the pool paused.
    pub(super) is_paused: bool,
}

/// A claimed job that has not begun.
#[derive(Debug)]
pub(super) struct ReadyJob {
    claimed: ClaimedJob,
    /// The time of the request for the claim, by [`boot_time`].
    asked_at: Duration,
    /// The stamp of the file; `None` if the file was not examined yet.
    examined: Option<Result<FileStamp, Box<JobFailure>>>,
}

impl Claims {
    pub(super) fn new(state: Arc<WorkState>, urls: mpsc::Sender<FetchJob>) -> Claims {
        let (ready, seen) = (VecDeque::new(), Revision::default());
        let queued = QueuedWork::new(state.client.backlog().clone());
        Claims { state, urls, ready, queued, number: 0, seen, is_paused: false }
    }

    /// Returns the next upload, and `None` when the run ends.
    pub(super) async fn next(mut self) -> Option<(RunnerJob<Arc<IngestJob>>, Claims)> {
        loop {
            let state = self.state.clone();
            // Registered before the questions, so that no news between them and the wait is missed.
            let news = state.news.notified();
            if state.is_ending() {
                return None;
            }
            orphans::examine_left(&state).await;
            if state.options.waits_for_inputs && !state.are_inputs_read() {
                self.wait_for_news(news).await?;
            } else if let Some(rest) = state.time_to_rest() {
                self.release_ready().await;
                self.rest(news, rest).await?;
            } else if !self.ready.is_empty() {
                if let Some(job) = self.begin_first().await {
                    return Some((job, self));
                }
            } else if let Some(most) = state.places() {
                self.claim_or_wait(most, news).await?;
            } else {
                self.wait_for_news(news).await?;
            }
        }
    }

    /// Claims further jobs, or waits if the pool has none to claim. Returns `None` if the run ends.
    async fn claim_or_wait(&mut self, most: usize, news: impl Future<Output = ()>) -> Option<()> {
        let state = self.state.clone();
        // Before the claim: a job that is submitted after the claim's answer must not be left behind by an end.
        let are_inputs_read = state.are_inputs_read();
        let answer = match self.claim(most).await {
            Ok(answer) => answer,
            Err(error) => return self.wait_for_store(error).await,
        };
        self.report_pause(matches!(answer, ClaimAnswer::Paused)).await;
        match answer {
            ClaimAnswer::Claimed(_) => Some(()),
            ClaimAnswer::Drained if are_inputs_read && !state.options.waits_for_jobs => {
                state.end_with(IngestEnd::Drained);
                None
            }
            ClaimAnswer::Drained | ClaimAnswer::Paused => self.wait_for_change(news).await,
            ClaimAnswer::NoneReady { next_at } => self.wait_for_attempt(news, next_at, are_inputs_read).await,
        }
    }

    /// Reports once that the pool is paused.
    async fn report_pause(&mut self, is_paused: bool) {
        let was_paused = std::mem::replace(&mut self.is_paused, is_paused);
        if is_paused && !was_paused {
            self.state.emit(IngestEvent::Paused).await;
        }
    }

    /// Claims the next job, and small ones after it, up to `most`: one write of the store, and one question for their
    /// files. Returns the answer for the first one. The claimed jobs are ready afterwards.
    async fn claim(&mut self, most: usize) -> Result<ClaimAnswer, JobStoreError> {
        let state = self.state.clone();
        if self.queued.is_outdated(Instant::now()) {
            self.queued.counted(state.open_jobs().await?, Instant::now());
        }
        let (pool, owner, asked_at) = (&state.options.pool, &state.options.owner, boot_time());
        // Before the request: a claim whose future is dropped may have been carried out, and `end` looks for its jobs.
        state.is_claiming.store(true, Ordering::Relaxed);
        // Large files are claimed one by one: a claimed file that waits here is one that no other worker can begin.
        let longest = Settings::SMALL_FILE_BYTES;
        let answers = state.store.claim_several(pool, owner, state.now(), most, longest).await;
        let mut first = None;
        let answers = answers.inspect_err(|_| state.is_claiming.store(false, Ordering::Relaxed))?;
        state.store_answered().await;
        for answer in answers {
            if let ClaimAnswer::Claimed(claimed) = &answer {
                self.queued.claimed(claimed.job.spec.stamp.map_or(0, |stamp| stamp.size));
                self.hold(ClaimedJob::clone(claimed), asked_at);
            }
            first.get_or_insert(answer);
        }
        self.examine_ready().await;
        state.is_claiming.store(!self.ready.is_empty(), Ordering::Relaxed);
        // A store without an answer is asked again after a moment.
        Ok(first.unwrap_or(ClaimAnswer::NoneReady { next_at: state.now() }))
    }

    /// Releases the ready jobs for other workers, because this one does not reach the service.
    async fn release_ready(&mut self) {
        let state = &self.state;
        for ReadyJob { claimed: ClaimedJob { lease, .. }, .. } in self.ready.drain(..) {
            // Before the store: a renewal that follows the release would report the lease as lost.
            state.leases.release(&lease.id);
            if let Err(error) = state.store.release(&lease, Duration::ZERO, state.now()).await {
                tracing::warn!(%error, "a job that was claimed is not free before its lease ends");
            }
        }
        state.is_claiming.store(false, Ordering::Relaxed);
    }

    /// Holds the lease of a claimed job, which is renewed from now on.
    fn hold(&mut self, claimed: ClaimedJob, asked_at: Duration) {
        self.state.leases.hold(claimed.lease.clone(), asked_at);
        // The wall clock jumped, so that the lease of a job of this process seemed to have run out.
        if self.state.renew_active(&claimed.lease) {
            return;
        }
        match self.ready.iter_mut().find(|ready| ready.claimed.lease.id == claimed.lease.id) {
            Some(ready) => (ready.claimed, ready.asked_at) = (claimed, asked_at),
            None => self.ready.push_back(ReadyJob { claimed, asked_at, examined: None }),
        }
    }

    /// Examines the files of the ready jobs by one question. If one of the files does not answer, each is examined when its
    /// job begins.
    async fn examine_ready(&mut self) {
        let path = |ready: &ReadyJob| match &ready.claimed.job.spec.source {
            JobSource::File { path } => Some(path.clone()),
            JobSource::Url { .. } => None,
        };
        let paths: Vec<Option<PathBuf>> = self.ready.iter().map(path).collect();
        let examine = move || -> Vec<_> {
            paths.iter().map(|path| path.as_ref().map(|path| regular_stamp(path))).collect()
        };
        let Some(examined) = self.state.examiner.ask(examine).await else { return };
        for (ready, examined) in self.ready.iter_mut().zip(examined) {
            ready.examined = examined;
        }
    }

    /// Begins the first of the ready jobs. Returns its upload; `None` if the job needs none in this process.
    async fn begin_first(&mut self) -> Option<RunnerJob<Arc<IngestJob>>> {
        let ready = self.ready.pop_front()?;
        let job = self.begin(ready).await;
        // Claimed jobs that wait here have no task of their own: the end of the run has to release them.
        self.state.is_claiming.store(!self.ready.is_empty(), Ordering::Relaxed);
        job
    }

    /// Begins a claimed job. Returns its upload; `None` if the job needs none in this process: it has failed, it is
    /// released, its lease is lost, or the service fetches its URL.
    async fn begin(&mut self, ready: ReadyJob) -> Option<RunnerJob<Arc<IngestJob>>> {
        let ReadyJob { claimed: ClaimedJob { job, lease }, examined, .. } = ready;
        self.number += 1;
        let (state, number) = (&self.state, self.number);
        // Another worker may have the job by now.
        if !state.leases.holds(&lease) {
            return None;
        }
        let (name, lease) = (job.spec.source.name().into_owned(), Arc::new(Mutex::new(lease)));
        let (started, started_at) = (Instant::now(), state.time());
        let checked = check(state, &job, examined).await;
        let stamp = checked.as_ref().ok().copied().flatten();
        let job = IngestJob { number, job, name, started, started_at, lease, stamp };
        let shutdown = state.begin(&job);
        if exceeds_limit(state) {
            // The end comes first: this run would claim the job again.
            state.end_with(IngestEnd::MaxTransfer);
        }
        self.start(Arc::new(job), shutdown, checked.map(drop)).await
    }

    /// Starts a checked job: returns the upload of a file, and passes a URL on to the service.
    async fn start(
        &self,
        job: Arc<IngestJob>,
        shutdown: ShutdownSignal,
        checked: Result<(), Box<JobFailure>>,
    ) -> Option<RunnerJob<Arc<IngestJob>>> {
        let state = &self.state;
        // The run may have ended during the claim, and no longer forwards its shutdown to a new job.
        if state.is_ending() {
            finish::release(state, &job).await;
            return None;
        }
        if let Err(failure) = checked {
            finish::failed(state, &job, *failure, None).await;
            return None;
        }
        let JobSource::File { path } = &job.job.spec.source else {
            // Waits for a place: a run fetches as many URLs at a time as it uploads files.
            let _ = self.urls.send(FetchJob { job, shutdown }).await;
            return None;
        };
        let (mut upload, sha256) = upload_of(state, &job.job, path);
        if state.options.shared_account.is_some() {
            upload = upload.container_gate(orphans::gate(state, &job));
        }
        Some(RunnerJob::new(job, upload).with_sha256(sha256).with_shutdown(shutdown))
    }
}

/// Returns the upload of a job's file, and the SHA-256 to compute with it.
fn upload_of(state: &WorkState, job: &Job, path: &Path) -> (Upload, Sha256Request) {
    let (spec, record) = (&job.spec, &job.record);
    let mut options = spec.options.clone();
    if spec.token_sha256.is_some() {
        options.upload_token.clone_from(&state.options.upload_token);
    }
    let mut upload = state.client.upload(path).options(options);
    if let Some(account) = &state.options.shared_account {
        upload = shared_upload(upload, account, job);
    }
    // Only the first attempt begins anew; a later one goes on with it.
    let is_first = record.acknowledged_bytes == 0 && job.checkpoint.is_none();
    if state.options.resubmit == Resubmit::Anew && is_first {
        upload = upload.again();
    }
    let has_sha256 = state.options.has_sha256 || spec.sha256.is_some();
    (upload, if has_sha256 { Sha256Request::File } else { Sha256Request::None })
}

/// Prepares an upload for a queue that several hosts work on.
fn shared_upload(upload: Upload, account: &Account, job: &Job) -> Upload {
    let record = &job.record;
    let mark = video_mark(account, &job.spec.id, record.restarts);
    // Every claim after the first one follows a worker that may have created the video.
    let has_predecessor = record.lost_workers > 0 || record.attempts_without_progress > 0;
    let mut upload = upload.shared_mark(mark, has_predecessor || record.acknowledged_bytes > 0);
    // The workers agree on the video in the record: this host's journal may have another one.
    if let Some(video_id) = orphans::named_video(job) {
        upload = upload.shared_container(video_id);
    }
    // Without acknowledged bytes, content in a video that the submitter chose may be another client's.
    if record.acknowledged_bytes > 0 {
        upload = upload.begun_elsewhere();
    }
    upload
}

/// Checks a claimed job before anything is sent. Returns the stamp of its file.
async fn check(
    state: &WorkState,
    job: &Job,
    examined: Option<Result<FileStamp, Box<JobFailure>>>,
) -> Result<Option<FileStamp>, Box<JobFailure>> {
    check_token(state, job)?;
    let JobSource::File { path } = &job.spec.source else { return Ok(None) };
    let stamp = match examined {
        Some(stamp) => stamp?,
        None => examine(state, path).await?,
    };
    let content = ContentStamp { size: stamp.bytes, mtime_ns: stamp.modified_ns };
    // The id of the job stands for one content. The next submission of the file gives another job.
    if job.spec.stamp.is_some_and(|submitted| submitted != content) {
        let failure = JobFailure::permanent(
            "source_changed",
            format!("{}: has changed since its job was submitted", path.display()),
        );
        return Err(Box::new(failure));
    }
    Ok(Some(stamp))
}

/// Fails if the job was submitted with an upload token that this run does not have.
fn check_token(state: &WorkState, job: &Job) -> Result<(), Box<JobFailure>> {
    let token = state.options.upload_token.as_ref().map(|token| token_digest(token.reveal()));
    if job.spec.token_sha256.is_some() && job.spec.token_sha256 != token {
        let failure = JobFailure::permanent(
            "upload_token",
            "the job was submitted with an upload token, and this run has another one or none",
        );
        return Err(Box::new(failure));
    }
    Ok(())
}

/// Returns the stamp of a file whose disk may not answer.
async fn examine(state: &WorkState, path: &Path) -> Result<FileStamp, Box<JobFailure>> {
    let examined = path.to_owned();
    state.examiner.ask(move || regular_stamp(&examined)).await.unwrap_or_else(|| {
        let message =
            format!("{}: its disk has not answered for {} s", path.display(), LONGEST_SILENCE.as_secs());
        Err(Box::new(JobFailure::temporary("stalled", message)))
    })
}

fn exceeds_limit(state: &WorkState) -> bool {
    let is_cautious = state.options.cutoff == CutoffMode::Cautious;
    // Not `>=`: a file that ends exactly at the limit still fits.
    is_cautious && state.options.max_transfer.is_some_and(|limit| state.committed() > limit)
}
