//! The clock, and dates as the API writes them.

use jiff::Timestamp;

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// The ATOM format: whole seconds and a numeric offset, `2024-07-14T23:36:07+00:00`.
pub(super) fn atom(ms: i64) -> String {
    let date = Timestamp::from_millisecond(ms).unwrap_or_default();
    date.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_service_writes_them() {
        assert_eq!(atom(1_721_000_167_999), "2024-07-14T23:36:07+00:00");
    }
}
