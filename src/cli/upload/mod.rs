//! `ringlift upload`: uploads files or standard input.

mod after;
mod context;
mod file_stat;
mod job_run;
mod plan;
mod progress;
mod shutdown;
mod stdin;

use std::cell::{OnceCell, RefCell};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use ringlift::source::MemoryBudget;
use ringlift::wire::limits::MIN_CHUNK_BYTES;
use ringlift::{ChunkSize, Client, Credentials, Secret, Settings};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::args::GlobalArgs;
use super::console::{Console, duration, speed};
use super::events::{CommandResult, JsonEvent, Summary};
use super::exit::{CommandError, Exit, Interrupt};
use super::journal::ResumeCommand;
use super::signals::Interrupts;
use super::upload_args::{AfterArgs, LaneArgs, TokenArgs, TransferArgs, UploadArgs};
use super::usage::UsageMeter;
use super::values::{Count, Size};
use super::{client, journal, memory, proxy};
use context::UploadRun;
pub(super) use context::{KeepCompleted, RunOptions};
use job_run::JobOutcome;
pub(super) use plan::{IfNew, Job, JobOptions};
use progress::ProgressTotals;
use shutdown::Shutdown;

pub(super) fn run(args: &UploadArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let token = upload_token(&args.destination.token, global)?;
    let jobs = plan::jobs(args, token.clone())?;
    let mut settings = upload_settings(&args.transfer.lanes, global)?;
    settings.buffer_bytes = match args.transfer.max_buffer_memory {
        Some(Size(bytes)) => bytes,
        None => memory::for_streams(Path::new("/"), least_memory(&args.transfer)),
    };
    if !args.dry_run && !args.no_journal {
        settings.journal = journal::path(args.journal.as_deref());
        if settings.journal.is_none() {
            journal::warn_that_no_journal_is_kept();
        }
    }
    let client = client::open(settings.clone())?;
    if args.dry_run {
        return plan::show(&jobs, &settings, console).map(Some);
    }
    check_credentials(&settings, &args.after, token.as_ref())?;
    plan::check_stdin(&jobs, &settings)?;
    let resume = ResumeCommand::new(args.journal.as_deref(), global);
    let timetable = args.transfer.lanes.bwlimit.as_ref();
    let keep_completed = if jobs.len() > 1 { KeepCompleted::UntilSuccess } else { KeepCompleted::No };
    let options = RunOptions { after: &args.after, grace: args.grace, resume, timetable, keep_completed };
    run_jobs(jobs, client, &settings, options, console).map(Some)
}

/// Uploads the jobs and reports their results.
pub(super) fn run_jobs(
    jobs: Vec<Job>,
    client: Client,
    settings: &Settings,
    options: RunOptions<'_>,
    console: &Console,
) -> Result<Summary, CommandError> {
    let bound = options.grace.saturating_add(AFTER_GRACE);
    let interrupts = Interrupts::new(console, Some(bound));
    // This thread handles signals from here on.
    console.output().must_not_wait();
    let totals = RefCell::new(ProgressTotals::new(&jobs, settings.retry.retries));
    let shutdown = Shutdown::new();
    let open_jobs = RefCell::new(jobs.iter().map(|job| (job.index, job.clone())).collect());
    let run = UploadRun {
        options,
        settings,
        client,
        console,
        shutdown,
        totals,
        open_jobs,
        plans: Semaphore::new(PLANS),
        ring: OnceCell::new(),
    };
    let summary = client::block_on(run.run_all(jobs, interrupts))?;
    Ok(Summary { client: Some(run.client), ..summary })
}

/// Returns the memory that one chunk of standard input takes.
fn least_memory(transfer: &TransferArgs) -> u64 {
    match transfer.chunk_size {
        ChunkSize::Bytes(bytes) => MemoryBudget::least_for(bytes),
        ChunkSize::Auto => MemoryBudget::least_for(MIN_CHUNK_BYTES),
    }
}

impl UploadRun<'_> {
    /// Runs every job, a few at a time, until all have ended or a signal ends them.
    async fn run_all(&self, jobs: Vec<Job>, mut interrupts: Interrupts) -> Result<Summary, CommandError> {
        let started = Instant::now();
        let mut meter = UsageMeter::default();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends = Vec::with_capacity(jobs.len());
        // The engine bounds the active uploads. Extra ones wait there, so that the next starts without delay.
        let handed_over = 2 * self.settings.transfers;
        self.apply_timetable();
        let mut uploads =
            stream::iter(jobs).map(|job| job_run::upload(self, job)).buffer_unordered(handed_over);
        self.console.start_progress();
        loop {
            tokio::select! {
                end = uploads.next() => match end {
                    Some(end) => ends.push(end),
                    None => break,
                },
                interrupt = interrupts.next() => self.interrupt(interrupt),
                _ = ticks.tick() => {
                    meter.sample();
                    self.apply_timetable();
                    self.totals.borrow_mut().show(self.console);
                }
                () = sleep_until(self.shutdown.cancel_at().into()) => self.shutdown.cancel(),
                () = sleep_until(self.shutdown.abandon_at().into()) => break,
            }
        }
        drop(uploads);
        self.totals.borrow_mut().conclude(self.console);
        self.console.clear_progress();
        // Jobs that are still open were cancelled and did not end in time.
        let summary = self.with_abandoned(self.summary(&ends));
        let summary = Summary { usage: Some(meter.usage()), ..summary };
        if self.options.keep_completed == KeepCompleted::UntilSuccess && summary.exit == Exit::Done {
            ends.iter().for_each(JobOutcome::forget);
        }
        self.conclude(&summary, started.elapsed());
        Ok(summary)
    }

    fn apply_timetable(&self) {
        if let Some(timetable) = self.options.timetable {
            timetable.apply(&self.settings.bandwidth);
        }
    }

    /// Handles a signal: the first one lets active chunks finish, the second one cancels them.
    fn interrupt(&self, interrupt: Interrupt) {
        let grace = self.options.grace;
        self.console.output().hurry();
        if self.shutdown.stop(interrupt, grace) {
            let grace_ms = super::events::millis(grace);
            self.console.emit(&JsonEvent::Stopping { signal: interrupt.name(), grace_ms });
            self.console.note(format_args!(
                "{}: finishing the active chunks, for at most {}; send it again to stop immediately",
                interrupt.name(),
                humantime::format_duration(grace),
            ));
        } else {
            self.shutdown.cancel();
        }
    }

    /// Adds the abandoned jobs to the summary. A source that does not respond blocks its thread forever.
    fn with_abandoned(&self, summary: Summary) -> Summary {
        let abandoned = self.open_jobs.take();
        let Some(interrupt) = self.shutdown.interrupt().filter(|_| !abandoned.is_empty()) else {
            return summary;
        };
        abandoned.values().for_each(|job| job_run::report_abandoned(self, job, interrupt));
        let files_failed = summary.files_failed + abandoned.values().map(Job::files).sum::<usize>();
        let only = abandoned.keys().next().filter(|_| summary.files_done + files_failed == 1);
        let video_id = only.and_then(|index| self.totals.borrow().video_id(*index).map(str::to_owned));
        let exit = Exit::Interrupted(interrupt);
        Summary { exit, files_failed, video_id: summary.video_id.or(video_id), ..summary }
    }

    fn summary(&self, ends: &[JobOutcome]) -> Summary {
        let done: Vec<_> = ends.iter().filter_map(|end| end.result.as_ref().ok()).collect();
        let done_files = ends.iter().filter(|end| end.result.is_ok()).map(|end| end.files).sum();
        let only = match done.as_slice() {
            [done] if ends.len() == 1 => Some(done),
            _ => None,
        };
        let mut exits: Vec<Exit> = ends.iter().map(JobOutcome::exit).collect();
        if let Some(interrupt) =
            self.shutdown.interrupt().filter(|_| exits.iter().any(|exit| *exit != Exit::Done))
        {
            exits.push(Exit::Interrupted(interrupt));
        }
        Summary {
            exit: Exit::of_all(exits),
            video_id: match only {
                Some(done) => Some(done.uploaded.video_id.clone()),
                None => ends.first().filter(|_| ends.len() == 1).and_then(JobOutcome::video_id),
            },
            bytes: ends.iter().map(JobOutcome::bytes).sum(),
            sha256: only.and_then(|done| done.sha256.clone()),
            files_done: done_files,
            files_failed: ends.iter().map(|end| end.files).sum::<usize>() - done_files,
            retries: self.totals.borrow().retries(),
            resent_bytes: self.totals.borrow().resent_bytes(),
            ..Summary::default()
        }
    }

    /// Prints the totals of several files.
    fn conclude(&self, summary: &Summary, elapsed: Duration) {
        let Summary { files_done, files_failed, bytes, .. } = summary;
        if files_done + files_failed > 1 {
            let speed = speed(self.totals.borrow().sent_bytes(), elapsed);
            let failed = if *files_failed > 0 { format!("; {files_failed} failed") } else { String::new() };
            self.console.note(format_args!(
                "{files_done} of {} files, {} in {} ({speed}){failed}",
                files_done + files_failed,
                Size(*bytes),
                duration(elapsed),
            ));
        }
        let is_remembered =
            self.options.keep_completed == KeepCompleted::UntilSuccess && self.settings.journal.is_some();
        if *files_failed > 0 && *files_done > 0 && is_remembered {
            self.console.note("run the same command again to upload only the failed files");
        }
    }
}

/// Returns the library's settings for uploads, with the API key if there is one, and without a journal.
pub(super) fn upload_settings(lanes: &LaneArgs, global: &GlobalArgs) -> Result<Settings, CommandError> {
    proxy::warn_if_set(global);
    let mut settings = client::client_settings(global);
    if let Some(key) = client::key(global)? {
        settings.credentials = Credentials::ApiKey(key);
    }
    settings.reader = lanes.reader;
    settings.checksum = lanes.checksum;
    if let Count::Exactly(lanes) = lanes.concurrency {
        settings.lanes = NonZeroUsize::get(lanes);
    }
    settings.transfers = usize::from(lanes.transfers);
    settings.caps.uploads_a_minute = lanes.rate;
    if let Some(timetable) = &lanes.bwlimit {
        // The lowest limit of the timetable must be compatible with the other settings, which the client
        // checks.
        settings.bandwidth.set(timetable.least());
    }
    Ok(settings)
}

pub(super) fn upload_token(args: &TokenArgs, global: &GlobalArgs) -> Result<Option<Secret>, CommandError> {
    let token = match (&args.upload_token, &args.upload_token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(client::secret_file(path, "upload token")?),
        (None, None) => None,
    };
    token.iter().for_each(|token| global.redactor.add(token));
    Ok(token)
}

/// Checks that the required credentials are present.
pub(super) fn check_credentials(
    settings: &Settings,
    after: &AfterArgs,
    token: Option<&Secret>,
) -> Result<(), CommandError> {
    let has_key = !matches!(settings.credentials, Credentials::None);
    match (has_key, token) {
        (false, None) => Err(CommandError::usage(
            "no API key: set APIVIDEO_API_KEY or use --api-key-file; or upload with an upload token, in \
             RINGLIFT_UPLOAD_TOKEN or --upload-token-file",
        )),
        (false, Some(_)) if after.verify || after.wait.is_some() => {
            Err(CommandError::usage("--verify and --wait need an API key in addition to the upload token"))
        }
        _ => Ok(()),
    }
}

/// Number of files opened at the same time for planning.
const PLANS: usize = 1;

/// Longest time that the process continues after the grace period.
const AFTER_GRACE: Duration = shutdown::CANCEL_TIMEOUT.saturating_add(Duration::from_secs(7));

/// Interval of memory samples and updates of the bar.
const TICK: Duration = Duration::from_millis(100);
