//! The renewal of leases, by a thread of its own: neither a blocked reader of events nor a busy executor may lose them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::bulk::job_id::JobId;
use crate::bulk::job_state::JobStateName;
use crate::bulk::lease::{Lease, LeaseTimer, LostLease};
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
pub(super) type LostJob = (JobId, LossReason);

/// The reason why a job is no longer with this process.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LossReason {
    /// The store refuses the writes of the lease.
    #[error("{0}")]
    Refused(LostLease),
    /// The store did not answer before the lease ended, so that another worker may have the job.
    #[error("{0}")]
    Unanswered(String),
}

impl LossReason {
    /// Returns `true` if a user has cancelled the job.
    pub(super) fn is_cancellation(&self) -> bool {
        matches!(
            self,
            LossReason::Refused(LostLease::Cancelled | LostLease::Ended { state: JobStateName::Cancelled })
        )
    }
}

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
            let mut renewals = Renewals::new(clock);
            while !of_thread.is_over() {
                thread::park_timeout(BETWEEN_LOOKS);
                of_thread.renew_due(&*store, &mut renewals, &lost);
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

    /// Requests the renewals that are due, takes in those that are answered, and reports the leases that are lost.
    fn renew_due<'s>(
        &self,
        store: &'s dyn JobStore,
        renewals: &mut Renewals<'s>,
        lost: &mpsc::Sender<LostJob>,
    ) {
        self.due(renewals).into_iter().for_each(|lease| renewals.ask(store, lease));
        for renewal in renewals.answered() {
            if let Some(lost_job) = self.take_in(renewal) {
                // With a full queue the store still refuses the writes of this job.
                let _ = lost.try_send(lost_job);
            }
        }
        self.give_up_silent(renewals, lost);
    }

    /// Returns the leases to renew now.
    fn due(&self, renewals: &Renewals<'_>) -> Vec<Lease> {
        let (now, held) = (boot_time(), self.held());
        let due = held
            .values()
            // One renewal at a time for each lease: a second one would wait for the same silent store.
            .filter(|(lease, timer)| timer.renew_at() <= now && !renewals.asked.contains_key(&lease.id));
        due.map(|(lease, _)| lease.clone()).collect()
    }

    /// Takes in the answer to a renewal. Returns the job if its lease is lost.
    fn take_in(&self, renewal: Renewal) -> Option<LostJob> {
        let Renewal { lease, asked_at, renewed } = renewal;
        let mut held = self.held();
        // The answer to an older lease says nothing about the one that took its place.
        let (_, timer) = held.get_mut(&lease.id).filter(|(held, _)| held.epoch == lease.epoch)?;
        let reason = match renewed {
            Ok(()) => {
                timer.renewed(asked_at);
                return None;
            }
            Err(JobStoreError::LeaseLost { reason, .. }) => LossReason::Refused(reason),
            // A store that fails for a moment is asked again until the deadline.
            Err(_) if boot_time() < timer.deadline() => return None,
            Err(error) => LossReason::Unanswered(error.to_string()),
        };
        held.remove(&lease.id);
        Some((lease.id, reason))
    }

    /// Gives up the leases whose deadline is over while the store does not answer: another worker may have the job.
    fn give_up_silent(&self, renewals: &Renewals<'_>, lost: &mpsc::Sender<LostJob>) {
        let now = boot_time();
        // A process that was stopped asks first: the lease may still be its own.
        let is_silent = |id: &JobId| renewals.asked.get(id).is_some_and(|at| now >= *at + LONGEST_SILENCE);
        self.held().retain(|id, (_, timer)| {
            let is_over = now >= timer.deadline() && is_silent(id);
            if is_over {
                let reason = "the queue did not answer before the lease ended".to_owned();
                // At a full queue the job learns of its loss when the store refuses its result.
                let _ = lost.try_send((id.clone(), LossReason::Unanswered(reason)));
            }
            !is_over
        });
    }
}

/// The renewals that wait for the store. All leases are renewed at the same time: one that is not answered must not keep
/// the others from it.
struct Renewals<'s> {
    clock: fn() -> SystemTime,
    asked: HashMap<JobId, Duration>,
    waiting: FuturesUnordered<BoxFuture<'s, Renewal>>,
    waker: Waker,
}

/// An answered renewal.
struct Renewal {
    lease: Lease,
    asked_at: Duration,
    renewed: Result<(), JobStoreError>,
}

/// Wakes the thread of the leases when an answer arrives.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

impl<'s> Renewals<'s> {
    /// Creates the renewals of the current thread.
    fn new(clock: fn() -> SystemTime) -> Renewals<'s> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Renewals { clock, asked: HashMap::new(), waiting: FuturesUnordered::new(), waker }
    }

    fn ask(&mut self, store: &'s dyn JobStore, lease: Lease) {
        let (asked_at, now) = (boot_time(), UnixMillis::from((self.clock)()));
        self.asked.insert(lease.id.clone(), asked_at);
        self.waiting.push(Box::pin(async move {
            let renewed = store.renew(&lease, now).await;
            Renewal { lease, asked_at, renewed }
        }));
    }

    /// Returns the renewals that are answered by now.
    fn answered(&mut self) -> Vec<Renewal> {
        let mut answered = Vec::new();
        let mut context = Context::from_waker(&self.waker);
        while let Poll::Ready(Some(renewal)) = self.waiting.poll_next_unpin(&mut context) {
            self.asked.remove(&renewal.lease.id);
            answered.push(renewal);
        }
        answered
    }
}

/// Returns the time since the boot, suspended time included.
pub(super) fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A sixth of a renewal interval of the shortest lease, 3 seconds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);
/// The longest time for an answer after the deadline of a lease. A tenth of the lease is left then, at least 0.3 seconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);
