//! `ringlift tune`: the measurement of a path, its limits, and what it leaves behind.

use std::fs::{self, FileTimes};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use ringlift::server::{Fault, FaultAction, Limits, RefusalTiming, RequestBudget, RouteClass};
use ringlift::tune::{
    PathEnd, PathEvent, PathLimits, PathReport, SpentLimit, TuneBottleneck, TuneContext, advise, measure_path,
};
use ringlift::{Settings, VideoQuery};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{CommandOutput, end, ringlift, run, start};
use crate::support::{MIB, Sample, Scheme, TestServer};

/// Returns limits for a quick measurement.
fn quick() -> PathLimits {
    let mut limits = PathLimits::default();
    limits.bytes = 512 * MIB;
    limits.time = Duration::from_secs(30);
    limits.most_lanes = 4;
    limits
}

fn settings(server: &TestServer) -> Settings {
    let mut settings = Settings::default();
    settings.endpoint_url = server.server.url().to_owned();
    settings.credentials = ringlift::Credentials::ApiKey(server.server.api_key().into());
    settings
}

fn measure(server: &TestServer, limits: PathLimits) -> PathReport {
    let folder = tempfile::tempdir().unwrap();
    let report = measure_path(&settings(server), folder.path(), limits, &mut |_| ControlFlow::Continue(()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a sample is left");
    report.unwrap()
}

/// Asserts that the service has no video.
fn assert_nothing_is_left(server: &TestServer) {
    let client = server.client().build().unwrap();
    let page = pollster::block_on(client.videos(VideoQuery::default())).unwrap();
    assert!(page.data.is_empty(), "{:?}", page.data);
}

/// Returns a server that permits this many upload requests a minute.
fn server_with_budget(uploads: u32) -> TestServer {
    let window = Duration::from_secs(60);
    let budget = RequestBudget { uploads, writes: 200, reads: 500, window };
    TestServer::with(Scheme::Http, |settings| settings.limits = Limits::Custom(budget))
}

fn refusing(on: RouteClass, nth: u64, action: FaultAction) -> TestServer {
    TestServer::faulty(Scheme::Http, vec![Fault { on, part: None, offset: None, nth, times: 1, action }])
}

/// Returns a server that reads each chunk at this rate.
fn throttling(bytes_per_second: u64) -> TestServer {
    let action = FaultAction::Throttle { bytes_per_second };
    let fault = Fault { on: RouteClass::Chunk, part: None, offset: None, nth: 1, times: 0, action };
    TestServer::faulty(Scheme::Http, vec![fault])
}

/// Runs the command against this server.
fn tune(server: &TestServer, args: &[&str]) -> CommandOutput {
    run(tune_command(server).args(args))
}

fn tune_command(server: &TestServer) -> std::process::Command {
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", server.server.api_key());
    command.args(["tune", "--json", "--endpoint-url", server.server.url()]);
    command
}

#[test]
fn a_measurement_stays_in_its_limits_and_leaves_nothing() {
    let server = TestServer::new(Scheme::Http);
    let report = measure(&server, quick());
    assert!(report.rate.is_some() && !report.rungs.is_empty(), "{report:?}");
    assert!((1..=4).contains(&report.lanes) && report.requests <= 30, "{report:?}");
    assert!(report.bytes_sent > 0 && report.bytes_sent <= 512 * MIB, "{report:?}");
    assert_eq!(report.chunk_bytes % (256 << 10), 0);
    assert_eq!(u64::from(report.videos), server.server.stats().videos_created);
    assert!(report.videos <= quick().most_videos());
    assert!(server.chunk_requests().len() <= report.requests as usize, "{report:?}");
    assert!(report.swept.left.is_empty(), "{report:?}");
    assert_nothing_is_left(&server);
}

#[test]
fn a_measurement_over_tls_stays_in_its_limits_too() {
    let server = TestServer::new(Scheme::Https);
    let mut settings = settings(&server);
    settings.trust.ca_certs.extend(server.ca());
    let folder = tempfile::tempdir().unwrap();
    let report = measure_path(&settings, folder.path(), quick(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.rate.is_some() && report.bytes_sent <= 512 * MIB, "{report:?}");
    assert_nothing_is_left(&server);
}

#[test]
fn a_lane_that_was_measured_alone_does_not_show_a_full_link() {
    let (server, folder) = (throttling(8 * MIB), tempfile::tempdir().unwrap());
    let config = folder.path().join("tuned.toml");
    let ran =
        tune(&server, &["--path-only", "--max-requests", "1", "--write-config", config.to_str().unwrap()]);
    let tuned = ran.done().event("tuned");
    assert_eq!((&tuned["bottleneck"], &tuned["lanes"]), (&"connection".into(), &1.into()), "{tuned}");
    assert_eq!((&tuned["more_lanes_unmeasured"], &tuned["compared"]), (&"requests".into(), &false.into()));
    assert!(tuned["verdict"].as_str().unwrap().contains("--max-requests"), "{tuned}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains("concurrency =") && text.contains("chunk-size ="), "{text}");
}

#[test]
fn a_small_request_budget_ends_the_measurement_before_a_429() {
    // Half of 24 is 12, and 20 of them are kept: 4 requests may be used.
    let server = server_with_budget(24);
    let report = measure(&server, quick());
    assert!(matches!(report.end, PathEnd::Spent(SpentLimit::Requests)), "{report:?}");
    assert!(server.chunk_requests().len() <= 4, "{:?}", server.chunk_requests());
    assert!(server.server.requests().iter().all(|request| request.status != Some(429)));
    assert_eq!(report.uploads_per_minute, Some(24));
    assert_nothing_is_left(&server);
}

#[test]
fn the_requests_that_are_kept_are_not_spent_after_the_first_answer() {
    // The first answer leaves 18, of which 20 are kept.
    let server = server_with_budget(19);
    let report = measure(&server, quick());
    assert!(matches!(report.end, PathEnd::Spent(SpentLimit::Requests)), "{report:?}");
    assert_eq!(server.chunk_requests().len(), 1, "{report:?}");
}

#[test]
fn a_budget_that_the_rate_exceeds_is_the_bottleneck() {
    // 24 requests of 200 MiB are 72 MiB/s, with a tenth kept for retries.
    let server = server_with_budget(24);
    let mut report = measure(&server, quick());
    let context = TuneContext::default();
    if let Some(rate) = &mut report.rate {
        rate.mean = 100.0 * MIB as f64;
    }
    assert_eq!(advise(&report, &[], &context).bottleneck, TuneBottleneck::RequestBudget);
}

#[test]
fn the_first_429_ends_the_measurement_and_is_the_result() {
    let action = FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::Early };
    let server = refusing(RouteClass::Chunk, 3, action);
    let report = measure(&server, quick());
    assert!(matches!(report.end, PathEnd::Throttled), "{report:?}");
    let advice = advise(&report, &[], &TuneContext::default());
    assert_eq!(advice.bottleneck, TuneBottleneck::RequestBudget);
    assert_nothing_is_left(&server);
}

#[test]
fn a_failure_ends_the_measurement_and_leaves_nothing() {
    let action = FaultAction::Refuse { status: 503, slug: None, timing: RefusalTiming::EarlyClose };
    let server = refusing(RouteClass::Chunk, 2, action);
    let report = measure(&server, quick());
    assert!(matches!(report.end, PathEnd::Failed(_)), "{report:?}");
    assert_eq!(advise(&report, &[], &TuneContext::default()).bottleneck, TuneBottleneck::Service);
    assert_nothing_is_left(&server);
}

#[test]
fn a_service_that_stalls_is_a_temporary_failure() {
    let action = FaultAction::StallReading { after_bytes: 0, for_ms: 60_000 };
    let (server, folder) = (refusing(RouteClass::Chunk, 1, action), tempfile::tempdir().unwrap());
    let config = folder.path().join("tuned.toml");
    let args = ["--path-only", "--max-time", "15s", "--write-config", config.to_str().unwrap()];
    tune(&server, &args).failed(5, &["no byte moved"]);
    assert!(!config.exists());
}

#[test]
fn a_creation_whose_answer_is_lost_leaves_no_video() {
    let server = refusing(RouteClass::Create, 1, FaultAction::CloseAfterRecording);
    let report = measure(&server, quick());
    assert!(report.swept.left.is_empty(), "{report:?}");
    server.assert_created(u64::from(report.videos).max(1));
    assert_nothing_is_left(&server);
}

#[test]
fn a_stopped_measurement_leaves_nothing() {
    let server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let mut measured = 0;
    let report = measure_path(&settings(&server), folder.path(), quick(), &mut |event| {
        measured += u32::from(matches!(event, PathEvent::Measured(_)));
        if measured > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(report.unwrap().end, PathEnd::Stopped));
    assert_nothing_is_left(&server);
}

#[test]
fn a_wrong_key_is_refused_before_anything_is_created() {
    let server = TestServer::new(Scheme::Http);
    let mut settings = settings(&server);
    settings.credentials = ringlift::Credentials::ApiKey("wrong".into());
    let folder = tempfile::tempdir().unwrap();
    let error = measure_path(&settings, folder.path(), quick(), &mut |_| ControlFlow::Continue(()));
    assert_eq!(error.unwrap_err().kind(), ringlift::ErrorKind::NotAuthorized);
    server.assert_created(0);
}

#[test]
fn the_command_measures_a_server_of_its_own_and_reports_everything() {
    let sample = Sample::new(8 * MIB);
    let folder = tempfile::tempdir().unwrap();
    let (plot, config) = (folder.path().join("tune.svg"), folder.path().join("tuned.toml"));
    let mut command = ringlift();
    command
        .args(["tune", "--json", "--max-bytes", "512MiB", "--max-lanes", "2", "--data"])
        .arg(folder.path());
    command.arg("--plot").arg(&plot).arg("--write-config").arg(&config).arg(sample.path());
    let ran = run(&mut command).done();
    assert!(ran.stderr.contains("at most"), "{}", ran.stderr);
    // The costs come before the first byte.
    assert_eq!(ran.events()[0]["event"], "tuning");
    let tuned = ran.event("tuned");
    for key in ["bottleneck", "lanes", "chunk_bytes", "reader", "requests", "bytes_sent", "elapsed_ms"] {
        assert!(!tuned[key].is_null(), "{key}: {tuned}");
    }
    let rate = |key: &str| tuned[key].as_f64().unwrap();
    assert!(rate("low") <= rate("bytes_per_second") && rate("bytes_per_second") <= rate("high"), "{tuned}");
    let parts = tuned["ceilings"].as_array().unwrap();
    for part in ["pread_hot", "sealing", "loopback", "loopback_tls"] {
        assert!(parts.iter().any(|ceiling| ceiling["part"] == part), "{part}: {tuned}");
    }
    assert_eq!(ran.summary()["sent_bytes"], tuned["bytes_sent"]);
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("bottleneck"), "{svg}");
    // Samples and the server's data are gone.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    assert_reads_back(&config, &tuned);
    run(ringlift().arg("tune").arg("--write-config").arg(&config)).failed(2, &["exists already"]);
}

#[test]
fn a_file_that_is_too_small_to_measure_its_disk_is_reported() {
    let server = throttling(8 * MIB);
    let sample = Sample::new(5000);
    let ran = tune(&server, &["--max-requests", "1", sample.path().to_str().unwrap()]).done();
    assert!(ran.stderr.contains("the readers were not measured"), "{}", ran.stderr);
    let tuned = ran.event("tuned");
    assert_eq!((&tuned["reader"], &tuned["bottleneck"]), (&"auto".into(), &"connection".into()), "{tuned}");
}

#[test]
fn a_file_that_cannot_be_written_is_reported_before_the_measurement() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone/tune");
    for flag in ["--plot", "--write-config"] {
        let ran = run(ringlift().args(["tune", "--json", flag]).arg(&gone));
        let ran = ran.failed(4, &["could not write", "gone/tune", "No such file"]);
        assert!(ran.events().iter().all(|event| event["event"] != "tuning"), "{ran:?}");
    }
    run(ringlift().args(["tune", "--plot"]).arg(folder.path())).failed(2, &["is a directory"]);
}

#[test]
fn the_chart_and_the_config_file_have_to_be_different_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ringlift();
    command.current_dir(folder.path()).args(["tune", "--json", "--plot", "./tune", "--write-config", "tune"]);
    let ran = run(&mut command).failed(2, &["different files"]);
    assert!(ran.events().iter().all(|event| event["event"] != "tuning"), "{ran:?}");
}

#[test]
fn a_config_file_that_is_not_written_is_reported() {
    let action = FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::Early };
    let (server, folder) = (refusing(RouteClass::Create, 1, action), tempfile::tempdir().unwrap());
    let config = folder.path().join("tuned.toml");
    let ran = tune(&server, &["--path-only", "--write-config", config.to_str().unwrap()]).done();
    assert!(ran.stderr.contains("was not written"), "{}", ran.stderr);
    assert!(!config.exists());
}

/// Asserts that an upload with this config file uses the settings.
fn assert_reads_back(config: &std::path::Path, tuned: &Value) {
    let sample = Sample::sparse(1024 * MIB);
    let mut command = ringlift();
    command.args(["upload", "--dry-run", "--json", "--config"]).arg(config).arg(sample.path());
    let planned = run(&mut command).done().event("planned");
    // Left out where the second number was sent too fast to be counted.
    if tuned["more_lanes_unmeasured"].is_null() {
        assert_eq!(planned["lanes"], tuned["lanes"], "{planned}");
    }
    assert_eq!(planned["chunk_bytes"], tuned["chunk_bytes"], "{planned}");
}

#[test]
fn the_command_reports_a_429_and_cleans_up() {
    let action = FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::Early };
    let server = refusing(RouteClass::Chunk, 2, action);
    let ran = tune(&server, &["--path-only"]).done();
    assert_eq!(ran.event("tuned")["bottleneck"], "request_budget", "{ran:?}");
    assert_nothing_is_left(&server);
}

/// Starts a measurement on a slow server, and ends it by a signal in the middle of its first chunk.
fn interrupted(server: &TestServer, folder: &std::path::Path, signal: Signal) -> CommandOutput {
    let mut command = tune_command(server);
    let child = start(command.args(["--path-only", "--max-time", "1m", "--data"]).arg(folder));
    let mut waited = Duration::ZERO;
    // The fault is counted when the server reads the chunk.
    while server.server.stats().faults == 0 {
        std::thread::sleep(Duration::from_millis(20));
        waited += Duration::from_millis(20);
        assert!(waited < Duration::from_secs(60), "nothing is sent");
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    end(child)
}

/// Returns a server that reads the first chunk slowly.
fn slow_server() -> TestServer {
    refusing(RouteClass::Chunk, 1, FaultAction::Throttle { bytes_per_second: 1 << 20 })
}

#[test]
fn a_signal_ends_the_command_after_its_videos_are_deleted() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (server, folder) = (slow_server(), tempfile::tempdir().unwrap());
        let ran = interrupted(&server, folder.path(), signal);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.summary()["sent_bytes"].as_u64() > Some(0), "{ran:?}");
        assert_nothing_is_left(&server);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a sample is left");
    }
}

#[test]
fn a_killed_measurement_is_cleaned_up_by_the_next_commands() {
    let (server, folder) = (slow_server(), tempfile::tempdir().unwrap());
    interrupted(&server, folder.path(), Signal::KILL);
    let left = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", server.server.api_key());
    command.args(["clean", "--tune", "--yes", "--json", "--endpoint-url", server.server.url(), "--data"]);
    command.arg(folder.path());
    // A directory that is seconds old could belong to a measurement that begins.
    let long_ago = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(60));
    fs::File::open(&left).unwrap().set_times(long_ago).unwrap();
    assert!(run(&mut command).done().stderr.contains("removed"));
    assert!(!left.exists());
    assert_nothing_is_left(&server);
}

#[test]
fn clean_deletes_what_a_killed_measurement_left() {
    let server = TestServer::new(Scheme::Http);
    let client = server.client().build().unwrap();
    let (mut left, mut other) = (ringlift::NewVideo::default(), ringlift::NewVideo::default());
    left.title = "left".to_owned();
    left.metadata.push(ringlift::Metadata { key: ringlift::tune::TUNE_KEY.into(), value: "1".into() });
    other.title = "other".to_owned();
    pollster::block_on(client.create_video(left)).unwrap();
    let other = pollster::block_on(client.create_video(other)).unwrap();
    let clean = |args: &[&str]| {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", server.server.api_key());
        run(command.args(["clean", "--tune", "--json", "--endpoint-url", server.server.url()]).args(args))
    };
    clean(&[]).failed(2, &["--yes"]);
    let deleted = clean(&["--yes"]).done();
    assert_ne!(deleted.event("deleted")["video_id"], other.video_id.as_str());
    assert!(clean(&["--yes"]).done().stderr.contains("nothing to clean"));
    let videos = pollster::block_on(client.videos(VideoQuery::default())).unwrap().data;
    assert_eq!(videos.len(), 1, "only the other video is left");
}

#[test]
fn limits_that_permit_no_measurement_are_named() {
    let server = TestServer::new(Scheme::Http);
    tune(&server, &["--path-only", "--max-bytes", "1MiB"]).failed(1, &["--max-bytes"]);
    assert_nothing_is_left(&server);
}

#[test]
fn the_production_service_has_to_be_asked_for_on_the_command_line() {
    let refused = |args: &[&str], environment: &[(&str, &str)], text: &str| {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").envs(environment.iter().copied());
        run(command.arg("tune").args(args)).failed(2, &[text]);
    };
    let production = ringlift::PRODUCTION_URL;
    refused(&["--endpoint-url", production], &[], "--production");
    refused(&[], &[("RINGLIFT_ENDPOINT_URL", production)], "--production");
    refused(&["--production", "--sandbox"], &[], "contradicts");
    // Without the flag, the variable has no effect, and the server in this process is measured.
    let mut command = ringlift();
    command.env("RINGLIFT_PRODUCTION", "true").args(["tune", "--json", "--path-only"]);
    let ran = run(command.args(["--max-lanes", "1", "--max-bytes", "512MiB"])).done();
    assert!(ran.event("tuned")["endpoint_url"].as_str().unwrap().contains("127.0.0.1"));
}
