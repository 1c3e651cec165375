//! Why the journal cannot be used.

use std::io;
use std::path::PathBuf;

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
            _ => JournalError::Io { path, source: error.into() },
        }
    }
}

fn process(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
