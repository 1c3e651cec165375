//! The chunk size from a model of a request: a fixed time, and a time in proportion to its bytes. Pure.

use serde::Serialize;

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
    /// Returns the timing of a lane of this rate on which a chunk of `bytes` took `seconds`.
    pub(crate) fn of_request(bytes: u64, seconds: f64, bytes_per_second: f64) -> ChunkTiming {
        let sending = bytes as f64 / bytes_per_second.max(1.0);
        ChunkTiming { fixed_seconds: (seconds - sending).max(0.0), bytes_per_second }
    }

    /// Returns the share of a request's time in which the lane sends, from 0 to 1.
    pub fn efficiency(&self, chunk_bytes: u64) -> f64 {
        let sending = chunk_bytes as f64 / self.bytes_per_second.max(1.0);
        sending / (sending + self.fixed_seconds).max(f64::MIN_POSITIVE)
    }

    /// Returns the smallest chunk size at which the lane sends for 97 % of the time, and at which `total_rate` bytes per
    /// second need at most 90 % of `uploads_per_minute` requests. A multiple of 256 KiB within the limits of the
    /// protocol. A smaller chunk loses less when it has to be sent again.
    pub(crate) fn chunk_bytes(&self, total_rate: f64, uploads_per_minute: Option<u32>) -> u64 {
        let efficient = self.fixed_seconds * self.bytes_per_second * ENOUGH_SENDING / (1.0 - ENOUGH_SENDING);
        let affordable = uploads_per_minute.map_or(0.0, |uploads| bytes_per_request(total_rate, uploads));
        // The conversion saturates; what is not finite or negative becomes a limit of the protocol.
        let wanted = efficient.max(affordable).ceil() as u64;
        wanted.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES).next_multiple_of(STEP_BYTES)
    }
}

/// Returns the bytes that each request has to carry at this rate.
fn bytes_per_request(total_rate: f64, uploads_per_minute: u32) -> f64 {
    total_rate * 60.0 / (USED_BUDGET * f64::from(uploads_per_minute.max(1)))
}

/// Returns the largest rate in bytes per second that a request budget permits.
pub(crate) fn budget_rate(uploads_per_minute: u32) -> f64 {
    MAX_CHUNK_BYTES as f64 * USED_BUDGET * f64::from(uploads_per_minute) / 60.0
}

/// The share of its time that a lane should send. More costs much larger chunks: 99 % needs three times the size.
const ENOUGH_SENDING: f64 = 0.97;
/// The rest of the budget is for retries, and for creating and finishing videos.
const USED_BUDGET: f64 = 0.9;
/// The granularity of all chunk sizes, which suits O_DIRECT and block sizes.
const STEP_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    #[test]
    fn the_fixed_time_is_what_sending_does_not_explain() {
        let timing = ChunkTiming::of_request(10 << 20, 1.25, 10.0 * MIB);
        assert!((timing.fixed_seconds - 0.25).abs() < 1e-9);
        assert_eq!(ChunkTiming::of_request(10 << 20, 0.5, 10.0 * MIB).fixed_seconds, 0.0);
    }

    #[test]
    fn a_long_wait_for_answers_needs_large_chunks() {
        let timing = ChunkTiming { fixed_seconds: 0.1, bytes_per_second: 10.0 * MIB };
        let chunk = timing.chunk_bytes(80.0 * MIB, None);
        assert!((32 << 20..34 << 20).contains(&chunk), "{chunk}");
        assert!(timing.efficiency(chunk) >= 0.97 && timing.efficiency(chunk - (256 << 10)) < 0.97);
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
