//! Errors of the journal.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of the journal. Its content is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file is not a journal.
    #[error("{path} is not a ringlift journal", path = path.display())]
    Foreign {
        /// The journal.
        path: PathBuf,
    },
    /// A newer version made the journal.
    #[error(
        "{path} was made by a newer ringlift (format {found}, this one reads {known})",
        path = path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The format of the file.
        found: i64,
        /// The format of this version.
        known: i64,
    },
    /// An older version made the journal, and this version cannot read it.
    #[error(
        "{path} was made by an older ringlift (format {found}, this one reads {known})",
        path = path.display()
    )]
    Older {
        /// The journal.
        path: PathBuf,
        /// The format of the file.
        found: i64,
        /// The format of this version.
        known: i64,
    },
    /// The content is inconsistent.
    #[error("{path} is damaged", path = path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
    },
    /// The file, or the folder that it is in, cannot be written.
    #[error("{path} cannot be written", path = path.display())]
    NotWritable {
        /// The journal.
        path: PathBuf,
        /// The error of the system or the database.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system has no room for another entry.
    #[error("no space is left for {path}", path = path.display())]
    Full {
        /// The journal.
        path: PathBuf,
    },
    /// The lock file of an upload cannot be opened.
    #[error("{path}, the lock file of this upload, cannot be opened: it belongs to another user", path = path.display())]
    OutOfReach {
        /// The lock file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The file system cannot share memory between processes, which a write-ahead log needs.
    #[error("{path} is on a file system that cannot share memory between processes", path = path.display())]
    NoSharedMemory {
        /// The journal.
        path: PathBuf,
        /// The error of the database.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system cannot lock files.
    #[error("{path} is on a file system that cannot lock files", path = path.display())]
    NoLocks {
        /// The journal, or one of its lock files.
        path: PathBuf,
        /// The error of the system or the database.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was removed or replaced while it was open.
    #[error("{path} was removed or replaced while it was in use, so that its entries are lost", path = path.display())]
    Replaced {
        /// The journal.
        path: PathBuf,
    },
    /// Other processes locked the whole file for too long. Temporary.
    #[error(
        "{path} was locked by another process for {seconds} seconds",
        path = path.display(),
        seconds = BUSY_TIMEOUT.as_secs()
    )]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// Another process has claimed this session.
    #[error("{} is at work on this session of {path}", process(pid), path = path.display())]
    Claimed {
        /// The journal.
        path: PathBuf,
        /// The id of that process; `None` if the lock file does not name it.
        pid: Option<u32>,
    },
    /// The session was removed from the journal while it was under way.
    #[error("{path} no longer has this session: another process removed it", path = path.display())]
    Forgotten {
        /// The journal.
        path: PathBuf,
    },
    /// The program was built without the feature `journal`.
    #[error("{path} cannot be used: this program was built without a journal", path = path.display())]
    LeftOut {
        /// The journal.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{path} could not be read or written", path = path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// The error of the system or the database.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The time to wait for other processes, each of which locks a database for milliseconds.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

fn process(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
