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
    /// The share of a lane's rate that a further lane adds; `None` until a larger number was measured.
    added_share: Option<f64>,
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
        let (step, climbed, rate) = (LaneStep::Done, None, None);
        let mut search = LaneSearch { most, base, step, climbed, descends, rate, added_share: None };
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

    /// Returns the share of a lane's rate that a further lane adds, from 0 to 1; `None` if no larger number was measured
    /// yet.
    pub(super) fn added_share(&self) -> Option<f64> {
        self.added_share
    }

    /// Returns the number to measure; `None` once the search is over.
    pub(super) fn lanes(&self) -> Option<usize> {
        self.comparison().map(LaneComparison::lanes)
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
        let gain = comparison.gain_of(rate);
        comparison.record(rate);
        if let Some(gain) = gain {
            self.learn_share(gain);
        }
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
            LaneStep::Climb(_) => self.end_climb(wanted, 1.0),
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
        self.learn_share(verdict.gain);
        let step = std::mem::replace(&mut self.step, LaneStep::Done);
        let (LaneStep::Climb(comparison) | LaneStep::Descend(comparison) | LaneStep::Refine(comparison)) =
            &step
        else {
            return;
        };
        let (base, trial) = (comparison.base(), comparison.trial());
        if verdict.takes_trial {
            self.base = trial;
        }
        let is_of_base = verdict.takes_trial || comparison.measures_base();
        self.rate = if is_of_base { Some(rate) } else { comparison.base_rate() };
        match step {
            LaneStep::Climb(_) if verdict.takes_trial => {
                let gain = verdict.gain;
                self.climbed = Some(ClimbedFrom { lanes: base, bytes_per_second: rate.mean / gain, gain });
                self.climb(wanted);
            }
            LaneStep::Climb(_) => self.end_climb(wanted, verdict.gain),
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
            self.end_climb(wanted, 1.0);
        }
    }

    /// Looks for smaller numbers. `gain` is that of the number which the climb has not taken.
    fn end_climb(&mut self, wanted: usize, gain: f64) {
        self.step = LaneStep::Done;
        match self.climbed {
            Some(below) => self.refine(below.lanes, below.gain),
            // The lanes before gained at least as much as further ones would.
            None if self.descends && gain * SUFFICIENT_SHARE < 1.0 => self.descend(wanted),
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

    /// Takes the gain of the larger number of a climb into account.
    fn learn_share(&mut self, gain: f64) {
        // Fewer lanes are measured after a change that the share itself is needed for.
        let LaneStep::Climb(comparison) = &self.step else { return };
        let more = comparison.trial() as f64 / comparison.base() as f64;
        self.added_share = Some((gain.max(1.0).ln() / more.ln()).min(1.0));
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
        self.rate.filter(|rate| !rate.is_short())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rate_of(mean: f64, seconds: f64) -> LaneRate {
        LaneRate { mean, error: 0.01, loss: 0.0, seconds }
    }

    /// Begins a search with 8 lanes whose first, short rate is 100, and tries 16 lanes with a rate of 60.
    fn search_after_a_fast_start() -> LaneSearch {
        let mut search = LaneSearch::new(8, MOST, 1000, true);
        assert!(search.take_early(rate_of(100.0, 0.4), 1000));
        assert!(search.take(rate_of(60.0, 1.0), true, 1000));
        assert_eq!(search.lanes(), Some(8));
        search
    }

    #[test]
    fn more_lanes_are_not_rejected_by_the_bytes_that_fill_a_queue() {
        let mut search = search_after_a_fast_start();
        assert!(search.take(rate_of(50.0, 1.0), true, 1000));
        assert!(search.take(rate_of(60.0, 1.0), true, 1000));
        assert_eq!(search.base(), 16);
    }

    #[test]
    fn more_lanes_without_gain_are_rejected_when_fewer_are_measured_again() {
        let mut search = search_after_a_fast_start();
        assert!(search.take(rate_of(62.0, 1.0), true, 1000));
        assert_eq!((search.base(), search.lanes()), (8, Some(4)));
        assert_eq!(search.rate().map(|rate| rate.mean), Some(62.0));
    }

    #[test]
    fn fewer_lanes_are_not_tried_where_more_would_gain_a_little() {
        let mut search = search_after_a_fast_start();
        assert!(search.take(rate_of(58.0, 1.0), true, 1000));
        assert!(search.take(rate_of(60.0, 1.0), true, 1000));
        assert_eq!((search.base(), search.lanes()), (8, None));
    }

    #[test]
    fn a_climb_shows_how_much_a_lane_adds() {
        for (trial, expected) in [(50.0, 0.0), (100.0, 0.0), (200.0, 1.0), (300.0, 1.0)] {
            let mut search = LaneSearch::new(8, MOST, 1000, true);
            assert!(search.take(rate_of(100.0, 1.0), true, 1000));
            assert_eq!(search.added_share(), None);
            assert!(search.take(rate_of(trial, 1.0), true, 1000));
            assert_eq!(search.added_share(), Some(expected), "{trial}");
        }
    }

    const MOST: usize = 32;
}
