//! `ringlift upload`: uploads files or standard input.

mod after;
mod halt;
mod lengths;
mod one;
mod plan;
mod progress;
mod stdin;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use ringlift::source::{Declined, MemoryBudget};
use ringlift::wire::limits::MIN_CHUNK_BYTES;
use ringlift::{ChunkSize, Client, Credentials, Secret, Settings};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::args::Global;
use super::bandwidth::Timetable;
use super::events::{Event, Summary};
use super::exit::{Exit, Failure, Interrupt};
use super::journal::ResumeCommand;
use super::screen::{Screen, speed};
use super::signals::Interrupts;
use super::upload_args::{AfterArgs, LaneArgs, TokenArgs, UploadArgs, WayArgs};
use super::usage::Meter;
use super::values::{Count, Size};
use super::{Ended, client, journal, memory, proxy};
use halt::Halt;
use one::{Done, End};
pub(super) use plan::{Errand, Item, Unbegun};
use progress::Board;

pub(super) fn run(args: &UploadArgs, global: &Global, screen: &Screen) -> Ended {
    let token = upload_token(&args.destination.token, global)?;
    let items = plan::items(args, token.clone())?;
    let mut settings = settings(&args.way.lanes, global)?;
    settings.buffer_bytes = match args.way.max_buffer_memory {
        Some(Size(bytes)) => bytes,
        None => memory::for_streams(Path::new("/"), least_memory(&args.way)),
    };
    if !args.dry_run && !args.no_journal {
        settings.journal = journal::path(args.journal.as_deref());
        if settings.journal.is_none() {
            journal::warn_of_none();
        }
    }
    let client = client::open(settings.clone())?;
    if args.dry_run {
        return plan::show(&items, &settings, screen).map(Some);
    }
    check_credentials(&settings, &args.after, token.as_ref())?;
    plan::check_stdin(&items, &settings)?;
    let resume = ResumeCommand::new(args.journal.as_deref(), global);
    let timetable = args.way.lanes.bwlimit.as_ref();
    let memory = if items.len() > 1 { Memory::UntilTheEnd } else { Memory::None };
    let rules = Rules { after: &args.after, grace: args.grace, resume, timetable, memory };
    carry_out(items, client, &settings, rules, screen).map(Some)
}

/// Uploads the jobs and reports their results.
pub(super) fn carry_out(
    items: Vec<Item>,
    client: Client,
    settings: &Settings,
    rules: Rules<'_>,
    screen: &Screen,
) -> Result<Summary, Failure> {
    let bound = rules.grace.saturating_add(AFTER_GRACE);
    let interrupts = Interrupts::new(screen, Some(bound));
    screen.output().must_not_wait();
    let total_bytes = items.iter().map(Item::bytes).sum();
    let (halt, board) = (Halt::new(), RefCell::new(Board::new(total_bytes)));
    let open_items = RefCell::new(items.iter().map(|item| (item.index, item.clone())).collect());
    let desk = Desk {
        rules,
        settings,
        client,
        screen,
        halt,
        board,
        open_items,
        plans: Semaphore::new(PLANS),
        ring: OnceCell::new(),
    };
    let summary = client::block_on(desk.work(items, interrupts))?;
    Ok(Summary { client: Some(desk.client), ..summary })
}

/// Returns the memory that one chunk of standard input takes.
fn least_memory(way: &WayArgs) -> u64 {
    match way.chunk_size {
        ChunkSize::Bytes(bytes) => MemoryBudget::least_for(bytes),
        ChunkSize::Auto => MemoryBudget::least_for(MIN_CHUNK_BYTES),
    }
}

/// Options of a whole run.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) after: &'a AfterArgs,
    pub(super) grace: Duration,
    /// Command line that resumes an upload.
    pub(super) resume: ResumeCommand,
    /// Bandwidth limits over time.
    pub(super) timetable: Option<&'a Timetable>,
    pub(super) memory: Memory,
}

/// Retention of completed files in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// None: the command has a single file.
    None,
    /// Until all files are uploaded. If one fails, the repeated command skips the completed files.
    UntilTheEnd,
    /// Beyond the end of this command: the files belong to interrupted commands that may be repeated.
    Kept,
}

/// State that the uploads of one command share.
struct Desk<'a> {
    rules: Rules<'a>,
    settings: &'a Settings,
    client: Client,
    screen: &'a Screen,
    halt: Halt,
    board: RefCell<Board>,
    /// Jobs that have not ended, by their index on the command line.
    open_items: RefCell<BTreeMap<usize, Item>>,
    /// Bounds concurrent planning: each plan opens its file, and descriptors are limited.
    plans: Semaphore,
    /// Availability of io_uring, probed for the first plan that is printed.
    ring: OnceCell<Result<(), Declined>>,
}

impl Desk<'_> {
    /// Runs every job, a few at a time, until all have ended or a signal ends them.
    async fn work(&self, items: Vec<Item>, mut interrupts: Interrupts) -> Result<Summary, Failure> {
        let started = Instant::now();
        let mut meter = Meter::default();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends = Vec::with_capacity(items.len());
        // The engine bounds the active uploads. Extra ones wait there, so that the next starts without delay.
        let handed_over = 2 * self.settings.transfers;
        self.keep_to_timetable();
        let mut uploads =
            stream::iter(items).map(|item| one::upload(self, item)).buffer_unordered(handed_over);
        self.screen.begin(self.board.borrow().total_bytes());
        loop {
            tokio::select! {
                end = uploads.next() => match end {
                    Some(end) => ends.push(end),
                    None => break,
                },
                interrupt = interrupts.next() => self.interrupt(interrupt),
                _ = ticks.tick() => {
                    meter.look();
                    self.keep_to_timetable();
                    self.board.borrow_mut().show(self.screen);
                }
                () = sleep_until(self.halt.cancel_at().into()) => self.halt.cancel(),
                () = sleep_until(self.halt.abandon_at().into()) => break,
            }
        }
        drop(uploads);
        self.screen.finish();
        let summary = self.with_abandoned(self.summary(&ends));
        let summary = Summary { usage: Some(meter.usage()), ..summary };
        if self.rules.memory == Memory::UntilTheEnd && summary.exit == Exit::Done {
            ends.iter().for_each(End::forget);
        }
        self.conclude(&ends, &summary, started.elapsed());
        Ok(summary)
    }

    fn keep_to_timetable(&self) {
        if let Some(timetable) = self.rules.timetable {
            timetable.apply(&self.settings.bandwidth);
        }
    }

    /// Handles a signal: the first one lets active chunks finish, the second one cancels them.
    fn interrupt(&self, interrupt: Interrupt) {
        let grace = self.rules.grace;
        self.screen.output().hurry();
        if self.halt.stop(interrupt, grace) {
            let grace_ms = super::events::millis(grace);
            self.screen.event(&Event::Stopping { signal: interrupt.name(), grace_ms });
            self.screen.note(format_args!(
                "{}: finishing the active chunks, for at most {}; send it again to stop immediately",
                interrupt.name(),
                humantime::format_duration(grace),
            ));
        } else {
            self.halt.cancel();
        }
    }

    /// Adds the abandoned jobs to the summary. A source that does not respond blocks its thread forever.
    fn with_abandoned(&self, summary: Summary) -> Summary {
        let abandoned = self.open_items.take();
        let Some(interrupt) = self.halt.interrupt().filter(|_| !abandoned.is_empty()) else {
            return summary;
        };
        abandoned.values().for_each(|item| one::tell_abandoned(self, item, interrupt));
        let files_failed = summary.files_failed + abandoned.values().map(Item::files).sum::<usize>();
        let only = abandoned.keys().next().filter(|_| summary.files_done + files_failed == 1);
        let video_id = only.and_then(|index| self.board.borrow().video_id(*index).map(str::to_owned));
        let exit = Exit::Interrupted(interrupt);
        Summary { exit, files_failed, video_id: summary.video_id.or(video_id), ..summary }
    }

    fn summary(&self, ends: &[End]) -> Summary {
        let done: Vec<_> = ends.iter().filter_map(|end| end.result.as_ref().ok()).collect();
        let done_files = ends.iter().filter(|end| end.result.is_ok()).map(|end| end.files).sum();
        let only = match done.as_slice() {
            [done] if ends.len() == 1 => Some(done),
            _ => None,
        };
        let mut exits: Vec<Exit> = ends.iter().map(End::exit).collect();
        if let Some(interrupt) =
            self.halt.interrupt().filter(|_| exits.iter().any(|exit| *exit != Exit::Done))
        {
            exits.push(Exit::Interrupted(interrupt));
        }
        Summary {
            exit: Exit::of_all(exits),
            video_id: match only {
                Some(done) => Some(done.uploaded.video_id.clone()),
                None => ends.first().filter(|_| ends.len() == 1).and_then(End::video_id),
            },
            bytes: ends.iter().map(End::bytes).sum(),
            sha256: only.and_then(|done| done.sha256.clone()),
            files_done: done_files,
            files_failed: ends.iter().map(|end| end.files).sum::<usize>() - done_files,
            retries: self.board.borrow().retries(),
            resent_bytes: self.board.borrow().resent_bytes(),
            ..Summary::default()
        }
    }

    /// Prints the totals of several files.
    fn conclude(&self, ends: &[End], summary: &Summary, elapsed: Duration) {
        let Summary { files_done, files_failed, bytes, .. } = summary;
        if files_done + files_failed > 1 {
            let sent = ends.iter().filter_map(|end| end.result.as_ref().ok()).map(Done::sent_bytes).sum();
            let speed = speed(sent, elapsed);
            let failed = if *files_failed > 0 { format!("; {files_failed} failed") } else { String::new() };
            self.screen.note(format_args!(
                "{files_done} of {} files, {} in {:.1} s ({speed}){failed}",
                files_done + files_failed,
                Size(*bytes),
                elapsed.as_secs_f64(),
            ));
        }
        let is_remembered = self.rules.memory == Memory::UntilTheEnd && self.settings.journal.is_some();
        if *files_failed > 0 && *files_done > 0 && is_remembered {
            self.screen.note("run the same command again to upload only the failed files");
        }
    }
}

/// Returns the library's settings for uploads, with the API key if there is one, and without a journal.
pub(super) fn settings(lanes: &LaneArgs, global: &Global) -> Result<Settings, Failure> {
    proxy::mention(global);
    let mut settings = client::settings(global);
    if let Some(key) = client::key(global)? {
        settings.credentials = Credentials::ApiKey(key);
    }
    settings.reader = lanes.reader;
    settings.checksum = lanes.checksum.into();
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

pub(super) fn upload_token(args: &TokenArgs, global: &Global) -> Result<Option<Secret>, Failure> {
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
) -> Result<(), Failure> {
    let has_key = !matches!(settings.credentials, Credentials::None);
    match (has_key, token) {
        (false, None) => Err(Failure::usage(
            "no API key: set APIVIDEO_API_KEY or use --api-key-file; or upload with an upload token, in \
             RINGLIFT_UPLOAD_TOKEN or --upload-token-file",
        )),
        (false, Some(_)) if after.verify || after.wait.is_some() => {
            Err(Failure::usage("--verify and --wait need an API key in addition to the upload token"))
        }
        _ => Ok(()),
    }
}

/// Number of files opened at the same time for planning.
const PLANS: usize = 1;

/// Longest time that the process continues after the grace period.
const AFTER_GRACE: Duration = halt::LAST_WORDS.saturating_add(Duration::from_secs(7));

/// Interval of memory samples and updates of the bar.
const TICK: Duration = Duration::from_millis(100);
