//! Bulk ingestion with the built command: each file once, however often and however it is ended.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::command::{CommandOutput, end, ringlift, start};
use crate::support::{MIB, Scheme, TestServer, digest};

/// A folder with `count` small videos.
fn folder(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..count {
        fs::write(folder.path().join(format!("clip{index:03}.mp4")), format!("content of clip {index}"))
            .unwrap();
    }
    folder
}

fn ingest(server: &TestServer, args: &[&Path]) -> CommandOutput {
    let args = [Path::new("ingest"), Path::new("--json")].into_iter().chain(args.iter().copied());
    server.run(args)
}

/// Returns the number of events of this name.
fn count(output: &CommandOutput, name: &str) -> usize {
    output.events().iter().filter(|event| event["event"] == name).count()
}

fn requests(server: &TestServer) -> usize {
    server.server.requests().len()
}

#[test]
fn a_folder_twice_is_each_file_once_and_the_second_run_sends_nothing() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(12));
    let first = ingest(&server, &[films.path()]).done();
    let summary = first.summary();
    assert_eq!((&summary["files_done"], &summary["videos_created"]), (&12.into(), &12.into()));
    let sent = requests(&server);
    let second = ingest(&server, &[films.path()]).done();
    assert_eq!((requests(&server), count(&second, "file_skipped")), (sent, 12));
    assert!(
        second.events().iter().all(|event| event["event"] != "file_skipped" || event["video_id"].is_string())
    );
    assert_eq!(second.summary()["files_skipped"], 12);
    server.assert_created(12);
}

#[test]
fn bad_lines_are_rows_with_their_numbers_and_strict_refuses_before_any_request() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let manifest = films.path().join("jobs.jsonl");
    let lines = "{\"path\":\"clip000.mp4\",\"title\":\"One\"}\nnonsense\n{\"path\":\"gone.mp4\"}\n{\"path\":\"clip001.mp4\"}\n";
    fs::write(&manifest, lines).unwrap();
    let flag = Path::new("--manifest");
    ingest(&server, &[Path::new("--strict"), flag, &manifest]).failed(2, &["jobs.jsonl:2", "gone.mp4"]);
    assert_eq!(requests(&server), 0);
    let report = films.path().join("report.csv");
    let output =
        ingest(&server, &[flag, &manifest, Path::new("--report"), &report]).failed(1, &["jobs.jsonl:2"]);
    assert_eq!(
        (output.summary()["files_done"].as_u64(), output.summary()["files_failed"].as_u64()),
        (Some(2), Some(2))
    );
    let rows = fs::read_to_string(&report).unwrap();
    assert_eq!(rows.lines().count(), 5, "{rows}");
}

#[test]
fn a_report_is_a_manifest_of_what_failed() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    let wrong = "0".repeat(64);
    let manifest = films.path().join("jobs.jsonl");
    let line = |index: usize, more: &str| format!("{{\"path\":\"clip{index:03}.mp4\"{more}}}\n");
    let more = format!(",\"sha256\":\"{wrong}\"");
    fs::write(&manifest, line(0, "") + &line(1, &more) + &line(2, "")).unwrap();
    let report = films.path().join("report.jsonl");
    let (flag, report_flag) = (Path::new("--manifest"), Path::new("--report"));
    let output = ingest(&server, &[flag, &manifest, report_flag, &report]).failed(1, &["SHA-256"]);
    assert_eq!(output.summary()["files_done"], 2);
    assert!(output.stderr.contains("is deleted"), "{}", output.stderr);
    // Skipped with its reason, and the exit code stays.
    let again = ingest(&server, &[flag, &manifest]).failed(1, &["earlier run"]);
    assert_eq!(again.summary()["files_skipped"], 3);
    // The job of the row keeps its wrong digest, and is tried again.
    let retried =
        ingest(&server, &[flag, &report, Path::new("--retry"), Path::new("failed")]).failed(1, &["SHA-256"]);
    assert_eq!(
        (retried.summary()["files_failed"].as_u64(), retried.summary()["files_skipped"].as_u64()),
        (Some(1), Some(0))
    );
}

#[test]
fn two_processes_share_a_queue_and_never_a_file() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(60));
    let command = || {
        let mut command = ringlift();
        command.args([Path::new("ingest"), Path::new("--json"), films.path()]);
        start(server.configure(&mut command))
    };
    let (one, other) = (command(), command());
    for child in [one, other] {
        end(child).done();
    }
    server.assert_created(60);
}

#[test]
fn killed_at_any_moment_each_file_is_one_complete_video() {
    let rounds: u32 =
        std::env::var("RINGLIFT_INGEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let (server, films) = (TestServer::new(Scheme::Http), folder(40));
    fs::write(films.path().join("long.mp4"), vec![7; 60 * MIB as usize]).unwrap();
    let command = || {
        let mut command = ringlift();
        command.args([
            Path::new("ingest"),
            Path::new("--json"),
            Path::new("--chunk-size"),
            Path::new("5M"),
            films.path(),
        ]);
        command
    };
    let mut state = 0x9e37_79b9_u64;
    for _ in 0..rounds {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = start(server.configure(&mut command()));
        std::thread::sleep(Duration::from_millis(100 + (state >> 33) % 700));
        let _ = child.kill();
        let _ = child.wait();
    }
    end(start(server.configure(&mut command()))).done();
    let output = server.run([Path::new("jobs"), Path::new("list"), Path::new("--json")]).done();
    let jobs: Vec<_> = output.events().into_iter().filter(|event| event["event"] == "job").collect();
    assert_eq!(jobs.len(), 41);
    for job in jobs {
        assert_eq!(job["state"], "done", "{job}");
        let path = PathBuf::from(job["path"].as_str().unwrap());
        server.assert_holds(job["video_id"].as_str().unwrap(), &path);
        assert_eq!(server.stored(job["video_id"].as_str().unwrap()).1, digest(&path));
    }
}

#[test]
fn files_are_moved_once_they_are_confirmed_and_names_may_have_any_bytes() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let odd = films.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.mp4"));
    fs::write(&odd, b"odd").unwrap();
    let done = tempfile::tempdir().unwrap();
    let after = format!("move:{}", done.path().display());
    let output = ingest(&server, &[films.path(), Path::new("--after"), Path::new(&after)]).done();
    assert_eq!(output.summary()["files_done"], 2);
    assert!(!odd.exists() && done.path().join(odd.file_name().unwrap()).exists());
}

#[test]
fn a_filter_that_matches_nothing_is_no_failure_and_a_dry_run_sends_nothing() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let output = ingest(&server, &[films.path(), Path::new("--include"), Path::new("*.mov")]).done();
    assert_eq!(output.summary()["files_ignored"], 2);
    ingest(&server, &[films.path(), Path::new("-n")]).done();
    assert_eq!(requests(&server), 0);
}
