//! The queue of texts for one place, and the waits for it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::sync::Notify;

use super::stream::Stream;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) state: Mutex<QueueState>,
    /// Wakes threads.
    pub(super) changed: Condvar,
    /// Wakes the writer from its pause. Apart from `changed`, so that a text does not wake it.
    awaited: Condvar,
    /// Wakes futures.
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
pub(super) struct QueueState {
    pub(super) texts: VecDeque<(Stream, Vec<u8>)>,
    /// Number of bytes in the queue, including the text that is being written.
    pub(super) bytes: usize,
    /// Number of texts queued so far, and of those that have left the queue.
    pub(super) pushed: u64,
    pub(super) done: u64,
    pub(super) out: StreamHealth,
    pub(super) err: StreamHealth,
    pub(super) has_thread: bool,
    /// `true` if a caller waits for the texts in the queue.
    pub(super) is_awaited: bool,
    /// Number of threads that wait for a change.
    pub(super) waiting: usize,
    /// Thread that runs the event loop and must never wait for room.
    pub(super) must_not_wait: Option<ThreadId>,
    /// Time of the first signal, after which every wait is short.
    pub(super) hurried_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamHealth {
    #[default]
    Sound,
    /// The reader has closed the pipe (EPIPE).
    Closed,
    /// The text with this number and all later ones could not be written.
    Broken { number: u64, errno: Errno },
}

/// Texts that are written together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OldestTexts {
    pub(super) stream: Stream,
    pub(super) bytes: Vec<u8>,
    /// The end of each text in `bytes`.
    pub(super) ends: Vec<usize>,
    /// Number of texts that have left the queue before.
    pub(super) done: u64,
    /// `false` after an error of the stream.
    pub(super) is_sound: bool,
}

impl Queue {
    pub(super) fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` returns `Some`.
    pub(super) async fn when<T>(&self, mut look: impl FnMut(&mut QueueState) -> Option<T>) -> T {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Registered before the check, or a change in between would be missed.
            news.as_mut().enable();
            if let Some(found) = look(&mut self.state()) {
                return found;
            }
            news.await;
        }
    }

    pub(super) fn wait_for_text(&self) {
        let mut state = self.state();
        while state.texts.is_empty() {
            state = self.wait(state);
        }
    }

    /// Lets texts gather, unless a caller waits for them.
    pub(super) fn pause(&self, longest: Duration) {
        let is_idle = |state: &mut QueueState| !state.is_awaited;
        let paused = self.awaited.wait_timeout_while(self.state(), longest, is_idle);
        paused.unwrap_or_else(PoisonError::into_inner).0.is_awaited = false;
    }

    /// Ends the pause of the writer, because a caller waits for the texts in the queue.
    pub(super) fn end_pause(&self) {
        let mut state = self.state();
        // Without a text no writer would take this back, and the next pause would be left out.
        if state.done < state.pushed && !std::mem::replace(&mut state.is_awaited, true) {
            drop(state);
            self.awaited.notify_one();
        }
    }

    /// Waits until the state has changed.
    pub(super) fn wait<'a>(&self, mut state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        state.waiting += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Releases the state, and wakes the threads that wait for a change of it.
    pub(super) fn notify(&self, state: MutexGuard<'_, QueueState>) {
        // A notification is a system call, also when no thread waits.
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            // All of them, because the writer and the threads that wait for room share one condition.
            self.changed.notify_all();
        }
    }

    /// Takes the oldest texts of one stream, which are to be written by one call; `None` if the queue is empty.
    pub(super) fn take_oldest(&self) -> Option<OldestTexts> {
        self.state().take_oldest()
    }

    /// Records an error of the text with this number and of all later ones.
    pub(super) fn fail(&self, stream: Stream, number: u64, errno: Errno) {
        let broken = StreamHealth::Broken { number, errno };
        *self.state().health(stream) = if errno == Errno::PIPE { StreamHealth::Closed } else { broken };
    }

    /// Records that texts have left the queue.
    pub(super) fn finish(&self, texts: &OldestTexts) {
        let mut state = self.state();
        state.done = texts.done + texts.ends.len() as u64;
        state.bytes -= texts.bytes.len();
        self.notify(state);
        self.news.notify_waiters();
    }

    pub(super) fn drain(&self, started: Instant) {
        self.end_pause();
        let mut state = self.state();
        while state.done < state.pushed {
            // Without a signal there is no limit: a pager may rest at its first page for hours.
            let Some(hurried_at) = state.hurried_at else {
                state = self.wait(state);
                continue;
            };
            let left = left_of(hurried_at, started);
            if left.is_zero() {
                return;
            }
            state.waiting += 1;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }
}

impl QueueState {
    pub(super) fn health(&mut self, stream: Stream) -> &mut StreamHealth {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    /// Takes the oldest text and those after it that one write can have with it; `None` if there is none.
    pub(super) fn take_oldest(&mut self) -> Option<OldestTexts> {
        let (stream, bytes) = self.texts.pop_front()?;
        let is_sound = *self.health(stream) == StreamHealth::Sound;
        let mut oldest = OldestTexts { stream, ends: vec![bytes.len()], bytes, done: self.done, is_sound };
        while let Some((next, text)) = self.texts.front()
            && *next == stream
            && oldest.bytes.len() + text.len() <= ATOMIC_BYTES
        {
            oldest.bytes.extend_from_slice(text);
            oldest.ends.push(oldest.bytes.len());
            self.texts.pop_front();
        }
        Some(oldest)
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.texts.len() >= FULL_TEXTS
    }
}

/// Returns the remaining time to wait for a reader, after a signal at `hurried_at` and a wait that began at
/// `started`.
pub(super) fn left_of(hurried_at: Instant, started: Instant) -> Duration {
    // A wait that begins after the signal has its full time, too: the summary is queued only then.
    (hurried_at.max(started) + READER_TIMEOUT).saturating_duration_since(Instant::now())
}

/// Limits above which a queue is full and callers wait.
const FULL_BYTES: usize = 1 << 20;
const FULL_TEXTS: usize = 4096;

/// The most bytes of several texts in one write: up to PIPE_BUF, a pipe with several writers keeps them whole (pipe(7)).
const ATOMIC_BYTES: usize = 4096;

/// Time to wait for a reader after a signal.
const READER_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(texts: usize, bytes: usize) -> QueueState {
        let text = vec![b'x'; bytes];
        QueueState {
            bytes: texts * bytes,
            texts: vec![(Stream::Out, text); texts].into(),
            ..QueueState::default()
        }
    }

    #[test]
    fn queue_is_full_by_bytes_or_by_number_of_texts() {
        assert!(!queue_of(10, 100).is_full());
        assert!(queue_of(FULL_TEXTS, 1).is_full());
        assert!(queue_of(2, FULL_BYTES / 2).is_full());
    }

    #[test]
    fn lines_of_one_stream_are_written_together_and_keep_their_order() {
        let line = |stream, byte: u8, len| (stream, vec![byte; len]);
        let texts = [
            line(Stream::Out, b'a', 1000),
            line(Stream::Out, b'b', 3000),
            line(Stream::Out, b'c', 97),
            line(Stream::Err, b'd', 5),
            line(Stream::Out, b'e', 10_000),
        ];
        let mut state = QueueState { texts: texts.into(), ..QueueState::default() };
        let taken: Vec<_> = std::iter::from_fn(|| state.take_oldest()).collect();
        let ends: Vec<_> = taken.iter().map(|texts| (texts.stream, texts.ends.clone())).collect();
        let (out, err) = (Stream::Out, Stream::Err);
        assert_eq!(ends, [(out, vec![1000, 4000]), (out, vec![97]), (err, vec![5]), (out, vec![10_000])]);
        assert_eq!(taken[0].bytes, [vec![b'a'; 1000], vec![b'b'; 3000]].concat());
    }
}
