//! The memory blocks that one worker reads into: a bounded number, aligned, reused.
//!
//! A buffer may be returned by any thread: a cancelled read may still run in a ring or on a blocking thread,
//! which keep the buffer until the read is done.

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::DEFAULT_DEPTH;
use super::aligned::{ALIGNMENT, Arena, Block};
use super::error::SourceError;
use super::file::SourceFile;
use super::reader::Unavailable;
use crate::extent::Extent;

/// The default block size. Between 256 KiB and 1 MiB no difference was measured.
pub(crate) const BLOCK_BYTES: u64 = 512 << 10;

/// A bounded number of blocks for the sources of one worker. Cheap to clone, bound to its thread.
#[derive(Clone, Debug)]
pub struct BufferPool {
    inner: Rc<PoolInner>,
    depth: usize,
}

#[derive(Debug)]
struct PoolInner {
    arena: Arc<Arena>,
    permits: Arc<Semaphore>,
    count: usize,
    block_bytes: u64,
    ring: Result<usize, Unavailable>,
}

/// One block, returned to the pool when it is dropped, or with the last clone of its bytes.
#[derive(Debug)]
pub(crate) struct PooledBuffer {
    block: Block, // Dropped before its permit: the next waiter must find the block free.
    _permit: OwnedSemaphorePermit,
}

impl BufferPool {
    /// Creates `count` blocks of `block_bytes`, rounded up to whole pages, for a thread without a ring. The
    /// kernel allocates a page when it is first written.
    ///
    /// # Errors
    /// If the process may not have that much address space.
    ///
    /// # Panics
    /// If either number is zero.
    pub fn new(count: usize, block_bytes: u64) -> io::Result<BufferPool> {
        BufferPool::with_ring(count, block_bytes, |_| Err(Unavailable::NoRing))
    }

    /// Creates the pool of a thread with a ring, in which `register` registers blocks.
    pub(super) fn with_ring(
        count: usize,
        block_bytes: u64,
        register: impl FnOnce(&Arc<Arena>) -> Result<usize, Unavailable>,
    ) -> io::Result<BufferPool> {
        assert!(count > 0 && block_bytes > 0, "a pool has at least one block of at least one byte");
        let block_bytes = block_bytes.next_multiple_of(ALIGNMENT as u64);
        // One page more: `O_DIRECT` reads whole pages, and an extent may start and end within one.
        let block_len = usize::try_from(block_bytes).map_err(|_| io::ErrorKind::OutOfMemory)? + ALIGNMENT;
        let arena = Arena::new(count, block_len)?;
        let ring = register(&arena);
        let permits = Arc::new(Semaphore::new(count));
        let inner = Rc::new(PoolInner { arena, permits, count, block_bytes, ring });
        Ok(BufferPool { inner, depth: DEFAULT_DEPTH.min(count) })
    }

    /// Returns the pool with `depth` reads in flight for a chunk, limited to the number of blocks.
    pub fn with_depth(self, depth: usize) -> BufferPool {
        BufferPool { depth: depth.clamp(1, self.inner.count), ..self }
    }

    /// Returns the number of reads to keep in flight for a chunk.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the number of reads to keep in flight for a chunk now: one while every block is in use. A chunk that waits
    /// for its first block would otherwise wait behind all that the others read ahead.
    pub(super) fn depth_now(&self) -> usize {
        if self.inner.permits.available_permits() > 0 { self.depth } else { 1 }
    }

    /// Returns the bytes that fit into a block at any offset of the file.
    pub fn block_bytes(&self) -> u64 {
        self.inner.block_bytes
    }

    /// Returns the number of blocks.
    pub fn count(&self) -> usize {
        self.inner.count
    }

    /// Returns the number of free blocks.
    pub fn free(&self) -> usize {
        self.inner.arena.free_blocks()
    }

    /// Returns the number of blocks registered with the ring of this thread, or the reason why there is no
    /// ring.
    pub fn ring(&self) -> Result<usize, Unavailable> {
        self.inner.ring.clone()
    }

    /// Checks that the extent fits into a block.
    pub(super) fn check_fits(&self, extent: Extent, file: &SourceFile) -> Result<(), SourceError> {
        let (len, block_bytes) = (extent.len(), self.block_bytes());
        if len > block_bytes {
            return Err(SourceError::TooLong { path: file.path().into(), len, block_bytes });
        }
        Ok(())
    }

    /// Waits for a free block, first come first served. Dropping the future leaves the queue.
    pub(crate) async fn acquire(&self) -> PooledBuffer {
        let permit =
            Arc::clone(&self.inner.permits).acquire_owned().await.expect("the semaphore is never closed");
        let block = self.inner.arena.take().expect("a permit is given back after its block");
        PooledBuffer { block, _permit: permit }
    }
}

#[cfg(feature = "uring")]
impl BufferPool {
    /// Returns the buffer's index among the fixed buffers of the ring; `None` if it is not registered.
    pub(super) fn fixed_index(&self, buffer: &PooledBuffer) -> Option<u16> {
        let index = buffer.block.index();
        // The cast is exact: a ring registers far fewer buffers than 65,536.
        self.inner.ring.as_ref().is_ok_and(|registered| index < *registered).then_some(index as u16)
    }
}

impl PooledBuffer {
    /// Converts the buffer to the bytes of `range`, without those that an earlier read left in the block.
    pub(crate) fn into_bytes(self, range: Range<usize>) -> Bytes {
        Bytes::from_owner(Filled { buffer: self, range })
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block
    }
}

struct Filled {
    buffer: PooledBuffer,
    range: Range<usize>,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_block_comes_back_with_the_last_clone_of_its_bytes() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let mut buffer = block_on(pool.acquire());
        buffer[..3].copy_from_slice(b"abc");
        let bytes = buffer.into_bytes(1..3);
        let clone = bytes.slice(1..);
        drop(bytes);
        assert_eq!((pool.free(), &clone[..]), (0, &b"c"[..]));
        drop(clone);
        assert_eq!(pool.free(), 1);
    }

    #[test]
    fn blocks_are_granted_first_come_first_served() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let held = block_on(pool.acquire());
        let mut first = Box::pin(pool.acquire());
        let mut second = Box::pin(pool.acquire());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(held);
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_some());
        assert!((&mut second).now_or_never().is_some());
    }

    #[test]
    fn a_cancelled_waiter_leaves_the_queue() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let held = block_on(pool.acquire());
        let mut first = Box::pin(pool.acquire());
        let mut second = Box::pin(pool.acquire());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop((first, held));
        assert!((&mut second).now_or_never().is_some());
    }

    #[test]
    fn a_pool_is_registered_with_a_ring_or_reports_that_there_is_none() {
        assert_eq!(BufferPool::new(2, 4096).unwrap().ring(), Err(Unavailable::NoRing));
        crate::source::uring::start(async {
            let pool = BufferPool::in_ring(2, 4096).unwrap();
            assert_eq!(pool.ring(), Ok(2));
        });
    }
}
