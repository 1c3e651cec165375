//! The shutdown of a run in two stages: finish the active chunks, then cancel.
//!
//! Receives no signals and reads no clock: the program calls [`Shutdown::stop`] when one of its signals arrives, and
//! [`Shutdown::advance`] when the time of [`Shutdown::deadline`] has come.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The shutdown of a run: its stage, and the time of the next one.
#[derive(Debug)]
pub struct Shutdown {
    stage: watch::Sender<ShutdownStage>,
    deadline: Option<Instant>,
}

/// The stage of a shutdown. Stages only follow each other in this order, and may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ShutdownStage {
    /// No shutdown was requested.
    Running,
    /// No new work starts; active chunks may finish.
    Stopping,
    /// Everything ends immediately.
    Cancelled,
    /// Uploads that have not ended by now are not awaited: a source that does not respond blocks its thread forever.
    Abandoned,
}

impl Shutdown {
    /// Creates a shutdown that is not requested.
    pub fn new() -> Shutdown {
        let (stage, _) = watch::channel(ShutdownStage::Running);
        Shutdown { stage, deadline: None }
    }

    /// Requests a graceful shutdown, which is followed by a cancellation at `now + grace`. Returns `true` for the first
    /// request; later ones change nothing. A `grace` beyond the range of the clock never ends.
    pub fn stop(&mut self, grace: Duration, now: Instant) -> bool {
        let is_first = self.stage() == ShutdownStage::Running;
        if is_first {
            self.enter(ShutdownStage::Stopping, now.checked_add(grace));
        }
        is_first
    }

    /// Requests an immediate shutdown. It is followed by the abandonment after [`CANCEL_TIMEOUT`].
    pub fn cancel(&mut self, now: Instant) {
        if self.stage() < ShutdownStage::Cancelled {
            self.enter(ShutdownStage::Cancelled, now.checked_add(CANCEL_TIMEOUT));
        }
    }

    /// Enters the next stage if its time has come. Returns the stage.
    pub fn advance(&mut self, now: Instant) -> ShutdownStage {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            match self.stage() {
                ShutdownStage::Running | ShutdownStage::Abandoned => {}
                ShutdownStage::Stopping => self.cancel(now),
                ShutdownStage::Cancelled => self.enter(ShutdownStage::Abandoned, None),
            }
        }
        self.stage()
    }

    /// Returns the time of the next stage; `None` if it does not come by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the stage.
    pub fn stage(&self) -> ShutdownStage {
        *self.stage.borrow()
    }

    /// Returns a receiver of the stages.
    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal { stage: self.stage.subscribe() }
    }

    fn enter(&mut self, stage: ShutdownStage, deadline: Option<Instant>) {
        self.deadline = deadline;
        // `send` would not store the stage if no receiver existed at the moment.
        self.stage.send_replace(stage);
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown::new()
    }
}

/// A receiver of the stages of a [`Shutdown`]. Clones are independent.
#[derive(Clone, Debug)]
pub struct ShutdownSignal {
    stage: watch::Receiver<ShutdownStage>,
}

impl ShutdownSignal {
    /// Returns the stage.
    pub fn stage(&self) -> ShutdownStage {
        *self.stage.borrow()
    }

    /// Waits for a stage that this receiver has not returned yet, under any executor. Does not return if the
    /// [`Shutdown`] was dropped. Dropping the future loses no stage.
    pub async fn changed(&mut self) -> ShutdownStage {
        match self.stage.changed().await {
            Ok(()) => *self.stage.borrow_and_update(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until a shutdown is requested. Returns at once if it was, and never if the [`Shutdown`] was dropped.
    pub async fn requested(&self) {
        let mut stage = self.stage.clone();
        if stage.wait_for(|stage| *stage != ShutdownStage::Running).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Time for cancelled uploads to report their end.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn the_first_request_stops_and_the_grace_period_ends_in_a_cancellation() {
        let (mut shutdown, now) = (Shutdown::new(), Instant::now());
        let signal = shutdown.signal();
        assert!(shutdown.stop(GRACE, now));
        assert!(!shutdown.stop(Duration::ZERO, now));
        assert_eq!((signal.stage(), shutdown.deadline()), (ShutdownStage::Stopping, Some(now + GRACE)));
        assert_eq!(shutdown.advance(now + GRACE - Duration::from_nanos(1)), ShutdownStage::Stopping);
        assert_eq!(shutdown.advance(now + GRACE), ShutdownStage::Cancelled);
        assert_eq!(shutdown.advance(now + GRACE + CANCEL_TIMEOUT), ShutdownStage::Abandoned);
        assert_eq!((signal.stage(), shutdown.deadline()), (ShutdownStage::Abandoned, None));
    }

    #[test]
    fn without_a_request_there_is_no_deadline() {
        let (mut shutdown, now) = (Shutdown::new(), Instant::now());
        assert_eq!(shutdown.deadline(), None);
        assert_eq!(shutdown.advance(now + Duration::from_secs(1 << 30)), ShutdownStage::Running);
    }

    #[test]
    fn a_grace_period_beyond_the_clock_never_ends() {
        let mut shutdown = Shutdown::new();
        assert!(shutdown.stop(Duration::MAX, Instant::now()));
        assert_eq!(shutdown.deadline(), None);
    }

    #[test]
    fn a_receiver_learns_of_every_request_and_of_one_before_its_wait() {
        let mut shutdown = Shutdown::new();
        let mut signal = shutdown.signal();
        shutdown.stop(GRACE, Instant::now());
        pollster::block_on(signal.requested());
        assert_eq!(pollster::block_on(signal.changed()), ShutdownStage::Stopping);
        shutdown.cancel(Instant::now());
        assert_eq!(pollster::block_on(signal.changed()), ShutdownStage::Cancelled);
    }

    proptest! {
        #[test]
        fn stages_never_go_back(steps in prop::collection::vec((0u8..3, 0u64..100), 0..20)) {
            let (mut shutdown, mut now) = (Shutdown::new(), Instant::now());
            let mut last = shutdown.stage();
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 => drop(shutdown.stop(GRACE, now)),
                    1 => shutdown.cancel(now),
                    _ => drop(shutdown.advance(now)),
                }
                prop_assert!(shutdown.stage() >= last);
                prop_assert!(shutdown.deadline().is_none() || shutdown.stage() != ShutdownStage::Running);
                last = shutdown.stage();
            }
        }
    }
}
