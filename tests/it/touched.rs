//! A file whose attributes, links, name or times change: during the upload, and between two runs.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use ringlift::journal::{Entry, EntryState, Journal};
use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{ErrorKind, OnChange, Reader, UploadEvent};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{CommandOutput, end, ringlift, run, start};
use crate::support::way::{CHUNK, Way};
use crate::support::{Sample, Scheme, TestServer, digest, each_in_parallel};

const UNSUITED: i32 = 6;

/// Starts a server that stores the third chunk and delays its answer, so that the test can change the file.
fn test_server(scheme: Scheme, for_ms: u64) -> TestServer {
    TestServer::faulty(
        scheme,
        vec![Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms }).nth(3)],
    )
}

fn upload(test_server: &TestServer, way: Way, token: Option<&str>, file: &Path, args: &[&str]) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "-c", "1", "--chunk-size", "5MiB"]);
    command.args(["--mode", way.mode_name()]).args(args).arg(file);
    if let Some(token) = token {
        command.env_remove("APIVIDEO_API_KEY").env("RINGLIFT_UPLOAD_TOKEN", token);
    }
    command
}

fn id(ran: &CommandOutput) -> String {
    ran.event("created")["video_id"].as_str().unwrap().to_owned()
}

fn has_event(ran: &CommandOutput, name: &str) -> bool {
    ran.events().iter().any(|event| event["event"] == name)
}

fn wait_for_three_chunks(test_server: &TestServer) {
    while test_server.server.stats().chunks_accepted < 3 {
        sleep(Duration::from_millis(5));
    }
}

fn entries(test_server: &TestServer) -> Vec<Entry> {
    Journal::open(&test_server.journal()).unwrap().entries().unwrap()
}

// Changes to a file.

type Act = fn(&Path);

fn link(path: &Path) {
    fs::hard_link(path, path.with_extension("link")).unwrap();
}

fn protect(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
}

fn set_accessed(path: &Path) {
    File::open(path).unwrap().set_times(FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH)).unwrap();
}

fn rename(path: &Path) {
    fs::rename(path, path.with_extension("other")).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Writes other bytes in the first and the last chunk, and restores length and mtime.
fn rewrite(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap();
    file.write_all_at(b"other bytes", 100).unwrap();
    file.write_all_at(b"other bytes", before.len() - 100).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before.modified().unwrap());
}

// During the upload.

#[test]
fn a_change_of_attributes_is_a_warning_and_the_upload_continues() {
    let acts: [(Scheme, Act, &str); 6] = [
        (Scheme::Http, link, "touched"),
        (Scheme::Https, link, "touched"),
        (Scheme::Http, protect, "touched"),
        (Scheme::Http, set_accessed, "touched"),
        (Scheme::Http, rename, "removed"),
        (Scheme::Https, remove, "removed"),
    ];
    each_in_parallel(acts, |(scheme, act, change)| {
        let (test_server, sample) = (test_server(scheme, 700), Way::Bytes.sample(6));
        let whole = (sample.len, digest(&sample.path()));
        let child = start(&mut upload(&test_server, Way::Bytes, None, &sample.path(), &[]));
        wait_for_three_chunks(&test_server);
        act(&sample.path());
        let ran = end(child).done();
        let touched = ran.event("source_touched");
        assert_eq!((&touched["file"], &touched["change"]), (&sample.arg().into(), &change.into()));
        assert_eq!(ran.stderr.matches("while it is being sent").count(), 1, "{}", ran.stderr);
        assert_eq!(test_server.stored(&id(&ran)), whole);
        test_server.assert_nothing_was_sent_twice();
    });
}

#[test]
fn every_reader_continues_with_a_renamed_file() {
    let readers = [
        (Scheme::Http, Reader::Mmap),
        (Scheme::Http, Reader::Pread),
        (Scheme::Http, Reader::Uring),
        (Scheme::Http, Reader::Direct),
        (Scheme::Https, Reader::Mmap),
        (Scheme::Https, Reader::Direct),
    ];
    each_in_parallel(readers, |(scheme, reader)| {
        // The second worker opens the file after the rename.
        let test_server = TestServer::faulty(
            scheme,
            vec![Fault::new(RouteClass::Create, FaultAction::StallAnswering { for_ms: 500 })],
        );
        let sample = Way::Parts.sample(6);
        let client = test_server.short_pause_client().reader(reader).build().unwrap();
        let running = pollster::block_on(Way::Parts.upload(&test_server, &client, &sample).start()).unwrap();
        while test_server.server.stats().videos_created == 0 {
            sleep(Duration::from_millis(5));
        }
        rename(&sample.path());
        let uploaded = running.join_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path().with_extension("other"));
    });
}

#[test]
fn another_file_at_the_path_ends_the_upload() {
    let (test_server, sample) = (test_server(Scheme::Http, 700), Way::Bytes.sample(6));
    let child = start(&mut upload(&test_server, Way::Bytes, None, &sample.path(), &[]));
    wait_for_three_chunks(&test_server);
    let other = sample.path().with_extension("new");
    fs::copy(sample.path(), &other).unwrap();
    fs::rename(&other, sample.path()).unwrap();
    end(child).failed(UNSUITED, &["replaced by another file"]);
}

#[test]
fn with_strict_a_new_link_ends_the_upload() {
    let (test_server, sample) = (test_server(Scheme::Http, 700), Way::Bytes.sample(6));
    let args = ["--on-change", "strict"];
    let child = start(&mut upload(&test_server, Way::Bytes, None, &sample.path(), &args));
    wait_for_three_chunks(&test_server);
    link(&sample.path());
    end(child).failed(UNSUITED, &["changed in its attributes or links"]);
}

#[test]
fn a_program_receives_an_event_for_the_change() {
    let (test_server, sample) = (test_server(Scheme::Http, 700), Way::Bytes.sample(6));
    let client = test_server.short_pause_client().lanes(1).build().unwrap();
    let start = |on_change| {
        let upload = Way::Bytes.upload(&test_server, &client, &sample).on_change(on_change);
        pollster::block_on(upload.start()).unwrap()
    };
    let mut running = start(OnChange::Fail);
    let events = running.events();
    wait_for_three_chunks(&test_server);
    link(&sample.path());
    running.join_blocking().unwrap();
    let events: Vec<UploadEvent> = pollster::block_on(futures_util::StreamExt::collect(events));
    let touched = events.iter().filter(|event| matches!(event, UploadEvent::SourceTouched { .. }));
    assert_eq!(touched.count(), 1, "{events:?}");
}

// Between two runs.

/// A file of which a killed command sent three chunks and received the answers to two.
struct KilledUpload {
    test_server: TestServer,
    way: Way,
    sample: Sample,
    token: Option<String>,
    video_id: String,
}

impl KilledUpload {
    fn new(scheme: Scheme, way: Way, args: &[&str]) -> KilledUpload {
        KilledUpload::of(scheme, way, way.sample(6), args)
    }

    fn of(scheme: Scheme, way: Way, sample: Sample, args: &[&str]) -> KilledUpload {
        let test_server = test_server(scheme, 60_000);
        let token = way.token(&test_server);
        let child = start(&mut upload(&test_server, way, token.as_deref(), &sample.path(), args));
        wait_for_three_chunks(&test_server);
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        let video_id = id(&end(child));
        // Wait for the next clock tick, so that later changes get another ctime.
        sleep(Duration::from_millis(20));
        KilledUpload { test_server, way, sample, token, video_id }
    }

    fn rerun(&self, args: &[&str]) -> CommandOutput {
        run(&mut upload(&self.test_server, self.way, self.token.as_deref(), &self.sample.path(), args))
    }

    fn assert_begins_anew(&self, ran: CommandOutput) {
        let ran = ran.done();
        let new = ran.summary()["video_id"].as_str().unwrap().to_owned();
        let begins = ran.event("begins_anew");
        assert_ne!(new, self.video_id);
        assert_eq!(begins["video_id"], *self.video_id);
        assert!(ran.stderr.contains("WARN") && ran.stderr.contains("beginning anew"), "{}", ran.stderr);
        assert!(!has_event(&ran, "resumed"), "{}", ran.stdout);
        self.test_server.assert_holds(&new, &self.sample.path());
    }

    fn assert_goes_on(&self, ran: CommandOutput, sends_again: usize) -> CommandOutput {
        let ran = ran.done();
        assert_eq!(ran.summary()["video_id"], *self.video_id);
        self.test_server.assert_holds(&self.video_id, &self.sample.path());
        assert_eq!(self.test_server.chunk_requests().len(), 6 + sends_again);
        ran
    }
}

/// Returns the number of chunks that are sent again: none with a key, which finds the chunk with the lost answer; one
/// with a token, which is answered with "already sent".
fn sent_again(way: Way) -> usize {
    usize::from(way.is_delegated())
}

#[test]
fn a_rewritten_file_with_its_old_mtime_is_never_mixed_with_sent_chunks() {
    let cases = [
        (Scheme::Http, Way::Bytes, vec![]),
        (Scheme::Http, Way::DelegatedParts, vec![]),
        (Scheme::Http, Way::Parts, vec!["--checksum"]),
        (Scheme::Https, Way::Bytes, vec![]),
        (Scheme::Https, Way::DelegatedBytes, vec![]),
        (Scheme::Https, Way::Parts, vec!["--checksum=never"]),
    ];
    each_in_parallel(cases, |(scheme, way, args)| {
        let left = KilledUpload::new(scheme, way, &args);
        rewrite(&left.sample.path());
        left.assert_begins_anew(left.rerun(&args));
        let [old] = &entries(&left.test_server)[..] else { panic!("the old one is left") };
        assert_eq!((old.state, old.orphan()), (EntryState::Abandoned, Some(&*left.video_id)));
    });
}

#[test]
fn chunks_of_a_touched_file_are_verified_by_their_digests() {
    let cases: [(Scheme, Way, &[&str], Act); 4] = [
        (Scheme::Https, Way::Bytes, &[], protect),
        (Scheme::Https, Way::Parts, &[], link),
        (Scheme::Https, Way::DelegatedParts, &[], set_accessed),
        (Scheme::Http, Way::Bytes, &["--checksum"], link),
    ];
    each_in_parallel(cases, |(scheme, way, args, act)| {
        let left = KilledUpload::new(scheme, way, args);
        act(&left.sample.path());
        let ran = left.assert_goes_on(left.rerun(args), sent_again(way));
        let proved = ran.event("proved");
        assert_eq!((&proved["video_id"], &proved["chunks"]), (&(*left.video_id).into(), &3.into()));
        assert_eq!(proved["bytes"], 3 * CHUNK);
        assert!(ran.stderr.contains("by their digests"), "{}", ran.stderr);
        assert!(entries(&left.test_server).is_empty());
    });
}

#[test]
fn without_digests_an_upload_of_a_touched_file_starts_again() {
    let left = KilledUpload::new(Scheme::Http, Way::Bytes, &[]);
    protect(&left.sample.path());
    let ran = left.rerun(&[]);
    assert!(ran.stderr.contains("no digests"), "{}", ran.stderr);
    left.assert_begins_anew(ran);
}

#[test]
fn on_change_restart_deletes_the_old_video() {
    let left = KilledUpload::new(Scheme::Http, Way::Bytes, &[]);
    rewrite(&left.sample.path());
    left.assert_begins_anew(left.rerun(&["--on-change", "restart"]));
    left.test_server.run(["video", "get", &left.video_id]).failed(3, &[&left.video_id]);
    assert!(entries(&left.test_server).is_empty());
}

#[test]
fn an_unchanged_file_is_resumed_silently() {
    each_in_parallel([Scheme::Http, Scheme::Https], |scheme| {
        let left = KilledUpload::new(scheme, Way::Bytes, &[]);
        let ran = left.assert_goes_on(left.rerun(&[]), 0);
        assert!(!has_event(&ran, "proved") && !ran.stderr.contains("WARN"), "{ran:?}");
    });
}

#[test]
fn resume_continues_with_verified_chunks_and_refuses_others() {
    for (act, is_proved) in [(protect as Act, true), (rewrite, false)] {
        let left = KilledUpload::new(Scheme::Https, Way::Bytes, &[]);
        act(&left.sample.path());
        let resumed = left.test_server.run(["resume", "--json"]);
        match is_proved {
            true => drop(left.assert_goes_on(resumed, 0)),
            false => {
                resumed.failed(UNSUITED, &["is not what an earlier run sent"]);
                left.test_server.assert_created(1);
            }
        }
    }
}

#[test]
fn a_given_video_is_never_filled_with_parts_of_two_files() {
    let (test_server, sample) = (test_server(Scheme::Http, 60_000), Way::Bytes.sample(6));
    let client = test_server.client().build().unwrap();
    let video = pollster::block_on(client.create_video(ringlift::NewVideo::new("mine"))).unwrap();
    let args = ["--video-id", video.video_id.as_str()];
    let child = start(&mut upload(&test_server, Way::Bytes, None, &sample.path(), &args));
    wait_for_three_chunks(&test_server);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
    sleep(Duration::from_millis(20));
    rewrite(&sample.path());
    let ran = run(&mut upload(&test_server, Way::Bytes, None, &sample.path(), &args));
    ran.failed(UNSUITED, &[&video.video_id, "no digests"]);
    run(&mut upload(&test_server, Way::Bytes, None, &sample.path(), &args))
        .failed(UNSUITED, &[&video.video_id]);
}

#[test]
fn cancelling_during_verification_leaves_the_upload_unchanged() {
    let left = KilledUpload::new(Scheme::Https, Way::Bytes, &[]);
    protect(&left.sample.path());
    let stored = entries(&left.test_server)[0].stored_chunks;
    let journal = left.test_server.journal();
    let client = left.test_server.client().with(|settings| settings.journal = Some(journal)).build().unwrap();
    let running = pollster::block_on(client.upload(left.sample.path()).start()).unwrap();
    running.stopper().cancel();
    assert_eq!(running.join_blocking().unwrap_err().kind(), ErrorKind::Cancelled);
    drop(client);
    let [entry] = &entries(&left.test_server)[..] else { panic!("it is left") };
    assert_eq!((entry.state, entry.stored_chunks), (EntryState::Interrupted, stored));
    left.assert_goes_on(left.rerun(&[]), 0);
}

/// Sets the file's mtime. Returns `false` if the file system cannot store it.
fn set_modified(path: &Path, seconds: i64) -> bool {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
    path.metadata().unwrap().mtime() == seconds
}

#[test]
fn times_after_2262_or_before_1970_are_distinguished() {
    for (then, now) in [(13_569_465_600, 13_669_465_600), (-2_000_000_000, -1_000_000_000)] {
        let sample = Way::Bytes.sample(6);
        if !set_modified(&sample.path(), then) || !set_modified(&sample.path(), now) {
            println!("skipped: the file system cuts off {now} seconds since 1970");
            continue;
        }
        set_modified(&sample.path(), then);
        let left = KilledUpload::of(Scheme::Https, Way::Bytes, sample, &[]);
        set_modified(&left.sample.path(), now);
        let ran = left.rerun(&[]).done();
        assert_ne!(id(&ran), left.video_id);
        left.test_server.assert_holds(&id(&ran), &left.sample.path());
    }
}
