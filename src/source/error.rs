//! Why bytes could not be had from a source.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

/// Why a source did not give the bytes it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing at the path.
    #[error("{path}: no such file")]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path leads to a directory.
    #[error("{path}: is a directory; name the files in it")]
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
    /// The file is there and may not be opened.
    #[error("{path}: cannot be opened")]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the kernel said.
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
        /// What the kernel said.
        #[source]
        io: io::Error,
    },
    /// The disk, or the network file system, has not answered.
    #[error("{path}: gave nothing for {after:?}")]
    Silent {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The file is not what it was when it was opened.
    #[error("{path}: {change} since it was opened; upload it again once nothing writes to it")]
    Changed {
        /// The path as it was given.
        path: PathBuf,
        /// What is different.
        change: Change,
    },
    /// Somebody asked for bytes that the source does not have.
    #[error("{path}: has no bytes up to {end}, it ends at {len}")]
    PastEnd {
        /// The file, or the name of the pipe.
        path: PathBuf,
        /// One past the last byte asked for.
        end: u64,
        /// One past the last byte there is.
        len: u64,
    },
    /// Somebody asked for more bytes at once than a buffer holds.
    #[error("{path}: {len} bytes asked for at once, a block holds {block_bytes}")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bytes asked for.
        len: u64,
        /// The bytes one buffer holds.
        block_bytes: u64,
    },
    /// A source gave another number of bytes than it was asked for.
    #[error("{got} bytes instead of {wanted} at byte {offset} of the source")]
    WrongLength {
        /// The first byte asked for.
        offset: u64,
        /// The bytes asked for.
        wanted: u64,
        /// The bytes given.
        got: u64,
    },
    /// The pipe ended before its first byte.
    #[error("{name}: empty, there is nothing to upload")]
    EmptyPipe {
        /// The name of the pipe.
        name: PathBuf,
    },
    /// The memory allowed to pipes cannot hold one chunk.
    #[error(
        "{name}: chunks of {chunk_bytes} bytes need {needed} bytes of memory, {budget_bytes} are allowed: \
         raise --max-buffer-memory or lower --chunk-size"
    )]
    Budget {
        /// The name of the pipe.
        name: PathBuf,
        /// The bytes of a chunk.
        chunk_bytes: u64,
        /// The least budget that will do, in bytes.
        needed: u64,
        /// The budget given, in bytes.
        budget_bytes: u64,
    },
}

/// The one more try that a failing read is worth: a disk, or a file server that comes back, may fail once.
#[derive(Debug, Default)]
pub(super) struct RetryOnce {
    is_used: bool,
}

impl RetryOnce {
    /// Returns `true` when the read is to be tried again after this error; once at most.
    pub(super) fn allows(&mut self, error: &io::Error) -> bool {
        let may_pass = matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::STALE));
        may_pass && !std::mem::replace(&mut self.is_used, true)
    }
}

/// How a file differs from what it was when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It became shorter; lengths in bytes.
    Truncated {
        /// At opening.
        from: u64,
        /// Now.
        to: u64,
    },
    /// It became longer; lengths in bytes.
    Grown {
        /// At opening.
        from: u64,
        /// Now.
        to: u64,
    },
    /// Somebody wrote to it, its length is the same.
    Rewritten,
    /// Its attributes or links changed (`ctime`); its content may have, with `mtime` put back.
    Touched,
    /// The path leads to another file.
    Replaced,
    /// The path leads nowhere.
    Removed,
}

impl Change {
    /// Returns `true` when the open file has the bytes that it was opened with, unless a program put mtime back.
    pub fn keeps_content(self) -> bool {
        match self {
            Change::Touched | Change::Removed => true,
            Change::Truncated { .. } | Change::Grown { .. } | Change::Rewritten | Change::Replaced => false,
        }
    }

    /// A stable name, for machine-readable output: `removed`.
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
