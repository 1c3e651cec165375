//! The contract of every store, and the behaviour of this one towards its servers.

mod requests;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;

use super::nats_server::{JETSTREAM, NatsServer};
use super::*;
use crate::bulk::store::contract::{self, Open, job_store_contract};
use crate::bulk::{
    Account, ClaimAnswer, ClaimedJob, ContentStamp, JobCheckpoint, JobEnd, JobFailure, JobId, JobQuery,
    JobResult, JobSource, JobSpec, JobStateName, JobStore, JobStoreError, OwnerId, Pool, Resubmit,
    StoreProblem, Submission, UnixMillis,
};
use crate::pacing::{Class, Quota};
use crate::upload::UploadOptions;

job_store_contract!(with_nats);

fn with_nats(rule: &dyn Fn(Open<'_>)) {
    let Some(server) = NatsServer::start() else { return };
    let open = || -> Box<dyn JobStore> { Box::new(connect(&server).with_callers_time()) };
    rule(&open);
}

fn account() -> Account {
    Account::named("test").unwrap()
}

fn pool() -> Pool {
    Pool::new("share:films.*>").unwrap()
}

fn owner(pid: u32) -> OwnerId {
    OwnerId::new("host", pid, 1)
}

/// The caller's time, which the store ignores.
fn now() -> UnixMillis {
    UnixMillis::default()
}

fn options(server: &NatsServer) -> NatsOptions {
    let mut options = NatsOptions::new(server.url().parse().unwrap(), account());
    options.lease = contract::LEASE;
    options
}

fn connect(server: &NatsServer) -> NatsJobStore {
    NatsJobStore::connect(options(server)).unwrap()
}

fn job(n: usize) -> JobSpec {
    let source = JobSource::File { path: format!("/films/{n}.mp4").into() };
    let stamp = Some(ContentStamp { size: 10, mtime_ns: 5 });
    JobSpec::new(JobId::new(&n.to_string()).unwrap(), pool(), source, stamp, UploadOptions::default())
}

fn submit(store: &NatsJobStore, jobs: std::ops::Range<usize>) -> Vec<Submission> {
    block_on(store.submit(jobs.map(job).collect(), Resubmit::Keep, now())).unwrap()
}

fn claim(store: &NatsJobStore, pid: u32) -> ClaimedJob {
    match block_on(store.claim(&pool(), &owner(pid), now())).unwrap() {
        ClaimAnswer::Claimed(claimed) => *claimed,
        other => panic!("expected a job, got {other:?}"),
    }
}

fn done() -> JobEnd {
    JobEnd::Done(JobResult::new("vi1", 10))
}

fn counted(store: &NatsJobStore, state: JobStateName) -> u64 {
    let counts = block_on(store.count()).unwrap();
    counts.iter().find(|count| count.state == state).map_or(0, |count| count.jobs)
}

fn problem(result: Result<NatsJobStore, JobStoreError>) -> Option<StoreProblem> {
    result.err().as_ref().and_then(JobStoreError::problem)
}

fn is_lost<T>(result: Result<T, JobStoreError>) -> bool {
    matches!(result, Err(JobStoreError::LeaseLost { .. }))
}

#[test]
fn a_killed_server_that_comes_back_delays_requests_and_loses_nothing() {
    let Some(mut server) = NatsServer::start() else { return };
    let store = connect(&server);
    submit(&store, 0..3);
    let lease = claim(&store, 1).lease;
    server.kill();
    thread::scope(|scope| {
        let finished = scope.spawn(|| block_on(store.finish(&lease, done(), now())));
        server.restart();
        finished.join().unwrap().unwrap();
    });
    assert_eq!(counted(&store, JobStateName::Done), 1);
    assert_eq!(claim(&store, 1).job.spec.id, JobId::new("1").unwrap());
}

#[test]
fn a_server_without_its_jetstream_delays_readers() {
    let Some(mut server) = NatsServer::start() else { return };
    let store = connect(&server);
    submit(&store, 0..3);
    server.kill();
    // It refuses requests like a server of a cluster without a leader.
    server.restart_with("");
    let before = store.messages_sent();
    thread::scope(|scope| {
        let counted = scope.spawn(|| counted(&store, JobStateName::Queued));
        let listed = scope.spawn(|| block_on(store.list(JobQuery::default())));
        let begun = Instant::now();
        while store.messages_sent() < before + 6 {
            assert!(begun.elapsed() < Duration::from_secs(60), "a request was not repeated");
            thread::sleep(Duration::from_millis(10));
        }
        server.kill();
        server.restart();
        assert_eq!(counted.join().unwrap(), 3);
        assert_eq!(listed.join().unwrap().unwrap().jobs.len(), 3);
    });
}

#[test]
fn an_older_copy_of_the_store_that_comes_back_is_noticed() {
    let Some(mut server) = NatsServer::start() else { return };
    let (store, other) = (connect(&server), connect(&server));
    submit(&store, 0..2);
    let first = claim(&store, 1).lease;
    server.kill();
    let copy = server.store().with_extension("copy");
    copy_folder(&server.store(), &copy);
    server.restart();
    block_on(store.finish(&first, done(), now())).unwrap();
    let second = claim(&store, 1).lease;
    server.kill();
    fs::remove_dir_all(server.store()).unwrap();
    fs::rename(&copy, server.store()).unwrap();
    server.restart();
    // The copy has the first job as running and the second one as queued: another worker takes that.
    let taken = claim(&other, 2).lease;
    assert_eq!(taken.id, second.id);
    assert!(is_lost(block_on(store.renew(&second, now()))));
    block_on(store.finish(&first, done(), now())).unwrap();
    block_on(other.finish(&taken, done(), now())).unwrap();
    assert_eq!((counted(&store, JobStateName::Done), counted(&other, JobStateName::Done)), (2, 2));
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_deleted_bucket_takes_the_leases_with_it_and_is_made_anew() {
    let Some(server) = NatsServer::start() else { return };
    let (store, other) = (connect(&server), connect(&server));
    submit(&store, 0..2);
    let lease = claim(&store, 1).lease;
    assert_eq!(counted(&other, JobStateName::Running), 1);
    other.wipe();
    assert!(is_lost(block_on(store.renew(&lease, now()))));
    assert_eq!(submit(&other, 0..1), [Submission::New]);
    let again = claim(&store, 1).lease;
    assert_eq!(again.id, lease.id);
    assert!(again.epoch > lease.epoch);
    assert!(is_lost(block_on(store.finish(&lease, done(), now()))));
}

#[test]
fn the_server_keeps_neither_key_nor_token_nor_password() {
    let users = format!("{JETSTREAM}\nauthorization {{ user: kim, password: \"pa55word-of-kim\" }}");
    let Some(mut server) = NatsServer::start_with(&users, "kim:pa55word-of-kim@") else { return };
    let mut settings = options(&server);
    settings.account = Account::of_key("https://ws.api.video", "the-api-key-itself");
    let store = NatsJobStore::connect(settings).unwrap();
    assert!(!format!("{store:?} {:?}", options(&server)).contains("pa55word"));
    let JobSpec { id, pool, source, stamp, mut options, .. } = job(0);
    options.upload_token = Some("to-the-upload-token".into());
    let spec = JobSpec::new(id, pool, source, stamp, options);
    block_on(store.submit(vec![spec], Resubmit::Keep, now())).unwrap();
    store.announce(&owner(1));
    let lease = claim(&store, 1).lease;
    block_on(store.checkpoint(&lease, JobCheckpoint::new(1, 5, "half of it"), now())).unwrap();
    block_on(store.fail(&lease, JobFailure::temporary("unavailable", "later"), now())).unwrap();
    block_on(store.note_orphans(&lease.id, vec!["vi-left-over".to_owned()], Vec::new())).unwrap();
    server.kill();
    let bytes = bytes_in(&server.store());
    let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(
        contains("/films/0.mp4") && contains("half of it") && contains("vi-left-over"),
        "the records are elsewhere"
    );
    for secret in ["the-api-key-itself", "to-the-upload-token", "pa55word-of-kim"] {
        assert!(!contains(secret), "{secret}");
    }
}

fn bytes_in(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        bytes.extend(if path.is_dir() { bytes_in(&path) } else { fs::read(&path).unwrap() });
    }
    bytes
}

#[test]
fn servers_that_cannot_serve_are_named_with_the_reason() {
    let Some(mut server) = NatsServer::start_with("", "") else { return };
    assert_eq!(problem(NatsJobStore::connect(options(&server))), Some(StoreProblem::NoJetStream));
    server.kill();
    let away = NatsJobStore::connect(options(&server)).unwrap_err();
    assert_eq!(away.problem(), Some(StoreProblem::Unreachable));
    assert!(away.to_string().contains("nats://127.0.0.1:"), "{away}");
    let users = format!("{JETSTREAM}\nauthorization {{ user: kim, password: right }}");
    let server = NatsServer::start_with(&users, "kim:wrong@").unwrap();
    assert_eq!(problem(NatsJobStore::connect(options(&server))), Some(StoreProblem::Denied));
    let server = NatsServer::start_with(&format!("{JETSTREAM}\nmax_payload: 65536"), "").unwrap();
    let small = StoreProblem::SmallMessages { found: 65_536, needed: 1 << 20 };
    assert_eq!(problem(NatsJobStore::connect(options(&server))), Some(small));
    let mut settings = options(&server);
    settings.credentials = Some("/no/such.creds".into());
    assert_eq!(problem(NatsJobStore::connect(settings)), Some(StoreProblem::BadCredentials));
}

#[test]
fn the_length_of_leases_is_that_of_the_first_worker() {
    let Some(server) = NatsServer::start() else { return };
    let first = connect(&server);
    let mut settings = options(&server);
    settings.lease = Duration::from_secs(5);
    let second = NatsJobStore::connect(settings).unwrap();
    assert_eq!((first.lease(), second.lease()), (contract::LEASE, contract::LEASE));
}

#[test]
fn accounts_share_a_server_and_no_job() {
    let Some(server) = NatsServer::start() else { return };
    let store = connect(&server);
    submit(&store, 0..1);
    let mut settings = options(&server);
    settings.account = Account::named("other").unwrap();
    let other = NatsJobStore::connect(settings).unwrap();
    assert!(matches!(block_on(other.claim(&pool(), &owner(1), now())), Ok(ClaimAnswer::Drained)));
    assert_eq!(submit(&other, 0..1), [Submission::New]);
}

#[test]
fn leases_and_drained_pools_go_by_the_time_of_the_server() {
    let Some(server) = NatsServer::start() else { return };
    let store = connect(&server);
    submit(&store, 0..1);
    let lease = claim(&store, 1).lease;
    let much_later = UnixMillis::new(u64::MAX / 2);
    let answer = block_on(store.claim(&pool(), &owner(2), much_later)).unwrap();
    assert!(matches!(answer, ClaimAnswer::NoneReady { .. }), "{answer:?}");
    block_on(store.finish(&lease, done(), now())).unwrap();
    assert!(matches!(block_on(store.claim(&pool(), &owner(2), now())), Ok(ClaimAnswer::Drained)));
    let record = block_on(store.get(&lease.id)).unwrap().unwrap().record;
    assert!(record.submitted_at > UnixMillis::new(1_600_000_000_000));
}

#[test]
fn a_host_that_declines_a_job_rests_and_another_host_claims_the_job_at_once() {
    let Some(server) = NatsServer::start() else { return };
    let [store, other] = [0, 1].map(|_| connect(&server).with_callers_time());
    submit(&store, 0..1);
    let at = |seconds: u64| UnixMillis::new(1_000_000_000 + seconds * 1000);
    let claim = |store: &NatsJobStore, host, seconds| {
        block_on(store.claim(&pool(), &OwnerId::new(host, 1, 1), at(seconds))).unwrap()
    };
    let ClaimAnswer::Claimed(first) = claim(&store, "a", 0) else { panic!("not claimed") };
    let failure = JobFailure::temporary("no_such_file", "there is no such file");
    block_on(store.decline_on_host(&first.lease, failure, at(0))).unwrap();
    for seconds in [0, 59] {
        let answer = claim(&store, "a", seconds);
        assert!(matches!(answer, ClaimAnswer::NoneReady { next_at } if next_at == at(60)), "{answer:?}");
    }
    let ClaimAnswer::Claimed(second) = claim(&other, "b", 1) else { panic!("not claimed") };
    block_on(other.release(&second.lease, Duration::ZERO, at(1))).unwrap();
    assert!(matches!(claim(&store, "a", 60), ClaimAnswer::Claimed(_)));
}

#[test]
fn workers_that_are_announced_are_listed() {
    let Some(server) = NatsServer::start() else { return };
    let (store, other) = (connect(&server), connect(&server));
    store.announce(&owner(1));
    other.announce(&owner(2));
    let expected = [owner(1), owner(2)].map(|owner| owner.as_str().to_owned());
    let begun = Instant::now();
    while block_on(store.workers()).unwrap() != expected {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", block_on(store.workers()));
    }
}

#[test]
fn two_workers_take_no_more_requests_than_the_service_has_left() {
    let Some(server) = NatsServer::start() else { return };
    let (store, other) = (connect(&server), connect(&server));
    let budgets = [store.budget(), other.budget()];
    let quota = Quota { per_minute: 600, remaining: 7, resets_in: Some(Duration::from_secs(50)) };
    for budget in &budgets {
        budget.finished(Class::Uploads, Some(quota), None, Instant::now());
    }
    let (begun, mut started, mut refused) = (Instant::now(), 0, [false; 2]);
    // Until both workers know that the window is used up.
    while refused.contains(&false) {
        for (budget, refused) in budgets.iter().zip(&mut refused) {
            let now = Instant::now();
            match budget.not_before(Class::Uploads, now) {
                None => {
                    budget.started(Class::Uploads, now);
                    started += 1;
                }
                Some(until) if until > now + Duration::from_secs(2) => *refused = true,
                Some(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{started} started");
    }
    assert!((1..=7).contains(&started), "{started} started");
}

#[test]
fn workers_that_claim_at_the_same_moment_get_different_jobs() {
    let Some(server) = NatsServer::start() else { return };
    const WORKERS: usize = 8;
    let stores: Vec<_> = (0..WORKERS).map(|_| connect(&server)).collect();
    submit(&stores[0], 0..5 * WORKERS);
    let start = std::sync::Barrier::new(WORKERS);
    let claimed = std::sync::Mutex::new(std::collections::HashSet::new());
    let (start, claimed) = (&start, &claimed);
    thread::scope(|scope| {
        for (pid, store) in (1..).zip(&stores) {
            scope.spawn(move || {
                let mut count = 0;
                while count < 5 {
                    start.wait();
                    // A worker that others were faster than asks again later. It never fails for that.
                    loop {
                        match block_on(store.claim(&pool(), &owner(pid), now())).unwrap() {
                            ClaimAnswer::Claimed(job) => {
                                count += 1;
                                assert!(claimed.lock().unwrap().insert(job.lease.id));
                                break;
                            }
                            ClaimAnswer::NoneReady { .. } => thread::yield_now(),
                            other => panic!("expected a job, got {other:?}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(claimed.lock().unwrap().len(), 5 * WORKERS);
}

#[test]
fn two_thousand_jobs_are_listed_in_pages_and_done_by_workers_that_compete() {
    let Some(server) = NatsServer::start() else { return };
    let store = connect(&server);
    for from in [0, 1000] {
        submit(&store, from..from + 1000);
    }
    let (mut query, mut listed) = (JobQuery { limit: 700, ..JobQuery::default() }, 0);
    loop {
        let page = block_on(store.list(query.clone())).unwrap();
        assert!(page.jobs.len() <= 700);
        listed += page.jobs.len();
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!((listed, counted(&connect(&server), JobStateName::Queued)), (2000, 2000));
    thread::scope(|scope| {
        for pid in 0..3 {
            let server = &server;
            scope.spawn(move || {
                let store = connect(server);
                for _ in 0..20 {
                    let lease = claim(&store, pid).lease;
                    block_on(store.finish(&lease, done(), now())).unwrap();
                }
            });
        }
    });
    assert_eq!(counted(&store, JobStateName::Done), 60);
}

/// Prints the memory and the time for 100,000 jobs: `cargo test --features fleet --lib fleet::tests -- --ignored`.
#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_jobs() {
    let Some(server) = NatsServer::start() else { return };
    let store = connect(&server);
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
    };
    let begun = Instant::now();
    (0..100_000).step_by(1000).for_each(|from| drop(submit(&store, from..from + 1000)));
    println!("submitted in {:?}, {}", begun.elapsed(), resident());
    let (begun, other) = (Instant::now(), connect(&server));
    assert_eq!(counted(&other, JobStateName::Queued), 100_000);
    println!("counted in {:?}, {}", begun.elapsed(), resident());
    let begun = Instant::now();
    block_on(other.list(JobQuery::default())).unwrap();
    println!("listed a page in {:?}, {}", begun.elapsed(), resident());
    let begun = Instant::now();
    (0..100).for_each(|_| drop(claim(&other, 1)));
    println!("100 claims in {:?}, {}", begun.elapsed(), resident());
}
