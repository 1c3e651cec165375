//! SIGINT and SIGTERM, as values that can be waited for.

use std::io;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;

use super::exit::{Failure, Interrupt};

/// The signals that ask for the end, from now on until this is dropped.
///
/// One thread hears them; it is joined by the drop.
#[derive(Debug)]
pub(super) struct Interrupts {
    heard: mpsc::Receiver<Interrupt>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Interrupts {
    pub(super) fn new() -> Result<Interrupts, Failure> {
        let failed = |error: io::Error| Failure::io("listen for signals", error);
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let handle = signals.handle();
        let (hear, heard) = mpsc::channel(SIGNALS);
        let listen = move || {
            for signal in signals.forever() {
                let interrupt = if signal == SIGTERM { Interrupt::Term } else { Interrupt::Int };
                // Whoever did not react to the first few will not react to one more.
                let _ = hear.try_send(interrupt);
            }
        };
        let thread =
            thread::Builder::new().name("ringlift-signals".to_owned()).spawn(listen).map_err(failed)?;
        Ok(Interrupts { heard, handle, thread: Some(thread) })
    }

    /// The next signal. May be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Interrupt {
        match self.heard.recv().await {
            Some(interrupt) => interrupt,
            None => std::future::pending().await,
        }
    }

    /// The signal that came since the last look, if one did.
    pub(super) fn look(&mut self) -> Option<Interrupt> {
        self.heard.try_recv().ok()
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It only loops over signals: there is nothing in it that panics.
            let _ = thread.join();
        }
    }
}

/// Signals that may wait to be noticed.
const SIGNALS: usize = 8;
