//! The state that the parts of one ingestion share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::{Notify, mpsc};

use super::event::{IngestEnd, IngestEvent};
use super::examiner::Examiner;
use super::leases::Leases;
use super::options::IngestOptions;
use super::report_writer::ReportWriter;
use super::work::IngestJob;
use crate::bulk::entry::ManifestSource;
use crate::bulk::job_id::JobId;
use crate::bulk::job_source::JobSource;
use crate::bulk::job_state::{JobFailure, JobStateName};
use crate::bulk::lease::Lease;
use crate::bulk::report::{ReportRow, RowState};
use crate::bulk::shutdown::{Shutdown, ShutdownSignal};
use crate::bulk::store::{JobStore, JobStoreError};
use crate::bulk::unix_time::UnixMillis;
use crate::upload::{Client, Progress};

/// The state that the parts of one ingestion share.
#[derive(Debug)]
pub(super) struct RunState {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) client: Client,
    pub(super) options: IngestOptions,
    pub(super) leases: Leases,
    pub(super) examiner: Examiner,
    pub(super) report: ReportWriter,
    pub(super) shutdown: ShutdownSignal,
    pub(super) events: mpsc::Sender<IngestEvent>,
    /// Notified when a job has ended or was submitted: the next claim may have another answer.
    pub(super) news: Notify,
    pub(super) started: Instant,
    pub(super) failed_jobs: AtomicU64,
    are_inputs_read: AtomicBool,
    end: Mutex<Option<IngestEnd>>,
    active: Mutex<HashMap<JobId, ActiveIngest>>,
    /// The bytes that the ended jobs of this run have sent.
    sent_before: AtomicU64,
}

/// Numbers of open jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenJobs {
    pub(super) queued: u64,
    pub(super) running: u64,
}

/// A job under way.
#[derive(Debug)]
pub(super) struct ActiveIngest {
    pub(super) shutdown: Shutdown,
    lease: Arc<Mutex<Lease>>,
    /// The reason why the lease was lost.
    pub(super) lost: Option<String>,
    size: u64,
    sent: u64,
    /// `true` once the upload has a video or has sent bytes.
    has_begun: bool,
    pub(super) checkpoint_number: u64,
    pub(super) checkpoint_at: Option<Instant>,
    pub(super) video_id: Option<String>,
}

impl RunState {
    #[allow(clippy::too_many_arguments)] // Called once.
    pub(super) fn new(
        store: Arc<dyn JobStore>,
        client: Client,
        options: IngestOptions,
        leases: Leases,
        report: ReportWriter,
        shutdown: ShutdownSignal,
        events: mpsc::Sender<IngestEvent>,
    ) -> RunState {
        RunState {
            store,
            client,
            options,
            leases,
            examiner: Examiner::default(),
            report,
            shutdown,
            events,
            news: Notify::new(),
            started: Instant::now(),
            failed_jobs: AtomicU64::new(0),
            are_inputs_read: AtomicBool::new(false),
            end: Mutex::default(),
            active: Mutex::default(),
            sent_before: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis::from((self.options.clock)())
    }

    pub(super) fn time(&self) -> SystemTime {
        (self.options.clock)()
    }

    /// Sends an event. A reader that is gone has dropped the run, which ends with its next wait.
    pub(super) async fn emit(&self, event: IngestEvent) {
        let _ = self.events.send(event).await;
    }

    /// Ends the run. The first reason counts. No further job is claimed.
    pub(super) fn end_with(&self, end: IngestEnd) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
        self.news.notify_waiters();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take_end(&self) -> Option<IngestEnd> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn set_inputs_read(&self) {
        self.are_inputs_read.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    pub(super) fn are_inputs_read(&self) -> bool {
        self.are_inputs_read.load(Ordering::Acquire)
    }

    /// Waits until the submission has ended.
    pub(super) async fn wait_for_inputs(&self) {
        loop {
            // Created before the question, so that no news between the two is missed.
            let news = self.news.notified();
            if self.are_inputs_read() {
                return;
            }
            news.await;
        }
    }

    /// Returns the numbers of open jobs of the pool, with all processes.
    pub(super) async fn open_jobs(&self) -> Result<OpenJobs, JobStoreError> {
        let mut open = OpenJobs::default();
        for count in self.store.count().await?.into_iter().filter(|count| count.pool == self.options.pool) {
            match count.state {
                JobStateName::Queued => open.queued += count.jobs,
                JobStateName::Running => open.running += count.jobs,
                _ => {}
            }
        }
        Ok(open)
    }

    /// Returns `true` if the run has ended because ends of jobs cannot be recorded.
    pub(super) fn cannot_record(&self) -> bool {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*end, Some(IngestEnd::Store(_) | IngestEnd::Report(_)))
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

    /// Replaces the lease of a job under way. Returns `false` if the job is not under way.
    pub(super) fn renew_active(&self, lease: &Lease) -> bool {
        let active = self.active();
        let Some(job) = active.get(&lease.id) else { return false };
        *job.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease.clone();
        true
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

    /// Creates a row of the report.
    pub(super) fn row(&self, id: &JobId, source: &JobSource, state: RowState) -> ReportRow {
        let source = match source {
            JobSource::File { path } => ManifestSource::Path(path.clone()),
            JobSource::Url { url } => ManifestSource::Url(url.clone()),
        };
        let mut row = ReportRow::new(id.as_str(), Some(source), state);
        row.finished_at = Some(self.time());
        row.host = self.options.owner.host().to_owned();
        row
    }
}

/// Adds a failure to a row.
pub(super) fn with_failure(mut row: ReportRow, failure: &JobFailure) -> ReportRow {
    row.error_kind = Some(failure.kind.clone());
    row.error_slug.clone_from(&failure.slug);
    row.http_status = failure.http_status;
    row.message = Some(failure.message.clone());
    row.advice.clone_from(&failure.advice);
    row.video_id = row.video_id.or(failure.video_id.clone());
    row
}
