//! The thread that owns the connection, and the queue of requests to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::batch::Batch;
use super::database::JobDatabase;
use super::need::Need;
use super::open::{io_error, problem};
use crate::bulk::store::{JobStoreError, MOST_WATCHERS, Revision, StoreFuture, StoreProblem};

/// The thread of a store. Dropping it carries out the requests that wait and joins the thread.
pub(super) struct StoreThread {
    /// `None` only while it is dropped.
    sender: Option<SyncSender<Message>>,
    room: Arc<Semaphore>,
    room_for_watchers: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
    /// Closes when the thread ends. In a mutex only because a receiver cannot be shared between threads.
    ended: Mutex<Receiver<()>>,
    place: PathBuf,
}

enum Message {
    /// The permit is the request's place in the queue.
    Request(Box<dyn Request>, OwnedSemaphorePermit),
    Watch(Watcher),
}

/// A call that waits for a change.
struct Watcher {
    seen: Revision,
    answer: oneshot::Sender<Result<Revision, JobStoreError>>,
    _permit: OwnedSemaphorePermit,
}

trait Request: Send {
    fn need(&self) -> Need;
    /// Carries out the request. An error rolls the transaction back.
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), JobStoreError>;
    fn answer(self: Box<Self>, commit: Result<(), JobStoreError>);
}

struct TypedRequest<T, F> {
    need: Need,
    operation: F,
    result: Option<Result<T, JobStoreError>>,
    answer: oneshot::Sender<Result<T, JobStoreError>>,
}

impl<T, F> Request for TypedRequest<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T, JobStoreError> + Send,
{
    fn need(&self) -> Need {
        self.need
    }

    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), JobStoreError> {
        match (self.operation)(batch) {
            // The store works, and the operation refused before it changed anything.
            Err(error) if error.problem().is_none() => self.result = Some(Err(error)),
            Err(error) => return Err(error),
            result => self.result = Some(result),
        }
        Ok(())
    }

    fn answer(self: Box<Self>, commit: Result<(), JobStoreError>) {
        let answer = match (commit, self.result) {
            (Ok(()), Some(result)) => result,
            (Err(error), _) => Err(error),
            // Unreachable: a commit follows only when every request has a result.
            (Ok(()), None) => return,
        };
        // The caller may have dropped the future.
        let _ = self.answer.send(answer);
    }
}

impl StoreThread {
    pub(super) fn start(database: JobDatabase) -> Result<StoreThread, JobStoreError> {
        // A place for each permit, so that sending never blocks.
        let (sender, receiver) = sync_channel(QUEUE_LEN + MOST_WATCHERS);
        let (end, ended) = sync_channel(0);
        let place = database.path().to_owned();
        let run = move || {
            // Dropped when the thread ends, by a panic too.
            let _end = end;
            serve(database, &receiver);
        };
        let thread = thread::Builder::new().name("ringlift-jobs".to_owned()).spawn(run);
        let thread = Some(thread.map_err(|error| io_error(&place, error))?);
        let [room, room_for_watchers] = [QUEUE_LEN, MOST_WATCHERS].map(|len| Arc::new(Semaphore::new(len)));
        let (sender, ended) = (Some(sender), Mutex::new(ended));
        Ok(StoreThread { sender, room, room_for_watchers, thread, ended, place })
    }

    /// Sends a request, and waits for its answer. At most [`QUEUE_LEN`] requests wait in the queue, the others here.
    pub(super) fn run<T: Send + 'static>(
        &self,
        need: Need,
        operation: impl FnMut(&mut Batch<'_>) -> Result<T, JobStoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let (answer, answered) = oneshot::channel();
        let request: Box<dyn Request> = Box::new(TypedRequest { need, operation, result: None, answer });
        Box::pin(async move {
            let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| self.closed())?;
            self.send(Message::Request(request, permit))?;
            answered.await.unwrap_or_else(|_| Err(self.closed()))
        })
    }

    /// Waits until the revision is another one than `seen`.
    pub(super) fn changed(&self, seen: Revision) -> StoreFuture<'_, Revision> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            // Fails rather than waits: a watcher keeps its place for as long as the store does not change.
            let permit = Arc::clone(&self.room_for_watchers).try_acquire_owned();
            let _permit = permit.map_err(|_| problem(&self.place, StoreProblem::TooManyWatchers))?;
            self.send(Message::Watch(Watcher { seen, answer, _permit }))?;
            answered.await.unwrap_or_else(|_| Err(self.closed()))
        })
    }

    /// Puts a message into the queue, which has a place for each permit. Fails if the thread has ended.
    fn send(&self, message: Message) -> Result<(), JobStoreError> {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(message).is_ok());
        if sent { Ok(()) } else { Err(self.closed()) }
    }

    fn closed(&self) -> JobStoreError {
        problem(&self.place, StoreProblem::Closed)
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        // Disconnects the queue, so that the thread ends after the requests that wait.
        self.sender = None;
        let Some(thread) = self.thread.take() else { return };
        // `JoinHandle::join` has no timeout, the channel has. A thread that the kernel does not release is left behind.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LONGEST_END) {
            tracing::debug!(path = %self.place.display(), "the thread of the job store does not end");
            return;
        }
        let _ = thread.join();
    }
}

impl fmt::Debug for StoreThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreThread").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Serves requests until every sender is dropped.
fn serve(mut database: JobDatabase, receiver: &Receiver<Message>) {
    let mut watchers: Vec<Watcher> = Vec::new();
    // The number of requests in the last transaction.
    let mut last_batch = 0;
    loop {
        // Changes of other processes matter only to watchers, and are found by looking.
        let first = if watchers.is_empty() {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            receiver.recv_timeout(BETWEEN_LOOKS)
        };
        if let Err(RecvTimeoutError::Disconnected) = first {
            return;
        }
        let mut requests = Vec::new();
        let mut sort = |message: Message, requests: &mut Vec<Box<dyn Request>>| match message {
            // The place in the queue is free again.
            Message::Request(request, _permit) => requests.push(request),
            Message::Watch(watcher) => watchers.push(watcher),
        };
        let ready = first.into_iter().chain(receiver.try_iter()).take(MOST_IN_BATCH);
        ready.for_each(|message| sort(message, &mut requests));
        let longest = Instant::now() + LONGEST_GATHERING;
        while gathers(requests.iter().map(|request| request.need()), last_batch)
            && let Some(left) = longest.checked_duration_since(Instant::now())
            && let Ok(message) = receiver.recv_timeout(left)
        {
            sort(message, &mut requests);
        }
        if !requests.is_empty() {
            last_batch = requests.len();
            carry_out(&mut database, requests);
        }
        watchers = answer_watchers(&mut database, watchers);
    }
}

/// Returns `true` if a transaction for these requests should wait for further ones, because several callers work at the
/// same time.
///
/// A transaction writes each changed page, and a flush waits for the disk, once for all of its requests. A caller without
/// company never waits: each of its requests would only take longer.
fn gathers(needs: impl ExactSizeIterator<Item = Need> + Clone, last_batch: usize) -> bool {
    let is_among_others = needs.len() > 1 || last_batch > 1;
    // A reader shares no write, and a list of many jobs is one read after another.
    let only_changes = needs.len() > 0 && needs.clone().all(|need| need != Need::Read);
    is_among_others && only_changes && needs.len() < ENOUGH_IN_BATCH
}

/// Carries out the requests in one transaction, and answers them after the commit.
fn carry_out(database: &mut JobDatabase, mut requests: Vec<Box<dyn Request>>) {
    let need = requests.iter().map(|request| request.need()).max().unwrap_or(Need::Read);
    let outcome =
        database.transact(need, |batch| requests.iter_mut().try_for_each(|request| request.run(batch)));
    let is_damaged = |error: &JobStoreError| error.problem() == Some(StoreProblem::Damaged);
    if requests.len() > 1 && outcome.as_ref().is_err_and(is_damaged) {
        // One damaged job must not fail the requests for others that happened to wait with it.
        requests.into_iter().for_each(|request| carry_out(database, vec![request]));
        return;
    }
    for request in requests {
        request.answer(outcome.clone());
    }
}

/// Answers the watchers that have not seen the newest revision. Returns the others.
fn answer_watchers(database: &mut JobDatabase, mut watchers: Vec<Watcher>) -> Vec<Watcher> {
    // A call that was given up frees its place.
    watchers.retain(|watcher| !watcher.answer.is_closed());
    if watchers.is_empty() {
        return watchers;
    }
    let newest = database.revision().map(Revision::new);
    // An error is news for all of them.
    let (news, rest): (Vec<_>, Vec<_>) =
        watchers.into_iter().partition(|watcher| newest.as_ref().ok() != Some(&watcher.seen));
    for watcher in news {
        // A watcher may have been dropped.
        let _ = watcher.answer.send(newest.clone());
    }
    rest
}

/// The requests that wait in the queue: a few for each of a hundred transfers.
const QUEUE_LEN: usize = 256;

/// The most requests in one transaction. It bounds the time for which other processes wait.
const MOST_IN_BATCH: usize = 128;

/// The longest wait for further changes, and the number of requests that end it. A small file has a claim and an end, and
/// the whole way of a file takes a few milliseconds.
const LONGEST_GATHERING: Duration = Duration::from_millis(2);
const ENOUGH_IN_BATCH: usize = 16;

/// The time between two looks at the changes of other processes, while a caller waits for one.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// The longest wait for the thread: the wait for other processes, and the time for a last transaction.
const LONGEST_END: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_several_callers_gather_until_there_are_enough() {
        let gather = |needs: &[Need], last_batch| gathers(needs.iter().copied(), last_batch);
        let enough = [Need::Disk; ENOUGH_IN_BATCH];
        assert!(gather(&[Need::Write, Need::Disk], 1));
        assert!(gather(&[Need::Disk], 2));
        assert!(gather(&enough[1..], 1));
        assert!(!gather(&enough, ENOUGH_IN_BATCH));
    }

    #[test]
    fn a_caller_without_company_and_a_reader_never_wait() {
        let gather = |needs: &[Need], last_batch| gathers(needs.iter().copied(), last_batch);
        assert!(!gather(&[Need::Disk], 0));
        assert!(!gather(&[Need::Disk], 1));
        assert!(!gather(&[Need::Write, Need::Read], 9));
        // Only watchers.
        assert!(!gather(&[], 9));
    }
}
