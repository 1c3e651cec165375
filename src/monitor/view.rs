//! The values that the monitor shows, and the trait by which a run supplies them.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use crate::bulk::JobStateName;
use crate::bulk::totals::{RunningFile, Totals, TotalsSnapshot};
use crate::upload::Snapshot;

use super::chunk_times::ChunkTimes;

/// A run that a monitor shows.
///
/// The monitor calls both methods on its own thread, which serves every viewer.
pub trait RunSource: Send + Sync {
    /// Returns the state of the run: up to four times a second while the page is open, and once for each scrape.
    ///
    /// Must not block for longer than a lock.
    fn view(&self) -> RunView;

    /// Returns a page of jobs. The monitor drops the future after five seconds.
    fn jobs(&self, query: JobListQuery) -> JobListFuture;
}

/// The future of a page of jobs. An error is a sentence for a person.
pub type JobListFuture = Pin<Box<dyn Future<Output = Result<JobList, String>> + Send>>;

/// The state of a run at one moment. Page, metrics and events that are made from the same view cannot disagree.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunView {
    /// The title of the page, such as the sources of the run. May be empty.
    pub title: String,
    /// The time of the view.
    pub at: Instant,
    /// The totals of the run at [`RunView::at`].
    pub totals: TotalsSnapshot,
    /// The numbers of the client that the run uses.
    pub client: Snapshot,
    /// Durations of chunks.
    pub chunk_times: ChunkTimes,
    /// Files under way, at most [`MOST_RUNNING`]. The totals count the others.
    pub running: Vec<RunningJob>,
    /// The last failures, newest first, at most [`MOST_FAILURES`].
    pub failures: Vec<RecentFailure>,
    /// The time at which a job was last done; `None` before the first.
    pub last_success: Option<SystemTime>,
    /// The exit code of the run; `None` while it continues.
    pub exit_code: Option<u8>,
    /// Videos that were left beside the one of their job.
    pub orphans: u64,
    /// The workers of the queue; `None` if no other host works on it.
    pub fleet: Option<FleetView>,
}

/// The workers of a queue that several hosts share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetView {
    /// The workers, at most [`MOST_WORKERS`].
    pub workers: Vec<FleetWorker>,
    /// The number of all workers.
    pub total: u64,
}

/// A worker of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetWorker {
    /// The name of the host.
    pub host: String,
    /// The name of the worker, which differs from those of other processes of the host.
    pub name: String,
    /// The time of the last heartbeat.
    pub heartbeat_at: Instant,
    /// `true` for the worker that has this monitor.
    pub is_self: bool,
}

/// A file under way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningJob {
    /// The name, which may contain any character.
    pub name: String,
    /// Bytes of the file; `None` if the length is unknown.
    pub total_bytes: Option<u64>,
    /// Bytes sent, those of an earlier run included.
    pub sent_bytes: u64,
    /// The speed of the last ten seconds or so.
    pub bytes_per_second: u64,
    /// The time of the last progress, or of the start.
    pub moved_at: Instant,
    /// The time of the next attempt, if the file waits for it.
    pub retry_at: Option<Instant>,
    /// `true` if every byte is sent, and the answer of the service is awaited.
    pub is_sent: bool,
}

/// A recent failure of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecentFailure {
    /// The name of the job, which may contain any character.
    pub name: String,
    /// The failure, on one line.
    pub message: String,
    /// The way out, if one is known.
    pub advice: Option<String>,
    /// The stable name of the kind of failure, such as `no_such_file`.
    pub kind: String,
    /// The time of the failure.
    pub at: Instant,
}

/// A selection of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobListQuery {
    /// The state; `None` for every state.
    pub state: Option<JobStateName>,
    /// [`JobList::next`] of the page before; `None` for the first page.
    pub after: Option<String>,
    /// The most jobs to return: 1 to [`LONGEST_LIST`].
    pub limit: usize,
    /// A text that the path, the id or the video id contains, in any case; `None` for every job. Never empty.
    pub search: Option<String>,
}

/// A page of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobList {
    /// The jobs. There may be fewer than the limit, or none, although `next` is set: a source bounds the number of
    /// jobs that it searches for one page.
    pub jobs: Vec<ListedJob>,
    /// The start of the next page; `None` after the last one.
    pub next: Option<String>,
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedJob {
    /// The id of the job.
    pub id: String,
    /// The path or the URL, which may contain any character.
    pub path: String,
    /// The state.
    pub state: JobStateName,
    /// Bytes of the file; `None` if the length is unknown.
    pub bytes: Option<u64>,
    /// The video, once it is known.
    pub video_id: Option<String>,
    /// The failure, or the reason why the job was skipped.
    pub message: Option<String>,
    /// The way out of the failure, if one is known.
    pub advice: Option<String>,
}

impl RunView {
    /// Creates the view of a run at `now`, with the files under way that `totals` has, and without title, failures and
    /// results.
    pub fn new(totals: &Totals, client: Snapshot, now: Instant) -> RunView {
        let running = totals.running().take(MOST_RUNNING).map(|(_, file)| RunningJob::new(file, now));
        RunView {
            title: String::new(),
            at: now,
            totals: totals.snapshot(now),
            client,
            chunk_times: ChunkTimes::default(),
            running: running.collect(),
            failures: Vec::new(),
            last_success: None,
            exit_code: None,
            orphans: 0,
            fleet: None,
        }
    }

    /// Returns the number of jobs in a state.
    pub(super) fn jobs(&self, state: JobStateName) -> u64 {
        let files = &self.totals.files;
        match state {
            JobStateName::Running => files.running,
            JobStateName::Done => files.done,
            JobStateName::Failed => files.failed,
            JobStateName::Skipped => files.skipped,
            JobStateName::Cancelled => files.cancelled,
            JobStateName::Queued => {
                let taken = files.running + files.done + files.failed + files.skipped + files.cancelled;
                files.found.saturating_sub(taken)
            }
        }
    }

    /// Returns the bytes of the run's files that the service has, those of earlier runs included.
    pub(super) fn stored_bytes(&self) -> u64 {
        let stored = self.client.bytes.acknowledged.saturating_add(self.totals.bytes.resumed);
        // The totals follow the client's counters with a delay of one event.
        self.totals.bytes.total.map_or(stored, |total| stored.min(total))
    }

    /// Returns the seconds from the start of the run to `at`, in tenths.
    pub(super) fn run_seconds(&self, at: Instant) -> f64 {
        let seconds = match at.checked_duration_since(self.at) {
            Some(later) => (self.totals.elapsed + later).as_secs_f64(),
            None => self.totals.elapsed.saturating_sub(self.at - at).as_secs_f64(),
        };
        (seconds * 10.0).round() / 10.0
    }
}

impl FleetView {
    /// Creates the view of `workers` out of `total`. Of more than [`MOST_WORKERS`] the first remain.
    pub fn new(mut workers: Vec<FleetWorker>, total: u64) -> FleetView {
        workers.truncate(MOST_WORKERS);
        FleetView { workers, total }
    }
}

impl FleetWorker {
    /// Creates the view of a worker of another process.
    pub fn new(host: impl Into<String>, name: impl Into<String>, heartbeat_at: Instant) -> FleetWorker {
        FleetWorker { host: host.into(), name: name.into(), heartbeat_at, is_self: false }
    }
}

impl RunningJob {
    /// Creates the view of a file at `now`.
    pub fn new(file: &RunningFile, now: Instant) -> RunningJob {
        RunningJob {
            name: file.name().to_owned(),
            total_bytes: file.total_bytes(),
            sent_bytes: file.position(),
            bytes_per_second: file.bytes_per_second(now),
            moved_at: file.moved_at(),
            retry_at: file.retry_at(now),
            is_sent: file.is_sent(),
        }
    }
}

impl RecentFailure {
    /// Creates the view of a failure without advice.
    pub fn new(
        name: impl Into<String>,
        kind: impl Into<String>,
        message: impl Into<String>,
        at: Instant,
    ) -> RecentFailure {
        RecentFailure { name: name.into(), message: message.into(), advice: None, kind: kind.into(), at }
    }
}

impl JobList {
    /// Creates a page of jobs.
    pub fn new(jobs: Vec<ListedJob>, next: Option<String>) -> JobList {
        JobList { jobs, next }
    }
}

impl ListedJob {
    /// Creates the entry of a job without length, video, message and advice.
    pub fn new(id: impl Into<String>, path: impl Into<String>, state: JobStateName) -> ListedJob {
        let (bytes, video_id, message, advice) = (None, None, None, None);
        ListedJob { id: id.into(), path: path.into(), state, bytes, video_id, message, advice }
    }
}

/// The most running files in a view: a few screens, and some 30 KiB in each event.
pub const MOST_RUNNING: usize = 100;

/// The most workers in a view: each host is a value of a label, which Prometheus keeps for weeks.
pub const MOST_WORKERS: usize = 100;

/// The most failures in a view. The list of jobs has all of them.
pub const MOST_FAILURES: usize = 20;

/// The most jobs in a page.
pub const LONGEST_LIST: usize = 200;

/// The time for a page of jobs.
pub(super) const JOBS_TIMEOUT: Duration = Duration::from_secs(5);
