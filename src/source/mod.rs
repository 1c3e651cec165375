//! Bytes by extent, as [`Bytes`], wherever they come from.
//!
//! A [`SourceFile`] is opened once and shared; every worker makes its own [`AnySource`] of it, with
//! the reader that [`probe::choose`] took and the worker's [`BufferPool`]. All of them keep one
//! contract, and `contract.rs` holds every one of them to it.
//!
//! Does not know: HTTP, chunk plans, the service, who asks and why.

pub mod budget;
mod digest;
pub mod error;
pub mod file;
mod file_system;
pub mod mmap;
pub mod pipe;
pub mod pool;
pub mod pread;
pub mod probe;
mod reads;
pub mod uring;

use bytes::Bytes;

pub use budget::MemoryBudget;
pub use digest::{ChunkDigest, ChunkDigester};
pub use error::{Change, SourceError};
pub use file::{Identity, SourceFile, Strictness};
pub use file_system::FileSystem;
pub use mmap::{MmapSource, Region};
pub use pipe::{Demand, HeldChunk, PipeReader};
pub use pool::{BLOCK_BYTES, BufferPool};
pub use pread::PreadSource;
pub use probe::{Choice, Circumstances, Declined, Delivery, Reader, Residency, Sigbus, Why};
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

/// One of the sources there are. The choice is made at run time, and all are always compiled.
#[derive(Clone, Debug)]
pub enum AnySource {
    /// io_uring, buffered or `O_DIRECT`.
    Uring(UringSource),
    /// A map of the whole file.
    Mmap(MmapSource),
    /// Plain reads.
    Pread(PreadSource),
    /// A chunk of a pipe, held until it is acknowledged.
    Held(HeldChunk),
}

impl AnySource {
    /// The source of a file that was chosen for it, or plain reads with the reason why not.
    ///
    /// The choice was made for the process; this thread may have no ring, or no place for a map.
    pub fn open(file: &SourceFile, choice: &Choice, pool: &BufferPool) -> (AnySource, Result<(), Declined>) {
        match AnySource::open_chosen(file, choice, pool) {
            Ok(source) => (source, Ok(())),
            Err(declined) => {
                (AnySource::Pread(PreadSource::new(file, choice.residency, pool)), Err(declined))
            }
        }
    }

    fn open_chosen(file: &SourceFile, choice: &Choice, pool: &BufferPool) -> Result<AnySource, Declined> {
        Ok(match choice.reader {
            Reader::Uring => AnySource::Uring(UringSource::buffered(file, choice.residency, pool)?),
            Reader::Direct => AnySource::Uring(UringSource::direct(file, pool)?),
            Reader::Mmap => AnySource::Mmap(MmapSource::new(file, choice)?),
            Reader::Auto | Reader::Pread => AnySource::Pread(PreadSource::new(file, choice.residency, pool)),
        })
    }

    /// Where the file is in memory, when it is mapped.
    pub fn region(&self) -> Option<Region> {
        match self {
            AnySource::Mmap(source) => Some(source.region()),
            AnySource::Uring(_) | AnySource::Pread(_) | AnySource::Held(_) => None,
        }
    }
}

impl Source for AnySource {
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>> {
        match self {
            AnySource::Uring(source) => source.read_now(extent),
            AnySource::Mmap(source) => source.read_now(extent),
            AnySource::Pread(source) => source.read_now(extent),
            AnySource::Held(source) => source.read_now(extent),
        }
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        let source = self.clone();
        async move {
            match source {
                AnySource::Uring(source) => source.read(extent).await,
                AnySource::Mmap(source) => source.read(extent).await,
                AnySource::Pread(source) => source.read(extent).await,
                AnySource::Held(source) => source.read(extent).await,
            }
        }
    }

    fn block_bytes(&self) -> u64 {
        match self {
            AnySource::Uring(source) => source.block_bytes(),
            AnySource::Mmap(source) => source.block_bytes(),
            AnySource::Pread(source) => source.block_bytes(),
            AnySource::Held(source) => source.block_bytes(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            AnySource::Uring(source) => source.depth(),
            AnySource::Mmap(source) => source.depth(),
            AnySource::Pread(source) => source.depth(),
            AnySource::Held(source) => source.depth(),
        }
    }

    fn needs_check(&self) -> bool {
        match self {
            AnySource::Uring(source) => source.needs_check(),
            AnySource::Mmap(source) => source.needs_check(),
            AnySource::Pread(source) => source.needs_check(),
            AnySource::Held(source) => source.needs_check(),
        }
    }

    fn check(&self) -> Result<(), SourceError> {
        match self {
            AnySource::Uring(source) => source.check(),
            AnySource::Mmap(source) => source.check(),
            AnySource::Pread(source) => source.check(),
            AnySource::Held(source) => source.check(),
        }
    }
}

/// Reads in flight for one chunk where nobody chose ([`BufferPool::reading_ahead`]).
pub const DEPTH: usize = 4;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod testing;
