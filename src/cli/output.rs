//! Standard output and standard error: one queue and one writer thread each.
//!
//! A full, non-blocking or unread pipe blocks only the writer thread, never the event loop that receives
//! signals. Lines keep their order. If both streams lead to the same place they share a queue, which
//! preserves the order between them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::Notify;

/// One of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

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

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    /// Wakes threads.
    changed: Condvar,
    /// Wakes futures.
    news: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    texts: VecDeque<(Stream, Vec<u8>)>,
    /// Number of bytes in the queue, including the text that is being written.
    bytes: usize,
    /// Number of texts queued so far, and of those that have left the queue.
    pushed: u64,
    done: u64,
    out: StreamHealth,
    err: StreamHealth,
    has_thread: bool,
    /// Number of threads that wait for a change.
    waiting: usize,
    /// Thread that runs the event loop and must never wait for room.
    must_not_wait: Option<ThreadId>,
    /// Time of the first signal, after which every wait is short.
    hurried_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamHealth {
    #[default]
    Sound,
    /// The reader has closed the pipe (EPIPE).
    Closed,
    /// The text with this number and all later ones could not be written.
    Broken { number: u64, errno: Errno },
}

/// Texts that are written together.
#[derive(Debug, PartialEq, Eq)]
struct OldestTexts {
    stream: Stream,
    bytes: Vec<u8>,
    /// The end of each text in `bytes`.
    ends: Vec<usize>,
    /// Number of texts that have left the queue before.
    done: u64,
    /// `false` after an error of the stream.
    is_sound: bool,
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
                thread::sleep(BETWEEN_WRITES);
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

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` returns `Some`.
    async fn when<T>(&self, mut look: impl FnMut(&mut QueueState) -> Option<T>) -> T {
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

    fn wait_for_text(&self) {
        let mut state = self.state();
        while state.texts.is_empty() {
            state = self.wait(state);
        }
    }

    /// Waits until the state has changed.
    fn wait<'a>(&self, mut state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        state.waiting += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Releases the state, and wakes the threads that wait for a change of it.
    fn notify(&self, state: MutexGuard<'_, QueueState>) {
        // A notification is a system call, also when no thread waits.
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            // All of them, because the writer and the threads that wait for room share one condition.
            self.changed.notify_all();
        }
    }

    /// Takes the oldest texts of one stream, which are to be written by one call; `None` if the queue is empty.
    fn take_oldest(&self) -> Option<OldestTexts> {
        self.state().take_oldest()
    }

    /// Records an error of the text with this number and of all later ones.
    fn fail(&self, stream: Stream, number: u64, errno: Errno) {
        let broken = StreamHealth::Broken { number, errno };
        *self.state().health(stream) = if errno == Errno::PIPE { StreamHealth::Closed } else { broken };
    }

    /// Records that texts have left the queue.
    fn finish(&self, texts: &OldestTexts) {
        let mut state = self.state();
        state.done = texts.done + texts.ends.len() as u64;
        state.bytes -= texts.bytes.len();
        self.notify(state);
        self.news.notify_waiters();
    }

    fn drain(&self, started: Instant) {
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
    fn health(&mut self, stream: Stream) -> &mut StreamHealth {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    /// Takes the oldest text and those after it that one write can have with it; `None` if there is none.
    fn take_oldest(&mut self) -> Option<OldestTexts> {
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

    fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.texts.len() >= FULL_TEXTS
    }
}

/// Writes all texts. Waits for a pipe that another process has made non-blocking, as Node and ssh do.
///
/// # Errors
/// The error, and the number of bytes that were written before it.
fn write_all(stream: Stream, texts: &[u8]) -> Result<(), (Errno, usize)> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd = match stream {
        Stream::Out => stdout.as_fd(),
        Stream::Err => stderr.as_fd(),
    };
    let mut done = 0;
    while done < texts.len() {
        match rustix::io::write(fd, &texts[done..]) {
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_until_writable(fd).map_err(|errno| (errno, done))?,
            Err(errno) => return Err((errno, done)),
        }
    }
    Ok(())
}

fn wait_until_writable(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // Without a timeout: only the writer thread waits here, and the process ends without it after a signal.
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Returns the remaining time to wait for a reader, after a signal at `hurried_at` and a wait that began at
/// `started`.
fn left_of(hurried_at: Instant, started: Instant) -> Duration {
    // A wait that begins after the signal has its full time, too: the summary is queued only then.
    (hurried_at.max(started) + READER_TIMEOUT).saturating_duration_since(Instant::now())
}

/// Returns `true` if both streams lead to the same terminal, pipe or file.
fn is_same_place() -> bool {
    let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    match (rustix::fs::fstat(io::stdout()), rustix::fs::fstat(io::stderr())) {
        (Ok(out), Ok(err)) => place(out) == place(err),
        _ => false,
    }
}

/// Limits above which a queue is full and callers wait.
const FULL_BYTES: usize = 1 << 20;
const FULL_TEXTS: usize = 4096;
/// Limit for the thread that must not wait; beyond it texts are dropped, because the reader has stopped.
const HARD_BYTES: usize = 8 << 20;
/// With this many bytes queued a frame of the progress bar is outdated before it is drawn.
const PASSING_BYTES: usize = 16 << 10;

/// The most bytes of several texts in one write: up to PIPE_BUF, a pipe with several writers keeps them whole (pipe(7)).
const ATOMIC_BYTES: usize = 4096;

/// The pause of the writer after the queue was empty, in which texts gather. A text that finds the writer waiting is written
/// at once.
const BETWEEN_WRITES: Duration = Duration::from_millis(1);

/// Time to wait for a reader after a signal.
const READER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between checks for a signal.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

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
