//! `ringlift upload`: uploads files or standard input.

mod context;
mod file_stat;
mod plan;
mod progress;
mod report;
mod run_loop;
mod stdin;
mod tally;
mod templates;

use std::cell::{Cell, OnceCell, RefCell};
use std::num::NonZeroUsize;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringlift::bulk::{CANCEL_TIMEOUT, RunSummary, Shutdown};
use ringlift::internals::MemoryBudget;
use ringlift::limits::MIN_CHUNK_BYTES;
use ringlift::{ChunkSize, Client, Credentials, LaneControl, Receipt, Secret, Settings};

use super::args::GlobalArgs;
use super::console::Console;
use super::events::{CommandResult, Summary};
use super::exit::{CommandError, Exit, Interrupt};
use super::journal::ResumeCommand;
use super::signals::Interrupts;
use super::upload_args::{AfterArgs, LaneArgs, TokenArgs, TransferArgs, UploadArgs};
use super::values::{Count, Size};
use super::{client, fetch, journal, memory};
use context::UploadRun;
pub(super) use context::{KeepCompleted, RunOptions};
pub(super) use plan::{IfNew, JobOptions, UploadJob};
use progress::ProgressTotals;
use tally::Tally;
pub(super) use templates::{VideoTemplates, is_same_for_all};

pub(super) fn run(args: &UploadArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    if let Some(ended) = fetch::urls(args, global, console) {
        return ended;
    }
    let token = upload_token(&args.destination.token, global)?;
    let jobs = plan::jobs(args, token.clone())?;
    let settings = settings_for(&jobs, args, global)?;
    // A dry run checks the settings too.
    let client = client::open(settings.clone())?;
    if args.dry_run {
        return plan::show(&jobs, &settings, console).map(Some);
    }
    // Not for a dry run, which needs no credentials.
    check_credentials(&settings, &args.after, token.as_ref())?;
    plan::check_stdin(&jobs, &settings)?;
    let resume = ResumeCommand::new(args.journal.as_deref(), global);
    let timetable = args.transfer.lanes.bwlimit.as_ref();
    let keep_completed = if jobs.len() > 1 { KeepCompleted::UntilSuccess } else { KeepCompleted::No };
    let options = RunOptions { after: &args.after, grace: args.grace, resume, timetable, keep_completed };
    run_jobs(jobs, client, &settings, options, console).map(Some)
}

fn settings_for(
    jobs: &[UploadJob],
    args: &UploadArgs,
    global: &GlobalArgs,
) -> Result<Settings, CommandError> {
    let mut settings = upload_settings(&args.transfer.lanes, global)?;
    settings.buffer_bytes = match args.transfer.max_buffer_memory {
        Some(Size(bytes)) => bytes,
        None if jobs.iter().any(UploadJob::is_stream) => {
            memory::for_streams(Path::new("/"), least_memory(&args.transfer))
        }
        None => memory::without_streams(least_memory(&args.transfer)),
    };
    if !args.dry_run && !args.no_journal {
        settings.journal = journal::path(args.journal.as_deref());
        if settings.journal.is_none() {
            journal::warn_that_no_journal_is_kept();
        }
    }
    Ok(settings)
}

/// Uploads the jobs and reports their results.
pub(super) fn run_jobs(
    jobs: Vec<UploadJob>,
    client: Client,
    settings: &Settings,
    options: RunOptions<'_>,
    console: &Console,
) -> Result<Summary, CommandError> {
    let bound = options.grace.saturating_add(AFTER_GRACE);
    let interrupts = Interrupts::new(console, Some(bound));
    // This thread handles signals from here on.
    console.output().must_not_wait();
    let progress = ProgressTotals::new(&jobs, settings.retry.retries);
    let jobs: Vec<Rc<UploadJob>> = jobs.into_iter().map(Rc::new).collect();
    let run = UploadRun {
        has_several_files: jobs.iter().map(|job| job.files()).sum::<usize>() > 1,
        tally: RefCell::new(Tally::new(&jobs)),
        options,
        settings,
        client,
        console,
        shutdown: RefCell::new(Shutdown::new()),
        interrupt: Cell::new(None),
        totals: RefCell::new(progress),
        active: RefCell::default(),
        receipts: RefCell::default(),
        ring: OnceCell::new(),
    };
    client::block_on(async {
        run.run_all(jobs, interrupts).await;
        Ok(())
    })?;
    Ok(run.concluded())
}

impl UploadRun<'_> {
    /// Prints the totals and returns the summary.
    fn concluded(self) -> Summary {
        let (tally, interrupt) = (self.tally.into_inner(), self.interrupt.get());
        tally.print(interrupt, self.console);
        let exit = tally.exit(interrupt);
        let keeps = self.options.keep_completed == KeepCompleted::UntilSuccess;
        // Only now: if the command fails, its repetition has to find these files uploaded.
        if keeps && exit == Exit::Done {
            self.receipts.take().iter().for_each(Receipt::confirm);
        }
        let progress = self.totals.into_inner();
        let (retries, resent_bytes) = (progress.retries(), progress.resent_bytes());
        let totals = RunSummary { retries, resent_bytes, ..tally.totals };
        if keeps && self.settings.journal.is_some() {
            note_others(&totals, interrupt, self.console);
        }
        Summary { exit, totals, client: Some(self.client) }
    }
}

/// Names the command that uploads the files that are missing.
fn note_others(totals: &RunSummary, interrupt: Option<Interrupt>, console: &Console) {
    // After an error of all files the same command ends in the same way.
    if totals.files_cancelled > 0 && interrupt.is_some() {
        console.note(
            "run the same command again to upload only the other files: `ringlift resume` does not know those that \
             were not started",
        );
    } else if totals.files_failed + totals.files_cancelled > 0 && totals.files_done > 0 {
        console.note("run the same command again to upload only the other files");
    }
}

/// Returns the memory that one chunk of standard input takes.
fn least_memory(transfer: &TransferArgs) -> u64 {
    match transfer.chunks.chunk_size {
        ChunkSize::Bytes(bytes) => MemoryBudget::least_for(bytes),
        ChunkSize::Auto => MemoryBudget::least_for(MIN_CHUNK_BYTES),
    }
}

/// Returns the library's settings for uploads, with the API key if there is one, and without a journal.
pub(super) fn upload_settings(lanes: &LaneArgs, global: &GlobalArgs) -> Result<Settings, CommandError> {
    let mut settings = client::client_settings(global);
    if let Some(key) = client::key(global)? {
        settings.credentials = Credentials::ApiKey(key);
    }
    settings.reader = lanes.reader;
    settings.checksum = lanes.checksum;
    match lanes.concurrency {
        Count::Exactly(lanes) => settings.lanes = NonZeroUsize::get(lanes),
        Count::Auto => {
            settings.lanes = MOST_AUTOMATIC_LANES;
            settings.lane_control = LaneControl::Automatic;
        }
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
    // A token in a file is not among the secrets of the command line and the environment.
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

/// The most connections of an automatic number: more than this many on one link gain little, and take from others.
const MOST_AUTOMATIC_LANES: usize = 32;

/// Longest time that the process continues after the grace period.
const AFTER_GRACE: Duration = CANCEL_TIMEOUT.saturating_add(Duration::from_secs(7));
