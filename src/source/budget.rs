//! Memory for the chunks of any number of pipes, granted one chunk at a time, first come first served.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The size of the blocks in which memory is granted.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Memory shared by all pipes. A clone is the same budget.
///
/// Memory is allocated when it is first needed, kept for the next chunk, and freed when no pipe holds any.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    pool: Arc<BudgetPool>,
}

#[derive(Debug)]
struct BudgetPool {
    bytes: u64,
    blocks: usize,
    /// One permit per block. The semaphore is fair: a large request is not overtaken by smaller ones.
    permits: Arc<Semaphore>,
    /// Used blocks of memory, kept for the next permit.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl MemoryBudget {
    /// Creates a budget of the whole blocks of 1 MiB that fit into `bytes`.
    pub fn new(bytes: u64) -> MemoryBudget {
        let blocks = usize::try_from(bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
        // `Semaphore::new` panics above this number.
        let blocks = blocks.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(blocks));
        MemoryBudget { pool: Arc::new(BudgetPool { bytes, blocks, permits, spare: Mutex::default() }) }
    }

    /// Returns the smallest budget, in bytes, that has room for a chunk.
    pub fn least_for(chunk_bytes: u64) -> u64 {
        chunk_bytes.next_multiple_of(BLOCK_BYTES as u64)
    }

    /// Returns the size of the budget in bytes, as given.
    pub fn bytes(&self) -> u64 {
        self.pool.bytes
    }

    /// Returns the bytes that chunks hold or have reserved.
    pub fn used_bytes(&self) -> u64 {
        let used = self.pool.blocks.saturating_sub(self.pool.permits.available_permits());
        (used * BLOCK_BYTES) as u64
    }

    /// Waits for room for a chunk, in the order of the calls. Never resolves if the total budget is smaller
    /// than the chunk.
    pub(super) async fn reserve(&self, chunk_bytes: u64) -> Option<BlockPermits> {
        let blocks = u32::try_from(chunk_bytes.div_ceil(BLOCK_BYTES as u64)).ok()?;
        // All blocks of a chunk at once: pipes that took them one by one could wait for each other for ever.
        let permit = self.pool.permits.clone().acquire_many_owned(blocks).await.ok()?;
        Some(BlockPermits { permit: Some(permit), pool: self.pool.clone() })
    }

    /// Returns memory for a block. The caller holds a permit for it.
    pub(super) fn memory(&self) -> Vec<u8> {
        let mut memory = self.pool.spare().pop().unwrap_or_default();
        // Writes zeros into new memory only: a spare block has this length.
        memory.resize(BLOCK_BYTES, 0);
        memory
    }
}

impl BudgetPool {
    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permits for a number of blocks, returned when dropped.
#[derive(Debug)]
pub(super) struct BlockPermits {
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<BudgetPool>,
}

impl BlockPermits {
    /// Splits off one permit.
    fn split_one(&mut self) -> Option<BlockPermits> {
        let permit = self.permit.as_mut()?.split(1)?;
        Some(BlockPermits { permit: Some(permit), pool: self.pool.clone() })
    }

    /// Wraps the first `len` bytes of `memory`, which hold one permit until they are dropped; `None` without
    /// a permit.
    pub(super) fn block(&mut self, memory: Vec<u8>, len: usize) -> Option<PipeBlock> {
        Some(PipeBlock { memory, len, permits: self.split_one()? })
    }
}

impl Drop for BlockPermits {
    fn drop(&mut self) {
        // Held over both steps, so that the drop that returns the last permit frees the memory.
        let mut spare = self.pool.spare();
        drop(self.permit.take());
        if self.pool.permits.available_permits() == self.pool.blocks {
            *spare = Vec::new();
        }
    }
}

/// Memory with bytes of a pipe at its start, and one permit.
#[derive(Debug)]
pub(super) struct PipeBlock {
    memory: Vec<u8>,
    len: usize,
    permits: BlockPermits,
}

impl AsRef<[u8]> for PipeBlock {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for PipeBlock {
    fn drop(&mut self) {
        // The memory returns before its permit: the fields are dropped after this function.
        self.permits.pool.spare().push(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 2 * BLOCK_BYTES as u64;

    fn spare(budget: &MemoryBudget) -> usize {
        budget.pool.spare().len()
    }

    #[test]
    fn memory_is_reused_and_freed_when_none_is_in_use() {
        let budget = MemoryBudget::new(2 * CHUNK);
        let mut permits = pollster::block_on(budget.reserve(CHUNK)).unwrap();
        let block = permits.block(budget.memory(), 5).unwrap();
        assert_eq!((block.as_ref().len(), spare(&budget)), (5, 0));
        drop(block);
        assert_eq!(spare(&budget), 1);
        let again = permits.block(budget.memory(), 1).unwrap();
        assert_eq!(spare(&budget), 0);
        assert!(permits.block(Vec::new(), 0).is_none(), "more blocks than permits");
        drop((again, permits));
        assert_eq!(spare(&budget), 0);
        assert_eq!(budget.pool.permits.available_permits(), 4);
    }

    #[test]
    fn a_chunk_that_waits_is_not_overtaken_by_smaller_ones() {
        let budget = MemoryBudget::new(CHUNK);
        let block = BLOCK_BYTES as u64;
        let first = pollster::block_on(budget.reserve(block)).unwrap();
        let mut large = Box::pin(budget.reserve(CHUNK));
        let mut small = Box::pin(budget.reserve(block));
        let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(large.as_mut().poll(cx).is_pending());
        assert!(small.as_mut().poll(cx).is_pending());
        drop(first);
        let std::task::Poll::Ready(Some(held)) = large.as_mut().poll(cx) else { panic!("not served") };
        assert!(small.as_mut().poll(cx).is_pending());
        drop(held);
        assert!(small.as_mut().poll(cx).is_ready());
    }
}
