//! Sources of events of folders.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The number of a watched folder. A folder that is added again has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FolderId(pub(super) i32);

/// An event of a watched folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FolderEvent {
    /// A file was created, closed after writing or renamed to this name, or a folder was.
    Arrived { folder: FolderId, name: OsString },
    /// A folder with this name was renamed. Its watch would report events with its old path.
    FolderLeft { folder: FolderId, name: OsString },
    /// The folder itself was removed or renamed, or its file system was unmounted.
    Gone { folder: FolderId },
    /// The kernel has ended the watch of the folder.
    Unwatched { folder: FolderId },
    /// Events were dropped.
    Overflow,
}

/// A reason why a folder has no watch.
#[derive(Debug)]
pub(super) enum AddError {
    /// The user has as many watches as the kernel allows.
    Limit,
    /// The folder is gone, or is no folder any more.
    Gone,
    Other(io::Error),
}

/// A source of events. Events of a folder are reported from the moment at which it was added.
pub(super) trait EventSource: Debug + Send {
    fn add(&mut self, folder: &Path) -> Result<FolderId, AddError>;

    /// Ends the watch of the folder. Events that were reported before may still be read.
    fn remove(&mut self, folder: FolderId);

    /// Appends the events that can be read without waiting, at most those of one buffer.
    fn read(&mut self, events: &mut Vec<FolderEvent>) -> io::Result<()>;

    /// Returns the descriptor that is readable when there are events.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}
