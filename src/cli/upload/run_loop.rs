//! The loop of a run: passes jobs to the library, and its events to the console.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use ringlift::bulk::event::millis;
use ringlift::bulk::totals::FileEnd;
use ringlift::bulk::{
    DoneJob, FailedJob, JsonEvent, RunnerEvent, RunnerJob, RunnerOptions, Sha256Request, ShutdownStage, run,
};
use ringlift::internals::probe;
use ringlift::{ErrorKind, Receipt, Settings, StreamSha256, Upload, UsageMeter};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::cli::console::UploadRemains;
use crate::cli::exit::{CommandError, Exit, Interrupt};
use crate::cli::lane_watch::LaneWatch;
use crate::cli::media;
use crate::cli::output::PendingWrite;
use crate::cli::signals::Interrupts;
use crate::cli::upload_args::Until;

use super::context::{ActiveJob, KeepCompleted, UploadRun};
use super::plan::{self, IfNew, UploadJob, UploadJobSource};
use super::report;
use super::stdin::Stdin;

impl UploadRun<'_> {
    /// Runs every job, a few at a time, until all have ended or a signal ends them.
    pub(super) async fn run_all(&self, jobs: Vec<Rc<UploadJob>>, mut interrupts: Interrupts) {
        let started = Instant::now();
        let (mut meter, mut lanes) = (UsageMeter::default(), LaneWatch::new(self.settings, &self.client));
        let mut ticks = interval(TICK);
        // After a pause of the machine the missed ticks would come at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.apply_timetable();
        // The engine knows only the uploads that were handed over, and plans chunks for all of them.
        self.settings.backlog.add(jobs.len() as u64, jobs.iter().filter_map(|job| job.bytes()).sum());
        let is_small =
            |job: &&Rc<UploadJob>| job.bytes().is_some_and(|bytes| bytes <= Settings::SMALL_FILE_BYTES);
        let options = self.runner_options(jobs.iter().filter(is_small).count());
        let jobs = stream::iter(jobs).filter_map(|job| self.prepared(job));
        let signal = self.shutdown.borrow().signal();
        let mut events = Box::pin(run(jobs, &self.client, options, signal));
        let (mut are_over, mut confirmations) = (false, FuturesUnordered::new());
        self.console.start_progress();
        while !are_over || !confirmations.is_empty() {
            let output = self.console.output();
            let is_full = confirmations.len() >= self.most_unconfirmed();
            if is_full {
                output.write_now();
            }
            tokio::select! {
                // Without room in the output queue the events stay in the library's queues, which drop and count the
                // oldest. A signal makes room.
                // Each unconfirmed result holds the lock of its journal entry, and descriptors are limited.
                event = events.next(), if !are_over && self.may_report() && !is_full => match event {
                    Some(event) => confirmations.extend(self.report(event)),
                    None => are_over = true,
                },
                () = output.room(), if !are_over && !self.may_report() => {}
                Some(()) = confirmations.next() => {}
                interrupt = interrupts.next() => self.interrupt(interrupt),
                _ = ticks.tick() => {
                    meter.sample();
                    self.apply_timetable();
                    self.totals.borrow_mut().show(self.console);
                    lanes.show(&self.client, self.console);
                }
                () = self.next_stage() => {
                    if self.shutdown.borrow_mut().advance(Instant::now()) == ShutdownStage::Abandoned {
                        break;
                    }
                }
            }
        }
        // Cancels the uploads that are still active.
        drop(events);
        self.totals.borrow_mut().conclude(self.console);
        self.console.clear_progress();
        // Jobs that are still active were cancelled and did not end in time.
        self.abandon();
        self.tally.borrow_mut().end(started.elapsed(), meter.usage());
    }

    /// Returns `true` if an event can be reported without waiting for a reader of the output.
    fn may_report(&self) -> bool {
        self.interrupt.get().is_some() || self.console.output().has_room()
    }

    fn apply_timetable(&self) {
        if let Some(timetable) = self.options.timetable {
            timetable.apply(&self.settings.bandwidth);
        }
    }

    /// Returns the options of a run with this number of small files.
    fn runner_options(&self, small: usize) -> RunnerOptions {
        let (after, transfers) = (self.options.after, self.settings.transfers);
        let mut options = RunnerOptions::default();
        // With the unconfirmed ones, twice the transfers hold a lock of the journal, and small files ahead of their
        // requests, which the engine limits.
        let ahead = small.min(transfers.saturating_mul(SMALL_FOR_EACH_TRANSFER));
        options.concurrent = transfers.saturating_add(self.most_unconfirmed()).saturating_add(ahead);
        options.verify = after.verify;
        options.wait_until_playable = after.wait == Some(Until::Playable);
        options.wait_timeout = after.wait_timeout;
        options.digest_silence = self.settings.patience.body;
        // All files use the token of the command line: its refusal fails every one of them.
        options.has_one_token = true;
        options
    }

    /// Returns the number of results that may wait for their lines to be written.
    fn most_unconfirmed(&self) -> usize {
        // With 0 the loop would take no event, and never end.
        (self.settings.transfers / 2).max(1)
    }

    /// Waits for the next stage of the shutdown.
    async fn next_stage(&self) {
        let deadline = self.shutdown.borrow().deadline();
        match deadline {
            Some(deadline) => sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Prints the plan of a job for programs, and describes its upload. A job without a plan fails here.
    async fn prepared(&self, job: Rc<UploadJob>) -> Option<RunnerJob<Rc<UploadJob>>> {
        // The engine counts the upload itself from now on.
        self.settings.backlog.remove(1, job.bytes().unwrap_or(0));
        if self.console.writes_events() {
            let started = Instant::now();
            let ring = self.ring.get_or_init(probe::check_ring);
            // A job whose plan cannot be written is not begun: the reader has stopped.
            self.console.output().room().await;
            match plan::planned_in_time(&job, self.settings, ring).await {
                Ok(planned) => {
                    let _ = job.emit(self.console, &JsonEvent::Planned(planned));
                }
                Err(failure) => {
                    report::failed(self, &job, &failure, None, started);
                    self.totals.borrow_mut().end(&job, FileEnd::Failed);
                    self.tally.borrow_mut().failed(&job, &failure, None);
                    return None;
                }
            }
        }
        if let UploadJobSource::File(path) = &job.source {
            media::warn_if_text(path).await;
        }
        let (upload, sha256) = self.described(&job);
        Some(RunnerJob::new(job, upload).with_sha256(sha256))
    }

    fn described(&self, job: &UploadJob) -> (Upload, Sha256Request) {
        let wants_sha256 = self.options.after.sha256;
        let (upload, sha256) = match &job.source {
            UploadJobSource::File(path) if wants_sha256 => (self.client.upload(path), Sha256Request::File),
            UploadJobSource::File(path) => (self.client.upload(path), Sha256Request::None),
            UploadJobSource::Stdin => {
                let stdin = Stdin::new(self.shutdown.borrow().signal());
                if wants_sha256 {
                    let digest = StreamSha256::new();
                    let reader = digest.over(stdin);
                    (self.client.upload_reader(&job.name, reader), Sha256Request::Stream(digest))
                } else {
                    (self.client.upload_reader(&job.name, stdin), Sha256Request::None)
                }
            }
        };
        let upload = upload.options(job.options.upload.clone());
        let upload = if job.options.force { upload.again() } else { upload };
        let upload = match job.options.if_new {
            IfNew::Start => upload,
            IfNew::Refuse => upload.only_if_begun(),
        };
        (upload, sha256)
    }

    /// Reports an event. Returns what remains to be done once the report is written.
    fn report(&self, event: RunnerEvent<Rc<UploadJob>>) -> Option<LocalBoxFuture<'_, ()>> {
        match event {
            RunnerEvent::Started { key } => {
                let started = Instant::now();
                self.active.borrow_mut().insert(key.index, ActiveJob { job: key, started });
            }
            RunnerEvent::Progress { key, progress } => {
                self.totals.borrow_mut().update(&key, progress);
            }
            RunnerEvent::Upload { key, event } => {
                self.totals.borrow_mut().record(&key, &event, self.console);
                if let Some(event) = JsonEvent::of(&key.name, &event) {
                    let _ = key.emit(self.console, &event);
                }
            }
            RunnerEvent::Waiting { uploaded, .. } => report::waiting(self, &uploaded),
            RunnerEvent::Done(done) => return Some(self.done(*done)),
            RunnerEvent::Failed(failed) => return self.failed(*failed),
            RunnerEvent::NotStarted { key } => {
                self.totals.borrow_mut().end(&key, FileEnd::Cancelled);
                self.active.borrow_mut().remove(&key.index);
            }
            // The library's enum may grow.
            _ => {}
        }
        None
    }

    fn done(&self, done: DoneJob<Rc<UploadJob>>) -> LocalBoxFuture<'_, ()> {
        let write = report::done(self, &done);
        self.active.borrow_mut().remove(&done.key.index);
        let bytes = done.uploaded.bytes;
        let end = if done.uploaded.already { FileEnd::Skipped { bytes } } else { FileEnd::Done { bytes } };
        self.totals.borrow_mut().end(&done.key, end);
        self.tally.borrow_mut().done(&done);
        let DoneJob { key, uploaded, receipt, .. } = done;
        Box::pin(async move {
            if !is_written(write).await {
                return report::lost(self, &key, &uploaded.video_id);
            }
            match self.options.keep_completed {
                KeepCompleted::No => receipt.confirm(),
                KeepCompleted::Always => receipt.remember(),
                KeepCompleted::UntilSuccess => {
                    receipt.remember();
                    self.receipts.borrow_mut().push(receipt);
                }
            }
        })
    }

    fn failed(&self, failed: FailedJob<Rc<UploadJob>>) -> Option<LocalBoxFuture<'_, ()>> {
        let FailedJob { key, error, finished, ends_run, .. } = failed;
        let is_cancelled = error.kind() == ErrorKind::Cancelled;
        let failure = match self.interrupt.get() {
            Some(interrupt) if is_cancelled && finished.is_some() => CommandError::Interrupted(interrupt),
            _ => CommandError::Library(error),
        };
        let active = self.active.borrow_mut().remove(&key.index);
        let end = if is_cancelled { FileEnd::Cancelled } else { FileEnd::Failed };
        self.totals.borrow_mut().end(&key, end);
        let started = active.map_or_else(Instant::now, |active| active.started);
        let (uploaded, receipt): (_, Option<Receipt>) = finished.unzip();
        let write = report::failed(self, &key, &failure, uploaded.as_ref(), started);
        self.tally.borrow_mut().failed(&key, &failure, uploaded.as_ref());
        if ends_run {
            self.tally.borrow_mut().has_fatal_error = true;
            self.shutdown.borrow_mut().stop(self.options.grace, Instant::now());
        }
        // After a temporary failure the journal keeps the upload: the same command repeats only the check.
        let receipt = receipt.filter(|_| !is_cancelled && !report::is_temporary(&failure))?;
        Some(Box::pin(async move {
            if is_written(write).await {
                receipt.confirm();
            }
        }))
    }

    /// Handles a signal: the first one lets active chunks finish, the second one cancels them.
    fn interrupt(&self, interrupt: Interrupt) {
        let grace = self.options.grace;
        // First: the message below may meet a full queue whose reader has stopped.
        self.console.output().hurry();
        let mut shutdown = self.shutdown.borrow_mut();
        if self.interrupt.get().is_some() {
            return shutdown.cancel(Instant::now());
        }
        self.interrupt.set(Some(interrupt));
        shutdown.stop(grace, Instant::now());
        self.console.emit(&JsonEvent::Stopping { signal: interrupt.name(), grace_ms: millis(grace) });
        self.console.note(format_args!(
            "{}: finishing the active chunks, for at most {}; send it again to stop immediately",
            interrupt.name(),
            humantime::format_duration(grace),
        ));
    }

    /// Reports the jobs that did not end in time. A source that does not respond blocks its thread forever.
    fn abandon(&self) {
        for active in self.active.take().into_values() {
            let failure = match self.interrupt.get() {
                Some(interrupt) => CommandError::Interrupted(interrupt),
                None => CommandError::Other(Exit::Failed, "it did not end in time".to_owned()),
            };
            let job = &active.job;
            let video_id = self.totals.borrow().video_id(job.index).map(str::to_owned);
            let remains = video_id.as_ref().map_or(UploadRemains::Nothing, |_| self.resume_hint(job));
            report::abandoned(self, job, &failure, video_id.as_deref(), remains);
            self.tally.borrow_mut().abandoned(job, &failure, video_id);
        }
    }
}

/// Returns `true` if the line with the video's id was written. Otherwise the journal keeps the upload, so
/// that the same command prints the id later.
async fn is_written(write: Option<PendingWrite>) -> bool {
    match write {
        Some(write) => write.is_written().await,
        None => true,
    }
}

/// A small file takes one request, and is open for about this many times as long.
const SMALL_FOR_EACH_TRANSFER: usize = 4;

/// Interval of memory samples and updates of the bar.
const TICK: Duration = Duration::from_millis(100);
