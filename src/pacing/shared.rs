//! A budget of requests that several processes share.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::quota::{Class, Quota};

/// A source of permissions that several processes share. No method waits.
pub trait SharedBudgetSource: Send + Sync + fmt::Debug {
    /// Returns the time at which to ask again, which is later than `now`; `None` if a request may start. Registers that
    /// a request waits.
    fn not_before(&self, class: Class, now: Instant) -> Option<Instant>;

    /// Counts a request that starts.
    fn started(&self, class: Class, now: Instant);

    /// Counts an answer that arrived at `now`. `throttled` is the delay of an answer 429.
    fn finished(&self, class: Class, quota: Option<Quota>, throttled: Option<Duration>, now: Instant);
}

/// The request budget of an account, shared by clients in several processes. The default shares nothing.
#[derive(Clone, Default)]
pub struct SharedBudget(Option<Arc<dyn SharedBudgetSource>>);

impl SharedBudget {
    /// Creates the budget that `source` hands out.
    #[doc(hidden)]
    pub fn new(source: Arc<dyn SharedBudgetSource>) -> SharedBudget {
        SharedBudget(Some(source))
    }

    pub(crate) fn not_before(&self, class: Class, now: Instant) -> Option<Instant> {
        // An end that has passed must not delay anything: the pacer promises a later time than now.
        self.0.as_ref()?.not_before(class, now).filter(|&until| until > now)
    }

    pub(crate) fn started(&self, class: Class, now: Instant) {
        if let Some(source) = &self.0 {
            source.started(class, now);
        }
    }

    pub(crate) fn finished(
        &self,
        class: Class,
        quota: Option<Quota>,
        throttled: Option<Duration>,
        now: Instant,
    ) {
        if let Some(source) = &self.0 {
            source.finished(class, quota, throttled, now);
        }
    }
}

impl fmt::Debug for SharedBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBudget").field("is_shared", &self.0.is_some()).finish_non_exhaustive()
    }
}
