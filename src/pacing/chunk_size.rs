//! The default chunk size.

use crate::wire::limits::{MAX_CHUNK_BYTES, MAX_PARTS, MIB, MIN_CHUNK_BYTES};

/// The facts that determine the chunk size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkSizing {
    /// The file's length in bytes.
    pub len: u64,
    /// The number of chunks that are sent at once.
    pub lanes: u32,
    /// The upload requests a minute that the service allows; `None` if unknown.
    pub uploads_per_minute: Option<u32>,
    /// The bandwidth of the link in bytes a second; `None` if it was not measured.
    pub bytes_per_second: Option<u64>,
    /// The upper limit of the chunk size in bytes. Values above [`MAX_CHUNK_BYTES`] are reduced to it.
    pub largest_bytes: u64,
}

impl ChunkSizing {
    /// Creates the facts for a file of `len` bytes over `lanes` lanes, with nothing else known.
    pub fn new(len: u64, lanes: u32) -> ChunkSizing {
        ChunkSizing {
            len,
            lanes,
            uploads_per_minute: None,
            bytes_per_second: None,
            largest_bytes: LARGEST_UNASKED_BYTES,
        }
    }
}

/// Returns the chunk size in bytes, a multiple of 256 KiB.
///
/// Chunks are small enough to keep every lane busy to the end, and large enough that the request budget does not limit
/// the upload.
pub fn chunk_bytes_for(sizing: &ChunkSizing) -> u64 {
    let ChunkSizing { len, lanes, .. } = *sizing;
    let largest = round_down(sizing.largest_bytes.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES));
    let lanes = u64::from(lanes.max(1));
    let wanted = match len {
        ..=ONE_REQUEST_BYTES => len,
        _ => len.div_ceil(lanes * CHUNKS_A_LANE).max(thrifty_bytes(sizing).min(len.div_ceil(lanes))),
    };
    let least = len.div_ceil(MAX_PARTS);
    round_up(wanted.clamp(MIN_CHUNK_BYTES, largest).max(least))
}

/// Returns the chunk size at which the request budget suffices for the bandwidth of the link.
fn thrifty_bytes(sizing: &ChunkSizing) -> u64 {
    let speed = sizing.bytes_per_second.unwrap_or(SUPPOSED_BYTES_PER_SECOND);
    sizing.uploads_per_minute.map_or(0, |rate| speed.saturating_mul(60) / u64::from(rate.max(1)))
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

/// The assumed bandwidth: Gigabit Ethernet.
const SUPPOSED_BYTES_PER_SECOND: u64 = 125_000_000;

/// The largest chunk that the service's own clients send.
const LARGEST_UNASKED_BYTES: u64 = 128 * MIB;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::limits::MAX_TOTAL_BYTES;
    use crate::wire::{Addressing, Plan};

    #[test]
    fn a_small_file_is_one_request() {
        for len in [1, MIN_CHUNK_BYTES, 31 * MIB, 32 * MIB] {
            assert!(chunk_bytes_for(&ChunkSizing::new(len, 8)) >= len);
        }
    }

    #[test]
    fn a_budget_makes_chunks_larger_and_a_slow_link_smaller() {
        let free = ChunkSizing::new(4 << 30, 16);
        let tight = ChunkSizing { uploads_per_minute: Some(100), ..free };
        let slow = ChunkSizing { bytes_per_second: Some(5_000_000), ..tight };
        assert_eq!(chunk_bytes_for(&free), 64 * MIB);
        assert_eq!(chunk_bytes_for(&tight), round_up(75_000_000));
        assert_eq!(chunk_bytes_for(&slow), 64 * MIB);
    }

    #[test]
    fn a_huge_file_takes_the_largest_chunks() {
        let sizing = ChunkSizing::new(30 << 30, 4);
        assert_eq!(chunk_bytes_for(&sizing), 128 * MIB);
        assert_eq!(chunk_bytes_for(&ChunkSizing { largest_bytes: u64::MAX, ..sizing }), MAX_CHUNK_BYTES);
    }

    proptest! {
        #[test]
        fn the_size_can_always_be_planned_and_keeps_the_lanes_busy(
            len in prop_oneof![1..=MAX_TOTAL_BYTES, 1..=512 * MIB],
            lanes in 0u32..64,
            uploads_per_minute in proptest::option::of(0u32..1000),
            bytes_per_second in proptest::option::of(0u64..),
            largest_bytes in 0u64..,
        ) {
            let sizing = ChunkSizing { len, lanes, uploads_per_minute, bytes_per_second, largest_bytes };
            let bytes = chunk_bytes_for(&sizing);
            prop_assert_eq!(bytes % STEP_BYTES, 0);
            let plan = Plan::new(len, bytes, Addressing::Part).unwrap();
            let busy = u64::from(plan.chunks()) * 2 >= u64::from(lanes);
            prop_assert!(busy || len <= ONE_REQUEST_BYTES || bytes == MIN_CHUNK_BYTES, "{} chunks", plan.chunks());
        }
    }
}
