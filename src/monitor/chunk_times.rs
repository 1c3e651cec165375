//! Durations of chunks.

use std::time::Duration;

/// A histogram of the durations of acknowledged chunks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkTimes {
    counts: [u64; CHUNK_SECONDS.len()],
    longer: u64,
    seconds: f64,
}

impl ChunkTimes {
    /// Records a chunk that took `elapsed` from its first byte to the service's answer.
    pub fn record(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        self.seconds += seconds;
        // Inclusive, as the label `le` says.
        match CHUNK_SECONDS.iter().position(|bound| seconds <= *bound) {
            Some(i) => self.counts[i] += 1,
            None => self.longer += 1,
        }
    }

    /// Returns the number of chunks.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// Returns the sum of the durations in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Returns the upper bound of each bucket in seconds, and the number of chunks in the bucket. The last bound is
    /// infinite.
    pub(super) fn buckets(&self) -> [(f64, u64); CHUNK_SECONDS.len() + 1] {
        // OpenMetrics demands the last bucket, and its encoder adds none by itself.
        std::array::from_fn(|i| match CHUNK_SECONDS.get(i) {
            Some(bound) => (*bound, self.counts[i]),
            None => (f64::INFINITY, self.longer),
        })
    }
}

/// The upper bounds of the buckets: 5 MiB in a data centre to 200 MiB over a slow line.
const CHUNK_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
