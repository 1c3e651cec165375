//! Aligned memory in equal blocks that the kernel may write into while it owns them.
//!
//! One anonymous map, whose pages are allocated when first written. A [`Block`] is the only handle to its
//! memory. Buffers registered with a ring keep the memory alive until that ring is closed.

use std::io;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapRaw};

/// The alignment of blocks, and of `O_DIRECT` reads in the file, in bytes.
pub(crate) const ALIGNMENT: usize = 4096;

/// Memory for equal blocks, and the list of free ones.
#[derive(Debug)]
pub(crate) struct Arena {
    map: MmapRaw,
    block_len: usize,
    free: Mutex<Vec<usize>>,
}

impl Arena {
    /// Maps memory for `count` blocks of `block_len` bytes, a multiple of [`ALIGNMENT`]. No page is touched
    /// yet.
    ///
    /// # Errors
    /// If the process may not have that much address space.
    pub(crate) fn new(count: usize, block_len: usize) -> io::Result<Arc<Arena>> {
        // A product that wraps would map less memory than the blocks reach into.
        let bytes = count.checked_mul(block_len).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes)?.into();
        // Taken from the end: the low indices, which a ring registers first, are used first.
        Ok(Arc::new(Arena { map, block_len, free: Mutex::new((0..count).rev().collect()) }))
    }

    /// Takes the block returned last, whose memory is most likely still in a cache; `None` if all are in use.
    pub(crate) fn take(self: &Arc<Arena>) -> Option<Block> {
        let index = self.free().pop()?;
        Some(Block { arena: Arc::clone(self), index })
    }

    /// Returns the length of every block in bytes.
    pub(super) fn block_len(&self) -> usize {
        self.block_len
    }

    pub(crate) fn free_blocks(&self) -> usize {
        self.free().len()
    }

    /// Returns the address of the block at `index`.
    pub(super) fn block_ptr(&self, index: usize) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(index * self.block_len)
    }

    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        // A block that is dropped by a panic takes this lock too: a second panic there would end the process.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One block of memory with a single owner. Returned to its arena on drop, from any thread.
#[derive(Debug)]
pub(crate) struct Block {
    arena: Arc<Arena>,
    index: usize,
}

impl Block {
    /// Returns the index in the arena and among a ring's fixed buffers.
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.free().push(self.index());
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let ptr = self.arena.block_ptr(self.index);
        // SAFETY: `index` is below the arena's count, so `block_len` mapped and zeroed bytes start at `ptr`,
        // and `take` gave this index to no other block. A kernel writes only while it owns the whole `Block`.
        unsafe { slice::from_raw_parts(ptr, self.arena.block_len()) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        let ptr = self.arena.block_ptr(self.index);
        // SAFETY: as in `deref`, and `&mut self` is the only way to these bytes.
        unsafe { slice::from_raw_parts_mut(ptr, self.arena.block_len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart_and_come_back() {
        let arena = Arena::new(3, 2 * ALIGNMENT).unwrap();
        let mut blocks: Vec<Block> = (0..3).map_while(|_| arena.take()).collect();
        assert!(arena.take().is_none());
        for (fill, block) in (1..).zip(&mut blocks) {
            assert_eq!(block.as_ptr() as usize % ALIGNMENT, 0);
            block.fill(fill);
        }
        for (fill, block) in (1..).zip(&blocks) {
            assert!(block.iter().all(|byte| *byte == fill) && block.len() == 2 * ALIGNMENT);
        }
        let third = blocks.pop().unwrap().index();
        assert_eq!(arena.take().unwrap().index(), third);
    }

    #[test]
    fn a_block_may_come_back_from_another_thread() {
        let arena = Arena::new(1, ALIGNMENT).unwrap();
        let block = arena.take().unwrap();
        std::thread::spawn(move || drop(block)).join().unwrap();
        assert_eq!(arena.free_blocks(), 1);
    }

    #[test]
    fn a_block_outlives_the_last_handle_to_its_arena() {
        let mut block = Arena::new(2, ALIGNMENT).unwrap().take().unwrap();
        block.fill(7);
        assert!(block.iter().all(|byte| *byte == 7));
    }
}
