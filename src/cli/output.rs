//! Standard output and standard error: one queue and one writer thread each.
//!
//! A full, non-blocking or unread pipe blocks only the writer thread, never the event loop that receives
//! signals. Lines keep their order. If both streams lead to the same place they share a queue, which
//! preserves the order between them.

mod queue;
mod stream;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use queue::{OldestTexts, Queue, QueueState, StreamHealth, left_of};
pub(super) use stream::Stream;
use stream::{is_same_place, write_all};

/// Treatment of a text while the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The text is dropped, because a later one replaces it. For frames of the progress bar.
    Passing,
    /// The caller waits for room, except on the thread that must not wait.
    Line,
    /// The text is queued regardless of the limit. For the last line.
    Last,
}

/// Both streams. Clones share the queues.
#[derive(Clone, Debug)]
pub(super) struct Output {
    out: Arc<Queue>,
    err: Arc<Queue>,
}

/// Handle to wait until one text is written.
#[must_use]
#[derive(Debug)]
pub(super) struct PendingWrite {
    queue: Arc<Queue>,
    stream: Stream,
    number: u64,
    is_queued: bool,
}

impl Output {
    pub(super) fn new() -> Output {
        let out = Arc::<Queue>::default();
        // One queue, so that results and messages keep their order in a shared terminal or file.
        let err = if is_same_place() { Arc::clone(&out) } else { Arc::default() };
        Output { out, err }
    }

    /// Queues a text without waiting; see [`Output::wait_for_room`].
    pub(super) fn push(&self, stream: Stream, text: Vec<u8>, urgency: Urgency) -> PendingWrite {
        let queue = self.queue(stream);
        let mut state = queue.state();
        let most = match urgency {
            Urgency::Passing => PASSING_BYTES,
            Urgency::Line => HARD_BYTES,
            Urgency::Last => usize::MAX,
        };
        let is_queued = *state.health(stream) == StreamHealth::Sound && state.bytes < most;
        if is_queued {
            state.pushed += 1;
            state.bytes += text.len();
            state.texts.push_back((stream, text));
        }
        let write = PendingWrite { queue: Arc::clone(queue), stream, number: state.pushed, is_queued };
        // Under the lock, so that only one of two callers starts the thread.
        let has_thread = std::mem::replace(&mut state.has_thread, true);
        // The writer takes this lock, also when it is the caller itself.
        queue.notify(state);
        if !has_thread {
            self.start(queue);
        }
        write
    }

    /// Returns the handle of the last text that was queued for the stream.
    pub(super) fn last(&self, stream: Stream) -> PendingWrite {
        let queue = self.queue(stream);
        let number = queue.state().pushed;
        PendingWrite { queue: Arc::clone(queue), stream, number, is_queued: true }
    }

    /// Starts the writer thread. If no thread can be created, the caller writes the queue itself.
    fn start(&self, queue: &Arc<Queue>) {
        let (own, output) = (Arc::clone(queue), self.clone());
        let write = move || {
            loop {
                own.wait_for_text();
                while output.write_next(&own) {}
                // A run over small files has thousands of lines a second: without this pause, each of them wakes this
                // thread.
                own.pause(BETWEEN_WRITES);
            }
        };
        if thread::Builder::new().name("ringlift-output".to_owned()).spawn(write).is_err() {
            queue.state().has_thread = false;
            while self.write_next(queue) {}
        }
    }

    /// Writes the oldest texts of one stream by one call. Returns `false` if the queue is empty.
    fn write_next(&self, queue: &Queue) -> bool {
        // The queue is not locked during the write, which may block for as long as the reader likes.
        let Some(texts) = queue.take_oldest() else { return false };
        let OldestTexts { stream, bytes, ends, done, is_sound } = &texts;
        let written = if *is_sound { write_all(*stream, bytes) } else { Ok(()) };
        if let Err((errno, written)) = written {
            let whole = ends.iter().filter(|end| **end <= written).count() as u64;
            // The error is recorded before the texts count as written, because a waiting thread may then exit
            // the process.
            queue.fail(*stream, done + whole + 1, errno);
            self.report(*stream, errno);
        }
        queue.finish(&texts);
        true
    }

    /// Reports a write error of standard output. A closed pipe is not an error.
    fn report(&self, stream: Stream, errno: Errno) {
        if stream == Stream::Out && errno != Errno::PIPE {
            // Also at a full queue: the exit code alone does not say what failed.
            let text = format!("ringlift: could not write to standard output: {}\n", io::Error::from(errno));
            let _ = self.push(Stream::Err, text.into_bytes(), Urgency::Last);
        }
    }

    fn queue(&self, stream: Stream) -> &Arc<Queue> {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }

    /// Blocks while the stream's queue is full, unless a signal was received or the current thread must not
    /// wait.
    pub(super) fn wait_for_room(&self, stream: Stream) {
        let queue = self.queue(stream);
        let mut state = queue.state();
        let this = Some(thread::current().id());
        while state.is_full() && state.hurried_at.is_none() && state.must_not_wait != this {
            state = queue.wait(state);
        }
    }

    /// Waits until neither queue is full, or a signal is received.
    pub(super) async fn room(&self) {
        for queue in [&self.out, &self.err] {
            queue.when(|state| (!state.is_full() || state.hurried_at.is_some()).then_some(())).await;
        }
    }

    /// Lets the queued lines of standard output be written at once: the caller does nothing else until they are.
    pub(super) fn write_now(&self) {
        self.out.end_pause();
    }

    /// Returns `true` if neither queue is full.
    pub(super) fn has_room(&self) -> bool {
        [&self.out, &self.err].into_iter().all(|queue| !queue.state().is_full())
    }

    /// Marks the current thread, which receives signals, as one that never waits for room.
    pub(super) fn must_not_wait(&self) {
        for queue in [&self.out, &self.err] {
            queue.state().must_not_wait = Some(thread::current().id());
        }
    }

    /// Records a signal: waits for room end, and waits for a reader become short.
    pub(super) fn hurry(&self) {
        for queue in [&self.out, &self.err] {
            // The time counts from the first signal: a second one grants the reader no more.
            queue.state().hurried_at.get_or_insert(Instant::now());
            queue.changed.notify_all();
            queue.news.notify_waiters();
        }
    }

    /// Blocks until the queues are written, or for at most [`READER_TIMEOUT`] after a signal.
    pub(super) fn drain(&self) {
        let started = Instant::now();
        for queue in [&self.out, &self.err] {
            queue.drain(started);
        }
    }

    /// Returns `true` unless nothing more can be written to standard output, so that a long list can end early.
    pub(super) fn has_reader(&self) -> bool {
        *self.out.state().health(Stream::Out) == StreamHealth::Sound
    }

    /// Returns the error of standard output. A closed pipe is not an error.
    pub(super) fn failure(&self) -> Option<io::Error> {
        match *self.out.state().health(Stream::Out) {
            StreamHealth::Broken { errno, .. } => Some(errno.into()),
            StreamHealth::Sound | StreamHealth::Closed => None,
        }
    }
}

impl PendingWrite {
    /// Waits until the text is written. Returns `false` if writing failed; a closed pipe counts as written.
    pub(super) async fn is_written(&self) -> bool {
        let started = Instant::now();
        let written = self.queue.when(|state| self.outcome(state));
        tokio::pin!(written);
        loop {
            let hurried_at = self.queue.state().hurried_at;
            let bound = hurried_at.map_or(POLL_INTERVAL, |at| left_of(at, started));
            match tokio::time::timeout(bound, &mut written).await {
                Ok(outcome) => return outcome,
                Err(_) if hurried_at.is_some() => return false,
                Err(_) => {}
            }
        }
    }

    fn outcome(&self, state: &mut QueueState) -> Option<bool> {
        match *state.health(self.stream) {
            StreamHealth::Closed => Some(true),
            // Texts before the failed one were written, and their ids are not lost.
            StreamHealth::Broken { number, .. } if self.number >= number => Some(false),
            // Dropped at a full queue: its number is that of the text before it.
            _ if !self.is_queued => Some(false),
            _ => (state.done >= self.number).then_some(true),
        }
    }
}

/// Limit for the thread that must not wait; beyond it texts are dropped, because the reader has stopped.
const HARD_BYTES: usize = 8 << 20;
/// With this many bytes queued a frame of the progress bar is outdated before it is drawn.
const PASSING_BYTES: usize = 16 << 10;

/// The pause of the writer after the queue was empty, in which texts gather. A text that finds the writer waiting is written
/// at once.
const BETWEEN_WRITES: Duration = Duration::from_millis(1);

/// Interval between checks for a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_written_once_it_left_the_queue_of_a_working_stream() {
        let queue = Arc::<Queue>::default();
        let write = |number, is_queued| PendingWrite {
            queue: Arc::clone(&queue),
            stream: Stream::Out,
            number,
            is_queued,
        };
        let mut state = QueueState { pushed: 3, done: 1, ..QueueState::default() };
        assert_eq!(write(1, true).outcome(&mut state), Some(true));
        assert_eq!(write(2, true).outcome(&mut state), None);
        assert_eq!(write(2, false).outcome(&mut state), Some(false));
        state.out = StreamHealth::Broken { number: 2, errno: Errno::NOSPC };
        assert_eq!(write(1, true).outcome(&mut state), Some(true));
        assert_eq!(write(2, true).outcome(&mut state), Some(false));
        state.out = StreamHealth::Closed;
        assert_eq!(write(3, true).outcome(&mut state), Some(true));
    }
}
