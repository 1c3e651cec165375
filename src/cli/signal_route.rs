//! Destination of received signals, shared by the console and the thread that receives them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::exit::Interrupt;

/// Destination of received signals. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SignalRoute(Arc<Mutex<Option<Listener>>>);

/// A command that handles signals itself.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) sender: mpsc::Sender<Interrupt>,
    /// Longest time that the process may continue after the first signal; `None` is no limit.
    pub(super) bound: Option<Duration>,
    /// Number of signals forwarded so far.
    pub(super) received: u32,
}

impl SignalRoute {
    /// Locks and returns the listener, if a command listens.
    pub(super) fn listener(&self) -> MutexGuard<'_, Option<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
