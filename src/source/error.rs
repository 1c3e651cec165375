//! The errors of a source.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

/// An error of a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing at the path.
    #[error("{path}: no such file")]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path leads to a directory.
    #[error("{path}: is a directory")]
    IsDirectory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path leads to a pipe, a socket or a device.
    #[error("{path}: not a regular file; send a pipe by its standard input, as `-`")]
    NotAFile {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The file exists and cannot be opened.
    #[error("{path}: cannot be opened")]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        io: io::Error,
    },
    /// The kernel failed to read.
    #[error("{path}: cannot be read at byte {offset}")]
    Read {
        /// The file, or the name of the pipe.
        path: PathBuf,
        /// The first byte that is missing.
        offset: u64,
        /// The error of the kernel.
        #[source]
        io: io::Error,
    },
    /// The disk or the network file system did not respond in time.
    #[error("{path}: no data for {after:?}")]
    Silent {
        /// The file.
        path: PathBuf,
        /// The time waited.
        after: Duration,
    },
    /// The file changed since it was opened.
    #[error("{path}: {change} since it was opened; upload it again once nothing writes to it")]
    Changed {
        /// The path as it was given.
        path: PathBuf,
        /// The change.
        change: Change,
    },
    /// The requested bytes lie past the end of the source.
    #[error("{path}: has no bytes up to {end}, it ends at {len}")]
    PastEnd {
        /// The file, or the name of the pipe.
        path: PathBuf,
        /// The end of the requested bytes, exclusive.
        end: u64,
        /// The end of the source, exclusive.
        len: u64,
    },
    /// The requested bytes do not fit into one buffer.
    #[error("{path}: {len} bytes requested at once, a block holds {block_bytes}")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The number of requested bytes.
        len: u64,
        /// The capacity of one buffer.
        block_bytes: u64,
    },
    /// A source returned another number of bytes than requested.
    #[error("{got} bytes instead of {wanted} at byte {offset} of the source")]
    WrongLength {
        /// The first requested byte.
        offset: u64,
        /// The number of requested bytes.
        wanted: u64,
        /// The number of returned bytes.
        got: u64,
    },
    /// The pipe ended before its first byte.
    #[error("{name}: empty, there is nothing to upload")]
    EmptyPipe {
        /// The name of the pipe.
        name: PathBuf,
    },
    /// The source ended before the length that the caller stated.
    #[error("{name}: ended after {found} bytes, its stated length is {stated} bytes")]
    ShorterThanStated {
        /// The file, or the name of the stream.
        name: PathBuf,
        /// The stated length in bytes.
        stated: u64,
        /// The length in bytes.
        found: u64,
    },
    /// The source has more bytes than the caller stated.
    #[error("{name}: has more bytes than its stated length of {stated} bytes")]
    LongerThanStated {
        /// The file, or the name of the stream.
        name: PathBuf,
        /// The stated length in bytes.
        stated: u64,
    },
    /// The memory budget of pipes cannot hold one chunk.
    #[error(
        "{name}: chunks of {chunk_bytes} bytes need {needed} bytes of memory, {budget_bytes} are allowed: \
         allow streams more memory or use smaller chunks"
    )]
    Budget {
        /// The name of the pipe.
        name: PathBuf,
        /// The bytes of a chunk.
        chunk_bytes: u64,
        /// The smallest budget that suffices, in bytes.
        needed: u64,
        /// The budget given, in bytes.
        budget_bytes: u64,
    },
}

/// The error of a reader that limits the wait for its source: the source gave no byte for this time. It becomes
/// [`SourceError::Silent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no data for {0:?}")]
pub(crate) struct SilentFor(pub Duration);

/// One retry of a failed read: a disk, or a file server that restarts, may fail once.
#[derive(Debug, Default)]
pub(super) struct RetryOnce {
    is_used: bool,
}

impl RetryOnce {
    /// Returns `true` if the read may be tried again after this error; at most once.
    pub(super) fn allows(&mut self, error: &io::Error) -> bool {
        let may_pass = matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::STALE));
        may_pass && !std::mem::replace(&mut self.is_used, true)
    }
}

/// A change of a file since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file became shorter; lengths in bytes.
    Truncated {
        /// The length at opening.
        from: u64,
        /// The present length.
        to: u64,
    },
    /// The file became longer; lengths in bytes.
    Grown {
        /// The length at opening.
        from: u64,
        /// The present length.
        to: u64,
    },
    /// The file was written to; its length is the same.
    Rewritten,
    /// The attributes or links changed (`ctime`). The content may have changed too, if mtime was restored.
    Touched,
    /// The path leads to another file.
    Replaced,
    /// The path leads nowhere.
    Removed,
}

impl Change {
    /// Returns `true` if the open file has the bytes that it was opened with, unless a program restored
    /// mtime.
    pub fn keeps_content(self) -> bool {
        // An open descriptor reads a removed file as before (unlink(2)); mode, owner and links are not content.
        match self {
            Change::Touched | Change::Removed => true,
            Change::Truncated { .. } | Change::Grown { .. } | Change::Rewritten | Change::Replaced => false,
        }
    }

    /// Returns a stable name for machine-readable output, such as `removed`.
    pub fn name(self) -> &'static str {
        match self {
            Change::Truncated { .. } => "truncated",
            Change::Grown { .. } => "grown",
            Change::Rewritten => "rewritten",
            Change::Touched => "touched",
            Change::Replaced => "replaced",
            Change::Removed => "removed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Truncated { from, to } => write!(f, "truncated from {from} to {to} bytes"),
            Change::Grown { from, to } => write!(f, "grown from {from} to {to} bytes"),
            Change::Rewritten => f.write_str("written to"),
            Change::Touched => f.write_str("changed in its attributes or links"),
            Change::Replaced => f.write_str("replaced by another file"),
            Change::Removed => f.write_str("removed or renamed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_may_have_failed_by_chance_is_tried_once_more() {
        let mut retry = RetryOnce::default();
        assert!(!retry.allows(&Errno::ISDIR.into()));
        assert!(retry.allows(&Errno::STALE.into()));
        assert!(!retry.allows(&Errno::IO.into()));
    }
}
