//! The default chunk size.

use super::workload::Workload;
use crate::wire::limits::{MAX_CHUNK_BYTES, MAX_PARTS, MIB, MIN_CHUNK_BYTES};

/// The facts that determine the chunk size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkSizing {
    /// The file's length in bytes.
    pub len: u64,
    /// The number of chunks that are sent at once.
    pub lanes: u32,
    /// The other uploads, and the request budget.
    pub work: Workload,
    /// The bandwidth of the link in bytes a second; `None` if it was not measured.
    pub bytes_per_second: Option<u64>,
    /// The upper limit of the chunk size in bytes as long as the request budget does not demand larger chunks. Values
    /// above [`MAX_CHUNK_BYTES`] are reduced to it.
    pub largest_bytes: u64,
}

impl ChunkSizing {
    /// Creates the facts for a file of `len` bytes over `lanes` lanes, with nothing else known.
    pub fn new(len: u64, lanes: u32) -> ChunkSizing {
        ChunkSizing {
            len,
            lanes,
            work: Workload::default(),
            bytes_per_second: None,
            largest_bytes: LARGEST_UNASKED_BYTES,
        }
    }

    /// Returns the bytes of all uploads that the lanes have to send.
    fn total_bytes(&self) -> u64 {
        self.len.saturating_add(self.work.waiting_bytes(self.len)).saturating_add(self.work.planned_bytes)
    }

    /// Returns the bytes that the link can send in a minute; `None` if its bandwidth is unknown.
    fn bytes_per_minute(&self) -> Option<u64> {
        // At least 1, because `available_requests` divides by it.
        self.bytes_per_second.map(|speed| speed.saturating_mul(60).max(1))
    }
}

/// Returns the chunk size in bytes, a multiple of 256 KiB.
///
/// Chunks are small enough that all uploads together keep every lane busy to the end. Under a request budget they are
/// also large enough that all uploads together fit into the budget, if the service's limits on chunks allow that.
/// A larger budget never means larger chunks.
pub fn chunk_bytes_for(sizing: &ChunkSizing) -> u64 {
    let len = sizing.len;
    let wanted = if len <= ONE_REQUEST_BYTES {
        len
    } else {
        lane_bytes(sizing).max(link_bytes(sizing)).max(share_bytes(sizing))
    };
    // The limit of parts comes last: a file that needs larger chunks cannot be sent otherwise.
    let bounded = round_up(wanted.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES).max(len.div_ceil(MAX_PARTS)));
    // Chunks of equal length need no more requests, end at the same time, and cost less when one is sent again.
    let chunks = len.div_ceil(bounded).max(1);
    round_up(len.div_ceil(chunks).max(MIN_CHUNK_BYTES))
}

/// Returns the chunk size that keeps every lane busy to the end. Other uploads keep lanes busy too.
fn lane_bytes(sizing: &ChunkSizing) -> u64 {
    let largest = sizing.largest_bytes.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
    // Rounded down, because rounding up would exceed the user's upper limit.
    sizing.total_bytes().div_ceil(lanes(sizing) * CHUNKS_A_LANE).min(round_down(largest))
}

/// Returns the chunk size at which a minute's budget lasts for a minute of the link. One chunk for each lane is the
/// upper limit: a larger one would leave lanes idle.
fn link_bytes(sizing: &ChunkSizing) -> u64 {
    let Some(per_minute) = sizing.work.uploads_per_minute else { return 0 };
    let minute = sizing.bytes_per_minute().unwrap_or(SUPPOSED_BYTES_PER_MINUTE);
    // An announced budget of 0 must not be a divisor.
    (minute / u64::from(per_minute.max(1))).min(sizing.total_bytes().div_ceil(lanes(sizing)))
}

/// Returns the chunk size at which the file takes its share of the requests that are left.
///
/// Each upload needs one request. The requests beyond that are shared in proportion to the lengths.
fn share_bytes(sizing: &ChunkSizing) -> u64 {
    let Some(available) = available_requests(sizing) else { return 0 };
    let uploads = sizing.work.waiting.saturating_add(1);
    let spare = available.saturating_sub(uploads);
    let unplanned = sizing.len.saturating_add(sizing.work.waiting_bytes(sizing.len)).max(1);
    // The product of two `u64` needs 128 bits.
    let share = u128::from(spare) * u128::from(sizing.len) / u128::from(unplanned);
    // The share is at most `spare`, because the file is a part of the unplanned bytes.
    sizing.len.div_ceil(1 + share as u64)
}

/// Returns the requests that may be planned now for all uploads without a plan; `None` without a budget.
fn available_requests(sizing: &ChunkSizing) -> Option<u64> {
    let (left, per_minute) = (sizing.work.left()?, u64::from(sizing.work.uploads_per_minute?));
    // A quarter is kept for retries, other hosts of the account, and the next command.
    let now = u64::from(left - left / 4);
    let minutes = sizing.bytes_per_minute().map_or(0, |minute| sizing.total_bytes() / minute);
    // The first minute counts as the current window, which may last for all of it.
    Some(now.saturating_add(per_minute.saturating_mul(minutes.saturating_sub(1))))
}

fn lanes(sizing: &ChunkSizing) -> u64 {
    u64::from(sizing.lanes.max(1))
}

fn round_down(bytes: u64) -> u64 {
    bytes - bytes % STEP_BYTES
}

fn round_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(STEP_BYTES)
}

/// The granularity: a multiple of the alignments of O_DIRECT, of block sizes and of other services.
const STEP_BYTES: u64 = 256 << 10;

/// The length up to which a file is one request: a second one would cost more budget than it saves time.
const ONE_REQUEST_BYTES: u64 = 32 * MIB;

/// The chunks of each lane. With only one, all lanes would wait for the slowest.
const CHUNKS_A_LANE: u64 = 4;

/// The assumed bandwidth of a minute: Gigabit Ethernet.
const SUPPOSED_BYTES_PER_MINUTE: u64 = 125_000_000 * 60;

/// The largest chunk that the service's own clients send.
const LARGEST_UNASKED_BYTES: u64 = 128 * MIB;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::limits::MAX_TOTAL_BYTES;
    use crate::wire::{Addressing, Plan};

    fn chunks(sizing: &ChunkSizing) -> u64 {
        sizing.len.div_ceil(chunk_bytes_for(sizing))
    }

    /// Returns an upload of `len` bytes among `files` of that length, with `left` requests of a minute's.
    fn one_of(files: u64, len: u64, (left, per_minute): (u32, u32)) -> ChunkSizing {
        let mut sizing = ChunkSizing::new(len, 8);
        sizing.work = Workload {
            waiting: files - 1,
            waiting_bytes: (files - 1) * len,
            uploads_left: Some(left),
            ..Workload::alone(Some(per_minute))
        };
        sizing
    }

    #[test]
    fn a_small_file_is_one_request() {
        for len in [1, MIN_CHUNK_BYTES, 31 * MIB, 32 * MIB] {
            assert!(chunk_bytes_for(&ChunkSizing::new(len, 8)) >= len);
        }
    }

    #[test]
    fn a_budget_makes_chunks_larger_and_a_slow_link_smaller() {
        let free = ChunkSizing::new(4 << 30, 16);
        let tight = ChunkSizing { work: Workload::alone(Some(40)), ..free };
        let slow = ChunkSizing { bytes_per_second: Some(5_000_000), ..tight };
        assert_eq!((chunk_bytes_for(&free), chunks(&free)), (64 * MIB, 64));
        // A minute's budget lasts for a minute of Gigabit Ethernet.
        assert_eq!(chunks(&tight), 23);
        assert_eq!(chunk_bytes_for(&slow), 64 * MIB);
    }

    #[test]
    fn a_huge_file_takes_the_largest_chunks() {
        let sizing = ChunkSizing::new(30 << 30, 4);
        assert_eq!(chunk_bytes_for(&sizing), 128 * MIB);
        let most = chunk_bytes_for(&ChunkSizing { largest_bytes: u64::MAX, ..sizing });
        assert_eq!(sizing.len.div_ceil(most), sizing.len.div_ceil(MAX_CHUNK_BYTES));
    }

    #[test]
    fn a_file_among_many_is_one_request_and_a_file_alone_is_cut_for_the_lanes() {
        let len = 37 * MIB;
        for budget in [(100, 100), (40, 40), (3, 100), (0, 40)] {
            assert_eq!(chunks(&one_of(40, len, budget)), 1, "{budget:?}");
        }
        assert_eq!(chunks(&one_of(1, len, (100, 100))), 8);
        let unlimited = ChunkSizing {
            work: Workload { unmeasured: 39, ..Workload::default() },
            ..ChunkSizing::new(len, 8)
        };
        assert_eq!(chunks(&unlimited), 1);
    }

    #[test]
    fn a_batch_that_exceeds_the_budget_takes_as_few_requests_as_the_service_allows() {
        assert_eq!(chunks(&one_of(200, 1 << 30, (100, 100))), 6);
        assert_eq!(chunks(&one_of(1, 30 << 30, (100, 100))), 154);
    }

    #[test]
    fn a_short_file_that_follows_long_ones_takes_no_requests_from_them() {
        let mut sizing = one_of(2, 40 * MIB, (40, 40));
        sizing.work.waiting_bytes = 20 << 30;
        assert_eq!(chunks(&sizing), 1);
    }

    fn any_work() -> impl Strategy<Value = Workload> {
        let bytes = || prop_oneof![Just(0), 0u64..4 << 40, any::<u64>()];
        let budget = proptest::option::of(0u32..1000);
        (0u64..2000, bytes(), 0u64..50, bytes(), budget.clone(), budget).prop_map(
            |(waiting, waiting_bytes, unmeasured, planned_bytes, uploads_per_minute, uploads_left)| {
                Workload {
                    waiting: waiting + unmeasured,
                    waiting_bytes,
                    unmeasured,
                    planned_bytes,
                    uploads_per_minute,
                    uploads_left,
                }
            },
        )
    }

    fn any_sizing() -> impl Strategy<Value = ChunkSizing> {
        let len = prop_oneof![1..=MAX_TOTAL_BYTES, 1..=512 * MIB];
        (len, 0u32..64, any_work(), proptest::option::of(any::<u64>()), any::<u64>()).prop_map(
            |(len, lanes, work, bytes_per_second, largest_bytes)| ChunkSizing {
                len,
                lanes,
                work,
                bytes_per_second,
                largest_bytes,
            },
        )
    }

    /// Returns the fewest requests that the service allows for a file.
    fn needed(len: u64) -> u64 {
        len.div_ceil(MAX_CHUNK_BYTES)
    }

    proptest! {
        #[test]
        fn the_size_is_within_the_limits_of_the_protocol(sizing in any_sizing()) {
            let bytes = chunk_bytes_for(&sizing);
            prop_assert_eq!(bytes % STEP_BYTES, 0);
            prop_assert!((MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&bytes));
            prop_assert!(u64::from(Plan::new(sizing.len, bytes, Addressing::Part).unwrap().chunks()) <= MAX_PARTS);
        }

        #[test]
        fn a_larger_budget_never_means_larger_chunks(sizing in any_sizing(), less in 0u32..1000, more in 0u32..1000) {
            let (less, more) = (less.min(more), less.max(more));
            let with = |uploads_per_minute, uploads_left| {
                let work = Workload { uploads_per_minute, uploads_left, ..sizing.work };
                chunk_bytes_for(&ChunkSizing { work, ..sizing })
            };
            let left = sizing.work.uploads_left;
            prop_assert!(with(Some(more), left) <= with(Some(less), left));
            prop_assert!(with(Some(1000), Some(more)) <= with(Some(1000), Some(less)));
            prop_assert!(with(None, left) <= with(Some(more), left));
        }

        #[test]
        fn no_more_requests_than_needed_are_planned_when_the_budget_binds(mut sizing in any_sizing(), left in 0u32..100) {
            sizing.bytes_per_second = None;
            sizing.work.uploads_per_minute = Some(100);
            sizing.work.uploads_left = Some(left);
            sizing.work.waiting = sizing.work.waiting.max(u64::from(left));
            prop_assert_eq!(chunks(&sizing), needed(sizing.len));
        }

        #[test]
        fn all_uploads_together_keep_within_the_budget_if_the_service_allows_it(
            lens in proptest::collection::vec(prop_oneof![1..=(4u64 << 30), 1..=512 * MIB], 1..60),
            lanes in 1u32..32,
            left in 1u32..500,
        ) {
            let total: u64 = lens.iter().sum();
            let planned: u64 = lens.iter().map(|&len| {
                let work = Workload {
                    waiting: lens.len() as u64 - 1,
                    waiting_bytes: total - len,
                    ..Workload::alone(Some(left))
                };
                chunks(&ChunkSizing { work, ..ChunkSizing::new(len, lanes) })
            }).sum();
            let fewest: u64 = lens.iter().map(|&len| needed(len)).sum();
            prop_assert!(planned <= fewest.max(u64::from(left)), "{} of {}, {} needed", planned, left, fewest);
        }

        #[test]
        fn without_a_budget_and_alone_every_lane_has_a_chunk(len in 1..=MAX_TOTAL_BYTES, lanes in 0u32..64) {
            let sizing = ChunkSizing::new(len, lanes);
            let busy = chunks(&sizing) * 2 >= u64::from(lanes);
            prop_assert!(busy || len <= ONE_REQUEST_BYTES || chunk_bytes_for(&sizing) == MIN_CHUNK_BYTES);
        }
    }
}
