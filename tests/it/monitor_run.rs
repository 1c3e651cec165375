//! The monitor, the file of metrics, the estimate and the lines of progress of a run.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{CommandOutput, ringlift};
use crate::support::queue::folder;
use crate::support::{Scheme, TestServer};

/// A run with a monitor.
struct MonitoredRun {
    child: Child,
    stdout: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl MonitoredRun {
    /// Starts the command and waits until its monitor listens.
    fn start(server: &TestServer, args: &[&str]) -> MonitoredRun {
        let mut command = ringlift();
        command.args(args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = server.configure(&mut command).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).expect(&line);
        assert_eq!(event["event"], "monitor");
        let url = event["url"].as_str().unwrap().to_owned();
        let addr = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        MonitoredRun { child, stdout, addr }
    }

    /// Returns the status and the body.
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.addr)
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn snapshot(&self) -> Value {
        let (status, body) = self.get("/api/snapshot", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect(&body)
    }

    /// Waits until the snapshot satisfies the condition.
    fn until(&self, condition: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let snapshot = self.snapshot();
            if condition(&snapshot) {
                return snapshot;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{snapshot}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the run by SIGTERM and returns its output.
    fn stop(mut self) -> CommandOutput {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let output = self.child.wait_with_output().unwrap();
        CommandOutput { stdout, ..CommandOutput::from(output) }
    }
}

#[test]
fn the_page_the_metrics_and_the_jobs_agree_with_the_summary() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(4));
    let path = films.path().to_str().unwrap();
    let run = MonitoredRun::start(&server, &["work", "--monitor", "127.0.0.1:0"]);
    assert_eq!(run.get("/healthz", "").0, 200);
    assert!(run.get("/", "").1.contains("<html"));
    server.run(["submit", path]).done();
    fs::write(films.path().join("more.mp4"), "more").unwrap();
    server.run(["submit", path]).done();
    let snapshot = run.until(|snapshot| snapshot["jobs"]["done"] == 5 && snapshot["jobs"]["running"] == 0);
    assert_eq!((&snapshot["jobs"]["queued"], &snapshot["jobs"]["failed"]), (&0.into(), &0.into()));
    let bytes = snapshot["bytes"]["acknowledged"].as_u64().unwrap();
    assert_eq!(snapshot["bytes"]["total"], bytes);
    let (_, metrics) = run.get("/metrics", "");
    assert!(metrics.contains("ringlift_jobs{state=\"done\"} 5.0\n"), "{metrics}");
    let (_, jobs) = run.get("/api/jobs?search=MORE&limit=1", "");
    let jobs: Value = serde_json::from_str(&jobs).expect(&jobs);
    assert!(jobs["jobs"][0]["path"].as_str().unwrap().ends_with("more.mp4"), "{jobs}");
    let (_, page) = run.get("/api/jobs?limit=2&state=done", "");
    let page: Value = serde_json::from_str(&page).expect(&page);
    assert_eq!(page["jobs"].as_array().unwrap().len(), 2);
    let next = page["next"].as_str().unwrap();
    let (_, rest) = run.get(&format!("/api/jobs?limit=200&state=done&after={next}"), "");
    let rest: Value = serde_json::from_str(&rest).expect(&rest);
    assert_eq!((rest["jobs"].as_array().unwrap().len(), &rest["next"]), (3, &Value::Null));
    let addr = run.addr;
    let summary = run.stop().done().summary();
    assert_eq!((&summary["files_done"], &summary["bytes"]), (&5.into(), &bytes.into()));
    assert!(TcpStream::connect(addr).is_err(), "the monitor ends with the run");
}

#[test]
fn a_port_in_use_is_an_error_before_anything_is_sent() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let path = films.path().to_str().unwrap();
    server.run(["ingest", path, "--monitor", &addr]).failed(5, &["--monitor", &addr, "the port is in use"]);
    server.run(["ingest", path, "--monitor", ":9000"]).failed(2, &["ADDRESS:PORT"]);
    server.run(["ingest", path, "--monitor", "192.0.2.1:9000"]).failed(2, &["does not have the address"]);
    assert!(server.server.requests().is_empty());
    // Nothing was submitted either: the command could not begin.
    let listed = server.run(["jobs", "list", "--json"]).done();
    assert_eq!(listed.event("list_end")["listed"], 0);
}

#[test]
fn beyond_loopback_the_token_is_printed_once_even_if_the_output_is_quiet() {
    let server = TestServer::new(Scheme::Http);
    let run = MonitoredRun::start(&server, &["work", "--quiet", "--monitor", "0.0.0.0:0"]);
    assert_eq!((run.get("/api/snapshot", "").0, run.get("/metrics", "").0), (401, 401));
    assert_eq!(run.get("/healthz", "").0, 200);
    // The token is on standard error, which is read at the end.
    let addr = run.addr;
    let output = run.stop().done();
    assert_eq!(output.stderr.matches("?token=").count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains(&addr.to_string()), "{}", output.stderr);
    assert!(!output.stdout.contains("token="), "{}", output.stdout);
}

#[test]
fn the_token_that_is_printed_opens_the_page() {
    let server = TestServer::new(Scheme::Http);
    let mut run = MonitoredRun::start(&server, &["work", "--monitor", "0.0.0.0:0"]);
    let mut stderr = BufReader::new(run.child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("?token=") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0);
    }
    let token = line.trim().rsplit("?token=").next().unwrap().to_owned();
    assert_eq!(run.get("/api/snapshot", &format!("authorization: Bearer {token}\r\n")).0, 200);
    assert_eq!(run.get("/", &format!("authorization: Bearer {token}x\r\n")).0, 401);
    thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    run.stop().done();
}

#[test]
fn the_file_of_metrics_has_the_end_of_the_run() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(3));
    let path = films.path().to_str().unwrap();
    fs::write(films.path().join("jobs.jsonl"), "{\"path\":\"gone.mp4\"}\n").unwrap();
    let manifest = films.path().join("jobs.jsonl");
    let metrics = films.path().join("ringlift.prom");
    let args = ["ingest", path, "--manifest", manifest.to_str().unwrap(), "--metrics-file"];
    let run = || server.run(args.iter().copied().chain([metrics.to_str().unwrap()]));
    run().failed(1, &["gone.mp4"]);
    let text = fs::read_to_string(&metrics).unwrap();
    for line in [
        "ringlift_jobs{state=\"done\"} 3.0",
        "ringlift_jobs{state=\"failed\"} 1.0",
        "ringlift_run_exit_code 1.0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}: {text}");
    }
    run().failed(1, &["gone.mp4"]);
    let text = fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("ringlift_jobs{state=\"skipped\"} 3.0\n"), "{text}");
    let link = films.path().join("link.prom");
    symlink(&metrics, &link).unwrap();
    server.run(["ingest", path, "--metrics-file", link.to_str().unwrap()]).failed(2, &["symbolic link"]);
    server.run(["ingest", path, "--metrics-file", "/no/such/folder/x"]).failed(4, &["does not exist"]);
}

#[test]
fn a_full_disk_under_the_metrics_is_a_warning() {
    let disk = tempfile::tempdir().unwrap();
    // Mounts need a permission.
    if mount("small", disk.path(), "tmpfs", MountFlags::NOSUID, c"size=64k").is_err() {
        return;
    }
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let metrics = disk.path().join("ringlift.prom");
    fs::write(disk.path().join("other"), vec![0; 1 << 20]).unwrap_err();
    let path = films.path().to_str().unwrap();
    let output = server.run(["ingest", path, "--metrics-file", metrics.to_str().unwrap()]).done();
    unmount(disk.path(), UnmountFlags::DETACH).unwrap();
    assert!(output.stderr.contains("the disk or the quota is full"), "{}", output.stderr);
    server.assert_created(2);
}

#[test]
fn the_estimate_names_the_limit_at_the_start_and_lines_of_progress_follow() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(0));
    for name in ["a.mp4", "b.mp4"] {
        fs::write(films.path().join(name), vec![1; 3 << 20]).unwrap();
    }
    let path = films.path().to_str().unwrap();
    let output = server.run(["ingest", path, "--bwlimit", "2M", "--stats", "200ms"]).done();
    let lines: Vec<&str> = output.stderr.lines().collect();
    let estimate = lines.iter().position(|line| {
        line.starts_with("to upload: 2 files, 6 MiB, 2 upload requests: at least 3")
            && line.ends_with("because of the bandwidth limit")
    });
    let progress = lines
        .iter()
        .position(|line| line.contains(" of ") && line.contains("MiB") && line.contains("/2 files"));
    assert!(estimate.is_some() && estimate < progress, "{}", output.stderr);
    // A queue knows its jobs, too.
    fs::write(films.path().join("c.mp4"), vec![1; 3 << 20]).unwrap();
    server.run(["submit", path]).done();
    let output = server.run(["work", "--drain", "--json", "--bwlimit", "100M"]).done();
    let estimate = output.event("estimate");
    assert_eq!((&estimate["files"], &estimate["bytes"]), (&1.into(), &(3 << 20).into()));
}
