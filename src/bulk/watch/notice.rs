//! The notices of a watch: events that an operator should know of.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

/// An event of a watch that is no file. The watch goes on after each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchNotice {
    /// A watched folder was removed, renamed, unmounted or replaced, or cannot be examined.
    FolderGone {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is there again, and is scanned.
    FolderBack {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is scanned at short intervals, because events are missing for all of it or for a part.
    Polling {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        reason: PollReason,
    },
    /// Events report all changes of the folder again.
    Watching {
        /// The folder.
        folder: PathBuf,
    },
    /// The kernel dropped events. All folders are scanned.
    EventsLost,
    /// A process has had the file open for writing for this time. The file is not returned before it is closed.
    StillOpen {
        /// The file.
        path: PathBuf,
        /// The time since the watch first found it open.
        open_for: Duration,
    },
    /// A file or a folder cannot be read. It is tried again with the next scan, and reported once.
    Unreadable {
        /// The message, which names the file.
        message: String,
    },
    /// Notices were dropped, because no reader took them.
    NoticesDropped {
        /// The number of notices.
        count: u64,
    },
}

/// A reason why a folder is scanned at short intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PollReason {
    /// The file system, or one mounted inside the folder, does not report changes that other machines make.
    FileSystem {
        /// The type as statfs(2) returns it.
        magic: u32,
    },
    /// The user has as many watches as `fs.inotify.max_user_watches` allows.
    WatchLimit,
    /// There is no inotify instance, for example because the user has as many as `fs.inotify.max_user_instances` allows.
    NoInotify,
}

impl WatchNotice {
    /// Returns a name that never changes, for machines.
    pub fn name(&self) -> &'static str {
        match self {
            WatchNotice::FolderGone { .. } => "folder_gone",
            WatchNotice::FolderBack { .. } => "folder_back",
            WatchNotice::Polling { .. } => "polling",
            WatchNotice::Watching { .. } => "watching",
            WatchNotice::EventsLost => "events_lost",
            WatchNotice::StillOpen { .. } => "still_open",
            WatchNotice::Unreadable { .. } => "unreadable",
            WatchNotice::NoticesDropped { .. } => "notices_dropped",
        }
    }
}

impl Display for WatchNotice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            WatchNotice::FolderGone { folder } => {
                write!(f, "{}: is gone or was replaced; waiting for its return", folder.display())
            }
            WatchNotice::FolderBack { folder } => write!(f, "{}: is there again", folder.display()),
            WatchNotice::Polling { folder, reason } => {
                write!(f, "{}: is scanned at short intervals: {reason}", folder.display())
            }
            WatchNotice::Watching { folder } => {
                write!(f, "{}: events report all changes again", folder.display())
            }
            WatchNotice::EventsLost => f.write_str(
                "events of the watched folders were lost, all are scanned; fs.inotify.max_queued_events is the limit",
            ),
            WatchNotice::StillOpen { path, open_for } => write!(
                f,
                "{}: has been open for writing for {} s; it is uploaded after it is closed",
                path.display(),
                open_for.as_secs()
            ),
            WatchNotice::Unreadable { message } => f.write_str(message),
            WatchNotice::NoticesDropped { count } => write!(f, "{count} notices of the watch were dropped"),
        }
    }
}

impl Display for PollReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            PollReason::FileSystem { magic } => {
                write!(f, "its file system (type {magic:#x}) does not report changes by other machines")
            }
            PollReason::WatchLimit => {
                f.write_str("no inotify watch is left; raise the sysctl fs.inotify.max_user_watches")
            }
            PollReason::NoInotify => f.write_str(
                "no inotify instance is available; raise the sysctl fs.inotify.max_user_instances",
            ),
        }
    }
}

/// Hashes of the notices that are given once.
#[derive(Debug, Default)]
pub(super) struct GivenNotices {
    hashes: HashSet<u64>,
}

impl GivenNotices {
    /// Returns `true` for the first notice with this path or message.
    pub(super) fn is_new(&mut self, notice: &WatchNotice) -> bool {
        let mut hasher = DefaultHasher::new();
        match notice {
            // Without the time, which differs with each look.
            WatchNotice::StillOpen { path, .. } => path.hash(&mut hasher),
            notice => notice.to_string().hash(&mut hasher),
        }
        // Rather a repeated notice than unbounded memory.
        if self.hashes.len() >= MOST_GIVEN {
            self.hashes.clear();
        }
        self.hashes.insert(hasher.finish())
    }
}

const MOST_GIVEN: usize = 1024;
