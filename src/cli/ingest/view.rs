//! The output of a run: events, results, messages, totals. Nothing is kept about a job that has ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlift::bulk::event::{millis, odd_name};
use ringlift::bulk::totals::FileEnd;
use ringlift::bulk::{
    ErrorEvent, FileDone, FileSkipped, IngestCounts, IngestEvent, IngestJob, JobFailure, JobId, JobResult,
    JobSource, JsonEvent, OwnerId, Presence, ProgressEvent, RunSummary, SkippedJob,
};
use ringlift::{Progress, UploadEvent, Uploaded};

use super::ending::{JobExits, LoopEnd, RunKind, exit_of, ingest_counts};
use super::estimate::{Estimator, counted};
use super::live::LiveNumbers;
use super::outage::{show_orphan, show_outage};
use super::source::source_name;
use crate::cli::console::{Console, UploadRemains, duration};
use crate::cli::escape::visible;
use crate::cli::events::{CommandEvent, Summary, error_event};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::jobs::JobEvent;
use crate::cli::notices::{FileLabel, Notices};
use crate::cli::values::Size;

/// The output of a run.
pub(in crate::cli) struct IngestView {
    kind: RunKind,
    numbers: LiveNumbers,
    notices: Notices,
    estimator: Estimator,
    is_estimated: bool,
    running: BTreeMap<u64, (Arc<IngestJob>, Progress, bool)>,
    summary: RunSummary,
    counts: IngestCounts,
    doubled: u64,
    exits: JobExits,
    shows_sha256: bool,
    started: Instant,
    events_due: Instant,
    line_due: Option<Instant>,
}

impl IngestView {
    pub(in crate::cli) fn new(
        kind: RunKind,
        numbers: LiveNumbers,
        estimator: Estimator,
        retries: u32,
        shows_sha256: bool,
    ) -> IngestView {
        let now = Instant::now();
        if kind == RunKind::Work {
            // A queue is complete at any time.
            numbers.lock().totals.found_all();
        }
        IngestView {
            kind,
            numbers,
            notices: Notices::new(retries),
            estimator,
            is_estimated: false,
            running: BTreeMap::new(),
            summary: RunSummary::default(),
            counts: ingest_counts(0, 0, 0),
            doubled: 0,
            exits: JobExits::default(),
            shows_sha256,
            started: now,
            events_due: now + EVENT_INTERVAL,
            line_due: None,
        }
    }

    pub(in crate::cli) fn event(&mut self, event: IngestEvent, console: &Console) {
        let now = Instant::now();
        match event {
            IngestEvent::Submitted { id, source, bytes } => self.submitted(&id, &source, bytes, console),
            IngestEvent::Doubled { id, source } => self.doubled(&id, &source, console),
            IngestEvent::Skipped(skipped) => self.skipped(&skipped, console),
            IngestEvent::InputFailed(failed) => {
                let path = failed.source.as_ref().and_then(|source| source.path());
                self.input_failed(path, &failed.failure, console);
            }
            IngestEvent::InputsRead { ignored, unused_rules } => {
                self.inputs_read(ignored, &unused_rules, console);
            }
            IngestEvent::Started(job) => {
                self.numbers.lock().totals.begin(job.number, &job.name, job.bytes(), now);
                self.running.insert(job.number, (job, Progress::default(), false));
            }
            IngestEvent::Progress(job, progress) => self.progress(&job, progress, now, console),
            IngestEvent::Upload(job, event) => self.upload_event(&job, &event, now, console),
            IngestEvent::Done { job, result, uploaded, sha256, after } => {
                self.done(&job, &result, uploaded.as_deref(), sha256.as_deref(), console);
                if let Err(error) = after {
                    self.exits.add(Exit::Failed);
                    console.alert(error);
                }
            }
            IngestEvent::Failed { job, failure, error } => {
                let error = error.map(|error| CommandError::Library(*error));
                self.failed(&job, &failure, error.as_ref(), console);
            }
            IngestEvent::Deferred { job, failure, delay } => self.deferred(&job, &failure, delay, console),
            IngestEvent::Cancelled(job) => self.cancelled(&job),
            IngestEvent::Stopped { job, error } => {
                self.stopped(&job, &CommandError::Library(*error), console);
            }
            IngestEvent::EarlierJobs { jobs } => console.note(format_args!(
                "{jobs} jobs of earlier runs are in the queue, and are uploaded too; `ringlift jobs` lists and \
                 cancels them"
            )),
            IngestEvent::Lost { job, reason } => {
                self.cancelled(&job);
                console.alert(format_args!("{}: given up: {reason}", visible(&job.name)));
            }
            IngestEvent::Orphan { job, video_id, fate } => {
                let kept = u64::from(show_orphan(&job, &video_id, &fate, console));
                self.counts.orphan_videos += kept;
                self.numbers.lock().orphans += kept;
            }
            event @ (IngestEvent::StoreAway { .. }
            | IngestEvent::StoreBack { .. }
            | IngestEvent::ServiceAway { .. }
            | IngestEvent::ServiceBack) => show_outage(&event, console),
            IngestEvent::Paused => {
                console.note("the pool is paused: `ringlift jobs resume` lets further jobs begin");
            }
            _ => {}
        }
    }

    /// Returns the numbers of files: under way, uploaded, failed.
    pub(super) fn file_counts(&self) -> (usize, usize, usize) {
        (self.running.len(), self.summary.files_done, self.summary.files_failed)
    }

    /// Takes over the number and the bytes of the jobs that are queued in the store.
    pub(super) fn queue(&mut self, jobs: u64, bytes: u64, console: &Console) {
        {
            let totals = &mut self.numbers.lock().totals;
            // Before, a job that is counted may still be announced by an event, and would count twice.
            if !totals.is_complete() {
                return;
            }
            totals.set_queue(jobs, bytes);
        }
        if self.kind == RunKind::Work && !self.is_estimated {
            self.estimator.add_queue(jobs, bytes);
            self.print_estimate(console);
        }
    }

    /// Takes over the workers that are present.
    pub(super) fn present(&mut self, present: &Presence, own: &OwnerId) {
        self.numbers.lock().set_present(present, own, Instant::now());
    }

    fn print_estimate(&mut self, console: &Console) {
        self.is_estimated = true;
        if self.estimator.files() > 0 {
            console.emit(&CommandEvent::Estimate(self.estimator.event()));
            console.note(format_args!("to upload: {}", self.estimator.text()));
        }
    }

    fn submitted(&mut self, id: &JobId, source: &JobSource, bytes: Option<u64>, console: &Console) {
        self.numbers.lock().totals.find(bytes);
        // A file that cannot be split fails with its upload.
        let _ = self.estimator.add(bytes);
        if self.kind == RunKind::Submit {
            JobEvent::queued(id, source, bytes).show(source, console);
        }
    }

    fn input_failed(&mut self, path: Option<&Path>, failure: &JobFailure, console: &Console) {
        let file = path.map(Path::to_string_lossy).unwrap_or_default();
        self.count_failure(&file, failure, None);
        self.emit_failure(&file, path, failure, 0, false, console);
        console.alert(&failure.message);
    }

    fn inputs_read(&mut self, ignored: u64, unused_rules: &[String], console: &Console) {
        self.counts.files_ignored = ignored;
        self.numbers.lock().totals.found_all();
        if self.kind == RunKind::Ingest {
            self.print_estimate(console);
        }
        if !unused_rules.is_empty() {
            console.note(format_args!("filter rules without effect: {}", unused_rules.join(", ")));
        }
    }

    fn doubled(&mut self, id: &JobId, source: &JobSource, console: &Console) {
        self.doubled += 1;
        let file = source_name(source);
        console.emit(&CommandEvent::Doubled { id: id.as_str(), file: &file });
        // A directory that was gone and is there again is no mistake of its user.
        if self.doubled <= MOST_DOUBLED && self.kind != RunKind::Watch {
            console.note(format_args!("{}: is named twice, and is one job", visible(&file)));
        }
    }

    fn skipped(&mut self, skipped: &SkippedJob, console: &Console) {
        self.counts.files_skipped += 1;
        {
            let totals = &mut self.numbers.lock().totals;
            totals.find(Some(skipped.bytes));
            // Bytes of a job that is not done are not at the service.
            let bytes = if skipped.video_id.is_some() { skipped.bytes } else { 0 };
            totals.end(NOT_BEGUN, Some(skipped.bytes), FileEnd::Skipped { bytes }, Instant::now());
        }
        let (file, reason) = (skipped.name.as_str(), skipped.reason.as_str());
        let (id, video_id) = (skipped.id.as_str(), skipped.video_id.as_deref());
        let event = JsonEvent::FileSkipped(FileSkipped { file, id, video_id, reason });
        let _ = console.emit_for_file(skipped.path.as_deref().and_then(odd_name), &event);
        if let Some(failure) = &skipped.failure {
            self.exits.add(exit_of(failure));
            console.alert(format_args!("{}: skipped: {reason}", visible(file)));
        }
        if let Some(failure) = &skipped.after_failure {
            self.exits.add(Exit::Failed);
            console.alert(failure);
        }
    }

    fn upload_event(&mut self, job: &IngestJob, event: &UploadEvent, now: Instant, console: &Console) {
        {
            let mut numbers = self.numbers.lock();
            numbers.totals.record(job.number, event, now);
            if let UploadEvent::ChunkDone { elapsed, .. } = event {
                numbers.chunk_times.record(*elapsed);
            }
        }
        let chunks = self.running.get(&job.number).and_then(|(_, progress, _)| progress.total_chunks);
        if let Some(line) = self.notices.record(FileLabel { name: &job.name, chunks }, event, now) {
            console.note(line);
        }
        if let Some(event) = JsonEvent::of(&job.name, event) {
            emit(job, &event, console);
        }
    }

    fn failed(
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

    /// Counts a failure of a file that has not been counted.
    fn count_failure(&mut self, name: &str, failure: &JobFailure, advice: Option<&str>) {
        {
            let totals = &mut self.numbers.lock().totals;
            totals.find(None);
            totals.end(NOT_BEGUN, None, FileEnd::Failed, Instant::now());
        }
        self.count_end_of_failure(name, failure, advice);
    }

    fn count_end_of_failure(&mut self, name: &str, failure: &JobFailure, advice: Option<&str>) {
        self.summary.files_failed += 1;
        self.exits.add(exit_of(failure));
        self.numbers.lock().fail(name, failure, advice);
    }

    fn deferred(&mut self, job: &IngestJob, failure: &JobFailure, delay: Duration, console: &Console) {
        self.running.remove(&job.number);
        {
            let mut numbers = self.numbers.lock();
            numbers.totals.defer(job.number, job.bytes());
            numbers.fail(&job.name, failure, None);
        }
        let elapsed = millis(job.started.elapsed());
        self.emit_failure(&job.name, job.path(), failure, elapsed, true, console);
        let (name, message) = (visible(&job.name), &failure.message);
        if delay.is_zero() {
            console.note(format_args!("{name}: {message}; another worker may take it"));
        } else {
            console.note(format_args!("{name}: {message}; another attempt in {}", duration(delay)));
        }
    }

    fn progress(&mut self, job: &Arc<IngestJob>, progress: Progress, now: Instant, console: &Console) {
        self.numbers.lock().totals.advance(job.number, &progress, now);
        let Some((_, last, has_changed)) = self.running.get_mut(&job.number) else { return };
        if let (None, Some(video_id)) = (&last.video_id, &progress.video_id) {
            emit(job, &JsonEvent::Created { file: &job.name, video_id }, console);
            if progress.resumed_bytes == 0 {
                self.counts.videos_created += 1;
            }
        }
        (*last, *has_changed) = (progress, true);
    }

    fn done(
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

    fn cancelled(&mut self, job: &IngestJob) {
        self.summary.files_cancelled += 1;
        self.end(job, FileEnd::Cancelled);
    }

    /// Reports a job that the end of the run has stopped. Another run can resume it.
    fn stopped(&mut self, job: &IngestJob, failure: &CommandError, console: &Console) {
        self.cancelled(job);
        let (file, error) = (job.name.as_str(), error_event(failure));
        let elapsed_ms = millis(job.started.elapsed());
        emit(job, &JsonEvent::FileFailed { file, elapsed_ms, resumable: true, error }, console);
        console.print_file_error(file, failure, UploadRemains::Nothing);
    }

    fn emit_failure(
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

    fn end(&mut self, job: &IngestJob, end: FileEnd) {
        self.running.remove(&job.number);
        self.numbers.lock().totals.end(job.number, job.bytes(), end, Instant::now());
    }

    /// Updates the display, and writes lines and events that are due.
    pub(super) fn show(&mut self, console: &Console) {
        if !console.output().has_room() {
            return;
        }
        let now = Instant::now();
        self.notices.due(now).into_iter().for_each(|line| console.note(line));
        {
            // Neither call waits: this thread must not, and frames are dropped.
            let numbers = self.numbers.lock();
            console.draw_progress(&numbers.totals, now);
            if let Some(interval) = console.stats_interval() {
                let due = *self.line_due.get_or_insert(now + interval);
                if now >= due {
                    self.line_due = Some(now + interval);
                    console.print_stats(&numbers.totals, now);
                }
            }
        }
        if now < self.events_due {
            return;
        }
        self.events_due = now + EVENT_INTERVAL;
        for (job, progress, has_changed) in self.running.values_mut().filter(|(_, _, changed)| *changed) {
            *has_changed = false;
            let event = ProgressEvent::new(&job.name, progress, job.started.elapsed());
            emit(job, &JsonEvent::Progress(event), console);
        }
    }

    pub(in crate::cli) fn conclude(&mut self, console: &Console) {
        self.notices.rest().into_iter().for_each(|line| console.note(line));
    }

    /// Prints the totals and returns the summary.
    pub(in crate::cli) fn summary(&mut self, ended: LoopEnd, console: &Console) -> Summary {
        let snapshot = self.numbers.lock().totals.snapshot(Instant::now());
        let mut totals = self.summary.clone();
        totals.retries = u32::try_from(snapshot.retries).unwrap_or(u32::MAX);
        totals.resent_bytes = snapshot.bytes.resent;
        totals.usage = Some(ended.usage);
        totals.ingest = Some(self.counts.clone());
        ended.alert(self.kind, console);
        if self.doubled > MOST_DOUBLED {
            console.note(format_args!("{} files or lines were named twice", self.doubled));
        }
        let (skipped, failed) = (self.counts.files_skipped, totals.files_failed);
        if self.kind == RunKind::Submit {
            let work = self.estimator.text();
            console.note(format_args!("submitted: {work}; {skipped} skipped, {failed} failed"));
        } else {
            console.note(format_args!(
                "{} uploaded, {skipped} skipped, {failed} failed, {} in {}",
                counted(totals.files_done as u64, "file"),
                Size(totals.sent_bytes),
                duration(self.started.elapsed()),
            ));
        }
        Summary { exit: ended.exit(self.kind, &self.exits), totals, client: None }
    }
}

fn emit(job: &IngestJob, event: &JsonEvent<'_>, console: &Console) {
    let _ = console.emit_for_file(job.path().and_then(odd_name), event);
}

/// Interval between events about the progress of the same file.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// The warnings about files that are named twice. Two overlapping folders may give a million.
const MOST_DOUBLED: u64 = 10;

/// The key of files that never begin. Claims are counted from 1.
const NOT_BEGUN: u64 = 0;
