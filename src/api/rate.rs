//! What an answer says about the account's budget of requests.

use std::time::Duration;

use http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The budget of requests a minute that an answer tells of.
///
/// Every answer carries it, by class of request: uploads, writes or reads
/// (<https://docs.api.video/reference>, "Rate limits"). What an answer does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Requests a minute (`X-RateLimit-Limit`).
    pub limit: Option<u64>,
    /// Requests left in the current window (`X-RateLimit-Remaining`).
    pub remaining: Option<u64>,
    /// How long until the window resets (`X-RateLimit-Retry-After`, in seconds), or else the
    /// standard `Retry-After`. A wish of the service: whoever waits sets the bound.
    pub retry_after: Option<Duration>,
}

impl RateLimit {
    /// Reads what `headers` tell; what cannot be read counts as unsaid.
    pub fn from_headers(headers: &HeaderMap) -> RateLimit {
        let number = |name| text(headers, name)?.parse().ok();
        RateLimit {
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            retry_after: text(headers, "x-ratelimit-retry-after")
                .and_then(seconds)
                .or_else(|| retry_after(headers)),
        }
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date measured against the answer's own `Date`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = text(headers, header::RETRY_AFTER.as_str())?;
    seconds(said).or_else(|| {
        let wait = date(said)?.duration_since(date(text(headers, header::DATE.as_str())?)?);
        Some(Duration::try_from(wait).unwrap_or_default())
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> RateLimit {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), http::HeaderValue::from_static(value))
        };
        RateLimit::from_headers(&headers.iter().map(header).collect())
    }

    #[test]
    fn every_answer_tells_the_budget() {
        let rate = read(&[
            ("X-RateLimit-Limit", "100"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Retry-After", "7"),
            ("Retry-After", "60"),
        ]);
        assert_eq!((rate.limit, rate.remaining), (Some(100), Some(0)));
        assert_eq!(rate.retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_standard_retry_after_counts_too_as_seconds_or_as_a_date() {
        let wait = |headers: &[(&'static str, &'static str)]| read(headers).retry_after;
        let date = ("Date", "Sun, 06 Nov 1994 08:49:07 GMT");
        let later = ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT");
        let earlier = ("Retry-After", "Sun, 06 Nov 1994 08:48:37 GMT");
        assert_eq!(wait(&[("Retry-After", "120")]), Some(Duration::from_secs(120)));
        assert_eq!(wait(&[date, later]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[date, earlier]), Some(Duration::ZERO));
        assert_eq!(wait(&[later]), None);
        assert_eq!(wait(&[("X-RateLimit-Retry-After", "soon"), ("Retry-After", "5")]).unwrap().as_secs(), 5);
    }

    #[test]
    fn what_cannot_be_read_counts_as_unsaid() {
        for value in ["", "-1", "nan", "inf", "1e300", "soon"] {
            let rate = read(&[
                ("X-RateLimit-Limit", value),
                ("X-RateLimit-Remaining", value),
                ("X-RateLimit-Retry-After", value),
                ("Retry-After", value),
            ]);
            assert_eq!(rate, RateLimit::default(), "{value:?}");
        }
    }
}
