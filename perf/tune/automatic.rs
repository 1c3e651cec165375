//! The number of lanes that is chosen during an upload, on shaped links, compared with the best fixed number.
//!
//! The sink and the proxies have processes of their own, and the file has no data, so that no disk takes part.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::{Client, Credentials, LaneControl, Running, Settings};
use ringlift_baseline::Scheme;

use super::exhaustive::{FixedRates, acknowledged};
use super::shapes::{NamedShape, SHAPES};
use crate::Result;
use crate::helper_process::{ShapedProxyProcess, SinkProcess, own_command};
use crate::shaped_link::LinkShape;

/// The options of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct AutoOptions {
    /// The number of pairs on each shape.
    pub(crate) pairs: usize,
    /// The fixed number to compare with; `None` for the best one.
    pub(crate) against: Option<usize>,
    /// The time of an upload with the fixed number. On fast links, 2 GiB take less.
    pub(crate) seconds: u64,
    /// `true` if the times of all changes are printed.
    pub(crate) prints_course: bool,
}

/// The place of a comparison.
struct AutoBench<'a> {
    options: &'a AutoOptions,
    dir: &'a Path,
    sample: PathBuf,
    sink: SocketAddr,
}

/// A whole upload.
struct LaneRun {
    bytes_per_second: f64,
    /// The numbers in use with the seconds since the start.
    course: Vec<(f64, u64)>,
}

/// Prints the pairs of each link. Returns failure if, on any link, the median of the ratios is below 0.95.
pub(crate) fn compare_automatic(dir: &Path, only: Option<&str>, options: &AutoOptions) -> Result<ExitCode> {
    std::fs::create_dir_all(dir)?;
    let place = tempfile::Builder::new().prefix("auto-").tempdir_in(dir)?;
    let mut sink: Command = own_command()?;
    sink.arg("sink");
    let sink = SinkProcess::start(sink, Scheme::Http, place.path())?;
    let bench = AutoBench { options, dir, sample: place.path().join("sample.mp4"), sink: sink.address()? };
    let mut is_missed = false;
    for named in SHAPES.iter().filter(|named| only.is_none_or(|only| named.name.starts_with(only))) {
        is_missed |= bench.compare_on(named)? < ENOUGH;
    }
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl AutoBench<'_> {
    /// Prints the pairs of one link and their summary. Returns the median of the ratios.
    fn compare_on(&self, named: &NamedShape) -> Result<f64> {
        self.make_sample(LARGEST_MIB)?;
        let (lanes, rate) = self.best_fixed(named)?;
        let mib = ((rate / MIB * self.options.seconds as f64) as u64).clamp(1, LARGEST_MIB);
        self.make_sample(mib)?;
        let mut shape = named.shape;
        if shape.step_after_ms > 0 {
            // In the middle of the bytes. The rate is that after the change.
            let before = rate / shape.step_factor;
            shape.step_after_ms = (mib as f64 * MIB / 2.0 / before * 1e3) as u64;
        }
        let mut ratios = Vec::new();
        for pair in 0..self.options.pairs.max(1) {
            let shape = LinkShape { seed: pair as u64 + 1, ..shape };
            // The order alternates, so that a drift of the machine favours none.
            let (fixed, automatic) = if pair % 2 == 0 {
                let fixed = self.upload(&shape, Some(lanes))?;
                (fixed, self.upload(&shape, None)?)
            } else {
                let automatic = self.upload(&shape, None)?;
                (self.upload(&shape, Some(lanes))?, automatic)
            };
            ratios.push(self.print_pair(named, (lanes, &fixed), &automatic));
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        let remark = if median < ENOUGH { "; MISSED" } else { "" };
        println!(
            "{}: {mib} MiB, {} pairs: median {median:.3}, {:.3} to {:.3}{remark}",
            named.name,
            ratios.len(),
            ratios[0],
            ratios[ratios.len() - 1],
        );
        Ok(median)
    }

    /// Returns the best fixed number and its rate in bytes per second.
    fn best_fixed(&self, named: &NamedShape) -> Result<(usize, f64)> {
        let stored = FixedRates::open(self.dir, named, false);
        let most = stored.best().1;
        let mut best = (1, 0.0);
        for lanes in
            FIXED_LANES.iter().copied().filter(|lanes| self.options.against.is_none_or(|only| *lanes == only))
        {
            // The stored rates are those within chunks. Uploads also wait for answers, which is far less than this.
            if let Some(rate) = stored.known(lanes as u32).filter(|rate| *rate < HOPELESS * most) {
                println!("{}: {lanes} lanes {:.2} MiB/s in the table of the search", named.name, rate / MIB);
                continue;
            }
            let rate = self.rate(&named.shape.settled(), lanes)?;
            println!("{}: {lanes} lanes {:.2} MiB/s", named.name, rate / MIB);
            if rate > best.1 {
                best = (lanes, rate);
            }
        }
        Ok(best)
    }

    /// Returns the rate in bytes per second at the beginning of an upload.
    fn rate(&self, shape: &LinkShape, lanes: usize) -> Result<f64> {
        let proxy = ShapedProxyProcess::start(own_command()?, self.sink, shape)?;
        let client = Client::new(settings(&proxy.url, Some(lanes)))?;
        let _upload = start(&client, &self.sample)?;
        thread::sleep(START_TIME);
        let (began, before) = (Instant::now(), acknowledged(&client));
        thread::sleep(RATE_TIME);
        // Dropping the upload cancels it.
        Ok((acknowledged(&client) - before) as f64 / began.elapsed().as_secs_f64())
    }

    /// Uploads the sample over a new link, with a fixed number of lanes or with the automatic one.
    fn upload(&self, shape: &LinkShape, lanes: Option<usize>) -> Result<LaneRun> {
        let proxy = ShapedProxyProcess::start(own_command()?, self.sink, shape)?;
        let client = Client::new(settings(&proxy.url, lanes))?;
        let began = Instant::now();
        let upload = start(&client, &self.sample)?;
        let mut course = vec![(0.0, client.snapshot().lanes.permitted)];
        loop {
            thread::sleep(POLL_INTERVAL);
            let (now, seconds) = (client.snapshot(), began.elapsed().as_secs_f64());
            // Not by those under way: the engine counts the upload a little after its start.
            if now.uploads.done + now.uploads.failed > 0 {
                upload.join_blocking()?;
                let bytes = std::fs::metadata(&self.sample)?.len();
                return Ok(LaneRun { bytes_per_second: bytes as f64 / seconds, course });
            }
            if course.last().is_some_and(|(_, lanes)| *lanes != now.lanes.permitted) {
                course.push((seconds, now.lanes.permitted));
            }
        }
    }

    /// Prints a pair. Returns its ratio.
    fn print_pair(&self, named: &NamedShape, (lanes, fixed): (usize, &LaneRun), automatic: &LaneRun) -> f64 {
        let ratio = automatic.bytes_per_second / fixed.bytes_per_second;
        println!(
            "{}: {lanes} lanes {:.2} MiB/s, automatic {:.2} MiB/s, ratio {ratio:.3}; {} lanes at the end, {} changes",
            named.name,
            fixed.bytes_per_second / MIB,
            automatic.bytes_per_second / MIB,
            automatic.course.last().map_or(0, |(_, lanes)| *lanes),
            automatic.course.len() - 1,
        );
        if self.options.prints_course {
            let course: Vec<String> =
                automatic.course.iter().map(|(seconds, lanes)| format!("{lanes} at {seconds:.1}")).collect();
            println!("  {}", course.join(", "));
        }
        ratio
    }

    fn make_sample(&self, mib: u64) -> Result<()> {
        Ok(File::create(&self.sample)?.set_len(mib << 20)?)
    }
}

fn start(client: &Client, sample: &Path) -> Result<Running> {
    let upload = client.upload(sample.to_owned());
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(upload.start())?)
}

fn settings(url: &str, lanes: Option<usize>) -> Settings {
    let mut settings = Settings::default();
    settings.endpoint_url = url.to_owned();
    settings.credentials = Credentials::ApiKey("perf".into());
    settings.lanes = lanes.unwrap_or(MOST_LANES);
    settings.lane_control = if lanes.is_some() { LaneControl::Fixed } else { LaneControl::Automatic };
    settings
}

const MIB: f64 = (1 << 20) as f64;
/// The share of the rate of the best fixed number that an upload has to reach.
const ENOUGH: f64 = 0.95;
/// The most lanes of the command's automatic number.
const MOST_LANES: usize = 32;
const FIXED_LANES: &[usize] = &[1, 2, 4, 8, 16, MOST_LANES];
const HOPELESS: f64 = 0.9;
const LARGEST_MIB: u64 = 2048;
/// Slow start, and the queues of the path.
const START_TIME: Duration = Duration::from_secs(3);
const RATE_TIME: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
