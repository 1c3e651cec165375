//! The handle to a running engine: starts its threads, passes commands on, and joins it at the end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::engine::command::EngineCommand;
use crate::engine::counters::Counters;
use crate::engine::driver;
use crate::engine::settings::Settings;
use crate::engine::snapshot::Snapshot;
use crate::engine::threads::{self, BoundedThread, DRIVER_END, ThreadEnd};
use crate::error::{Error, ErrorKind, RESOURCE_LIMITS_ADVICE, Result};

/// The driver's thread, and the channel to it.
#[derive(Debug)]
pub(crate) struct EngineHandle {
    commands: Option<mpsc::Sender<EngineCommand>>,
    thread: Mutex<Option<BoundedThread>>,
    counters: Arc<Counters>,
}

impl EngineHandle {
    /// Starts the driver and its workers.
    ///
    /// # Errors
    /// When a setting cannot work, or the system refuses a thread.
    pub(crate) fn start(settings: Settings) -> Result<EngineHandle> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let driver = driver::prepare(settings, inbox)?;
        let counters = driver.counters();
        let refused = |error: io::Error| {
            let refused = Error::new(ErrorKind::Internal, "start the driver's thread").with_source(error);
            refused.because("the system refuses what a thread needs").with_advice(RESOURCE_LIMITS_ADVICE)
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let run = move || driver.run(ready);
        let thread = threads::start("ringlift-driver".to_owned(), run).map_err(refused)?;
        // Also returns when the driver drops its end: it runs then, or has panicked.
        if let Ok(error) = is_ready.recv() {
            return Err(refused(error));
        }
        Ok(EngineHandle { commands: Some(commands), thread: Mutex::new(Some(thread)), counters })
    }

    /// Returns the numbers of the engine, also after it has ended.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Sends a command to the driver. Waits while [`COMMANDS`] are queued.
    ///
    /// # Errors
    /// When the engine has ended.
    pub(crate) async fn command(&self, command: EngineCommand) -> Result<()> {
        let commands = self.commands.as_ref().ok_or_else(engine_ended)?;
        commands.send(command).await.map_err(|_| engine_ended())
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        // The driver ends when its command channel closes.
        self.commands = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may be dropped by a task on the driver's own thread, which cannot join itself.
        let Some(thread) = thread.filter(|thread| !thread.is_current()) else { return };
        match thread.join_until(Instant::now() + DRIVER_END) {
            ThreadEnd::Joined => {}
            ThreadEnd::Panicked => tracing::error!("the driver's thread panicked"),
            ThreadEnd::LeftBehind => {
                tracing::warn!("the driver is left behind: a file system does not answer")
            }
        }
    }
}

pub(crate) fn engine_ended() -> Error {
    Error::new(ErrorKind::Internal, "reach the engine, which has ended")
}

/// The commands that may wait for the driver; further senders wait.
const COMMANDS: usize = 64;
