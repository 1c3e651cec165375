//! A file that changes while it is being sent.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{ErrorKind, OnChange};

use crate::support::command::{Ran, end, ringlift, run, start};
use crate::support::{House, MIB, Sample, Scheme, digest};

/// A house in which the third chunk is answered so late that there is time to change the file.
fn house() -> House {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 700 }).nth(3);
    House::with(Scheme::Http, |settings| settings.faults = vec![stall].into())
}

fn write(path: &Path, text: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(text, 6 * MIB).unwrap();
}

/// Uploads, and changes the file once its third chunk has arrived.
fn upload_and_change(house: &House, sample: &Sample, args: &[&str]) -> Ran {
    let mut command = ringlift();
    house
        .host(&mut command)
        .args(["upload", "--json", "--concurrency", "1", "--chunk-size", "5MiB"])
        .args(args);
    let mut child = start(command.arg(sample.path()));
    while house.server.stats().chunks_accepted < 3 && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(10));
    }
    write(&sample.path(), b"something else");
    end(child)
}

fn videos(house: &House) -> Vec<String> {
    let listed = run(house.host(ringlift().args(["video", "list", "--json"]))).done();
    let videos = listed.events().into_iter().filter(|event| event["event"] == "video");
    videos.map(|event| event["video"]["videoId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn fails_the_upload_and_leaves_no_video_that_looks_whole() {
    let (house, sample) = (house(), Sample::new(30 * MIB));
    let ran = upload_and_change(&house, &sample, &[]).failed(6, &[sample.arg(), "video delete"]);
    assert_eq!(ran.event("file_failed")["error"]["kind"], "source_changed");
    assert_eq!(house.server.stats().videos_created, 1);
}

#[test]
fn begins_the_upload_anew_when_that_is_asked_for() {
    let (house, sample) = (house(), Sample::new(30 * MIB));
    let ran = upload_and_change(&house, &sample, &["--on-change", "restart", "--sha256"]).done();
    let video_id = ran.summary()["video_id"].as_str().unwrap().to_owned();
    house.assert_holds(&video_id, &sample.path());
    assert_eq!(ran.summary()["sha256"], digest(&sample.path()));
    assert_eq!((videos(&house), house.server.stats().videos_created), (vec![video_id], 2));
    assert!(ran.summary()["resent_bytes"].as_u64() >= Some(10 * MIB), "{:?}", ran.summary());
    let mut list = ringlift();
    house.host(&mut list).args(["resume", "--list"]);
    assert_eq!(run(&mut list).done().stdout, "", "the journal forgot both sessions");
}

#[test]
fn without_end_ends_the_upload_all_the_same() {
    let (house, sample) = (House::new(Scheme::Http), Sample::new(30 * MIB));
    let client = house.client().lanes(1).build().unwrap();
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
    assert_eq!(videos(&house), [error.video_id().unwrap()]);
    assert_eq!(house.server.stats().videos_created, 4);
}

#[test]
fn a_video_that_was_named_is_not_deleted_for_it() {
    let (house, sample) = (house(), Sample::new(30 * MIB));
    let client = house.client().build().unwrap();
    let container =
        pollster::block_on(client.create_video(ringlift::NewVideo::new("mine"))).unwrap().video_id;
    let args = ["--on-change", "restart", "--video-id", &container];
    upload_and_change(&house, &sample, &args).failed(6, &[sample.arg()]);
    assert_eq!(videos(&house), [container]);
}
