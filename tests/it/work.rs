//! `work`: the jobs of a queue, by processes that come and go.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use ringlift::server::{Limits, RequestBudget};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{end, ringlift, start};
use crate::support::queue::{folder, jobs, wait_until};
use crate::support::{MIB, Scheme, TestServer};

fn work(server: &TestServer, args: &[&str]) -> Child {
    let mut command = ringlift();
    command.args(["work", "--json"]).args(args);
    start(server.configure(&mut command))
}

fn submit(server: &TestServer, folder: &Path, args: &[&str]) {
    let path = folder.to_str().unwrap();
    server.run(["submit", path].iter().chain(args)).done();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn states(server: &TestServer) -> Vec<String> {
    let jobs = jobs(server, &[]);
    jobs.iter().map(|job| job["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_worker_takes_jobs_that_come_while_it_waits_and_sigterm_ends_it_with_0() {
    let (server, early, late) = (TestServer::new(Scheme::Http), folder(2), folder(3));
    submit(&server, early.path(), &[]);
    let child = work(&server, &[]);
    wait_until(|| server.server.stats().videos_created == 2);
    submit(&server, late.path(), &[]);
    wait_until(|| server.server.stats().videos_created == 5);
    wait_until(|| states(&server).iter().all(|state| state == "done"));
    signal(&child, Signal::TERM);
    let summary = end(child).done().summary();
    assert_eq!((&summary["files_done"], &summary["exit_code"]), (&5.into(), &0.into()));
}

#[test]
fn a_worker_on_an_empty_queue_drains_at_once_and_sigint_is_130() {
    let server = TestServer::new(Scheme::Http);
    assert_eq!(server.run(["work", "--drain", "--json"]).done().summary()["files_done"], 0);
    let server = TestServer::new(Scheme::Http);
    let child = work(&server, &[]);
    // Signals have a handler before the journal is opened.
    wait_until(|| server.journal().exists());
    signal(&child, Signal::INT);
    let output = end(child);
    assert_eq!(output.code, Some(130), "{}", output.stderr);
}

#[test]
fn the_files_that_wait_in_the_queue_share_the_request_budget() {
    let minute = Duration::from_secs(60);
    let limits = RequestBudget { uploads: 14, writes: 1000, reads: 1000, window: minute };
    let server = TestServer::with(Scheme::Http, |settings| settings.limits = Limits::Custom(limits));
    let films = folder(0);
    for number in 0..6 {
        // Alone, each is sent in seven chunks, and two take the limit.
        let film = fs::File::create(films.path().join(format!("{number}.mp4"))).unwrap();
        film.set_len(33 * MIB).unwrap();
    }
    submit(&server, films.path(), &[]);
    // One after the other, so that the worker has no other file in hand.
    let summary = end(work(&server, &["--drain", "--transfers", "1"])).done().summary();
    assert_eq!(summary["files_done"], 6);
    let requests = server.chunk_requests().len();
    assert!(requests <= 14, "{requests} requests, for which the limit takes another minute");
}

#[test]
fn a_stopped_worker_releases_its_file_and_the_next_one_goes_on_with_it() {
    let throttle =
        "[[fault]]\non = \"chunk\"\ntimes = 2\naction = { throttle = { bytes_per_second = 2000000 } }";
    let faults = ringlift::server::FaultPlan::parse(throttle).unwrap().faults;
    let (server, films) = (TestServer::faulty(Scheme::Http, faults), folder(0));
    fs::write(films.path().join("long.mp4"), vec![7; 40 * MIB as usize]).unwrap();
    submit(&server, films.path(), &["--chunk-size", "5M"]);
    let child = work(&server, &["--grace", "100ms", "--concurrency", "1"]);
    wait_until(|| server.server.stats().videos_created == 1 && !server.chunk_requests().is_empty());
    signal(&child, Signal::TERM);
    let summary = end(child).done().summary();
    assert_eq!(summary["files_cancelled"], 1);
    assert_eq!(states(&server), ["queued"]);
    let summary = end(work(&server, &["--drain"])).done().summary();
    assert_eq!(summary["files_done"], 1);
    server.assert_created(1);
}

#[test]
fn failed_jobs_are_in_the_report_and_not_in_the_exit_code() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    submit(&server, films.path(), &[]);
    fs::write(films.path().join("clip000.mp4"), "changed since").unwrap();
    let report = films.path().join("report.jsonl");
    let args = ["work", "--drain", "--json", "--report", report.to_str().unwrap()];
    let summary = server.run(args).done().summary();
    assert_eq!((&summary["files_done"], &summary["files_failed"]), (&1.into(), &1.into()));
    let rows: Vec<Value> = fs::read_to_string(&report)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(rows.iter().any(|row| row["error_kind"] == "source_changed"), "{rows:?}");
}

#[test]
fn pools_are_worked_on_apart_and_two_workers_share_one() {
    let (server, films, others) = (TestServer::new(Scheme::Http), folder(30), folder(2));
    submit(&server, films.path(), &[]);
    submit(&server, others.path(), &["--pool", "archive"]);
    let workers = [work(&server, &["--drain"]), work(&server, &["--drain"])];
    let done: u64 =
        workers.map(|child| end(child).done().summary()["files_done"].as_u64().unwrap()).iter().sum();
    assert_eq!(done, 30);
    server.assert_created(30);
    let summary = end(work(&server, &["--drain", "--pool", "archive"])).done().summary();
    assert_eq!(summary["files_done"], 2);
    server.assert_created(32);
}

#[test]
fn a_wrong_key_ends_a_worker_and_leaves_the_jobs() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    submit(&server, films.path(), &["--account", "a"]);
    let mut command = ringlift();
    command.args(["work", "--account", "a"]);
    server.configure(&mut command).env("APIVIDEO_API_KEY", "wrong");
    let output = end(start(&mut command));
    assert_eq!(output.code, Some(7), "{}", output.stderr);
    let listed = server.run(["jobs", "list", "--json", "--account", "a", "--state", "queued"]).done();
    assert_eq!(listed.event("list_end")["listed"], 2);
}

#[test]
fn a_worker_that_cannot_release_its_jobs_on_sigterm_says_so_and_fails() {
    let throttle =
        "[[fault]]\non = \"chunk\"\ntimes = 0\naction = { throttle = { bytes_per_second = 2000000 } }";
    for spoil in ["replaced", "removed"] {
        let faults = ringlift::server::FaultPlan::parse(throttle).unwrap().faults;
        let (server, films) = (TestServer::faulty(Scheme::Http, faults), folder(0));
        fs::write(films.path().join("long.mp4"), vec![7; 40 * MIB as usize]).unwrap();
        submit(&server, films.path(), &["--chunk-size", "5M"]);
        let child = work(&server, &["--grace", "100ms", "--concurrency", "1"]);
        wait_until(|| server.server.stats().videos_created == 1 && !server.chunk_requests().is_empty());
        let queue = server.journal().with_file_name("jobs.db");
        fs::rename(&queue, films.path().join("jobs.db")).unwrap();
        if spoil == "replaced" {
            fs::write(&queue, "another file").unwrap();
        }
        signal(&child, Signal::TERM);
        let output = end(child).failed(1, &["jobs.db", spoil]);
        assert_eq!(output.summary()["exit_code"], 1);
    }
}
