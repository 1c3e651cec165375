//! A map of the whole file, handed out in slices.
//!
//! On plain connections nobody reads the map: the slices tell the kernel which bytes to send, and a
//! file truncated meanwhile is a short `sendfile`. Where the bytes are encrypted the map is read, and
//! touching a page beyond the end of the file raises SIGBUS, whose default action ends the process.
//! For such maps a handler of that signal is installed, once: it puts zero pages in the place of the
//! rest of the map and marks the map, whose source from then on gives [`SourceError::Changed`].
//! Faults outside of our maps go to the handler that was there before.

use std::fs::File;
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

/// Slices of a map. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MmapSource {
    inner: Rc<MmapInner>,
}

#[derive(Debug)]
struct MmapInner {
    file: SourceFile,
    whole: Bytes,
    map: Arc<FileMap>,
    may_block: bool, // Some of it has to come from a disk.
    reads: ReadTracker,
}

/// Where in memory a file is mapped, for an adapter that sends the file instead of the memory.
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
    /// When the process may not map that much, or too many maps are read in user space already.
    pub(super) fn new(file: &SourceFile, choice: &Choice) -> Result<MmapSource, Unavailable> {
        let raw = map(file)?;
        let guard = match choice.delivery {
            Delivery::Plain => None,
            Delivery::Tls => Some(SigbusGuard::over(&raw)?),
        };
        let map = Arc::new(FileMap { guard, raw, len: file.len() as usize, present: AtomicUsize::new(0) });
        let whole = Bytes::from_owner(MapBytes(Arc::clone(&map)));
        let (file, may_block) = (file.clone(), !choice.residency.is_fully_cached());
        Ok(MmapSource {
            inner: Rc::new(MmapInner { file, whole, map, may_block, reads: ReadTracker::default() }),
        })
    }

    /// Where the file is in memory.
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
        match self.is_read_in_user_space() && self.inner.may_block && !extent.is_empty() {
            true => None,
            false => Some(self.inner.slice(extent)),
        }
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        let inner = Rc::clone(&self.inner);
        async move {
            // What the disk takes long for happens on a blocking thread; the pages are there afterwards.
            let map = Arc::clone(&inner.map);
            let populating = inner.reads.run_blocking(move || map.populate(extent));
            let stopped = |error| inner.file.read_error(extent.offset(), io::Error::other(error));
            let _ = populating.await.map_err(stopped)?;
            inner.slice(extent)
        }
    }

    fn block_bytes(&self) -> u64 {
        match self.is_read_in_user_space() {
            true => READ_BLOCK_BYTES,
            false => u64::MAX,
        }
    }

    fn depth(&self) -> usize {
        match self.is_read_in_user_space() && self.inner.may_block {
            true => super::DEFAULT_DEPTH,
            false => 1,
        }
    }

    fn needs_check(&self) -> bool {
        self.is_read_in_user_space()
    }

    fn check(&self) -> Result<(), SourceError> {
        self.inner.map.fault().map_or(Ok(()), |at| Err(self.inner.file.missing_page_at(at)))
    }
}

impl MmapInner {
    fn slice(&self, extent: Extent) -> Result<Bytes, SourceError> {
        self.file.check_extent(extent)?;
        if let Some(at) = self.map.fault() {
            return Err(self.file.missing_page_at(at));
        }
        // Takes the faults at once, and meets the end of a truncated file without a signal; twice, as a disk may fail once.
        let is_missing = || self.map.populate(extent).is_err();
        if self.map.guard.is_some() && is_missing() && is_missing() {
            return Err(self.file.missing_page_at(extent.offset()));
        }
        Ok(self.whole.slice(extent.offset() as usize..extent.end() as usize))
    }
}

/// The map itself. Unmapped when the source and the last slice are gone.
#[derive(Debug)]
struct FileMap {
    guard: Option<SigbusGuard>, // Before the memory: afterwards the addresses may be anybody's.
    raw: MmapRaw,
    len: usize,
    /// Bytes made present since others were let go.
    present: AtomicUsize,
}

impl FileMap {
    /// Makes the extent's pages present. An error means that some of them cannot be.
    fn populate(&self, extent: Extent) -> io::Result<()> {
        let (offset, len) = (extent.offset() as usize, extent.len() as usize);
        if self.present.fetch_add(len, Ordering::Relaxed) >= MOST_PRESENT_BYTES {
            self.present.store(len, Ordering::Relaxed);
            self.release_pages();
        }
        match self.raw.advise_range(Advice::PopulateRead, offset, len) {
            // Before Linux 5.14 the pages come one by one, when they are touched.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            populated => populated,
        }
    }

    /// Gives back the page tables of what was read: a file of 30 GiB would come to hold 60 MiB of them, and
    /// count as the largest process there is when memory runs out. What is still in use comes back when touched.
    fn release_pages(&self) {
        // SAFETY: the map is of a file and read only, so that a page let go shows the file's bytes again.
        let _ = unsafe { self.raw.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// The file's byte from which on its map was found missing.
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

/// Whether the process may map the file.
pub(super) fn mappable(file: &SourceFile) -> Result<(), Unavailable> {
    map(file).map(drop)
}

fn map(file: &SourceFile) -> Result<MmapRaw, Unavailable> {
    let len = usize::try_from(file.len())
        .map_err(|_| Unavailable::from_other_error(&io::ErrorKind::OutOfMemory.into()))?;
    let file: &File = file.file();
    MmapOptions::new().len(len).map_raw_read_only(file).map_err(|error| Unavailable::from_other_error(&error))
}

/// Slices of this size are handed out where the map is read, so that a truncation is noticed soon.
const READ_BLOCK_BYTES: u64 = 1 << 20;

/// How much of a map that is read has page tables at most, give or take what is in use.
const MOST_PRESENT_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests;
