//! The search for the number of lanes: a ladder, one refinement, and pairs. Pure.
//!
//! The search decides which number of lanes is measured next, and receives its rate. It looks for the smallest number
//! whose rate is within 3 % of the largest: every further lane takes from other users of the link and gains nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::interval::{RateInterval, RatioInterval};

/// The reason for a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RungPurpose {
    /// A rung of the ladder 1, 2, 4 and so on.
    Ladder,
    /// A number between two rungs.
    Refinement,
    /// One of two numbers that are measured in turn, A-B-A-B.
    Pair,
}

/// A number of lanes to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SearchStep {
    pub(crate) lanes: u32,
    pub(crate) purpose: RungPurpose,
}

/// The number of lanes that the search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LaneChoice {
    pub(crate) lanes: u32,
    pub(crate) rate: RateInterval,
    /// `true` if the number was compared with a neighbour in turn.
    pub(crate) is_compared: bool,
}

/// A search among 1 to `most_lanes` lanes.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    most_lanes: u32,
    /// The latest rate of each number of lanes.
    rates: BTreeMap<u32, RateInterval>,
    state: SearchState,
    /// The winner of the latest pair.
    winner: Option<u32>,
    /// Pairs whose comparison was begun, the larger number first.
    begun: Vec<(u32, u32)>,
    /// Pairs that were compared, the larger number first.
    compared: Vec<(u32, u32)>,
    /// Numbers whose rate did not suffice in a comparison, although it may have seemed so before.
    insufficient: Vec<u32>,
    /// The number between two rungs that was measured, or left out.
    refined: Option<u32>,
    has_resumed: bool,
    /// `true` if a limit ended the climb while the top rung seemed to gain.
    is_cut: bool,
}

#[derive(Clone, Debug)]
enum SearchState {
    Climb(u32),
    Refine(u32),
    Pair(LanePair),
    Done,
}

/// Two numbers of lanes that are measured in turn: upper, lower, upper, lower.
#[derive(Clone, Debug)]
struct LanePair {
    upper: u32,
    lower: u32,
    measured: Vec<RateInterval>,
}

/// Two measurements of each of two numbers.
struct PairResult {
    upper: RateInterval,
    lower: RateInterval,
    /// The lower number's rate divided by that of the upper one, from neighbouring measurements.
    ratio: RatioInterval,
}

impl Search {
    /// Begins a search; `most_lanes` is at least 1.
    pub(crate) fn new(most_lanes: u32) -> Search {
        Search {
            most_lanes: most_lanes.max(1),
            rates: BTreeMap::new(),
            state: SearchState::Climb(1),
            winner: None,
            begun: Vec::new(),
            compared: Vec::new(),
            insufficient: Vec::new(),
            refined: None,
            has_resumed: false,
            is_cut: false,
        }
    }

    /// Returns the next number of lanes to measure; `None` at the end.
    pub(crate) fn next_step(&self) -> Option<SearchStep> {
        let step = |lanes, purpose| Some(SearchStep { lanes, purpose });
        match &self.state {
            SearchState::Climb(lanes) => step(*lanes, RungPurpose::Ladder),
            SearchState::Refine(lanes) => step(*lanes, RungPurpose::Refinement),
            SearchState::Pair(pair) => step(pair.next_lanes(), RungPurpose::Pair),
            SearchState::Done => None,
        }
    }

    /// Returns `true` if a measurement may end with this rate of the number that [`Search::next_step`] returned: more
    /// precision would not change what follows, or the rate is settled.
    pub(crate) fn is_enough(&self, rate: &RateInterval) -> bool {
        let is_clear = match self.state {
            // The rate of a rung that is climbed past is only the lower end of the next gain.
            SearchState::Climb(lanes) if lanes < self.most_lanes => {
                match self.rates.range(..lanes).next_back() {
                    Some((_, below)) => rate.ratio_to(below).low > OBVIOUS_GAIN,
                    None => rate.high <= (1.0 + ROUGH_HALF_WIDTH) * rate.mean,
                }
            }
            _ => false,
        };
        // A stall may end within the longest window.
        rate.mean > 0.0 && (is_clear || rate.is_settled)
    }

    /// Takes the rate of the number that [`Search::next_step`] returned.
    pub(crate) fn record(&mut self, rate: RateInterval) {
        match std::mem::replace(&mut self.state, SearchState::Done) {
            SearchState::Climb(lanes) => self.climbed(lanes, rate),
            SearchState::Refine(lanes) => {
                self.rates.insert(lanes, rate);
                // The number between two rungs may be better than the winner of their comparison.
                self.winner = None;
                self.begin_pair();
            }
            SearchState::Pair(mut pair) => {
                pair.measured.push(rate);
                match pair.result() {
                    Some(result) => self.paired(pair.upper, pair.lower, &result),
                    None => self.state = SearchState::Pair(pair),
                }
            }
            SearchState::Done => {}
        }
    }

    /// Leaves out the step that [`Search::next_step`] returned, because it costs more than what is left.
    pub(crate) fn skip(&mut self) {
        match std::mem::replace(&mut self.state, SearchState::Done) {
            SearchState::Climb(_) => {
                self.is_cut = true;
                self.end_climb();
            }
            SearchState::Refine(_) => self.begin_pair(),
            SearchState::Pair(pair) => match pair.half_result() {
                Some(result) => self.paired(pair.upper, pair.lower, &result),
                None => self.end_climb(),
            },
            SearchState::Done => {}
        }
    }

    /// Returns the choice so far; `None` before the first rate.
    pub(crate) fn choice(&self) -> Option<LaneChoice> {
        let lanes = self.winner.or_else(|| self.candidate())?;
        let is_compared = self.compared.iter().any(|(upper, lower)| *upper == lanes || *lower == lanes);
        Some(LaneChoice { lanes, rate: *self.rates.get(&lanes)?, is_compared })
    }

    /// Returns the gain of the largest number that was measured over the next smaller one, and the smallest gain that
    /// counts as scaling; `None` for less than two.
    pub(crate) fn gain_at_top(&self) -> Option<(RatioInterval, f64)> {
        self.gain_over(|top| top - 1)
    }

    /// Returns the gain of the largest number over the largest one of at most `most_below` of it, and the smallest gain
    /// that counts as scaling.
    fn gain_over(&self, most_below: impl Fn(u32) -> u32) -> Option<(RatioInterval, f64)> {
        let (top, rate) = self.rates.last_key_value()?;
        let (below, rate_below) = self.rates.range(..=most_below(*top)).next_back()?;
        let least = 1.0 + LEAST_SCALING * (f64::from(*top) / f64::from(*below) - 1.0);
        Some((rate.ratio_to(rate_below), least))
    }

    /// Returns `true` if the largest number that was measured gained clearly over the next smaller one, and by at least
    /// half of what its further lanes would gain if each had the rate of those below.
    ///
    /// A smaller gain comes at the cost of others on a link that is full: fair shares of it grow with every lane.
    pub(crate) fn still_scales(&self) -> bool {
        self.gain_at_top().is_some_and(|(gain, least)| gain.low > SMALL_GAIN && gain.mean >= least)
    }

    /// Returns `true` if the effect of more lanes is unknown: a limit ended the climb, and the rates show neither that
    /// the largest number still scales, nor that it does not.
    pub(crate) fn is_undecided(&self) -> bool {
        // A measurement that was stopped is still in its climb.
        let is_cut = self.is_cut || matches!(self.state, SearchState::Climb(_));
        // Over the next smaller number the gain may be less than the interval around it; over half of the lanes it is larger.
        let gains = [self.gain_at_top(), self.gain_over(|top| top / 2)];
        let may_scale = gains.into_iter().flatten().all(|(gain, least)| gain.high >= least);
        self.rates.len() < 2 || is_cut && may_scale && !self.still_scales()
    }

    fn climbed(&mut self, lanes: u32, rate: RateInterval) {
        let below = self.rates.range(..lanes).next_back().map(|(_, below)| *below);
        self.rates.insert(lanes, rate);
        // Compared with the rung below, not with the best: an early rung that was lucky would be unbeatable.
        let gains = below.is_none_or(|below| is_worth_climbing(&rate.ratio_to(&below)));
        // A rung that was climbed past was measured roughly, and seems better than this one if it was lucky.
        let doubtful = self
            .rates
            .range(..lanes)
            .next_back()
            .filter(|(_, below)| !gains && !below.is_settled && rate.ratio_to(below).high >= ENOUGH);
        self.is_cut = gains && lanes == self.most_lanes;
        if gains && lanes < self.most_lanes {
            self.state = SearchState::Climb((2 * lanes).min(self.most_lanes));
        } else if let Some((below, _)) = doubtful {
            let pair = (lanes, *below);
            self.compare(pair);
        } else {
            self.end_climb();
        }
    }

    fn end_climb(&mut self) {
        match self.refinement().filter(|_| self.refined.is_none()) {
            Some(lanes) => {
                self.refined = Some(lanes);
                self.state = SearchState::Refine(lanes);
            }
            None => self.begin_pair(),
        }
    }

    /// Returns the number of lanes between two rungs that may be better than both.
    fn refinement(&self) -> Option<u32> {
        let (best, most) = self.best()?;
        let above = self.rates.range(best + 1..).next();
        let between = |one: u32, other: u32| Some(one.midpoint(other)).filter(|middle| *middle > one);
        match above {
            // The rate falls again: the peak may lie between the best rung and the one above.
            Some((above, rate)) if rate.mean < ENOUGH * most.mean => between(best, *above),
            // The rate is level: the smallest sufficient number may lie below the first sufficient rung.
            _ => {
                let candidate = self.candidate()?;
                let (below, _) = self.rates.range(..candidate).next_back()?;
                between(*below, candidate)
            }
        }
    }

    /// Compares the choice with a neighbour.
    fn begin_pair(&mut self) {
        let Some(choice) = self.choice() else { return };
        let pair = self.next_pair(choice.lanes);
        self.compare(pair);
    }

    /// Compares a pair, the larger number first, if that is permitted and was not done before.
    fn compare(&mut self, pair: (u32, u32)) {
        // A pair that was compared once would be compared for ever.
        let is_possible = pair.0 <= self.most_lanes && self.begun.len() < MOST_PAIRS;
        if is_possible && !self.begun.contains(&pair) {
            self.begun.push(pair);
            self.state = SearchState::Pair(LanePair { upper: pair.0, lower: pair.1, measured: Vec::new() });
        }
    }

    /// Returns the choice and its lower neighbour, the larger number first. One lane, which has none, is compared with two:
    /// if the path became slower during the climb, the ladder shows no gain where there is one.
    fn next_pair(&self, chosen: u32) -> (u32, u32) {
        let above = self.rates.range(chosen + 1..).next().map(|(lanes, _)| *lanes);
        let below = self.rates.range(..chosen).next_back().map(|(lanes, _)| *lanes);
        // A number between two rungs is chosen more often when its single measurement was lucky.
        let is_lucky = self.refined == Some(chosen) && self.winner.is_none();
        match (above, below.or((chosen > 1).then_some(chosen / 2))) {
            (Some(above), _) if is_lucky => (above, chosen),
            (_, Some(below)) => (chosen, below),
            (_, None) => (2, 1),
        }
    }

    fn paired(&mut self, upper: u32, lower: u32, result: &PairResult) {
        let has_changed = [(upper, &result.upper), (lower, &result.lower)].iter().any(|(lanes, now)| {
            let before = self.rates.get(lanes);
            before.is_some_and(|before| (now.ratio_to(before).mean - 1.0).abs() > MOST_CHANGE)
        });
        // On a path whose rate varies much, four short measurements may hide a difference.
        let suffices = result.ratio.mean >= ENOUGH && result.ratio.low >= CERTAINLY_ENOUGH;
        let winner = if suffices { lower } else { upper };
        self.compared.push((upper, lower));
        self.winner = Some(winner);
        if has_changed {
            // Rates of before the change say nothing about the path as it is now.
            self.rates.clear();
            self.insufficient.clear();
        }
        if !suffices {
            self.insufficient.push(lower);
        }
        self.rates.insert(upper, result.upper);
        self.rates.insert(lower, result.lower);
        let is_top = self.rates.range(upper + 1..).next().is_none();
        // The ladder ended where the upper number seemed to gain nothing.
        let has_misled = has_changed || self.refined.is_none();
        if !suffices && is_top && upper < self.most_lanes && has_misled && !self.has_resumed {
            // The winner of this pair need not be the winner of a longer ladder.
            self.has_resumed = true;
            self.winner = None;
            self.state = SearchState::Climb((2 * upper).min(self.most_lanes));
        } else if self.refined.is_none() {
            self.end_climb();
        } else if suffices {
            self.begin_pair();
        }
    }

    fn best(&self) -> Option<(u32, RateInterval)> {
        let best = self.rates.iter().max_by(|one, other| one.1.mean.total_cmp(&other.1.mean));
        best.map(|(lanes, rate)| (*lanes, *rate))
    }

    /// Returns the smallest number of lanes that is within 3 % of the best.
    fn candidate(&self) -> Option<u32> {
        let (_, best) = self.best()?;
        let suffices = |lanes: &u32, rate: &RateInterval| {
            rate.mean >= ENOUGH * best.mean && !self.insufficient.contains(lanes)
        };
        let first = self.rates.iter().find(|(lanes, rate)| suffices(lanes, rate));
        first.or(self.rates.last_key_value()).map(|(lanes, _)| *lanes)
    }
}

impl LanePair {
    fn next_lanes(&self) -> u32 {
        if self.measured.len().is_multiple_of(2) { self.upper } else { self.lower }
    }

    /// Returns the result of the first two measurements, if the others are left out.
    fn half_result(&self) -> Option<PairResult> {
        let [upper, lower, ..] = self.measured.as_slice() else { return None };
        Some(PairResult { upper: *upper, lower: *lower, ratio: lower.ratio_to(upper) })
    }

    /// Returns the result once both numbers were measured twice.
    fn result(&self) -> Option<PairResult> {
        let [upper, lower, upper_again, lower_again] = self.measured.as_slice() else { return None };
        // Neighbouring measurements share the state of the link; their ratios lose a slow drift of it.
        let [first, second] = [lower.ratio_to(upper), lower_again.ratio_to(upper_again)];
        Some(PairResult {
            upper: upper.merged(upper_again),
            lower: lower.merged(lower_again),
            ratio: weighted_ratio(&first, &second),
        })
    }
}

/// Returns the geometric mean of two ratios. The wider interval counts less: a path that stalls for a second during one of
/// four measurements makes its ratio meaningless, and its interval wide.
fn weighted_ratio(first: &RatioInterval, second: &RatioInterval) -> RatioInterval {
    let weight = |ratio: &RatioInterval| {
        let half_width = (ratio.high / ratio.mean.max(f64::MIN_POSITIVE)).ln();
        // Below a few per cent, the widths of two intervals differ by chance.
        half_width.max(LEAST_HALF_WIDTH).powi(-2)
    };
    let (one, other) = (weight(first), weight(second));
    let share = if (one + other).is_normal() { one / (one + other) } else { 0.5 };
    let mean = first.mean.powf(share) * second.mean.powf(1.0 - share);
    let half_width = (one + other).sqrt().recip();
    RatioInterval { mean, low: mean * (-half_width).exp(), high: mean * half_width.exp() }
}

/// Returns `true` if twice the lanes gain certainly more than a tenth. An undecided gain counts if its middle is above
/// 5 %: the next rung, or the pair at the end, decides.
fn is_worth_climbing(gain: &RatioInterval) -> bool {
    gain.low > CLEAR_GAIN || gain.mean > SMALL_GAIN && gain.high >= SMALL_GAIN
}

/// The share of the best rate that a number of lanes has to show. Its true share is then above 95 %, although both rates
/// are measured with an error of a few per cent.
pub(crate) const ENOUGH: f64 = 0.97;
/// The half width of the first rate, which is only the lower end of the first gain.
const ROUGH_HALF_WIDTH: f64 = 0.15;
/// The lower end of the interval of that share in a comparison.
const CERTAINLY_ENOUGH: f64 = 0.93;
/// A gain that no further batches make small.
const OBVIOUS_GAIN: f64 = 1.25;
/// The part of a proportional gain that a link, full with the traffic of others, does not give.
const LEAST_SCALING: f64 = 0.5;
const LEAST_HALF_WIDTH: f64 = 0.03;
const CLEAR_GAIN: f64 = 1.10;
const SMALL_GAIN: f64 = 1.05;
/// Two measurements of the same number that differ by more are of two states of the path.
const MOST_CHANGE: f64 = 0.2;
/// Bounds the search on a link whose rate never settles.
const MOST_PAIRS: usize = 4;

#[cfg(test)]
mod tests;
