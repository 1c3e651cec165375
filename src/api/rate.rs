//! The account's budget of requests, from the headers of an answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::transport::requested_wait;

/// The budget of requests per minute, from the headers of an answer.
///
/// Every answer carries it, by class of request: uploads, writes or reads
/// (<https://docs.api.video/reference>, "Rate limits"). A value that the answer lacks is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct RateLimit {
    /// Requests a minute (`X-RateLimit-Limit`).
    pub limit: Option<u64>,
    /// Requests left in the current window (`X-RateLimit-Remaining`).
    pub remaining: Option<u64>,
    /// The time until the window resets (`X-RateLimit-Retry-After`, in seconds), or else the standard
    /// `Retry-After`; at most a day. The caller may set a lower bound.
    pub retry_after: Option<Duration>,
    /// The wait of the standard `Retry-After` alone.
    standard: Option<Duration>,
}

impl RateLimit {
    /// Reads the budget from `headers`. A header that cannot be read counts as absent.
    pub(crate) fn from_headers(headers: &HeaderMap) -> RateLimit {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        let wait = |name: HeaderName| requested_wait(headers, &name);
        let standard = wait(header::RETRY_AFTER);
        RateLimit {
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            // The service documents only its own header; the standard one comes from proxies in front of it.
            retry_after: wait(HeaderName::from_static("x-ratelimit-retry-after")).or(standard),
            standard,
        }
    }

    /// Returns the wait before the same request is repeated, for an answer with `status`.
    ///
    /// Every answer carries the end of the window. It is a reason to wait only if the budget is used up.
    pub(super) fn asked_wait(&self, status: StatusCode) -> Option<Duration> {
        let has_budget = self.remaining.is_some_and(|remaining| remaining > 0);
        if status != StatusCode::TOO_MANY_REQUESTS && has_budget { self.standard } else { self.retry_after }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> RateLimit {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), http::HeaderValue::from_static(value))
        };
        RateLimit::from_headers(&headers.iter().map(header).collect())
    }

    #[test]
    fn every_answer_carries_the_budget() {
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
        assert_eq!(wait(&[later]), Some(Duration::ZERO), "1994 is over");
        assert_eq!(wait(&[("X-RateLimit-Retry-After", "soon"), ("Retry-After", "5")]).unwrap().as_secs(), 5);
    }

    #[test]
    fn an_unreadable_header_counts_as_absent() {
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

    #[test]
    fn dates_of_every_form_count_and_so_do_moments_as_numbers() {
        let wait = |value: &'static str| {
            let date = ("Date", "Sun, 06 Nov 1994 08:49:07 GMT");
            let wait = |name| read(&[date, (name, value)]).retry_after.map(|wait| wait.as_secs_f64());
            assert_eq!(wait("Retry-After"), wait("X-RateLimit-Retry-After"), "{value}");
            wait("Retry-After")
        };
        for later in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(wait(later), Some(30.0), "{later}");
        }
        assert_eq!((wait("1.5"), wait("0")), (Some(1.5), Some(0.0)));
        assert_eq!(wait("600000"), Some(86_400.0), "a week is not waited for");
        let day = Some(86_400.0);
        assert_eq!((wait("4102444800"), wait("4102444800000.5")), (day, day), "in 2100");
    }

    #[test]
    fn a_date_and_a_moment_without_a_date_of_the_answer_go_by_our_clock() {
        let soon = SystemTime::now() + Duration::from_secs(3600);
        let since_1970 = soon.duration_since(UNIX_EPOCH).unwrap();
        for value in [
            httpdate::fmt_http_date(soon),
            since_1970.as_secs().to_string(),
            since_1970.as_millis().to_string(),
        ] {
            let headers = [(header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            let wait = RateLimit::from_headers(&headers).retry_after.unwrap();
            assert!((1800..=3600).contains(&wait.as_secs()), "{value}: {wait:?}");
        }
        assert_eq!(read(&[("Retry-After", "1000000000")]).retry_after, Some(Duration::ZERO), "2001 is over");
    }

    #[test]
    fn the_end_of_a_window_is_waited_for_only_when_its_budget_is_used_up() {
        let asked = |status, remaining, standard: Option<&'static str>| {
            let mut headers = vec![("X-RateLimit-Remaining", remaining), ("X-RateLimit-Retry-After", "42")];
            headers.extend(standard.map(|seconds| ("Retry-After", seconds)));
            read(&headers).asked_wait(StatusCode::from_u16(status).unwrap()).map(|wait| wait.as_secs())
        };
        assert_eq!((asked(429, "7", None), asked(429, "0", None)), (Some(42), Some(42)));
        assert_eq!((asked(503, "0", None), asked(503, "7", None)), (Some(42), None));
        assert_eq!(asked(503, "7", Some("6")), Some(6));
    }
}
