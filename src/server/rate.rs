//! How many requests a minute: the service's budgets by class of request, in fixed windows.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::faults::RouteClass;
use super::problem::Problem;

/// The rate limits of the server (`/reference/README` of the service's documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// None, and no rate limit headers.
    #[default]
    Off,
    /// The sandbox's: 40 uploads, 40 writes, 100 reads a minute.
    Sandbox,
    /// The paid service's: 100 uploads, 200 writes, 500 reads a minute.
    Production,
    /// Any others.
    Custom(Budget),
}

/// Requests per window, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Requests that carry file bytes.
    pub uploads: u32,
    /// Other requests that change something.
    pub writes: u32,
    /// Requests that change nothing.
    pub reads: u32,
    /// How long until the counters start anew; a minute at the service.
    pub window: Duration,
}

impl Limits {
    fn budget(self) -> Option<Budget> {
        let window = Duration::from_secs(60);
        match self {
            Limits::Off => None,
            Limits::Sandbox => Some(Budget { uploads: 40, writes: 40, reads: 100, window }),
            Limits::Production => Some(Budget { uploads: 100, writes: 200, reads: 500, window }),
            Limits::Custom(budget) => Some(budget),
        }
    }
}

/// The counters.
pub(super) struct Rate {
    budget: Option<Budget>,
    windows: Mutex<[Window; 3]>,
}

#[derive(Clone, Copy)]
struct Window {
    since: Instant,
    used: u32,
}

/// Where a request stands within its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    limit: u32,
    remaining: u32,
    retry_after_s: u64,
}

impl Rate {
    pub(super) fn new(limits: Limits, now: Instant) -> Rate {
        let window = Window { since: now, used: 0 };
        Rate { budget: limits.budget(), windows: Mutex::new([window; 3]) }
    }

    /// Counts one request; `None` where nothing is counted.
    pub(super) fn take(
        &self,
        class: RouteClass,
        method: &Method,
        now: Instant,
    ) -> Result<Option<Standing>, Standing> {
        let Some(budget) = self.budget else { return Ok(None) };
        let (slot, limit) = match class {
            RouteClass::Auth => return Ok(None),
            RouteClass::Chunk => (0, budget.uploads),
            _ if matches!(*method, Method::GET | Method::HEAD) => (2, budget.reads),
            _ => (1, budget.writes),
        };
        let window = &mut self.windows.lock().unwrap_or_else(PoisonError::into_inner)[slot];
        if now.duration_since(window.since) >= budget.window {
            *window = Window { since: now, used: 0 };
        }
        let left = budget.window.saturating_sub(now.duration_since(window.since));
        let retry_after_s = left.as_millis().div_ceil(1000) as u64;
        if window.used >= limit {
            return Err(Standing { limit, remaining: 0, retry_after_s });
        }
        window.used += 1;
        Ok(Some(Standing { limit, remaining: limit - window.used, retry_after_s }))
    }
}

impl Standing {
    /// Adds the headers, except where a fault has written its own.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        for (name, value) in [
            (LIMIT, self.limit.into()),
            (REMAINING, self.remaining.into()),
            (RETRY_AFTER, HeaderValue::from(self.retry_after_s)),
        ] {
            headers.entry(name).or_insert(value);
        }
    }
}

pub(super) fn too_many_requests() -> Problem {
    let title = "Too many requests: wait for the seconds that X-RateLimit-Retry-After states.";
    Problem::new(hyper::StatusCode::TOO_MANY_REQUESTS, "too-many-requests", title)
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const RETRY_AFTER: HeaderName = HeaderName::from_static("x-ratelimit-retry-after");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_ends_and_the_counter_starts_anew() {
        let start = Instant::now();
        let rate = Rate::new(Limits::Sandbox, start);
        let upload = |now| rate.take(RouteClass::Chunk, &Method::POST, now);
        for used in 1..=40 {
            let standing = Standing { limit: 40, remaining: 40 - used, retry_after_s: 60 };
            assert_eq!(upload(start), Ok(Some(standing)));
        }
        let later = start + Duration::from_millis(50_500);
        assert_eq!(upload(later), Err(Standing { limit: 40, remaining: 0, retry_after_s: 10 }));
        assert!(upload(start + Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn classes_are_counted_apart_and_auth_is_free() {
        let start = Instant::now();
        let budget = Budget { uploads: 0, writes: 1, reads: 1, window: Duration::from_secs(1) };
        let rate = Rate::new(Limits::Custom(budget), start);
        assert!(rate.take(RouteClass::Chunk, &Method::POST, start).is_err());
        assert!(rate.take(RouteClass::Create, &Method::POST, start).is_ok());
        assert!(rate.take(RouteClass::Status, &Method::GET, start).is_ok());
        assert!(rate.take(RouteClass::Video, &Method::GET, start).is_err());
        assert_eq!(rate.take(RouteClass::Auth, &Method::POST, start), Ok(None));
    }
}
