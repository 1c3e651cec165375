//! Progress of all uploads of a command.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringlift::Progress;
use ringlift::bulk::{JsonEvent, ProgressEvent};

use crate::cli::console::Console;

use super::plan::Job;

/// Latest progress of every upload, and their totals.
#[derive(Debug)]
pub(super) struct ProgressTotals {
    total_bytes: Option<u64>,
    files: BTreeMap<usize, FileProgress>,
    started: Instant,
    line_due: Instant,
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
    pub(super) fn new(total_bytes: Option<u64>) -> ProgressTotals {
        let now = Instant::now();
        ProgressTotals { total_bytes, files: BTreeMap::new(), started: now, line_due: now + BETWEEN_LINES }
    }

    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Records the progress of a job. Returns the id of its video the first time it is known.
    pub(super) fn update(&mut self, job: &Job, progress: Progress) -> Option<String> {
        let file = self.files.entry(job.index).or_insert_with(|| FileProgress::new(job));
        let known = file.progress.video_id.is_some();
        let video_id = progress.video_id.clone();
        file.progress = progress;
        file.has_changed = true;
        video_id.filter(|_| !known)
    }

    /// Updates the bar, and writes lines and events once per interval.
    pub(super) fn show(&mut self, console: &Console) {
        if !console.output().has_room() {
            // Skipped while the output is not read: a later update replaces this one.
            return;
        }
        let bytes = self.sum(|progress| progress.sent_bytes);
        let retries = self.retries();
        console.set_progress(bytes, if retries > 0 { format!(", {retries} retries") } else { String::new() });
        if Instant::now() < self.line_due {
            return;
        }
        self.line_due = Instant::now() + BETWEEN_LINES;
        console.print_progress(bytes, self.total_bytes, self.started.elapsed());
        for file in self.files.values_mut().filter(|file| file.has_changed) {
            file.has_changed = false;
            let event = ProgressEvent::new(&file.name, &file.progress, file.started.elapsed());
            let _ = console.emit_for_file(file.odd_name.as_deref(), &JsonEvent::Progress(event));
        }
    }

    /// Returns the id of the video of the job at `index`, once it is known.
    pub(super) fn video_id(&self, index: usize) -> Option<&str> {
        self.files.get(&index)?.progress.video_id.as_deref()
    }

    /// Returns the number of retries of all uploads.
    pub(super) fn retries(&self) -> u32 {
        self.files.values().map(|file| file.progress.retries).sum()
    }

    /// Returns the number of bytes sent again by all uploads.
    pub(super) fn resent_bytes(&self) -> u64 {
        self.sum(|progress| progress.resent_bytes)
    }

    fn sum(&self, count: impl Fn(&Progress) -> u64) -> u64 {
        self.files.values().map(|file| count(&file.progress)).sum()
    }
}

impl FileProgress {
    fn new(job: &Job) -> FileProgress {
        FileProgress {
            name: job.name.clone(),
            odd_name: job.odd_name().map(<[u8]>::to_owned),
            started: Instant::now(),
            progress: Progress::default(),
            has_changed: true,
        }
    }
}

/// Interval between lines about the same file.
const BETWEEN_LINES: Duration = Duration::from_secs(1);
