//! The blocks that a worker's sources read into, and the ring that fills them.

use std::cell::OnceCell;
use std::hint::black_box;
use std::io;

use crate::source::{BLOCK_BYTES, BufferPool, Choice, Reader};

/// The async runtime of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// The runtime of tokio-uring, for sources that read through the ring.
    Ring,
    /// The runtime of tokio.
    Plain,
}

/// A runtime with a ring that has room for every read which the blocks allow.
///
/// tokio-uring hands reads over when its thread has nothing else to do, and a thread that encrypts has
/// always something to do while the disk has not. A queue of a few hands them over by itself when it is full.
pub(super) fn ring(lanes: usize, depth: usize) -> io::Result<tokio_uring::Runtime> {
    let completions = count(lanes, depth).clamp(LEAST_COMPLETIONS, MOST_COMPLETIONS) as u32;
    let mut ring = tokio_uring::builder();
    ring.entries(READS_HELD_BACK)
        .uring_builder(tokio_uring::uring_builder().setup_cqsize(completions.next_power_of_two()));
    tokio_uring::Runtime::new(&ring)
}

/// Has glibc keep the memory of TLS records that were sent for the next ones.
///
/// It gives the end of a heap back to the kernel when more than twice its `M_MMAP_THRESHOLD` is free there,
/// and takes it again page by page, a zeroed page each. Freeing something larger raises that threshold
/// (mallopt(3)). Other allocators take no notice.
pub(super) fn keep_records(lanes: usize) {
    let bytes = lanes.clamp(1, MOST_LANES_KEPT) * RECORDS_BYTES;
    drop(black_box(Vec::<u8>::with_capacity(bytes)));
}

/// The blocks that sources read into.
pub(super) struct BlockPools {
    /// Memory is taken when a block is first written to.
    plain: BufferPool,
    /// Registering pins every block at once: that waits for the first source that reads by the ring.
    registered: Option<OnceCell<BufferPool>>,
}

impl BlockPools {
    pub(super) fn new(lanes: usize, depth: usize, runtime: Runtime) -> io::Result<BlockPools> {
        let registered = match runtime {
            Runtime::Ring => Some(OnceCell::new()),
            Runtime::Plain => None,
        };
        Ok(BlockPools {
            plain: BufferPool::new(count(lanes, depth), BLOCK_BYTES)?.reading_ahead(depth),
            registered,
        })
    }

    pub(super) fn pool_for(&self, choice: &Choice) -> &BufferPool {
        match (choice.reader, &self.registered) {
            (Reader::Uring | Reader::Direct, Some(registered)) => registered.get_or_init(|| {
                let blocks = BufferPool::in_ring(self.plain.count(), BLOCK_BYTES);
                blocks.map_or_else(|_| self.plain.clone(), |blocks| blocks.reading_ahead(self.plain.depth()))
            }),
            _ => &self.plain,
        }
    }
}

fn count(lanes: usize, depth: usize) -> usize {
    lanes * (depth + BLOCKS_IN_HYPER)
}

/// Reads in flight for each of so many lanes: a disk needs a deep queue, whether one lane fills it or many.
pub(crate) fn depth_of(lanes: usize) -> usize {
    let share = (BLOCKS / lanes.max(1)).saturating_sub(BLOCKS_IN_HYPER);
    share.clamp(LEAST_DEPTH, MOST_DEPTH)
}

/// The blocks that all lanes share, while there are few: 20 MiB.
const BLOCKS: usize = 40;
const LEAST_DEPTH: usize = 2;
const MOST_DEPTH: usize = 8;

/// Blocks that hyper may hold of a body beside what is read ahead: one that is being sent, and the next
/// one, for which it asks when less than 400 KiB are left.
const BLOCKS_IN_HYPER: usize = 2;

/// Reads that wait for company at most: each that goes alone is one more exit from a virtual machine.
const READS_HELD_BACK: u32 = 4;

/// Completions that the ring holds: a power of two, no fewer than there are places for reads, and no more than
/// the kernel allows (`IORING_MAX_CQ_ENTRIES`).
const LEAST_COMPLETIONS: usize = 64;
const MOST_COMPLETIONS: usize = 65_536;

/// What a lane's records take while the socket is full, rounded up.
const RECORDS_BYTES: usize = 512 << 10;
/// glibc raises its threshold to 32 MiB at most.
const MOST_LANES_KEPT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lanes_read_far_ahead_and_many_share_the_same_memory() {
        let depths = [1, 4, 5, 8, 10, 64].map(depth_of);
        assert_eq!(depths, [8, 8, 6, 3, 2, 2]);
        for lanes in 1..=10 {
            assert!(lanes * (depth_of(lanes) + BLOCKS_IN_HYPER) <= BLOCKS, "{lanes} lanes");
        }
    }
}
