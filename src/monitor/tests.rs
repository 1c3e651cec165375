//! Tests of the monitor over real sockets.

mod client;
mod demonstration;
mod files;
mod pages;
mod streams;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::bulk::JobStateName;
use crate::bulk::totals::{FileEnd, Totals};
use crate::pacing::ThrottleReason;
use crate::upload::{Budget, Progress, Snapshot};

use super::options::MonitorLimits;
use super::*;

/// A run whose state tests change.
struct FakeRun {
    view: Mutex<RunView>,
    jobs: Vec<ListedJob>,
}

impl FakeRun {
    fn new(view: RunView) -> Arc<FakeRun> {
        Arc::new(FakeRun { view: Mutex::new(view), jobs: listed_jobs(120) })
    }

    fn change(&self, change: impl FnOnce(&mut RunView)) {
        change(&mut self.view.lock().unwrap());
    }
}

impl RunSource for FakeRun {
    fn view(&self) -> RunView {
        self.view.lock().unwrap().clone()
    }

    fn jobs(&self, query: JobListQuery) -> JobListFuture {
        let list = select(&self.jobs, &query);
        Box::pin(async move { list.ok_or_else(|| "the cursor is not of this store".to_owned()) })
    }
}

/// Returns the selected jobs; the cursor is the index of the next job. `None` for another cursor.
fn select(jobs: &[ListedJob], query: &JobListQuery) -> Option<JobList> {
    let start: usize = query.after.as_deref().map_or(Some(0), |after| after.parse().ok())?;
    let search = query.search.as_deref().unwrap_or_default().to_lowercase();
    let is_selected = |job: &ListedJob| {
        query.state.is_none_or(|state| state == job.state) && job.path.to_lowercase().contains(&search)
    };
    let mut found = jobs.iter().enumerate().skip(start).filter(|(_, job)| is_selected(job));
    let page = found.by_ref().take(query.limit).map(|(_, job)| job.clone()).collect();
    Some(JobList::new(page, found.next().map(|(i, _)| i.to_string())))
}

fn listed_jobs(number: usize) -> Vec<ListedJob> {
    let states = [JobStateName::Done, JobStateName::Done, JobStateName::Failed, JobStateName::Queued];
    let job = |i: usize| {
        let state = states[i % states.len()];
        let mut job =
            ListedJob::new(format!("job{i}"), format!("/films/{}/take-{i:05}.mov", 2020 + i % 6), state);
        job.bytes = Some((i as u64 % 97 + 1) << 24);
        match state {
            JobStateName::Done => job.video_id = Some(format!("vi{i:022}")),
            JobStateName::Failed => {
                job.message = Some("could not send chunk 3: the service answered 503".to_owned());
                job.advice = Some("try again later".to_owned());
            }
            _ => {}
        }
        job
    };
    (0..number).map(job).collect()
}

/// Returns a view with numbers in every field: 10 files, one of which is under way with `name`.
fn view_with(name: &str) -> RunView {
    let now = Instant::now();
    let start = now.checked_sub(Duration::from_secs(100)).unwrap();
    let mut totals = Totals::new(start);
    (0..10).for_each(|_| totals.find(Some(1000)));
    totals.found_all();
    for key in 0..4 {
        totals.begin(key, name, Some(1000), start);
    }
    totals.end(0, Some(1000), FileEnd::Done { bytes: 1000 }, now);
    totals.end(1, Some(1000), FileEnd::Failed, now);
    totals.end(2, Some(1000), FileEnd::Skipped { bytes: 1000 }, now);
    let mut progress = Progress::default();
    (progress.total_bytes, progress.sent_bytes) = (Some(1000), 500);
    totals.advance(3, &progress, now);
    let mut view = RunView::new(&totals, snapshot(), now);
    view.title = name.to_owned();
    view.last_success = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let mut failed = RecentFailure::new(name, "unavailable", "the service answered 503", now);
    failed.advice = Some("try again later".to_owned());
    view.failures = vec![failed];
    view.chunk_times.record(Duration::from_millis(300));
    view.chunk_times.record(Duration::from_secs(1000));
    view
}

fn snapshot() -> Snapshot {
    let mut client = Snapshot::default();
    (client.bytes.read, client.bytes.sent, client.bytes.acknowledged, client.bytes.resent) =
        (1600, 1500, 1200, 7);
    (client.requests.uploads.ok, client.requests.reads.throttled) = (12, 3);
    client.retries = 4;
    client.throttled_seconds.uploads = 1.5;
    client.lanes.busy = 4;
    let mut budget = Budget::default();
    (budget.limit, budget.left) = (100, 34);
    client.budgets.uploads = Some(budget);
    client.bandwidth_limit_bytes = Some(1 << 30);
    client
}

/// Limits with short times, so that tests are fast.
fn quick() -> MonitorLimits {
    MonitorLimits { tick: Duration::from_millis(5), ..MonitorLimits::default() }
}

fn start(listen: &str, limits: MonitorLimits, source: Arc<dyn RunSource>) -> Monitor {
    let mut options = MonitorOptions::new(listen.parse().unwrap());
    options.limits = limits;
    Monitor::start(options, source).unwrap()
}

#[test]
fn a_port_in_use_is_named() {
    let first = start("127.0.0.1:0", quick(), FakeRun::new(view_with("a")));
    let error = Monitor::start(MonitorOptions::new(first.addr()), FakeRun::new(view_with("a"))).unwrap_err();
    assert!(matches!(error, MonitorError::PortInUse { .. }), "{error}");
    // 192.0.2.0/24 is for documentation: no interface has it.
    let error =
        Monitor::start(MonitorOptions::new("192.0.2.1:0".parse().unwrap()), FakeRun::new(view_with("a")))
            .unwrap_err();
    assert!(matches!(error, MonitorError::ForeignAddress { .. }), "{error}");
}

#[test]
fn the_binding_limit_is_one_sentence() {
    let mut view = view_with("a");
    view.client.bandwidth_limit_bytes = None;
    let limit = |view: &RunView| limit::BindingLimit::of(view);
    assert_eq!(limit(&view).text, "The connection or the disk: all 4 lanes are busy.");
    view.client.bandwidth_limit_bytes = Some(1);
    assert_eq!(limit(&view).name, "bandwidth");
    let until = view.at + Duration::from_secs(34);
    let reason = ThrottleReason::Budget;
    view.totals.limited_by = crate::bulk::totals::LimitedBy::Throttle { until, reason };
    assert_eq!((limit(&view).name, limit(&view).until), ("budget", Some(until)));
    assert_eq!(view.run_seconds(until), 134.0);
    view.exit_code = Some(0);
    assert_eq!(limit(&view).name, "nothing");
}

#[test]
fn amounts_have_three_digits() {
    let amounts = [0, 1023, 1536, 150 << 20, u64::MAX].map(limit::amount);
    assert_eq!(amounts, ["0 B", "1023 B", "1.50 KiB", "150 MiB", "16.0 EiB"]);
}
