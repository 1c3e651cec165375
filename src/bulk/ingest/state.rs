//! The state that the parts of one ingestion share while jobs are worked on.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::examiner::Examiner;
use super::ingest_job::IngestJob;
use super::leases::Leases;
use super::shared::SharedState;
use crate::bulk::job_id::JobId;
use crate::bulk::job_state::JobFailure;
use crate::bulk::lease::Lease;
use crate::bulk::report::ReportRow;
use crate::bulk::shutdown::{Shutdown, ShutdownSignal};
use crate::upload::{Client, Progress};

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
}

/// A job under way.
#[derive(Debug)]
pub(super) struct ActiveIngest {
    pub(super) shutdown: Shutdown,
    lease: Arc<Mutex<Lease>>,
    /// The reason why the lease was lost.
    lost: Option<String>,
    size: u64,
    sent: u64,
    /// `true` once the upload has a video or has sent bytes.
    has_begun: bool,
    pub(super) checkpoint_number: u64,
    pub(super) checkpoint_at: Option<Instant>,
    pub(super) video_id: Option<String>,
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
        WorkState { shared, client, leases, examiner, shutdown, started, is_claiming, active, sent_before }
    }

    /// Returns the part that the submission uses, too.
    pub(super) fn shared(&self) -> Arc<SharedState> {
        self.shared.clone()
    }

    pub(super) fn active(&self) -> MutexGuard<'_, HashMap<JobId, ActiveIngest>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job that was claimed. Returns its shutdown.
    pub(super) fn begin(&self, job: &IngestJob) -> ShutdownSignal {
        let size = job.bytes().unwrap_or(0);
        let active = ActiveIngest {
            shutdown: Shutdown::new(),
            lease: job.lease.clone(),
            lost: None,
            size,
            sent: 0,
            has_begun: false,
            checkpoint_number: 0,
            checkpoint_at: None,
            video_id: None,
        };
        let signal = active.shutdown.signal();
        self.active().insert(job.job.spec.id.clone(), active);
        signal
    }

    /// Returns the most jobs to claim now; `None` if no place is free.
    ///
    /// Small files are uploaded in a moment: beside [`concurrent`](crate::bulk::RunnerOptions::concurrent) others, some wait
    /// for each of the steps that many of them share.
    pub(super) fn places(&self) -> Option<usize> {
        let active = self.active();
        let large = active.values().filter(|job| job.size > SMALL_BYTES).count();
        let concurrent = self.options.runner.concurrent.max(1);
        let free = (concurrent + ahead_of(concurrent)).saturating_sub(active.len());
        (large < concurrent && free > 0).then_some(free)
    }

    /// Replaces the lease of a job under way. Returns `false` if the job is not under way.
    pub(super) fn renew_active(&self, lease: &Lease) -> bool {
        let active = self.active();
        let Some(job) = active.get(&lease.id) else { return false };
        *job.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease.clone();
        true
    }

    /// Gives up a job whose lease is lost.
    pub(super) fn lose(&self, id: &JobId, reason: String) {
        if let Some(job) = self.active().get_mut(id) {
            job.lost = Some(reason);
            job.shutdown.cancel(Instant::now());
        }
    }

    /// Removes a job that has ended. Returns the reason if its lease was lost.
    pub(super) fn finish(&self, id: &JobId) -> Option<String> {
        self.leases.release(id);
        let job = self.active().remove(id);
        self.news.notify_waiters();
        let job = job?;
        self.sent_before.fetch_add(job.sent, Ordering::Relaxed);
        job.lost
    }

    pub(super) fn advance(&self, id: &JobId, progress: &Progress) {
        if let Some(job) = self.active().get_mut(id) {
            job.sent = job.sent.max(progress.sent_bytes.saturating_sub(progress.resumed_bytes));
            job.has_begun |= progress.video_id.is_some() || progress.sent_bytes > 0;
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

/// Adds a failure to a row.
pub(super) fn with_failure(row: ReportRow, failure: &JobFailure) -> ReportRow {
    row.with_failure(failure)
}

/// Returns the number of small jobs under way beside `concurrent` others.
pub(super) fn ahead_of(concurrent: usize) -> usize {
    concurrent.saturating_mul(2).min(MOST_AHEAD)
}

/// The most bytes of a small file. Such a file takes one request.
pub(super) const SMALL_BYTES: u64 = 1 << 20;

/// Each job under way has a lease, which another worker has to wait for if this host vanishes.
const MOST_AHEAD: usize = 64;
