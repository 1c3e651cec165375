//! The identity of a file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The identity of a file, to detect its replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(path: &Path) -> io::Result<FileId> {
        fs::metadata(path).map(|metadata| FileId { device: metadata.dev(), inode: metadata.ino() })
    }
}
