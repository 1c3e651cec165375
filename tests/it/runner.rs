//! The run loop of the library.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use ringlift::bulk::{RunnerEvent, RunnerJob, RunnerOptions, Sha256Request, Shutdown, run};
use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{Client, ErrorKind};

use crate::support::{MIB, Sample, Scheme, TestServer};

/// Returns endless jobs of one file, and the number of those that were pulled.
fn endless(client: &Client, path: PathBuf) -> (impl Stream<Item = RunnerJob<usize>>, Arc<AtomicUsize>) {
    let (pulled, client) = (Arc::<AtomicUsize>::default(), client.clone());
    let counter = pulled.clone();
    let job = move |number| {
        counter.fetch_add(1, Ordering::Relaxed);
        RunnerJob::new(number, client.upload(&path))
    };
    (stream::iter(0..).map(job), pulled)
}

fn options(concurrent: usize) -> RunnerOptions {
    let mut options = RunnerOptions::default();
    options.concurrent = concurrent;
    options
}

#[test]
fn every_job_ends_with_one_event_under_any_executor() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let client = test_server.client().build().unwrap();
    let path = |number| if number == 3 { PathBuf::from("/nowhere.mp4") } else { sample.path() };
    let job = |number| RunnerJob::new(number, client.upload(path(number))).with_sha256(Sha256Request::File);
    let jobs = stream::iter((0..8).map(job));
    let mut options = options(3);
    (options.verify, options.wait_until_playable) = (true, true);
    let shutdown = Shutdown::new();
    let events: Vec<_> = pollster::block_on(run(jobs, &client, options, shutdown.signal()).collect());
    let mut ends: Vec<usize> = Vec::new();
    for event in events {
        match event {
            RunnerEvent::Done(done) => {
                assert_eq!(done.sha256.unwrap(), crate::support::digest(&sample.path()));
                ends.push(done.key);
            }
            RunnerEvent::Failed(failed) => {
                assert_eq!((failed.key, failed.error.kind()), (3, ErrorKind::NoSuchFile));
                assert!(!failed.ends_run && failed.finished.is_none());
                ends.push(failed.key);
            }
            _ => {}
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, (0..8).collect::<Vec<_>>());
}

#[test]
fn no_more_jobs_are_pulled_than_may_be_under_way_and_none_after_a_stop() {
    let stall = FaultAction::StallAnswering { for_ms: 600_000 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, stall)]);
    let sample = Sample::new(MIB);
    let client = test_server.client().build().unwrap();
    let (jobs, pulled) = endless(&client, sample.path());
    let mut shutdown = Shutdown::new();
    let mut events = pin!(run(jobs, &client, options(5), shutdown.signal()));
    pollster::block_on(async {
        let mut started = 0;
        while started < 5 {
            let event = events.next().await;
            started += usize::from(matches!(event, Some(RunnerEvent::Started { .. })));
        }
        assert_eq!(pulled.load(Ordering::Relaxed), 5);
        shutdown.cancel(Instant::now());
        let rest: Vec<_> = events.collect().await;
        let ends = rest
            .iter()
            .filter(|event| matches!(event, RunnerEvent::Failed(_) | RunnerEvent::NotStarted { .. }))
            .count();
        assert_eq!((ends, pulled.load(Ordering::Relaxed)), (5, 5));
    });
}

#[test]
fn a_refused_key_ends_a_run_of_endless_jobs() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let client = test_server.client().api_key("wrong").build().unwrap();
    let (jobs, pulled) = endless(&client, sample.path());
    let shutdown = Shutdown::new();
    let events: Vec<_> = pollster::block_on(run(jobs, &client, options(4), shutdown.signal()).collect());
    let failed: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            RunnerEvent::Failed(failed) => Some((failed.error.kind(), failed.ends_run)),
            _ => None,
        })
        .collect();
    assert_eq!(failed, [(ErrorKind::NotAuthorized, true)]);
    assert!(pulled.load(Ordering::Relaxed) <= 5);
}

#[test]
fn a_request_to_stop_lets_active_chunks_finish() {
    let stall = FaultAction::StallAnswering { for_ms: 1000 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, stall)]);
    let sample = Sample::new(MIB);
    let client = test_server.client().build().unwrap();
    let (jobs, _) = endless(&client, sample.path());
    let mut shutdown = Shutdown::new();
    let mut events = pin!(run(jobs, &client, options(1), shutdown.signal()));
    pollster::block_on(async {
        let mut done = 0;
        while let Some(event) = events.next().await {
            match event {
                RunnerEvent::Progress { progress, .. } if progress.sent_bytes == MIB => {
                    shutdown.stop(Duration::from_secs(600), Instant::now());
                }
                RunnerEvent::Done(_) => done += 1,
                RunnerEvent::Failed(failed) => panic!("{}", failed.error),
                _ => {}
            }
        }
        assert_eq!(done, 1);
    });
}
