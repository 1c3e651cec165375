//! The wall clock, and dates in the format of the API.

use jiff::Timestamp;

/// Returns the milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Formats a time in ATOM format, with whole seconds and a numeric offset: `2024-07-14T23:36:07+00:00`.
pub(super) fn format_date(ms: i64) -> String {
    let date = Timestamp::from_millisecond(ms).unwrap_or_default();
    date.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_format_of_the_service() {
        assert_eq!(format_date(1_721_000_167_999), "2024-07-14T23:36:07+00:00");
    }
}
