//! The time, the requests and the bytes that a measurement may use. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::wire::limits::{MAX_CHUNK_BYTES, MIB, MIN_CHUNK_BYTES};

/// The limits of one measurement of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathLimits {
    /// The time for all measurements, without the deletion of what they created. Default: 60 s.
    pub time: Duration,
    /// The requests that carry bytes. At most half of what the service states as left is used, and 20 are always left.
    /// Default: 30.
    pub requests: u32,
    /// The bytes to send. Default: 2 GiB.
    pub bytes: u64,
    /// The largest number of lanes to try. Default: 32.
    pub most_lanes: u32,
    /// `true` if a limit on requests that the service states is obeyed. A server for tests states limits that it does not
    /// enforce. Default: `true`.
    pub obeys_stated_budget: bool,
}

impl Default for PathLimits {
    fn default() -> PathLimits {
        PathLimits {
            time: Duration::from_secs(60),
            requests: 30,
            bytes: 2048 * MIB,
            most_lanes: 32,
            obeys_stated_budget: true,
        }
    }
}

impl PathLimits {
    /// Returns the largest number of videos that a measurement creates, each of which it deletes.
    pub fn most_videos(&self) -> u32 {
        // Each video receives at least one request.
        self.requests.min(MOST_STEPS)
    }
}

/// A limit that ended a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SpentLimit {
    /// [`PathLimits::time`].
    Time,
    /// [`PathLimits::requests`], or the share of the service's budget.
    Requests,
    /// [`PathLimits::bytes`].
    Bytes,
}

/// The requests and bytes that are spent, and those that may still be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathBudget {
    limits: PathLimits,
    requests: u32,
    bytes: u64,
}

impl PathBudget {
    pub(crate) fn new(limits: PathLimits) -> PathBudget {
        PathBudget { limits, requests: 0, bytes: 0 }
    }

    /// Returns the requests that were spent.
    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// Lowers the limit to a share of what the service has left. `answered` is the number of the spent requests that
    /// the service has certainly counted.
    pub(crate) fn observe(&mut self, left: u32, answered: u32) {
        // Requests under way will be counted, too.
        let left = left.saturating_sub(self.requests.saturating_sub(answered));
        let share = (left / 2).min(left.saturating_sub(KEPT_REQUESTS));
        self.limits.requests = self.limits.requests.min(self.requests.saturating_add(share));
    }

    /// Returns the chunk size for `lanes` new requests, and spends them with their bytes.
    ///
    /// Takes a part of the bytes that are left, so that further rungs have some, too.
    ///
    /// # Errors
    /// If the requests, or the smallest chunks, exceed what is left.
    pub(crate) fn spend(&mut self, lanes: u32) -> Result<u64, SpentLimit> {
        let share = self.bytes_left() / RUNGS_TO_COME / u64::from(lanes.max(1));
        let chunk_bytes = share.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
        // Down, because the next multiple may exceed the bytes that are left.
        self.spend_chunks(lanes, chunk_bytes - chunk_bytes % STEP_BYTES)
    }

    /// Spends `chunks` requests of `chunk_bytes`, and returns that size.
    ///
    /// # Errors
    /// If they exceed what is left.
    pub(crate) fn spend_chunks(&mut self, chunks: u32, chunk_bytes: u64) -> Result<u64, SpentLimit> {
        let bytes = chunk_bytes.saturating_mul(u64::from(chunks));
        if chunks > self.limits.requests.saturating_sub(self.requests) {
            return Err(SpentLimit::Requests);
        }
        if bytes > self.bytes_left() {
            return Err(SpentLimit::Bytes);
        }
        self.requests += chunks;
        self.bytes += bytes;
        Ok(chunk_bytes)
    }

    /// Returns bytes that were spent and not sent.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn bytes_left(&self) -> u64 {
        self.limits.bytes.saturating_sub(self.bytes)
    }
}

/// The steps of the longest search, with the probe of the chunk size.
const MOST_STEPS: u32 = 32;
/// Requests of the service's budget that are left for other programs of the account.
const KEPT_REQUESTS: u32 = 20;
/// A rung takes a quarter of the bytes that are left. The first ones take most, which a fast path needs to be measured
/// at all.
const RUNGS_TO_COME: u64 = 4;
/// The granularity of all chunk sizes.
const STEP_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_of_the_service_budget_is_used_and_twenty_requests_are_left() {
        for (left, allowed) in [(500, 30), (40, 20), (30, 10), (20, 0), (3, 0)] {
            let mut budget = PathBudget::new(PathLimits::default());
            budget.observe(left, 0);
            let spent = (0..40).take_while(|_| budget.spend_chunks(1, MIN_CHUNK_BYTES).is_ok()).count();
            assert_eq!(spent, allowed, "{left} left");
        }
    }

    #[test]
    fn requests_under_way_count_as_used() {
        let mut budget = PathBudget::new(PathLimits::default());
        budget.spend_chunks(8, MIN_CHUNK_BYTES).unwrap();
        // The service has counted none of the 8, so 32 will be left.
        budget.observe(40, 0);
        assert_eq!(budget.spend_chunks(13, MIN_CHUNK_BYTES), Err(SpentLimit::Requests));
        budget.spend_chunks(12, MIN_CHUNK_BYTES).unwrap();
    }

    #[test]
    fn bytes_that_were_not_sent_can_be_spent_again() {
        let mut budget = PathBudget::new(PathLimits { bytes: 20 * MIB, ..PathLimits::default() });
        budget.spend_chunks(2, 10 * MIB).unwrap();
        assert_eq!(budget.spend(1), Err(SpentLimit::Bytes));
        budget.give_back(10 * MIB);
        assert_eq!(budget.spend(1), Ok(5 * MIB));
    }

    proptest! {
        #[test]
        fn no_limit_is_exceeded(
            requests in 0u32..100,
            bytes in 0u64..1 << 34,
            steps in prop::collection::vec((1u32..40, prop::option::of(0u32..200)), 0..40),
        ) {
            let limits = PathLimits { requests, bytes, ..PathLimits::default() };
            let mut budget = PathBudget::new(limits);
            let mut spent = (0u64, 0u64);
            for (lanes, left) in steps {
                if let Some(left) = left {
                    budget.observe(left, budget.requests());
                }
                if let Ok(chunk) = budget.spend(lanes) {
                    prop_assert!((MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk));
                    spent = (spent.0 + u64::from(lanes), spent.1 + chunk * u64::from(lanes));
                }
            }
            prop_assert!(spent.0 <= u64::from(requests) && spent.1 <= bytes, "{:?}", spent);
        }
    }
}
