//! The queue between the thread of a watch and its reader.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::notice::WatchNotice;
use crate::bulk::walk::FoundFile;

/// The state that the thread of a watch shares with its reader.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<WatchQueue>,
    /// Notified when a file was added, and at the end.
    changed: Condvar,
    /// Ends the wait of the thread.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct WatchQueue {
    files: VecDeque<FoundFile>,
    notices: VecDeque<WatchNotice>,
    dropped_notices: u64,
    status: WatchStatus,
    is_stopped: bool,
    is_ended: bool,
}

/// The state of a watch at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchStatus {
    /// The steps of the watch's thread so far, several a second. A watch whose number stays waits for a file system that
    /// does not respond.
    pub steps: u64,
    /// The files that may still change.
    pub pending: usize,
    /// The complete files that wait for the reader.
    pub queued: usize,
    /// The watched folders that are gone at the moment.
    pub folders_gone: usize,
    /// `true` while a folder is scanned as a whole.
    pub is_scanning: bool,
    /// `true` if the thread has ended.
    pub is_ended: bool,
}

impl Shared {
    pub(super) fn new() -> io::Result<Shared> {
        // Non-blocking, because the thread resets the counter also when no wake came.
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Shared { queue: Mutex::default(), changed: Condvar::new(), wake })
    }

    /// Adds a complete file. The caller has asked [`Shared::has_room`].
    pub(super) fn add(&self, file: FoundFile) {
        self.lock().files.push_back(file);
        self.changed.notify_all();
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().files.len() < MOST_FILES
    }

    /// Adds a notice. The oldest is dropped if no reader takes them.
    pub(super) fn notify(&self, notice: WatchNotice) {
        let mut queue = self.lock();
        if queue.notices.len() >= MOST_NOTICES {
            queue.notices.pop_front();
            queue.dropped_notices += 1;
        }
        queue.notices.push_back(notice);
    }

    /// Sets the status of the thread, but for what this queue knows itself.
    pub(super) fn set_status(&self, status: WatchStatus) {
        self.lock().status = status;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Returns the descriptor that is readable when the thread should go on.
    pub(super) fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes back the request to go on.
    pub(super) fn reset_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn wake(&self) {
        // Fails only if 2^64 - 2 requests are open.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, WatchQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle of a [`Watch`](super::Watch), for other threads than its reader.
#[derive(Clone, Debug)]
pub struct WatchHandle(Arc<Shared>);

impl WatchHandle {
    pub(super) fn new(shared: Shared) -> WatchHandle {
        WatchHandle(Arc::new(shared))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.0.clone()
    }

    /// Ends the watch: its iterator returns `None` from now on. Files that were not taken are found again by the next
    /// watch. Does not wait.
    pub fn stop(&self) {
        self.0.lock().is_stopped = true;
        self.0.changed.notify_all();
        self.0.wake();
    }

    /// Takes the notices so far, the oldest first. At most 256 are kept.
    pub fn notices(&self) -> Vec<WatchNotice> {
        let mut queue = self.0.lock();
        let count = std::mem::take(&mut queue.dropped_notices);
        let dropped = (count > 0).then_some(WatchNotice::NoticesDropped { count });
        dropped.into_iter().chain(queue.notices.drain(..)).collect()
    }

    /// Returns the state of the watch.
    pub fn status(&self) -> WatchStatus {
        let queue = self.0.lock();
        WatchStatus { queued: queue.files.len(), is_ended: queue.is_ended, ..queue.status }
    }

    /// Waits for the next file; `None` after the end.
    pub(super) fn next_file(&self) -> Option<FoundFile> {
        let is_waiting =
            |queue: &mut WatchQueue| queue.files.is_empty() && !queue.is_stopped && !queue.is_ended;
        let mut queue =
            self.0.changed.wait_while(self.0.lock(), is_waiting).unwrap_or_else(PoisonError::into_inner);
        if queue.is_stopped {
            return None;
        }
        let was_full = queue.files.len() >= MOST_FILES;
        let file = queue.files.pop_front();
        drop(queue);
        if was_full {
            self.0.wake();
        }
        file
    }

    /// Waits for the end of the thread. Returns `false` if it does not come in time.
    pub(super) fn wait_for_end(&self) -> bool {
        let is_running = |queue: &mut WatchQueue| !queue.is_ended;
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), LONGEST_END, is_running);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ended
    }
}

/// Sets the end when it is dropped.
#[derive(Debug)]
pub(super) struct EndGuard(pub(super) Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.lock().is_ended = true;
        self.0.changed.notify_all();
    }
}

/// The complete files that wait for the reader.
const MOST_FILES: usize = 64;

const MOST_NOTICES: usize = 256;

/// The time for the thread to end. A file system that does not respond may hold it in the kernel.
const LONGEST_END: Duration = Duration::from_secs(2);
