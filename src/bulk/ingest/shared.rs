//! The state that the submission and the work of one run share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, mpsc};

use super::event::{IngestEnd, IngestEvent};
use super::options::IngestOptions;
use super::outage::Outage;
use super::report_writer::ReportWriter;
use crate::bulk::job_id::JobId;
use crate::bulk::job_source::JobSource;
use crate::bulk::job_state::JobStateName;
use crate::bulk::report::{ReportRow, RowState};
use crate::bulk::store::{JobStore, JobStoreError};
use crate::bulk::unix_time::UnixMillis;

/// Numbers of open jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenJobs {
    pub(super) queued: u64,
    /// The sum of the lengths of the queued files.
    pub(super) queued_bytes: u64,
    pub(super) running: u64,
}

/// The state that the submission and the work of one run share. A run that only submits has no other.
#[derive(Debug)]
pub(super) struct SharedState {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) options: IngestOptions,
    pub(super) report: ReportWriter,
    pub(super) events: mpsc::Sender<IngestEvent>,
    /// Notified when a job has ended or was submitted: the next claim may have another answer.
    pub(super) news: Notify,
    pub(super) failed_jobs: AtomicU64,
    /// `true` if the run goes on until it is stopped.
    pub(super) is_endless: bool,
    outage: Mutex<Outage>,
    are_inputs_read: AtomicBool,
    end: Mutex<Option<IngestEnd>>,
}

impl SharedState {
    pub(super) fn new(
        store: Arc<dyn JobStore>,
        options: IngestOptions,
        report: ReportWriter,
        events: mpsc::Sender<IngestEvent>,
        has_watch: bool,
    ) -> SharedState {
        let is_endless = options.waits_for_jobs || has_watch;
        SharedState {
            store,
            options,
            report,
            events,
            news: Notify::new(),
            failed_jobs: AtomicU64::new(0),
            is_endless,
            outage: Mutex::default(),
            are_inputs_read: AtomicBool::new(false),
            end: Mutex::default(),
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

    /// Ends the run. The first reason counts, except that a failure to record hides an orderly end. No further job is
    /// claimed.
    pub(super) fn end_with(&self, end: IngestEnd) {
        {
            let mut reason = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            // Jobs in hand are neither finished nor released then, which a shutdown or a limit promises.
            let hides = |earlier: &IngestEnd| match (earlier, &end) {
                // The later one counts all rows that are not in the report.
                (IngestEnd::Report(_), IngestEnd::Report(_)) => true,
                (earlier, end) => cannot_record(end) && !is_failure(earlier),
            };
            if reason.as_ref().is_none_or(hides) {
                *reason = Some(end);
            }
        }
        self.news.notify_waiters();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn take_end(&self) -> Option<IngestEnd> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_inputs_read(&self) {
        self.are_inputs_read.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    pub(super) fn are_inputs_read(&self) -> bool {
        self.are_inputs_read.load(Ordering::Acquire)
    }

    /// Returns `true` if as many jobs have failed as end the run.
    pub(super) fn is_at_max_errors(&self) -> bool {
        let failed = self.failed_jobs.load(Ordering::Relaxed);
        self.options.max_errors.is_some_and(|most| failed > 0 && failed >= most)
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
                JobStateName::Queued => {
                    open.queued += count.jobs;
                    open.queued_bytes += count.bytes;
                }
                JobStateName::Running => open.running += count.jobs,
                _ => {}
            }
        }
        Ok(open)
    }

    /// Returns `true` if the run has ended because ends of jobs cannot be recorded.
    pub(super) fn cannot_record(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(cannot_record)
    }

    /// Writes the rows that wait for a locked report. A run whose report is not complete ends with that failure, unless
    /// another failure came first.
    pub(super) async fn finish_report(&self) {
        let Err(error) = self.report.finish().await else { return };
        let message = error.to_string();
        self.end_with(IngestEnd::Report(error));
        // The end names one failure, and the rows would be missing without a word.
        if !matches!(*self.end.lock().unwrap_or_else(PoisonError::into_inner), Some(IngestEnd::Report(_))) {
            tracing::warn!("{message}");
        }
    }

    /// Creates a row of the report.
    pub(super) fn row(&self, id: &JobId, source: &JobSource, state: RowState) -> ReportRow {
        let mut row = ReportRow::new(id.as_str(), Some(source.into()), state);
        row.finished_at = Some(self.time());
        row.host = self.options.owner.host().to_owned();
        row
    }
}

fn cannot_record(end: &IngestEnd) -> bool {
    matches!(end, IngestEnd::Store(_) | IngestEnd::Report(_))
}

fn is_failure(end: &IngestEnd) -> bool {
    cannot_record(end) || matches!(end, IngestEnd::Fatal(_))
}
