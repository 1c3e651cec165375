//! One watched folder.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::notice::PollReason;
use super::selector::Selector;
use crate::bulk::walk::Walk;

/// One watched folder.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) selector: Selector,
    /// The device and the inode of the folder; `None` while it is gone.
    pub(super) identity: Option<(u64, u64)>,
    /// `true` if the folder was there at some time.
    pub(super) was_there: bool,
    /// The time of the next examination of the folder itself.
    pub(super) check_at: Instant,
    /// The scan under way, and its start.
    pub(super) scan: Option<(Walk, Instant)>,
    /// The time of the next scan.
    pub(super) scan_at: Instant,
    /// `true` if something was missed, so that a scan has to follow soon.
    pub(super) has_missed: bool,
    /// The reason for short intervals between scans.
    pub(super) polls: Option<PollReason>,
    /// The reason that the scan under way has found.
    pub(super) found_reason: Option<PollReason>,
}

impl Root {
    pub(super) fn new(selector: Selector) -> Root {
        let now = Instant::now();
        Root {
            selector,
            identity: None,
            was_there: false,
            check_at: now,
            scan: None,
            scan_at: now,
            has_missed: false,
            polls: None,
            found_reason: None,
        }
    }

    /// Returns the identity of the folder at the path now; `None` if there is none.
    pub(super) fn current_identity(&self) -> Option<(u64, u64)> {
        let metadata = self.selector.root().metadata().ok()?;
        metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
    }

    /// Returns the time for which a file of this folder must not have changed.
    pub(super) fn rest(&self) -> Duration {
        let by_default =
            if matches!(self.polls, Some(PollReason::FileSystem { .. })) { SETTLE_REMOTE } else { SETTLE };
        self.selector.settle().unwrap_or(by_default)
    }

    /// Returns the time between two scans, if the last one took this long.
    pub(super) fn interval(&self, rescan: Duration, took: Duration) -> Duration {
        if self.polls.is_none() {
            return rescan;
        }
        // At most a tenth of the time: each scan asks a server for the attributes of every file.
        took.saturating_mul(10).max(BETWEEN_POLLS).min(rescan)
    }
}

const SETTLE: Duration = Duration::from_secs(10);

/// Clients of network file systems cache attributes, and a stalled writer is more frequent.
const SETTLE_REMOTE: Duration = Duration::from_secs(30);

/// The time between two scans of a folder without events.
const BETWEEN_POLLS: Duration = Duration::from_secs(10);
