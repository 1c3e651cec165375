//! The errors of the start of a watch.

use std::io;
use std::path::PathBuf;

/// A reason why folders cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// No folder was given.
    #[error("there is no folder to watch")]
    NoFolder,
    /// The path is a file.
    #[error("{}: only folders can be watched", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder is missing or cannot be examined.
    #[error("{}: cannot be watched: {source}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// One folder is inside another.
    #[error("{}: lies inside {} or contains it; watch the outer folder only", .folder.display(), .other.display())]
    Nested {
        /// The folder.
        folder: PathBuf,
        /// The other folder.
        other: PathBuf,
    },
    /// Another watch of this queue has the folder.
    #[error(
        "{}: is watched by {} already; stop it first, or use another queue",
        .folder.display(),
        .pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The process; `None` if its id cannot be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("{}: cannot be locked: {source}", .path.display())]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The suffix of the files that mark complete files cannot be one.
    #[error("the suffix of marks must be a part of a name, such as .done")]
    DoneSuffix,
    /// The thread of the watch cannot be started.
    #[error("the watch cannot be started: {0}")]
    Thread(#[source] io::Error),
}
