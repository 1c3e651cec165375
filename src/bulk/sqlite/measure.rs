//! Measures the store: `cargo test --lib bulk::sqlite::measure -- --ignored --nocapture`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use pollster::block_on;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobResult;
use crate::upload::UploadOptions;

const JOBS: usize = 20_000;

fn account() -> Account {
    Account::named("measure").unwrap()
}

fn pool() -> Pool {
    Pool::new("films").unwrap()
}

fn jobs(from: usize) -> Vec<JobSpec> {
    let job = |n: usize| {
        let source = JobSource::File { path: format!("/srv/films/2026/{n:06}/camera-a.mp4").into() };
        let stamp = ContentStamp { size: 1 << 20, mtime_ns: 1_800_000_000_000_000_000 + n as i128 };
        let id = JobId::derive(&account(), &pool(), &source, Some(stamp));
        JobSpec::new(id, pool(), source, Some(stamp), UploadOptions::default())
    };
    (from..from + 1000).map(job).collect()
}

fn measured(name: &str, run: impl FnOnce()) {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (begun, cpu_before) = (Instant::now(), cpu());
    run();
    let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
    println!(
        "{name}: {JOBS} jobs in {seconds:.2} s ({:.0}/s), {cpu_seconds:.2} s CPU, {memory}",
        JOBS as f64 / seconds
    );
}

#[test]
#[ignore = "a measurement"]
fn twenty_thousand_small_jobs() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let store = SqliteJobStore::open(SqliteOptions::new(folder.path().join("jobs.db"), account())).unwrap();
    let now = UnixMillis::new(1_800_000_000_000);
    let submit = || {
        for from in (0..JOBS).step_by(1000) {
            block_on(store.submit(jobs(from), Resubmit::Keep, now)).unwrap();
        }
    };
    measured("submit", submit);
    let done = AtomicU64::new(0);
    measured("claim and finish, 8 tasks", || {
        block_on(join_all((0..8).map(|pid| {
            let (store, done) = (&store, &done);
            async move {
                let owner = OwnerId::new("host", pid, 1);
                while let ClaimAnswer::Claimed(claimed) = store.claim(&pool(), &owner, now).await.unwrap() {
                    let end = JobEnd::Done(JobResult::new("vi4k0jvEUuaTdRAEjQ4Jfrgz", 1 << 20));
                    store.finish(&claimed.lease, end, now).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        })));
    });
    assert_eq!(done.load(Ordering::Relaxed), JOBS as u64);
    measured("submit again, all done", submit);
    measured("list all", || {
        let mut query = JobQuery::default();
        loop {
            let page = block_on(store.list(query.clone())).unwrap();
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
    });
}
