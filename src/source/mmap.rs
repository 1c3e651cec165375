//! A map of the whole file, returned in slices.
//!
//! On plain connections the map is never read: the slices identify the bytes for the kernel to send, and a
//! file truncated meanwhile is a short `sendfile`. For encryption the map is read in user space under the
//! handler in `sigbus.rs`.

use std::fs::{File, Metadata};
use std::io;
use std::rc::Rc;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use super::Source;
use super::error::SourceError;
use super::file::SourceFile;
use super::reader::{Choice, Delivery, Unavailable};
use super::reads::ReadTracker;
use super::sigbus::SigbusGuard;
use crate::extent::Extent;

/// A source of slices of a map. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MmapSource {
    inner: Rc<MmapInner>,
}

#[derive(Debug)]
struct MmapInner {
    file: SourceFile,
    whole: Bytes,
    map: Arc<FileMap>,
    may_block: bool, // A part of the file has to come from a disk.
    reads: ReadTracker,
}

/// The memory region of a mapped file, for a transport that sends the file instead of the memory.
#[derive(Clone, Debug)]
pub struct MappedRegion {
    /// The address of the file's first byte.
    pub address: usize,
    /// The length of the map in bytes.
    pub len: usize,
    /// The file that is mapped, from its byte 0.
    pub file: Arc<File>,
}

impl MmapSource {
    /// # Errors
    /// If the process may not map that much, or too many maps are read in user space already.
    pub(super) fn new(file: &SourceFile, choice: &Choice) -> Result<MmapSource, Unavailable> {
        let raw = map(file)?;
        let guard = match choice.delivery {
            Delivery::Plain => None,
            Delivery::Tls => Some(SigbusGuard::over(&raw)?),
        };
        // The length fits: the file is mapped.
        let map = Arc::new(FileMap { guard, raw, len: file.len() as usize, present: AtomicUsize::new(0) });
        let whole = Bytes::from_owner(MapBytes(Arc::clone(&map)));
        let (file, may_block) = (file.clone(), !choice.residency.is_fully_cached());
        Ok(MmapSource {
            inner: Rc::new(MmapInner { file, whole, map, may_block, reads: ReadTracker::default() }),
        })
    }

    /// Returns the memory region of the file.
    pub fn region(&self) -> MappedRegion {
        let whole = &self.inner.whole;
        let file = Arc::clone(self.inner.file.file());
        MappedRegion { address: whole.as_ptr() as usize, len: whole.len(), file }
    }

    fn is_read_in_user_space(&self) -> bool {
        self.inner.map.guard.is_some()
    }
}

impl Source for MmapSource {
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>> {
        // Memory that only the kernel reads causes no page fault here, so that nothing can block the lane.
        let must_wait = self.is_read_in_user_space() && self.inner.may_block && !extent.is_empty();
        if must_wait { None } else { Some(self.inner.cached_slice(extent)) }
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        let inner = Rc::clone(&self.inner);
        async move {
            inner.file.check_extent(extent)?;
            // Page faults that wait for the disk happen on a blocking thread, so that the worker's other
            // lanes go on.
            let map = Arc::clone(&inner.map);
            // Twice, because a disk may fail once.
            let populate = move || map.populate(extent).or_else(|_| map.populate(extent));
            let populating = inner.reads.run_blocking(populate);
            let stopped = |error| inner.file.read_error(extent.offset(), io::Error::other(error));
            let populated = populating.await.map_err(stopped)?;
            populated.map_err(|_| inner.file.missing_page_at(extent.offset()))?;
            inner.slice(extent)
        }
    }

    fn block_bytes(&self) -> u64 {
        if !self.is_read_in_user_space() {
            // `sendfile` takes a chunk of any length, and only reading here bounds the slices.
            u64::MAX
        } else if self.inner.may_block {
            READ_BLOCK_BYTES
        } else {
            CACHED_BLOCK_BYTES
        }
    }

    fn depth(&self) -> usize {
        if self.is_read_in_user_space() && self.inner.may_block { super::DEFAULT_DEPTH } else { 1 }
    }

    fn needs_check(&self) -> bool {
        self.is_read_in_user_space()
    }

    fn check(&self) -> Result<(), SourceError> {
        self.inner.map.fault().map_or(Ok(()), |at| Err(self.inner.file.missing_page_at(at)))
    }
}

impl MmapInner {
    /// Returns a slice whose pages are populated when they are first touched.
    ///
    /// `MADV_POPULATE_READ` for pages in the cache takes more processor time than the faults that it saves: it looks
    /// up every page again after the kernel has mapped sixteen at a time.
    fn cached_slice(&self, extent: Extent) -> Result<Bytes, SourceError> {
        self.file.check_extent(extent)?;
        if self.map.guard.is_some() {
            self.map.count_present(extent);
            // A file that was truncated is refused here, before the handler has to replace its pages.
            let is_shorter = |now: Metadata| now.len() < extent.end();
            if self.file.file().metadata().is_ok_and(is_shorter) {
                return Err(self.file.missing_page_at(extent.offset()));
            }
        }
        self.slice(extent)
    }

    /// Returns a slice of an extent that lies within the file.
    fn slice(&self, extent: Extent) -> Result<Bytes, SourceError> {
        // After a fault any page of the map may be a zero page of the handler.
        if let Some(at) = self.map.fault() {
            return Err(self.file.missing_page_at(at));
        }
        Ok(self.whole.slice(extent.offset() as usize..extent.end() as usize))
    }
}

/// The map itself. Unmapped when the source and the last slice are gone.
#[derive(Debug)]
struct FileMap {
    guard: Option<SigbusGuard>, // Dropped before the memory, whose addresses may be reused afterwards.
    raw: MmapRaw,
    len: usize,
    /// Bytes populated, or about to be, since the last release of pages.
    present: AtomicUsize,
}

impl FileMap {
    /// Populates the extent's pages. An error means that at least one page cannot be populated.
    fn populate(&self, extent: Extent) -> io::Result<()> {
        self.count_present(extent);
        let (offset, len) = (extent.offset() as usize, extent.len() as usize);
        match self.raw.advise_range(Advice::PopulateRead, offset, len) {
            // Before Linux 5.14 there is no MADV_POPULATE_READ; pages are populated when they are touched.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            populated => populated,
        }
    }

    /// Counts an extent that is about to be populated, and releases earlier pages if there are many.
    fn count_present(&self, extent: Extent) {
        let len = extent.len() as usize;
        // Relaxed: the count is a heuristic for releasing pages.
        if self.present.fetch_add(len, Ordering::Relaxed) >= MOST_PRESENT_BYTES {
            self.present.store(len, Ordering::Relaxed);
            self.release_pages();
        }
    }

    /// Releases the page tables of the pages read so far. Otherwise a file of 30 GiB would hold 60 MiB of
    /// page tables, and the process would be the largest candidate when memory runs out. A page still in use
    /// is populated again when touched.
    fn release_pages(&self) {
        // If the kernel declines, the page tables stay until the map is closed.
        // SAFETY: the map is of a file and read only, so that a page let go shows the file's bytes again.
        let _ = unsafe { self.raw.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// Returns the offset of the file's first byte that was missing in the map, if any was.
    fn fault(&self) -> Option<u64> {
        let address = self.guard.as_ref()?.fault()?;
        Some((address - self.raw.as_ptr() as usize) as u64)
    }
}

struct MapBytes(Arc<FileMap>);

impl AsRef<[u8]> for MapBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for reading from `as_ptr` on for as long as the `Arc` lives. What
        // other processes write to the file may show; nothing here relies on two reads being equal.
        unsafe { slice::from_raw_parts(self.0.raw.as_ptr(), self.0.len) }
    }
}

/// Checks that the process may map the file.
pub(super) fn mappable(file: &SourceFile) -> Result<(), Unavailable> {
    map(file).map(drop)
}

fn map(file: &SourceFile) -> Result<MmapRaw, Unavailable> {
    let len = usize::try_from(file.len())
        .map_err(|_| Unavailable::from_other_error(&io::ErrorKind::OutOfMemory.into()))?;
    let file: &File = file.file();
    MmapOptions::new().len(len).map_raw_read_only(file).map_err(|error| Unavailable::from_other_error(&error))
}

/// The size of a slice if the map is read in user space: small enough to notice a truncation soon.
const READ_BLOCK_BYTES: u64 = 1 << 20;

/// The same for a cached file. A slice is read twice, for its digest and for its encryption, and the second time it should
/// still be in the processor's cache.
const CACHED_BLOCK_BYTES: u64 = 256 << 10;

/// The bytes of a map with page tables, at most, apart from slices still in use.
const MOST_PRESENT_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests;
