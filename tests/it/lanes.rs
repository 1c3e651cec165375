//! The number of connections in use, chosen while uploads run.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::{FaultAction, Limits, RefusalTiming, RequestBudget};
use ringlift::{
    Bandwidth, ChunkSize, Client, ClientBuilder, LaneControl, LaneHold, MinSpeed, Mode, Settings, Snapshot,
};

use crate::support::command::{ringlift, run};
use crate::support::way::{CHUNK, Way};
use crate::support::{MIB, Sample, Scheme, TestServer, short_pauses};

fn mib_a_second(mib: u64) -> Bandwidth {
    Bandwidth::bytes_per_second(NonZeroU64::new(mib * MIB).unwrap())
}

/// Returns a client with an automatic number of at most 32 lanes.
fn automatic(test_server: &TestServer) -> ClientBuilder {
    test_server.client().with(short_pauses).automatic_lanes(32)
}

/// Uploads the sample in chunks of 5 MiB, and asserts that the server holds it. Returns the snapshots of the upload, one
/// every few milliseconds.
fn watched(test_server: &TestServer, client: &Client, sample: &Sample) -> Vec<Snapshot> {
    let upload = client.upload(sample.path()).mode(Mode::Bytes).chunk_size(ChunkSize::Bytes(CHUNK));
    let running = pollster::block_on(upload.start()).unwrap();
    let (begun, mut snapshots) = (Instant::now(), vec![client.snapshot()]);
    while running.current().acknowledged_bytes < sample.path().metadata().unwrap().len() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", snapshots.last());
        thread::sleep(Duration::from_millis(5));
        snapshots.push(client.snapshot());
    }
    let uploaded = running.join_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    snapshots
}

#[test]
fn a_file_arrives_whole_over_a_number_of_lanes_that_changes() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        let client = automatic(&test_server).build().unwrap();
        let snapshots = watched(&test_server, &client, &Sample::new(16 * CHUNK + 5));
        for snapshot in &snapshots {
            let lanes = snapshot.lanes;
            assert!((1..=32).contains(&lanes.permitted), "{lanes:?}");
            assert_eq!(lanes.busy + lanes.idle + lanes.connecting, 32, "{lanes:?}");
        }
        assert_eq!(client.snapshot().retries, 0);
    }
}

#[test]
fn at_the_start_no_more_lanes_are_used_than_a_fixed_number_has() {
    let test_server = TestServer::new(Scheme::Http);
    assert_eq!(automatic(&test_server).build().unwrap().snapshot().lanes.permitted, 8);
    assert_eq!(test_server.client().automatic_lanes(3).build().unwrap().snapshot().lanes.permitted, 3);
    assert_eq!(test_server.client().lanes(40).build().unwrap().snapshot().lanes.permitted, 40);
}

#[test]
fn while_the_bandwidth_limit_binds_the_number_is_kept() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        let client = automatic(&test_server).with(|settings| settings.bandwidth = mib_a_second(24));
        let client = client.build().unwrap();
        let snapshots = watched(&test_server, &client, &Sample::new(20 * CHUNK));
        let holds = || snapshots.iter().filter(|snapshot| snapshot.lane_hold == Some(LaneHold::Bandwidth));
        assert!(holds().count() > 0, "{:?}", snapshots.last());
        assert!(holds().all(|snapshot| snapshot.lanes.permitted == 8), "{:?}", holds().next_back());
        assert!(snapshots.iter().all(|snapshot| snapshot.lanes.busy <= 8), "{:?}", snapshots.last());
    }
}

#[test]
fn while_the_request_budget_binds_the_number_is_kept() {
    // Two chunks in a window of three seconds.
    let budget = RequestBudget { uploads: 2, writes: 200, reads: 500, window: Duration::from_secs(3) };
    let test_server = TestServer::with(Scheme::Http, |settings| settings.limits = Limits::Custom(budget));
    let client = automatic(&test_server).with(|settings| settings.caps.uploads_a_minute = Some(2));
    let client = client.with(|settings| settings.lanes = 4).build().unwrap();
    let sample = Sample::new(4 * CHUNK);
    let upload = client.upload(sample.path()).chunk_size(ChunkSize::Bytes(CHUNK));
    let running = pollster::block_on(upload.start()).unwrap();
    let begun = Instant::now();
    while client.snapshot().lane_hold != Some(LaneHold::Budget) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", client.snapshot());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.snapshot().lanes.permitted, 4);
    drop(running);
}

#[test]
fn an_answer_429_halves_the_number() {
    let too_many = FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::AfterBody };
    let test_server = TestServer::faulty(Scheme::Http, vec![Way::Bytes.fault(2, too_many)]);
    let client = automatic(&test_server).build().unwrap();
    let snapshots = watched(&test_server, &client, &Sample::new(12 * CHUNK));
    let least = snapshots.iter().map(|snapshot| snapshot.lanes.permitted).min();
    assert!(least <= Some(4), "{least:?}, {:?}", snapshots.last());
}

#[test]
fn a_minimum_speed_bounds_the_number_under_a_bandwidth_limit() {
    let minimum = |bytes_per_s| Some(MinSpeed { bytes_per_s, window: Duration::from_secs(1) });
    let checked = |bytes_per_s| {
        let mut settings = Settings::default();
        (settings.lanes, settings.lane_control) = (32, LaneControl::Automatic);
        settings.bandwidth = mib_a_second(16);
        settings.patience.min_speed = minimum(bytes_per_s);
        settings.check()
    };
    // Eight lanes at the start have 2 MiB a second each; further ones would have less.
    checked(2 * MIB).unwrap();
    checked(3 * MIB).unwrap_err();
}

#[test]
fn a_file_alone_is_cut_for_the_lanes_that_may_be_used() {
    let plan = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        settings.endpoint_url = "http://127.0.0.1:1".into();
        (settings.lanes, settings.lane_control) = (32, LaneControl::Automatic);
        change(&mut settings);
        settings.plan(2 << 30, Mode::Auto, ChunkSize::Auto).unwrap().chunks()
    };
    assert!(plan(|_| {}) >= 4 * 32);
    // Under a budget, the plan is that of eight lanes.
    let budget = |settings: &mut Settings| settings.caps.uploads_a_minute = Some(40);
    let fixed = |settings: &mut Settings| {
        (settings.lanes, settings.lane_control) = (8, LaneControl::Fixed);
        settings.caps.uploads_a_minute = Some(40);
    };
    assert_eq!(plan(budget), plan(fixed));
}

#[test]
fn the_command_reports_the_number_in_use_and_what_keeps_it() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(6 * MIB);
    let ran = |flags: &[&str]| {
        let mut command = ringlift();
        test_server.configure(&mut command).args(["upload", "--json", "--no-journal", "--bwlimit", "2M"]);
        run(command.args(flags).arg(sample.path())).done().events()
    };
    for flags in [&[][..], &["--concurrency", "auto"]] {
        let events = ran(flags);
        let lanes = events.iter().find(|event| event["event"] == "lanes").unwrap();
        assert_eq!((lanes["lanes"].as_u64(), lanes["most"].as_u64()), (Some(8), Some(32)), "{lanes}");
        assert!(["bandwidth", "work"].contains(&lanes["hold"].as_str().unwrap()), "{lanes}");
    }
    assert!(ran(&["--concurrency", "3"]).iter().all(|event| event["event"] != "lanes"));
}
