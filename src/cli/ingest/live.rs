//! The numbers of a run, which its output and its monitor share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ringlift::Client;
use ringlift::bulk::totals::Totals;
use ringlift::bulk::{
    Cursor, Job, JobFailure, JobQuery, JobState, JobStore, JobStoreError, OwnerId, Presence,
};
use ringlift::monitor::{
    ChunkTimes, FleetView, FleetWorker, JobList, JobListFuture, JobListQuery, ListedJob, MOST_FAILURES,
    RecentFailure, RunSource, RunView,
};

use crate::cli::events::wall_clock;

/// The numbers of a run. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::cli) struct LiveNumbers(Arc<Mutex<RunNumbers>>);

/// The numbers of a run.
#[derive(Debug)]
pub(super) struct RunNumbers {
    pub(super) totals: Totals,
    pub(super) chunk_times: ChunkTimes,
    pub(super) exit_code: Option<u8>,
    /// Videos that were left beside the one of their job.
    pub(super) orphans: u64,
    /// The workers of the queue, if several hosts share it.
    fleet: Option<FleetView>,
    failures: VecDeque<RecentFailure>,
    last_success: Option<SystemTime>,
}

impl LiveNumbers {
    pub(in crate::cli) fn new() -> LiveNumbers {
        LiveNumbers(Arc::new(Mutex::new(RunNumbers {
            totals: Totals::new(Instant::now()),
            chunk_times: ChunkTimes::default(),
            exit_code: None,
            orphans: 0,
            fleet: None,
            failures: VecDeque::new(),
            last_success: None,
        })))
    }

    /// Locks the numbers. The monitor holds the lock for the time of a copy.
    pub(super) fn lock(&self) -> MutexGuard<'_, RunNumbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunNumbers {
    /// Records a success.
    pub(super) fn succeed(&mut self) {
        self.last_success = Some(wall_clock());
    }

    /// Takes over the workers that were present at `now`.
    pub(super) fn set_present(&mut self, present: &Presence, own: &OwnerId, now: Instant) {
        let known = self.fleet.take().map(|fleet| fleet.workers).unwrap_or_default();
        let workers = present.workers.iter().map(|worker| {
            // An age that no `Instant` can hold must not end the run.
            let heartbeat_at = now.checked_sub(worker.age).unwrap_or(now);
            let mut seen = FleetWorker::new(worker.owner.host(), worker.owner.as_str(), heartbeat_at);
            seen.is_self = worker.owner == *own;
            // The same heartbeat, seen again: the time of its answer varies a little, and would be news for every viewer.
            let is_same = |old: &&FleetWorker| {
                let apart = old.heartbeat_at.max(heartbeat_at) - old.heartbeat_at.min(heartbeat_at);
                old.name == seen.name && apart < SAME_HEARTBEAT
            };
            if let Some(old) = known.iter().find(is_same) {
                seen.heartbeat_at = old.heartbeat_at;
            }
            seen
        });
        self.fleet = Some(FleetView::new(workers.collect(), present.total));
    }

    /// Records a failure for the monitor, with the advice in the words of the command if there is one.
    pub(super) fn fail(&mut self, name: &str, failure: &JobFailure, advice: Option<&str>) {
        let mut failed =
            RecentFailure::new(name, failure.kind.as_str(), failure.message.as_str(), Instant::now());
        failed.advice = advice.map(str::to_owned).or_else(|| failure.advice.clone());
        self.failures.push_front(failed);
        self.failures.truncate(MOST_FAILURES);
    }
}

/// A run as its monitor sees it.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) title: String,
    pub(super) numbers: LiveNumbers,
    pub(super) client: Client,
    pub(super) store: Arc<dyn JobStore>,
}

impl RunSource for LiveRun {
    fn view(&self) -> RunView {
        // Before the lock: the client has a lock of its own.
        let client = self.client.snapshot();
        let numbers = self.numbers.lock();
        let mut view = RunView::new(&numbers.totals, client, Instant::now());
        view.title.clone_from(&self.title);
        view.chunk_times = numbers.chunk_times.clone();
        view.failures = numbers.failures.iter().cloned().collect();
        view.last_success = numbers.last_success;
        view.exit_code = numbers.exit_code;
        view.orphans = numbers.orphans;
        view.fleet.clone_from(&numbers.fleet);
        view
    }

    fn jobs(&self, query: JobListQuery) -> JobListFuture {
        let store = self.store.clone();
        Box::pin(async move { jobs(&*store, query).await.map_err(|error| error.to_string()) })
    }
}

/// Returns a page of jobs. A search examines a bounded number of jobs, and goes on with the next page.
async fn jobs(store: &dyn JobStore, query: JobListQuery) -> Result<JobList, JobStoreError> {
    let search = query.search.map(|text| text.to_lowercase());
    let (mut jobs, mut next) = (Vec::new(), query.after.map(Cursor::new));
    for _ in 0..MOST_SEARCHED_PAGES {
        let mut page = JobQuery::default();
        page.state = query.state;
        page.after = next;
        // Never more than there is room for: the cursor is behind the last job of the store's page.
        page.limit = query.limit.saturating_sub(jobs.len());
        let page = store.list(page).await?;
        let listed = page.jobs.into_iter().map(listed);
        jobs.extend(listed.filter(|job| search.as_ref().is_none_or(|text| matches(job, text))));
        next = page.next;
        if next.is_none() || jobs.len() >= query.limit {
            break;
        }
    }
    Ok(JobList::new(jobs, next.map(|cursor| cursor.as_str().to_owned())))
}

fn listed(job: Job) -> ListedJob {
    let path = job.spec.source.name();
    let mut listed = ListedJob::new(job.spec.id.as_str(), path, job.record.state.name());
    listed.bytes = job.spec.stamp.map(|stamp| stamp.size);
    let failure = match job.record.state {
        JobState::Done(result) => {
            listed.video_id = Some(result.video_id);
            None
        }
        JobState::Failed(failure) => Some(failure),
        JobState::Skipped { reason } => {
            listed.message = Some(reason);
            None
        }
        _ => job.record.last_failure,
    };
    if let Some(failure) = failure {
        listed.video_id = failure.video_id;
        listed.message = Some(failure.message);
        listed.advice = failure.advice;
    }
    listed
}

fn matches(job: &ListedJob, text: &str) -> bool {
    let texts = [Some(&job.id), Some(&job.path), job.video_id.as_ref()];
    texts.into_iter().flatten().any(|found| found.to_lowercase().contains(text))
}

/// Heartbeats of one worker are further apart.
const SAME_HEARTBEAT: Duration = Duration::from_secs(2);

/// The pages of the store that one page of a search examines: some thousand jobs, which takes milliseconds.
const MOST_SEARCHED_PAGES: usize = 50;
