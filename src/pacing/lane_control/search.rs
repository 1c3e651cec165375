//! The search for the smallest number of lanes that is fast enough: climb, descend, refine. Pure.

use super::comparison::{LaneComparison, LaneVerdict, SUFFICIENT_SHARE};
use super::window::LaneRate;

/// A search that starts from the number in use.
#[derive(Clone, Debug)]
pub(super) struct LaneSearch {
    most: usize,
    base: usize,
    step: LaneStep,
    /// The number below the base, once the search has climbed.
    climbed: Option<ClimbedFrom>,
    /// `true` if the search also looks for smaller numbers when it does not climb.
    descends: bool,
    /// The latest rate of the base.
    rate: Option<LaneRate>,
}

/// The number of lanes that a climb has left.
#[derive(Clone, Copy, Debug)]
struct ClimbedFrom {
    lanes: usize,
    bytes_per_second: f64,
    /// The gain of the larger number.
    gain: f64,
}

#[derive(Clone, Debug)]
enum LaneStep {
    Climb(LaneComparison),
    Descend(LaneComparison),
    /// Between the base and a smaller number that does not suffice.
    Refine(LaneComparison),
    Done,
}

impl LaneSearch {
    /// Begins a search from `base`. `wanted` is the number of lanes that the work can use.
    pub(super) fn new(base: usize, most: usize, wanted: usize, descends: bool) -> LaneSearch {
        let mut search = LaneSearch { most, base, step: LaneStep::Done, climbed: None, descends, rate: None };
        search.climb(wanted);
        search
    }

    /// Returns the number that is best so far.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// Returns the rate of that number, if it was measured for long enough.
    pub(super) fn rate(&self) -> Option<LaneRate> {
        self.reliable_rate()
    }

    /// Returns the number to measure; `None` once the search is over.
    pub(super) fn lanes(&self) -> Option<usize> {
        self.comparison().map(LaneComparison::lanes)
    }

    /// Returns `true` if the base is being measured.
    pub(super) fn measures_base(&self) -> bool {
        self.comparison().is_some_and(LaneComparison::measures_base)
    }

    /// Returns `true` if nothing was measured yet for the climb.
    pub(super) fn begins_climb(&self) -> bool {
        matches!(&self.step, LaneStep::Climb(comparison) if comparison.base_rate().is_none())
    }

    /// Takes the rate so far of the number in question. Returns `true` if its measurement has ended.
    pub(super) fn take(&mut self, rate: LaneRate, is_over: bool, wanted: usize) -> bool {
        let Some(comparison) = self.comparison_mut() else { return true };
        match comparison.check(rate, is_over) {
            Some(verdict) => self.conclude(verdict, rate, wanted),
            None if is_over => self.record(rate),
            None => return false,
        }
        true
    }

    /// Records the end of a measurement that decides nothing.
    fn record(&mut self, rate: LaneRate) {
        let Some(comparison) = self.comparison_mut() else { return };
        let is_first = comparison.base_rate().is_none();
        comparison.record(rate);
        // The gain of a climb may be that of connections that had not found their speed yet.
        let LaneStep::Refine(comparison) = &self.step else { return };
        let Some(below) = self.climbed.filter(|_| is_first) else { return };
        let gain = rate.mean / below.bytes_per_second.max(1.0);
        if !is_within_reach(below.lanes, comparison.trial(), gain) {
            self.rate = Some(rate);
            self.step = LaneStep::Done;
        }
    }

    /// Takes the latest rate, of connections that may not have found their speed yet. Returns `true` if it suffices: as the
    /// first rate of a climb if it is even, and otherwise if it is so much above that of fewer lanes that waiting would only
    /// cost time.
    pub(super) fn take_early(&mut self, rate: LaneRate, wanted: usize) -> bool {
        let LaneStep::Climb(comparison) = &mut self.step else { return false };
        if comparison.base_rate().is_none() {
            let is_even = rate.error <= COARSE_ERROR;
            if is_even {
                comparison.record(rate);
            }
            return is_even;
        }
        match comparison.check(rate, false).filter(|verdict| verdict.takes_trial && verdict.gain > EARLY_GAIN)
        {
            Some(verdict) => {
                self.conclude(verdict, rate, wanted);
                true
            }
            None => false,
        }
    }

    /// Gives up the number in question, and every larger one.
    pub(super) fn give_up(&mut self, wanted: usize) {
        match self.step {
            LaneStep::Climb(_) => self.end_climb(wanted),
            _ => self.step = LaneStep::Done,
        }
    }

    fn comparison(&self) -> Option<&LaneComparison> {
        match &self.step {
            LaneStep::Climb(one) | LaneStep::Descend(one) | LaneStep::Refine(one) => Some(one),
            LaneStep::Done => None,
        }
    }

    fn comparison_mut(&mut self) -> Option<&mut LaneComparison> {
        match &mut self.step {
            LaneStep::Climb(one) | LaneStep::Descend(one) | LaneStep::Refine(one) => Some(one),
            LaneStep::Done => None,
        }
    }

    fn conclude(&mut self, verdict: LaneVerdict, rate: LaneRate, wanted: usize) {
        let step = std::mem::replace(&mut self.step, LaneStep::Done);
        let (LaneStep::Climb(comparison) | LaneStep::Descend(comparison) | LaneStep::Refine(comparison)) =
            &step
        else {
            return;
        };
        let (base, trial) = (comparison.base(), comparison.trial());
        if verdict.takes_trial {
            self.base = trial;
            self.rate = Some(rate);
        } else {
            self.rate = comparison.base_rate();
        }
        match step {
            LaneStep::Climb(_) if verdict.takes_trial => {
                let gain = verdict.gain;
                self.climbed = Some(ClimbedFrom { lanes: base, bytes_per_second: rate.mean / gain, gain });
                self.climb(wanted);
            }
            LaneStep::Climb(_) => self.end_climb(wanted),
            LaneStep::Descend(_) if verdict.takes_trial => self.descend(wanted),
            LaneStep::Descend(_) => self.refine(trial, verdict.gain),
            LaneStep::Refine(_) | LaneStep::Done => {}
        }
    }

    fn climb(&mut self, wanted: usize) {
        let trial = (2 * self.base).min(self.most);
        // More lanes than chunks cannot be compared.
        if trial > self.base && wanted >= trial {
            self.step = LaneStep::Climb(LaneComparison::new(self.base, trial, self.rate));
        } else {
            self.end_climb(wanted);
        }
    }

    fn end_climb(&mut self, wanted: usize) {
        self.step = LaneStep::Done;
        match self.climbed {
            Some(below) => self.refine(below.lanes, below.gain),
            None if self.descends => self.descend(wanted),
            None => {}
        }
    }

    fn descend(&mut self, wanted: usize) {
        self.step = LaneStep::Done;
        if self.base > 1 && wanted >= self.base {
            self.step =
                LaneStep::Descend(LaneComparison::new(self.base, self.base / 2, self.reliable_rate()));
        }
    }

    /// Compares with the number between `below` and the base.
    fn refine(&mut self, below: usize, gain: f64) {
        let middle = below.midpoint(self.base);
        if middle > below && is_within_reach(below, middle, gain) {
            self.step = LaneStep::Refine(LaneComparison::new(self.base, middle, self.reliable_rate()));
        }
    }

    /// Returns the rate of the base if its window was long enough to judge a smaller number by.
    fn reliable_rate(&self) -> Option<LaneRate> {
        self.rate.filter(|rate| rate.seconds >= RELIABLE_SECONDS)
    }
}

/// Returns `true` if `middle` lanes may be about as fast as a number whose gain over `below` lanes is `gain`: each further
/// lane gains at most as much as the ones before it.
fn is_within_reach(below: usize, middle: usize, gain: f64) -> bool {
    gain * SUFFICIENT_SHARE < middle as f64 / below as f64
}

/// Connections that are still in slow start show less than they will reach; a gain that exceeds this is real.
const EARLY_GAIN: f64 = 1.3;
/// The relative error up to which the first rate of a climb is even.
const COARSE_ERROR: f64 = 0.15;
// A rate below this is of a short window, which suffices for a clear gain only.
const RELIABLE_SECONDS: f64 = 0.9;
