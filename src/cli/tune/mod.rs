//! `ringlift tune`: measures the machine and the path to a service, and recommends settings.

pub(super) mod leftovers;
mod output_file;
mod plot;
mod settings_file;
mod target;
mod verdict;
mod workplace;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ringlift::bulk::RunSummary;
use ringlift::tune::{
    Ceiling, LEAST_READER_BYTES, PathEnd, PathEvent, PathLimits, PathReport, TuneAdvice, TuneContext, advise,
    measure_loopback, measure_path, measure_readers, measure_sealing,
};
use ringlift::{OneLine, SigbusHandler, UsageMeter};
use rustix::fs::statvfs;

use super::args::GlobalArgs;
use super::console::Console;
use super::demo::sample;
use super::events::{CommandEvent, CommandResult, Summary, error_event};
use super::exit::{CommandError, Exit, Interrupt};
use super::signals::Interrupts;
use super::tune_args::TuneArgs;
use super::tune_events::{TunedEvent, TuningEvent};
use super::values::Size;
use target::TuneTarget;
use workplace::Workplace;

pub(super) fn run(args: &TuneArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    check_outputs(args)?;
    let mut interrupts = Interrupts::new(console, Some(EXIT_TIMEOUT));
    let mut usage = UsageMeter::default();
    workplace::remove_abandoned(args.data.as_deref());
    // Declared before the target, so that the server has stopped when its data is removed.
    let place = Workplace::create(args.data.as_deref())?;
    let target = TuneTarget::open(args, global, place.path())?;
    let limits = limits(args, &target, place.path())?;
    announce(&target, &limits, console);
    let ceilings = if args.path_only {
        Vec::new()
    } else {
        measure_ceilings(args.file.as_deref(), place.path(), console, &mut interrupts)?
    };
    let (path, interrupt) = measure(&target, limits, place.path(), console, &mut interrupts, &mut usage)?;
    let usage = usage.usage();
    let totals = RunSummary { sent_bytes: path.bytes_sent, usage: Some(usage), ..RunSummary::default() };
    let checked = interrupt
        .map_or_else(|| check_measured(&path), |interrupt| Err(CommandError::Interrupted(interrupt)));
    if let Err(failure) = checked {
        // Here, because the summary of a returned error has no totals.
        console.print_error(&failure);
        console.emit(&CommandEvent::Failed { error: error_event(&failure) });
        return Ok(Some(Summary { exit: failure.exit(), totals, client: None }));
    }
    let context = TuneContext {
        is_tls: target.is_tls(),
        bandwidth_cap: target.settings.bandwidth.limit(),
        cores: thread::available_parallelism().map_or(1, usize::from),
    };
    let advice = advise(&path, &ceilings, &context);
    report(args, &target, &path, &ceilings, &advice, console)?;
    let left = !path.swept.left.is_empty();
    Ok(Some(Summary { exit: if left { Exit::Temporary } else { Exit::Done }, totals, client: None }))
}

fn check_outputs(args: &TuneArgs) -> Result<(), CommandError> {
    if let Some(path) = &args.write_config {
        settings_file::check(path)?;
    }
    if let Some(path) = &args.plot {
        output_file::check(path)?;
    }
    if let (Some(plot), Some(config)) = (&args.plot, &args.write_config) {
        output_file::check_apart(plot, config)?;
    }
    Ok(())
}

/// Returns the limits. A server in this process stores what it receives, which must not fill the disk.
fn limits(args: &TuneArgs, target: &TuneTarget, place: &Path) -> Result<PathLimits, CommandError> {
    let mut limits = PathLimits::default();
    limits.requests = args.max_requests;
    limits.bytes = args.max_bytes.0;
    limits.time = args.max_time;
    limits.most_lanes = args.max_lanes;
    if target.is_local() {
        let room = statvfs(place).map_err(|error| {
            CommandError::io(format!("read the free space of {}", place.display()), error.into())
        })?;
        // The server in this process states the service's limits without enforcing them.
        limits.obeys_stated_budget = false;
        // f_bavail excludes root's reserve (statvfs(3)). Half of it, because other programs write to the disk, too.
        limits.bytes = limits.bytes.min(room.f_bavail.saturating_mul(room.f_frsize) / 2);
    }
    Ok(limits)
}

fn announce(target: &TuneTarget, limits: &PathLimits, console: &Console) {
    let place = if target.is_local() { "a server in this process" } else { &target.settings.endpoint_url };
    console.note(format_args!(
        "measuring the path to {place}: at most {} videos, {} requests and {} in {}; all videos are deleted at the end",
        limits.most_videos(),
        limits.requests,
        Size(limits.bytes),
        humantime::format_duration(limits.time),
    ));
    console.emit(&CommandEvent::Tuning(TuningEvent {
        endpoint_url: &target.settings.endpoint_url,
        videos: limits.most_videos(),
        requests: limits.requests,
        bytes: limits.bytes,
        seconds: limits.time.as_secs_f64(),
    }));
}

fn measure_ceilings(
    file: Option<&Path>,
    place: &Path,
    console: &Console,
    interrupts: &mut Interrupts,
) -> Result<Vec<Ceiling>, CommandError> {
    console.note("measuring the readers, the encryption and the loopback");
    let generated = place.join("readers.mp4");
    let file: PathBuf = match file {
        Some(file) => file.to_owned(),
        None => {
            sample::make(&generated, SAMPLE_BYTES, interrupts)?;
            sync(&generated)?;
            generated
        }
    };
    let mut ceilings = measure_readers(&file, SigbusHandler::Install)?;
    if ceilings.is_empty() {
        console.note(format_args!(
            "{}: the readers were not measured, which takes a file of at least {}; the disk cannot be the bottleneck",
            OneLine(&file.to_string_lossy()),
            Size(LEAST_READER_BYTES)
        ));
    }
    interrupts.check()?;
    ceilings.push(measure_sealing(SEALING_TIME)?);
    ceilings.extend(measure_loopback(place)?);
    interrupts.check()?;
    Ok(ceilings)
}

/// Writes the sample to the disk: pages that are not written yet cannot leave the page cache.
fn sync(path: &Path) -> Result<(), CommandError> {
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| CommandError::io(format!("write {}", path.display()), error))
}

/// Measures the path. A signal ends the measurement after its videos were deleted; the first one is returned.
fn measure(
    target: &TuneTarget,
    limits: PathLimits,
    place: &Path,
    console: &Console,
    interrupts: &mut Interrupts,
    usage: &mut UsageMeter,
) -> Result<(PathReport, Option<Interrupt>), CommandError> {
    let mut interrupt: Option<Interrupt> = None;
    let mut ticks = 0u64;
    let report = measure_path(&target.settings, place, limits, &mut |event| {
        match event {
            PathEvent::Measured(rung) => {
                console.note(verdict::rung_line(rung));
                console.emit(&CommandEvent::Rung { rung });
            }
            _ => {
                ticks += 1;
                if ticks.is_multiple_of(TICKS_A_SAMPLE) {
                    usage.sample();
                }
            }
        }
        // The first signal decides the exit code.
        interrupt = interrupt.or_else(|| interrupts.try_next());
        if interrupt.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    for id in &report.swept.left {
        console
            .alert(format_args!("video {id} could not be deleted: delete it with `ringlift clean --tune`"));
    }
    Ok((report, interrupt))
}

/// Fails if the measurement has no result.
fn check_measured(report: &PathReport) -> Result<(), CommandError> {
    match &report.end {
        PathEnd::Failed(error) if report.rate.is_none() => Err(CommandError::Library(error.clone())),
        // A 429 is a result.
        PathEnd::Throttled => Ok(()),
        _ if report.rate.is_none() => Err(CommandError::Other(
            Exit::Failed,
            "nothing could be measured: the bytes were sent too fast, or the limits are too small: raise --max-bytes, \
             --max-requests or --max-time"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

fn report(
    args: &TuneArgs,
    target: &TuneTarget,
    path: &PathReport,
    ceilings: &[Ceiling],
    advice: &TuneAdvice,
    console: &Console,
) -> Result<(), CommandError> {
    let sentence = verdict::sentence(advice, path);
    console.result(&sentence);
    if path.rate.is_some() {
        console.result(verdict::recommendation(advice, path));
    }
    if !path.rungs.is_empty() {
        console.result(format_args!("\n{}", verdict::rungs(path)));
    }
    if !ceilings.is_empty() {
        console.result(format_args!("\n{}", verdict::ceilings(ceilings)));
    }
    if let Some(remark) = verdict::remark(path) {
        console.note(remark);
    }
    if target.is_local() {
        console.note("this was a server in this process: --sandbox, --production or --endpoint-url measure a real path");
    }
    let url = &target.settings.endpoint_url;
    console.emit(&CommandEvent::Tuned(TunedEvent::new(url, path, ceilings, advice, &sentence)));
    if let Some(file) = &args.plot {
        plot::draw(file, path, ceilings, &sentence)?;
        console.note(format_args!("wrote {}", file.display()));
    }
    if let Some(file) = &args.write_config {
        write_config(file, path, advice, &sentence, console)?;
    }
    Ok(())
}

fn write_config(
    file: &Path,
    path: &PathReport,
    advice: &TuneAdvice,
    sentence: &str,
    console: &Console,
) -> Result<(), CommandError> {
    if path.rate.is_none() {
        // Settings that nothing was measured for would only look like a result.
        console.note(format_args!("{} was not written, because no rate was measured", file.display()));
    } else {
        settings_file::write(file, advice, path, sentence)?;
        let left_out = if path.more_lanes_unmeasured.is_some() {
            " without `concurrency`, because more lanes were not compared"
        } else {
            ""
        };
        console.note(format_args!("wrote {}{left_out}", file.display()));
    }
    Ok(())
}

/// Longest time that the command continues after a signal: long enough to delete the videos.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the readers take to reach their speed.
const SAMPLE_BYTES: u64 = 256 << 20;
const SEALING_TIME: Duration = Duration::from_secs(1);
/// Five samples of the memory a second.
const TICKS_A_SAMPLE: u64 = 40;
