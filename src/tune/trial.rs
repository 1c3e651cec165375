//! The measurement of a number of lanes on the real path, inside requests that are under way.
//!
//! Lanes whose requests last long enough go on from one measurement to the next, so that a slow path, where a request
//! lasts minutes, is measured with few requests.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::budget::{PathBudget, PathLimits, SpentLimit};
use super::chunk_model::answer_wait;
use super::interval::{RateInterval, RateSample};
use super::lane_group::{GroupPlan, LaneGroup};
use super::report::{PathEvent, Rung};
use super::search::SearchStep;
use crate::error::{Error, ErrorKind};
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
    /// Bytes that the peer's TCP has acknowledged. What waits in send queues was not carried by the path yet, and it
    /// grows for seconds after every change.
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

    /// Measures the rate of a number of lanes, and calls the caller's function with it. Ends as soon as `is_enough`
    /// returns `true` for the rate so far, which has at least the fewest batches of a settled one.
    pub(super) fn measure(
        &mut self,
        step: SearchStep,
        is_enough: impl Fn(&RateInterval) -> bool,
    ) -> Result<Rung, TrialHalt> {
        let lanes = step.lanes;
        if self.time_left() < self.warm_up() + SHORTEST_WINDOW {
            return Err(TrialHalt::Unaffordable(SpentLimit::Time));
        }
        self.await_first_answer()?;
        let fresh_total = self.adjust(lanes)?;
        self.settle(lanes, fresh_total)?;
        let (cpu, began) = (cpu_time(), Instant::now());
        // The processor time of the window alone: connecting and TLS handshakes cost more than sending.
        let rate = self.sample(lanes, is_enough)?;
        let window = began.elapsed();
        let cpu_share = (cpu_time() - cpu).as_secs_f64() / window.as_secs_f64().max(1e-3) / cores();
        self.lane_rate = Some(rate.mean / f64::from(lanes));
        let rung = Rung { lanes, purpose: step.purpose, rate, window, cpu_share: cpu_share.min(1.0) };
        match (self.watch)(PathEvent::Measured(&rung)) {
            ControlFlow::Continue(()) => Ok(rung),
            ControlFlow::Break(()) => Err(TrialHalt::Stopped),
        }
    }

    /// Sends chunks of the smallest size over one connection, and returns the shortest time between two of them in which
    /// nothing was sent. `None` if it was not seen, or if that would take too long at `rate` bytes per second.
    pub(super) fn time_answer(&mut self, rate: f64) -> Result<Option<Duration>, TrialHalt> {
        let expected =
            Duration::try_from_secs_f64((u64::from(PROBE_CHUNKS) * MIN_CHUNK_BYTES) as f64 / rate.max(1.0));
        if expected.unwrap_or(Duration::MAX) > LONGEST_PROBE {
            return Ok(None);
        }
        self.await_first_answer()?;
        self.end_groups();
        self.budget.spend_chunks(PROBE_CHUNKS, MIN_CHUNK_BYTES).map_err(TrialHalt::Unaffordable)?;
        self.start_group(1, PROBE_CHUNKS, MIN_CHUNK_BYTES)?;
        let began = Instant::now();
        let mut samples = Vec::new();
        let before_last = u64::from(PROBE_CHUNKS - 1) * MIN_CHUNK_BYTES;
        loop {
            let tick = self.tick(PROBE_INTERVAL)?;
            samples.push(RateSample { at: began.elapsed(), bytes: tick.bytes });
            if tick.bytes > before_last || began.elapsed() > PATIENCE {
                break;
            }
        }
        self.end_groups();
        Ok(answer_wait(&samples, MIN_CHUNK_BYTES, PROBE_CHUNKS))
    }

    /// Ends all lanes, and counts what they have sent.
    pub(super) fn end_groups(&mut self) {
        for group in std::mem::take(&mut self.groups) {
            self.end_group(group);
        }
    }

    /// Ends lanes that will not last, and starts those that are missing. Returns the bytes of the new ones.
    fn adjust(&mut self, lanes: u32) -> Result<Option<u64>, TrialHalt> {
        let lasting = (self.warm_up() + self.longest_window()).as_secs_f64();
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
        let plan = GroupPlan { lanes, chunks, chunk_bytes, sample };
        self.created += 1;
        let group = LaneGroup::start(self.settings, plan, self.run_id).map_err(TrialHalt::Failed)?;
        self.groups.push(group);
        Ok(())
    }

    fn end_group(&mut self, mut group: LaneGroup) {
        let last = group.snapshot();
        self.sent_bytes += last.bytes.sent;
        self.answered += last.requests.uploads.answered();
        // The last answers may have come after the last tick, and new requests follow at once.
        if let Some(left) = self.stated_left(&last) {
            self.observe(left, 0);
        }
        self.budget.give_back(group.bytes.saturating_sub(last.bytes.sent));
        self.videos.extend(group.video_id.take());
    }

    /// Waits until every lane sends and TCP has found its speed.
    ///
    /// The time of the warm-up also fills the queues of the path. On a fast path, where the bytes would not last, a quarter
    /// of them is discarded instead.
    fn settle(&mut self, lanes: u32, fresh_total: Option<u64>) -> Result<(), TrialHalt> {
        let deadline = Instant::now() + self.time_left().min(PATIENCE);
        let mut warm: Option<Instant> = None;
        loop {
            let tick = self.tick(SAMPLE_INTERVAL)?;
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

    /// Samples the lanes while all of them send, until the rate is good enough or the time is over.
    fn sample(
        &mut self,
        lanes: u32,
        is_enough: impl Fn(&RateInterval) -> bool,
    ) -> Result<RateInterval, TrialHalt> {
        let began = Instant::now();
        let longest = self.longest_window().min(self.time_left());
        let (mut samples, mut checked, mut most_bytes) = (Vec::new(), SHORTEST_WINDOW, 0);
        while began.elapsed() < longest {
            let tick = self.tick(SAMPLE_INTERVAL)?;
            // The first lane that is done ends the measurement: the others are fewer than asked for.
            if tick.is_any_done() || tick.sending < u64::from(lanes) {
                break;
            }
            let at = began.elapsed();
            // A queue may grow between the two readings of its lane, which is no loss of acknowledged bytes.
            most_bytes = tick.bytes.max(most_bytes);
            samples.push(RateSample { at, bytes: most_bytes });
            if at >= checked {
                checked = at + CHECK_INTERVAL;
                if RateInterval::of_samples(&samples).is_some_and(|rate| is_enough(&rate)) {
                    break;
                }
            }
        }
        let rate = RateInterval::of_samples(&samples).ok_or(TrialHalt::TooFast)?;
        check_moving(&rate, began.elapsed())?;
        Ok(rate)
    }

    /// Waits for a moment, and returns the sums over all lanes.
    fn tick(&mut self, interval: Duration) -> Result<LaneTick, TrialHalt> {
        thread::sleep(interval);
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
            if let Some(stated) = self.stated_left(&now) {
                // Each group knows only the last answer of its own: the smallest number is the safe one.
                left = Some(left.map_or(stated, |left| left.min(stated)));
            }
        }
        if let Some(left) = left {
            self.observe(left, tick.answered);
        }
        Ok(tick)
    }

    /// Waits for the answer of a lane that has sent its chunk, if there was no answer before: the first one states the
    /// budget, from which the next requests are spent.
    fn await_first_answer(&mut self) -> Result<(), TrialHalt> {
        let deadline = Instant::now() + self.time_left().min(LONGEST_ANSWER);
        while self.limits.obeys_stated_budget && self.answered == 0 && Instant::now() < deadline {
            let tick = self.tick(PROBE_INTERVAL)?;
            // A lane that is done sends no longer, and its answer is counted a moment later.
            let lanes: u64 = self.groups.iter().map(|group| u64::from(group.lanes)).sum();
            if tick.answered > 0 || tick.sending == lanes {
                break;
            }
        }
        Ok(())
    }

    /// Returns the requests that the service has left, by the last answer to a group; `None` before the first answer.
    fn stated_left(&mut self, now: &Snapshot) -> Option<u32> {
        // Only a count in an answer is the service's own.
        let is_stated = self.limits.obeys_stated_budget && now.requests.uploads.answered() > 0;
        let budget = now.budgets.uploads.filter(|_| is_stated)?;
        self.uploads_per_minute = Some(budget.limit);
        Some(budget.left)
    }

    /// Lowers the budget to what the service has left. `answered` counts the answers to the groups that go on.
    fn observe(&mut self, left: u32, answered: u64) {
        let answered = (self.answered + answered).try_into().unwrap_or(u32::MAX);
        self.budget.observe(left, answered);
    }

    fn warm_up(&self) -> Duration {
        // Slow start doubles the window with each round trip, from 10 segments (RFC 6928): ten of them reach 15 MB.
        LEAST_WARM_UP.max(10 * self.round_trip)
    }

    /// Returns the longest time of a measurement that begins now. A search has about seven, and a long one must not take
    /// the time of those that decide.
    fn longest_window(&self) -> Duration {
        (self.time_left() / MEASUREMENTS_TO_COME).clamp(SHORTEST_WINDOW, LONGEST_WINDOW)
    }

    fn time_left(&self) -> Duration {
        self.limits.time.saturating_sub(self.started.elapsed() + ENDING_TIME)
    }
}

impl LaneTick {
    /// Returns `true` if a lane has sent its chunk.
    fn is_any_done(&self) -> bool {
        self.answering + self.answered > 0
    }

    fn add(&mut self, now: &Snapshot) {
        // Bytes in the kernel's send queue have not crossed the path yet.
        let acknowledged = now.bytes.sent.saturating_sub(now.send_queue_bytes);
        self.bytes += acknowledged;
        self.answering += now.lanes.answering;
        self.sending += now.lanes.busy - now.lanes.answering;
        self.answered += now.requests.uploads.answered();
        self.fresh_bytes = acknowledged;
        self.is_waiting |= now.throttled_seconds.uploads + now.throttled_seconds.writes > 0.0;
    }
}

/// Fails if no byte has moved in a window: a rate of 0 is no rate.
fn check_moving(rate: &RateInterval, window: Duration) -> Result<(), TrialHalt> {
    if rate.mean > 0.0 {
        return Ok(());
    }
    // The last bytes of a fast lane may all be acknowledged before the first sample.
    if window < SHORTEST_WINDOW {
        return Err(TrialHalt::TooFast);
    }
    let reason = format!("no byte moved for {:.0} s", window.as_secs_f64());
    Err(TrialHalt::Failed(Error::new(ErrorKind::Stalled, "measure the path").because(reason)))
}

fn cores() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// The shortest batch: a fast path sends its bytes within a fraction of a second.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);
/// One answer may be delayed by chance.
const PROBE_CHUNKS: u32 = 3;
/// A server nearby answers within a few milliseconds.
const PROBE_INTERVAL: Duration = Duration::from_millis(1);
const LEAST_WARM_UP: Duration = Duration::from_secs(2);
/// The part of the bytes that stands for the warm-up if they would not outlast it.
const DISCARDED_PART: u64 = 4;
/// Eight batches of 250 ms, the fewest of a settled interval.
const SHORTEST_WINDOW: Duration = Duration::from_secs(2);
const LONGEST_WINDOW: Duration = Duration::from_secs(10);
const MEASUREMENTS_TO_COME: u32 = 7;
/// Closing the last connections and the last tick may be late.
const ENDING_TIME: Duration = Duration::from_millis(250);
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Creating a video and connecting take a few round trips.
const PATIENCE: Duration = Duration::from_secs(15);
/// A service that answers later than this is measured without its first answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// Where a few small chunks take longer, the fixed time of a request is a small part anyway.
const LONGEST_PROBE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_zero_is_a_stall_after_the_shortest_window() {
        let rate = |mean| RateInterval { mean, low: mean, high: mean, is_settled: false };
        assert!(check_moving(&rate(1.0), SHORTEST_WINDOW).is_ok());
        let stalled = check_moving(&rate(0.0), SHORTEST_WINDOW);
        assert!(matches!(stalled, Err(TrialHalt::Failed(error)) if error.kind() == ErrorKind::Stalled));
        let short = check_moving(&rate(0.0), SHORTEST_WINDOW / 2);
        assert!(matches!(short, Err(TrialHalt::TooFast)));
    }

    #[test]
    fn bytes_in_send_queues_are_not_counted_as_carried() {
        let mut snapshot = Snapshot::default();
        snapshot.bytes.sent = 100;
        snapshot.send_queue_bytes = 30;
        let mut tick = LaneTick::default();
        tick.add(&snapshot);
        // A queue also holds the head of a request, whose bytes are not counted as sent.
        snapshot.send_queue_bytes = 110;
        tick.add(&snapshot);
        assert_eq!((tick.bytes, tick.fresh_bytes), (70, 0));
    }
}
