//! Validation of the settings before anything is sent.

use std::time::Duration;

use crate::engine::settings::Settings;
use crate::error::{Error, ErrorKind, Hint, Result};

impl Settings {
    /// Checks that the settings are valid and consistent. Every [`Client`](crate::Client) checks them when it is
    /// made.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], with the values that contradict each other.
    pub fn check(&self) -> Result<()> {
        let found =
            [self.no_lanes(), self.too_many(), self.too_long(), self.no_window(), self.slower_than_allowed()];
        match found.into_iter().flatten().next() {
            Some(found) => {
                let refused = Error::new(ErrorKind::InvalidInput, "use the settings");
                let refused = refused.because(found.to_string()).with_source(found);
                Err(match found {
                    SettingsConflict::SlowerThanAllowed { .. } => refused.with_hint(Hint::LowerMinimumSpeed),
                    _ => refused,
                })
            }
            None => Ok(()),
        }
    }

    fn no_lanes(&self) -> Option<SettingsConflict> {
        let (lanes, transfers) = (self.lanes, self.transfers);
        (lanes == 0 || transfers == 0).then_some(SettingsConflict::NoLanes { lanes, transfers })
    }

    fn too_many(&self) -> Option<SettingsConflict> {
        let counts = [("lanes", self.lanes, MOST_LANES), ("transfers", self.transfers, MOST_TRANSFERS)];
        let (what, count, most) = counts.into_iter().find(|(_, count, most)| count > most)?;
        Some(SettingsConflict::TooMany { what, count, most })
    }

    /// Longer times would overflow the clock when added.
    fn too_long(&self) -> Option<SettingsConflict> {
        let Settings { dial, patience, retry, .. } = self;
        let times = [
            ("dial.resolve_timeout", dial.resolve_timeout),
            ("dial.connect_timeout", dial.connect_timeout),
            ("dial.tls_timeout", dial.tls_timeout),
            ("dial.tcp_user_timeout", dial.tcp_user_timeout),
            ("dial.tcp_keepalive", dial.tcp_keepalive),
            ("patience.stall", patience.stall),
            ("patience.body", patience.body),
            ("patience.answer", patience.answer),
            ("patience.min_speed.window", patience.min_speed.map_or(Duration::ZERO, |speed| speed.window)),
            ("retry.max_time", retry.max_time),
            ("retry.first_pause", retry.first_pause),
            ("retry.longest_pause", retry.longest_pause),
            ("retry.grace", retry.grace),
        ];
        let (what, _) = times.into_iter().find(|(_, time)| *time > LONGEST_TIME)?;
        Some(SettingsConflict::TooLong { what })
    }

    fn no_window(&self) -> Option<SettingsConflict> {
        let window = self.patience.min_speed?.window;
        (window < MIN_WINDOW).then_some(SettingsConflict::NoWindow { window })
    }

    /// Under such a limit every connection would be dropped for being slow.
    fn slower_than_allowed(&self) -> Option<SettingsConflict> {
        let limit = self.bandwidth.limit()?.get();
        let minimum = self.patience.min_speed?.bytes_per_s;
        // All checks run before the first conflict is chosen: without lanes this would divide by zero.
        let lanes = self.first_lanes().max(1) as u64;
        let conflict = SettingsConflict::SlowerThanAllowed { minimum, limit, lanes, share: limit / lanes };
        (minimum > limit / lanes).then_some(conflict)
    }
}

/// A setting, or a combination of settings, that is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum SettingsConflict {
    #[error("{lanes} lanes and {transfers} transfers send nothing: both have to be 1 or more")]
    NoLanes { lanes: usize, transfers: usize },
    #[error("{count} {what} are more than {most}")]
    TooMany { what: &'static str, count: usize, most: usize },
    #[error("{what} is longer than 10 years")]
    TooLong { what: &'static str },
    #[error("a speed is measured over 1 ms or more, not over {}", humantime::format_duration(*window))]
    NoWindow { window: Duration },
    #[error(
        "the minimum speed drops connections slower than {minimum} bytes a second, but the bandwidth limit of \
         {limit} bytes a second leaves each of {lanes} lanes {share}"
    )]
    SlowerThanAllowed { minimum: u64, limit: u64, lanes: u64, share: u64 },
}

/// The maximum of connections that carry chunks: each has its buffers, and the service limits requests per minute.
pub const MOST_LANES: usize = 1024;

/// The maximum of uploads at once; each has a file open.
const MOST_TRANSFERS: usize = 65_536;

/// The longest time that a setting may have: 10 years, three of them leap years.
pub const LONGEST_TIME: Duration = Duration::from_secs(3653 * 24 * 3600);

/// The shortest window that timers can measure.
const MIN_WINDOW: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::transport::{Bandwidth, MinSpeed};

    fn checked(change: impl FnOnce(&mut Settings)) -> std::result::Result<(), String> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            error.to_string()
        })
    }

    fn minimum(bytes_per_s: u64) -> Option<MinSpeed> {
        Some(MinSpeed { bytes_per_s, window: Duration::from_secs(30) })
    }

    #[test]
    fn the_defaults_are_valid() {
        checked(|_| {}).unwrap();
    }

    #[test]
    fn zero_lanes_or_transfers_are_refused() {
        checked(|settings| settings.lanes = 0).unwrap_err();
        checked(|settings| settings.transfers = 0).unwrap_err();
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_their_setting() {
        let named = |refused: std::result::Result<(), String>, name: &str| {
            let refused = refused.unwrap_err();
            assert!(refused.contains(name), "{refused}");
        };
        named(checked(|settings| settings.lanes = usize::MAX), "lanes");
        named(checked(|settings| settings.lanes = MOST_LANES + 1), "1024");
        named(checked(|settings| settings.transfers = usize::MAX), "transfers");
        type Time = fn(&mut Settings) -> &mut Duration;
        let times: [(Time, &str); 11] = [
            (|settings| &mut settings.dial.resolve_timeout, "resolve_timeout"),
            (|settings| &mut settings.dial.connect_timeout, "connect_timeout"),
            (|settings| &mut settings.dial.tls_timeout, "tls_timeout"),
            (|settings| &mut settings.dial.tcp_user_timeout, "tcp_user_timeout"),
            (|settings| &mut settings.patience.stall, "stall"),
            (|settings| &mut settings.patience.body, "body"),
            (|settings| &mut settings.patience.answer, "answer"),
            (|settings| &mut settings.retry.max_time, "max_time"),
            (|settings| &mut settings.retry.first_pause, "first_pause"),
            (|settings| &mut settings.retry.longest_pause, "longest_pause"),
            (|settings| &mut settings.retry.grace, "grace"),
        ];
        for (time, name) in times {
            named(checked(|settings| *time(settings) = Duration::MAX), name);
            checked(|settings| *time(settings) = LONGEST_TIME).unwrap();
        }
    }

    #[test]
    fn a_speed_without_a_window_is_refused() {
        let window = Duration::ZERO;
        let min_speed = Some(MinSpeed { bytes_per_s: 1, window });
        checked(|settings| settings.patience.min_speed = min_speed).unwrap_err();
    }

    #[test]
    fn a_minimum_speed_above_the_bandwidth_per_lane_is_refused_with_both_values() {
        let limited = |limit, speed| {
            checked(|settings| {
                settings.lanes = 4;
                settings.bandwidth = Bandwidth::bytes_per_second(NonZeroU64::new(limit).unwrap());
                settings.patience.min_speed = minimum(speed);
            })
        };
        limited(4_000_000, 1_000_000).unwrap();
        let refused = limited(4_000_000, 1_000_001).unwrap_err();
        for value in ["1000001 bytes", "4000000 bytes", "4 lanes 1000000", "minimum speed", "bandwidth limit"]
        {
            assert!(refused.contains(value), "{refused}");
        }
        checked(|settings| settings.patience.min_speed = minimum(u64::MAX)).unwrap();
    }
}
