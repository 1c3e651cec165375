//! A host's rest from a job whose file it cannot use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::unix_time::UnixMillis;

/// A host that could not use the file of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostDecline {
    pub(super) host: String,
    /// The tries of the host, a minute apart.
    pub(super) tries: u32,
    /// The time before which the host does not claim the job.
    pub(super) rests_until: UnixMillis,
}

// Only the fleet uses it, which a build may leave out.
#[allow(dead_code)]
impl HostDecline {
    pub(super) fn rests(&self, now: UnixMillis) -> bool {
        // A later end was written by a clock that went back since.
        self.rests_until > now && self.rests_until <= now.plus(REST_AFTER_DECLINE)
    }
}

/// The rest of a host.
pub(super) const REST_AFTER_DECLINE: Duration = Duration::from_secs(60);
