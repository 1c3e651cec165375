//! Why the journal cannot be used.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// Why the journal cannot be used. What was in it is still in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file is something else.
    #[error("{path} is no ringlift journal: name another file with --journal", path = path.display())]
    Foreign {
        /// The journal.
        path: PathBuf,
    },
    /// A later version made it.
    #[error(
        "{path} was made by a newer ringlift (format {found}, this one reads {known}): \
         update ringlift, or name another file with --journal",
        path = path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format of this version.
        known: i64,
    },
    /// An earlier version made it, and this one cannot read it.
    #[error(
        "{path} was made by an older ringlift (format {found}, this one reads {known}): \
         finish its uploads with that version, or name another file with --journal",
        path = path.display()
    )]
    Older {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format of this version.
        known: i64,
    },
    /// Its content contradicts itself.
    #[error(
        "{path} is damaged: move it away to begin a new one, and look for unfinished videos with \
         `ringlift video list`",
        path = path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
    },
    /// The file, or the folder that it is in, cannot be written.
    #[error("{path} cannot be written: check its permissions, or name another file with --journal", path = path.display())]
    NotWritable {
        /// The journal.
        path: PathBuf,
        /// What the system or the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No room for another entry.
    #[error("no space is left for {path}: make room, or name a file on another disk with --journal", path = path.display())]
    Full {
        /// The journal.
        path: PathBuf,
    },
    /// The lock file of an upload cannot be opened.
    #[error(
        "{path}, the lock file of this upload, cannot be opened, as a run by another user leaves it: \
         remove it when no such run is under way, or name another file with --journal",
        path = path.display()
    )]
    OutOfReach {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system cannot share memory between processes, which a write-ahead log needs.
    #[error(
        "{path} is on a file system that cannot share memory between processes: \
         name a file on another disk with --journal",
        path = path.display()
    )]
    NoSharedMemory {
        /// The journal.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system cannot lock files.
    #[error(
        "{path} is on a file system that cannot lock files: name a file on another disk with --journal",
        path = path.display()
    )]
    NoLocks {
        /// The journal, or a lock file of it.
        path: PathBuf,
        /// What the system or the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was removed or replaced while it was open.
    #[error(
        "{path} was removed or replaced while it was in use, so that what is written down is lost: \
         run the command again",
        path = path.display()
    )]
    Replaced {
        /// The journal.
        path: PathBuf,
    },
    /// Other processes held the whole file for too long.
    #[error("{path} was locked by another process for 10 seconds: try again", path = path.display())]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// Another process is at this session.
    #[error("{} is at work on this session of {path}", process(pid), path = path.display())]
    Claimed {
        /// The journal.
        path: PathBuf,
        /// The process, if it could be told.
        pid: Option<u32>,
    },
    /// The session was removed from the journal while it was under way.
    #[error("{path} no longer has this session: somebody removed it", path = path.display())]
    Forgotten {
        /// The journal.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{path} could not be read or written", path = path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system or the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl JournalError {
    pub(super) fn io(path: &std::path::Path, error: io::Error) -> JournalError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                JournalError::NotWritable { path, source: error.into() }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full { path },
            _ if cannot_lock(&error) => JournalError::NoLocks { path, source: error.into() },
            _ => JournalError::Io { path, source: error.into() },
        }
    }

    /// The same about a lock file.
    pub(super) fn lock(path: &std::path::Path, error: io::Error) -> JournalError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                JournalError::OutOfReach { path: path.to_owned(), source: error }
            }
            _ => JournalError::io(path, error),
        }
    }
}

/// flock(2) and fcntl(2) on network file systems without a lock service.
fn cannot_lock(error: &io::Error) -> bool {
    let refusals = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS];
    refusals.map(Errno::raw_os_error).into_iter().any(|errno| error.raw_os_error() == Some(errno))
}

fn process(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
