//! The blocks that a worker's sources read into, and the ring that fills them.

use std::cell::OnceCell;
use std::hint::black_box;
use std::io;

use crate::source::{BLOCK_BYTES, BufferPool, Choice, Reader, RingRuntime, ring_runtime};

/// The async runtime of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// The runtime of tokio-uring, for sources that read through the ring.
    Ring,
    /// The runtime of tokio.
    Plain,
}

/// Returns a runtime whose ring has room for every read that the blocks allow.
///
/// tokio-uring submits reads when its thread is idle, but a thread that encrypts is never idle while the disk is. A
/// short queue submits reads whenever it is full: by fours, 8 lanes over HTTPS read cold files at 2.01 GiB/s, against
/// 1.56 GiB/s before.
pub(super) fn ring(blocks: usize) -> io::Result<RingRuntime> {
    let completions = blocks.clamp(LEAST_COMPLETIONS, MOST_COMPLETIONS) as u32;
    ring_runtime(READS_HELD_BACK, completions.next_power_of_two())
}

/// Makes glibc keep freed memory of TLS records for the next records.
///
/// glibc returns the end of a heap to the kernel when more than twice its `M_MMAP_THRESHOLD` is free there, and
/// faults it in again page by page, each page zeroed. Freeing a larger block raises that threshold (mallopt(3)).
/// Other allocators ignore this.
pub(super) fn keep_records(lanes: usize) {
    let bytes = lanes.clamp(1, MOST_LANES_KEPT) * RECORDS_BYTES;
    // The optimiser would remove an allocation that nothing uses.
    drop(black_box(Vec::<u8>::with_capacity(bytes)));
}

/// The blocks that sources read into.
pub(super) struct BlockPools {
    /// Uses memory only when a block is first written.
    plain: BufferPool,
    /// Created for the first source that reads by the ring, since registration pins every block at once.
    registered: Option<OnceCell<BufferPool>>,
}

impl BlockPools {
    pub(super) fn new(blocks: usize, depth: usize, runtime: Runtime) -> io::Result<BlockPools> {
        let registered = match runtime {
            Runtime::Ring => Some(OnceCell::new()),
            Runtime::Plain => None,
        };
        Ok(BlockPools { plain: BufferPool::new(blocks, BLOCK_BYTES)?.with_depth(depth), registered })
    }

    pub(super) fn pool_for(&self, choice: &Choice) -> &BufferPool {
        match (choice.reader, &self.registered) {
            (Reader::Uring | Reader::Direct, Some(registered)) => registered.get_or_init(|| {
                let blocks = BufferPool::in_ring(self.plain.count(), BLOCK_BYTES);
                // Blocks of no ring make the source fall back to plain reads, with the reason in the log.
                blocks.map_or_else(|_| self.plain.clone(), |blocks| blocks.with_depth(self.plain.depth()))
            }),
            _ => &self.plain,
        }
    }
}

/// Returns the number of blocks of a worker with `lanes` lanes, of which `first` are used at the start. Lanes beyond those
/// add one block each, and all lanes share them: memory that is registered is in use even if its lane is not.
pub(crate) fn blocks_of(first: usize, lanes: usize, depth: usize) -> usize {
    let first = first.min(lanes);
    first * (depth + BLOCKS_IN_HYPER) + (lanes - first)
}

/// Returns the number of reads in flight per lane. A disk needs a deep queue in total, whether one lane fills it or
/// many.
pub(crate) fn depth_of(lanes: usize) -> usize {
    let share = (BLOCKS / lanes.max(1)).saturating_sub(BLOCKS_IN_HYPER);
    share.clamp(LEAST_DEPTH, MOST_DEPTH)
}

/// The blocks of all lanes together, while there are few lanes: 20 MiB.
const BLOCKS: usize = 40;
// One block is read while the other one is sent.
const LEAST_DEPTH: usize = 2;
const MOST_DEPTH: usize = 8;

/// The blocks of a body that hyper may hold beside those read ahead: the one being sent, and the next one, which
/// hyper requests when less than 400 KiB are left.
const BLOCKS_IN_HYPER: usize = 2;

/// The reads that wait for a common submission. Each submission costs one exit of a virtual machine.
const READS_HELD_BACK: u32 = 4;

/// The completion queue's size: a power of two, at least the number of reads, and at most the kernel's
/// `IORING_MAX_CQ_ENTRIES`.
const LEAST_COMPLETIONS: usize = 64;
const MOST_COMPLETIONS: usize = 65_536;

/// The TLS records of a lane while its socket is full, rounded up.
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
