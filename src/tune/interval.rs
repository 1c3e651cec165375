//! Rates with confidence intervals, from samples of a counter that grows. Pure.

use std::time::Duration;

use serde::Serialize;

/// The bytes that were sent up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateSample {
    /// The moment, from any fixed origin.
    pub(crate) at: Duration,
    pub(crate) bytes: u64,
}

/// A rate in bytes per second and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RateInterval {
    /// The rate over the whole window.
    #[serde(rename = "bytes_per_second")]
    pub mean: f64,
    /// The lower end of the interval, at least 0.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// `true` if the rate is above 0 and did not drift at the end, and the interval is at most 5 % to each side.
    #[serde(rename = "settled")]
    pub is_settled: bool,
}

/// The ratio of two rates and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RatioInterval {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl RateInterval {
    /// Returns the rate and the interval of a growing counter. `None` if the samples span less than four batches.
    ///
    /// The interval is that of batch means: bytes of neighbouring moments depend on each other, because sockets take
    /// bytes in lumps, so single samples would make it too narrow. Batches are doubled until neighbours are almost
    /// independent.
    pub(crate) fn of_samples(samples: &[RateSample]) -> Option<RateInterval> {
        // Between two samples the counter is taken as even: fewer samples would make batches alike that are not.
        if samples.len() <= FEWEST_BATCHES {
            return None;
        }
        let (first, last) = (samples.first()?, samples.last()?);
        let window = last
            .at
            .checked_sub(first.at)
            .filter(|window| *window >= FEWEST_BATCHES as u32 * SHORTEST_BATCH)?;
        let step = (window / MOST_BATCHES).clamp(SHORTEST_BATCH, LONGEST_FIRST_BATCH);
        let mut means = batch_means(samples, step);
        while means.len() >= 2 * LEAST_BATCHES && autocorrelation(&means) >= MOST_CORRELATION {
            means = means.chunks_exact(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        }
        if means.len() < FEWEST_BATCHES {
            return None;
        }
        let mean = last.bytes.saturating_sub(first.bytes) as f64 / window.as_secs_f64();
        let half = half_width(&means);
        // With few batches the correlation itself is uncertain, and a narrow interval is luck.
        let is_independent = means.len() >= LEAST_BATCHES && autocorrelation(&means) < MOST_CORRELATION;
        // Bytes that do not move have no variance either.
        let is_settled = is_independent && mean > 0.0 && half <= MOST_HALF_WIDTH * mean && !drifts(&means);
        Some(RateInterval { mean, low: (mean - half).max(0.0), high: mean + half, is_settled })
    }

    /// Returns this rate divided by `other`. The errors of the two are taken as independent.
    pub(crate) fn ratio_to(&self, other: &RateInterval) -> RatioInterval {
        let mean = if other.mean > 0.0 { self.mean / other.mean } else { 1.0 };
        // The interval of a ratio is symmetric on the scale of logarithms.
        let half = self.relative_half_width().hypot(other.relative_half_width());
        RatioInterval { mean, low: mean * (-half).exp(), high: mean * half.exp() }
    }

    /// Returns the mean of two measurements of the same rate.
    pub(crate) fn merged(&self, other: &RateInterval) -> RateInterval {
        let mean = (self.mean + other.mean) / 2.0;
        // Two windows may differ by more than each interval says; the merged interval covers both means.
        let spread = (self.mean - other.mean).abs() / 2.0;
        let half = (self.half_width().hypot(other.half_width()) / 2.0).max(spread);
        let is_settled = self.is_settled && other.is_settled;
        RateInterval { mean, low: (mean - half).max(0.0), high: mean + half, is_settled }
    }

    fn half_width(&self) -> f64 {
        self.high - self.mean
    }

    fn relative_half_width(&self) -> f64 {
        if self.mean > 0.0 { self.half_width() / self.mean } else { 0.0 }
    }
}

/// Returns the rates in consecutive steps. The counter is taken as growing evenly between two samples. A rest that is
/// shorter than a step is left out.
fn batch_means(samples: &[RateSample], step: Duration) -> Vec<f64> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Vec::new() };
    let mut means = Vec::new();
    let (mut index, mut before, mut end) = (0, first.bytes as f64, first.at + step);
    while end <= last.at {
        // The last pair of samples also serves the end of the last step.
        while index + 2 < samples.len() && samples[index + 1].at < end {
            index += 1;
        }
        let bytes = bytes_at(&samples[index], &samples[index + 1], end);
        means.push((bytes - before) / step.as_secs_f64());
        before = bytes;
        end += step;
    }
    means
}

/// Returns the counter at a moment between two samples.
fn bytes_at(left: &RateSample, right: &RateSample, at: Duration) -> f64 {
    let span = right.at.saturating_sub(left.at).as_secs_f64();
    let share = if span > 0.0 { at.saturating_sub(left.at).as_secs_f64() / span } else { 1.0 };
    let grown = right.bytes.saturating_sub(left.bytes) as f64;
    left.bytes as f64 + grown * share.min(1.0)
}

/// Returns the correlation of each value with its successor, from -1 to 1; 0 for constant values.
fn autocorrelation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if variance > 0.0 { products / variance } else { 0.0 }
}

/// Returns the half width of the 95 % confidence interval of the mean, for at least two values.
fn half_width(values: &[f64]) -> f64 {
    let (count, mean) = (values.len() as f64, mean(values));
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    student_t(values.len() - 1) * (variance / count).sqrt()
}

/// Returns `true` if the last quarter of the values is more than 7.5 % from the mean of all.
fn drifts(values: &[f64]) -> bool {
    let end = &values[values.len() - values.len().div_ceil(4)..];
    (mean(end) - mean(values)).abs() > MOST_DRIFT * mean(values)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Returns the 97.5 % quantile of Student's t distribution, at least one degree of freedom.
fn student_t(degrees: usize) -> f64 {
    match STUDENT_T.get(degrees.max(1) - 1) {
        Some(quantile) => *quantile,
        // The first terms of its expansion for many degrees; the error is below 0.001.
        None => 1.96 + 2.37 / degrees as f64,
    }
}

const STUDENT_T: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086,
];

/// The fewest batches of any interval: with two, Student's t makes it 13 standard errors wide.
const FEWEST_BATCHES: usize = 4;
/// The fewest batches of a settled interval: with fewer, Student's t makes the interval wide anyway.
const LEAST_BATCHES: usize = 8;
/// Batches before the first doubling.
const MOST_BATCHES: u32 = 40;
/// The correlation up to which neighbouring batches count as independent.
const MOST_CORRELATION: f64 = 0.3;
/// The half width of a settled interval, relative to the mean.
pub(crate) const MOST_HALF_WIDTH: f64 = 0.05;
const MOST_DRIFT: f64 = 0.075;

/// The interval of the samples.
const SHORTEST_BATCH: Duration = Duration::from_millis(5);
/// Eight such batches fit into two seconds, the shortest time that a link of ordinary speed is measured for.
const LONGEST_FIRST_BATCH: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(rates: &[f64], step_ms: u64) -> Vec<RateSample> {
        let mut bytes = 0.0;
        let mut samples = vec![RateSample { at: Duration::ZERO, bytes: 0 }];
        for (index, rate) in rates.iter().enumerate() {
            bytes += rate * step_ms as f64 / 1000.0;
            let at = Duration::from_millis(step_ms * (index as u64 + 1));
            samples.push(RateSample { at, bytes: bytes as u64 });
        }
        samples
    }

    #[test]
    fn a_constant_rate_has_a_narrow_interval() {
        let rate = RateInterval::of_samples(&samples(&[1e6; 100], 50)).unwrap();
        assert!(rate.is_settled && (rate.mean - 1e6).abs() < 1e3 && rate.high - rate.low < 1e3, "{rate:?}");
    }

    #[test]
    fn a_rate_that_halves_at_the_end_is_not_settled() {
        let rates: Vec<f64> = (0..100).map(|index| if index < 75 { 1e6 } else { 5e5 }).collect();
        let rate = RateInterval::of_samples(&samples(&rates, 50)).unwrap();
        assert!(!rate.is_settled && rate.low < 8.75e5 && rate.high > 8.75e5, "{rate:?}");
    }

    #[test]
    fn lumps_of_bytes_widen_the_interval() {
        let lumps: Vec<f64> = (0..100).map(|index| if index % 20 < 4 { 5e6 } else { 0.0 }).collect();
        let lumpy = RateInterval::of_samples(&samples(&lumps, 50)).unwrap();
        assert!(!lumpy.is_settled && lumpy.low <= 1e6 && lumpy.high >= 1e6, "{lumpy:?}");
    }

    #[test]
    fn a_rate_of_zero_is_never_settled() {
        let rate = RateInterval::of_samples(&samples(&[0.0; 100], 50)).unwrap();
        assert!(!rate.is_settled && rate.mean == 0.0, "{rate:?}");
    }

    #[test]
    fn too_short_a_window_has_no_interval() {
        assert_eq!(RateInterval::of_samples(&[]), None);
        assert_eq!(RateInterval::of_samples(&samples(&[1e6], 10)), None);
    }

    #[test]
    fn the_quantiles_join_where_the_table_ends() {
        let quantiles: Vec<f64> = (1..60).map(student_t).collect();
        assert!(quantiles.windows(2).all(|pair| pair[0] > pair[1]), "{quantiles:?}");
        assert!((student_t(60) - 2.0).abs() < 0.005);
    }

    #[test]
    fn intervals_hold_the_true_rate_nineteen_times_in_twenty() {
        let mut random = fastrand::Rng::with_seed(1);
        let held = (0..400).filter(|_| {
            let rates: Vec<f64> = (0..80).map(|_| 1e6 * (0.6 + 0.8 * random.f64())).collect();
            let rate = RateInterval::of_samples(&samples(&rates, 50)).unwrap();
            rate.low <= 1e6 && 1e6 <= rate.high
        });
        let held = held.count();
        assert!((370..=395).contains(&held), "{held} of 400");
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_mean(steps in prop::collection::vec((1u64..400, 0u64..1 << 30), 0..200)) {
            let mut sample = RateSample { at: Duration::ZERO, bytes: 0 };
            let mut samples = vec![sample];
            for (ms, bytes) in steps {
                sample = RateSample { at: sample.at + Duration::from_millis(ms), bytes: sample.bytes + bytes };
                samples.push(sample);
            }
            if let Some(rate) = RateInterval::of_samples(&samples) {
                prop_assert!(rate.low >= 0.0 && rate.low <= rate.mean && rate.mean <= rate.high, "{:?}", rate);
                let ratio = rate.ratio_to(&rate);
                prop_assert!(ratio.low <= ratio.mean && ratio.mean <= ratio.high, "{:?}", ratio);
                prop_assert!(rate.merged(&rate).mean == rate.mean);
            }
        }
    }
}
