//! Reads from the page cache that never wait for a disk.

use std::cell::Cell;
use std::fs::File;
use std::io::IoSliceMut;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Reads of one file by preadv2(2) with `RWF_NOWAIT`, until the file system refuses one.
#[derive(Debug)]
pub(super) struct CachedReads {
    works: Cell<bool>,
}

impl CachedReads {
    /// Creates the state. No read is tried unless `is_cached`: most of the file is in the page cache.
    pub(super) fn new(is_cached: bool) -> CachedReads {
        CachedReads { works: Cell::new(is_cached) }
    }

    /// Reads the cached bytes from `offset` on into the start of `buffer`, and returns their number. The caller reads
    /// the rest in another way, which also reports errors.
    pub(super) fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> u64 {
        if !self.works.get() {
            return 0;
        }
        match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            // 0 at the end of a truncated file, for which the other read finds the reason.
            Ok(read) => read as u64,
            // Not in the page cache, or interrupted by a signal.
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // The file system does not support RWF_NOWAIT, or the other read will meet the same error.
            Err(_) => {
                self.works.set(false);
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_is_not_cached_is_left_to_the_other_read() {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&[7; 100]).unwrap();
        assert_eq!(CachedReads::new(false).read(temp.as_file(), &mut [0; 10], 0), 0);
    }

    #[test]
    fn bytes_are_those_at_the_offset_up_to_the_end_of_the_file() {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&[[7; 100], [8; 100]].concat()).unwrap();
        let (reads, mut buffer) = (CachedReads::new(true), [0; 300]);
        let read = reads.read(temp.as_file(), &mut buffer, 50) as usize;
        // Some file systems have no RWF_NOWAIT.
        assert!(read == 150 || !reads.works.get());
        assert!(buffer[..read].iter().eq([[7; 50].as_slice(), &[8; 100]].concat().iter().take(read)));
    }

    #[test]
    fn an_error_stops_further_attempts() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let write_only = File::options().write(true).open(temp.path()).unwrap();
        let reads = CachedReads::new(true);
        assert_eq!(reads.read(&write_only, &mut [0; 10], 0), 0);
        assert!(!reads.works.get());
    }
}
