//! Output of the command: full disks, unread pipes, unprintable names, and signals.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{
    CommandOutput, Watched, end, ringlift, ringlift_after, run, start, wait_until_caught,
};
use crate::support::{MIB, Sample, Scheme, TestServer, each_in_parallel};

const FULL: &str = "No space left on device";

/// Runs a command whose standard output is a full disk.
fn run_full(command: &mut Command) -> CommandOutput {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    end(command.stdout(full).stderr(Stdio::piped()).spawn().unwrap())
}

/// Waits for the end of a process after a signal. Returns `false` after a timeout.
fn ends(child: &mut Child) -> bool {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

fn small_files(folder: &Path, count: usize) -> Vec<std::path::PathBuf> {
    let file = |number| {
        let path = folder.join(format!("film-{number:04}.mp4"));
        fs::write(&path, format!("film {number}").repeat(20)).unwrap();
        path
    };
    (0..count).map(file).collect()
}

// Full disks.

#[test]
fn a_full_standard_output_is_an_error_of_every_command() {
    let test_server = TestServer::new(Scheme::Http);
    let commands: [&[&str]; 7] = [
        &["video", "list"],
        &["video", "list", "--json"],
        &["completion", "bash"],
        &["man"],
        &["--help"],
        &["token", "list", "--json"],
        &["resume", "--list", "--json"],
    ];
    for args in commands {
        let ran =
            run_full(test_server.configure(&mut ringlift()).args(args)).failed(1, &["standard output", FULL]);
        assert_eq!(ran.stderr.matches(FULL).count(), 1, "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn an_upload_whose_id_could_not_be_written_is_reported_by_the_next_run() {
    for flags in [&["upload"][..], &["upload", "--json"]] {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Sample::new(11 * MIB);
        let mut command = ringlift();
        test_server.configure(&mut command).env("RINGLIFT_CHUNK_SIZE", "5MiB").args(flags);
        let ran = run_full(command.arg(sample.path())).failed(1, &[FULL]);
        let again = test_server.run(["upload", "--json", "--chunk-size", "5MiB", sample.arg()]).done();
        let video_id = again.summary()["video_id"].as_str().unwrap().to_owned();
        test_server.assert_holds(&video_id, &sample.path());
        test_server.assert_created(1);
        test_server.assert_nothing_was_sent_twice();
        assert!(ran.stderr.contains(&video_id), "the id is nowhere: {}", ran.stderr);
        // After the id was printed, the same file is a new upload.
        test_server.run(["upload", "--chunk-size", "5MiB", sample.arg()]).done();
        test_server.assert_created(2);
    }
}

#[test]
fn a_token_that_could_not_be_written_is_deleted() {
    for json in [None, Some("--json")] {
        let test_server = TestServer::new(Scheme::Http);
        let ran = run_full(test_server.configure(&mut ringlift()).args(["token", "create"]).args(json));
        ran.failed(1, &[FULL, "upload token", "deleted again"]);
        let listed = test_server.run(["token", "list", "--json"]).done();
        assert!(listed.events().iter().all(|event| event["event"] != "token"), "{}", listed.stdout);
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let files = small_files(folder.path(), 20);
    let mut child = start(test_server.configure(&mut ringlift()).arg("upload").args(&files));
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let ran = end(child).done();
    assert!(!ran.stderr.contains("standard output"), "{}", ran.stderr);
    test_server.assert_created(20);
}

#[test]
fn a_closed_or_full_standard_error_breaks_no_upload() {
    for ending in [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"] {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Sample::new(11 * MIB);
        // The shell closes the streams that the command would inherit.
        let mut command = Command::new("sh");
        let script = format!("exec \"$@\" {ending}");
        command.env_clear().args(["-c", &script, "sh", env!("CARGO_BIN_EXE_ringlift")]);
        test_server.configure(&mut command).args(["upload", "-v"]).arg(sample.path());
        assert_eq!(end(start(&mut command)).code, Some(0), "{ending}");
        assert_eq!(test_server.server.stats().videos_created, 1);
    }
}

// Slow readers.

#[test]
fn a_non_blocking_pipe_loses_no_line() {
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let files = small_files(folder.path(), 300);
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json"]).args(&files);
    let child = command.stdout(File::from(writer)).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    // More lines than fit into the pipe.
    sleep(Duration::from_millis(1500));
    let mut stdout = String::new();
    File::from(OwnedFd::from(reader)).read_to_string(&mut stdout).unwrap();
    let ran = CommandOutput { stdout, ..end(child) }.done();
    let done = ran.events().iter().filter(|event| event["event"] == "file_done").count();
    assert_eq!((done, &ran.summary()["files_done"]), (300, &300.into()));
}

#[test]
fn a_reader_that_never_reads_blocks_no_signal() {
    each_in_parallel([("--json", true), ("-vvv", false)], |(flag, is_stdout)| {
        let test_server = TestServer::new(Scheme::Http);
        let folder = tempfile::tempdir().unwrap();
        let files = small_files(folder.path(), 400);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = ringlift();
        test_server.configure(&mut command).args(["upload", flag, "--grace", "1s"]).args(&files);
        match is_stdout {
            true => command.stdout(writer).stderr(Stdio::null()),
            false => command.stderr(writer).stdout(Stdio::null()),
        };
        let mut child = command.spawn().unwrap();
        drop(command);
        let begun = Instant::now();
        while test_server.server.stats().videos_created < 10 && begun.elapsed() < Duration::from_secs(30) {
            sleep(Duration::from_millis(20));
        }
        sleep(Duration::from_millis(500));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(ends(&mut child), "{flag}: the reader keeps it alive");
        drop(reader);
    });
}

// Signals.

#[test]
fn a_closed_terminal_stops_the_command() {
    let test_server = TestServer::with(Scheme::Http, |settings| settings.faults = stalling());
    let sample = Sample::new(30 * MIB);
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "--chunk-size", "5MiB", "--grace", "0s"]);
    let child = start(command.arg(sample.path()));
    while test_server.server.stats().videos_created == 0 {
        sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let ran = end(child);
    assert_eq!((ran.code, &ran.summary()["exit_code"]), (Some(129), &129.into()), "{}", ran.stderr);
    assert_eq!(ran.event("stopping")["signal"], "SIGHUP");
}

#[test]
fn a_sighup_ignored_at_the_start_stays_ignored() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(11 * MIB);
    let mut command = ringlift_after("trap '' HUP");
    test_server.configure(&mut command).args(["upload", "--json", "--bwlimit", "8M"]);
    let child = start(command.arg(sample.path()));
    while test_server.server.stats().videos_created == 0 {
        sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    end(child).done();
}

#[test]
fn an_interrupted_query_ends_with_a_summary() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "k").args(["video", "list", "--json", "--endpoint-url"]);
    let child = start(command.arg(format!("http://{}", silent.local_addr().unwrap())));
    let (_connection, _) = silent.accept().unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ran = end(child);
    assert_eq!((ran.code, &ran.summary()["exit_code"]), (Some(143), &143.into()));
}

#[test]
fn a_signal_between_two_attempts_ends_the_command_at_once() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", refusing.local_addr().unwrap());
    drop(refusing);
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "k").args(["upload", "--json", "--no-journal", "--grace", "1h"]);
    let mut running = Watched::of(command.args(["--endpoint-url", &url]).arg(sample.path()));
    // Pauses double, so the next attempt after the third one is seconds away.
    for _ in 0..4 {
        running.event("retry");
    }
    running.signal(Signal::INT);
    let ran = running.end();
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    let retries = ran.events().into_iter().filter(|event| event["event"] == "retry").count();
    assert_eq!(retries, 4, "{}", ran.stdout);
    assert_eq!(ran.summary()["exit_code"], 130);
}

#[test]
fn a_signal_during_wait_names_the_uploaded_video() {
    let test_server =
        TestServer::with(Scheme::Http, |settings| settings.ingest_delay = Duration::from_secs(3600));
    let sample = Sample::new(6 * MIB);
    let mut command = ringlift();
    test_server.configure(&mut command).args([
        "upload",
        "--json",
        "--wait",
        "playable",
        "--chunk-size",
        "5MiB",
    ]);
    let child = start(command.arg(sample.path()));
    // The first query confirms that all chunks have arrived.
    let requests = || test_server.server.requests();
    while requests().iter().filter(|request| request.path.ends_with("/status")).count() < 2 {
        sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ran = end(child);
    assert_eq!(ran.code, Some(143), "{}", ran.stderr);
    let created = ran.event("created")["video_id"].clone();
    assert_eq!((&ran.event("file_failed")["video_id"], &ran.summary()["video_id"]), (&created, &created));
    assert_eq!(ran.summary()["bytes"], sample.len);
}

#[test]
fn a_wait_timeout_advises_its_own_flag() {
    let test_server =
        TestServer::with(Scheme::Http, |settings| settings.ingest_delay = Duration::from_secs(3600));
    let sample = Sample::new(6 * MIB);
    let args = ["upload", "--json", "--chunk-size", "5MiB", "--wait", "playable", "--wait-timeout", "1s"];
    let ran = run(test_server.configure(&mut ringlift()).args(args).arg(sample.path()))
        .failed(5, &["--wait-timeout"]);
    assert!(!ran.stderr.contains("(--timeout)"), "{}", ran.stderr);
    assert_eq!(ran.event("created")["video_id"], ran.summary()["video_id"]);
}

#[test]
fn demo_ends_at_a_signal_and_removes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    for after in [0, 1500] {
        let mut command = ringlift();
        command.args(["demo", "--size", "1G", "--data"]).arg(folder.path());
        let child = start(&mut command);
        wait_until_caught(&child, Signal::INT);
        sleep(Duration::from_millis(after));
        let asked = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ran = end(child);
        assert_eq!(ran.code, Some(130), "{}", ran.stderr);
        assert!(asked.elapsed() < Duration::from_secs(10), "it went on for {:?}", asked.elapsed());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "files are left");
    }
}

#[test]
fn demo_refuses_endless_and_too_large_files() {
    run(ringlift().args(["demo", "/dev/zero"])).failed(2, &["/dev/zero", "not a regular file"]);
    run(ringlift().args(["demo", "--size", "8388608T"])).failed(1, &["needs", "free"]);
}

// Names.

#[test]
fn a_file_name_of_any_bytes_is_resumable_and_exact_in_events() {
    let test_server = TestServer::with(Scheme::Http, |settings| settings.faults = stalling());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"bad\xff \x1b[2J\n'film.mp4"));
    fs::copy(Sample::new(30 * MIB).path(), &path).unwrap();
    let mut command = ringlift();
    test_server
        .configure(&mut command)
        .args(["upload", "--json", "--chunk-size", "5MiB", "--grace", "0s"])
        .arg(&path);
    let mut running = Watched::of(&mut command);
    running.event("created");
    running.signal(Signal::TERM);
    let ran = running.end();
    assert_eq!(ran.code, Some(143), "{}", ran.stderr);
    let bytes = ran.event("file_failed")["file_bytes"].as_str().unwrap().to_owned();
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, bytes).unwrap();
    assert_eq!(bytes, path.as_os_str().as_bytes());
    assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains("\n'film"), "{:?}", ran.stderr);
    let printed = ran.stderr.split("or `ringlift").nth(1).unwrap().split('`').next().unwrap();
    let test_server = test_server.close().open();
    let mut bash = Command::new("bash");
    let script = format!("\"$0\" --json {printed}");
    test_server.configure(bash.args(["-c", &script, env!("CARGO_BIN_EXE_ringlift")]));
    let ran = run(&mut bash).done();
    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &path);
}

/// Faults of a server that takes seconds to answer each chunk.
fn stalling() -> ringlift::server::FaultPlan {
    use ringlift::server::{Fault, FaultAction, RouteClass};
    vec![Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).times(0)].into()
}
