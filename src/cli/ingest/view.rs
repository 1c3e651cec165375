//! The output of a run: events, results, messages, totals. Nothing is kept about a job that has ended.

mod ends;
mod inputs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlift::bulk::event::odd_name;
use ringlift::bulk::{
    IngestCounts, IngestEvent, IngestJob, JsonEvent, OwnerId, Presence, ProgressEvent, RunSummary,
};
use ringlift::{Progress, UploadEvent};

pub(super) use inputs::show_doubled;

use super::ending::{JobExits, LoopEnd, RunKind, ingest_counts};
use super::estimate::Estimator;
use super::live::LiveNumbers;
use super::outage::{show_lost, show_orphan, show_outage};
use crate::cli::console::{Console, counted, duration};
use crate::cli::events::{CommandEvent, Summary};
use crate::cli::exit::{CommandError, Exit};
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
    /// The flag that names the pool of the run, after a blank; empty for the usual pool.
    pool_flag: String,
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
            pool_flag: String::new(),
            started: now,
            events_due: now + EVENT_INTERVAL,
            line_due: None,
        }
    }

    /// Sets the flag that names the pool in the commands of notices: a blank and the flag, or nothing.
    pub(super) fn name_pool(&mut self, flag: String) {
        self.pool_flag = flag;
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
            IngestEvent::Progress(job, progress) => self.progress(&job, progress, now),
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
            IngestEvent::LeftOpen { state, .. } => self.left_open(state),
            IngestEvent::Cancelled(job) => self.cancelled(&job),
            IngestEvent::Stopped { job, error } => {
                self.stopped(&job, &CommandError::Library(*error), console);
            }
            IngestEvent::EarlierJobs { jobs } => console.note(format_args!(
                "{} of earlier runs in the queue, uploaded too; `ringlift jobs` lists and cancels them",
                counted(jobs, "job")
            )),
            IngestEvent::Lost { job, reason, is_cancelled, video_id } => {
                self.lost(&job, is_cancelled);
                show_lost(&job, &reason, video_id.as_deref(), console);
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
                let flag = &self.pool_flag;
                console.note(format_args!(
                    "the pool is paused: `ringlift jobs resume{flag}` lets further jobs begin"
                ));
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

    fn upload_event(&mut self, job: &IngestJob, event: &UploadEvent, now: Instant, console: &Console) {
        {
            let mut numbers = self.numbers.lock();
            numbers.totals.record(job.number, event, now);
            match event {
                UploadEvent::ChunkDone { elapsed, .. } => numbers.chunk_times.record(*elapsed),
                UploadEvent::Created { .. } => self.counts.videos_created += 1,
                _ => {}
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

    fn progress(&mut self, job: &IngestJob, progress: Progress, now: Instant) {
        self.numbers.lock().totals.advance(job.number, &progress, now);
        let Some((_, last, has_changed)) = self.running.get_mut(&job.number) else { return };
        (*last, *has_changed) = (progress, true);
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
