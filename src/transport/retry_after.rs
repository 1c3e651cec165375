//! The wait that an answer requests, and the time to which the dates of an answer refer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, header};

/// Returns the wait that the header `name` of an answer requests, at most a day: [`LONGEST_WAIT`]. `None` if the answer
/// has no such header, or one that cannot be read.
///
/// A wait is a number of seconds with an optional fraction; a time in seconds or milliseconds since 1970; or a date in
/// one of the three forms that a recipient has to accept (RFC 9110, sections 10.2.3 and 5.6.7). A time that has passed
/// requests no wait.
pub(crate) fn requested_wait(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let value = text(headers, name)?;
    // NaN is no duration, so that text that is not a number is tried as a date.
    let until = match Duration::try_from_secs_f64(value.parse().unwrap_or(f64::NAN)) {
        Ok(seconds) if seconds < EPOCH_FROM => return Some(seconds.min(LONGEST_WAIT)),
        Ok(seconds) if seconds < EPOCH_FROM * 1000 => UNIX_EPOCH.checked_add(seconds)?,
        Ok(milliseconds) => UNIX_EPOCH.checked_add(milliseconds / 1000)?,
        // RFC 9110 sets no limit to the digits of a delay.
        Err(_) if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Some(LONGEST_WAIT);
        }
        Err(_) => httpdate::parse_http_date(value).ok()?,
    };
    Some(until.duration_since(sent_at(headers)).unwrap_or_default().min(LONGEST_WAIT))
}

/// Returns the time of the answer by its sender's clock, to which its dates refer. Without a `Date`, returns the
/// local time.
pub(super) fn sent_at(headers: &HeaderMap) -> SystemTime {
    let date = text(headers, &header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    date.unwrap_or_else(SystemTime::now)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The longest wait that an answer can request. Bounds the error of a wrong clock, too.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// September 2001. A number from here on is a time, not a wait in seconds.
const EPOCH_FROM: Duration = Duration::from_secs(1_000_000_000);
