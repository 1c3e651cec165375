//! SIGINT, SIGTERM and SIGHUP, for the whole life of the process.
//!
//! One thread receives them. While a command listens ([`Interrupts`]), the command handles them. Otherwise,
//! or if the command does not react, the thread writes the summary and exits the process. The thread is never
//! joined.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

use super::console::Console;
use super::exit::{CommandError, Interrupt};
use super::signal_route::{Listener, SignalRoute};

/// Starts the thread that receives signals.
///
/// SIGHUP stays ignored if it was ignored at the start, which nohup(1) relies on.
pub(super) fn start(console: &Console) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::io("listen for signals", error);
    // A write beyond `ulimit -f` then fails with EFBIG (setrlimit(2)) and is reported; the signal would end the process.
    flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup)).map_err(failed)?;
    let console = console.clone();
    let receive = move || {
        for signal in signals.forever() {
            receive(&console, Interrupt::of(signal));
        }
    };
    thread::Builder::new().name("ringlift-signals".to_owned()).spawn(receive).map(drop).map_err(failed)
}

fn receive(console: &Console, interrupt: Interrupt) {
    if !forward(console, interrupt) {
        console.exit_on_signal(interrupt);
    }
}

/// Forwards a signal to the listening command. Returns `false` if no command listens, or if it has received
/// enough signals.
fn forward(console: &Console, interrupt: Interrupt) -> bool {
    let mut route = console.route().listener();
    let Some(listener) = route.as_mut().filter(|listener| listener.received < MAX_FORWARDED) else {
        return false;
    };
    listener.received += 1;
    // With a full queue the command has not reacted to several signals; one more changes nothing.
    let _ = listener.sender.try_send(interrupt);
    // A command that hangs in the kernel cannot end by itself: the deadline ends the process.
    if let (1, Some(bound)) = (listener.received, listener.bound) {
        let console = console.clone();
        let end = move || {
            thread::sleep(bound);
            console.exit_on_signal(interrupt);
        };
        // If this thread cannot start, a third signal still ends the process.
        let _ = thread::Builder::new().name("ringlift-deadline".to_owned()).spawn(end);
    }
    true
}

/// Returns `true` if the process was started with the signal ignored (`SigIgn`, proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Without /proc the signal counts as not ignored, as in most processes.
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // The lowest bit stands for signal 1.
    mask & (1 << (signal - 1)) != 0
}

/// Signals for the command that handles them. Dropping the value ends the subscription.
#[derive(Debug)]
pub(super) struct Interrupts {
    received: mpsc::Receiver<Interrupt>,
    route: SignalRoute,
}

impl Interrupts {
    /// Subscribes to signals. `bound` limits how long the process may continue after the first one.
    pub(super) fn new(console: &Console, bound: Option<Duration>) -> Interrupts {
        let (sender, received) = mpsc::channel(QUEUE_LEN);
        let route = console.route().clone();
        *route.listener() = Some(Listener { sender, bound, received: 0 });
        Interrupts { received, route }
    }

    /// Waits for the next signal. Dropping the future loses no signal.
    pub(super) async fn next(&mut self) -> Interrupt {
        match self.received.recv().await {
            Some(interrupt) => interrupt,
            // Another part of the command has subscribed in the meantime, and receives the signals.
            None => std::future::pending().await,
        }
    }

    /// Returns the signal received since the last call, if there is one.
    pub(super) fn try_next(&mut self) -> Option<Interrupt> {
        self.received.try_recv().ok()
    }

    /// Fails if a signal was received since the last call.
    pub(super) fn check(&mut self) -> Result<(), CommandError> {
        self.try_next().map_or(Ok(()), |interrupt| Err(CommandError::Interrupted(interrupt)))
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        *self.route.listener() = None;
    }
}

/// Capacity of the queue of unhandled signals.
const QUEUE_LEN: usize = 8;

/// The first signal stops gracefully and the second cancels. A third one exits the process directly.
const MAX_FORWARDED: u32 = 2;
