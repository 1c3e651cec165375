//! The service's request budget: planned requests and pauses.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use ringlift::server::{Fault, FaultAction, Limits, RequestBudget, RouteClass};
use ringlift::{
    ChunkSize, Class, ClientBuilder, QuotaPreset, Settings, ThrottleReason, UploadEvent, Uploaded,
};

use crate::support::command::{ringlift, run};
use crate::support::way::CHUNK;
use crate::support::{MIB, Sample, Scheme, TestServer, short_pauses};

/// The chunk size of a file alone over one lane.
const QUARTER: u64 = 33 * MIB / 4;

/// Sparse files, each longer than the length up to which a file is always one request.
struct Batch {
    folder: tempfile::TempDir,
    files: usize,
}

impl Batch {
    fn new(files: usize) -> Batch {
        let batch = Batch { folder: tempfile::tempdir().unwrap(), files };
        batch.paths().for_each(|path| File::create(path).unwrap().set_len(33 * MIB).unwrap());
        batch
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.files).map(|number| self.folder.path().join(format!("film{number}.mp4")))
    }

    fn upload_all(&self, client: ClientBuilder) -> Vec<Uploaded> {
        let client = client.with(short_pauses).build().unwrap();
        pollster::block_on(join_all(self.paths().map(|path| client.upload(path).send())))
            .into_iter()
            .map(Result::unwrap)
            .collect()
    }
}

fn chunk_requests(test_server: &TestServer) -> u64 {
    test_server.server.stats().requests[&RouteClass::Chunk]
}

/// Sets limits whose window outlasts the test: a request beyond them would never be accepted.
fn limited(uploads: u32) -> impl FnOnce(&mut ringlift::server::ServerSettings) {
    let window = Duration::from_secs(3600);
    move |settings| {
        settings.limits = Limits::Custom(RequestBudget { uploads, writes: 200, reads: 500, window })
    }
}

#[test]
fn a_batch_at_a_service_of_unknown_limits_keeps_within_the_production_budget() {
    let test_server = TestServer::with(Scheme::Http, limited(100));
    let uploaded = Batch::new(40).upload_all(test_server.client());
    assert!(uploaded.iter().all(|uploaded| uploaded.retries == 0));
    // Only the last files are cut, for lanes that would be idle.
    assert!((40..=80).contains(&chunk_requests(&test_server)), "{}", chunk_requests(&test_server));
}

#[test]
fn a_batch_as_large_as_the_budget_is_one_request_per_file() {
    let test_server = TestServer::with(Scheme::Http, limited(12));
    let preset = |settings: &mut Settings| {
        settings.caps.preset = Some(QuotaPreset::Sandbox);
        settings.caps.uploads_a_minute = None;
        settings.backlog.add(30, 30 << 30);
    };
    Batch::new(12).upload_all(test_server.client().with(preset));
    assert_eq!(chunk_requests(&test_server), 12);
}

#[test]
fn a_resumed_upload_keeps_its_chunk_size_whatever_else_is_to_be_sent() {
    let refusal = Fault::new(RouteClass::Chunk, FaultAction::unavailable()).offset(3 * QUARTER).times(0);
    let test_server = TestServer::faulty(Scheme::Http, vec![refusal]);
    let (batch, journal) = (Batch::new(1), test_server.folder.path().join("journal.db"));
    let path = batch.paths().next().unwrap();
    let client = |uploads: u64| {
        let change = |settings: &mut Settings| {
            settings.journal = Some(journal.clone());
            settings.retry.retries = 0;
            settings.backlog.add(uploads, uploads << 30);
        };
        test_server.client().with(short_pauses).with(change).lanes(1).build().unwrap()
    };
    client(0).upload(&path).send_blocking().unwrap_err();
    let planned = pollster::block_on(async {
        let mut running = client(1000).upload(&path).start().await.unwrap();
        let mut events = running.events();
        running.join().await.unwrap_err();
        events.next().await
    });
    let expected = UploadEvent::Planned { bytes: 33 * MIB, chunk_bytes: QUARTER, chunks: 4 };
    assert_eq!(planned, Some(expected));
}

#[test]
fn the_plan_of_an_upload_is_an_event() {
    let test_server = TestServer::new(Scheme::Http);
    let batch = Batch::new(1);
    let client = test_server.client().lanes(4).build().unwrap();
    let planned = pollster::block_on(async {
        let mut running = client.upload(batch.paths().next().unwrap()).start().await.unwrap();
        let mut events = running.events();
        running.join().await.unwrap();
        events.next().await
    });
    let expected = UploadEvent::Planned { bytes: 33 * MIB, chunk_bytes: 5 * MIB, chunks: 7 };
    assert_eq!(planned, Some(expected));
}

/// Returns a server that takes two upload requests in a window of 3 s.
fn slow_server() -> TestServer {
    let budget = RequestBudget { uploads: 2, writes: 200, reads: 500, window: Duration::from_secs(3) };
    TestServer::with(Scheme::Http, |settings| settings.limits = Limits::Custom(budget))
}

#[test]
fn each_pause_for_the_budget_is_one_event_with_its_end() {
    let test_server = slow_server();
    let client = test_server.client().lanes(2).with(short_pauses).build().unwrap();
    let sample = Sample::new(4 * CHUNK);
    let events: Vec<UploadEvent> = pollster::block_on(async {
        let mut running =
            client.upload(sample.path()).chunk_size(ChunkSize::Bytes(CHUNK)).start().await.unwrap();
        let events = running.events();
        let uploaded = running.join().await.unwrap();
        assert_eq!(uploaded.retries, 0);
        events.collect().await
    });
    let pauses: Vec<Duration> = events.iter().filter_map(pause).collect();
    // One pause lies between the second and the third chunk; the first window may end before the second chunk.
    assert!((1..=2).contains(&pauses.len()), "{events:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(5)), "{pauses:?}");
    assert!(client.snapshot().throttled_seconds.uploads > 0.0);
}

fn pause(event: &UploadEvent) -> Option<Duration> {
    match event {
        UploadEvent::Throttled { class: Class::Uploads, why: ThrottleReason::Budget, delay } => Some(*delay),
        _ => None,
    }
}

#[test]
fn every_upload_that_waits_for_the_budget_has_one_event() {
    let test_server = slow_server();
    let samples: Vec<Sample> = (1..=4).map(|mib| Sample::new(mib * MIB)).collect();
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "--no-journal", "--concurrency", "4"]);
    let ran = run(command.args(samples.iter().map(Sample::path))).done();
    let throttled: Vec<_> = ran.events().into_iter().filter(|event| event["event"] == "throttled").collect();
    let waited = |event: &&serde_json::Value| event["why"] == "budget" && event["class"] == "uploads";
    assert!((1..=3).contains(&throttled.iter().filter(waited).count()), "{throttled:?}");
    assert!(!ran.stderr.contains("nothing moves"), "{}", ran.stderr);
}

#[test]
fn a_dry_run_plans_the_whole_batch_under_the_budget() {
    let batch = Batch::new(40);
    let ran = run(ringlift().args(["upload", "--sandbox", "--dry-run", "--json"]).args(batch.paths())).done();
    let planned: Vec<_> = ran.events().into_iter().filter(|event| event["event"] == "planned").collect();
    assert_eq!(planned.len(), 40);
    assert!(planned.iter().all(|planned| planned["chunks"] == 1), "{planned:?}");
    assert!(
        ran.stderr.contains("40 upload requests in total; at most 40 are allowed per minute"),
        "{}",
        ran.stderr
    );
}
