//! The ends of bulk ingestion: limits, signals, failures of every job, and inputs that never end.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::{Fault, FaultAction, RouteClass};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{CommandOutput, Watched, end, ringlift, start};
use crate::support::disk::{Disk, Silence};
use crate::support::queue::{folder, jobs, wait_until};
use crate::support::{MIB, Scheme, TestServer};

/// Starts the command with these arguments after `ingest --json`.
fn begin(server: &TestServer, args: &[&str]) -> Child {
    start(&mut ingest(server, args))
}

fn ingest(server: &TestServer, args: &[&str]) -> Command {
    let mut command = ringlift();
    server.configure(command.args(["ingest", "--json"]).args(args));
    command
}

fn run(server: &TestServer, args: &[&str]) -> CommandOutput {
    end(begin(server, args))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with `count` videos of 6 MiB, each of two chunks.
fn films(count: u8) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..count {
        fs::write(folder.path().join(format!("{index}.mp4")), vec![index; 6 * MIB as usize]).unwrap();
    }
    folder
}

/// Returns the rows of a report.
fn rows(report: &Path) -> Vec<Value> {
    let report = fs::read_to_string(report).unwrap();
    report.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A server that takes 6 MiB in about this time.
fn slow_server(bytes_per_second: u64) -> TestServer {
    let fault = Fault::new(RouteClass::Chunk, FaultAction::Throttle { bytes_per_second }).times(0);
    TestServer::faulty(Scheme::Http, vec![fault])
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

// Limits.

#[test]
fn the_limit_of_bytes_ends_a_run_and_the_next_one_goes_on() {
    for (mode, most) in [("hard", 4), ("soft", 3), ("cautious", 2)] {
        let (server, films) = (TestServer::new(Scheme::Http), films(4));
        let limited =
            ["--max-transfer", "13M", "--cutoff-mode", mode, "--transfers", "1", "--chunk-size", "5M"];
        let output = run(&server, &[&limited[..], &[text(films.path())]].concat());
        let output = output.failed(8, &["the limit of bytes"]);
        let done = output.summary()["files_done"].as_u64().unwrap();
        assert!(done <= most && (mode == "hard" || done >= 2), "{mode}: {output:?}");
        let rest = run(&server, &[text(films.path())]).done();
        assert_eq!(rest.summary()["files_done"].as_u64().unwrap() + done, 4, "{mode}");
        server.assert_created(4);
        server.assert_nothing_was_sent_twice();
    }
}

#[test]
fn the_limit_of_time_ends_a_run_with_uploads_under_way() {
    let (server, films) = (slow_server(1 << 20), films(3));
    let output = run(&server, &["--max-duration", "1s", text(films.path())]);
    let output = output.failed(10, &["the limit of time"]);
    assert_eq!(output.summary()["files_failed"], 0);
    assert!(output.summary()["files_cancelled"].as_u64() >= Some(1), "{output:?}");
    assert!(jobs(&server, &[]).iter().all(|job| job["state"] == "queued"));
}

#[test]
fn the_limit_of_errors_ends_a_run_with_1() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let manifest = films.path().join("jobs.jsonl");
    fs::write(&manifest, "x\n".repeat(2000)).unwrap();
    let output = run(&server, &["--max-errors", "3", "--manifest", text(&manifest)]);
    let output = output.failed(1, &["the limit of failed files"]);
    assert!(output.summary()["files_failed"].as_u64() < Some(2000), "{output:?}");
}

/// A server that refuses the first chunk for good, and takes the others slowly.
fn server_that_refuses_once(bytes_per_second: u64) -> TestServer {
    let refusal = FaultAction::Refuse { status: 400, slug: None, timing: Default::default() };
    let slow = Fault::new(RouteClass::Chunk, FaultAction::Throttle { bytes_per_second }).times(0);
    TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, refusal), slow])
}

#[test]
fn the_limit_of_errors_gives_up_active_uploads() {
    let (server, films) = (server_that_refuses_once(2 << 20), films(6));
    let report = films.path().join("report.jsonl");
    let args = ["--max-errors", "1", "--transfers", "4", "--report", text(&report), text(films.path())];
    let output = run(&server, &args).failed(1, &["the limit of failed files"]);
    let summary = output.summary();
    assert_eq!((&summary["files_failed"], &summary["files_done"]), (&1.into(), &0.into()), "{output:?}");
    let rows = rows(&report);
    assert_eq!(rows.iter().filter(|row| row["state"] == "failed").count(), 1, "{rows:?}");
    assert_eq!(jobs(&server, &["--state", "failed"]).len(), 1);
    assert_eq!(jobs(&server, &["--state", "queued"]).len(), 5);
}

#[test]
fn the_soft_limit_of_errors_completes_active_uploads_and_begins_no_other() {
    let (server, films) = (server_that_refuses_once(6 << 20), films(8));
    let args = ["--max-errors", "1", "--cutoff-mode", "soft", "--transfers", "2", text(films.path())];
    let output = run(&server, &args).failed(1, &["the limit of failed files"]);
    let summary = output.summary();
    assert_eq!(summary["files_failed"], 1, "{output:?}");
    let done = summary["files_done"].as_u64().unwrap();
    assert_eq!(jobs(&server, &["--state", "queued"]).len() as u64, 7 - done);
    assert!((1..=2).contains(&done), "only the uploads that had begun are completed: {output:?}");
}

#[test]
fn a_bad_line_that_reaches_the_limit_of_errors_gives_up_active_uploads() {
    let (server, films) = (slow_server(1 << 20), films(1));
    let film = films.path().join("0.mp4");
    let mut command = ingest(&server, &["--max-errors", "1", "--manifest", "-"]);
    let mut child = start(command.stdin(Stdio::piped()));
    let mut manifest = child.stdin.take().unwrap();
    writeln!(manifest, r#"{{"path":"{}"}}"#, text(&film)).unwrap();
    wait_until(|| !server.chunk_requests().is_empty());
    writeln!(manifest, "no JSON").unwrap();
    drop(manifest);
    let output = end(child).failed(1, &["the limit of failed files"]);
    let summary = output.summary();
    assert_eq!((&summary["files_failed"], &summary["files_cancelled"]), (&1.into(), &1.into()), "{output:?}");
    assert_eq!(jobs(&server, &["--state", "queued"]).len(), 1);
}

// Signals.

#[test]
fn a_signal_finishes_the_active_chunks_and_the_next_run_goes_on() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (server, films) = (slow_server(8 << 20), films(3));
        let child = begin(&server, &["--chunk-size", "5M", text(films.path())]);
        wait_until(|| server.server.stats().videos_created > 0);
        send(&child, signal);
        let output = end(child).failed(code, &["finishing the active chunks"]);
        assert_eq!(output.summary()["files_failed"], 0, "{output:?}");
        run(&server, &[text(films.path())]).done();
        server.assert_created(3);
        server.assert_nothing_was_sent_twice();
    }
}

#[test]
fn a_second_signal_ends_a_run_whose_chunks_do_not_end() {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 600_000 }).times(0);
    let (server, films) = (TestServer::faulty(Scheme::Http, vec![stall]), films(2));
    let mut run = Watched::of(&mut ingest(&server, &[text(films.path())]));
    wait_until(|| !server.chunk_requests().is_empty());
    let start = Instant::now();
    run.signal_twice(Signal::INT);
    let output = run.end().failed(130, &[]);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    assert_eq!(output.summary()["event"], "summary");
    assert!(jobs(&server, &[]).iter().all(|job| job["state"] == "queued"));
}

#[test]
fn small_files_that_were_claimed_together_are_free_when_their_run_ends() {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 600_000 }).times(0);
    let (server, films) = (TestServer::faulty(Scheme::Http, vec![stall]), folder(120));
    let mut run = Watched::of(&mut ingest(&server, &[text(films.path())]));
    wait_until(|| !server.chunk_requests().is_empty());
    run.signal_twice(Signal::INT);
    run.end().failed(130, &[]);
    let jobs = jobs(&server, &[]);
    assert_eq!(jobs.len(), 120);
    assert!(jobs.iter().all(|job| job["state"] == "queued"), "{jobs:?}");
}

// Cancellations by a user.

#[test]
fn a_file_that_a_user_cancels_during_the_run_has_a_row() {
    let (server, films) = (slow_server(2 << 20), films(1));
    let report = films.path().join("report.jsonl");
    let child = begin(&server, &["--report", text(&report), text(films.path())]);
    wait_until(|| !server.chunk_requests().is_empty());
    let id = jobs(&server, &[])[0]["id"].as_str().unwrap().to_owned();
    server.run(["jobs", "cancel", &id]).done();
    let output = end(child);
    assert_eq!(output.summary()["files_cancelled"], 1, "{output:?}");
    let rows = rows(&report);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["id"], &rows[0]["state"]), (&id.into(), &"cancelled".into()));
    assert!(rows[0]["message"].as_str().unwrap().contains("cancelled"), "{rows:?}");
}

#[test]
fn a_file_that_is_cancelled_while_it_waits_for_another_attempt_has_one_cancelled_row() {
    let down = FaultAction::Refuse { status: 503, slug: None, timing: Default::default() };
    let down = Fault::new(RouteClass::Chunk, down).times(0);
    let (server, films) = (TestServer::faulty(Scheme::Http, vec![down]), folder(2));
    server.run(["submit", text(films.path())]).done();
    let report = films.path().join("report.jsonl");
    let mut worker = ringlift();
    worker.args(["work", "--json", "--retries", "0", "--report", text(&report)]);
    let mut worker = Watched::of(server.configure(&mut worker));
    worker.event("file_failed");
    worker.event("file_failed");
    let id = jobs(&server, &[])[0]["id"].as_str().unwrap().to_owned();
    server.run(["jobs", "cancel", &id]).done();
    let summary = worker.stop().summary();
    assert_eq!((&summary["files_failed"], &summary["files_cancelled"]), (&1.into(), &1.into()), "{summary}");
    let rows = rows(&report);
    let state = |row: &Value| if row["id"] == id.as_str() { "cancelled" } else { "failed" };
    assert!(rows.len() == 2 && rows.iter().all(|row| row["state"] == state(row)), "{rows:?}");
}

// Inputs that never end.

#[test]
fn standard_input_that_never_ends_does_not_keep_a_run_that_is_stopped() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let mut command = ringlift();
    command.args(["ingest", "--json", "--files-from", "-"]).stdin(Stdio::piped());
    let mut child = start(server.configure(&mut command));
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}/clip000.mp4\n{}/clip001.mp4", text(films.path()), text(films.path())).unwrap();
    // The files are uploaded while the input is still open.
    wait_until(|| server.chunk_requests().len() == 2);
    send(&child, Signal::TERM);
    let output = end(child).failed(143, &[]);
    drop(stdin);
    assert_eq!(output.summary()["files_done"], 2, "{output:?}");
}

#[test]
fn a_pipe_whose_writer_is_silent_does_not_keep_a_run_that_is_stopped() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(0));
    let pipe = films.path().join("jobs.jsonl");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let child = begin(&server, &["--manifest", text(&pipe)]);
    // Fails until the command waits in its opening of the pipe.
    let open = || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe);
    let writer = Cell::new(None);
    wait_until(|| open().is_ok_and(|opened| writer.replace(Some(opened)).is_none()));
    send(&child, Signal::INT);
    end(child).failed(130, &[]);
}

#[test]
fn a_folder_of_a_dead_mount_does_not_keep_a_run_that_is_stopped() {
    let Some(disk) = Disk::holding(vec![7; 1 << 20], Silence::Whole) else {
        return eprintln!("skipped: nothing may be mounted here");
    };
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let mut child = begin(&server, &[text(films.path()), text(&disk.path())]);
    wait_until(|| server.chunk_requests().len() == 1 && disk.pending_requests() > 0);
    send(&child, Signal::TERM);
    let (sender, summary) = std::sync::mpsc::channel();
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || {
        std::io::BufRead::lines(stdout).map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    // No process can end while the kernel holds one of its threads: the summary comes before.
    let is_summary = |line: &String| line.contains(r#""event":"summary""#);
    let found = std::iter::from_fn(|| summary.recv_timeout(Duration::from_secs(30)).ok()).find(is_summary);
    disk.resume_answers();
    let found = found.expect("no summary while the disk is silent");
    assert!(found.contains(r#""files_done":1"#), "{found}");
    end(child).failed(143, &[]);
}

// Failures of every job, and of the moment.

#[test]
fn an_error_of_every_job_leaves_the_jobs_queued_and_fails_none() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(20));
    let report = films.path().join("report.jsonl");
    let args = ["ingest", "--json", "--account", "films", "--report", text(&report), text(films.path())];
    let mut command = ringlift();
    let refused = end(start(server.configure(command.args(args)).env("APIVIDEO_API_KEY", "wrong")));
    let refused = refused.failed(7, &["The API key is invalid"]);
    assert_eq!(refused.summary()["files_failed"], 0);
    let rows = fs::read_to_string(&report).unwrap();
    assert!(!rows.contains(r#""state":"failed""#) && rows.contains("not_authorized"), "{rows}");
    assert!(jobs(&server, &["--account", "films"]).iter().all(|job| job["state"] == "queued"));
    server.run(args).done();
    server.assert_created(20);
}

#[test]
fn jobs_that_wait_for_another_attempt_end_a_run_with_5_and_the_same_command_goes_on_at_once() {
    let down = FaultAction::Refuse { status: 503, slug: None, timing: Default::default() };
    let down = Fault::new(RouteClass::Chunk, down).times(2);
    let (server, films) = (TestServer::faulty(Scheme::Http, vec![down]), folder(2));
    let start = Instant::now();
    let report = films.path().join("report.jsonl");
    let args = ["--retries", "0", "--report", text(&report), text(films.path())];
    let output = run(&server, &args).failed(5, &["wait for another attempt", "run the same command again"]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(output.summary()["files_failed"], 2);
    let waiting = rows(&report);
    assert_eq!(waiting.len(), 2);
    for row in &waiting {
        assert_eq!((&row["state"], &row["error_kind"]), (&"failed".into(), &"unavailable".into()), "{row}");
        assert!(row["message"].as_str().is_some_and(|message| message.contains("503")), "{row}");
    }
    assert_eq!(output.summary()["videos_created"], 2);
    let output = run(&server, &args).done();
    assert!(output.stderr.contains("jobs of earlier runs"), "{}", output.stderr);
    assert_eq!(output.summary()["videos_created"], 0);
    server.assert_created(2);
}

#[test]
fn the_report_of_files_that_wait_for_another_attempt_is_a_manifest_that_tries_them_again() {
    let down = FaultAction::Refuse { status: 503, slug: None, timing: Default::default() };
    let down = Fault::new(RouteClass::Chunk, down).times(2);
    let (server, films) = (TestServer::faulty(Scheme::Http, vec![down]), folder(2));
    let report = films.path().join("report.jsonl");
    run(&server, &["--retries", "0", "--report", text(&report), text(films.path())]).failed(5, &[]);
    let output = run(&server, &["--manifest", text(&report), "--retry", "failed"]).done();
    assert_eq!(output.summary()["files_done"], 2);
    server.assert_created(2);
}

#[test]
fn a_file_that_waits_for_its_other_name_and_is_uploaded_then_has_one_row() {
    let (server, films) = (slow_server(4 << 20), films(1));
    fs::hard_link(films.path().join("0.mp4"), films.path().join("other.mp4")).unwrap();
    let report = films.path().join("report.jsonl");
    let output = run(&server, &["--report", text(&report), text(films.path())]).done();
    assert!(output.stderr.contains("another attempt in"), "{}", output.stderr);
    assert_eq!((&output.summary()["files_done"], &output.summary()["files_failed"]), (&2.into(), &0.into()));
    let rows = rows(&report);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row["state"] == "done"), "{rows:?}");
}

#[test]
fn a_missing_source_ends_with_4_and_stops_no_other_file() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let report = films.path().join("report.csv");
    let args = [text(films.path()), "/nowhere/films", "--report", text(&report)];
    let output = run(&server, &args).failed(4, &["/nowhere/films", "no such file or folder"]);
    assert_eq!(output.summary()["files_done"], 2);
    let failed = output.event("file_failed");
    assert_eq!(
        (&failed["error"]["kind"], &failed["file"]),
        (&"no_such_source".into(), &"/nowhere/films".into())
    );
    assert!(fs::read_to_string(&report).unwrap().contains("/nowhere/films"));
}

#[test]
fn flags_of_standard_input_are_refused_before_any_request() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    for flags in [["--name", "x.mp4"], ["--expected-size", "5M"]] {
        run(&server, &[flags[0], flags[1], text(films.path())]).failed(2, &[flags[0]]);
    }
    for flags in [["--manifest", "--files-from"], ["--files-from", "--files-from0"], ["--manifest"; 2]] {
        let texts = [flags[0], flags[1], "both read standard input"];
        run(&server, &[flags[0], "-", flags[1], "-"]).failed(2, &texts);
    }
    let mut command = ringlift();
    command
        .args(["ingest", "--verify", text(films.path())])
        .env("RINGLIFT_UPLOAD_TOKEN", server.upload_token());
    end(start(server.configure_without_key(&mut command)))
        .failed(2, &["--verify and --wait need an API key"]);
    assert!(server.chunk_requests().is_empty());
}
