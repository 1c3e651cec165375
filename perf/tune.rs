//! The search for the number of lanes on shaped links, compared with every fixed number.
//!
//! The server and the proxy have processes of their own, so that the processor time of the measurement is the client's.

mod automatic;
mod exhaustive;
mod shapes;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringlift::tune::{PathEvent, PathLimits, PathReport, TuneContext, advise, measure_path};
use ringlift::{Credentials, Settings};

use crate::Result;
use crate::helper_process::{ServerProcess, ShapedProxyProcess, address_of, own_command};
use crate::shaped_link::LinkShape;
pub(crate) use automatic::{AutoOptions, compare_automatic};
use exhaustive::{FixedRates, upload_rate};
use shapes::{NamedShape, SHAPES};

/// The options of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct TuneOptions {
    /// The number of searches on each shape.
    pub(crate) runs: usize,
    /// `true` if rates of fixed numbers are not taken from an earlier comparison.
    pub(crate) is_afresh: bool,
    /// `true` if each measurement of a search is printed.
    pub(crate) prints_rungs: bool,
    /// The folder for what the server receives, by default that of the comparison.
    pub(crate) store: Option<PathBuf>,
}

/// The place of a comparison.
struct TuneBench<'a> {
    options: &'a TuneOptions,
    dir: &'a Path,
    place: &'a Path,
    target: SocketAddr,
    api_key: &'a str,
}

/// The results of the searches on one link.
#[derive(Default)]
struct ShapeSummary {
    ratios: Vec<f64>,
    most_requests: u32,
    most_time: Duration,
    wrong_verdicts: usize,
    /// The smallest chunk size that was chosen, with its number of lanes.
    smallest_chunk: Option<(u64, u32)>,
}

/// Prints the table. Returns failure if, on any link, fewer than nine searches in ten reach 95 % of the best fixed number,
/// a limit is exceeded, a verdict is wrong, or a chunk size costs more than 3 %.
pub(crate) fn compare(dir: &Path, only: Option<&str>, options: &TuneOptions) -> Result<ExitCode> {
    std::fs::create_dir_all(dir)?;
    let store = options.store.as_deref().unwrap_or(dir);
    let place = tempfile::Builder::new().prefix("tune-").tempdir_in(store)?;
    let server = ServerProcess::start(own_command()?, &place.path().join("server"))?;
    let target = address_of(&server.url)?;
    let bench = TuneBench { options, dir, place: place.path(), target, api_key: &server.api_key };
    println!(
        "{:12} {:>6} {:>10} {:>5} {:>10} {:>6} {:>8} {:>8} {:>9}  verdict",
        "link", "chosen", "MiB/s", "best", "MiB/s", "ratio", "requests", "seconds", "chunk KiB"
    );
    let mut is_missed = false;
    for named in SHAPES.iter().filter(|named| only.is_none_or(|only| named.name.starts_with(only))) {
        is_missed |= !bench.compare_on(named)?;
    }
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl TuneBench<'_> {
    /// Prints the rows of one link and their summary. Returns `true` if nothing was missed.
    fn compare_on(&self, named: &NamedShape) -> Result<bool> {
        let proxy = ShapedProxyProcess::start(own_command()?, self.target, &named.shape.settled())?;
        let settled = self.settings(&proxy.url);
        let mut fixed = FixedRates::open(self.dir, named, self.options.is_afresh);
        fixed.complete(&settled, self.place)?;
        let mut summary = ShapeSummary::default();
        for run in 0..self.options.runs {
            let report = self.search(named, run)?;
            let chosen = fixed.rate(report.lanes, &settled, self.place)?;
            if self.options.prints_rungs {
                print_rungs(&report, &fixed);
            }
            summary.add(named, &report, chosen, fixed.best());
        }
        let Some((chunk_bytes, lanes)) = summary.smallest_chunk else { return Ok(true) };
        // Within a chunk, no time is lost: the rate of the best chunk size is at most that.
        let most = fixed.rate(lanes, &settled, self.place)?;
        let rate = upload_rate(&settled, self.place, (lanes, most), chunk_bytes)?;
        Ok(summary.print(named, rate / most))
    }

    /// Runs one search on a new link.
    fn search(&self, named: &NamedShape, run: usize) -> Result<PathReport> {
        let shape = LinkShape { seed: run as u64 + 1, ..named.shape };
        let proxy = ShapedProxyProcess::start(own_command()?, self.target, &shape)?;
        let watch = &mut |_: PathEvent<'_>| ControlFlow::Continue(());
        Ok(measure_path(&self.settings(&proxy.url), self.place, limits(), watch)?)
    }

    fn settings(&self, url: &str) -> Settings {
        let mut settings = Settings::default();
        settings.endpoint_url = url.to_owned();
        settings.credentials = Credentials::ApiKey(self.api_key.into());
        settings
    }
}

impl ShapeSummary {
    /// Adds a search, and prints its row.
    fn add(&mut self, named: &NamedShape, report: &PathReport, chosen: f64, (best, most): (u32, f64)) {
        let verdict = advise(report, &[], &TuneContext::default()).bottleneck.name();
        let ratio = chosen / most;
        println!(
            "{:12} {:>6} {:>10.2} {best:>5} {:>10.2} {ratio:>6.2} {:>8} {:>8.1} {:>9}  {verdict}",
            named.name,
            report.lanes,
            chosen / MIB,
            most / MIB,
            report.requests,
            report.elapsed.as_secs_f64(),
            report.chunk_bytes >> 10,
        );
        self.ratios.push(ratio);
        self.most_requests = self.most_requests.max(report.requests);
        self.most_time = self.most_time.max(report.elapsed);
        self.wrong_verdicts += usize::from(verdict != named.bottleneck);
        let chunk = (report.chunk_bytes, report.lanes);
        self.smallest_chunk = Some(self.smallest_chunk.map_or(chunk, |smallest| smallest.min(chunk)));
    }

    /// Prints the summary. Returns `true` if nothing was missed.
    fn print(&self, named: &NamedShape, chunk_ratio: f64) -> bool {
        let runs = self.ratios.len();
        let good = self.ratios.iter().filter(|ratio| **ratio >= ENOUGH).count();
        let limits = limits();
        let checks = [
            ("ratio", 10 * good >= 9 * runs),
            ("requests", self.most_requests <= limits.requests),
            ("seconds", self.most_time <= limits.time),
            ("verdict", self.wrong_verdicts == 0),
            ("chunk", chunk_ratio >= ENOUGH_CHUNK),
        ];
        let missed: Vec<&str> = checks.iter().filter(|(_, is_met)| !is_met).map(|(name, _)| *name).collect();
        let remark =
            if missed.is_empty() { String::new() } else { format!("; MISSED: {}", missed.join(", ")) };
        println!(
            "{}: {good} of {runs} reach {ENOUGH}, lowest {:.2}; at most {} requests and {:.1} s; {} of {runs} verdicts \
             right; chunk {chunk_ratio:.2}{remark}",
            named.name,
            self.ratios.iter().copied().fold(f64::INFINITY, f64::min),
            self.most_requests,
            self.most_time.as_secs_f64(),
            runs - self.wrong_verdicts,
        );
        missed.is_empty()
    }
}

/// Prints the measurements of a search, each with the rate of the same number in the comparison.
fn print_rungs(report: &PathReport, fixed: &FixedRates) {
    for rung in &report.rungs {
        println!(
            "  {:>2} lanes: {:>6.2} ({:.2} to {:.2}) in {:>4.1} s, fixed {:>6.2}, {:?}",
            rung.lanes,
            rung.rate.mean / MIB,
            rung.rate.low / MIB,
            rung.rate.high / MIB,
            rung.window.as_secs_f64(),
            fixed.known(rung.lanes).unwrap_or(f64::NAN) / MIB,
            rung.purpose,
        );
    }
    println!("  round trip {:?}, chunk {:?}, {:?}", report.round_trip, report.chunk, report.end);
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
/// The share of the rate within chunks that uploads with the chosen chunk size have to reach.
const ENOUGH_CHUNK: f64 = 0.97;
