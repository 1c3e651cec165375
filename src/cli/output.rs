//! Standard output and standard error: one queue and one thread for each.
//!
//! A pipe that is full, or non-blocking, or read by nobody holds up the thread that writes and nothing
//! else: the loop that hears signals never waits for it. Lines keep their order. Where both streams lead
//! to the same place they share a queue, so that the order between them is kept as well.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::Notify;

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// What becomes of a text while the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is left out: the next one replaces it. For pictures of the progress bar.
    Passing,
    /// It waits for room, except on the thread that must not wait.
    Line,
    /// It is queued all the same. For the last line.
    Last,
}

/// Both streams. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Output {
    out: Arc<Queue>,
    err: Arc<Queue>,
}

/// Tells whether one text was written.
#[must_use]
#[derive(Debug)]
pub(super) struct Ticket {
    queue: Arc<Queue>,
    stream: Stream,
    number: u64,
    is_queued: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// For threads.
    changed: Condvar,
    /// For futures.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    texts: VecDeque<(Stream, Vec<u8>)>,
    /// In the queue, the text that is being written among them.
    bytes: usize,
    /// Texts so far that were queued, and of these the ones that left the queue.
    pushed: u64,
    done: u64,
    out: Health,
    err: Health,
    has_thread: bool,
    /// The thread that hears signals, which must not wait.
    must_not_wait: Option<ThreadId>,
    /// When a signal asked for the end: from then on nothing waits for long.
    hurried_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Sound,
    /// The reader has gone, and wants no more (EPIPE).
    Closed,
    /// The text of this number, and what follows it, could not be written.
    Broken { number: u64, errno: Errno },
}

impl Output {
    pub(super) fn new() -> Output {
        let out = Arc::<Queue>::default();
        let err = if is_same_place() { Arc::clone(&out) } else { Arc::default() };
        Output { out, err }
    }

    /// Queues a text. Does not wait: see [`Output::wait_for_room`].
    pub(super) fn push(&self, stream: Stream, text: Vec<u8>, urgency: Urgency) -> Ticket {
        let queue = self.queue(stream);
        let mut state = queue.state();
        let most = match urgency {
            Urgency::Passing => PASSING_BYTES,
            Urgency::Line => HARD_BYTES,
            Urgency::Last => usize::MAX,
        };
        let is_queued = *state.health(stream) == Health::Sound && state.bytes < most;
        if is_queued {
            state.pushed += 1;
            state.bytes += text.len();
            state.texts.push_back((stream, text));
        }
        let ticket = Ticket { queue: Arc::clone(queue), stream, number: state.pushed, is_queued };
        let has_thread = std::mem::replace(&mut state.has_thread, true);
        drop(state);
        queue.changed.notify_all();
        if !has_thread {
            self.start(queue);
        }
        ticket
    }

    /// The ticket of the last text that was queued for the stream.
    pub(super) fn last(&self, stream: Stream) -> Ticket {
        let queue = self.queue(stream);
        let number = queue.state().pushed;
        Ticket { queue: Arc::clone(queue), stream, number, is_queued: true }
    }

    /// Starts the queue's thread; where there can be none, the caller's does its work now.
    fn start(&self, queue: &Arc<Queue>) {
        let (own, output) = (Arc::clone(queue), self.clone());
        let write = move || {
            loop {
                own.wait_for_text();
                own.write_next(&output);
            }
        };
        if thread::Builder::new().name("ringlift-output".to_owned()).spawn(write).is_err() {
            queue.state().has_thread = false;
            while queue.write_next(self) {}
        }
    }

    fn queue(&self, stream: Stream) -> &Arc<Queue> {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }

    /// Blocks while the stream's queue is full, unless a signal has come or this thread must not wait.
    pub(super) fn wait_for_room(&self, stream: Stream) {
        let queue = self.queue(stream);
        let mut state = queue.state();
        let this = Some(thread::current().id());
        while state.is_full() && state.hurried_at.is_none() && state.must_not_wait != this {
            state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until neither queue is full, or a signal has come.
    pub(super) async fn room(&self) {
        for queue in [&self.out, &self.err] {
            queue.when(|state| (!state.is_full() || state.hurried_at.is_some()).then_some(())).await;
        }
    }

    /// Whether neither queue is full.
    pub(super) fn has_room(&self) -> bool {
        [&self.out, &self.err].into_iter().all(|queue| !queue.state().is_full())
    }

    /// From now on this thread is never made to wait for room: it hears signals.
    pub(super) fn must_not_wait(&self) {
        for queue in [&self.out, &self.err] {
            queue.state().must_not_wait = Some(thread::current().id());
        }
    }

    /// A signal has come: what waits for room goes on, and what waits for a reader does so briefly.
    pub(super) fn hurry(&self) {
        for queue in [&self.out, &self.err] {
            queue.state().hurried_at.get_or_insert(Instant::now());
            queue.changed.notify_all();
            queue.news.notify_waiters();
        }
    }

    /// Blocks until all that was queued is written: for at most [`LAST_WORDS`] once a signal has come.
    pub(super) fn drain(&self) {
        let begun = Instant::now();
        for queue in [&self.out, &self.err] {
            queue.drain(begun);
        }
    }

    /// Why standard output could not be written, if that was not because its reader had gone.
    pub(super) fn failure(&self) -> Option<io::Error> {
        match *self.out.state().health(Stream::Out) {
            Health::Broken { errno, .. } => Some(errno.into()),
            Health::Sound | Health::Closed => None,
        }
    }
}

impl Ticket {
    /// Waits until the text was written; false when it could not be. A reader that has gone wants no
    /// more, which counts as written.
    pub(super) async fn is_written(&self) -> bool {
        let begun = Instant::now();
        let written = self.queue.when(|state| self.outcome(state));
        tokio::pin!(written);
        loop {
            let hurried_at = self.queue.state().hurried_at;
            let bound = hurried_at.map_or(LOOK, |at| left_of(at, begun));
            match tokio::time::timeout(bound, &mut written).await {
                Ok(outcome) => return outcome,
                Err(_) if hurried_at.is_some() => return false,
                Err(_) => {}
            }
        }
    }

    fn outcome(&self, state: &mut State) -> Option<bool> {
        match *state.health(self.stream) {
            Health::Closed => Some(true),
            Health::Broken { number, .. } if self.number >= number => Some(false),
            _ if !self.is_queued => Some(false),
            _ => (state.done >= self.number).then_some(true),
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds what it looks for.
    async fn when<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Before the look, or a change between the two would be missed.
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
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes the oldest text; false when there is none.
    fn write_next(&self, output: &Output) -> bool {
        let mut state = self.state();
        let Some((stream, text)) = state.texts.pop_front() else { return false };
        let (is_sound, number) = (*state.health(stream) == Health::Sound, state.done + 1);
        drop(state);
        let written = if is_sound { write_all(stream, &text) } else { Ok(()) };
        if let Err(errno) = written {
            // Before the text counts as done: whoever waits for that ends the process.
            self.fail(stream, number, errno, output);
        }
        let mut state = self.state();
        state.done = number;
        state.bytes -= text.len();
        drop(state);
        self.changed.notify_all();
        self.news.notify_waiters();
        true
    }

    /// Takes note of a stream that cannot be written, and says so of standard output.
    fn fail(&self, stream: Stream, number: u64, errno: Errno, output: &Output) {
        let is_closed = errno == Errno::PIPE;
        let broken = Health::Broken { number, errno };
        *self.state().health(stream) = if is_closed { Health::Closed } else { broken };
        if stream == Stream::Out && !is_closed {
            let text = format!("ringlift: could not write to standard output: {}\n", io::Error::from(errno));
            let _ = output.push(Stream::Err, text.into_bytes(), Urgency::Last);
        }
    }

    fn drain(&self, begun: Instant) {
        let mut state = self.state();
        while state.done < state.pushed {
            let Some(hurried_at) = state.hurried_at else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = left_of(hurried_at, begun);
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn health(&mut self, stream: Stream) -> &mut Health {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.texts.len() >= FULL_TEXTS
    }
}

/// Writes it all. A pipe that others made non-blocking (Node, ssh) is waited for.
fn write_all(stream: Stream, mut text: &[u8]) -> Result<(), Errno> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd = match stream {
        Stream::Out => stdout.as_fd(),
        Stream::Err => stderr.as_fd(),
    };
    while !text.is_empty() {
        match rustix::io::write(fd, text) {
            Ok(written) => text = &text[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_until_writable(fd)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait_until_writable(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// How long a reader is still waited for when a signal came at `hurried_at` and the wait began at `begun`.
fn left_of(hurried_at: Instant, begun: Instant) -> Duration {
    (hurried_at.max(begun) + LAST_WORDS).saturating_duration_since(Instant::now())
}

/// Whether both streams lead to the same terminal, pipe or file.
fn is_same_place() -> bool {
    let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    match (rustix::fs::fstat(io::stdout()), rustix::fs::fstat(io::stderr())) {
        (Ok(out), Ok(err)) => place(out) == place(err),
        _ => false,
    }
}

/// From here on a queue is full: whoever may wait does.
const FULL_BYTES: usize = 1 << 20;
const FULL_TEXTS: usize = 4096;
/// Beyond this nothing is queued: the thread that must not wait found nobody reading.
const HARD_BYTES: usize = 8 << 20;
/// With so much in the queue a picture of the progress bar is out of date before it is drawn.
const PASSING_BYTES: usize = 16 << 10;

/// How long a reader is waited for after a signal.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two looks at whether a signal has come.
const LOOK: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(texts: usize, bytes: usize) -> State {
        let text = vec![b'x'; bytes];
        State { bytes: texts * bytes, texts: vec![(Stream::Out, text); texts].into(), ..State::default() }
    }

    #[test]
    fn many_short_lines_fill_a_queue_as_few_long_ones_do() {
        assert!(!queue_of(10, 100).is_full());
        assert!(queue_of(FULL_TEXTS, 1).is_full());
        assert!(queue_of(2, FULL_BYTES / 2).is_full());
    }

    #[test]
    fn a_text_counts_as_written_when_it_left_the_queue_of_a_stream_that_works() {
        let queue = Arc::<Queue>::default();
        let ticket =
            |number, is_queued| Ticket { queue: Arc::clone(&queue), stream: Stream::Out, number, is_queued };
        let mut state = State { pushed: 3, done: 1, ..State::default() };
        assert_eq!(ticket(1, true).outcome(&mut state), Some(true));
        assert_eq!(ticket(2, true).outcome(&mut state), None);
        assert_eq!(ticket(2, false).outcome(&mut state), Some(false));
        state.out = Health::Broken { number: 2, errno: Errno::NOSPC };
        assert_eq!(ticket(1, true).outcome(&mut state), Some(true));
        assert_eq!(ticket(2, true).outcome(&mut state), Some(false));
        state.out = Health::Closed;
        assert_eq!(ticket(3, true).outcome(&mut state), Some(true));
    }
}
