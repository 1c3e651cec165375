//! SIGINT, SIGTERM and SIGHUP, from the start of the process to its end.
//!
//! One thread receives them. While a command listens ([`Interrupts`]) they are its to act on; otherwise, and
//! when it does not act, the thread itself says the last words and ends the process. It is never joined.

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

/// Where signals go. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Route(Arc<Mutex<Option<Listener>>>);

#[derive(Debug)]
struct Listener {
    tell: mpsc::Sender<Interrupt>,
    /// How long the process may go on after the first signal.
    bound: Option<Duration>,
    heard: u32,
}

impl Route {
    fn listener(&self) -> MutexGuard<'_, Option<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives signals from now on.
///
/// SIGHUP is left alone where it was ignored at the start: nohup(1) means that.
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

/// Tells the command that listens; false when none does, or when it was told often enough.
fn pass_on(screen: &Screen, interrupt: Interrupt) -> bool {
    let mut route = screen.route().listener();
    let Some(listener) = route.as_mut().filter(|listener| listener.heard < MOST_SIGNALS) else {
        return false;
    };
    listener.heard += 1;
    // A full queue means that the command has not acted on several signals: one more changes nothing.
    let _ = listener.tell.try_send(interrupt);
    if let (1, Some(bound)) = (listener.heard, listener.bound) {
        let screen = screen.clone();
        let end = move || {
            thread::sleep(bound);
            screen.last_words(interrupt);
        };
        // Without this thread a third signal still ends the process.
        let _ = thread::Builder::new().name("ringlift-deadline".to_owned()).spawn(end);
    }
    true
}

/// Whether the process was started with the signal ignored (`SigIgn`, proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

/// The signals for a command that acts on them, until this is dropped.
#[derive(Debug)]
pub(super) struct Interrupts {
    heard: mpsc::Receiver<Interrupt>,
    route: Route,
}

impl Interrupts {
    /// `bound` is how long the process may go on after the first signal, whatever the command does.
    pub(super) fn new(screen: &Screen, bound: Option<Duration>) -> Interrupts {
        let (tell, heard) = mpsc::channel(SIGNALS);
        let route = screen.route().clone();
        *route.listener() = Some(Listener { tell, bound, heard: 0 });
        Interrupts { heard, route }
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

    /// Fails when a signal came since the last look.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.look().map_or(Ok(()), |interrupt| Err(Failure::Interrupted(interrupt)))
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        *self.route.listener() = None;
    }
}

/// Signals that may wait to be noticed.
const SIGNALS: usize = 8;

/// The first lets chunks end, the second ends them; who sends a third one gets no answer to either.
const MOST_SIGNALS: u32 = 2;
