//! Sources of bytes: files and pipes, read by extent into [`Bytes`].
//!
//! A [`SourceFile`] is opened once and shared. Every worker makes its own [`AnySource`] from it, with the
//! reader that [`probe::choose`] selected and the worker's [`BufferPool`]. All sources keep one contract, and
//! `contract.rs` runs the same tests against each of them.
//!
//! Does not depend on HTTP, on chunk plans, or on the service.

mod aligned;
mod any;
pub(crate) mod budget;
mod cached_reads;
mod digest;
pub(crate) mod error;
pub(crate) mod file;
mod file_system;
pub(crate) mod mmap;
mod page_cache;
pub(crate) mod pipe;
pub(crate) mod pool;
pub(crate) mod pread;
mod prefetch;
pub mod probe;
pub(crate) mod reader;
mod reads;
pub(crate) mod sha256;
mod sigbus;
#[cfg_attr(not(feature = "uring"), path = "uring_left_out.rs")]
mod uring;

use bytes::Bytes;

pub use any::AnySource;
pub use budget::MemoryBudget;
pub(crate) use digest::{ChunkDigest, ChunkDigester};
pub use error::SourceError;
pub(crate) use error::{Change, SilentFor};
pub use file::SourceFile;
pub(crate) use file::{FileIdentity, Strictness};
pub use file_system::FileSystem;
pub(crate) use mmap::MappedRegion;
pub use page_cache::Residency;
pub(crate) use pipe::{CancelGuard, HeldChunk, PipeReader};
pub(crate) use pool::BLOCK_BYTES;
pub use pool::BufferPool;
pub use probe::{Environment, SigbusHandler};
pub use reader::{Choice, Delivery, Reader, Reason, Unavailable};
pub use sha256::{FileSha256, HashingReader, StreamSha256};
pub(crate) use uring::{RingRuntime, ring_runtime};

use crate::extent::Extent;

/// A source of bytes. A clone is cheap and stays on its thread.
pub trait Source: Clone + 'static {
    /// Returns the bytes of the extent if they are available at once, without a future and without an
    /// allocation.
    ///
    /// Returns `None` if the caller has to use [`Source::read`].
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>>;

    /// Reads exactly `extent.len()` bytes, at most [`Source::block_bytes`] at once.
    ///
    /// The memory returns to its pool when the last clone of the bytes is dropped. Reading starts with the
    /// first poll. Dropping the future returns the memory as soon as the kernel has finished the read.
    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<Self>;

    /// Returns the most bytes to read at once; [`u64::MAX`] if a chunk of any length is best read whole.
    fn block_bytes(&self) -> u64;

    /// Returns the number of reads to keep in flight now, at least one.
    fn depth(&self) -> usize;

    /// Returns `true` if bytes may turn out wrong while they are used: a map that is read in user space. The
    /// caller then has to call [`Source::check`] after use.
    fn needs_check(&self) -> bool {
        false
    }

    /// Checks that all bytes used so far were those of the source.
    ///
    /// # Errors
    /// [`SourceError::Changed`] if pages of the map were missing when they were read.
    fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }
}

/// The default number of reads in flight for one chunk; see [`BufferPool::with_depth`].
pub(crate) const DEFAULT_DEPTH: usize = 4;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod testing;
