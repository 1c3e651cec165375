//! The share of a file that the page cache holds.

use std::fs::File;
use std::os::fd::AsRawFd;

use memmap2::MmapOptions;

use super::file::SourceFile;
use crate::extent::Extent;

/// The share of a file that the page cache held when it was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// 0 to 100, rounded down; also 0 if the kernel reported nothing.
    pub percent: u8,
}

/// Returns the share of the file in the page cache: by cachestat(2), on older kernels by mincore(2).
pub(super) fn residency(file: &SourceFile) -> Residency {
    // Unknown counts as cold: `O_DIRECT` reads a cached file too, and a map of a cold file blocks the worker.
    Residency { percent: resident_percent(file.file(), file.len()).unwrap_or(0) }
}

/// Returns the percentage of the file's first `len` bytes in the page cache; `None` if the kernel does not
/// report it.
///
/// Only samples of a large file are counted, since the kernel walks over every cached page.
pub(super) fn resident_percent(file: &File, len: u64) -> Option<u8> {
    let page = rustix::param::page_size() as u64;
    // Multiples of the sample size keep every sample at a page boundary, as mincore(2) demands of its address.
    let step = len.div_ceil(SAMPLES).next_multiple_of(SAMPLE_BYTES).max(SAMPLE_BYTES);
    let (mut pages, mut cached) = (0, 0);
    for part in Extent::new(0, len).blocks(step) {
        let sample = part.take(SAMPLE_BYTES);
        pages += sample.len().div_ceil(page);
        cached += cached_pages(file, sample)?;
    }
    // An empty file has no page to wait for.
    Some((cached * 100).checked_div(pages).unwrap_or(100).min(100) as u8)
}

impl Residency {
    /// Returns `true` if most of the reading time is spent waiting for the disk.
    pub fn is_cold(self) -> bool {
        self.percent < HOT_PERCENT
    }

    /// Returns `true` if the whole file was in the page cache.
    pub fn is_fully_cached(self) -> bool {
        self.percent == 100
    }
}

/// Returns the number of the extent's pages in the page cache; `None` if neither system call works.
fn cached_pages(file: &File, extent: Extent) -> Option<u64> {
    cachestat(file, extent).or_else(|| mincore(file, extent))
}

/// Counts the cached pages by cachestat(2), since Linux 6.5.
fn cachestat(file: &File, extent: Extent) -> Option<u64> {
    let range = [extent.offset(), extent.len()];
    let mut counts = [0_u64; 5]; // Cached, dirty, under writeback, evicted, recently evicted.
    let (fd, range, counts_ptr) = (file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr());
    // SAFETY: the kernel reads a `struct cachestat_range` of two and writes a `struct cachestat` of five
    // 64-bit numbers; an older kernel returns ENOSYS.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, fd, range, counts_ptr, 0) };
    (done == 0).then_some(counts[0])
}

/// Counts the cached pages by mincore(2). The kernel reports every page as resident unless the process may
/// write the file.
fn mincore(file: &File, extent: Extent) -> Option<u64> {
    let len = extent.len() as usize;
    let map = MmapOptions::new().offset(extent.offset()).len(len).map_raw_read_only(file).ok()?;
    let mut states = vec![0_u8; len.div_ceil(rustix::param::page_size())];
    // SAFETY: `len` bytes are mapped at the address, and `states` has a byte for each of their pages.
    let done = unsafe { libc::mincore(map.as_mut_ptr().cast(), len, states.as_mut_ptr()) };
    // Only the lowest bit of each state has a meaning (mincore(2)).
    (done == 0).then(|| states.iter().filter(|state| **state & 1 == 1).count() as u64)
}

/// Below this percentage, a worker would wait for the disk too often while its other lanes stand still.
const HOT_PERCENT: u8 = 90;

/// The number of samples and the bytes in one. Files up to the product are counted whole.
///
/// The kernel takes about 30 ns for a cached page: samples of 16 MiB took 7 ms of a file of 1 GiB, as long as it takes to
/// send 40 MiB of it.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 1 << 20;

/// The same number on every architecture (include/uapi/asm-generic/unistd.h).
const SYS_CACHESTAT: libc::c_long = 451;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn temp_of(len: usize) -> tempfile::NamedTempFile {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&vec![7; len]).unwrap();
        temp
    }

    #[test]
    fn cachestat_and_mincore_agree() {
        let temp = temp_of(1 << 20);
        let pages = (1 << 20) / rustix::param::page_size() as u64;
        assert_eq!(mincore(temp.as_file(), Extent::new(0, 1 << 20)), Some(pages));
        assert!([None, Some(pages)].contains(&cachestat(temp.as_file(), Extent::new(0, 1 << 20))));
    }

    #[test]
    fn an_empty_file_is_hot() {
        let temp = temp_of(0);
        let file = SourceFile::open(temp.path()).unwrap();
        assert!(!residency(&file).is_cold());
    }

    #[test]
    fn a_huge_file_is_sampled() {
        let temp = temp_of(100 << 20);
        temp.as_file().set_len(200 << 30).unwrap();
        let percent = resident_percent(temp.as_file(), 200 << 30).unwrap();
        assert!((1..=2).contains(&percent), "{percent}");
    }
}
