//! The renewal of leases, by a thread of its own: neither a blocked reader of events nor a busy executor may lose them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::bulk::job_id::JobId;
use crate::bulk::lease::{Lease, LeaseTimer};
use crate::bulk::store::{JobStore, JobStoreError};
use crate::bulk::unix_time::UnixMillis;

/// The leases of this process, and the thread that renews them.
#[derive(Debug)]
pub(super) struct Leases {
    shared: Arc<SharedLeases>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct SharedLeases {
    held: Mutex<HashMap<JobId, (Lease, LeaseTimer)>>,
    is_over: AtomicBool,
}

/// A lease that was lost, and the reason.
pub(super) type LostJob = (JobId, String);

impl Leases {
    /// Starts the thread. Lost leases are sent to `lost`.
    pub(super) fn start(
        store: Arc<dyn JobStore>,
        clock: fn() -> SystemTime,
        lost: mpsc::Sender<LostJob>,
    ) -> Leases {
        let shared = Arc::new(SharedLeases::default());
        let of_thread = shared.clone();
        let renew = move || {
            while !of_thread.is_over() {
                thread::park_timeout(BETWEEN_LOOKS);
                of_thread.renew_due(&*store, clock, &lost);
            }
        };
        // Without the thread the leases run out, and the store refuses every later write.
        let thread = thread::Builder::new().name("ringlift-leases".to_owned()).spawn(renew).ok();
        Leases { shared, thread }
    }

    /// Adds a lease whose claim was requested at `asked_at`, by [`boot_time`].
    pub(super) fn hold(&self, lease: Lease, asked_at: Duration) {
        let timer = LeaseTimer::new(lease.length, asked_at);
        self.shared.held().insert(lease.id.clone(), (lease, timer));
    }

    /// Returns `true` if the lease was not lost and no newer one took its place.
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        self.shared.held().get(&lease.id).is_some_and(|(held, _)| held.epoch == lease.epoch)
    }

    /// Removes a lease. Returns `false` if it was lost.
    pub(super) fn release(&self, id: &JobId) -> bool {
        self.shared.held().remove(id).is_some()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Not joined: a renewal under way waits for the store, for ten seconds at most, and an abandoned run must not
            // wait for it. The thread starts no further renewal, and owns everything that it uses.
            thread.thread().unpark();
        }
    }
}

impl SharedLeases {
    fn held(&self) -> MutexGuard<'_, HashMap<JobId, (Lease, LeaseTimer)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn renew_due(&self, store: &dyn JobStore, clock: fn() -> SystemTime, lost: &mpsc::Sender<LostJob>) {
        let now = boot_time();
        let due: Vec<Lease> = {
            let held = self.held();
            let due = held.values().filter(|(_, timer)| timer.renew_at() <= now);
            due.map(|(lease, _)| lease.clone()).collect()
        };
        for lease in due {
            if self.is_over() {
                return;
            }
            let asked_at = boot_time();
            let renewed = pollster::block_on(store.renew(&lease, UnixMillis::from(clock())));
            let mut held = self.held();
            let Some((_, timer)) = held.get_mut(&lease.id) else { continue };
            let reason = match renewed {
                Ok(()) => {
                    timer.renewed(asked_at);
                    continue;
                }
                Err(JobStoreError::LeaseLost { reason, .. }) => reason.to_string(),
                // A store that fails for a moment is asked again until the deadline.
                Err(_) if boot_time() < timer.deadline() => continue,
                Err(error) => error.to_string(),
            };
            held.remove(&lease.id);
            // With a full queue the store still refuses the writes of this job.
            let _ = lost.try_send((lease.id, reason));
        }
    }
}

/// Returns the time since the boot, suspended time included.
pub(super) fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A sixth of a renewal interval of the shortest lease, 3 seconds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);
