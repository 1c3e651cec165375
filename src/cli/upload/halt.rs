//! How a run of uploads ends early.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cli::exit::Interrupt;

/// The word to stop, and by when it has to be obeyed.
#[derive(Debug)]
pub(super) struct Halt {
    stage: watch::Sender<Stage>,
    interrupt: Cell<Option<Interrupt>>,
    cancel_at: Cell<Option<Instant>>,
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Go on.
    Running,
    /// Begin nothing; what is under way may end.
    Stopping,
    /// End at once.
    Cancelled,
}

impl Halt {
    pub(super) fn new() -> Halt {
        let (stage, _) = watch::channel(Stage::Running);
        Halt { stage, interrupt: Cell::new(None), cancel_at: Cell::new(None) }
    }

    /// Asks for the end; says whether it is the first to do so.
    pub(super) fn stop(&self, interrupt: Interrupt, grace: Duration) -> bool {
        let first = self.interrupt.get().is_none();
        if first {
            self.interrupt.set(Some(interrupt));
            self.cancel_at.set(Instant::now().checked_add(grace));
            self.stage.send_replace(Stage::Stopping);
        }
        first
    }

    /// Ends everything at once.
    pub(super) fn cancel(&self) {
        if *self.stage.borrow() != Stage::Cancelled {
            self.cancel_at.set(Some(Instant::now()));
            self.stage.send_replace(Stage::Cancelled);
        }
    }

    pub(super) fn interrupt(&self) -> Option<Interrupt> {
        self.interrupt.get()
    }

    pub(super) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Ends with `work`, or with the interruption while it is under way.
    pub(super) async fn or_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let mut stage = self.stage();
        tokio::select! {
            done = work => Ok(done),
            _ = stage.wait_for(|stage| *stage != Stage::Running) => Err(self.interrupt().unwrap_or(Interrupt::Term)),
        }
    }

    /// When grace ends.
    pub(super) fn cancel_at(&self) -> Instant {
        match *self.stage.borrow() {
            Stage::Cancelled => never(),
            Stage::Running | Stage::Stopping => self.cancel_at.get().unwrap_or_else(never),
        }
    }

    /// When the uploads that were cancelled are no longer waited for.
    pub(super) fn abandon_at(&self) -> Instant {
        match (*self.stage.borrow(), self.cancel_at.get()) {
            (Stage::Cancelled, Some(cancelled_at)) => cancelled_at + LAST_WORDS,
            _ => never(),
        }
    }
}

/// Far enough away for a process, and within what clocks can hold.
fn never() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3600)
}

/// What a cancelled upload may take to say so.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_and_the_second_cancels() {
        let halt = Halt::new();
        let stage = halt.stage();
        assert!(halt.stop(Interrupt::Term, Duration::from_secs(30)));
        assert_eq!(*stage.borrow(), Stage::Stopping);
        assert!(!halt.stop(Interrupt::Int, Duration::ZERO));
        assert_eq!(halt.interrupt(), Some(Interrupt::Term));
        halt.cancel();
        assert_eq!(*stage.borrow(), Stage::Cancelled);
        assert!(halt.abandon_at() <= Instant::now() + LAST_WORDS);
    }

    #[test]
    fn without_a_signal_it_never_ends() {
        let soon = Instant::now() + Duration::from_secs(3600);
        assert!(Halt::new().cancel_at() > soon && Halt::new().abandon_at() > soon);
    }
}
