//! The server's time, by which all workers judge leases.

use std::sync::Mutex;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::bulk::UnixMillis;

/// The server's time, computed from its last answer and the time since.
///
/// The time since is counted by a clock that goes on while the machine is suspended, and that no program sets.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    known: Mutex<Option<(UnixMillis, Duration)>>,
}

impl ServerClock {
    /// Records the server's time in an answer that has just arrived.
    pub(super) fn set(&self, time: UnixMillis) {
        let known = Some((time, since_boot()));
        *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = known;
    }

    /// Returns the server's time; `None` if no answer had it within the last [`LONGEST_AGE`].
    pub(super) fn now(&self) -> Option<UnixMillis> {
        let known = *self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (time, at) = known?;
        let age = since_boot().saturating_sub(at);
        (age <= LONGEST_AGE).then(|| time.plus(age))
    }
}

/// Returns the time since the machine started, with the time that it was suspended.
pub(super) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time after which the server is asked again: its clock may have been set.
const LONGEST_AGE: Duration = Duration::from_secs(10);
