//! Points in time that records store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// Creates the point in time that is `millis` milliseconds after 1970.
    pub fn new(millis: u64) -> UnixMillis {
        UnixMillis(millis)
    }

    /// Returns the milliseconds since 1970.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the point in time `delay` later.
    pub fn plus(self, delay: Duration) -> UnixMillis {
        UnixMillis(self.0.saturating_add(millis(delay)))
    }

    /// Returns the time between the two, whichever is the later one.
    pub fn distance(self, other: UnixMillis) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

/// A time before 1970 becomes 1970.
impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> UnixMillis {
        UnixMillis(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

/// A time beyond the range of the system's clock becomes 1970.
impl From<UnixMillis> for SystemTime {
    fn from(time: UnixMillis) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(time.0)).unwrap_or(UNIX_EPOCH)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
