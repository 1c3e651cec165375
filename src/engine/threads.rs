//! Threads that are joined with a time limit.
//!
//! A thread that waits for a disk or a network file system is in the kernel, where nothing can end it. So no wait for
//! it may be without a limit.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A thread, and a channel that closes when the thread ends.
#[derive(Debug)]
pub(crate) struct BoundedThread {
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

/// The end of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadEnd {
    Joined,
    Panicked,
    /// The thread has not ended in time. It runs on until the kernel returns.
    LeftBehind,
}

/// Starts a thread.
pub(crate) fn start(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<BoundedThread> {
    let (end, ended) = channel();
    let run = move || {
        // Dropped when the closure ends, by a panic too.
        let _end: Sender<()> = end;
        run();
    };
    let thread = thread::Builder::new().name(name).spawn(run)?;
    Ok(BoundedThread { thread, ended })
}

impl BoundedThread {
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub(crate) fn is_current(&self) -> bool {
        self.thread.thread().id() == thread::current().id()
    }

    /// Waits for the thread's end until `deadline`.
    pub(crate) fn join_until(self, deadline: Instant) -> ThreadEnd {
        // `JoinHandle::join` has no timeout, the channel has.
        let left = deadline.saturating_duration_since(Instant::now());
        match self.ended.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => ThreadEnd::LeftBehind,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => match self.thread.join() {
                Ok(()) => ThreadEnd::Joined,
                Err(_) => ThreadEnd::Panicked,
            },
        }
    }
}

/// The driver's time limit for joining all its workers.
pub(crate) const WORKERS_END: Duration = Duration::from_secs(2);
/// The time limit of the last handle for joining the driver, which joins its workers first.
pub(crate) const DRIVER_END: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_end_is_left_behind_and_others_are_joined() {
        let soon = || Instant::now() + Duration::from_millis(50);
        let (hold, held) = channel::<()>();
        let stuck = start("stuck".to_owned(), move || {
            let _ = held.recv();
        })
        .unwrap();
        assert_eq!(stuck.join_until(soon()), ThreadEnd::LeftBehind);
        drop(hold);
        let late = Instant::now() + Duration::from_secs(60);
        assert_eq!(start("quick".to_owned(), || {}).unwrap().join_until(late), ThreadEnd::Joined);
        let broken = start("broken".to_owned(), || panic!("on purpose")).unwrap();
        assert_eq!(broken.join_until(late), ThreadEnd::Panicked);
    }
}
