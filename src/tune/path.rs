//! The measurement of a path: the round trip, the lanes, the chunk size.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::budget::PathLimits;
use super::chunk_model::ChunkTiming;
use super::interval::RateInterval;
use super::mark;
use super::report::{PathEnd, PathEvent, PathReport, Rung, UnmeasuredLanes};
use super::search::{RungPurpose, Search, SearchStep};
use super::trial::{Trial, TrialHalt};
use crate::error::{Error, ErrorKind, Result};
use crate::upload::{Client, Settings};

/// Measures the path to the service of `settings`, and deletes everything that it created there.
///
/// Sends files without data, which it creates in `work_dir` and deletes: a path that compresses seems faster. The number
/// of lanes, the retries and the journal of the settings are not used. Calls `watch` up to 1000 times a second; if it
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
    // The connections first: a video that still receives bytes may refuse its deletion.
    trial.end_groups();
    let elapsed = started.elapsed();
    let swept = pollster::block_on(mark::sweep(&control, &run_id, trial.videos.clone()));
    let more_lanes_unmeasured = course.more_lanes_unmeasured(&search, &end);
    let choice = search.choice();
    let rate = choice.map(|choice| choice.rate);
    let total_rate = rate.map_or(0.0, |rate| rate.mean);
    let lanes = choice.map_or(1, |choice| choice.lanes);
    // The fixed time was measured on one lane alone; each of several lanes sends more slowly.
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
        still_gains: search.still_scales(),
        more_lanes_unmeasured,
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
    // The whole window, because the rate is what others are compared with.
    let measured = trial.measure(SearchStep { lanes, purpose: RungPurpose::Ladder }, |_| false);
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
    /// The reason why the latest rung of the ladder that was left out has no rate.
    rung_left_out: Option<UnmeasuredLanes>,
}

impl Course {
    /// Measures what the search asks for until its end, or until the first 429 or failure.
    fn run(&mut self, search: &mut Search, trial: &mut Trial<'_>, round_trip: Duration) -> PathEnd {
        let (mut spent, mut retries) = (None, 0);
        while let Some(step) = search.next_step() {
            let measured = trial.measure(step, |rate| search.is_enough(rate)).and_then(|rung| {
                search.record(rung.rate);
                self.rungs.push(rung);
                if self.chunk.is_none() { self.time_answer(trial, &rung.rate, round_trip) } else { Ok(()) }
            });
            match measured {
                Ok(()) => {}
                Err(TrialHalt::Unaffordable(limit)) => {
                    spent.get_or_insert(limit);
                    self.skip(search, step, limit.into());
                }
                // A busy machine may have missed the moment. Without a first rate there is no result at all.
                Err(TrialHalt::TooFast) if self.rungs.is_empty() && retries < MOST_RETRIES => retries += 1,
                Err(TrialHalt::TooFast) => self.skip(search, step, UnmeasuredLanes::TooFast),
                Err(TrialHalt::Throttled) => return PathEnd::Throttled,
                Err(TrialHalt::Failed(error)) => return PathEnd::Failed(error),
                Err(TrialHalt::Stopped) => return PathEnd::Stopped,
            }
        }
        spent.map_or(PathEnd::Complete, PathEnd::Spent)
    }

    fn skip(&mut self, search: &mut Search, step: SearchStep, reason: UnmeasuredLanes) {
        if step.purpose == RungPurpose::Ladder {
            self.rung_left_out = Some(reason);
        }
        search.skip();
    }

    /// Returns the reason why the effect of more lanes is unknown; `None` if the rates show it.
    fn more_lanes_unmeasured(&self, search: &Search, end: &PathEnd) -> Option<UnmeasuredLanes> {
        let reason = match end {
            PathEnd::Complete | PathEnd::Spent(_) => self.rung_left_out.unwrap_or(UnmeasuredLanes::MostLanes),
            PathEnd::Throttled | PathEnd::Failed(_) | PathEnd::Stopped => UnmeasuredLanes::Ended,
        };
        search.is_undecided().then_some(reason)
    }

    /// Measures the fixed time of a request, or takes three round trips for it: one for the answer, one for
    /// the next head, and one in which TCP finds its speed again.
    fn time_answer(
        &mut self,
        trial: &mut Trial<'_>,
        rate: &RateInterval,
        round_trip: Duration,
    ) -> std::result::Result<(), TrialHalt> {
        let fixed_seconds = UNMEASURED_ROUND_TRIPS * round_trip.as_secs_f64();
        self.chunk = Some(ChunkTiming { fixed_seconds, bytes_per_second: rate.mean });
        match trial.time_answer(rate.mean) {
            Ok(Some(wait)) => {
                self.chunk =
                    Some(ChunkTiming { fixed_seconds: wait.as_secs_f64(), bytes_per_second: rate.mean });
                Ok(())
            }
            // The search goes on with what is left.
            Ok(None) | Err(TrialHalt::Unaffordable(_)) => Ok(()),
            Err(halt) => Err(halt),
        }
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
    // No measurement is resumed: the next one deletes what this one left by its mark.
    settings.journal = None;
    // A service that is gone must not hold the caller for the quarter of an hour that an upload waits.
    settings.retry.max_time = DELETION_TIME;
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
        // Longer ones have waited in queues, which is not the path's own time.
        shortest = shortest.min(asked.elapsed());
    }
    Ok(shortest)
}

/// The shortest of a few is close to the network's own: delays only add.
const ROUND_TRIPS: usize = 3;
/// Longer than the minute of a request budget.
const DELETION_TIME: Duration = Duration::from_secs(90);
/// The fixed time of a request on a path that is too slow to measure it.
const UNMEASURED_ROUND_TRIPS: f64 = 3.0;
const MOST_RETRIES: u32 = 3;
