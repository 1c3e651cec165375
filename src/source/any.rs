//! The source of a file or a pipe, chosen at run time.

use bytes::Bytes;

use super::Source;
use super::error::SourceError;
use super::file::SourceFile;
use super::mmap::{MappedRegion, MmapSource};
use super::pipe::HeldChunk;
use super::pool::BufferPool;
use super::pread::PreadSource;
use super::reader::{Choice, Reader, Unavailable};
use super::uring::UringSource;
use crate::extent::Extent;

/// Any of the sources. The choice is made at run time, and all of them are compiled, but for [`AnySource::Uring`] without the feature `uring`.
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
    /// Opens the source that was chosen for the file. If it is unavailable, opens plain reads and returns the
    /// reason.
    ///
    /// The choice was made for the process; this thread may have no ring, or no free slot for a map.
    pub fn open(
        file: &SourceFile,
        choice: &Choice,
        pool: &BufferPool,
    ) -> (AnySource, Result<(), Unavailable>) {
        match AnySource::open_chosen(file, choice, pool) {
            Ok(source) => (source, Ok(())),
            Err(declined) => {
                (AnySource::Pread(PreadSource::new(file, choice.residency, pool)), Err(declined))
            }
        }
    }

    fn open_chosen(file: &SourceFile, choice: &Choice, pool: &BufferPool) -> Result<AnySource, Unavailable> {
        Ok(match choice.reader {
            Reader::Uring => AnySource::Uring(UringSource::buffered(file, choice.residency, pool)?),
            Reader::Direct => AnySource::Uring(UringSource::direct(file, pool)?),
            Reader::Mmap => AnySource::Mmap(MmapSource::new(file, choice)?),
            Reader::Auto | Reader::Pread => AnySource::Pread(PreadSource::new(file, choice.residency, pool)),
        })
    }

    /// Returns the memory region of the file if the file is mapped.
    pub fn region(&self) -> Option<MappedRegion> {
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
