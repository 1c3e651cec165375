//! Reads by the io_uring of the worker's thread, through the page cache or with `O_DIRECT`.
//!
//! A read owns its buffer and its descriptor until the kernel is done with both. Dropping a read's future
//! gives up only the bytes: tokio-uring keeps the owned values until the completion arrives. A driver that is
//! dropped frees them a little earlier, but waits for the completions before it frees its registered buffers,
//! and those keep the memory mapped (`registered::RegisteredBuffer`). A pool without registered buffers
//! therefore never reads by ring.
//!
//! Blocks of a cached file are read by preadv2(2) with `RWF_NOWAIT`, without the ring: the kernel copies the same bytes,
//! and the thread neither submits nor waits. The ring reads what is not cached.
//!
//! Does not depend on chunks or on the sockets that share the ring.

mod check;
mod registered;
mod runtime;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use io_uring::{cqueue, opcode, squeue, types};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use super::Source;
use super::aligned::ALIGNMENT;
use super::cached_reads::CachedReads;
use super::error::{RetryOnce, SourceError};
use super::file::SourceFile;
use super::page_cache::Residency;
use super::pool::{BufferPool, PooledBuffer};
use super::reader::Unavailable;
use super::reads::{KernelGuard, ReadTracker};
use crate::extent::Extent;

pub use check::check_ring;
#[cfg(test)]
pub(super) use runtime::start;
pub(crate) use runtime::{RingRuntime, ring_runtime};

/// A source that reads by the ring of this thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UringSource {
    inner: Rc<UringInner>,
}

#[derive(Debug)]
struct UringInner {
    file: SourceFile,
    pool: BufferPool,
    direct: Option<Arc<File>>,
    direct_works: Cell<bool>,
    ahead: ReadAhead,
    cached_reads: CachedReads,
    reads: ReadTracker,
}

/// The size and number of reads ahead of the connection.
#[derive(Clone, Copy, Debug)]
struct ReadAhead {
    block_bytes: u64,
    depth: usize,
}

impl ReadAhead {
    /// For a disk: large blocks, and as many reads as the pool allows.
    fn for_cold(pool: &BufferPool) -> ReadAhead {
        ReadAhead { block_bytes: pool.block_bytes(), depth: pool.depth() }
    }

    /// For the page cache: reads return at once, and their bytes are best used while they are in the
    /// processor's cache.
    fn for_hot(pool: &BufferPool) -> ReadAhead {
        let whole = ReadAhead::for_cold(pool);
        ReadAhead { block_bytes: HOT_BLOCK_BYTES.min(whole.block_bytes), depth: 1 }
    }
}

impl UringSource {
    /// Creates a source that reads through the page cache.
    ///
    /// # Errors
    /// If the pool belongs to no ring.
    pub(super) fn buffered(
        file: &SourceFile,
        residency: Residency,
        pool: &BufferPool,
    ) -> Result<UringSource, Unavailable> {
        let ahead = if residency.is_cold() { ReadAhead::for_cold(pool) } else { ReadAhead::for_hot(pool) };
        UringSource::new(file, pool, None, ahead, CachedReads::new(!residency.is_cold()))
    }

    /// Creates a source that bypasses the page cache, and falls back to it if the file system refuses
    /// `O_DIRECT` reads.
    ///
    /// # Errors
    /// If the pool belongs to no ring, or the file cannot be opened with `O_DIRECT`.
    pub(super) fn direct(file: &SourceFile, pool: &BufferPool) -> Result<UringSource, Unavailable> {
        let direct = file.open_direct().map_err(|error| Unavailable::from_direct_error(&error))?;
        let ahead = ReadAhead::for_cold(pool);
        UringSource::new(file, pool, Some(Arc::new(direct)), ahead, CachedReads::new(false))
    }

    fn new(
        file: &SourceFile,
        pool: &BufferPool,
        direct: Option<Arc<File>>,
        ahead: ReadAhead,
        cached_reads: CachedReads,
    ) -> Result<UringSource, Unavailable> {
        // The kernel may still write when the runtime is gone: only registered buffers keep the memory mapped then.
        pool.ring()?;
        let (file, pool, direct_works) = (file.clone(), pool.clone(), Cell::new(true));
        Ok(UringSource {
            inner: Rc::new(UringInner {
                file,
                pool,
                direct,
                direct_works,
                ahead,
                cached_reads,
                reads: ReadTracker::default(),
            }),
        })
    }
}

impl Source for UringSource {
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>> {
        extent.is_empty().then(|| Ok(Bytes::new()))
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        Rc::clone(&self.inner).read(extent)
    }

    fn block_bytes(&self) -> u64 {
        self.inner.ahead.block_bytes
    }

    fn depth(&self) -> usize {
        self.inner.ahead.depth.min(self.inner.pool.depth_now())
    }
}

impl UringInner {
    async fn read(self: Rc<Self>, extent: Extent) -> Result<Bytes, SourceError> {
        self.file.check_extent(extent)?;
        self.pool.check_fits(extent, &self.file)?;
        // Before a block is taken: otherwise each retry of a chunk on a hung disk would hold one block more.
        self.reads.wait_for_abandoned().await;
        let buffer = self.pool.acquire().await;
        match self.direct.as_ref().filter(|_| self.direct_works.get()) {
            Some(direct) => self.read_direct(direct, buffer, extent).await,
            None => self.read_buffered(buffer, extent).await,
        }
    }

    async fn read_direct(
        &self,
        direct: &Arc<File>,
        buffer: PooledBuffer,
        extent: Extent,
    ) -> Result<Bytes, SourceError> {
        // `O_DIRECT` takes whole blocks of the device only (open(2)), so the window is cut to the extent afterwards.
        let window = extent.align_out(ALIGNMENT as u64);
        let (buffer, read) = self.submit(direct, buffer, 0..window.len() as usize, window.offset()).await;
        match read {
            Ok(read) if window.take(read).end() >= extent.end() => {
                let start = (extent.offset() - window.offset()) as usize;
                return Ok(buffer.into_bytes(start..start + extent.len() as usize));
            }
            // A short read, at the end of the file or by a signal. Continuing would need an aligned offset,
            // so the page cache serves the rest.
            Ok(_) => {}
            // Some file systems open with O_DIRECT and refuse each read: not tried again for this file.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.direct_works.set(false),
            Err(error) if RetryOnce::default().allows(&error) => {}
            Err(error) => return Err(self.file.read_error(window.offset(), error)),
        }
        self.read_buffered(buffer, extent).await
    }

    async fn read_buffered(&self, mut buffer: PooledBuffer, extent: Extent) -> Result<Bytes, SourceError> {
        // A file that is mostly cached is copied at once; the ring reads the rest, or all of a cold file.
        let window = &mut buffer[..extent.len() as usize];
        let mut rest = extent.skip(self.cached_reads.read(self.file.file(), window, extent.offset()));
        let mut retry = RetryOnce::default();
        while !rest.is_empty() {
            let filled = (rest.offset() - extent.offset()) as usize;
            let range = filled..extent.len() as usize;
            let (back, read) = self.submit(self.file.file(), buffer, range, rest.offset()).await;
            buffer = back;
            match read {
                Ok(0) => return Err(self.file.unexpected_end_at(rest.offset())),
                Ok(read) => rest = rest.skip(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted || retry.allows(&error) => {}
                Err(error) => return Err(self.file.read_error(rest.offset(), error)),
            }
        }
        Ok(buffer.into_bytes(0..extent.len() as usize))
    }

    /// Submits one read at `offset` into `range` of the buffer, which the kernel owns meanwhile.
    async fn submit(
        &self,
        file: &Arc<File>,
        buffer: PooledBuffer,
        range: Range<usize>,
        offset: u64,
    ) -> ReadResult {
        let (_awaited, in_kernel) = self.reads.begin();
        let mut in_flight = InFlightRead { buffer, file: Arc::clone(file), _in_kernel: in_kernel };
        let fixed_index = self.pool.fixed_index(&in_flight.buffer);
        let entry = in_flight.entry(range, offset, fixed_index);
        UnsubmittedOneshot::new(in_flight, ReadCompletion, entry).submit().await
    }
}

/// The buffer, and the number of bytes read into it.
type ReadResult = (PooledBuffer, io::Result<u64>);

/// The buffer and the descriptor that the kernel uses until the read completes.
struct InFlightRead {
    buffer: PooledBuffer,
    file: Arc<File>,
    _in_kernel: KernelGuard,
}

impl InFlightRead {
    fn entry(&mut self, range: Range<usize>, offset: u64, fixed_index: Option<u16>) -> squeue::Entry {
        let fd = types::Fd(self.file.as_raw_fd());
        let window = &mut self.buffer[range];
        let (ptr, len) = (window.as_mut_ptr(), window.len() as u32);
        match fixed_index {
            Some(index) => opcode::ReadFixed::new(fd, ptr, len, index).offset(offset).build(),
            None => opcode::Read::new(fd, ptr, len).offset(offset).build(),
        }
    }
}

struct ReadCompletion;

impl OneshotOutputTransform for ReadCompletion {
    type Output = ReadResult;
    type StoredData = InFlightRead;

    fn transform_oneshot_output(self, in_flight: InFlightRead, entry: cqueue::Entry) -> ReadResult {
        // In place of a number of bytes a failed read has the negated errno (io_uring(7)).
        let read = u64::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        (in_flight.buffer, read)
    }
}

/// The block size for cached files.
const HOT_BLOCK_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::source::testing::{self, Fixture, Kind};

    #[test]
    fn a_cached_block_is_read_without_the_ring() {
        testing::with(Kind::Uring, 300_000, |Fixture { source, content, file, .. }| async move {
            let is_supported = CachedReads::new(true).read(&file, &mut [0; 10], 0) == 10;
            let read = source.read(Extent::new(100_000, 200_000)).now_or_never();
            assert_eq!(read.is_some(), is_supported);
            assert!(read.is_none_or(|bytes| bytes.unwrap() == content[100_000..]));
        });
    }
}
