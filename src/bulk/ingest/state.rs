//! The state that the parts of one ingestion share while jobs are worked on.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::deferred_rows::DeferredRows;
use super::examiner::Examiner;
use super::ingest_job::{IngestJob, LeftVideo};
use super::leases::{Leases, LossReason, boot_time};
use super::service_watch::ServiceWatch;
use super::shared::SharedState;
use crate::bulk::job_id::JobId;
use crate::bulk::job_state::JobFailure;
use crate::bulk::lease::Lease;
use crate::bulk::report::ReportRow;
use crate::bulk::shutdown::{Shutdown, ShutdownSignal};
use crate::bulk::store::{JobCheckpoint, JobStoreError};
use crate::upload::{Client, Progress, Settings};

/// The state that the parts of one ingestion share while jobs are worked on.
#[derive(Debug)]
pub(super) struct WorkState {
    shared: Arc<SharedState>,
    pub(super) client: Client,
    pub(super) leases: Leases,
    pub(super) examiner: Examiner,
    pub(super) shutdown: ShutdownSignal,
    pub(super) started: Instant,
    /// `true` from a claim until all of its jobs are with the runner or have ended.
    pub(super) is_claiming: AtomicBool,
    active: Mutex<HashMap<JobId, ActiveIngest>>,
    /// The bytes that the ended jobs of this run have sent.
    sent_before: AtomicU64,
    service: Mutex<ServiceWatch>,
    left_videos: Mutex<VecDeque<LeftVideo>>,
    deferred: Mutex<DeferredRows>,
}

/// A job under way.
#[derive(Debug)]
pub(super) struct ActiveIngest {
    pub(super) shutdown: Shutdown,
    lease: Arc<Mutex<Lease>>,
    /// The reason why the lease was lost.
    lost: Option<LossReason>,
    /// `true` once the job is let go because the service does not answer.
    is_set_aside: bool,
    size: u64,
    sent: u64,
    /// `true` if a worker has vanished with the job since its last progress.
    has_lost_worker: bool,
    /// `true` once the upload has a video or has sent bytes.
    has_begun: bool,
    checkpoint_number: u64,
    checkpoint_at: Option<Instant>,
    /// `true` once a checkpoint has named the video.
    is_named: bool,
    video_id: Option<String>,
}

impl WorkState {
    pub(super) fn new(
        shared: Arc<SharedState>,
        client: Client,
        leases: Leases,
        shutdown: ShutdownSignal,
    ) -> WorkState {
        let (active, sent_before, examiner) = (Mutex::default(), AtomicU64::new(0), Examiner::default());
        let (started, is_claiming) = (Instant::now(), AtomicBool::new(false));
        let service = Mutex::new(ServiceWatch::new(shared.options.service_patience));
        let (left_videos, deferred) = (Mutex::default(), Mutex::default());
        WorkState {
            shared,
            client,
            leases,
            examiner,
            shutdown,
            started,
            is_claiming,
            active,
            sent_before,
            service,
            left_videos,
            deferred,
        }
    }

    /// Returns the part that the submission uses, too.
    pub(super) fn shared(&self) -> Arc<SharedState> {
        self.shared.clone()
    }

    pub(super) fn active(&self) -> MutexGuard<'_, HashMap<JobId, ActiveIngest>> {
        // Each change of the map is a single call, so that a panic elsewhere leaves it whole.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job that was claimed. Returns its shutdown.
    pub(super) fn begin(&self, job: &IngestJob) -> ShutdownSignal {
        let size = job.bytes().unwrap_or(0);
        let active = ActiveIngest {
            shutdown: Shutdown::new(),
            lease: job.lease.clone(),
            lost: None,
            is_set_aside: false,
            size,
            sent: 0,
            has_lost_worker: job.job.record.lost_workers > 0,
            has_begun: false,
            checkpoint_number: 0,
            checkpoint_at: None,
            is_named: false,
            video_id: None,
        };
        let signal = active.shutdown.signal();
        self.active().insert(job.job.spec.id.clone(), active);
        self.deferred().remove(&job.job.spec.id);
        signal
    }

    /// Returns the rows of the jobs that wait for another attempt.
    pub(super) fn deferred(&self) -> MutexGuard<'_, DeferredRows> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the most jobs to claim now; `None` if no place is free, or if it is better to claim more at once later.
    ///
    /// Small files are uploaded in a moment: beside [`concurrent`](crate::bulk::RunnerOptions::concurrent) others, some wait
    /// for each of the steps that many of them share. None waits behind a job that a worker has vanished with: should that job
    /// be the cause, the others would be blamed, too.
    pub(super) fn places(&self) -> Option<usize> {
        let active = self.active();
        let large = active.values().filter(|job| job.size > Settings::SMALL_FILE_BYTES).count();
        let concurrent = self.options.runner.concurrent.max(1);
        let has_suspect = active.values().any(|job| job.has_lost_worker);
        let ahead = if has_suspect { 0 } else { ahead_of(concurrent) };
        let free = (concurrent + ahead).saturating_sub(active.len());
        // A claim is a transaction of the store and a question for the files, for one job as for many: it waits while
        // enough jobs are under way for every transfer.
        let is_worth_it = active.len() < concurrent || free >= ahead.div_ceil(CLAIMS_OF_AHEAD);
        (large < concurrent && free > 0 && is_worth_it).then_some(free)
    }

    /// Replaces the lease of a job under way. Returns `false` if the job is not under way.
    pub(super) fn renew_active(&self, lease: &Lease) -> bool {
        let active = self.active();
        let Some(job) = active.get(&lease.id) else { return false };
        *job.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease.clone();
        true
    }

    /// Returns `true` if the last checkpoint of a job under way is older than `interval`.
    pub(super) fn is_checkpoint_due(&self, id: &JobId, interval: Duration) -> bool {
        let active = self.active();
        active.get(id).is_some_and(|job| job.checkpoint_at.is_none_or(|at| at.elapsed() >= interval))
    }

    /// Returns `true` if other hosts do not know the video of a job under way.
    pub(super) fn is_unnamed(&self, id: &JobId) -> bool {
        self.options.shared_account.is_some() && self.active().get(id).is_some_and(|job| !job.is_named)
    }

    /// Returns the next checkpoint of a job; `None` if the job is not under way.
    pub(super) fn next_checkpoint(
        &self,
        id: &JobId,
        video_id: &str,
        acknowledged_bytes: u64,
    ) -> Option<JobCheckpoint> {
        let mut active = self.active();
        let job = active.get_mut(id)?;
        // Before the write: a slow store must not receive a checkpoint for each progress.
        (job.checkpoint_at, job.is_named) = (Some(Instant::now()), true);
        job.video_id = Some(video_id.to_owned());
        job.checkpoint_number += 1;
        let content = serde_json::json!({ "video_id": video_id }).to_string();
        Some(JobCheckpoint::new(job.checkpoint_number, acknowledged_bytes, content))
    }

    /// Records a checkpoint. A job of a shared queue whose lease is lost is given up at once: another worker may be about
    /// to fill a video of its own.
    pub(super) async fn record_checkpoint(
        &self,
        job: &IngestJob,
        checkpoint: JobCheckpoint,
    ) -> Result<(), JobStoreError> {
        let recorded = self.store.checkpoint(&job.lease(), checkpoint, self.now()).await;
        if let Err(JobStoreError::LeaseLost { reason, .. }) = &recorded
            && self.options.shared_account.is_some()
        {
            self.lose(&job.job.spec.id, LossReason::Refused(reason.clone()));
        }
        recorded
    }

    /// Gives up a job whose lease is lost.
    pub(super) fn lose(&self, id: &JobId, reason: LossReason) {
        if let Some(job) = self.active().get_mut(id) {
            job.lost = Some(reason);
            // A request that creates a video is awaited: its answer names the video, which may have to be deleted.
            if self.options.shared_account.is_some() && job.video_id.is_none() {
                let _ = job.shutdown.stop(Duration::MAX, Instant::now());
            } else {
                job.shutdown.cancel(Instant::now());
            }
        }
    }

    /// Gives up every job under way, so that other workers can take them. Returns their number.
    pub(super) fn set_all_aside(&self) -> usize {
        let now = Instant::now();
        let mut active = self.active();
        for job in active.values_mut() {
            job.is_set_aside = true;
            job.shutdown.cancel(now);
        }
        active.len()
    }

    /// Returns the reason why the lease of a job under way was lost.
    pub(super) fn lost(&self, id: &JobId) -> Option<LossReason> {
        self.active().get(id).and_then(|job| job.lost.clone())
    }

    /// Returns `true` if the job is let go because the service does not answer.
    pub(super) fn is_set_aside(&self, id: &JobId) -> bool {
        self.active().get(id).is_some_and(|job| job.is_set_aside)
    }

    /// Records the video of a job under way.
    pub(super) fn saw_video(&self, id: &JobId, video_id: &str) {
        if let Some(job) = self.active().get_mut(id) {
            job.video_id = Some(video_id.to_owned());
        }
    }

    /// Returns the video of a job under way: the one of this run, or the one that an earlier worker has begun to fill.
    pub(super) fn video_of(&self, job: &IngestJob) -> Option<String> {
        let of_run = self.active().get(&job.job.spec.id).and_then(|active| active.video_id.clone());
        of_run.or_else(|| job.job.checkpoint_video())
    }

    /// Removes a job that has ended.
    pub(super) fn finish(&self, id: &JobId) {
        // First, because a renewal that is refused from here on is no loss of the job.
        self.leases.release(id);
        let job = self.active().remove(id);
        self.news.notify_waiters();
        if let Some(job) = job {
            self.sent_before.fetch_add(job.sent, Ordering::Relaxed);
        }
    }

    /// Removes a job whose lease was lost. Its video is examined later.
    pub(super) fn finish_lost(&self, job: &Arc<IngestJob>) {
        let id = &job.job.spec.id;
        let video_id = self.active().get(id).and_then(|active| active.video_id.clone());
        // A store of one host has one journal, which keeps the video for the next claim.
        if let Some(video_id) = video_id.filter(|_| self.options.shared_account.is_some()) {
            self.leave_video(LeftVideo { job: job.clone(), video_id });
        }
        self.finish(id);
    }

    /// Keeps a video to be examined.
    pub(super) fn leave_video(&self, left: LeftVideo) {
        let mut videos = self.left_videos.lock().unwrap_or_else(PoisonError::into_inner);
        if videos.len() < MOST_LEFT_VIDEOS {
            videos.push_back(left);
        } else {
            let LeftVideo { job, video_id } = left;
            tracing::warn!(%video_id, file = job.name, "a video may be left beside the one of its job");
        }
    }

    /// Returns the next video to be examined.
    pub(super) fn next_left_video(&self) -> Option<LeftVideo> {
        self.left_videos.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn service(&self) -> MutexGuard<'_, ServiceWatch> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time until the next probe of a service that does not answer; `None` if the run does not rest.
    pub(super) fn time_to_rest(&self) -> Option<Duration> {
        self.service().rest(boot_time())
    }

    pub(super) fn advance(&self, id: &JobId, progress: &Progress) {
        if let Some(job) = self.active().get_mut(id) {
            // An upload that begins anew counts from 0 again, and its bytes were sent all the same.
            job.sent = job.sent.max(progress.sent_bytes.saturating_sub(progress.resumed_bytes));
            job.has_begun |= progress.video_id.is_some() || progress.sent_bytes > 0;
            job.has_lost_worker &= progress.acknowledged_bytes <= progress.resumed_bytes;
            if progress.video_id.is_some() {
                job.video_id.clone_from(&progress.video_id);
            }
        }
    }

    /// Returns the bytes that this run has sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent_before.load(Ordering::Relaxed) + self.active().values().map(|job| job.sent).sum::<u64>()
    }

    /// Returns the bytes that this run will have sent when the jobs under way have ended.
    pub(super) fn committed(&self) -> u64 {
        let active: u64 = self.active().values().map(|job| job.size.max(job.sent)).sum();
        self.sent_before.load(Ordering::Relaxed) + active
    }

    /// Gives up the jobs that wait in the engine and have not begun.
    pub(super) fn cancel_unbegun(&self) {
        let now = Instant::now();
        let mut active = self.active();
        // A job without a size has a URL, whose fetch the service has begun.
        let unbegun = active.values_mut().filter(|job| !job.has_begun && job.size > 0);
        unbegun.for_each(|job| job.shutdown.cancel(now));
    }
}

impl Deref for WorkState {
    type Target = SharedState;

    fn deref(&self) -> &SharedState {
        &self.shared
    }
}

/// The videos that wait to be examined: more than the jobs that a worker loses in one outage.
const MOST_LEFT_VIDEOS: usize = 1000;

/// Adds a failure to a row.
pub(super) fn with_failure(row: ReportRow, failure: &JobFailure) -> ReportRow {
    row.with_failure(failure)
}

/// Returns the number of small jobs under way beside `concurrent` others.
pub(super) fn ahead_of(concurrent: usize) -> usize {
    concurrent.saturating_mul(2).min(MOST_AHEAD)
}

/// The number of claims for the jobs that are ahead.
const CLAIMS_OF_AHEAD: usize = 3;

/// Each job under way has a lease, which another worker has to wait for if this host vanishes.
const MOST_AHEAD: usize = 64;
