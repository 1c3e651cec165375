//! The output of a run: events, results, messages, totals. Nothing is kept about a job that has ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlift::bulk::event::{millis, odd_name};
use ringlift::bulk::totals::{FileEnd, Totals};
use ringlift::bulk::{
    ErrorEvent, FileDone, FileSkipped, IngestCounts, IngestEnd, IngestEvent, IngestJob, JobFailure,
    JobResult, JsonEvent, ProgressEvent, RunSummary,
};
use ringlift::{Progress, Uploaded, Usage};

use crate::cli::console::{Console, UploadRemains, duration};
use crate::cli::escape::visible;
use crate::cli::events::{Summary, error_event};
use crate::cli::exit::{CommandError, Exit, Interrupt};
use crate::cli::notices::{FileLabel, Notices};
use crate::cli::values::Size;

/// The output of a run.
pub(super) struct IngestView {
    totals: Totals,
    notices: Notices,
    running: BTreeMap<u64, (Arc<IngestJob>, Progress, bool)>,
    summary: RunSummary,
    counts: IngestCounts,
    exits: Vec<Exit>,
    shows_sha256: bool,
    started: Instant,
    events_due: Instant,
    line_due: Option<Instant>,
}

impl IngestView {
    pub(super) fn new(retries: u32, shows_sha256: bool) -> IngestView {
        let now = Instant::now();
        IngestView {
            totals: Totals::new(now),
            notices: Notices::new(retries),
            running: BTreeMap::new(),
            summary: RunSummary::default(),
            counts: ingest_counts(0, 0, 0),
            exits: Vec::new(),
            shows_sha256,
            started: now,
            events_due: now + EVENT_INTERVAL,
            line_due: None,
        }
    }

    pub(super) fn event(&mut self, event: IngestEvent, console: &Console) {
        let now = Instant::now();
        match event {
            IngestEvent::Submitted { bytes } => self.totals.find(bytes),
            IngestEvent::Skipped(skipped) => {
                self.counts.files_skipped += 1;
                let (file, reason) = (skipped.name.as_str(), skipped.reason.as_str());
                let (id, video_id) = (skipped.id.as_str(), skipped.video_id.as_deref());
                let event = JsonEvent::FileSkipped(FileSkipped { file, id, video_id, reason });
                let _ = console.emit_for_file(skipped.path.as_deref().and_then(odd_name), &event);
                if let Some(failure) = &skipped.failure {
                    self.exit(exit_of(failure));
                    console.alert(format_args!("{}: skipped: {reason}", visible(file)));
                }
                if let Some(failure) = &skipped.after_failure {
                    self.exit(Exit::Failed);
                    console.alert(failure);
                }
            }
            IngestEvent::InputFailed(failed) => {
                self.summary.files_failed += 1;
                self.exit(exit_of(&failed.failure));
                let path = failed.source.as_ref().and_then(|source| source.path());
                let file = path.map(Path::to_string_lossy).unwrap_or_default();
                self.emit_failure(&file, path, &failed.failure, 0, false, console);
                console.alert(&failed.failure.message);
            }
            IngestEvent::InputsRead { ignored, unused_rules } => {
                self.counts.files_ignored = ignored;
                self.totals.found_all();
                if !unused_rules.is_empty() {
                    console.note(format_args!("filter rules without effect: {}", unused_rules.join(", ")));
                }
            }
            IngestEvent::Started(job) => {
                self.totals.begin(job.number, &job.name, job.bytes(), now);
                self.running.insert(job.number, (job, Progress::default(), false));
            }
            IngestEvent::Progress(job, progress) => self.progress(&job, progress, now, console),
            IngestEvent::Upload(job, event) => {
                self.totals.record(job.number, &event, now);
                let chunks = self.running.get(&job.number).and_then(|(_, progress, _)| progress.total_chunks);
                if let Some(line) = self.notices.record(FileLabel { name: &job.name, chunks }, &event, now) {
                    console.note(line);
                }
                if let Some(event) = JsonEvent::of(&job.name, &event) {
                    emit(&job, &event, console);
                }
            }
            IngestEvent::Done { job, result, uploaded, sha256, after } => {
                self.done(&job, &result, uploaded.as_deref(), sha256.as_deref(), console);
                if let Err(error) = after {
                    self.exit(Exit::Failed);
                    console.alert(error);
                }
            }
            IngestEvent::Failed { job, failure, error } => {
                self.end(&job, FileEnd::Failed);
                self.summary.files_failed += 1;
                self.exit(exit_of(&failure));
                let elapsed = millis(job.started.elapsed());
                match error {
                    Some(error) => {
                        let failure = CommandError::Library(*error);
                        let error = error_event(&failure);
                        let file = job.name.as_str();
                        let event =
                            JsonEvent::FileFailed { file, elapsed_ms: elapsed, resumable: false, error };
                        emit(&job, &event, console);
                        console.print_file_error(file, &failure, UploadRemains::Nothing);
                    }
                    None => {
                        self.emit_failure(&job.name, job.path(), &failure, elapsed, false, console);
                        console.alert(format_args!("{}: {}", visible(&job.name), failure.message));
                    }
                }
            }
            IngestEvent::Deferred { job, failure, delay } => {
                self.end(&job, FileEnd::Cancelled);
                self.totals.find(job.bytes());
                let elapsed = millis(job.started.elapsed());
                self.emit_failure(&job.name, job.path(), &failure, elapsed, true, console);
                console.note(format_args!(
                    "{}: {}; another attempt in {}",
                    visible(&job.name),
                    failure.message,
                    duration(delay)
                ));
            }
            IngestEvent::Cancelled(job) => {
                self.summary.files_cancelled += 1;
                self.end(&job, FileEnd::Cancelled);
            }
            IngestEvent::Stopped { job, error } => {
                self.summary.files_cancelled += 1;
                self.end(&job, FileEnd::Cancelled);
                let failure = CommandError::Library(*error);
                let (file, error) = (job.name.as_str(), error_event(&failure));
                let elapsed_ms = millis(job.started.elapsed());
                emit(&job, &JsonEvent::FileFailed { file, elapsed_ms, resumable: true, error }, console);
                console.print_file_error(file, &failure, UploadRemains::Nothing);
            }
            IngestEvent::EarlierJobs { jobs } => console.note(format_args!(
                "{jobs} jobs of earlier runs are in the queue, and are uploaded too; `ringlift jobs` lists and \
                 cancels them"
            )),
            IngestEvent::Lost { job, reason } => {
                self.summary.files_cancelled += 1;
                self.end(&job, FileEnd::Cancelled);
                console.alert(format_args!("{}: given up: {reason}", visible(&job.name)));
            }
            _ => {}
        }
    }

    fn progress(&mut self, job: &Arc<IngestJob>, progress: Progress, now: Instant, console: &Console) {
        self.totals.advance(job.number, &progress, now);
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
                console.emit(&crate::cli::events::CommandEvent::Fetched { file, video_id, elapsed_ms });
            }
        }
        console.result(format_args!("{}\t{}", visible(&job.name), result.video_id));
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
        self.totals.end(job.number, job.bytes(), end, Instant::now());
    }

    /// Keeps the different exits only.
    fn exit(&mut self, exit: Exit) {
        if !self.exits.contains(&exit) {
            self.exits.push(exit);
        }
    }

    /// Updates the display, and writes lines and events that are due.
    pub(super) fn show(&mut self, console: &Console) {
        if !console.output().has_room() {
            return;
        }
        let now = Instant::now();
        self.notices.due(now).into_iter().for_each(|line| console.note(line));
        console.draw_progress(&self.totals, now);
        if let Some(interval) = console.stats_interval() {
            let due = *self.line_due.get_or_insert(now + interval);
            if now >= due {
                self.line_due = Some(now + interval);
                console.print_stats(&self.totals, now);
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

    pub(super) fn conclude(&mut self, console: &Console) {
        self.notices.rest().into_iter().for_each(|line| console.note(line));
    }

    /// Prints the totals and returns the summary.
    pub(super) fn summary(
        &mut self,
        end: Option<IngestEnd>,
        interrupt: Option<Interrupt>,
        usage: Usage,
        console: &Console,
    ) -> Summary {
        let snapshot = self.totals.snapshot(Instant::now());
        let mut totals = self.summary.clone();
        totals.retries = u32::try_from(snapshot.retries).unwrap_or(u32::MAX);
        totals.resent_bytes = snapshot.bytes.resent;
        totals.usage = Some(usage);
        totals.ingest = Some(self.counts.clone());
        let early = end.as_ref().and_then(super::exit_of_end);
        match &end {
            Some(IngestEnd::Store(error)) => console.alert(error),
            Some(IngestEnd::Report(error)) => console.alert(error),
            Some(IngestEnd::Deferred { jobs, delay }) => console.alert(format_args!(
                "{jobs} files wait for another attempt, the first for {}: run the same command again",
                duration(*delay)
            )),
            Some(IngestEnd::MaxTransfer) => console.alert("stopped: the limit of bytes is reached"),
            Some(IngestEnd::MaxDuration) => console.alert("stopped: the limit of time is reached"),
            Some(IngestEnd::MaxErrors) => console.alert("stopped: the limit of failed files is reached"),
            _ => {}
        }
        let exit = match (interrupt, early) {
            (Some(interrupt), _) if !matches!(end, Some(IngestEnd::Drained)) => Exit::Interrupted(interrupt),
            (_, Some(early)) => early,
            _ => Exit::of_all(self.exits.iter().copied()),
        };
        console.note(format_args!(
            "{} files uploaded, {} skipped, {} failed, {} in {}",
            totals.files_done,
            self.counts.files_skipped,
            totals.files_failed,
            Size(totals.sent_bytes),
            duration(self.started.elapsed()),
        ));
        Summary { exit, totals, client: None }
    }
}

fn emit(job: &IngestJob, event: &JsonEvent<'_>, console: &Console) {
    let _ = console.emit_for_file(job.path().and_then(odd_name), event);
}

/// Returns the exit of a failure: only another attempt without a change can end otherwise.
pub(super) fn exit_of(failure: &JobFailure) -> Exit {
    match failure.kind.as_str() {
        // A source of the command line. A file that a manifest names and that is missing is a failed job.
        "no_such_source" => Exit::NoSuchFile,
        _ if failure.permanent => Exit::Failed,
        _ => Exit::Temporary,
    }
}

pub(super) fn ingest_counts(files_skipped: usize, files_ignored: u64, videos_created: u64) -> IngestCounts {
    let mut counts = IngestCounts::default();
    counts.files_skipped = files_skipped;
    counts.files_ignored = files_ignored;
    counts.videos_created = videos_created;
    counts
}

/// Interval between events about the progress of the same file.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
