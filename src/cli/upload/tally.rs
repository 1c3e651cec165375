//! The results of a run, counted as its jobs end. Nothing is kept about a job except a few failures.

use std::rc::Rc;
use std::time::Duration;

use ringlift::bulk::{DoneJob, RunSummary};
use ringlift::{Uploaded, Usage};

use crate::cli::console::{Console, duration, speed};
use crate::cli::escape::visible;
use crate::cli::exit::{CommandError, Exit, Interrupt};
use crate::cli::values::Size;

use super::plan::UploadJob;

/// The results of the jobs that have ended.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) totals: RunSummary,
    /// `true` once an error has ended the run.
    pub(super) has_fatal_error: bool,
    files: usize,
    has_one_job: bool,
    /// The different results, in the order of their first occurrence.
    exits: Vec<Exit>,
    /// The first failures, to be listed again at the end.
    failures: Vec<String>,
    elapsed: Duration,
}

impl Tally {
    pub(super) fn new(jobs: &[Rc<UploadJob>]) -> Tally {
        Tally {
            totals: RunSummary::default(),
            has_fatal_error: false,
            files: jobs.iter().map(|job| job.files()).sum(),
            has_one_job: jobs.len() == 1,
            exits: Vec::new(),
            failures: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    pub(super) fn done(&mut self, done: &DoneJob<Rc<UploadJob>>) {
        self.totals.files_done += done.key.files();
        self.uploaded(&done.uploaded);
        self.totals.sha256 = done.sha256.clone().filter(|_| self.has_one_job);
    }

    /// Counts a failure. `uploaded` is the upload if a step after it failed.
    pub(super) fn failed(&mut self, job: &UploadJob, failure: &CommandError, uploaded: Option<&Uploaded>) {
        match (uploaded, failure) {
            (Some(uploaded), _) => self.uploaded(uploaded),
            (None, CommandError::Library(error)) => self.only_video(error.video_id().map(str::to_owned)),
            (None, _) => {}
        }
        self.totals.files_failed += job.files();
        if self.failures.len() < LISTED_FAILURES {
            self.failures.push(format!("{}: {}", visible(&job.name), visible(&failure.to_string())));
        }
        let exit = failure.exit();
        if !self.exits.contains(&exit) {
            self.exits.push(exit);
        }
    }

    /// Counts a job that did not end in time.
    pub(super) fn abandoned(&mut self, job: &UploadJob, failure: &CommandError, video_id: Option<String>) {
        self.failed(job, failure, None);
        self.only_video(video_id);
    }

    fn uploaded(&mut self, uploaded: &Uploaded) {
        self.totals.bytes += uploaded.bytes;
        self.totals.sent_bytes += uploaded.sent_bytes;
        self.only_video(Some(uploaded.video_id.clone()));
    }

    fn only_video(&mut self, video_id: Option<String>) {
        if self.has_one_job && video_id.is_some() {
            self.totals.video_id = video_id;
        }
    }

    /// Records the end of the run.
    pub(super) fn end(&mut self, elapsed: Duration, usage: Usage) {
        self.elapsed = elapsed;
        self.totals.usage = Some(usage);
        self.totals.files_cancelled = self.files - self.totals.files_done - self.totals.files_failed;
    }

    /// Returns the result of the whole run.
    pub(super) fn exit(&self, interrupt: Option<Interrupt>) -> Exit {
        // A signal after the end of the last file changes no result.
        let is_short = self.totals.files_done < self.files;
        let interrupted = interrupt.filter(|_| is_short).map(Exit::Interrupted);
        Exit::of_all(self.exits.iter().copied().chain(interrupted))
    }

    /// Prints the totals of several files, the files that were not started, and the failures once more.
    pub(super) fn print(&self, interrupt: Option<Interrupt>, console: &Console) {
        let RunSummary { files_failed, files_cancelled, .. } = self.totals;
        match interrupt {
            Some(interrupt) if files_cancelled == self.files && self.files == 1 => {
                return console.print_error(&CommandError::Interrupted(interrupt));
            }
            _ if self.files < 2 => return,
            _ => {}
        }
        console.note(format_args!("{}", self.described()));
        if files_cancelled > 0 {
            let why = match interrupt {
                Some(interrupt) => interrupt.name(),
                None if self.has_fatal_error => "the error above concerns every file",
                None => "the run ended",
            };
            console.alert(format_args!("{files_cancelled} of {} files were not started: {why}", self.files));
        }
        // One failure is on the screen already.
        if files_failed > 1 {
            self.print_failures(console);
        }
    }

    fn print_failures(&self, console: &Console) {
        console.note("failed:");
        self.failures.iter().for_each(|failure| console.note(format_args!("  {failure}")));
        let more = self.totals.files_failed.saturating_sub(self.failures.len());
        if more > 0 {
            console.note(format_args!("  and {more} more"));
        }
    }

    fn described(&self) -> String {
        let RunSummary { files_done, files_failed, bytes, sent_bytes, .. } = self.totals;
        let size = if sent_bytes == bytes {
            Size(bytes).to_string()
        } else {
            format!("{} sent of {}", Size(sent_bytes), Size(bytes))
        };
        let failed = if files_failed > 0 { format!("; {files_failed} failed") } else { String::new() };
        let (time, speed) = (duration(self.elapsed), speed(sent_bytes, self.elapsed));
        format!("{files_done} of {} files, {size} in {time} ({speed}){failed}", self.files)
    }
}

/// The failures that are listed again at the end. A run may have a million of them.
const LISTED_FAILURES: usize = 20;
