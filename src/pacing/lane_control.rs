//! The number of lanes in use, chosen while uploads run. Pure: samples and the clock are arguments.
//!
//! The controller climbs by doubling while that gains, then looks for the smallest number that is about as fast as the best.
//! Two numbers are compared in turn on the user's own chunks, by bytes that the peers have acknowledged. After a search
//! it rests, and searches again when the rest is over or the rate has changed. While a limit binds, the number is kept:
//! the rate would be that of the limit, whatever the number of lanes.

mod comparison;
mod sample;
mod search;
mod window;

use std::time::{Duration, Instant};

pub use sample::LaneHold;
pub(crate) use sample::{LaneReason, LaneSample};
use search::LaneSearch;
use window::{LaneRate, LaneWindow};

/// The choice of the number of lanes in use.
#[derive(Clone, Debug)]
pub(crate) struct LaneController {
    most: usize,
    /// The number in use.
    lanes: usize,
    /// The number that was chosen last, to which a trial returns.
    base: usize,
    stage: ControlStage,
    window: LaneWindow,
    latest: Option<(Instant, LaneSample)>,
    /// The time since which the lanes are as many as permitted and connected.
    reached: Option<Instant>,
    /// The time since which they are measured.
    settled: Option<Instant>,
    /// `true` once connections have had the time to find their speed.
    is_warm: bool,
    /// The time of the last change of the number in use.
    changed: Option<Instant>,
    /// `true` if that change was to fewer lanes.
    is_lowered: bool,
    hold: Option<LaneHold>,
    reason: LaneReason,
    /// The length of the next rest.
    rest: Duration,
    /// The rate at the chosen number, against which changes of the link are noticed.
    usual: Option<LaneRate>,
    /// The number of windows in a row whose rate was far from the usual one.
    unusual: u32,
    /// The time before which further refusals belong to those that were obeyed.
    braked_until: Option<Instant>,
}

#[derive(Clone, Debug)]
enum ControlStage {
    /// A search begins with the next sample. `true` if it looks for smaller numbers, too.
    Start(bool),
    Search(LaneSearch),
    /// No number is tried before this time, unless the link changes.
    Rest(Instant),
}

impl LaneController {
    /// Starts with `first` lanes, among 1 to `most`.
    pub(crate) fn new(first: usize, most: usize) -> LaneController {
        let most = most.max(1);
        let lanes = first.clamp(1, most);
        LaneController {
            most,
            lanes,
            base: lanes,
            stage: ControlStage::Start(true),
            window: LaneWindow::default(),
            latest: None,
            reached: None,
            settled: None,
            is_warm: false,
            changed: None,
            is_lowered: false,
            hold: None,
            reason: LaneReason::Chosen,
            rest: FIRST_REST,
            usual: None,
            unusual: 0,
            braked_until: None,
        }
    }

    /// Returns the number of lanes in use.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Returns the reason why the number does not change now; `None` if nothing keeps it.
    pub(crate) fn hold(&self) -> Option<LaneHold> {
        self.hold
    }

    /// Returns the reason of the last change of the number.
    pub(crate) fn reason(&self) -> LaneReason {
        self.reason
    }

    /// Takes a sample, about ten of them a second, and returns the number of lanes to use from now on.
    pub(crate) fn observe(&mut self, sample: LaneSample, now: Instant) -> usize {
        let most = sample.most_lanes.clamp(1, self.most);
        if self.lanes > most || self.base > most {
            self.base = self.base.min(most);
            self.use_lanes(self.base, LaneReason::Bound, now);
            self.begin_rest(now);
        }
        let Some((at, before)) = self.latest.replace((now, sample)) else { return self.lanes };
        let elapsed = now.saturating_duration_since(at);
        if elapsed > LONGEST_STEP {
            // The driver slept, or the process was stopped: the time between is no measurement.
            self.unsettle();
        } else if sample.refused > before.refused {
            self.brake(now);
        } else if self.is_held(&sample, now) {
            self.unsettle();
        } else {
            // Lanes that connect are no gaps between chunks.
            if self.settled.is_some() {
                self.window.push(&before, &sample, elapsed, self.lanes);
            }
            self.measure(&before, &sample, now);
        }
        self.lanes
    }

    /// Halves the number. Requests that were under way may be refused a little later, which is the same event.
    fn brake(&mut self, now: Instant) {
        self.unsettle();
        if self.braked_until.is_some_and(|until| now < until) {
            return;
        }
        self.braked_until = Some(now + BRAKE_TIME);
        self.base = (self.base.min(self.lanes) / 2).max(1);
        self.use_lanes(self.base, LaneReason::Brake, now);
        // Another number of lanes has another rate, so that the next window sets the usual one.
        self.usual = None;
        self.stage = ControlStage::Rest(now + self.rest);
        // Where every attempt ends with a refusal, attempts become rare.
        self.rest = (2 * self.rest).min(LONGEST_REST);
        self.hold = Some(LaneHold::Brake);
    }

    /// Returns `true` if a limit binds or the work does not suffice, so that the sample says nothing about the link.
    fn is_held(&mut self, sample: &LaneSample, now: Instant) -> bool {
        let is_resting = matches!(self.stage, ControlStage::Rest(_));
        if sample.limit.is_some() {
            self.hold = sample.limit;
            self.use_lanes(self.base, LaneReason::Held, now);
            // What a search has measured so far is of a time without the limit.
            if !is_resting {
                self.stage = ControlStage::Start(true);
            }
            return true;
        }
        if sample.wanted < self.lanes {
            self.hold = Some(LaneHold::Work);
            // A moment without work is usual between two files; a trial that lasts is given up.
            let is_long = self.changed.is_some_and(|at| now.saturating_duration_since(at) > WORK_PATIENCE);
            if self.lanes != self.base && is_long {
                self.give_up_trial(sample, now);
            }
            return true;
        }
        if !is_resting || self.hold != Some(LaneHold::Brake) {
            self.hold = None;
        }
        false
    }

    fn unsettle(&mut self) {
        self.reached = None;
        self.settled = None;
        self.is_warm = false;
        self.window.clear();
    }

    fn use_lanes(&mut self, lanes: usize, reason: LaneReason, now: Instant) {
        if self.lanes != lanes {
            self.is_lowered = lanes < self.lanes;
            self.lanes = lanes;
            self.changed = Some(now);
            self.reason = reason;
            self.unsettle();
        }
    }

    /// Takes the window into account, once the lanes are as many as permitted.
    fn measure(&mut self, before: &LaneSample, sample: &LaneSample, now: Instant) {
        let Some(settled) = self.settled else { return self.settle_or_give_up(before, sample, now) };
        let age = now.saturating_duration_since(settled);
        if age < BURST_TIME {
            self.window.clear();
            return;
        }
        if !self.is_warm && age >= warm_up(sample.round_trip) {
            self.is_warm = true;
            self.window.begin();
            return;
        }
        match &self.stage {
            ControlStage::Start(descends) => {
                let most = sample.most_lanes.clamp(1, self.most);
                // What earlier searches have learned of a link that has changed is no longer known.
                if *descends {
                    self.window.set_added_share(1.0);
                }
                let search = LaneSearch::new(self.base, most, sample.wanted, *descends);
                self.follow(search, now);
            }
            ControlStage::Search(_) => self.compare(sample, now),
            ControlStage::Rest(until) => {
                let until = *until;
                self.watch(until, now);
            }
        }
    }

    /// Begins to measure once the lanes are as many as permitted, or gives up a number that they do not reach.
    fn settle_or_give_up(&mut self, before: &LaneSample, sample: &LaneSample, now: Instant) {
        // Fewer lanes take effect when the requests of the others have ended.
        if sample.busy > self.lanes || sample.connecting > 0 || sample.sending == 0 {
            self.reached = None;
            self.give_up_stuck_trial(before, sample, now);
            return;
        }
        let reached = *self.reached.get_or_insert(now);
        // The buffers of a proxy take the first bytes of each chunk at once. Fewer lanes often begin chunks together,
        // and more of them would begin in the window than end.
        let are_even = !self.is_lowered || sample.sending >= sample.busy;
        if are_even || now.saturating_duration_since(reached) > SETTLE_PATIENCE {
            self.window.clear();
            self.settled = Some(now);
        }
    }

    /// Gives up a larger number whose connections fail or do not open.
    fn give_up_stuck_trial(&mut self, before: &LaneSample, sample: &LaneSample, now: Instant) {
        let is_late = self.changed.is_some_and(|at| now.saturating_duration_since(at) > CONNECT_PATIENCE);
        let fails = sample.unconnected > before.unconnected;
        if self.lanes > self.base && (fails || is_late) {
            self.give_up_trial(sample, now);
        }
    }

    fn give_up_trial(&mut self, sample: &LaneSample, now: Instant) {
        self.use_lanes(self.base, LaneReason::Held, now);
        match &self.stage {
            ControlStage::Search(search) => {
                let mut search = search.clone();
                search.give_up(sample.wanted);
                self.follow(search, now);
            }
            ControlStage::Start(_) | ControlStage::Rest(_) => self.begin_rest(now),
        }
    }

    /// Continues the measurement of a search.
    fn compare(&mut self, sample: &LaneSample, now: Instant) {
        let ControlStage::Search(search) = &mut self.stage else { return };
        // A window within a round trip does not show the growth of slow start, which a first rate must be free of.
        let shows_growth = self.is_warm || sample.round_trip <= LONGEST_ROUND_TRIP;
        let recent = self.window.recent_rate(SHORT_WINDOW).filter(|_| shows_growth || !search.begins_climb());
        let mut has_ended = recent.is_some_and(|rate| search.take_early(rate, sample.wanted));
        if let Some(rate) = self.window.rate().filter(|_| self.is_warm && !has_ended) {
            // A large gain is seen beside a coarse rate, too, and a small one is measured in pairs.
            let is_first = search.begins_climb();
            let (enough, most) =
                if is_first { (SHORT_WINDOW, COARSE_WINDOW) } else { (USUAL_WINDOW, LONGEST_WINDOW) };
            let is_enough = rate.seconds >= enough - ROUNDING;
            let is_over = rate.seconds >= most - ROUNDING || is_enough && rate.error <= FINE_ERROR;
            has_ended = is_enough && search.take(rate, is_over, sample.wanted);
        }
        if has_ended {
            let search = search.clone();
            if let Some(share) = search.added_share() {
                self.window.set_added_share(share);
            }
            self.window.clear();
            self.follow(search, now);
        }
    }

    /// Uses the number that a search asks for, or rests at its end.
    fn follow(&mut self, search: LaneSearch, now: Instant) {
        self.base = search.base();
        match search.lanes() {
            Some(lanes) => {
                let reason = if lanes == self.base { LaneReason::Chosen } else { LaneReason::Trial };
                self.use_lanes(lanes, reason, now);
                self.stage = ControlStage::Search(search);
            }
            None => {
                self.use_lanes(self.base, LaneReason::Chosen, now);
                self.usual = search.rate();
                self.begin_rest(now);
            }
        }
    }

    /// Rests after a search. Each rest is twice as long as the one before, until the link changes.
    fn begin_rest(&mut self, now: Instant) {
        self.stage = ControlStage::Rest(now + self.rest);
        self.rest = (2 * self.rest).min(LONGEST_REST);
        self.unusual = 0;
        self.window.clear();
    }

    /// Compares the rate with the usual one while no number is tried.
    fn watch(&mut self, until: Instant, now: Instant) {
        if now >= until {
            self.hold = None;
            self.stage = ControlStage::Start(false);
            return;
        }
        let Some(rate) = self.window.rate().filter(|rate| self.is_warm && rate.seconds >= WATCH_WINDOW)
        else {
            return;
        };
        self.window.clear();
        self.compare_with_usual(rate, now);
    }

    /// Starts a search if the rate has not been the usual one for several windows.
    fn compare_with_usual(&mut self, rate: LaneRate, now: Instant) {
        let Some(usual) = &mut self.usual else {
            self.usual = Some(rate);
            return;
        };
        if rate.loss > MOST_LOSS && rate.loss > LOSS_GROWTH * usual.loss {
            return self.brake(now);
        }
        // A rate of zero has no quotient.
        let ratio = rate.mean.max(1.0) / usual.mean.max(1.0);
        if (1.0 / CHANGED_RATE..=CHANGED_RATE).contains(&ratio) {
            usual.mean += SLOW_SHARE * (rate.mean - usual.mean);
            usual.loss += SLOW_SHARE * (rate.loss - usual.loss);
            self.unusual = 0;
            return;
        }
        self.unusual += 1;
        // Under a brake, a search would ask for more at once.
        if self.unusual >= UNUSUAL_WINDOWS && self.hold != Some(LaneHold::Brake) {
            self.usual = None;
            self.unusual = 0;
            self.rest = FIRST_REST;
            self.stage = ControlStage::Start(true);
        }
    }
}

/// Returns the time in which connections find their speed: slow start doubles in each round trip.
fn warm_up(round_trip: Duration) -> Duration {
    (4 * round_trip).clamp(LEAST_WARM_UP, LONGEST_WARM_UP)
}

/// The buffers of a proxy take the first bytes of a connection at once.
const BURST_TIME: Duration = Duration::from_millis(100);
/// A proxy nearby hides the round trip of the path behind it.
const LEAST_WARM_UP: Duration = Duration::from_millis(300);
/// Full buffers make round trips of seconds, in which connections have found their speed long ago.
const LONGEST_WARM_UP: Duration = Duration::from_secs(2);
/// Between two samples; a longer step is a pause of the driver.
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// The windows in seconds: of the first rate of a climb, of any other, and of a rate that does not settle.
const SHORT_WINDOW: f64 = 0.4;
const USUAL_WINDOW: f64 = 1.0;
const LONGEST_WINDOW: f64 = 3.0;
/// Half of the short window.
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(200);
/// The relative error at which a longer window decides nothing more.
const FINE_ERROR: f64 = 0.04;
/// The window of the first rate of a climb. On a link where each connection is slow, every second with the first lanes
/// only is lost.
const COARSE_WINDOW: f64 = 0.6;
/// A sum of tenths may fall short of a second.
const ROUNDING: f64 = 1e-6;
/// More lanes that gain nothing cost little, so the first rests are short.
const FIRST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(300);
const BRAKE_TIME: Duration = Duration::from_secs(5);
/// With many lanes and small files, one is always between two.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
const WORK_PATIENCE: Duration = Duration::from_secs(2);
/// The usual time limit of an attempt to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longer than a search's window: buffers that fill and drain swing within seconds.
const WATCH_WINDOW: f64 = 3.0;
/// The rate changed if it differs by this factor in as many windows in a row.
const CHANGED_RATE: f64 = 1.25;
const UNUSUAL_WINDOWS: u32 = 2;
const SLOW_SHARE: f64 = 0.1;
/// The share of segments sent again from which the path is overloaded, if it was far less before.
const MOST_LOSS: f64 = 0.1;
const LOSS_GROWTH: f64 = 3.0;

#[cfg(test)]
mod tests;
