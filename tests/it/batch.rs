//! A command with several files that is interrupted and repeated.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use ringlift::{Bandwidth, ErrorKind, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{CommandOutput, end, ringlift, run, start};
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;

/// Five files in a folder, and a server that delays the answer to the third chunk.
struct InterruptedBatch {
    test_server: TestServer,
    folder: tempfile::TempDir,
}

impl InterruptedBatch {
    fn new() -> InterruptedBatch {
        InterruptedBatch::with(
            Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).nth(3),
        )
    }

    fn with(fault: Fault) -> InterruptedBatch {
        let batch = InterruptedBatch {
            test_server: TestServer::faulty(Scheme::Http, vec![fault]),
            folder: tempfile::tempdir().unwrap(),
        };
        (0..5).for_each(|number| fs::write(batch.path(number), vec![number as u8; MIB as usize]).unwrap());
        batch
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("film{number}.mp4"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = ringlift();
        self.test_server.configure(&mut command).args(args);
        command
    }

    fn upload(&self, args: &[&str], numbers: std::ops::Range<usize>) -> Command {
        let mut command = self.command(&["upload", "--json", "--transfers", "1"]);
        command.args(args).args(numbers.map(|number| self.path(number)));
        command
    }

    /// Starts the command for all five files, and returns while it sends the third.
    fn start_and_wait_for_third_file(&self) -> Child {
        let child = start(&mut self.upload(&[], 0..5));
        let begun = Instant::now();
        while self.test_server.server.stats().chunks_accepted < 3 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        // The journal records the second file shortly after its answer.
        thread::sleep(Duration::from_millis(300));
        child
    }

    fn kill_in_third_file(&self) {
        let child = self.start_and_wait_for_third_file();
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        end(child);
    }

    fn assert_each_uploaded_once(&self) {
        let listed = run(&mut self.command(&["video", "list", "--json"])).done();
        let mut titles: Vec<String> = events_named(&listed, "video")
            .iter()
            .map(|event| event["video"]["title"].as_str().unwrap().to_owned())
            .collect();
        titles.sort();
        let expected: Vec<String> = (0..5).map(|number| format!("film{number}.mp4")).collect();
        assert_eq!(titles, expected);
    }
}

fn events_named(ran: &CommandOutput, event: &str) -> Vec<Value> {
    ran.events().into_iter().filter(|found| found["event"] == event).collect()
}

/// Returns the number of files that were reported without being sent.
fn count_already_uploaded(ran: &CommandOutput) -> usize {
    events_named(ran, "file_done").iter().filter(|done| done["already"] == true).count()
}

#[test]
fn repeating_a_killed_command_uploads_each_file_once() {
    let batch = InterruptedBatch::new();
    batch.kill_in_third_file();
    let ran = run(&mut batch.upload(&[], 0..5)).done();
    assert_eq!((count_already_uploaded(&ran), &ran.summary()["files_done"]), (2, &5.into()));
    batch.assert_each_uploaded_once();
}

#[test]
fn repeating_an_interrupted_command_with_more_files_uploads_each_file_once() {
    let batch = InterruptedBatch::new();
    let child = start(&mut batch.upload(&[], 0..4));
    while batch.test_server.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    end(child).failed(130, &[]);
    let ran = run(&mut batch.upload(&[], 0..5)).done();
    assert!(count_already_uploaded(&ran) >= 2, "{ran:?}");
    batch.assert_each_uploaded_once();
}

#[test]
fn a_repeated_command_skips_files_that_resume_finished() {
    let batch = InterruptedBatch::new();
    batch.kill_in_third_file();
    let resumed = run(&mut batch.command(&["resume"])).done();
    assert!(resumed.stderr.contains("had not begun are not in the journal"), "{resumed:?}");
    let ran = run(&mut batch.upload(&[], 0..5)).done();
    assert_eq!(count_already_uploaded(&ran), 3);
    batch.assert_each_uploaded_once();
}

#[test]
fn an_interrupted_command_names_the_one_that_uploads_the_files_it_never_began() {
    let batch = InterruptedBatch::new();
    let child = batch.start_and_wait_for_third_file();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    end(child).failed(130, &["were not started: SIGINT", "run the same command again", "`ringlift resume`"]);
    let last = batch.path(4);
    let named = run(&mut batch.command(&["resume", last.to_str().unwrap()]));
    named.failed(
        FAILED,
        &["film4.mp4", "the journal has no upload of this file: `ringlift upload` starts one"],
    );
    run(&mut batch.upload(&[], 0..5)).done();
    batch.assert_each_uploaded_once();
}

#[test]
fn several_files_get_the_titles_of_a_template() {
    let batch =
        InterruptedBatch::with(Fault::new(RouteClass::Chunk, FaultAction::CloseAfterRecording).nth(99));
    let titled =
        |title: &str| run(batch.upload(&["--title", title], 0..5).args(["--metadata", "number={index}"]));
    titled("film").failed(2, &["--title 'Summer: {stem}'"]);
    titled("{titel}").failed(2, &["--title: unknown name {titel}", "{stem}"]);
    batch.test_server.assert_created(0);
    titled("{name}").done();
    batch.assert_each_uploaded_once();
    let listed = run(&mut batch.command(&["video", "list", "--json", "--metadata", "number=3"])).done();
    assert_eq!(events_named(&listed, "video")[0]["video"]["title"], "film2.mp4");
}

#[test]
fn a_repeated_command_uploads_only_the_failed_file() {
    let refusal = FaultAction::Refuse { status: 400, slug: None, timing: RefusalTiming::default() };
    let batch = InterruptedBatch::with(Fault::new(RouteClass::Chunk, refusal).nth(2));
    let ran = run(&mut batch.upload(&[], 0..5)).failed(FAILED, &["film1.mp4"]);
    assert_eq!(ran.summary()["files_done"], 4);
    let ran = run(&mut batch.upload(&[], 0..5)).done();
    assert_eq!(count_already_uploaded(&ran), 4);
    assert!(ran.stderr.contains("film0.mp4: uploaded before") && ran.stderr.contains("--force"));
    assert_eq!(events_named(&ran, "resumed").len(), 4, "{ran:?}");
}

#[test]
fn repeating_a_successful_command_uploads_all_files_again() {
    let batch = InterruptedBatch::new();
    batch.kill_in_third_file();
    run(&mut batch.upload(&[], 0..5)).done();
    let ran = run(&mut batch.upload(&[], 0..5)).done();
    assert_eq!(count_already_uploaded(&ran), 0);
    batch.test_server.assert_created(10);
}

#[test]
fn an_uploaded_file_is_sent_again_with_force_or_after_a_change() {
    let batch = InterruptedBatch::new();
    batch.kill_in_third_file();
    fs::write(batch.path(0), "other bytes").unwrap();
    let ran = run(&mut batch.upload(&[], 0..2)).done();
    assert_eq!(count_already_uploaded(&ran), 1);
    let done = events_named(&ran, "file_done");
    let changed = &done.iter().find(|done| done["already"] != true).unwrap()["video_id"];
    batch.test_server.assert_holds(changed.as_str().unwrap(), &batch.path(0));
    let batch = InterruptedBatch::new();
    batch.kill_in_third_file();
    assert_eq!(count_already_uploaded(&run(&mut batch.upload(&["--force"], 0..2)).done()), 0);
    batch.test_server.assert_created(5);
}

#[test]
fn a_successful_command_leaves_no_journal_entries_for_500_files() {
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..500).map(|number| folder.path().join(format!("{number}.mp4"))).collect();
    files.iter().for_each(|file| fs::write(file, file.as_os_str().as_encoded_bytes()).unwrap());
    let upload = || {
        test_server.run(
            ["upload".as_ref(), "--json".as_ref()].into_iter().chain(files.iter().map(|f| f.as_os_str())),
        )
    };
    upload().done();
    let notes: i64 = rusqlite::Connection::open(test_server.journal())
        .unwrap()
        .query_row("SELECT count(*) + (SELECT count(*) FROM sessions) FROM finished", [], |row| row.get(0))
        .unwrap();
    assert_eq!(notes, 0);
}

#[test]
fn a_file_with_two_names_is_uploaded_once_and_both_names_get_its_video() {
    let batch =
        InterruptedBatch::with(Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 1 }));
    let (hard, link) = (batch.folder.path().join("hard.mp4"), batch.folder.path().join("link.mp4"));
    fs::hard_link(batch.path(0), &hard).unwrap();
    std::os::unix::fs::symlink(batch.path(0), &link).unwrap();
    let mut created = 0;
    for journal in [&[][..], &["--no-journal"]] {
        for other in [&batch.path(0), &hard, &link] {
            let ran = run(batch.upload(journal, 0..2).arg(other)).done();
            created += 2;
            batch.test_server.assert_created(created);
            let done = events_named(&ran, "file_done");
            let of = |file: &Path| -> Vec<&Value> {
                done.iter().filter(|event| event["file"] == file.to_str().unwrap()).collect()
            };
            let (first, second) = (of(&batch.path(0))[0], of(other).pop().unwrap());
            assert_eq!((&first["video_id"], &second["already"]), (&second["video_id"], &true.into()));
            assert_eq!((done.len(), &ran.summary()["files_done"]), (3, &3.into()));
            assert!(ran.stderr.contains("named twice; uploaded once"), "{}", ran.stderr);
        }
    }
    let mut for_people = batch.command(&["upload"]);
    let ran = run(for_people.args([batch.path(0), batch.path(0)])).done();
    let ids: Vec<&str> = ran.stdout.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ran:?}");
}

#[test]
fn a_second_upload_of_a_file_in_the_same_process_is_busy() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    // The first upload ends once this limit is removed: with a delayed answer it could end before the second begins.
    let bandwidth = Bandwidth::bytes_per_second(NonZeroU64::new(4096).unwrap());
    let journal = |settings: &mut Settings| {
        (settings.journal, settings.bandwidth) = (Some(test_server.journal()), bandwidth.clone());
    };
    let client = test_server.client().with(journal).build().unwrap();
    let first = pollster::block_on(client.upload(sample.path()).start()).unwrap();
    // Files are opened concurrently: without the wait the second upload may claim the file first.
    while first.current().video_id.is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    let error = client.upload(sample.path()).send_blocking().unwrap_err();
    let why =
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default() + &error.to_string();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(why.contains("this process") && why.contains("is already uploading this file"), "{why}");
    bandwidth.set(None);
    first.join_blocking().unwrap();
    test_server.assert_created(1);
}
