//! The identity and the version of a file.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The identity and the version of a file: another file, and a file that was written to, has another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FileStamp {
    /// The length in bytes.
    pub bytes: u64,
    /// The time of the last write in nanoseconds since 1970, negative before.
    pub modified_ns: i128,
    /// The inode's number.
    pub inode: u64,
    /// The number of the file system.
    pub device: u64,
}

impl FileStamp {
    /// Returns the stamp of the file at `path`; of the target if `path` is a symbolic link.
    ///
    /// # Errors
    /// If the file cannot be found or examined.
    pub fn of(path: &Path) -> io::Result<FileStamp> {
        path.metadata().map(|metadata| FileStamp::from(&metadata))
    }

    /// Returns the time of the last write; 1970 if the clock cannot hold it.
    pub fn modified(&self) -> SystemTime {
        let distance = Duration::from_nanos(u64::try_from(self.modified_ns.unsigned_abs()).unwrap_or(0));
        let epoch = SystemTime::UNIX_EPOCH;
        let time =
            if self.modified_ns < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
        time.unwrap_or(epoch)
    }
}

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> FileStamp {
        FileStamp {
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}
