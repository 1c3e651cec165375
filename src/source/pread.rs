//! Plain reads: works everywhere, always compiled, chosen at run time.
//!
//! Cached blocks are read on the worker's thread by preadv2(2) with `RWF_NOWAIT`. Other blocks are read on
//! tokio's blocking threads, as many at once as the pool has blocks.

use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use bytes::Bytes;
use rustix::fs::{Advice, fadvise};

use super::Source;
use super::cached_reads::CachedReads;
use super::error::{RetryOnce, SourceError};
use super::file::SourceFile;
use super::page_cache::Residency;
use super::pool::{BufferPool, PooledBuffer};
use super::reads::ReadTracker;
use crate::extent::Extent;

/// Blocks of a file, read without a ring. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PreadSource {
    inner: Rc<PreadInner>,
}

#[derive(Debug)]
struct PreadInner {
    file: SourceFile,
    pool: BufferPool,
    residency: Residency,
    cached_reads: CachedReads,
    reads: ReadTracker,
}

impl PreadSource {
    /// Creates the source. Blocks of a cold file are evicted from the page cache after reading, so that an
    /// upload does not displace other files.
    pub(super) fn new(file: &SourceFile, residency: Residency, pool: &BufferPool) -> PreadSource {
        if residency.is_cold() {
            // Only a hint. `Random` would stop the kernel's read-ahead, at twice the processor time.
            let _ = fadvise(file.file(), 0, None, Advice::Sequential);
        }
        let (file, pool, cached_reads) = (file.clone(), pool.clone(), CachedReads::new(!residency.is_cold()));
        let reads = ReadTracker::default();
        PreadSource { inner: Rc::new(PreadInner { file, pool, residency, cached_reads, reads }) }
    }
}

impl Source for PreadSource {
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>> {
        extent.is_empty().then(|| Ok(Bytes::new()))
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        Rc::clone(&self.inner).read(extent)
    }

    fn block_bytes(&self) -> u64 {
        self.inner.pool.block_bytes()
    }

    /// Returns 1 for a cached file: it is read on the worker's thread and best used at once, while it is in
    /// the processor's cache. Reading ahead cost a fifth more processor time over plain HTTP.
    fn depth(&self) -> usize {
        if self.inner.residency.is_cold() { self.inner.pool.depth_now() } else { 1 }
    }
}

impl PreadInner {
    async fn read(self: Rc<Self>, extent: Extent) -> Result<Bytes, SourceError> {
        self.file.check_extent(extent)?;
        self.pool.check_fits(extent, &self.file)?;
        // Before a block is taken: otherwise each retry of a chunk on a hung disk would hold one block more.
        self.reads.wait_for_abandoned().await;
        let mut buffer = self.pool.acquire().await;
        let window = &mut buffer[..extent.len() as usize];
        let rest = extent.skip(self.cached_reads.read(self.file.file(), window, extent.offset()));
        if !rest.is_empty() {
            buffer = self.read_blocking(buffer, extent, rest).await?;
        }
        Ok(buffer.into_bytes(0..extent.len() as usize))
    }

    /// Reads the rest of the extent on a blocking thread, which keeps the buffer even if the future is
    /// dropped.
    async fn read_blocking(
        &self,
        buffer: PooledBuffer,
        extent: Extent,
        rest: Extent,
    ) -> Result<PooledBuffer, SourceError> {
        let (file, residency) = (self.file.clone(), self.residency);
        let reading = self.reads.run_blocking(move || {
            let buffer = fill(&file, buffer, extent, rest)?;
            // What was cached before may be in use by another program, which would have to read it again.
            if residency.is_cold() {
                evict(&file, extent);
            }
            Ok(buffer)
        });
        reading
            .await
            .unwrap_or_else(|stopped| Err(self.file.read_error(rest.offset(), io::Error::other(stopped))))
    }
}

fn fill(
    file: &SourceFile,
    mut buffer: PooledBuffer,
    extent: Extent,
    mut rest: Extent,
) -> Result<PooledBuffer, SourceError> {
    let mut retry = RetryOnce::default();
    while !rest.is_empty() {
        let filled = (rest.offset() - extent.offset()) as usize;
        match file.file().read_at(&mut buffer[filled..extent.len() as usize], rest.offset()) {
            // The length was known at the start, so that an end before it is a truncation.
            Ok(0) => return Err(file.unexpected_end_at(rest.offset())),
            Ok(read) => rest = rest.skip(read as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted || retry.allows(&error) => {}
            Err(error) => return Err(file.read_error(rest.offset(), error)),
        }
    }
    Ok(buffer)
}

/// Evicts the extent's pages from the page cache: the bytes are in the buffer now. Only a hint.
fn evict(file: &SourceFile, extent: Extent) {
    let _ = fadvise(file.file(), extent.offset(), NonZeroU64::new(extent.len()), Advice::DontNeed);
}
