//! Bytes by extent, as [`Bytes`], wherever they come from.
//!
//! A [`SourceFile`] is opened once and shared; every worker makes its own [`AnySource`] of it, with
//! the reader that [`probe::choose`] took and the worker's [`BufferPool`]. All of them keep one
//! contract, and `contract.rs` holds every one of them to it.
//!
//! Does not know: HTTP, chunk plans, the service, who asks and why.

mod any;
pub mod budget;
mod digest;
pub mod error;
pub mod file;
mod file_system;
pub mod mmap;
mod page_cache;
pub mod pipe;
pub mod pool;
pub mod pread;
pub mod probe;
pub mod reader;
mod reads;
mod sigbus;
pub mod uring;

use bytes::Bytes;

pub use any::AnySource;
pub use budget::MemoryBudget;
pub use digest::{ChunkDigest, ChunkDigester};
pub use error::{Change, SourceError};
pub use file::{FileIdentity, SourceFile, Strictness};
pub use file_system::FileSystem;
pub use mmap::{MappedRegion, MmapSource};
pub use page_cache::Residency;
pub use pipe::{CancelGuard, HeldChunk, PipeReader};
pub use pool::{BLOCK_BYTES, BufferPool};
pub use pread::PreadSource;
pub use probe::{Environment, SigbusHandler};
pub use reader::{Choice, Delivery, Reader, Reason, Unavailable};
pub use uring::UringSource;

use crate::extent::Extent;

/// Where bytes come from. A clone is cheap and stays on its thread.
pub trait Source: Clone + 'static {
    /// The bytes of the extent when they are at hand already, without a future and without an allocation.
    ///
    /// `None` means: ask [`Source::read`].
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>>;

    /// Exactly `extent.len()` bytes, at most [`Source::block_bytes`] at once, or an error.
    ///
    /// Their memory goes back to where it came from when the last clone of them is dropped. Reading
    /// starts with the first poll. Dropping the future gives the memory back as soon as the kernel
    /// has let go of it.
    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<Self>;

    /// The bytes to ask for at once; [`u64::MAX`] when a chunk of any length is best had whole.
    fn block_bytes(&self) -> u64;

    /// The reads that are worth having in flight, at least one.
    fn depth(&self) -> usize;

    /// Whether bytes handed out may still turn out wrong while they are used: a map that is read in
    /// user space. Then [`Source::check`] has to be asked after their use.
    fn needs_check(&self) -> bool {
        false
    }

    /// Whether all bytes used so far were those of the source.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when pages went missing under somebody's eyes.
    fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Reads in flight for one chunk where nobody chose ([`BufferPool::with_depth`]).
pub const DEFAULT_DEPTH: usize = 4;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod testing;
