//! Workers whose queue or whose service does not answer for a time.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use ringlift::bulk::{
    ClaimAnswer, IngestEnd, IngestEvent, JobState, JobStore, Pool, StoreProblem, UnixMillis,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet_hosts::{FleetHost, FleetWorker, NatsServer, POOL, open_queue, owner};
use crate::support::command::{end, start};
use crate::support::queue::{folder, wait_until};
use crate::support::{MIB, Scheme, TestServer, short_pauses};

#[test]
fn a_worker_survives_a_queue_that_is_away_for_longer_than_its_lease() {
    let Some(mut nats) = NatsServer::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    fs::write(films.path().join("long.mp4"), vec![7; 30 * MIB as usize]).unwrap();
    let host = FleetHost::new(&server, nats.url());
    host.submit(films.path()).done();
    let worker = start(&mut host.worker(&["--drain", "--bwlimit", "4M"]));
    wait_until(|| server.server.stats().chunks_accepted > 0);
    nats.kill();
    // Longer than any single request to the queue waits, which ended workers before.
    thread::sleep(Duration::from_secs(32));
    nats.restart();
    let output = end(worker).done();
    assert_eq!(
        (output.event("queue_away")["message"].is_string(), output.summary()["files_done"].as_u64()),
        (true, Some(4))
    );
    assert!(output.event("queue_back")["elapsed_ms"].as_u64().unwrap() > 1000, "{output:?}");
    server.assert_created(4);
    server.assert_nothing_was_sent_twice();
    for job in block_on(open_queue(&nats.url()).list(Default::default())).unwrap().jobs {
        assert!(matches!(job.record.state, JobState::Done(_)), "{job:?}");
        assert_eq!((job.record.attempts_without_progress, job.record.orphans.len()), (0, 0), "{job:?}");
    }
}

#[test]
fn a_signal_ends_a_worker_whose_queue_is_away() {
    let Some(mut nats) = NatsServer::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    fs::write(films.path().join("long.mp4"), vec![7; 30 * MIB as usize]).unwrap();
    let host = FleetHost::new(&server, nats.url());
    host.submit(films.path()).done();
    let worker = start(&mut host.worker(&["--bwlimit", "2M", "--grace", "60s"]));
    wait_until(|| server.server.stats().chunks_accepted > 0);
    nats.kill();
    thread::sleep(Duration::from_secs(5));
    let asked = Instant::now();
    kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
    let output = end(worker);
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}: {output:?}", asked.elapsed());
    // Its file could be neither finished nor released.
    assert_eq!(output.code, Some(5), "{output:?}");
}

#[test]
fn a_queue_that_stays_away_ends_the_run_after_the_limit_with_its_error() {
    let Some(mut nats) = NatsServer::start() else { return };
    let server = TestServer::new(Scheme::Http);
    let client = server.client().build().unwrap();
    let worker = FleetWorker::start(open_queue(&nats.url()), &client, 1, |options| {
        (options.store_patience, options.waits_for_jobs) = (Duration::from_secs(5), true);
    });
    nats.kill();
    worker.until(|event| matches!(event, IngestEvent::StoreAway { .. }).then_some(()));
    let problem = worker.until(|event| match event {
        IngestEvent::Ended(IngestEnd::Store(error)) => Some(error.problem()),
        IngestEvent::Ended(other) => panic!("{other:?}"),
        _ => None,
    });
    assert!(matches!(problem, Some(StoreProblem::Timeout | StoreProblem::Unreachable)), "{problem:?}");
}

#[test]
fn a_worker_that_does_not_reach_the_service_lets_its_jobs_go_and_goes_on_later() {
    let Some(nats) = NatsServer::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let film = films.path().join("film.mp4");
    fs::write(&film, vec![7; 20 * MIB as usize]).unwrap();
    FleetHost::new(&server, nats.url()).submit(films.path()).done();
    let slow = |settings: &mut ringlift::Settings| {
        short_pauses(settings);
        settings.bandwidth.set(std::num::NonZeroU64::new(4 * MIB));
    };
    let client = server.client().lanes(1).with(slow).build().unwrap();
    let store = open_queue(&nats.url());
    let worker = FleetWorker::start(store.clone(), &client, 1, |options| {
        (options.service_patience, options.waits_for_jobs) = (Duration::from_secs(4), true);
    });
    worker.until(|event| match event {
        IngestEvent::Progress(_, progress) => (progress.acknowledged_bytes > 0).then_some(()),
        _ => None,
    });
    let stopped = server.close();
    let jobs = worker.until(|event| match event {
        IngestEvent::ServiceAway { jobs, .. } => Some(*jobs),
        _ => None,
    });
    assert_eq!(jobs, 1);
    let delay = worker.until(|event| match event {
        IngestEvent::Deferred { delay, .. } => Some(*delay),
        _ => None,
    });
    assert!(delay.is_zero());
    // At once, without the end of the lease, and without an attempt that counts.
    let other: Arc<dyn JobStore> = open_queue(&nats.url());
    let answer = block_on(other.claim(&Pool::new(POOL).unwrap(), &owner(2), UnixMillis::default())).unwrap();
    let ClaimAnswer::Claimed(claimed) = answer else { panic!("{answer:?}") };
    let record = &claimed.job.record;
    assert_eq!((record.attempts_without_progress, record.lost_workers), (0, 0));
    block_on(other.release(&claimed.lease, Duration::ZERO, UnixMillis::default())).unwrap();
    let server = stopped.open();
    worker.until(|event| matches!(event, IngestEvent::ServiceBack).then_some(()));
    let video_id = worker.until(|event| match event {
        IngestEvent::Done { result, .. } => Some(result.video_id.clone()),
        _ => None,
    });
    server.assert_holds(&video_id, &film);
}
