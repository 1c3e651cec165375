//! The search for the number of lanes on shaped links, compared with every fixed number.
//!
//! The server and the proxy have processes of their own, so that the processor time of the measurement is the client's.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ringlift::tune::{PathLimits, PathReport, TuneContext, advise, measure_lanes, measure_path};
use ringlift::{Credentials, Settings};

use crate::Result;
use crate::helper_process::{ServerProcess, ShapedProxyProcess, address_of};
use crate::shaped_link::LinkShape;

/// A link with its name.
struct NamedShape {
    name: &'static str,
    shape: LinkShape,
    /// The bottlenecks that describe the link.
    expected: &'static [&'static str],
}

/// Prints the table. Returns failure if a choice reaches less than 95 % of the best fixed number, or if a limit is
/// exceeded.
pub(crate) fn compare(dir: &Path, only: Option<&str>) -> Result<ExitCode> {
    std::fs::create_dir_all(dir)?;
    let place = tempfile::Builder::new().prefix("tune-").tempdir_in(dir)?;
    let server = ServerProcess::start(own()?, &place.path().join("server"))?;
    let target = address_of(&server.url)?;
    println!(
        "{:12} {:>6} {:>10} {:>5} {:>10} {:>6} {:>8} {:>8}  verdict",
        "link", "chosen", "MiB/s", "best", "MiB/s", "ratio", "requests", "seconds"
    );
    let mut is_missed = false;
    for named in SHAPES.iter().filter(|named| only.is_none_or(|only| named.name.starts_with(only))) {
        is_missed |= !compare_on(named, target, &server.api_key, place.path())?;
    }
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the row of one link. Returns `true` if nothing was missed.
fn compare_on(named: &NamedShape, target: SocketAddr, api_key: &str, place: &Path) -> Result<bool> {
    let report = {
        let proxy = ShapedProxyProcess::start(own()?, target, &named.shape)?;
        let watch = &mut |_: ringlift::tune::PathEvent<'_>| ControlFlow::Continue(());
        measure_path(&settings(&proxy.url, api_key), place, limits(), watch)?
    };
    let proxy = ShapedProxyProcess::start(own()?, target, &named.shape.settled())?;
    let mut rates = Vec::new();
    for lanes in FIXED_LANES {
        let mut generous = limits();
        generous.requests = 1000;
        let settings = fixed_settings(&proxy.url, api_key, &named.shape.settled(), *lanes);
        rates.push((*lanes, measure_lanes(&settings, place, generous, *lanes)?.mean));
    }
    let chosen = match rates.iter().find(|(lanes, _)| *lanes == report.lanes) {
        Some((_, rate)) => *rate,
        None => {
            let settings = fixed_settings(&proxy.url, api_key, &named.shape.settled(), report.lanes);
            measure_lanes(&settings, place, limits(), report.lanes)?.mean
        }
    };
    let (best, most) = rates.iter().fold((1, 0.0), |best, now| if now.1 > best.1 { *now } else { best });
    let verdict = advise(&report, &[], &TuneContext::default()).bottleneck.name();
    Ok(print_row(named, &report, chosen, (best, most), verdict))
}

fn print_row(
    named: &NamedShape,
    report: &PathReport,
    chosen: f64,
    (best, most): (u32, f64),
    verdict: &str,
) -> bool {
    let ratio = chosen / most;
    let limits = limits();
    let mut missed = Vec::new();
    if ratio < ENOUGH {
        missed.push("ratio");
    }
    if report.requests > limits.requests {
        missed.push("requests");
    }
    if report.elapsed > limits.time + Duration::from_secs(2) {
        missed.push("seconds");
    }
    if !named.expected.contains(&verdict) {
        missed.push("verdict");
    }
    let remark = if missed.is_empty() { String::new() } else { format!(" missed: {}", missed.join(", ")) };
    println!(
        "{:12} {:>6} {:>10.2} {best:>5} {:>10.2} {ratio:>6.2} {:>8} {:>8.1}  {verdict}{remark}",
        named.name,
        report.lanes,
        chosen / MIB,
        most / MIB,
        report.requests,
        report.elapsed.as_secs_f64(),
    );
    missed.is_empty()
}

fn own() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

fn settings(url: &str, api_key: &str) -> Settings {
    let mut settings = Settings::default();
    settings.endpoint_url = url.to_owned();
    settings.credentials = Credentials::ApiKey(api_key.into());
    settings
}

/// Returns settings with a send buffer for a second of a lane's rate, as the search chooses it by the rates that it has
/// measured.
fn fixed_settings(url: &str, api_key: &str, shape: &LinkShape, lanes: u32) -> Settings {
    let rate = shape.each_mib.min(shape.all_mib / f64::from(lanes)) * MIB;
    let mut settings = settings(url, api_key);
    settings.dial.send_buffer_bytes = Some((rate as usize).max(128 << 10)).filter(|bytes| *bytes < 2 << 20);
    settings
}

/// Returns the limits of the command. The local server states a budget that it does not enforce.
fn limits() -> PathLimits {
    let mut limits = PathLimits::default();
    limits.obeys_stated_budget = false;
    limits
}

const MIB: f64 = (1 << 20) as f64;
/// The share of the best fixed number that a choice has to reach.
const ENOUGH: f64 = 0.95;
/// Up to the largest number that the ladder reaches with 30 requests.
const FIXED_LANES: &[u32] = &[1, 2, 3, 4, 6, 8, 12, 16];

const SHAPES: &[NamedShape] = &[
    NamedShape { name: "clean", shape: LinkShape::plain(2, 40.0, 40.0), expected: &["link"] },
    NamedShape { name: "thin", shape: LinkShape::plain(30, 0.625, 0.625), expected: &["link"] },
    NamedShape { name: "capped", shape: LinkShape::plain(80, 4.0, 16.0), expected: &["link"] },
    NamedShape { name: "distant", shape: LinkShape::plain(80, 2.0, 1000.0), expected: &["connection"] },
    NamedShape {
        name: "bufferbloat",
        shape: LinkShape { queue_ms: 1000, ..LinkShape::plain(20, 5.0, 5.0) },
        expected: &["link"],
    },
    NamedShape {
        name: "lossy",
        shape: LinkShape { stall_mib: 2.0, ..LinkShape::plain(40, 6.0, 20.0) },
        expected: &["link"],
    },
    NamedShape {
        name: "rival",
        shape: LinkShape { rivals: 4, ..LinkShape::plain(40, 24.0, 24.0) },
        expected: &["link", "connection"],
    },
    NamedShape {
        name: "step",
        shape: LinkShape { step_after_ms: 8000, step_factor: 0.5, ..LinkShape::plain(40, 4.0, 16.0) },
        expected: &["link"],
    },
];
