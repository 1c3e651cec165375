//! The options of a watch.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::error::WatchError;
use crate::bulk::walk::WalkOptions;

/// The options of a watch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchOptions {
    /// The time for which a file must not have changed. `None` for 10 seconds, and for 30 seconds on file systems without
    /// events, whose attributes may be cached.
    pub settle: Option<Duration>,
    /// The suffix of files that mark complete ones: with `.done`, `film.mp4` is returned once `film.mp4.done` exists, and
    /// not before. A mark that was written before the last change of its file does not replace the settle time.
    pub done_suffix: Option<OsString>,
    /// The time between two scans of all folders.
    pub rescan: Duration,
    /// The choice of files. The order, and the time from which ages are measured, have no effect.
    pub walk: WalkOptions,
    /// The clock for ages; needed for a filter with ages.
    pub clock: Option<fn() -> SystemTime>,
    /// The job store beside which lock files are kept, so that each folder has one watch for each store; `None` for no
    /// locks. The lock files remain.
    pub lock_beside: Option<PathBuf>,
}

impl WatchOptions {
    /// Returns an error if a setting cannot be used.
    pub(super) fn check(&self) -> Result<(), WatchError> {
        let is_usable = |suffix: &OsString| !suffix.is_empty() && !suffix.as_bytes().contains(&b'/');
        if self.done_suffix.as_ref().is_some_and(|suffix| !is_usable(suffix)) {
            return Err(WatchError::DoneSuffix);
        }
        Ok(())
    }
}

impl Default for WatchOptions {
    fn default() -> WatchOptions {
        WatchOptions {
            settle: None,
            done_suffix: None,
            rescan: Duration::from_secs(5 * 60),
            walk: WalkOptions::default(),
            clock: None,
            lock_beside: None,
        }
    }
}
