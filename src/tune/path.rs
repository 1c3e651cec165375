//! The measurement of a path: the round trip, the lanes, the chunk size.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use super::budget::{PathLimits, SpentLimit};
pub use super::search::RungPurpose;

use super::bottleneck::PathEvidence;
use super::chunk_model::ChunkTiming;
use super::interval::RateInterval;
use super::mark::{self, SweptVideos};
use super::search::{Search, SearchStep};
use super::trial::{Trial, TrialHalt};
use crate::error::{Error, ErrorKind, Result};
use crate::upload::{Client, Settings};

/// The rate of a number of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rung {
    /// The number of lanes, all of which were sending.
    pub lanes: u32,
    /// The reason for the measurement.
    pub purpose: RungPurpose,
    /// The rate of all lanes together.
    #[serde(flatten)]
    pub rate: RateInterval,
    /// The length of the measurement.
    #[serde(skip)]
    pub window: Duration,
    /// The share of all processors that this process used, from 0 to 1.
    pub cpu_share: f64,
}

/// An event of a measurement.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PathEvent<'a> {
    /// At most 200 of these come in a second, so that the caller can stop the measurement.
    Tick,
    /// A number of lanes was measured.
    Measured(&'a Rung),
}

/// The end of a measurement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PathEnd {
    /// The search is complete.
    Complete,
    /// A limit left out steps of the search.
    Spent(SpentLimit),
    /// The service answered 429.
    Throttled,
    /// A request failed.
    Failed(Error),
    /// The caller stopped the measurement.
    Stopped,
}

/// The result of a measurement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathReport {
    /// The shortest time of a small request on an open connection.
    pub round_trip: Duration,
    /// The measurements, oldest first.
    pub rungs: Vec<Rung>,
    /// The best number of lanes; 1 if nothing could be measured.
    pub lanes: u32,
    /// The rate of that number; `None` if nothing could be measured.
    pub rate: Option<RateInterval>,
    /// `true` if the number was compared with a neighbour in turn.
    pub is_compared: bool,
    /// The time of a request on one lane; `None` if nothing could be measured.
    pub chunk: Option<ChunkTiming>,
    /// The best chunk size.
    pub chunk_bytes: u64,
    /// The service's limit on upload requests, if it stated one.
    pub uploads_per_minute: Option<u32>,
    /// `true` if the largest number of lanes was clearly faster than the one below.
    pub still_gains: bool,
    /// The requests that carried bytes, finished or not.
    pub requests: u32,
    /// The videos that were created.
    pub videos: u32,
    /// The bytes that were sent.
    pub bytes_sent: u64,
    /// The duration, without the deletion of the videos.
    pub elapsed: Duration,
    /// The end of the measurement.
    pub end: PathEnd,
    /// The deletion of the videos.
    pub swept: SweptVideos,
}

/// Measures the path to the service of `settings`, and deletes everything that it created there.
///
/// Sends files without data, which it creates in `work_dir` and deletes: a path that compresses seems faster. The number
/// of lanes, the retries and the journal of the settings are not used. Calls `watch` up to 200 times a second; if it
/// returns `Break`, the measurement ends and the videos are deleted. Blocks until then.
///
/// # Errors
/// If the service refuses the credentials or cannot be reached before anything is created. Later failures are in
/// [`PathReport::end`].
pub fn measure_path(
    settings: &Settings,
    work_dir: &Path,
    limits: PathLimits,
    watch: &mut dyn FnMut(PathEvent<'_>) -> ControlFlow<()>,
) -> Result<PathReport> {
    let run_id = new_run_id();
    let control = control_client(settings)?;
    let round_trip = pollster::block_on(round_trip(&control, &run_id))?;
    let started = Instant::now();
    let mut search = Search::new(limits.most_lanes);
    let mut trial = Trial::new(settings, work_dir, &run_id, limits, round_trip, watch);
    let mut course = Course::default();
    let end = course.run(&mut search, &mut trial, round_trip);
    trial.end_groups();
    let elapsed = started.elapsed();
    let swept = pollster::block_on(mark::sweep(&control, &run_id, trial.videos.clone()));
    let choice = search.choice();
    let rate = choice.map(|choice| choice.rate);
    let total_rate = rate.map_or(0.0, |rate| rate.mean);
    let lanes = choice.map_or(1, |choice| choice.lanes);
    let chunk = course
        .chunk
        .filter(|_| rate.is_some())
        .map(|chunk| ChunkTiming { bytes_per_second: total_rate / f64::from(lanes), ..chunk });
    let timing = chunk.unwrap_or(ChunkTiming { fixed_seconds: 0.0, bytes_per_second: 0.0 });
    Ok(PathReport {
        round_trip,
        rungs: course.rungs,
        lanes,
        rate,
        is_compared: choice.is_some_and(|choice| choice.is_compared),
        chunk,
        chunk_bytes: timing.chunk_bytes(total_rate, trial.uploads_per_minute),
        uploads_per_minute: trial.uploads_per_minute,
        still_gains: search.gain_at_top().is_some_and(|gain| gain.low > 1.0 + LEAST_GAIN),
        requests: trial.budget.requests(),
        videos: trial.created,
        bytes_sent: trial.sent_bytes(),
        elapsed,
        end,
        swept,
    })
}

/// Measures a fixed number of lanes once, and deletes everything that it created. For comparisons with [`measure_path`].
///
/// # Errors
/// If the service cannot be reached, a request fails, or the bytes are sent too fast to be counted.
pub fn measure_lanes(
    settings: &Settings,
    work_dir: &Path,
    limits: PathLimits,
    lanes: u32,
) -> Result<RateInterval> {
    let run_id = new_run_id();
    let control = control_client(settings)?;
    let round_trip = pollster::block_on(round_trip(&control, &run_id))?;
    let mut watch = |_: PathEvent<'_>| ControlFlow::Continue(());
    let mut trial = Trial::new(settings, work_dir, &run_id, limits, round_trip, &mut watch);
    let measured = trial.measure(SearchStep { lanes, purpose: RungPurpose::Ladder });
    trial.end_groups();
    pollster::block_on(mark::sweep(&control, &run_id, trial.videos.clone()));
    measured.map(|rung| rung.rate).map_err(|halt| match halt {
        TrialHalt::Failed(error) => error,
        halt => Error::new(ErrorKind::Internal, "measure the lanes").because(format!("{halt:?}")),
    })
}

/// The measurements of a search, as they come.
#[derive(Debug, Default)]
struct Course {
    rungs: Vec<Rung>,
    chunk: Option<ChunkTiming>,
}

impl Course {
    /// Measures what the search asks for until its end, or until the first 429 or failure.
    fn run(&mut self, search: &mut Search, trial: &mut Trial<'_>, round_trip: Duration) -> PathEnd {
        let mut spent = None;
        while let Some(step) = search.next_step() {
            let measured = trial.measure(step).and_then(|rung| {
                search.record(rung.rate);
                self.rungs.push(rung);
                if self.chunk.is_none() { self.time_chunk(trial, &rung.rate, round_trip) } else { Ok(()) }
            });
            match measured {
                Ok(()) => {}
                Err(TrialHalt::Unaffordable(limit)) => {
                    spent.get_or_insert(limit);
                    search.skip();
                }
                Err(TrialHalt::TooFast) => search.skip(),
                Err(TrialHalt::Throttled) => return PathEnd::Throttled,
                Err(TrialHalt::Failed(error)) => return PathEnd::Failed(error),
                Err(TrialHalt::Stopped) => return PathEnd::Stopped,
            }
        }
        spent.map_or(PathEnd::Complete, PathEnd::Spent)
    }

    /// Measures the fixed time of a request, or takes two round trips for it: one for the answer, one for the next head.
    fn time_chunk(
        &mut self,
        trial: &mut Trial<'_>,
        rate: &RateInterval,
        round_trip: Duration,
    ) -> std::result::Result<(), TrialHalt> {
        let fixed_seconds = 2.0 * round_trip.as_secs_f64();
        self.chunk = Some(ChunkTiming { fixed_seconds, bytes_per_second: rate.mean });
        match trial.time_chunk(rate.mean) {
            Ok(Some((bytes, seconds))) => {
                self.chunk = Some(ChunkTiming::of_request(bytes, seconds, rate.mean));
                Ok(())
            }
            // The search goes on with what is left.
            Ok(None) | Err(TrialHalt::Unaffordable(_)) => Ok(()),
            Err(halt) => Err(halt),
        }
    }
}

impl PathReport {
    /// Returns the path's part of the evidence for the bottleneck.
    pub(super) fn evidence(&self) -> PathEvidence {
        let chosen = self.rungs.iter().rev().find(|rung| rung.lanes == self.lanes);
        PathEvidence {
            rate: self.rate.map(|rate| rate.mean),
            is_throttled: matches!(self.end, PathEnd::Throttled),
            has_failed: matches!(self.end, PathEnd::Failed(_)),
            uploads_per_minute: self.uploads_per_minute,
            cpu_share: chosen.map_or(0.0, |rung| rung.cpu_share),
            answering_share: self.answering_share(),
            still_gains: self.still_gains,
            ..PathEvidence::default()
        }
    }

    /// Returns the share of a request's time that two round trips and the sending do not explain.
    fn answering_share(&self) -> f64 {
        self.chunk.map_or(0.0, |chunk| {
            let answering = (chunk.fixed_seconds - 2.0 * self.round_trip.as_secs_f64()).max(0.0);
            let whole = chunk.fixed_seconds + self.chunk_bytes as f64 / chunk.bytes_per_second.max(1.0);
            answering / whole.max(f64::MIN_POSITIVE)
        })
    }
}

/// Returns a value that no other measurement has.
fn new_run_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Returns the client for everything but chunks. A deletion may wait for a minute's budget.
fn control_client(settings: &Settings) -> Result<Client> {
    let mut settings = settings.clone();
    settings.lanes = 1;
    settings.journal = None;
    settings.retry.max_time = settings.retry.max_time.max(DELETION_TIME);
    Client::new(settings)
}

/// Returns the shortest time of a request on an open connection.
async fn round_trip(control: &Client, run_id: &str) -> Result<Duration> {
    // The first request connects and authenticates.
    mark::ask(control, run_id).await?;
    let mut shortest = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        mark::ask(control, run_id).await?;
        shortest = shortest.min(asked.elapsed());
    }
    Ok(shortest)
}

/// The shortest of a few is close to the network's own: delays only add.
const ROUND_TRIPS: usize = 3;
const DELETION_TIME: Duration = Duration::from_secs(120);
/// A gain below this may be the luck of one measurement.
const LEAST_GAIN: f64 = 0.05;
