//! Blocks of memory as the fixed buffers of a ring.

use std::io;
use std::sync::Arc;

use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::buf::{IoBuf, IoBufMut};

use crate::source::aligned::Arena;
use crate::source::pool::BufferPool;
use crate::source::reader::Unavailable;

impl BufferPool {
    /// Creates the pool and registers it with the ring of this thread (io_uring_register(2),
    /// `IORING_REGISTER_BUFFERS`). One pool per ring.
    ///
    /// Registered memory counts against `RLIMIT_MEMLOCK`. If the limit is too low, half as many blocks are
    /// registered, down to one, and the other blocks are used unregistered. If not even one can be
    /// registered, the pool has no ring; see [`BufferPool::ring`].
    ///
    /// # Errors
    /// When the process may not have that much address space.
    ///
    /// # Panics
    /// Outside `tokio_uring`, or when either number is zero.
    pub fn in_ring(count: usize, block_bytes: u64) -> io::Result<BufferPool> {
        BufferPool::with_ring(count, block_bytes, register)
    }
}

/// Registers the blocks of the arena with the ring of this thread, as many as the limit on locked memory allows.
/// Returns their number; the low indexes are registered.
///
/// # Errors
/// If not a single block can be registered.
///
/// # Panics
/// Outside `tokio_uring`.
fn register(arena: &Arc<Arena>) -> Result<usize, Unavailable> {
    let mut count = arena.free_blocks().min(MAX_REGISTERED);
    loop {
        let buffers = (0..count).map(|index| RegisteredBuffer { arena: Arc::clone(arena), index });
        match FixedBufRegistry::new(buffers).register() {
            Ok(()) => return Ok(count),
            Err(error) if count == 1 => return Err(Unavailable::from_registration_error(&error)),
            // The limit on locked memory is not known exactly, so the number is found by halving.
            Err(_) => count /= 2,
        }
    }
}

/// Registers a block with a ring and keeps the arena mapped; accesses no memory.
#[derive(Debug)]
struct RegisteredBuffer {
    arena: Arc<Arena>,
    index: usize,
}

// SAFETY: the arena's map never moves, `arena` keeps it mapped, and all of its bytes are initialised.
unsafe impl IoBuf for RegisteredBuffer {
    fn stable_ptr(&self) -> *const u8 {
        self.arena.block_ptr(self.index)
    }

    fn bytes_init(&self) -> usize {
        self.arena.block_len()
    }

    fn bytes_total(&self) -> usize {
        self.arena.block_len()
    }
}

// SAFETY: as for `IoBuf`. Nothing checks an anchor's buffer out, so no two writers come to be.
unsafe impl IoBufMut for RegisteredBuffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.arena.block_ptr(self.index)
    }

    // Anonymous pages are zeroed, so that every byte counts as initialised from the start.
    unsafe fn set_init(&mut self, _: usize) {}
}

/// The most buffers that tokio-uring registers (`UIO_MAXIOV`); it drops the rest without an error.
const MAX_REGISTERED: usize = 1024;
