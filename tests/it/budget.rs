//! The service's request budget: planned requests and pauses.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use ringlift::pacing::QuotaPreset;
use ringlift::server::{Limits, RequestBudget, RouteClass};
use ringlift::{ClientBuilder, Settings, UploadEvent, Uploaded};

use crate::support::command::{ringlift, run};
use crate::support::{MIB, Scheme, TestServer, short_pauses};

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
