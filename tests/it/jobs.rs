//! `submit` and `jobs`: what is in a queue, and what a user changes in it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::command::{CommandOutput, Restriction, end, ringlift, run, start};
use crate::support::queue::{folder, jobs};
use crate::support::{Scheme, TestServer};

fn ringlift_with(server: &TestServer, args: &[&str]) -> CommandOutput {
    server.run(args)
}

fn path_of(folder: &TempDir) -> String {
    folder.path().to_str().unwrap().to_owned()
}

#[test]
fn submitted_jobs_wait_in_the_queue_and_nothing_is_sent() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    let output = ringlift_with(&server, &["submit", "--json", &path_of(&films)]).done();
    let submitted = output.events().iter().filter(|event| event["event"] == "job").count();
    assert_eq!((submitted, server.server.requests().len()), (3, 0));
    let listed = jobs(&server, &["--state", "queued"]);
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0]["pool"], "local");
    // The same files again are the same jobs.
    ringlift_with(&server, &["submit", &path_of(&films)]).done();
    assert_eq!(self::jobs(&server, &[]).len(), 3);
    // A later run finishes them, even one about other files.
    ringlift_with(&server, &["work", "--drain"]).done();
    server.assert_created(3);
}

#[test]
fn a_queue_that_was_made_with_shared_memory_is_used_without_it() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    ringlift_with(&server, &["submit", &path_of(&films)]).done();
    let without = |args: &[&str]| {
        Restriction::SharedMaps.run(|command| {
            server.configure(command).args(args);
        })
    };
    assert!(without(&["jobs", "list", "--json"]).done().stdout.contains("queued"));
    without(&["work", "--drain"]).done();
    server.assert_created(3);
    // Where memory can be shared again, the queue goes on as before.
    assert_eq!(jobs(&server, &["--state", "done"]).len(), 3);
}

#[test]
fn submit_needs_an_account_and_not_the_key() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let submit = |more: &[&str]| {
        let mut command = ringlift();
        command.arg("submit").arg(films.path()).args(more);
        run(server.configure_without_key(&mut command))
    };
    submit(&[]).failed(2, &["APIVIDEO_API_KEY", "--account"]);
    submit(&["--account", "archive"]).done();
    assert!(jobs(&server, &[]).is_empty(), "another account's jobs are not listed");
    assert_eq!(jobs(&server, &["--account", "archive"]).len(), 1);
    let empty = ringlift_with(&server, &["jobs", "list"]).done();
    let others = "no jobs of this account; jobs of 1 other account are here";
    assert!(empty.stderr.contains(others), "{}", empty.stderr);
    let idle = ringlift_with(&server, &["work", "--drain"]).done();
    assert!(idle.stderr.contains(others), "{}", idle.stderr);
    let busy = ringlift_with(&server, &["work", "--drain", "--account", "archive"]).done();
    assert!(!busy.stderr.contains("other account"), "{}", busy.stderr);
}

#[test]
fn a_list_has_pages_and_says_that_more_follows() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(7));
    ringlift_with(&server, &["submit", &path_of(&films)]).done();
    let page = |args: &[&str]| {
        let output = server.run(["jobs", "list", "--json"].iter().chain(args)).done();
        let list = output.event("list_end");
        let jobs = output.events().iter().filter(|event| event["event"] == "job").count();
        (jobs, list["more"].as_bool().unwrap(), list["next_page"].as_u64(), list["items_total"].as_u64())
    };
    assert_eq!(page(&[]), (7, false, None, Some(7)));
    assert_eq!(page(&["--limit", "7"]), (7, false, None, Some(7)));
    assert_eq!(page(&["--limit", "3"]), (3, true, None, Some(7)));
    assert_eq!(page(&["--limit", "3", "--page", "2"]), (3, true, Some(3), Some(7)));
    assert_eq!(page(&["--limit", "3", "--page", "3"]), (1, false, None, Some(7)));
    assert_eq!(page(&["--limit", "3", "--page", "4"]), (0, false, None, Some(7)));
    assert_eq!(page(&["--state", "done"]), (0, false, None, Some(0)));
    assert_eq!(page(&["--pool", "other"]), (0, false, None, Some(0)));
    for bad in [["--page", "0"], ["--limit", "0"], ["--state", "lost"]] {
        ringlift_with(&server, &["jobs", "list", bad[0], bad[1]]).failed(2, &[bad[0]]);
    }
}

#[test]
fn unknown_ids_are_named_and_the_others_are_carried_out() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    ringlift_with(&server, &["submit", &path_of(&films)]).done();
    let ids: Vec<String> = jobs(&server, &[]).iter().map(|job| job["id"].as_str().unwrap().into()).collect();
    for command in ["show", "retry", "cancel", "forget"] {
        ringlift_with(&server, &["jobs", command, "nosuch"])
            .failed(1, &["there is no job nosuch", "jobs list"]);
    }
    ringlift_with(&server, &["jobs", "cancel", "nosuch", &ids[0]]).failed(1, &["nosuch"]);
    assert_eq!(jobs(&server, &["--state", "cancelled"]).len(), 1);
    // The beginning of an id is enough.
    let shown = ringlift_with(&server, &["jobs", "show", &ids[0][..10]]).done();
    assert!(shown.stdout.contains(&ids[0]) && shown.stdout.contains("cancelled"), "{}", shown.stdout);
    ringlift_with(&server, &["jobs", "retry", &ids[0]]).done();
    ringlift_with(&server, &["jobs", "forget", &ids[1]]).done();
    assert_eq!(jobs(&server, &["--state", "queued"]).len(), 1);
}

#[test]
fn a_paused_pool_waits_and_a_resumed_one_goes_on() {
    for (pool, resume) in [
        (&[][..], "`ringlift jobs resume`"),
        (&["--pool", "share:the films"], "`ringlift jobs resume --pool 'share:the films'`"),
    ] {
        pause_and_resume(pool, resume);
    }
}

/// Pauses the pool that the flags choose, and resumes it once a run has named the command that does so.
fn pause_and_resume(pool: &[&str], resume: &str) {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    ringlift_with(&server, &[&["jobs", "pause"], pool].concat()).done();
    let mut command = ringlift();
    command.args(["ingest", "--json", &path_of(&films)]).args(pool);
    let mut child = start(server.configure(&mut command));
    // The message is the proof that the pool was found paused.
    let mut stderr = child.stderr.take().unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(&format!("the pool is paused: {resume} lets")) {
        let mut byte = [0; 256];
        let n = stderr.read(&mut byte).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&byte[..n]);
    }
    server.assert_created(0);
    ringlift_with(&server, &[&["jobs", "resume"], pool].concat()).done();
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    end(child).done();
    server.assert_created(2);
}

#[test]
fn a_report_of_the_queue_is_a_manifest_again() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    let odd = films.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9, \"two\".mp4"));
    fs::write(&odd, b"odd").unwrap();
    let wrong = format!("{{\"path\":\"clip001.mp4\",\"sha256\":\"{}\"}}\n", "0".repeat(64));
    let manifest = films.path().join("jobs.jsonl");
    fs::write(&manifest, wrong).unwrap();
    let manifest = manifest.to_str().unwrap();
    ringlift_with(&server, &["ingest", "--manifest", manifest, &path_of(&films)]).failed(1, &["SHA-256"]);
    let csv = ringlift_with(&server, &["jobs", "report"]).done().stdout;
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(csv.starts_with("id,path,size,state,video_id,bytes,"), "{csv}");
    let lines = ringlift_with(&server, &["jobs", "report", "--json", "--state", "done"]).done();
    let rows = lines.events();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["video_id"].is_string() && row["finished_at"].is_string()), "{rows:?}");
    assert!(rows.iter().any(|row| row["path_bytes"].is_string()), "{rows:?}");
    // To a file, twice: the second replaces the first.
    let report = films.path().join("report.csv");
    let report = report.to_str().unwrap();
    for _ in 0..2 {
        ringlift_with(&server, &["jobs", "report", "--report", report]).done();
    }
    assert_eq!(fs::read_to_string(report).unwrap(), csv);
    let again = ringlift_with(&server, &["ingest", "--json", "--manifest", report, "--retry", "all"]);
    let summary = again.failed(1, &["SHA-256"]).summary();
    assert_eq!((&summary["files_skipped"], &summary["files_failed"]), (&3.into(), &1.into()));
    // Another file is never overwritten.
    fs::write(films.path().join("other.csv"), "a,b\n1,2\n").unwrap();
    let other = films.path().join("other.csv");
    ringlift_with(&server, &["jobs", "report", "--report", other.to_str().unwrap()])
        .failed(1, &["other.csv"]);
    assert_eq!(fs::read_to_string(&other).unwrap(), "a,b\n1,2\n");
    for command in [&["jobs", "report"][..], &["work", "--drain"], &["ingest", &path_of(&films)]] {
        let args = [command, &["--report", "report.txt"]].concat();
        ringlift_with(&server, &args).failed(2, &["report.txt: has no known format"]);
    }
}

#[test]
fn a_reader_that_leaves_ends_a_list_and_a_full_disk_fails_it() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(50));
    ringlift_with(&server, &["submit", &path_of(&films)]).done();
    for args in [&["jobs", "list"][..], &["jobs", "list", "--json"], &["jobs", "report"]] {
        let mut command = ringlift();
        server.configure(command.args(args)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = CommandOutput::from(child.wait_with_output().unwrap());
        assert_eq!(output.code, Some(0), "{args:?}: {}", output.stderr);
        let mut command = ringlift();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let child = server.configure(command.args(args)).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = CommandOutput::from(child.wait_with_output().unwrap());
        output.failed(1, &["could not write to standard output"]);
    }
}

#[test]
fn a_queue_that_is_missing_or_no_queue_is_refused() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let missing = films.path().join("missing.db");
    let missing = missing.to_str().unwrap();
    ringlift_with(&server, &["jobs", "list", "--queue", missing])
        .failed(4, &["missing.db", "there is no such queue"]);
    assert!(!Path::new(missing).exists());
    ringlift_with(&server, &["jobs", "list"]).done();
    let text = films.path().join("clip000.mp4");
    ringlift_with(&server, &["submit", "--queue", text.to_str().unwrap(), &path_of(&films)])
        .failed(1, &["clip000.mp4"]);
}

#[cfg(not(feature = "fleet"))]
#[test]
fn a_shared_queue_needs_a_build_with_the_fleet() {
    let server = TestServer::new(Scheme::Http);
    for command in [&["submit", "/films"][..], &["work"], &["jobs", "list"], &["ingest", "/films"]] {
        let args: Vec<&str> = command.iter().copied().chain(["--queue", "nats://host:4222"]).collect();
        ringlift_with(&server, &args).failed(2, &["this build has no fleet support"]);
    }
}

#[test]
fn a_job_that_is_named_twice_is_one_job_and_a_warning() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    let manifest = films.path().join("jobs.jsonl");
    let line = |id: &str, index: usize| format!("{{\"id\":\"{id}\",\"path\":\"clip{index:03}.mp4\"}}\n");
    fs::write(&manifest, line("one", 0) + &line("two", 1) + &line("one", 0) + &line("two", 2)).unwrap();
    let manifest = manifest.to_str().unwrap();
    let output = ringlift_with(&server, &["ingest", "--json", "--manifest", manifest])
        .failed(1, &["is named twice", "job id two: is taken by another file"]);
    assert_eq!(output.event("doubled")["id"], "one");
    let summary = output.summary();
    assert_eq!((&summary["files_done"], &summary["files_failed"]), (&2.into(), &1.into()));
    server.assert_created(2);
    // Two sources that overlap.
    let clip: PathBuf = films.path().join("clip000.mp4");
    let output =
        ringlift_with(&server, &["submit", "--account", "a", &path_of(&films), clip.to_str().unwrap()]);
    output.done();
    assert_eq!(jobs(&server, &["--account", "a"]).len(), 3);
}

#[test]
fn a_dry_run_skips_what_the_queue_has_done_and_names_the_limit() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    let dry_run = |more: &[&str]| {
        let path = path_of(&films);
        let args: Vec<&str> = ["ingest", "-n", "--json", "--bwlimit", "1K", &path]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        ringlift_with(&server, &args)
    };
    let output = dry_run(&[]).done();
    let estimate = output.event("estimate");
    assert_eq!((&estimate["files"], &estimate["limited_by"]), (&3.into(), &"bandwidth".into()));
    assert!(!server.folder.path().join("ringlift/jobs.db").exists());
    ringlift_with(&server, &["ingest", &path_of(&films)]).done();
    let output = dry_run(&[]).done();
    assert_eq!(
        (&output.event("estimate")["files"], &output.summary()["files_skipped"]),
        (&0.into(), &3.into())
    );
    assert_eq!(dry_run(&["--force"]).done().event("estimate")["files"], 3);
    server.assert_created(3);
}

#[test]
fn a_signal_ends_a_submission_and_what_was_submitted_stays() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let mut command = ringlift();
    command.args(["submit", "--json", "--manifest", "-"]).stdin(Stdio::piped());
    let mut child = start(server.configure(&mut command));
    let stdin = child.stdin.as_mut().unwrap();
    let clip = films.path().join("clip000.mp4");
    writeln!(stdin, "{{\"path\":\"{}\"}}", clip.display()).unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("\"event\":\"job\"") && line.contains("queued"), "{line}");
    // Standard input stays open.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let open = child.stdin.take();
    let output = end(child);
    drop(open);
    assert_eq!(output.code, Some(143), "{}", output.stderr);
    assert_eq!(jobs(&server, &["--state", "queued"]).len(), 1);
}

#[test]
fn a_url_among_the_sources_is_fetched_by_the_service() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let path = path_of(&films);
    let summary =
        ringlift_with(&server, &["ingest", "--json", &path, "http://example.com/movie.mp4"]).done().summary();
    assert_eq!(summary["files_done"], 2);
    assert_eq!(jobs(&server, &["--state", "done"]).len(), 2);
}

#[test]
fn flags_without_an_effect_are_refused() {
    let server = TestServer::new(Scheme::Http);
    for (args, text) in [
        (&["ingest", "f", "--manifest-format", "csv"][..], "--manifest-format"),
        (&["ingest", "f", "--mode", "single", "--chunk-size", "5M"], "--chunk-size"),
        (&["submit", "f", "--force", "--retry", "failed"], "--force"),
        (&["work", "--wait-timeout", "1h"], "--wait-timeout"),
        (&["submit", "f", "--transfers", "3"], "--transfers"),
        (&["ingest"], "SOURCE"),
    ] {
        ringlift_with(&server, args).failed(2, &[text]);
    }
}
