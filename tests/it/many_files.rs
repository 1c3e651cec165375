//! A command with several files: its results, and its end when no file can be uploaded.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RouteClass};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{Watched, end, ringlift, run, start};
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;
const NO_SUCH_FILE: i32 = 4;
const TEMPORARY: i32 = 5;
const NOT_ALLOWED: i32 = 7;

/// Small files in a folder.
struct Files {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

impl Files {
    fn new(count: usize) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> =
            (0..count).map(|number| folder.path().join(format!("film{number}.mp4"))).collect();
        paths.iter().for_each(|path| fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap());
        Files { folder, paths }
    }

    /// Returns the upload of all files, with the journal in the folder.
    fn upload(&self, args: &[&str]) -> Command {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "a-key-of-nobody").args(["upload", "--journal"]);
        command.arg(self.journal()).args(args).args(&self.paths);
        command
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    /// Returns the uploads in the journal of the folder.
    fn left(&self) -> Vec<Value> {
        let mut list = ringlift();
        let listed = run(list.args(["resume", "--list", "--json", "--journal"]).arg(self.journal())).done();
        listed.events().into_iter().filter(|event| event["event"] == "session").collect()
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Returns the URL of a port at which nothing listens.
fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn the_ids_of_several_files_come_with_the_names_and_that_of_one_file_alone() {
    let test_server = TestServer::new(Scheme::Http);
    let files = Files::new(3);
    let mut command = ringlift();
    let ran = run(test_server.configure(&mut command).arg("upload").args(&files.paths)).done();
    let lines: BTreeSet<(&Path, &str)> = ran
        .stdout
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(file, video_id)| (Path::new(file), video_id))
        .collect();
    let named: BTreeSet<&Path> = lines.iter().map(|(file, _)| *file).collect();
    assert_eq!(named, files.paths.iter().map(PathBuf::as_path).collect());
    lines.iter().for_each(|(file, video_id)| test_server.assert_holds(video_id, file));
    let ran = test_server.run(["upload".as_ref(), files.paths[0].as_os_str()]).done();
    assert!(!ran.stdout.contains('\t') && ran.stdout.starts_with("vi"), "{}", ran.stdout);
}

#[test]
fn the_calls_for_many_small_files_share_a_few_connections() {
    let test_server = TestServer::new(Scheme::Http);
    let files = Files::new(400);
    let mut command = ringlift();
    run(test_server.configure(&mut command).arg("upload").args(&files.paths)).done();
    let stats = test_server.server.stats();
    assert_eq!(stats.videos_created, 400);
    // The lanes, and one for each call at the same time. Almost all of them are used again.
    assert!(stats.connections < 40, "{stats:?}");
}

#[test]
fn every_json_line_has_the_time() {
    let test_server = TestServer::new(Scheme::Http);
    let ran = test_server.run(["upload", "--json", Sample::new(MIB).arg()]).done();
    for event in ran.events() {
        let time = event["time"].as_str().unwrap_or_else(|| panic!("{event}"));
        assert!(is_utc_with_milliseconds(time) && time.ends_with('Z') && time.len() == 24, "{event}");
    }
}

/// Returns `true` for a time like `2026-11-27T09:30:00.123Z`.
fn is_utc_with_milliseconds(time: &str) -> bool {
    time.bytes().zip(b"0000-00-00T00:00:00.000Z").all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == *form,
    })
}

#[test]
fn a_resumed_upload_reports_what_this_run_has_sent() {
    let stall = FaultAction::StallAnswering { for_ms: 600_000 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, stall).nth(3)]);
    let sample = Sample::new(20 * MIB);
    let upload = |args: &[&str]| {
        let mut command = ringlift();
        let flags = ["--chunk-size", "5MiB", "--concurrency", "1"];
        test_server.configure(&mut command).arg("upload").args(args).args(flags).arg(sample.path());
        command
    };
    let child = start(&mut upload(&[]));
    while test_server.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(10));
    }
    // The journal records the second chunk shortly after its answer.
    thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
    let ran = run(&mut upload(&["--json"])).done();
    let (done, summary) = (ran.event("file_done"), ran.summary());
    let sent = done["sent_bytes"].as_u64().unwrap();
    // The third chunk was stored before the crash, and the service's status shows that.
    assert!(sent > 0 && sent < 20 * MIB && sent % (5 * MIB) == 0, "{done}");
    assert_eq!((&summary["sent_bytes"], &summary["bytes"]), (&sent.into(), &(20 * MIB).into()));
    let line = format!("{} MiB sent of 20 MiB in ", sent / MIB);
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    let whole = run(&mut upload(&["--json"])).done();
    assert_eq!(whole.event("file_done")["sent_bytes"], 20 * MIB);
    assert!(!whole.stderr.contains("sent of"), "{}", whole.stderr);
}

#[test]
fn a_wrong_key_is_reported_once_and_leaves_no_journal_entry() {
    let test_server = TestServer::new(Scheme::Http);
    let files = Files::new(30);
    let mut command = files.upload(&["--json", "--endpoint-url", test_server.server.url()]);
    let ran = run(&mut command).failed(NOT_ALLOWED, &["29 of 30 files were not started"]);
    assert_eq!(count(&ran.stderr, "advice:"), 1, "{}", ran.stderr);
    assert_eq!(ran.event("file_failed")["error"]["kind"], "not_authorized");
    let summary = ran.summary();
    assert_eq!((&summary["files_failed"], &summary["files_cancelled"]), (&1.into(), &29.into()));
    assert_eq!(files.left(), Vec::<Value>::new());
    test_server.assert_created(0);
}

#[test]
fn a_dead_endpoint_is_reported_once_and_leaves_no_journal_entry() {
    let files = Files::new(30);
    let mut command = files.upload(&["--json", "--retries", "0", "--endpoint-url", &dead_endpoint()]);
    let ran = run(&mut command).failed(TEMPORARY, &["cannot be reached", "29 of 30 files were not started"]);
    assert_eq!((ran.event("file_failed")["error"]["kind"]).as_str(), Some("connect"));
    assert_eq!(files.left(), Vec::<Value>::new());
}

/// Answers every request with a web page.
fn web_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |mut stream: std::net::TcpStream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let page = "<html>no such page</html>";
        let head = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nConnection: close";
        let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || stream.map(answer));
        }
    });
    url
}

#[test]
fn an_endpoint_that_is_another_service_is_reported_once() {
    let files = Files::new(20);
    let mut command = files.upload(&["--json", "--retries", "0", "--endpoint-url", &web_server()]);
    let ran = run(&mut command);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("19 of 20 files were not started"), "{}", ran.stderr);
    ran.event("file_failed");
}

#[test]
fn failures_are_listed_once_more_at_the_end() {
    let test_server = TestServer::new(Scheme::Http);
    let files = Files::new(24);
    files.paths[1..].iter().for_each(|path| fs::remove_file(path).unwrap());
    let mut command = ringlift();
    let ran = run(test_server.configure(&mut command).arg("upload").args(&files.paths));
    let ran = ran.failed(NO_SUCH_FILE, &["1 of 24 files", "23 failed"]);
    let list = &ran.stderr[ran.stderr.find("\nfailed:\n").expect(&ran.stderr)..];
    assert_eq!(count(list, "no such file"), 20, "{list}");
    assert!(list.contains("and 3 more"), "{list}");
}

#[test]
fn one_failure_is_not_listed_again() {
    let test_server = TestServer::new(Scheme::Http);
    let files = Files::new(3);
    fs::remove_file(&files.paths[1]).unwrap();
    let mut command = ringlift();
    let ran = run(test_server.configure(&mut command).arg("upload").args(&files.paths));
    let ran = ran.failed(NO_SUCH_FILE, &["2 of 3 files", "run the same command again"]);
    assert_eq!(count(&ran.stderr, "no such file"), 1, "{}", ran.stderr);
}

#[test]
fn an_empty_file_among_others_is_a_permanent_failure() {
    let test_server = TestServer::new(Scheme::Http);
    let files = Files::new(3);
    fs::write(&files.paths[0], "").unwrap();
    let mut command = ringlift();
    let ran = run(test_server.configure(&mut command).arg("upload").args(&files.paths));
    ran.failed(FAILED, &["the file is empty", "2 of 3 files"]);
}

#[test]
fn an_interrupt_with_nothing_in_flight_ends_all_files_at_once() {
    let files = Files::new(100);
    // A grace of an hour: only an end that does not wait for it ends this test.
    let mut command = files.upload(&["--json", "--grace", "1h", "--endpoint-url", &dead_endpoint()]);
    let mut running = Watched::of(&mut command);
    running.event("retry");
    running.signal(Signal::INT);
    let ran = running.end();
    let events = ran.events();
    let stopping = events.iter().position(|event| event["event"] == "stopping").unwrap();
    // An attempt under way may still fail. None of those that failed is repeated.
    for path in &files.paths {
        let is_retry = |event: &&Value| event["event"] == "retry" && event["file"] == path.to_str().unwrap();
        assert!(events[stopping..].iter().filter(is_retry).count() <= 1, "{events:?}");
    }
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("100 of 100 files were not started: SIGINT"), "{}", ran.stderr);
    assert_eq!(ran.summary()["files_cancelled"], 100);
    assert_eq!(files.left(), Vec::<Value>::new());
}

/// Leaves three uploads with a video each in the journal, and returns the stopped server's URL.
fn three_interrupted(files: &Files) -> String {
    let stall = FaultAction::StallAnswering { for_ms: 600_000 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, stall)]);
    let url = test_server.server.url().to_owned();
    let mut command = files.upload(&["--json"]);
    let child = start(test_server.configure(&mut command));
    while test_server.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
    assert_eq!(files.left().len(), 3);
    url
}

#[test]
fn clean_and_resume_give_up_a_dead_service_once() {
    let files = Files::new(3);
    let url = three_interrupted(&files);
    for subcommand in [&["clean", "--all", "--yes"][..], &["resume", "--json"]] {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "k").args(subcommand).args(["--retries", "0"]);
        command.args(["--endpoint-url", &url, "--journal"]).arg(files.journal());
        let ran = run(&mut command).failed(TEMPORARY, &[]);
        if subcommand[0] == "clean" {
            assert_eq!(count(&ran.stderr, "cannot be reached"), 1, "{}", ran.stderr);
        } else {
            ran.event("file_failed");
            assert!(ran.stderr.contains("2 of 3 files were not started"), "{}", ran.stderr);
        }
        assert_eq!(files.left().len(), 3, "{}", ran.stderr);
    }
}
