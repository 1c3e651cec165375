//! The time of day for checks of certificates.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Reads the system's clock. The provider of rustls panics if the clock is before 1970.
#[derive(Debug)]
pub(super) struct Clock(pub(super) fn() -> SystemTime);

impl Clock {
    pub(super) fn system() -> Clock {
        Clock(SystemTime::now)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        (self.0)().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}
