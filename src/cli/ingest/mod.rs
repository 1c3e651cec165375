//! `ringlift ingest`: each file once, however often the command is run.

mod setup;
mod view;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use ringlift::UsageMeter;
use ringlift::bulk::event::millis;
use ringlift::bulk::{
    CANCEL_TIMEOUT, IngestEnd, IngestEvent, IngestOptions, Inputs, JobStore, JsonEvent, OrderBy, Report,
    Resubmit, RunSummary, Shutdown, ShutdownStage, ingest,
};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::args::GlobalArgs;
use super::console::Console;
use super::events::{CommandResult, Summary};
use super::exit::{CommandError, Exit};
use super::ingest_args::IngestArgs;
use super::signals::Interrupts;
use super::upload_args::Until;
use super::values::Size;
use super::{client, journal, upload};
pub(super) use setup::{account_of, open_store, queue_path, store_error};
use view::IngestView;

pub(super) fn run(args: &IngestArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let token = upload::upload_token(&args.token, global)?;
    setup::check_flags(args)?;
    let mut settings = upload::upload_settings(&args.transfer.lanes, global)?;
    let after = setup::after(args)?;
    if args.strict {
        check_all(setup::inputs(args, &settings, token.clone(), &after)?, console)?;
    }
    let inputs = setup::inputs(args, &settings, token.clone(), &after)?;
    if args.dry_run {
        return dry_run(inputs, &settings, console).map(Some);
    }
    upload::check_credentials(&settings, &args.check, token.as_ref())?;
    let queue = setup::queue_path(args.queue.queue.as_deref())?;
    // The journal has the uploads in flight of the queue's jobs: the two belong together.
    settings.journal = match &args.queue.queue {
        Some(queue) => Some(queue.with_extension("journal.db")),
        None => journal::path(None),
    };
    let report = args.report.clone().map(Report::open).transpose();
    let report = report.map_err(|error| CommandError::Other(Exit::Failed, error.to_string()))?;
    let store = open_store(queue, inputs.planner().account.clone())?;
    let mut options = IngestOptions::new(inputs.planner().pool.clone(), setup::owner(), setup::wall_clock());
    options.upload_token = token;
    options.after = after;
    options.resubmit = match (args.force, args.retry) {
        (true, _) => Resubmit::Anew,
        (false, Some(_)) => Resubmit::RetryFailed,
        (false, None) => Resubmit::Keep,
    };
    options.waits_for_inputs = args.selection.order_by.is_some_and(|order| order != OrderBy::Submission);
    options.max_transfer = args.limits.max_transfer.map(|size| size.0);
    options.max_duration = args.limits.max_duration;
    options.cutoff = args.limits.cutoff_mode;
    options.max_errors = args.limits.max_errors;
    options.runner.concurrent = settings.transfers.saturating_mul(2);
    options.runner.verify = args.check.verify;
    options.runner.wait_until_playable = args.check.wait == Some(Until::Playable);
    options.runner.wait_timeout = args.check.wait_timeout;
    options.runner.digest_silence = settings.patience.body;
    options.runner.has_one_token = true;
    let client = client::open(settings.clone())?;
    let interrupts = Interrupts::new(console, Some(args.grace.saturating_add(AFTER_GRACE)));
    console.output().must_not_wait();
    let work = Work { inputs, store, options, report };
    let view = RefCell::new(IngestView::new(settings.retry.retries, args.check.sha256));
    let summary = client::block_on(work_through(work, &client, args, &settings, interrupts, &view, console))?;
    Ok(Some(Summary { client: Some(client), ..summary }))
}

/// The parts of one run.
struct Work {
    inputs: Inputs,
    store: Arc<dyn JobStore>,
    options: IngestOptions,
    report: Option<Report>,
}

async fn work_through(
    work: Work,
    client: &ringlift::Client,
    args: &IngestArgs,
    settings: &ringlift::Settings,
    mut interrupts: Interrupts,
    view: &RefCell<IngestView>,
    console: &Console,
) -> Result<Summary, CommandError> {
    let Work { inputs, store, options, report } = work;
    let (mut shutdown, mut interrupt) = (Shutdown::new(), None);
    let mut events = Box::pin(ingest(inputs, store, client, options, report, shutdown.signal()));
    let mut meter = UsageMeter::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = None;
    console.start_progress();
    loop {
        let deadline = shutdown.deadline();
        tokio::select! {
            // Without room in the output queue the events wait in the library's queue.
            event = events.next(), if interrupt.is_some() || console.output().has_room() => match event {
                Some(IngestEvent::Ended(reason)) => {
                    end = Some(reason);
                    break;
                }
                Some(event) => view.borrow_mut().event(event, console),
                None => break,
            },
            received = interrupts.next() => {
                console.output().hurry();
                if interrupt.is_some() {
                    shutdown.cancel(Instant::now());
                } else {
                    interrupt = Some(received);
                    shutdown.stop(args.grace, Instant::now());
                    let (signal, grace_ms) = (received.name(), millis(args.grace));
                    console.emit(&JsonEvent::Stopping { signal, grace_ms });
                    console.note(format_args!(
                        "{signal}: finishing the active chunks, for at most {}; send it again to stop immediately",
                        humantime::format_duration(args.grace),
                    ));
                }
            }
            _ = ticks.tick() => {
                meter.sample();
                if let Some(timetable) = &args.transfer.lanes.bwlimit {
                    timetable.apply(&settings.bandwidth);
                }
                view.borrow_mut().show(console);
            }
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            } => {
                if shutdown.advance(Instant::now()) == ShutdownStage::Abandoned {
                    break;
                }
            }
        }
    }
    drop(events);
    let mut view = view.borrow_mut();
    view.conclude(console);
    console.clear_progress();
    Ok(view.summary(end, interrupt, meter.usage(), console))
}

/// Reads the inputs once, and refuses the run if one gives no job.
fn check_all(inputs: Inputs, console: &Console) -> Result<(), CommandError> {
    let mut flaws = 0u64;
    for flaw in inputs.filter_map(Result::err) {
        flaws += 1;
        console.alert(&flaw.failure.message);
    }
    if flaws == 0 {
        return Ok(());
    }
    Err(CommandError::usage(format!("{flaws} lines or files are unusable, and nothing was sent")))
}

/// Prints the jobs and the work. Sends nothing, and opens neither queue nor journal.
fn dry_run(
    mut inputs: Inputs,
    settings: &ringlift::Settings,
    console: &Console,
) -> Result<Summary, CommandError> {
    let mut totals = RunSummary::default();
    let (mut files, mut failed, mut work) = (0u64, Vec::new(), ringlift::bulk::PlannedWork::default());
    for job in inputs.by_ref() {
        let job = match job {
            Ok(job) => job,
            Err(failure) => {
                console.alert(&failure.failure.message);
                totals.files_failed += 1;
                let exit = view::exit_of(&failure.failure);
                if !failed.contains(&exit) {
                    failed.push(exit);
                }
                continue;
            }
        };
        files += 1;
        work.creates += 1;
        let Some(stamp) = job.stamp else { continue };
        work.bytes += stamp.bytes;
        let options = &job.spec.options;
        let backlog = settings.workload();
        match settings.plan_among(stamp.bytes, options.mode, options.chunk_size, backlog) {
            Ok(plan) => work.chunks += u64::from(plan.chunks()),
            Err(error) => {
                console.alert(format_args!("{:?}: {error}", job.spec.source));
                totals.files_failed += 1;
            }
        }
    }
    let mut capacity = ringlift::bulk::Capacity::default();
    capacity.uploads_per_minute = settings.workload().uploads_per_minute.map(f64::from);
    let estimate = ringlift::bulk::Estimate::new(&work, &capacity);
    let time = estimate.map_or(String::new(), |estimate| {
        let whole = Duration::from_secs(estimate.time.as_secs());
        format!(", at least {} ({:?})", humantime::format_duration(whole), estimate.bottleneck)
    });
    console.result(format_args!(
        "{files} files, {}, {} upload requests{time}; {} files ignored",
        Size(work.bytes),
        work.chunks,
        inputs.ignored()
    ));
    totals.ingest = Some(view::ingest_counts(0, inputs.ignored(), 0));
    let exit = Exit::of_all(failed);
    let exit = if totals.files_failed > 0 && exit == Exit::Done { Exit::Failed } else { exit };
    Ok(Summary { exit, totals, ..Summary::default() })
}

/// Returns the exit of the reason that ended a run early.
fn exit_of_end(end: &IngestEnd) -> Option<Exit> {
    match end {
        IngestEnd::MaxTransfer => Some(Exit::MaxTransfer),
        IngestEnd::MaxDuration => Some(Exit::MaxDuration),
        IngestEnd::MaxErrors | IngestEnd::Report(_) => Some(Exit::Failed),
        IngestEnd::Deferred { .. } => Some(Exit::Temporary),
        IngestEnd::Store(error) => Some(setup::store_exit(error)),
        IngestEnd::Fatal(error) => Some(error.kind().into()),
        _ => None,
    }
}

const TICK: Duration = Duration::from_millis(100);

/// Longest time that the process continues after the grace period: the cancellation, and writes of the store.
const AFTER_GRACE: Duration = CANCEL_TIMEOUT.saturating_add(Duration::from_secs(20));

/// The time of the reader of events, for the wall clock of the library.
fn now() -> SystemTime {
    super::events::wall_clock()
}
