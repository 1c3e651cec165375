//! Bulk ingestion with the built command: each file once, however often and however it is ended.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::command::{CommandOutput, end, ringlift, start};
use crate::support::queue::folder;
use crate::support::{MIB, Scheme, TestServer};

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
fn strict_permits_a_list_of_exclusions_that_finds_nothing() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let filter = ["--strict", "--exclude", "*.tmp"].map(Path::new);
    ingest(&server, &[&filter[..], &[films.path()]].concat()).done();
    server.assert_created(1);
}

#[test]
fn a_directory_is_refused_by_upload_which_names_ingest() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let args = [Path::new("upload"), films.path()];
    server.run(args).failed(2, &["is a directory", "`ringlift ingest`"]);
    assert_eq!(requests(&server), 0);
}

#[test]
fn bad_lines_are_rows_with_their_numbers_and_strict_refuses_before_any_request() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let manifest = films.path().join("jobs.jsonl");
    let lines = "{\"path\":\"clip000.mp4\",\"title\":\"One\"}\nnonsense\n{\"path\":\"gone.mp4\"}\n{\"path\":\"clip001.mp4\"}\n";
    fs::write(&manifest, lines).unwrap();
    let flag = Path::new("--manifest");
    ingest(&server, &[Path::new("--strict"), flag, &manifest]).failed(2, &["jobs.jsonl:2", "gone.mp4"]);
    let filter = ["--strict", "--include", "*.mov"].map(Path::new);
    ingest(&server, &[&filter[..], &[films.path()]].concat()).failed(2, &["`+ *.mov` matches no file"]);
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

/// The files, their sizes in MiB, and the kills of the test below.
struct KillTest {
    small: usize,
    large: usize,
    kills: u32,
}

impl KillTest {
    /// Returns the long form if the environment requests it.
    fn from_environment() -> KillTest {
        match std::env::var_os("RINGLIFT_LONG_TESTS") {
            Some(_) => KillTest { small: 150, large: 2, kills: 40 },
            None => KillTest { small: 40, large: 1, kills: 6 },
        }
    }
}

#[test]
fn killed_at_any_moment_each_file_is_one_complete_video() {
    let KillTest { small, large, kills } = KillTest::from_environment();
    let (server, films) = (TestServer::new(Scheme::Http), folder(small));
    for index in 0..large {
        let content = vec![index as u8; 60 * MIB as usize];
        fs::write(films.path().join(format!("long{index}.mp4")), content).unwrap();
    }
    let report = films.path().join("report.jsonl");
    let command = || {
        let mut command = ringlift();
        command.args(["ingest", "--json", "--chunk-size", "5M", "--report"]).args([&report, films.path()]);
        command
    };
    // Each run is killed a little later than the one before, from its start to the middle of its uploads.
    let mut random = fastrand::Rng::with_seed(u64::from(kills));
    for _ in 0..kills {
        let mut child = start(server.configure(&mut command()));
        std::thread::sleep(Duration::from_millis(random.u64(20..500)));
        let _ = child.kill();
        let _ = child.wait();
    }
    end(start(server.configure(&mut command()))).done();
    let output = server.run([Path::new("jobs"), Path::new("list"), Path::new("--json")]).done();
    let jobs: Vec<_> = output.events().into_iter().filter(|event| event["event"] == "job").collect();
    assert_eq!(jobs.len(), small + large);
    let mut videos = HashSet::new();
    for job in jobs {
        assert_eq!(job["state"], "done", "{job}");
        let (video, path) = (job["video_id"].as_str().unwrap(), PathBuf::from(job["path"].as_str().unwrap()));
        server.assert_holds(video, &path);
        videos.insert(video.to_owned());
    }
    assert_eq!(videos.len(), small + large);
    // A row of each file, whole and with its video, though every run but the last was killed.
    let rows = fs::read_to_string(&report).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).expect(row));
    let reported: HashSet<_> = rows.filter_map(|row| Some(row["video_id"].as_str()?.to_owned())).collect();
    assert_eq!(reported, videos);
    // Without its journal's entry a killed creation would leave a second video.
    server.assert_created((small + large) as u64);
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

#[test]
fn strict_refuses_files_that_cannot_be_uploaded_before_any_request() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    fs::write(films.path().join("empty.mp4"), "").unwrap();
    ingest(&server, &[Path::new("--strict"), films.path()]).failed(2, &["empty.mp4", "the file is empty"]);
    // The options of a line count, not only those of the command.
    fs::File::create(films.path().join("huge.mp4")).unwrap().set_len(60 << 30).unwrap();
    let manifest = films.path().join("jobs.jsonl");
    fs::write(&manifest, "{\"path\":\"huge.mp4\",\"mode\":\"parts\",\"chunk_size\":\"5M\"}\n").unwrap();
    ingest(&server, &[Path::new("--strict"), Path::new("--manifest"), &manifest]).failed(2, &["huge.mp4"]);
    assert_eq!(requests(&server), 0);
}

#[test]
fn strict_and_a_dry_run_refuse_an_id_of_two_files() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let manifest = films.path().join("jobs.jsonl");
    let lines = "{\"path\":\"clip000.mp4\",\"id\":\"a\"}\n{\"path\":\"clip001.mp4\",\"id\":\"a\"}\n";
    fs::write(&manifest, lines).unwrap();
    let args = [Path::new("--manifest"), &manifest];
    for (flag, code) in [("--strict", 2), ("--dry-run", 1)] {
        ingest(&server, &[&args[..], &[Path::new(flag)]].concat()).failed(code, &["jobs.jsonl:2: job id a"]);
    }
    assert_eq!(requests(&server), 0);
}

#[test]
fn a_file_that_is_named_twice_is_one_file_of_a_dry_run_and_permitted_by_strict() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let film = films.path().join("clip000.mp4");
    let output = ingest(&server, &[Path::new("--dry-run"), &film, &film]).done();
    assert_eq!(output.event("estimate")["files"], 1);
    assert!(output.stderr.contains("is named twice"), "{}", output.stderr);
    ingest(&server, &[Path::new("--strict"), &film, &film]).done();
    server.assert_created(1);
}
