//! The pace of requests: the service's budget, the user's limits, and a circuit breaker.
//!
//! Pure: the caller calls [`Pacer::check`] before a request, [`Pacer::started`] when it begins and [`Pacer::finished`]
//! when it is over, and passes the clock and the random numbers. All lanes share one [`Pacer`].
//!
//! - The budget is the remainder in the headers of the newest answer, less the requests that are under way. Requests of
//!   other hosts are thus accounted for, and the budget is exceeded by no more than the requests in flight.
//! - A 429 delays its whole class for the time that the service requests, and up to a fifth longer.
//! - A burst of failures leaves one request at a time, which probes if the service is back.
//! - Retries have a budget of their own, which successes refill.
//!
//! The pacer does not depend on chunks, connections or the requests themselves.

mod breaker;
mod chunk_size;
mod lane_control;
mod pacer;
mod quota;
mod shared;
mod throttle;
mod window;
mod workload;

pub use chunk_size::{ChunkSizing, chunk_bytes_for};
pub use lane_control::LaneHold;
pub(crate) use lane_control::{LaneController, LaneReason, LaneSample};
pub use pacer::{Pacer, Permit, RequestKind, ServiceHealth};
pub(crate) use quota::BudgetReading;
pub use quota::{Caps, Class, Quota, QuotaPreset};
pub use shared::{SharedBudget, SharedBudgetSource};
pub(crate) use throttle::Delay;
pub use throttle::{Start, ThrottleReason};
pub use workload::Workload;

#[cfg(test)]
mod tests;
