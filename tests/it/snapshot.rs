//! The numbers of a client, compared with those of the server.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::{
    ConnectionEnd, Fault, FaultAction, Limits, RefusalTiming, RequestBudget, RouteClass, Server,
};
use ringlift::{ChunkSize, Client, ErrorKind, RequestCounts, Snapshot, UploadCounts};

use crate::support::way::{CHUNK, Way};
use crate::support::{MIB, Sample, Scheme, TestServer};

fn requests(server: &Server, class: RouteClass) -> u64 {
    server.stats().requests.get(&class).copied().unwrap_or(0)
}

fn refused(server: &Server, slug: &str) -> u64 {
    server.stats().refused.get(slug).copied().unwrap_or(0)
}

fn upload(client: &Client, sample: &Sample) {
    client.upload(sample.path()).chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking().unwrap();
}

/// Waits, for at most a minute, until the snapshot is as expected.
fn wait_for(client: &Client, expected: impl Fn(&Snapshot) -> bool) {
    let begun = Instant::now();
    while !expected(&client.snapshot()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", client.snapshot());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn without_faults_every_count_agrees_with_the_server() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        let client = test_server.short_pause_client().build().unwrap();
        assert_eq!(client.snapshot().lanes.idle, 3);
        let samples = [Sample::new(2 * CHUNK + 5), Sample::new(MIB)];
        samples.iter().for_each(|sample| upload(&client, sample));
        let (snapshot, server) = (client.snapshot(), &test_server.server);
        let bytes = 2 * CHUNK + 5 + MIB;
        let counted = snapshot.bytes;
        assert_eq!((counted.read, counted.sent, counted.acknowledged), (bytes, bytes, bytes));
        assert_eq!((counted.sent, counted.resent), (server.stats().file_bytes, 0));
        let uploads = &snapshot.requests.uploads;
        assert_eq!((uploads.ok, uploads.total()), (requests(server, RouteClass::Chunk), 4));
        assert_eq!(snapshot.requests.writes.ok, requests(server, RouteClass::Create));
        assert_eq!(snapshot.requests.reads.ok, requests(server, RouteClass::Status));
        assert_eq!((snapshot.uploads.done, snapshot.uploads.running, snapshot.uploads.queued), (2, 0, 0));
        assert_eq!(
            (snapshot.retries, snapshot.journal_errors, snapshot.throttled_seconds.uploads),
            (0, 0, 0.0)
        );
        // A lane becomes idle shortly after its last answer.
        wait_for(&client, |snapshot| snapshot.lanes.idle == 3);
    }
}

#[test]
fn under_faults_the_sums_agree_with_the_server() {
    let reset = FaultAction::Cut { after_bytes: MIB, how: ConnectionEnd::Reset };
    let too_many = FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::AfterBody };
    let test_server = TestServer::faulty(
        Scheme::Http,
        vec![
            Fault::new(RouteClass::Create, FaultAction::unavailable()),
            Way::Bytes.fault(1, FaultAction::unavailable()),
            Way::Bytes.fault(2, reset),
            Way::Bytes.fault(3, too_many),
            Way::Bytes.fault(4, FaultAction::CloseAfterRecording),
        ],
    );
    let client = test_server.short_pause_client().build().unwrap();
    let sample = Sample::new(6 * CHUNK);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| assert_readings_are_consistent(&client, &is_over));
        upload(&client, &sample);
        is_over.store(true, Ordering::Relaxed);
    });
    let (snapshot, server) = (client.snapshot(), &test_server.server);
    let uploads = snapshot.requests.uploads;
    assert_eq!(uploads.total(), requests(server, RouteClass::Chunk), "{snapshot:?}");
    assert_eq!((uploads.transport, uploads.client_error), (2, 0), "{snapshot:?}");
    assert_eq!(uploads.throttled, refused(server, "too-many-requests"));
    assert_eq!(uploads.server_error + snapshot.requests.writes.server_error, 2);
    assert_eq!(snapshot.requests.writes.total(), requests(server, RouteClass::Create));
    assert_eq!(snapshot.bytes.acknowledged, sample.len);
    assert!(snapshot.bytes.sent >= server.stats().file_bytes, "{snapshot:?}");
    assert!(snapshot.bytes.sent > sample.len && snapshot.bytes.resent > 0, "{snapshot:?}");
    // The creation and two chunks: a 429 is no failure, and the chunk with the lost answer is found in the status.
    assert_eq!(snapshot.retries, 3, "{snapshot:?}");
    assert!(snapshot.throttled_seconds.uploads > 0.5, "{snapshot:?}");
    assert_eq!(snapshot.uploads.done, 1);
}

/// Reads snapshots until `is_over`, and asserts that no count decreases and that the counts of bytes are ordered.
fn assert_readings_are_consistent(client: &Client, is_over: &AtomicBool) {
    let mut before = client.snapshot();
    while !is_over.load(Ordering::Relaxed) {
        let now = client.snapshot();
        let (older, newer) = (before.bytes, now.bytes);
        assert!(newer.acknowledged <= newer.sent && newer.sent <= newer.read, "{now:?}");
        assert!(older.read <= newer.read && older.sent <= newer.sent, "{before:?} {now:?}");
        assert!(before.requests.uploads.total() <= now.requests.uploads.total());
        assert!(before.throttled_seconds.uploads <= now.throttled_seconds.uploads);
        assert_eq!(now.lanes.busy + now.lanes.idle + now.lanes.connecting, 3);
        let UploadCounts { queued, running, done, .. } = now.uploads;
        assert!(queued + running + done <= 1, "{now:?}");
        before = now;
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn queued_running_failed_and_cancelled_uploads_are_counted() {
    let stall = Fault::new(RouteClass::Create, FaultAction::StallAnswering { for_ms: 60_000 });
    let test_server = TestServer::faulty(Scheme::Http, vec![stall]);
    let client = test_server.short_pause_client().with(|settings| settings.transfers = 1).build().unwrap();
    let sample = Sample::new(MIB);
    pollster::block_on(async {
        let running = client.upload(sample.path()).start().await.unwrap();
        let missing = client.upload("/nowhere/film.mp4").start().await.unwrap();
        let last = client.upload(sample.path()).start().await.unwrap();
        wait_for(&client, |snapshot| (snapshot.uploads.running, snapshot.uploads.queued) == (1, 2));
        running.stopper().cancel();
        assert_eq!(running.join().await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(client.snapshot().uploads.cancelled, 1);
        missing.join().await.unwrap_err();
        last.join().await.unwrap();
    });
    let UploadCounts { queued, running, done, failed, cancelled, .. } = client.snapshot().uploads;
    assert_eq!((queued, running, done, failed, cancelled), (0, 0, 1, 1, 1));
}

#[test]
fn the_budget_is_that_of_the_service() {
    let window = Duration::from_secs(3600);
    let test_server = TestServer::with(Scheme::Http, |settings| {
        settings.limits = Limits::Custom(RequestBudget { uploads: 9, writes: 8, reads: 7, window });
    });
    let client = test_server.short_pause_client().build().unwrap();
    assert_eq!(client.snapshot().budgets.uploads, None);
    upload(&client, &Sample::new(2 * CHUNK));
    let budgets = client.snapshot().budgets;
    let left = |budget: Option<ringlift::Budget>| budget.map(|budget| (budget.limit, budget.left));
    assert_eq!((left(budgets.uploads), left(budgets.writes)), (Some((9, 7)), Some((8, 7))));
    assert_eq!(left(budgets.reads), Some((7, 6)));
}

#[test]
fn a_journal_that_fails_is_counted() {
    let test_server = TestServer::new(Scheme::Http);
    let journal = test_server.folder.path().join("journal.db");
    let client = test_server
        .short_pause_client()
        .with(|settings| settings.journal = Some(journal.clone()))
        .build()
        .unwrap();
    let sample = Sample::new(MIB);
    upload(&client, &sample);
    assert_eq!(client.snapshot().journal_errors, 0);
    fs::remove_file(&journal).unwrap();
    fs::write(&journal, "another file").unwrap();
    client.upload(sample.path()).send_blocking().unwrap_err();
    let snapshot = client.snapshot();
    assert!(snapshot.journal_errors > 0 && snapshot.uploads.failed == 1, "{snapshot:?}");
}

#[test]
fn bytes_that_the_peer_has_not_taken_are_in_the_send_queue() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let stall = FaultAction::StallReading { after_bytes: MIB, for_ms: 60_000 };
        let test_server = TestServer::faulty(scheme, vec![Fault::new(RouteClass::Chunk, stall)]);
        let client = test_server.short_pause_client().build().unwrap();
        let sample = Sample::new(128 * MIB);
        pollster::block_on(async {
            let upload = client.upload(sample.path()).chunk_size(ChunkSize::Bytes(64 * MIB));
            let running = upload.start().await.unwrap();
            // Until the server's receive buffer is full, which holds less than what the socket has taken.
            wait_for(&client, |now| now.send_queue_bytes > 0 && now.bytes.sent > MIB);
            assert!(client.snapshot().bytes.acknowledged < 128 * MIB);
            drop(running);
        });
        wait_for(&client, |now| now.uploads.cancelled == 1 && now.send_queue_bytes == 0);
    }
}

#[test]
fn memory_of_streams_and_the_bandwidth_limit_are_reported_as_json() {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 60_000 });
    let test_server = TestServer::faulty(Scheme::Http, vec![stall]);
    let client = test_server.short_pause_client().build().unwrap();
    pollster::block_on(async {
        let stream = client.upload_reader("film.mp4", std::io::Cursor::new(vec![7; 6 << 20]));
        let running = stream.chunk_size(ChunkSize::Bytes(CHUNK)).start().await.unwrap();
        wait_for(&client, |snapshot| snapshot.buffer_bytes >= CHUNK && snapshot.lanes.busy > 0);
        drop(running);
    });
    wait_for(&client, |snapshot| snapshot.uploads.cancelled == 1 && snapshot.buffer_bytes == 0);
    let json = serde_json::to_value(client.snapshot()).unwrap();
    assert_eq!(json["buffer_limit_bytes"], 256 << 20);
    assert_eq!(json["bandwidth_limit_bytes"], serde_json::Value::Null);
    assert!(json["requests"]["uploads"]["transport"].is_u64() && json["uploads"]["cancelled"] == 1, "{json}");
    assert_eq!(RequestCounts::default().answered(), 0);
}
