//! The comparison of two numbers of lanes, measured in turn. Pure.

use super::window::LaneRate;

/// A comparison of the number in use with a smaller or larger one: base, trial, base, trial.
#[derive(Clone, Debug)]
pub(super) struct LaneComparison {
    base: usize,
    trial: usize,
    base_rates: Vec<LaneRate>,
    trial_rates: Vec<LaneRate>,
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LaneVerdict {
    /// `true` if the trial is the number to use: more lanes that gain enough, or fewer that lose little.
    pub(super) takes_trial: bool,
    /// The rate of the larger number divided by that of the smaller one.
    pub(super) gain: f64,
}

impl LaneComparison {
    /// Begins a comparison; `known` is a fresh rate of the base.
    pub(super) fn new(base: usize, trial: usize, known: Option<LaneRate>) -> LaneComparison {
        LaneComparison { base, trial, base_rates: known.into_iter().collect(), trial_rates: Vec::new() }
    }

    /// Returns the number of lanes to measure next.
    pub(super) fn lanes(&self) -> usize {
        if self.measures_base() { self.base } else { self.trial }
    }

    pub(super) fn measures_base(&self) -> bool {
        self.base_rates.len() == self.trial_rates.len()
    }

    pub(super) fn base(&self) -> usize {
        self.base
    }

    pub(super) fn trial(&self) -> usize {
        self.trial
    }

    /// Returns the gain of the larger number if this is a rate of the trial.
    pub(super) fn gain_of(&self, rate: LaneRate) -> Option<f64> {
        let base = self.base_rates.last().filter(|_| !self.measures_base())?;
        let (upper, lower) = if self.is_up() { (rate, *base) } else { (*base, rate) };
        Some(ratio(upper.mean, lower.mean))
    }

    /// Returns the latest rate of the base.
    pub(super) fn base_rate(&self) -> Option<LaneRate> {
        self.base_rates.last().copied()
    }

    /// Returns the verdict if the rate of a measurement under way decides it. `is_over` says that the measurement is
    /// not continued.
    pub(super) fn check(&self, rate: LaneRate, is_over: bool) -> Option<LaneVerdict> {
        let Some(gain) = self.gain_of(rate) else { return self.check_base(rate) };
        let base = self.base_rates.last()?;
        let is_up = self.is_up();
        // Lost packets are paid by other users of the link, too.
        if is_up && rate.loss > MOST_LOSS && rate.loss > 2.0 * base.loss {
            return Some(LaneVerdict { takes_trial: false, gain: 1.0 });
        }
        let error = rate.error.hypot(base.error);
        let (low, high) = (gain * (-error).exp(), gain * error.exp());
        let is_clear = low > if is_up { CLEAR_GAIN } else { WORTHWHILE_GAIN };
        // A second pair would send fewer lanes for the time of a chunk, which costs more than a few lanes too many.
        let is_large = is_up && gain > LARGE_GAIN && (rate.seconds >= LARGE_GAIN_SECONDS || low > 1.0);
        // The first bytes fill the queue of a link faster than the link is.
        let is_useless = high < WORTHWHILE_GAIN && !(is_up && base.is_short());
        if is_useless || is_clear || is_large {
            return Some(self.verdict(gain, error));
        }
        // Neighbouring measurements share the state of the link: the pairs decide if the intervals do not. Rates that
        // swing leave the gain as uncertain after a second pair as after the first.
        let is_gain = is_up && gain >= CLIMBING_GAIN && error > SURE_ERROR;
        if !is_over || !is_gain && self.trial_rates.len() + 1 < PAIRS {
            return None;
        }
        let trials = self.trial_rates.iter().copied().chain([rate]);
        let (mut logs, mut weights) = (0.0, 0.0);
        for (base, trial) in self.base_rates.iter().zip(trials) {
            // The second rate of the base was measured next to the first trial, too.
            let base = if is_up && base.is_short() { self.base_rates.last().unwrap_or(base) } else { base };
            let gain = if is_up { ratio(trial.mean, base.mean) } else { ratio(base.mean, trial.mean) };
            let weight = 1.0 / (base.error.powi(2) + trial.error.powi(2) + DRIFT.powi(2));
            logs += weight * gain.ln();
            weights += weight;
        }
        Some(self.verdict((logs / weights).exp(), weights.sqrt().recip()))
    }

    /// Returns the verdict if the second rate of the base shows that more lanes gain nothing, after a short first one.
    fn check_base(&self, rate: LaneRate) -> Option<LaneVerdict> {
        let trial = self.trial_rates.last()?;
        let is_first_short = self.base_rates.last().is_some_and(LaneRate::is_short);
        let (gain, error) = (ratio(trial.mean, rate.mean), trial.error.hypot(rate.error));
        let is_useless = self.is_up() && is_first_short && gain * error.exp() < WORTHWHILE_GAIN;
        is_useless.then(|| self.verdict(gain, error))
    }

    fn is_up(&self) -> bool {
        self.trial > self.base
    }

    /// Records the rate of a measurement that has ended without a verdict.
    pub(super) fn record(&mut self, rate: LaneRate) {
        if self.measures_base() { &mut self.base_rates } else { &mut self.trial_rates }.push(rate);
    }

    /// Decides by a gain and its relative error.
    fn verdict(&self, gain: f64, error: f64) -> LaneVerdict {
        let doubt = ((error - SURE_ERROR) * DOUBT_SHARE).clamp(0.0, MOST_DOUBT);
        let takes_trial = if self.is_up() {
            // More is asked for than of a number in use, so that a swing of the rate moves nothing back and forth.
            gain >= CLIMBING_GAIN - doubt
        } else {
            gain < WORTHWHILE_GAIN - doubt
        };
        LaneVerdict { takes_trial, gain }
    }
}

/// Returns a quotient within bounds that have a logarithm.
fn ratio(upper: f64, lower: f64) -> f64 {
    (upper.max(1.0) / lower.max(1.0)).clamp(1e-3, 1e3)
}

/// The share of the larger number's rate with which the smaller one suffices. The search itself costs a few per cent, and
/// the upload as a whole shall take at most a twentieth longer than with the best number.
pub(super) const SUFFICIENT_SHARE: f64 = 0.98;
const WORTHWHILE_GAIN: f64 = 1.0 / SUFFICIENT_SHARE;
/// More lanes have to gain as much.
const CLIMBING_GAIN: f64 = 1.04;
/// Above this error, which hides a gain of a few per cent, less gain suffices: a few lanes too many cost less than a few too
/// few.
const SURE_ERROR: f64 = 0.08;
const DOUBT_SHARE: f64 = 0.2;
const MOST_DOUBT: f64 = 0.04;
/// The certain gain at which more lanes are taken at once, without a second pair. With 1.15, the pairs beside a rival, where
/// each doubling gains 10 to 20 %, cost more than the lanes.
const CLEAR_GAIN: f64 = 1.05;
/// The mean gain at which more lanes are taken if it is certain that there is any, and in any case after this time.
const LARGE_GAIN: f64 = 1.3;
const LARGE_GAIN_SECONDS: f64 = 1.0 - 1e-6;
/// The relative change of a link between two windows, which bounds the weight of the rates with the smallest errors.
const DRIFT: f64 = 0.03;
const MOST_LOSS: f64 = 0.03;
const PAIRS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the verdict of two equal pairs, if the first one does not decide.
    fn takes(base: usize, trial: usize, trial_mean: f64, error: f64) -> (bool, usize) {
        let rate = |mean| LaneRate { mean, error, loss: 0.0, seconds: 3.0 };
        let mut comparison = LaneComparison::new(base, trial, Some(rate(100.0)));
        for pairs in 1..=PAIRS {
            if let Some(verdict) = comparison.check(rate(trial_mean), true) {
                return (verdict.takes_trial, pairs);
            }
            comparison.record(rate(trial_mean));
            comparison.record(rate(100.0));
        }
        panic!("no verdict after {PAIRS} pairs");
    }

    #[test]
    fn two_pairs_decide_about_a_small_gain() {
        assert_eq!(takes(16, 32, 105.0, 0.03), (true, 2));
        assert_eq!(takes(16, 32, 103.0, 0.03), (false, 2));
        assert_eq!(takes(16, 8, 99.0, 0.03), (true, 2));
    }

    #[test]
    fn where_the_rate_swings_more_lanes_need_less_gain_and_fewer_lanes_more() {
        assert_eq!(takes(16, 32, 105.0, 0.5), (true, 1));
        assert_eq!(takes(16, 32, 101.0, 0.5), (true, 2));
        assert_eq!(takes(16, 32, 99.0, 0.5), (false, 2));
        assert_eq!(takes(16, 8, 99.0, 0.5), (false, 2));
        assert_eq!(takes(16, 8, 103.0, 0.5), (true, 2));
    }
}
