//! The output about the end of a job, or of an attempt at it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlift::bulk::event::{millis, odd_name};
use ringlift::bulk::totals::FileEnd;
use ringlift::bulk::{ErrorEvent, FileDone, IngestJob, JobFailure, JobResult, JsonEvent, RowState};
use ringlift::{ErrorKind, Uploaded};

use super::{IngestView, emit};
use crate::cli::console::{Console, UploadRemains, duration};
use crate::cli::escape::visible;
use crate::cli::events::{CommandEvent, error_event};
use crate::cli::exit::CommandError;
use crate::cli::ingest::ending::exit_of;

impl IngestView {
    pub(super) fn failed(
        &mut self,
        job: &IngestJob,
        failure: &JobFailure,
        error: Option<&CommandError>,
        console: &Console,
    ) {
        self.running.remove(&job.number);
        self.numbers.lock().totals.end(job.number, job.bytes(), FileEnd::Failed, Instant::now());
        self.count_end_of_failure(&job.name, failure, error.and_then(CommandError::advice));
        let elapsed_ms = millis(job.started.elapsed());
        let Some(error) = error else {
            self.emit_failure(&job.name, job.path(), failure, elapsed_ms, false, console);
            console.alert(format_args!("{}: {}", visible(&job.name), failure.message));
            return;
        };
        let file = job.name.as_str();
        let event = JsonEvent::FileFailed { file, elapsed_ms, resumable: false, error: error_event(error) };
        emit(job, &event, console);
        console.print_file_error(file, error, UploadRemains::Nothing);
    }

    pub(super) fn count_end_of_failure(&mut self, name: &str, failure: &JobFailure, advice: Option<&str>) {
        self.summary.files_failed += 1;
        self.exits.add(exit_of(failure));
        self.numbers.lock().fail(name, failure, advice);
    }

    pub(super) fn deferred(
        &mut self,
        job: &IngestJob,
        failure: &JobFailure,
        delay: Duration,
        console: &Console,
    ) {
        self.running.remove(&job.number);
        {
            let mut numbers = self.numbers.lock();
            numbers.totals.defer(job.number, job.bytes());
            numbers.fail(&job.name, failure, None);
        }
        let elapsed = millis(job.started.elapsed());
        self.emit_failure(&job.name, job.path(), failure, elapsed, true, console);
        // A lock is tried again and again, and its line has been printed if the claim found the same reason on record.
        let is_of_a_lock = failure.kind == ErrorKind::Busy.name();
        if is_of_a_lock && job.job.record.last_failure.as_ref() == Some(failure) {
            return;
        }
        let (name, message) = (visible(&job.name), &failure.message);
        if delay.is_zero() {
            console.note(format_args!("{name}: {message}; another worker may take it"));
        } else {
            console.note(format_args!("{name}: {message}; another attempt in {}", duration(delay)));
        }
    }

    /// Counts a deferred job that has no other end, as its row in the report does.
    pub(super) fn left_open(&mut self, state: RowState) {
        match state {
            RowState::Cancelled => self.summary.files_cancelled += 1,
            _ => self.summary.files_failed += 1,
        }
    }

    pub(super) fn done(
        &mut self,
        job: &Arc<IngestJob>,
        result: &JobResult,
        uploaded: Option<&Uploaded>,
        sha256: Option<&str>,
        console: &Console,
    ) {
        let bytes = uploaded.map_or(0, |uploaded| uploaded.bytes);
        self.end(job, FileEnd::Done { bytes });
        self.numbers.lock().succeed();
        self.summary.files_done += 1;
        self.summary.bytes += bytes;
        let sha256 = sha256.filter(|_| self.shows_sha256);
        match uploaded {
            Some(uploaded) => {
                self.summary.sent_bytes += uploaded.sent_bytes;
                emit(job, &JsonEvent::FileDone(FileDone::new(&job.name, uploaded, sha256)), console);
            }
            None => {
                self.counts.videos_created += 1;
                let (file, video_id) = (job.name.as_str(), result.video_id.as_str());
                let elapsed_ms = millis(job.started.elapsed());
                console.emit(&CommandEvent::Fetched { file, video_id, elapsed_ms });
            }
        }
        console.result(format_args!("{}\t{}", visible(&job.name), result.video_id));
    }

    pub(super) fn cancelled(&mut self, job: &IngestJob) {
        self.summary.files_cancelled += 1;
        self.end(job, FileEnd::Cancelled);
    }

    /// Counts a job whose lease is lost. The worker that has the job now counts its end.
    pub(super) fn lost(&mut self, job: &IngestJob, is_cancelled: bool) {
        if is_cancelled {
            return self.cancelled(job);
        }
        self.running.remove(&job.number);
        self.numbers.lock().totals.defer(job.number, job.bytes());
    }

    /// Reports a job that the end of the run has stopped. Another run can resume it.
    pub(super) fn stopped(&mut self, job: &IngestJob, failure: &CommandError, console: &Console) {
        self.cancelled(job);
        let (file, error) = (job.name.as_str(), error_event(failure));
        let elapsed_ms = millis(job.started.elapsed());
        emit(job, &JsonEvent::FileFailed { file, elapsed_ms, resumable: true, error }, console);
        console.print_file_error(file, failure, UploadRemains::Nothing);
    }

    pub(super) fn emit_failure(
        &self,
        file: &str,
        path: Option<&Path>,
        failure: &JobFailure,
        elapsed_ms: u64,
        resumable: bool,
        console: &Console,
    ) {
        let error = ErrorEvent::of_job(failure);
        let event = JsonEvent::FileFailed { file, elapsed_ms, resumable, error };
        let _ = console.emit_for_file(path.and_then(odd_name), &event);
    }

    pub(super) fn end(&mut self, job: &IngestJob, end: FileEnd) {
        self.running.remove(&job.number);
        self.numbers.lock().totals.end(job.number, job.bytes(), end, Instant::now());
    }
}
