//! A file that changes during its upload.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{ErrorKind, OnChange};

use crate::support::command::{CommandOutput, end, ringlift, run, start};
use crate::support::{MIB, Sample, Scheme, TestServer, digest};

/// Starts a server that delays the answer to the third chunk, so that the test can change the file.
fn test_server() -> TestServer {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 700 }).nth(3);
    TestServer::with(Scheme::Http, |settings| settings.faults = vec![stall].into())
}

fn write(path: &Path, text: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(text, 6 * MIB).unwrap();
}

/// Uploads a file, and changes it after the third chunk was stored.
fn upload_and_change(test_server: &TestServer, sample: &Sample, args: &[&str]) -> CommandOutput {
    let mut command = ringlift();
    test_server
        .configure(&mut command)
        .args(["upload", "--json", "--concurrency", "1", "--chunk-size", "5MiB"])
        .args(args);
    let mut child = start(command.arg(sample.path()));
    while test_server.server.stats().chunks_accepted < 3 && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(10));
    }
    write(&sample.path(), b"something else");
    end(child)
}

#[test]
fn a_change_fails_the_upload_and_leaves_no_complete_video() {
    let (test_server, sample) = (test_server(), Sample::new(30 * MIB));
    let ran = upload_and_change(&test_server, &sample, &[]).failed(6, &[sample.arg(), "video delete"]);
    assert_eq!(ran.event("file_failed")["error"]["kind"], "source_changed");
    assert_eq!(test_server.server.stats().videos_created, 1);
}

#[test]
fn a_change_restarts_the_upload_with_on_change_restart() {
    let (test_server, sample) = (test_server(), Sample::new(30 * MIB));
    let ran = upload_and_change(&test_server, &sample, &["--on-change", "restart", "--sha256"]).done();
    let video_id = ran.summary()["video_id"].as_str().unwrap().to_owned();
    test_server.assert_holds(&video_id, &sample.path());
    assert_eq!(ran.summary()["sha256"], digest(&sample.path()));
    assert_eq!((test_server.video_ids(), test_server.server.stats().videos_created), (vec![video_id], 2));
    assert!(ran.summary()["resent_bytes"].as_u64() >= Some(10 * MIB), "{:?}", ran.summary());
    let mut list = ringlift();
    test_server.configure(&mut list).args(["resume", "--list"]);
    assert_eq!(run(&mut list).done().stdout, "", "the journal forgot both sessions");
}

#[test]
fn endless_changes_end_the_upload() {
    let (test_server, sample) = (TestServer::new(Scheme::Http), Sample::new(30 * MIB));
    let client = test_server.client().lanes(1).build().unwrap();
    let over = AtomicBool::new(false);
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                write(&sample.path(), b"again");
                thread::sleep(Duration::from_millis(1));
            }
        });
        let upload = client.upload(sample.path()).on_change(OnChange::Restart);
        let error = upload.send_blocking().unwrap_err();
        over.store(true, Ordering::Relaxed);
        error
    });
    assert_eq!(error.kind(), ErrorKind::SourceChanged);
    assert_eq!(test_server.video_ids(), [error.video_id().unwrap()]);
    assert_eq!(test_server.server.stats().videos_created, 4);
}

#[test]
fn a_given_video_is_not_deleted_after_a_change() {
    let (test_server, sample) = (test_server(), Sample::new(30 * MIB));
    let client = test_server.client().build().unwrap();
    let container =
        pollster::block_on(client.create_video(ringlift::NewVideo::new("mine"))).unwrap().video_id;
    let args = ["--on-change", "restart", "--video-id", &container];
    upload_and_change(&test_server, &sample, &args).failed(6, &[sample.arg()]);
    assert_eq!(test_server.video_ids(), [container]);
}
