//! Progress of all uploads of a command.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringlift::bulk::totals::{FileEnd, Totals};
use ringlift::bulk::{JsonEvent, ProgressEvent};
use ringlift::{Progress, UploadEvent};

use crate::cli::console::Console;
use crate::cli::notices::{FileLabel, Notices};

use super::plan::UploadJob;

/// Totals of all uploads, and the latest progress of those under way.
#[derive(Debug)]
pub(super) struct ProgressTotals {
    totals: Totals,
    notices: Notices,
    /// Files under way, by the index of their job.
    files: BTreeMap<usize, FileProgress>,
    events_due: Instant,
    line_due: Option<Instant>,
}

#[derive(Debug)]
struct FileProgress {
    name: String,
    /// Bytes of a name that is not UTF-8.
    odd_name: Option<Vec<u8>>,
    started: Instant,
    progress: Progress,
    /// `true` if the progress has changed since the last event.
    has_changed: bool,
}

impl ProgressTotals {
    /// Creates the totals of these jobs. `retries` is the limit of the retry policy.
    pub(super) fn new<'a>(jobs: impl IntoIterator<Item = &'a UploadJob>, retries: u32) -> ProgressTotals {
        let now = Instant::now();
        let mut totals = Totals::new(now);
        jobs.into_iter().for_each(|job| totals.find(job.bytes()));
        totals.found_all();
        let (notices, files) = (Notices::new(retries), BTreeMap::new());
        ProgressTotals { totals, notices, files, events_due: now + EVENT_INTERVAL, line_due: None }
    }

    /// Records the progress of a job.
    pub(super) fn update(&mut self, job: &UploadJob, progress: Progress) {
        let (key, now) = (job.index as u64, Instant::now());
        self.totals.begin(key, &job.name, job.bytes(), now);
        self.totals.advance(key, &progress, now);
        let file = self.files.entry(job.index).or_insert_with(|| FileProgress::new(job, now));
        file.progress = progress;
        file.has_changed = true;
    }

    /// Records an event of a job, and prints a line about a retry or a pause.
    pub(super) fn record(&mut self, job: &UploadJob, event: &UploadEvent, console: &Console) {
        let now = Instant::now();
        self.totals.record(job.index as u64, event, now);
        let chunks = self.files.get(&job.index).and_then(|file| file.progress.total_chunks);
        if let Some(line) = self.notices.record(FileLabel { name: &job.name, chunks }, event, now) {
            console.note(line);
        }
    }

    /// Records the end of a job.
    pub(super) fn end(&mut self, job: &UploadJob, end: FileEnd) {
        self.files.remove(&job.index);
        self.totals.end(job.index as u64, job.bytes(), end, Instant::now());
    }

    /// Updates the display, and writes lines and events that are due.
    pub(super) fn show(&mut self, console: &Console) {
        if !console.output().has_room() {
            // Skipped while the output is not read: a later update replaces this one.
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
        if now >= self.events_due {
            self.events_due = now + EVENT_INTERVAL;
            self.emit_progress(console);
        }
    }

    /// Prints what was counted and not yet shown.
    pub(super) fn conclude(&mut self, console: &Console) {
        self.notices.rest().into_iter().for_each(|line| console.note(line));
    }

    fn emit_progress(&mut self, console: &Console) {
        for file in self.files.values_mut().filter(|file| file.has_changed) {
            file.has_changed = false;
            let event = ProgressEvent::new(&file.name, &file.progress, file.started.elapsed());
            let _ = console.emit_for_file(file.odd_name.as_deref(), &JsonEvent::Progress(event));
        }
    }

    /// Returns the id of the video of the job at `index`, once it is known and until the job ends.
    pub(super) fn video_id(&self, index: usize) -> Option<&str> {
        self.files.get(&index)?.progress.video_id.as_deref()
    }

    /// Returns the number of retries of all uploads.
    pub(super) fn retries(&self) -> u32 {
        let retries = self.totals.snapshot(Instant::now()).retries;
        u32::try_from(retries).unwrap_or(u32::MAX)
    }

    /// Returns the number of bytes sent again by all uploads.
    pub(super) fn resent_bytes(&self) -> u64 {
        self.totals.snapshot(Instant::now()).bytes.resent
    }
}

impl FileProgress {
    fn new(job: &UploadJob, now: Instant) -> FileProgress {
        FileProgress {
            name: job.name.clone(),
            odd_name: job.odd_name().map(<[u8]>::to_owned),
            started: now,
            progress: Progress::default(),
            has_changed: true,
        }
    }
}

/// Interval between events about the progress of the same file.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
