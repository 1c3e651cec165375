//! The workers of a store.

use std::time::Duration;

use crate::bulk::job_id::OwnerId;

/// The workers of a store that several hosts share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// The workers, ordered by their names. At most [`MOST_PRESENT`].
    pub workers: Vec<PresentWorker>,
    /// The number of all workers.
    pub total: u64,
}

/// A worker that has announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresentWorker {
    /// The worker.
    pub owner: OwnerId,
    /// The time since its last heartbeat, by the clock of the store.
    pub age: Duration,
}

impl Presence {
    /// Creates a list of `workers` out of `total`.
    pub fn new(workers: Vec<PresentWorker>, total: u64) -> Presence {
        Presence { workers, total }
    }
}

impl PresentWorker {
    /// Creates the entry of a worker.
    pub fn new(owner: OwnerId, age: Duration) -> PresentWorker {
        PresentWorker { owner, age }
    }
}

/// The most workers in one [`Presence`]: each costs a read of the store.
pub const MOST_PRESENT: usize = 100;
