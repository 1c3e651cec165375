//! Files on a disk or network file system that stops responding.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use ringlift::{ErrorKind, Reader};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{CommandOutput, end, ringlift, run, start};
use crate::support::disk::{Disk, Silence};
use crate::support::{MIB, Sample, Scheme, TestServer, each_in_parallel};

const READERS: [&str; 4] = ["uring", "direct", "mmap", "pread"];
const TEMPORARY: i32 = 5;
const TERMINATED: i32 = 143;

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Mounts a disk whose file stops responding in its third chunk. Returns `None` if mounts are not permitted.
fn failing_disk() -> Option<(Disk, Sample)> {
    let sample = Sample::new(30 * MIB);
    let disk = Disk::holding(fs::read(sample.path()).unwrap(), Silence::From(12 << 20));
    if disk.is_none() {
        eprintln!("skipped: nothing may be mounted here");
    }
    Some((disk?, sample))
}

/// Waits for the summary, which must appear while the disk is silent. Then lets the disk respond, because no process
/// can end while the kernel holds its threads.
fn summary_while_silent(mut child: Child, disk: &Disk) -> CommandOutput {
    let (tell, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let mut stdout = String::new();
    let mut has_come = false;
    while !has_come && let Ok(line) = lines.recv_timeout(Duration::from_secs(60)) {
        has_come = line.contains(r#""event":"summary""#);
        stdout += &format!("{line}\n");
    }
    let held = disk.pending_requests();
    disk.resume_answers();
    let ran = CommandOutput { stdout, ..end(child) };
    assert!(has_come && held > 0, "summary: {has_come}, held reads: {held}; {}{}", ran.stdout, ran.stderr);
    ran
}

fn upload(test_server: &TestServer, disk: &Disk, args: &[&str]) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "--chunk-size", "5MiB", "-c", "2"]);
    command.args(args).arg(disk.path());
    command
}

#[test]
fn every_reader_gives_up_a_silent_source_and_resumes_when_it_responds() {
    each_in_parallel(READERS, |reader| {
        let Some((disk, sample)) = failing_disk() else { return };
        let test_server = TestServer::new(Scheme::Http);
        let args = ["--reader", reader, "--timeout", "1s", "--retries", "1"];
        let child = start(&mut upload(&test_server, &disk, &args));
        let ran = summary_while_silent(child, &disk).failed(TEMPORARY, &["movie.mp4", "file system"]);
        let failed = ran.event("file_failed");
        assert_eq!(
            (&failed["error"]["kind"], &failed["resumable"]),
            (&"stalled".into(), &true.into()),
            "{reader}"
        );
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(message.contains("movie.mp4") && !message.contains("127.0.0.1"), "{message}");
        assert_eq!(ran.summary()["exit_code"], TEMPORARY);
        let taken = test_server.server.stats().chunks_accepted;
        assert!(taken < 6, "{reader}: it was not silent");
        let ran = run(&mut upload(&test_server, &disk, &args)).done();
        let video_id = ran.summary()["video_id"].as_str().unwrap().to_owned();
        test_server.assert_holds(&video_id, &sample.path());
        test_server.assert_created(1);
    });
}

#[test]
fn a_signal_ends_an_upload_with_a_silent_source() {
    let cases = READERS.into_iter().flat_map(|reader| [(reader, Scheme::Http), (reader, Scheme::Https)]);
    each_in_parallel(cases, |(reader, scheme)| {
        let Some((disk, _sample)) = failing_disk() else { return };
        let test_server = TestServer::new(scheme);
        let child = start(&mut upload(&test_server, &disk, &["--reader", reader, "--grace", "1s"]));
        wait_until("the disk to fall silent", || disk.pending_requests() > 0);
        sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ran = summary_while_silent(child, &disk);
        assert_eq!(ran.code, Some(TERMINATED), "{reader} {scheme:?}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.summary()["exit_code"], TERMINATED);
        assert_eq!(ran.event("file_failed")["resumable"], true, "{reader} {scheme:?}: {}", ran.stdout);
    });
}

#[test]
fn a_file_with_a_silent_lookup_fails_while_others_continue() {
    let Some(disk) = Disk::holding(vec![7; 1 << 20], Silence::Whole) else {
        return eprintln!("skipped: nothing may be mounted here");
    };
    let (test_server, other) = (TestServer::new(Scheme::Http), Sample::new(6 * MIB));
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "--timeout", "1s", "--transfers", "1"]);
    let child = start(command.arg(disk.path()).arg(other.path()));
    let ran = summary_while_silent(child, &disk).failed(TEMPORARY, &["movie.mp4", "no data for 1s"]);
    test_server.assert_holds(ran.event("file_done")["video_id"].as_str().unwrap(), &other.path());
}

#[test]
fn a_blocked_file_thread_affects_no_other_upload_of_the_client() {
    let Some((disk, sample)) = failing_disk() else { return };
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.short_pause_client().lanes(1).reader(Reader::Mmap).with(|settings| {
        settings.patience.body = Duration::from_secs(1);
        settings.patience.stall = Duration::from_secs(1);
        settings.retry.retries = 0;
    });
    let client = client.build().unwrap();
    let silent = client.upload(disk.path()).send_blocking().unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::Stalled, "{silent}");
    let uploaded = client.upload(sample.path()).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
}

#[test]
fn a_client_that_is_dropped_leaves_a_silent_read_behind() {
    each_in_parallel([Reader::Uring, Reader::Mmap, Reader::Pread], |reader| {
        let Some((disk, _sample)) = failing_disk() else { return };
        let test_server = TestServer::new(Scheme::Http);
        let client = test_server.short_pause_client().reader(reader).build().unwrap();
        let running = pollster::block_on(client.upload(disk.path()).start()).unwrap();
        wait_until("the disk to fall silent", || disk.pending_requests() > 0);
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            drop((running, client));
            ended.send(())
        });
        let within = end.recv_timeout(Duration::from_secs(30));
        assert!(within.is_ok(), "{reader}: the drop waits for the disk");
        assert!(disk.pending_requests() > 0, "{reader}: the disk was not silent");
    });
}
