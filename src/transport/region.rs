//! The mapped file behind slices that are to be sent.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// A mapped run of a file. On a plain connection, slices that lie inside it are sent from the file.
///
/// `addr` only recognises slices: nothing is ever read through it. While requests with such slices are on
/// their way the map must stay in place and `file` must stay the file that is mapped, or other bytes are sent.
/// `sendfile(2)` to a connection that the peer has reset raises SIGPIPE; Rust programs ignore it unless
/// they ask otherwise, a host that does not should block it on the threads that drive lanes.
#[derive(Clone, Debug)]
pub struct FileRegion {
    /// The address of the first mapped byte.
    pub addr: usize,
    /// Mapped bytes.
    pub len: usize,
    /// The file, open for reading. Its own position is neither used nor moved.
    pub file: Arc<File>,
    /// Where in the file the first mapped byte is.
    pub file_offset: u64,
}

impl FileRegion {
    pub(super) fn holds(&self, slice: &[u8]) -> bool {
        let start = slice.as_ptr().addr();
        !slice.is_empty() && start >= self.addr && start + slice.len() <= self.addr + self.len
    }

    pub(super) fn offset_of(&self, slice: &[u8]) -> u64 {
        self.file_offset + (slice.as_ptr().addr() - self.addr) as u64
    }
}

/// Why bytes of a region could not be sent.
#[derive(Debug)]
pub(super) enum FileFailure {
    Truncated { offset: u64 },
    Unreadable { offset: u64, reason: io::Error },
}
