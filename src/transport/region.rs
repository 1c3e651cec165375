//! The mapped file whose slices are sent.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// A mapped part of a file. On a plain connection, slices that lie inside it are sent from the file.
///
/// `addr` only identifies slices: nothing is read through it. While requests with such slices are in flight,
/// the map must stay in place and `file` must stay the mapped file; otherwise wrong bytes are sent.
/// `sendfile(2)` to a connection that the peer has reset raises SIGPIPE. Rust programs ignore that signal by
/// default; a program that does not should block it on the threads that run lanes.
#[derive(Clone, Debug)]
pub struct FileRegion {
    /// The address of the first mapped byte.
    pub addr: usize,
    /// The number of mapped bytes.
    pub len: usize,
    /// The file, open for reading. Its own position is neither used nor moved.
    pub file: Arc<File>,
    /// The offset of the first mapped byte in the file.
    pub file_offset: u64,
}

impl FileRegion {
    pub(super) fn holds(&self, slice: &[u8]) -> bool {
        let start = slice.as_ptr().addr();
        // An empty slice may have any address, also one inside the map.
        !slice.is_empty() && start >= self.addr && start + slice.len() <= self.addr + self.len
    }

    pub(super) fn offset_of(&self, slice: &[u8]) -> u64 {
        self.file_offset + (slice.as_ptr().addr() - self.addr) as u64
    }
}

/// The reason why bytes of a region could not be sent.
#[derive(Debug)]
pub(super) enum FileFailure {
    Truncated { offset: u64 },
    Unreadable { offset: u64, reason: io::Error },
}
