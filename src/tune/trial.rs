//! The measurement of a number of lanes on the real path, inside requests that are under way.
//!
//! Lanes whose requests last long enough go on from one measurement to the next, so that a slow path, where a request
//! lasts minutes, is measured with few requests.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::budget::{PathBudget, PathLimits, SpentLimit};
use super::interval::{RateInterval, RateSample};
use super::lane_group::{GroupPlan, LaneGroup};
use super::report::{PathEvent, Rung};
use super::search::SearchStep;
use crate::error::Error;
use crate::upload::{Settings, Snapshot};
use crate::usage::cpu_time;
use crate::wire::limits::MIN_CHUNK_BYTES;

/// The reason why a number of lanes has no rate.
#[derive(Debug)]
pub(super) enum TrialHalt {
    /// The measurement costs more than what is left.
    Unaffordable(SpentLimit),
    /// The bytes were sent before enough of them could be counted.
    TooFast,
    /// The service answered 429.
    Throttled,
    /// A request failed.
    Failed(Error),
    /// The caller stopped the measurement.
    Stopped,
}

/// The lanes, and what they have cost so far.
pub(super) struct Trial<'a> {
    settings: &'a Settings,
    work_dir: &'a Path,
    run_id: &'a str,
    limits: PathLimits,
    started: Instant,
    round_trip: Duration,
    watch: &'a mut dyn FnMut(PathEvent<'_>) -> ControlFlow<()>,
    pub(super) budget: PathBudget,
    groups: Vec<LaneGroup>,
    /// The videos of ended groups.
    pub(super) videos: Vec<String>,
    /// Groups that were started, each with a video.
    pub(super) created: u32,
    sent_bytes: u64,
    /// Answered requests of ended groups.
    answered: u64,
    /// The service's limit on upload requests, by its answers.
    pub(super) uploads_per_minute: Option<u32>,
    /// The rate of one lane in the latest measurement.
    lane_rate: Option<f64>,
}

/// The sums over all lanes at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct LaneTick {
    bytes: u64,
    /// Lanes that send now.
    sending: u64,
    /// Lanes that have sent their chunk.
    answering: u64,
    /// Chunks that were acknowledged.
    answered: u64,
    /// Bytes of the youngest group.
    fresh_bytes: u64,
    /// `true` if a request has waited for the request budget.
    is_waiting: bool,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        work_dir: &'a Path,
        run_id: &'a str,
        limits: PathLimits,
        round_trip: Duration,
        watch: &'a mut dyn FnMut(PathEvent<'_>) -> ControlFlow<()>,
    ) -> Trial<'a> {
        let caps = settings.effective_caps();
        let uploads_per_minute = caps.most_uploads_a_minute().filter(|_| limits.obeys_stated_budget);
        let mut budget = PathBudget::new(limits);
        if let Some(uploads) = uploads_per_minute {
            // Published limits hold before the first answer states them.
            budget.observe(uploads, 0);
        }
        Trial {
            settings,
            work_dir,
            run_id,
            limits,
            started: Instant::now(),
            round_trip,
            watch,
            budget,
            groups: Vec::new(),
            videos: Vec::new(),
            created: 0,
            sent_bytes: 0,
            answered: 0,
            uploads_per_minute,
            lane_rate: None,
        }
    }

    /// Returns the bytes that were sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Measures the rate of a number of lanes, and calls the caller's function with it.
    pub(super) fn measure(&mut self, step: SearchStep) -> Result<Rung, TrialHalt> {
        let lanes = step.lanes;
        if self.time_left() < self.warm_up() + SHORTEST_WINDOW {
            return Err(TrialHalt::Unaffordable(SpentLimit::Time));
        }
        let fresh_total = self.adjust(lanes)?;
        self.settle(lanes, fresh_total)?;
        let (cpu, began) = (cpu_time(), Instant::now());
        // The processor time of the window alone: connecting and TLS handshakes cost more than sending.
        let rate = self.sample(lanes)?;
        let window = began.elapsed();
        let cpu_share = (cpu_time() - cpu).as_secs_f64() / window.as_secs_f64().max(1e-3) / cores();
        self.lane_rate = Some(rate.mean / f64::from(lanes));
        let rung = Rung { lanes, purpose: step.purpose, rate, window, cpu_share: cpu_share.min(1.0) };
        match (self.watch)(PathEvent::Measured(&rung)) {
            ControlFlow::Continue(()) => Ok(rung),
            ControlFlow::Break(()) => Err(TrialHalt::Stopped),
        }
    }

    /// Sends two chunks of the smallest size over one connection, and returns the seconds of the second one, which does
    /// not include connecting. `None` if that would take too long at `rate` bytes per second.
    pub(super) fn time_chunk(&mut self, rate: f64) -> Result<Option<(u64, f64)>, TrialHalt> {
        let expected = Duration::try_from_secs_f64(2.0 * MIN_CHUNK_BYTES as f64 / rate.max(1.0));
        if expected.unwrap_or(Duration::MAX) > LONGEST_PROBE {
            return Ok(None);
        }
        self.end_groups();
        self.budget.spend_chunks(2, MIN_CHUNK_BYTES).map_err(TrialHalt::Unaffordable)?;
        self.start_group(1, 2, MIN_CHUNK_BYTES)?;
        let deadline = Instant::now() + PATIENCE;
        let mut times = Vec::new();
        while times.len() < 2 && Instant::now() < deadline {
            self.tick()?;
            times.extend(self.groups.iter_mut().flat_map(LaneGroup::chunk_seconds));
        }
        self.end_groups();
        Ok(times.get(1).map(|seconds| (MIN_CHUNK_BYTES, *seconds)))
    }

    /// Ends all lanes, and counts what they have sent.
    pub(super) fn end_groups(&mut self) {
        for group in std::mem::take(&mut self.groups) {
            self.end_group(group);
        }
    }

    /// Ends lanes that will not last, and starts those that are missing. Returns the bytes of the new ones.
    fn adjust(&mut self, lanes: u32) -> Result<Option<u64>, TrialHalt> {
        let lasting = (self.warm_up() + LONGEST_WINDOW).as_secs_f64();
        let mut missing = lanes;
        let mut groups = std::mem::take(&mut self.groups);
        // The largest first: the ladder's groups then add up to every rung below.
        groups.sort_by_key(|group| std::cmp::Reverse(group.lanes));
        for mut group in groups {
            let now = group.snapshot();
            let left = group.bytes.saturating_sub(now.bytes.sent) as f64 / f64::from(group.lanes);
            let lasts = self.lane_rate.is_some_and(|rate| left > rate * lasting);
            // A lane that is done cannot be restarted on its own; the others of its group end with it.
            let is_whole = now.lanes.busy - now.lanes.answering == u64::from(group.lanes);
            if lasts && is_whole && group.lanes <= missing {
                missing -= group.lanes;
                self.groups.push(group);
            } else {
                self.end_group(group);
            }
        }
        if missing == 0 {
            return Ok(None);
        }
        let chunk_bytes = self.budget.spend(missing).map_err(TrialHalt::Unaffordable)?;
        self.start_group(missing, missing, chunk_bytes)?;
        Ok(Some(chunk_bytes * u64::from(missing)))
    }

    fn start_group(&mut self, lanes: u32, chunks: u32, chunk_bytes: u64) -> Result<(), TrialHalt> {
        let sample = self.work_dir.join(format!("sample-{}.mp4", self.created));
        let send_buffer_bytes = self.lane_rate.and_then(send_buffer_bytes);
        let plan = GroupPlan { lanes, chunks, chunk_bytes, send_buffer_bytes, sample };
        self.created += 1;
        let group = LaneGroup::start(self.settings, plan, self.run_id).map_err(TrialHalt::Failed)?;
        self.groups.push(group);
        Ok(())
    }

    fn end_group(&mut self, mut group: LaneGroup) {
        let last = group.snapshot();
        self.sent_bytes += last.bytes.sent;
        self.answered += last.requests.uploads.answered();
        self.budget.give_back(group.bytes.saturating_sub(last.bytes.sent));
        self.videos.extend(group.video_id.take());
    }

    /// Waits until every lane sends and TCP has found its speed.
    ///
    /// The time of the warm-up also fills the sockets' buffers. On a fast path, where the bytes would not last, a quarter
    /// of them is discarded instead.
    fn settle(&mut self, lanes: u32, fresh_total: Option<u64>) -> Result<(), TrialHalt> {
        let deadline = Instant::now() + self.time_left().min(PATIENCE);
        let mut warm: Option<Instant> = None;
        loop {
            let tick = self.tick()?;
            // Some lanes are done before others have begun.
            if tick.is_any_done() {
                return Err(TrialHalt::TooFast);
            }
            let now = Instant::now();
            // A lane that takes its request is busy for a moment before it connects.
            let is_sending = tick.sending == u64::from(lanes) && tick.fresh_bytes > 0;
            if is_sending {
                let end = *warm.get_or_insert(now + self.warm_up());
                let is_discarded =
                    fresh_total.is_some_and(|total| tick.fresh_bytes >= total / DISCARDED_PART);
                if now >= end || is_discarded {
                    return Ok(());
                }
            }
            if now > deadline {
                let limit = if tick.is_waiting { SpentLimit::Requests } else { SpentLimit::Time };
                return Err(TrialHalt::Unaffordable(limit));
            }
        }
    }

    /// Samples the lanes while all of them send, until the interval is narrow or the time is over.
    fn sample(&mut self, lanes: u32) -> Result<RateInterval, TrialHalt> {
        let began = Instant::now();
        let longest = LONGEST_WINDOW.min(self.time_left());
        let (mut samples, mut checked) = (Vec::new(), SHORTEST_WINDOW);
        while began.elapsed() < longest {
            let tick = self.tick()?;
            // The first lane that is done ends the measurement: the others are fewer than asked for.
            if tick.is_any_done() || tick.sending < u64::from(lanes) {
                break;
            }
            let at = began.elapsed();
            samples.push(RateSample { at, bytes: tick.bytes });
            if at >= checked {
                checked = at + CHECK_INTERVAL;
                if RateInterval::of_samples(&samples).is_some_and(|rate| rate.is_settled) {
                    break;
                }
            }
        }
        RateInterval::of_samples(&samples).ok_or(TrialHalt::TooFast)
    }

    /// Waits for a moment, and returns the sums over all lanes.
    fn tick(&mut self) -> Result<LaneTick, TrialHalt> {
        thread::sleep(SAMPLE_INTERVAL);
        if (self.watch)(PathEvent::Tick).is_break() {
            return Err(TrialHalt::Stopped);
        }
        let mut tick = LaneTick::default();
        let mut left: Option<u32> = None;
        for index in 0..self.groups.len() {
            let now = self.groups[index].snapshot();
            if now.requests.uploads.throttled + now.requests.writes.throttled > 0 {
                return Err(TrialHalt::Throttled);
            }
            // The upload has no retries, so the failure is a result.
            if now.uploads.failed > 0 {
                let group = self.groups.remove(index);
                self.sent_bytes += now.bytes.sent;
                self.videos.extend(group.video_id.clone());
                return Err(TrialHalt::Failed(group.into_error()));
            }
            tick.add(&now);
            // Only a count in an answer is the service's own.
            let is_stated = self.limits.obeys_stated_budget && now.requests.uploads.answered() > 0;
            if let Some(budget) = now.budgets.uploads.filter(|_| is_stated) {
                self.uploads_per_minute = Some(budget.limit);
                left = Some(left.map_or(budget.left, |left| left.min(budget.left)));
            }
        }
        if let Some(left) = left {
            let answered = (self.answered + tick.answered).try_into().unwrap_or(u32::MAX);
            self.budget.observe(left, answered);
        }
        Ok(tick)
    }

    fn warm_up(&self) -> Duration {
        // Slow start doubles the window with each round trip, from 10 segments (RFC 6928): ten of them reach 15 MB.
        LEAST_WARM_UP.max(10 * self.round_trip)
    }

    fn time_left(&self) -> Duration {
        self.limits.time.saturating_sub(self.started.elapsed())
    }
}

impl LaneTick {
    /// Returns `true` if a lane has sent its chunk.
    fn is_any_done(&self) -> bool {
        self.answering + self.answered > 0
    }

    fn add(&mut self, now: &Snapshot) {
        self.bytes += now.bytes.sent;
        self.answering += now.lanes.answering;
        self.sending += now.lanes.busy - now.lanes.answering;
        self.answered += now.requests.uploads.answered();
        self.fresh_bytes = now.bytes.sent;
        self.is_waiting |= now.throttled_seconds.uploads + now.throttled_seconds.writes > 0.0;
    }
}

/// Returns the send buffer for a lane of about this rate; `None` where the kernel's own is smaller.
///
/// The kernel's buffer grows to 4 MiB (tcp(7), `tcp_wmem`), which a slow lane fills for many seconds: longer than the
/// warm-up, and faster than the path. A second of the rate keeps every path busy whose round trip is shorter.
fn send_buffer_bytes(lane_rate: f64) -> Option<usize> {
    let second = lane_rate as usize;
    (second < MOST_SEND_BUFFER_BYTES).then(|| second.max(LEAST_SEND_BUFFER_BYTES))
}

fn cores() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// The shortest batch: a fast path sends its bytes within a fraction of a second.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);
const LEAST_WARM_UP: Duration = Duration::from_secs(2);
const LEAST_SEND_BUFFER_BYTES: usize = 128 << 10;
const MOST_SEND_BUFFER_BYTES: usize = 2 << 20;
/// The part of the bytes that stands for the warm-up if they would not outlast it.
const DISCARDED_PART: u64 = 4;
/// Eight batches of 250 ms, the fewest of a settled interval.
const SHORTEST_WINDOW: Duration = Duration::from_secs(2);
const LONGEST_WINDOW: Duration = Duration::from_secs(10);
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Creating a video and connecting take a few round trips.
const PATIENCE: Duration = Duration::from_secs(15);
/// Where two small chunks take longer, the fixed time of a request is a small part anyway.
const LONGEST_PROBE: Duration = Duration::from_secs(4);
