//! The attributes by which a file is found unchanged.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::bulk::file_stamp::FileStamp;

/// The attributes that are compared between two looks at a file.
///
/// Not the inode number: file systems in user space may change it at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) bytes: u64,
    pub(super) modified_ns: i128,
    /// Also changes when a program restores the time of the last write, as copying programs do.
    pub(super) changed_ns: i128,
}

impl From<&Metadata> for Version {
    fn from(metadata: &Metadata) -> Version {
        let FileStamp { bytes, modified_ns, .. } = FileStamp::from(metadata);
        let changed_ns = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        Version { bytes, modified_ns, changed_ns }
    }
}
