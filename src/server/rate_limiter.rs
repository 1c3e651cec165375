//! Rate limits by class of request, counted in fixed windows as the service does.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::fault_plan::RouteClass;
use super::problem::ProblemDetails;

/// The rate limits of the server (`/reference/README` of the service's documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// No limits. The rate limit headers are those of the paid service with an unused budget, because the service
    /// writes them into every response.
    #[default]
    Off,
    /// The limits of the sandbox: 40 uploads, 40 writes, 100 reads per minute.
    Sandbox,
    /// The limits of the paid service: 100 uploads, 200 writes, 500 reads per minute.
    Production,
    /// Other limits.
    Custom(RequestBudget),
}

/// The number of requests allowed per window, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestBudget {
    /// Requests that carry file bytes.
    pub uploads: u32,
    /// Other requests that change something.
    pub writes: u32,
    /// Requests that change nothing.
    pub reads: u32,
    /// The duration of a window; one minute at the service.
    pub window: Duration,
}

impl Limits {
    /// Returns the budget that the headers state.
    fn budget(self) -> RequestBudget {
        let window = Duration::from_secs(60);
        match self {
            Limits::Sandbox => RequestBudget { uploads: 40, writes: 40, reads: 100, window },
            Limits::Off | Limits::Production => {
                RequestBudget { uploads: 100, writes: 200, reads: 500, window }
            }
            Limits::Custom(budget) => budget,
        }
    }
}

/// Counts requests and refuses those above the limits.
pub(super) struct RateLimiter {
    budget: RequestBudget,
    /// `false` if the limits are only stated, not enforced.
    is_enforced: bool,
    windows: Mutex<[RateWindow; 3]>,
}

#[derive(Clone, Copy)]
struct RateWindow {
    since: Instant,
    used: u32,
}

/// The state of a request class's window, for the rate limit headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateStatus {
    limit: u32,
    remaining: u32,
    retry_after_s: u64,
}

impl RateLimiter {
    pub(super) fn new(limits: Limits, now: Instant) -> RateLimiter {
        let window = RateWindow { since: now, used: 0 };
        RateLimiter {
            budget: limits.budget(),
            is_enforced: limits != Limits::Off,
            windows: Mutex::new([window; 3]),
        }
    }

    /// Counts one request. Returns `None` if requests of this class have no limit at the service.
    ///
    /// # Errors
    /// Fails if the limit of the window is reached.
    pub(super) fn check(
        &self,
        class: RouteClass,
        method: &Method,
        now: Instant,
    ) -> Result<Option<RateStatus>, RateStatus> {
        let budget = self.budget;
        let (class_index, limit) = match class {
            RouteClass::Auth => return Ok(None),
            RouteClass::Chunk => (0, budget.uploads),
            _ if matches!(*method, Method::GET | Method::HEAD) => (2, budget.reads),
            _ => (1, budget.writes),
        };
        let window = &mut self.windows.lock().unwrap_or_else(PoisonError::into_inner)[class_index];
        if now.duration_since(window.since) >= budget.window {
            *window = RateWindow { since: now, used: 0 };
        }
        let left = budget.window.saturating_sub(now.duration_since(window.since));
        // Rounded up: a client that waits less would be refused again.
        let retry_after_s = left.as_millis().div_ceil(1000) as u64;
        if !self.is_enforced {
            return Ok(Some(RateStatus { limit, remaining: limit, retry_after_s }));
        }
        if window.used >= limit {
            return Err(RateStatus { limit, remaining: 0, retry_after_s });
        }
        window.used += 1;
        Ok(Some(RateStatus { limit, remaining: limit - window.used, retry_after_s }))
    }
}

impl RateStatus {
    /// Adds the rate limit headers, the end of the window only if `with_reset`. Headers that a fault has set are kept.
    pub(super) fn add_headers(self, headers: &mut HeaderMap, with_reset: bool) {
        let reset = with_reset.then_some((RETRY_AFTER, HeaderValue::from(self.retry_after_s)));
        let counts = [(LIMIT, self.limit.into()), (REMAINING, self.remaining.into())];
        for (name, value) in counts.into_iter().chain(reset) {
            headers.entry(name).or_insert(value);
        }
    }
}

pub(super) fn too_many_requests() -> ProblemDetails {
    let title = "Too many requests: wait for the seconds that X-RateLimit-Retry-After states.";
    ProblemDetails::new(hyper::StatusCode::TOO_MANY_REQUESTS, "too-many-requests", title)
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const RETRY_AFTER: HeaderName = HeaderName::from_static("x-ratelimit-retry-after");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_window_resets_the_counter() {
        let start = Instant::now();
        let limiter = RateLimiter::new(Limits::Sandbox, start);
        let upload = |now| limiter.check(RouteClass::Chunk, &Method::POST, now);
        for used in 1..=40 {
            let rate_status = RateStatus { limit: 40, remaining: 40 - used, retry_after_s: 60 };
            assert_eq!(upload(start), Ok(Some(rate_status)));
        }
        let later = start + Duration::from_millis(50_500);
        assert_eq!(upload(later), Err(RateStatus { limit: 40, remaining: 0, retry_after_s: 10 }));
        assert!(upload(start + Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn limits_that_are_off_are_stated_and_refuse_nothing() {
        let start = Instant::now();
        let limiter = RateLimiter::new(Limits::Off, start);
        let whole = |limit| Ok(Some(RateStatus { limit, remaining: limit, retry_after_s: 60 }));
        for _ in 0..200 {
            assert_eq!(limiter.check(RouteClass::Chunk, &Method::POST, start), whole(100));
        }
        assert_eq!(limiter.check(RouteClass::Create, &Method::POST, start), whole(200));
        assert_eq!(limiter.check(RouteClass::Status, &Method::GET, start), whole(500));
        assert_eq!(limiter.check(RouteClass::Auth, &Method::POST, start), Ok(None));
    }

    #[test]
    fn classes_are_counted_separately_and_auth_is_not_counted() {
        let start = Instant::now();
        let budget = RequestBudget { uploads: 0, writes: 1, reads: 1, window: Duration::from_secs(1) };
        let limiter = RateLimiter::new(Limits::Custom(budget), start);
        assert!(limiter.check(RouteClass::Chunk, &Method::POST, start).is_err());
        assert!(limiter.check(RouteClass::Create, &Method::POST, start).is_ok());
        assert!(limiter.check(RouteClass::Status, &Method::GET, start).is_ok());
        assert!(limiter.check(RouteClass::Video, &Method::GET, start).is_err());
        assert_eq!(limiter.check(RouteClass::Auth, &Method::POST, start), Ok(None));
    }
}
