//! Early end of a run of uploads.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cli::exit::Interrupt;

/// Shutdown request and its deadlines.
#[derive(Debug)]
pub(super) struct Shutdown {
    stage: watch::Sender<ShutdownStage>,
    interrupt: Cell<Option<Interrupt>>,
    cancel_at: Cell<Option<Instant>>,
}

/// Urgency of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownStage {
    /// No shutdown was requested.
    Running,
    /// No new work starts; active chunks may finish.
    Stopping,
    /// Everything ends immediately.
    Cancelled,
}

impl Shutdown {
    pub(super) fn new() -> Shutdown {
        let (stage, _) = watch::channel(ShutdownStage::Running);
        Shutdown { stage, interrupt: Cell::new(None), cancel_at: Cell::new(None) }
    }

    /// Requests a graceful shutdown. Returns `true` for the first request.
    pub(super) fn stop(&self, interrupt: Interrupt, grace: Duration) -> bool {
        let first = self.interrupt.get().is_none();
        if first {
            self.interrupt.set(Some(interrupt));
            self.cancel_at.set(Instant::now().checked_add(grace));
            self.stage.send_replace(ShutdownStage::Stopping);
        }
        first
    }

    /// Cancels all uploads immediately.
    pub(super) fn cancel(&self) {
        if *self.stage.borrow() != ShutdownStage::Cancelled {
            self.cancel_at.set(Some(Instant::now()));
            self.stage.send_replace(ShutdownStage::Cancelled);
        }
    }

    pub(super) fn interrupt(&self) -> Option<Interrupt> {
        self.interrupt.get()
    }

    pub(super) fn stage(&self) -> watch::Receiver<ShutdownStage> {
        self.stage.subscribe()
    }

    /// Runs `work` until it completes or a shutdown is requested.
    pub(super) async fn or_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let mut stage = self.stage();
        tokio::select! {
            done = work => Ok(done),
            _ = stage.wait_for(|stage| *stage != ShutdownStage::Running) => Err(self.interrupt().unwrap_or(Interrupt::Term)),
        }
    }

    /// Returns the end of the grace period.
    pub(super) fn cancel_at(&self) -> Instant {
        match *self.stage.borrow() {
            ShutdownStage::Cancelled => never(),
            ShutdownStage::Running | ShutdownStage::Stopping => self.cancel_at.get().unwrap_or_else(never),
        }
    }

    /// Returns the time after which cancelled uploads are abandoned.
    pub(super) fn abandon_at(&self) -> Instant {
        match (*self.stage.borrow(), self.cancel_at.get()) {
            (ShutdownStage::Cancelled, Some(cancelled_at)) => cancelled_at + CANCEL_TIMEOUT,
            _ => never(),
        }
    }
}

/// A date beyond the life of every process, and within the range of the clock.
fn never() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3600)
}

/// Time for a cancelled upload to report its end.
pub(super) const CANCEL_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_and_the_second_cancels() {
        let shutdown = Shutdown::new();
        let stage = shutdown.stage();
        assert!(shutdown.stop(Interrupt::Term, Duration::from_secs(30)));
        assert_eq!(*stage.borrow(), ShutdownStage::Stopping);
        assert!(!shutdown.stop(Interrupt::Int, Duration::ZERO));
        assert_eq!(shutdown.interrupt(), Some(Interrupt::Term));
        shutdown.cancel();
        assert_eq!(*stage.borrow(), ShutdownStage::Cancelled);
        assert!(shutdown.abandon_at() <= Instant::now() + CANCEL_TIMEOUT);
    }

    #[test]
    fn without_a_signal_there_is_no_deadline() {
        let soon = Instant::now() + Duration::from_secs(3600);
        assert!(Shutdown::new().cancel_at() > soon && Shutdown::new().abandon_at() > soon);
    }
}
