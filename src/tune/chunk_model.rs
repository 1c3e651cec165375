//! The chunk size from a model of a request: a fixed time, and a time in proportion to its bytes. Pure.

use std::time::Duration;

use serde::Serialize;

use super::interval::RateSample;
use crate::wire::limits::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};

/// The time of a request on one lane: `fixed_seconds + bytes / bytes_per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChunkTiming {
    /// The time in which the lane sends nothing: the head, and the wait for the answer.
    pub fixed_seconds: f64,
    /// The rate of one lane while it sends.
    pub bytes_per_second: f64,
}

impl ChunkTiming {
    /// Returns the share of a request's time in which the lane sends, from 0 to 1.
    pub fn efficiency(&self, chunk_bytes: u64) -> f64 {
        let sending = chunk_bytes as f64 / self.bytes_per_second.max(1.0);
        // Without bytes and without a fixed time the share is 0, and not NaN.
        sending / (sending + self.fixed_seconds).max(f64::MIN_POSITIVE)
    }

    /// Returns the smallest chunk size at which the lane sends for 98 % of the time, and at which `total_rate` bytes per
    /// second need at most 90 % of `uploads_per_minute` requests. A multiple of 256 KiB within the limits of the
    /// protocol. A smaller chunk loses less when it has to be sent again.
    pub(crate) fn chunk_bytes(&self, total_rate: f64, uploads_per_minute: Option<u32>) -> u64 {
        let efficient = self.fixed_seconds * self.bytes_per_second * ENOUGH_SENDING / (1.0 - ENOUGH_SENDING);
        let affordable = uploads_per_minute.map_or(0.0, |uploads| bytes_per_request(total_rate, uploads));
        // The conversion saturates; what is not finite or negative becomes a limit of the protocol.
        let wanted = efficient.max(affordable).ceil() as u64;
        // Both limits are multiples of the step, so that the result stays within them.
        wanted.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES).next_multiple_of(STEP_BYTES)
    }
}

/// Returns the shortest time between two of `chunks` chunks of one lane in which nothing is acknowledged, from samples of
/// the acknowledged bytes. `None` without two chunks, or if no sample is between any of them.
///
/// The rate of the lane has no influence: a chunk that a lossy path delays by chance does not seem to wait for its
/// answer. The shortest of several waits is one without a delay.
pub(crate) fn answer_wait(samples: &[RateSample], chunk_bytes: u64, chunks: u32) -> Option<Duration> {
    let waits = (1..u64::from(chunks)).filter_map(|chunk| {
        let before = chunk * chunk_bytes;
        let end = samples.iter().find(|sample| sample.bytes >= before)?;
        let next = samples.iter().find(|sample| sample.bytes > before)?;
        // Both in one sample: the wait is shorter than the interval of the samples, or the samples were late.
        next.at.checked_sub(end.at).filter(|wait| !wait.is_zero())
    });
    waits.min()
}

/// Returns the bytes that each request has to carry at this rate.
fn bytes_per_request(total_rate: f64, uploads_per_minute: u32) -> f64 {
    total_rate * 60.0 / (USED_BUDGET * f64::from(uploads_per_minute.max(1)))
}

/// Returns the largest rate in bytes per second that a request budget permits.
pub(crate) fn budget_rate(uploads_per_minute: u32) -> f64 {
    MAX_CHUNK_BYTES as f64 * USED_BUDGET * f64::from(uploads_per_minute) / 60.0
}

/// The share of its time that a lane should send. 97 % would suffice, but the fixed time is measured only once. More costs
/// larger chunks: 99 % needs twice the size.
const ENOUGH_SENDING: f64 = 0.98;
/// The rest of the budget is for retries, and for creating and finishing videos.
const USED_BUDGET: f64 = 0.9;
/// The granularity of all chunk sizes, which suits O_DIRECT and block sizes.
const STEP_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    fn samples(points: &[(u64, u64)]) -> Vec<RateSample> {
        points
            .iter()
            .map(|(ms, bytes)| RateSample { at: Duration::from_millis(*ms), bytes: *bytes })
            .collect()
    }

    #[test]
    fn the_wait_for_an_answer_lies_between_two_chunks() {
        let stalled = [(0, 0), (10, 40), (500, 40), (510, 100), (560, 100), (590, 100), (591, 120)];
        assert_eq!(answer_wait(&samples(&stalled), 100, 2), Some(Duration::from_millis(81)));
        assert_eq!(answer_wait(&samples(&stalled[..6]), 100, 2), None);
        // The end of the first chunk was missed.
        assert_eq!(answer_wait(&samples(&[(0, 0), (10, 90), (20, 130)]), 100, 2), None);
        assert_eq!(answer_wait(&[], 100, 2), None);
    }

    #[test]
    fn a_delayed_answer_does_not_count_if_another_one_is_in_time() {
        let points = [(0, 0), (100, 100), (700, 101), (800, 200), (850, 201)];
        assert_eq!(answer_wait(&samples(&points), 100, 2), Some(Duration::from_millis(600)));
        assert_eq!(answer_wait(&samples(&points), 100, 3), Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_head_in_the_queue_does_not_end_the_wait() {
        // The head of the second request is queued, which lowers the acknowledged bytes for a moment.
        let points = [(0, 90), (10, 100), (40, 97), (50, 101)];
        assert_eq!(answer_wait(&samples(&points), 100, 2), Some(Duration::from_millis(40)));
    }

    #[test]
    fn a_long_wait_for_answers_needs_large_chunks() {
        let timing = ChunkTiming { fixed_seconds: 0.1, bytes_per_second: 10.0 * MIB };
        let chunk = timing.chunk_bytes(80.0 * MIB, None);
        assert!((49 << 20..50 << 20).contains(&chunk), "{chunk}");
        assert!(timing.efficiency(chunk) >= 0.98 && timing.efficiency(chunk - (256 << 10)) < 0.98);
    }

    #[test]
    fn a_request_budget_needs_large_chunks() {
        let timing = ChunkTiming { fixed_seconds: 0.0, bytes_per_second: 10.0 * MIB };
        assert_eq!(timing.chunk_bytes(60.0 * MIB, None), 5 << 20);
        assert_eq!(timing.chunk_bytes(60.0 * MIB, Some(40)), 100 << 20);
        assert_eq!(timing.chunk_bytes(600.0 * MIB, Some(40)), 200 << 20);
    }

    proptest! {
        #[test]
        fn every_chunk_size_is_one_of_the_protocol(
            fixed_seconds in prop::num::f64::ANY,
            bytes_per_second in prop::num::f64::ANY,
            total in prop::num::f64::ANY,
            uploads in prop::option::of(0u32..1000),
        ) {
            let chunk = ChunkTiming { fixed_seconds, bytes_per_second }.chunk_bytes(total, uploads);
            prop_assert!((MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk) && chunk.is_multiple_of(STEP_BYTES));
        }

        #[test]
        fn a_larger_budget_never_needs_larger_chunks(total in 0.0..1e10, uploads in 1u32..1000) {
            let timing = ChunkTiming { fixed_seconds: 0.05, bytes_per_second: 1e7 };
            prop_assert!(timing.chunk_bytes(total, Some(uploads + 1)) <= timing.chunk_bytes(total, Some(uploads)));
            prop_assert!(timing.chunk_bytes(total, None) <= timing.chunk_bytes(total, Some(uploads)));
        }
    }
}
