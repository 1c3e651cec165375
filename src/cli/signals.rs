//! SIGINT, SIGTERM and SIGHUP, for the whole life of the process.
//!
//! One thread receives them. While a command listens ([`Interrupts`]), the command handles them. Otherwise,
//! or if the command does not react, the thread writes the summary and exits the process. The thread is never
//! joined.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

use super::exit::{Failure, Interrupt};
use super::screen::Screen;

/// Destination of received signals. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Route(Arc<Mutex<Option<Listener>>>);

#[derive(Debug)]
struct Listener {
    tell: mpsc::Sender<Interrupt>,
    /// Longest time that the process may continue after the first signal; `None` is no limit.
    bound: Option<Duration>,
    heard: u32,
}

impl Route {
    fn listener(&self) -> MutexGuard<'_, Option<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that receives signals.
///
/// SIGHUP stays ignored if it was ignored at the start, which nohup(1) relies on.
pub(super) fn start(screen: &Screen) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("listen for signals", error);
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup)).map_err(failed)?;
    let screen = screen.clone();
    let receive = move || {
        for signal in signals.forever() {
            receive(&screen, Interrupt::of(signal));
        }
    };
    thread::Builder::new().name("ringlift-signals".to_owned()).spawn(receive).map(drop).map_err(failed)
}

fn receive(screen: &Screen, interrupt: Interrupt) {
    if !pass_on(screen, interrupt) {
        screen.last_words(interrupt);
    }
}

/// Forwards a signal to the listening command. Returns `false` if no command listens, or if it has received
/// enough signals.
fn pass_on(screen: &Screen, interrupt: Interrupt) -> bool {
    let mut route = screen.route().listener();
    let Some(listener) = route.as_mut().filter(|listener| listener.heard < MOST_SIGNALS) else {
        return false;
    };
    listener.heard += 1;
    // With a full queue the command has not reacted to several signals; one more changes nothing.
    let _ = listener.tell.try_send(interrupt);
    if let (1, Some(bound)) = (listener.heard, listener.bound) {
        let screen = screen.clone();
        let end = move || {
            thread::sleep(bound);
            screen.last_words(interrupt);
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
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

/// Signals for the command that handles them. Dropping the value ends the subscription.
#[derive(Debug)]
pub(super) struct Interrupts {
    heard: mpsc::Receiver<Interrupt>,
    route: Route,
}

impl Interrupts {
    /// Subscribes to signals. `bound` limits how long the process may continue after the first one.
    pub(super) fn new(screen: &Screen, bound: Option<Duration>) -> Interrupts {
        let (tell, heard) = mpsc::channel(SIGNALS);
        let route = screen.route().clone();
        *route.listener() = Some(Listener { tell, bound, heard: 0 });
        Interrupts { heard, route }
    }

    /// Waits for the next signal. Dropping the future loses no signal.
    pub(super) async fn next(&mut self) -> Interrupt {
        match self.heard.recv().await {
            Some(interrupt) => interrupt,
            None => std::future::pending().await,
        }
    }

    /// Returns the signal received since the last call, if there is one.
    pub(super) fn look(&mut self) -> Option<Interrupt> {
        self.heard.try_recv().ok()
    }

    /// Fails if a signal was received since the last call.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.look().map_or(Ok(()), |interrupt| Err(Failure::Interrupted(interrupt)))
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        *self.route.listener() = None;
    }
}

/// Capacity of the queue of unhandled signals.
const SIGNALS: usize = 8;

/// The first signal stops gracefully and the second cancels. A third one exits the process directly.
const MOST_SIGNALS: u32 = 2;
