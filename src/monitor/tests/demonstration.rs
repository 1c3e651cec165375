//! A run of 10,000 jobs, to look at the page and to measure what the monitor costs.

use std::fs;

use super::client::{EventReader, get};
use super::*;

/// A run that seems to move.
struct Demonstration {
    started: Instant,
    jobs: Vec<ListedJob>,
    client: Snapshot,
    failures: Vec<RecentFailure>,
    totals: Mutex<(Totals, u64)>,
}

const RUNNING: u64 = 8;
const FILE_BYTES: u64 = 24 << 30;

impl Demonstration {
    fn start() -> Arc<Demonstration> {
        let now = Instant::now();
        let started = now.checked_sub(Duration::from_secs(4210)).unwrap();
        let jobs = listed_jobs(10_000);
        let mut totals = Totals::new(started);
        jobs.iter().for_each(|_| totals.find(Some(FILE_BYTES)));
        totals.found_all();
        (RUNNING..6500)
            .for_each(|key| totals.end(key, Some(FILE_BYTES), FileEnd::Skipped { bytes: FILE_BYTES }, now));
        (6500..6507).for_each(|key| totals.end(key, Some(FILE_BYTES), FileEnd::Failed, now));
        for key in 0..RUNNING {
            let name =
                format!("/srv/ingest/2026/{}/camera-{key}/take-{:05}.mov", 11 + key % 2, 417 + key * 31);
            totals.begin(key, &name, Some(FILE_BYTES), started);
        }
        let failure = |i: u64, name: &str, kind: &str, message: &str, advice: &str| {
            let mut failed = RecentFailure::new(name, kind, message, now - Duration::from_secs(i * 97 + 12));
            failed.advice = Some(advice.to_owned());
            failed
        };
        let failures = vec![
            failure(
                0,
                "/srv/ingest/2026/11/<script>alert('x')</script>.mov",
                "unavailable",
                "could not send chunk 31 of vi4blUQJFrYWbaG44NChkH27: the service answered 503",
                "try again later; the upload continues where it stopped",
            ),
            failure(
                1,
                "/srv/ingest/2026/11/camera-2/take-00219.mov",
                "no_such_file",
                "could not open the file: No such file or directory",
                "check the path and the mount",
            ),
        ];
        let mut client = snapshot();
        let mut budget = Budget::default();
        (budget.limit, budget.left) = (500, 487);
        client.budgets.reads = Some(budget);
        (budget.limit, budget.left) = (60, 4);
        client.budgets.writes = Some(budget);
        client.bandwidth_limit_bytes = None;
        Arc::new(Demonstration { started: now, jobs, client, failures, totals: Mutex::new((totals, 0)) })
    }
}

impl RunSource for Demonstration {
    fn view(&self) -> RunView {
        let now = Instant::now();
        let mut guard = self.totals.lock().unwrap();
        let (totals, moved) = &mut *guard;
        let seconds = now.duration_since(self.started).as_secs_f64();
        // 300 MiB/s, with waves.
        *moved = (*moved).max(((seconds + 4.0 * (seconds / 6.0).sin() + 3.0) * f64::from(300 << 20)) as u64);
        for key in 1..RUNNING {
            let progress = Progress {
                total_bytes: Some(FILE_BYTES),
                sent_bytes: (key * (2 << 30) + *moved / RUNNING).min(FILE_BYTES),
                ..Progress::default()
            };
            totals.advance(key, &progress, now);
        }
        let mut client = self.client.clone();
        client.bytes.acknowledged = *moved;
        client.bytes.sent = *moved + (64 << 20);
        client.bytes.read = client.bytes.sent;
        let mut view = RunView::new(totals, client, now);
        view.title = "ingest of /srv/ingest/2026".to_owned();
        view.failures.clone_from(&self.failures);
        view
    }

    fn jobs(&self, query: JobListQuery) -> JobListFuture {
        let list = select(&self.jobs, &query);
        Box::pin(async move { list.ok_or_else(|| "the cursor is not of this store".to_owned()) })
    }
}

/// Returns the processor time of the monitor's thread in seconds.
fn thread_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_monitor = |name: &String| name.trim_end() == &THREAD_NAME[..THREAD_NAME.len().min(15)];
    let path = tasks
        .into_iter()
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| is_monitor(&name)))
        .expect("the thread runs");
    let times = fs::read_to_string(path.join("schedstat")).unwrap();
    times.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
#[ignore = "takes 20 s and measures processor time"]
fn ten_viewers_of_ten_thousand_jobs_cost_little() {
    let monitor = start("127.0.0.1:0", MonitorLimits::default(), Demonstration::start());
    let addr = monitor.addr();
    // The thread has its name when it answers.
    get(addr, "/healthz", &[]);
    let (began, before) = (Instant::now(), thread_seconds());
    let viewers: Vec<_> = (0..10)
        .map(|_| {
            std::thread::spawn(move || {
                get(addr, "/", &[]);
                let mut events = EventReader::open(addr, &[]);
                for number in 0..70 {
                    events.event().unwrap();
                    // The page reads its list at most every five seconds.
                    if number % 20 == 0 {
                        get(addr, "/api/jobs?limit=50&search=take-0999", &[]);
                    }
                }
            })
        })
        .collect();
    viewers.into_iter().for_each(|viewer| viewer.join().unwrap());
    let elapsed = began.elapsed().as_secs_f64();
    let share = (thread_seconds() - before) / elapsed;
    eprintln!("{:.2} % of one processor for {elapsed:.1} s", share * 100.0);
    assert!(share < 0.03, "{share}");
}

#[test]
#[ignore = "serves the page for ten minutes, to look at it"]
fn the_page_can_be_looked_at() {
    let monitor = start("127.0.0.1:9099", MonitorLimits::default(), Demonstration::start());
    eprintln!("{}", monitor.url());
    std::thread::sleep(Duration::from_secs(600));
}
