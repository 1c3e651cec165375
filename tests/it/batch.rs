//! Several files in one command, which is interrupted and given again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use ringlift::{ErrorKind, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{Ran, end, ringlift, run, start};
use crate::support::{House, MIB, Sample, Scheme};

const FAILED: i32 = 1;

/// Five files in a folder, and a server that answers the third chunk late.
struct Films {
    house: House,
    folder: tempfile::TempDir,
}

impl Films {
    fn new() -> Films {
        Films::with(Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).nth(3))
    }

    fn with(fault: Fault) -> Films {
        let films =
            Films { house: House::faulty(Scheme::Http, vec![fault]), folder: tempfile::tempdir().unwrap() };
        (0..5).for_each(|number| fs::write(films.path(number), vec![number as u8; MIB as usize]).unwrap());
        films
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("film{number}.mp4"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = ringlift();
        self.house.host(&mut command).args(args);
        command
    }

    fn upload(&self, args: &[&str], numbers: std::ops::Range<usize>) -> Command {
        let mut command = self.command(&["upload", "--json", "--transfers", "1"]);
        command.args(args).args(numbers.map(|number| self.path(number)));
        command
    }

    /// The command for all five, in the middle of the third.
    fn begun(&self) -> Child {
        let child = start(&mut self.upload(&[], 0..5));
        let begun = Instant::now();
        while self.house.server.stats().chunks_accepted < 3 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        // Until the journal has the second one.
        thread::sleep(Duration::from_millis(300));
        child
    }

    fn killed(&self) {
        let child = self.begun();
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        end(child);
    }

    fn assert_each_is_there_once(&self) {
        let listed = run(&mut self.command(&["video", "list", "--json"])).done();
        let mut titles: Vec<String> = named(&listed, "video")
            .iter()
            .map(|event| event["video"]["title"].as_str().unwrap().to_owned())
            .collect();
        titles.sort();
        let expected: Vec<String> = (0..5).map(|number| format!("film{number}.mp4")).collect();
        assert_eq!(titles, expected);
    }
}

fn named(ran: &Ran, event: &str) -> Vec<Value> {
    ran.events().into_iter().filter(|found| found["event"] == event).collect()
}

/// The files that were answered without being sent.
fn already(ran: &Ran) -> usize {
    named(ran, "file_done").iter().filter(|done| done["already"] == true).count()
}

#[test]
fn a_killed_command_that_is_given_again_uploads_each_file_once() {
    let films = Films::new();
    films.killed();
    let ran = run(&mut films.upload(&[], 0..5)).done();
    assert_eq!((already(&ran), &ran.summary()["files_done"]), (2, &5.into()));
    films.assert_each_is_there_once();
}

#[test]
fn an_interrupted_command_that_is_given_again_with_more_files_uploads_each_file_once() {
    let films = Films::new();
    let child = start(&mut films.upload(&[], 0..4));
    while films.house.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    end(child).failed(130, &[]);
    let ran = run(&mut films.upload(&[], 0..5)).done();
    assert!(already(&ran) >= 2, "{ran:?}");
    films.assert_each_is_there_once();
}

#[test]
fn what_resume_finished_of_a_command_is_not_uploaded_again_by_it() {
    let films = Films::new();
    films.killed();
    run(&mut films.command(&["resume"])).done();
    let ran = run(&mut films.upload(&[], 0..5)).done();
    assert_eq!(already(&ran), 3);
    films.assert_each_is_there_once();
}

#[test]
fn a_failure_of_one_file_does_not_have_the_others_uploaded_again() {
    let refusal = FaultAction::Refuse { status: 400, slug: None, timing: RefusalTiming::default() };
    let films = Films::with(Fault::new(RouteClass::Chunk, refusal).nth(2));
    let ran = run(&mut films.upload(&[], 0..5)).failed(FAILED, &["film1.mp4"]);
    assert_eq!(ran.summary()["files_done"], 4);
    let ran = run(&mut films.upload(&[], 0..5)).done();
    assert_eq!(already(&ran), 4);
    assert!(ran.stderr.contains("film0.mp4: uploaded before") && ran.stderr.contains("--force"));
    assert_eq!(named(&ran, "resumed").len(), 4, "{ran:?}");
}

#[test]
fn a_command_that_ended_well_and_is_given_again_uploads_again() {
    let films = Films::new();
    films.killed();
    run(&mut films.upload(&[], 0..5)).done();
    let ran = run(&mut films.upload(&[], 0..5)).done();
    assert_eq!(already(&ran), 0);
    films.house.assert_created(10);
}

#[test]
fn an_uploaded_file_is_sent_again_where_that_is_asked_for_or_it_has_changed() {
    let films = Films::new();
    films.killed();
    fs::write(films.path(0), "other bytes").unwrap();
    let ran = run(&mut films.upload(&[], 0..2)).done();
    assert_eq!(already(&ran), 1);
    let changed = &named(&ran, "file_done")[0]["video_id"];
    films.house.assert_holds(changed.as_str().unwrap(), &films.path(0));
    let films = Films::new();
    films.killed();
    assert_eq!(already(&run(&mut films.upload(&["--force"], 0..2)).done()), 0);
    films.house.assert_created(5);
}

#[test]
fn five_hundred_files_of_a_command_are_forgotten_when_it_ended_well() {
    let house = House::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..500).map(|number| folder.path().join(format!("{number}.mp4"))).collect();
    files.iter().for_each(|file| fs::write(file, file.as_os_str().as_encoded_bytes()).unwrap());
    let upload = || {
        house.run(
            ["upload".as_ref(), "--json".as_ref()].into_iter().chain(files.iter().map(|f| f.as_os_str())),
        )
    };
    upload().done();
    let notes: i64 = rusqlite::Connection::open(house.journal())
        .unwrap()
        .query_row("SELECT count(*) + (SELECT count(*) FROM sessions) FROM finished", [], |row| row.get(0))
        .unwrap();
    assert_eq!(notes, 0);
}

#[test]
fn a_file_that_is_named_twice_is_uploaded_once_and_both_names_get_its_video() {
    let films = Films::with(Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 1 }));
    let (hard, link) = (films.folder.path().join("hard.mp4"), films.folder.path().join("link.mp4"));
    fs::hard_link(films.path(0), &hard).unwrap();
    std::os::unix::fs::symlink(films.path(0), &link).unwrap();
    let mut created = 0;
    for journal in [&[][..], &["--no-journal"]] {
        for other in [&films.path(0), &hard, &link] {
            let ran = run(films.upload(journal, 0..2).arg(other)).done();
            created += 2;
            films.house.assert_created(created);
            let done = named(&ran, "file_done");
            let of = |file: &Path| -> Vec<&Value> {
                done.iter().filter(|event| event["file"] == file.to_str().unwrap()).collect()
            };
            let (first, second) = (of(&films.path(0))[0], of(other).pop().unwrap());
            assert_eq!((&first["video_id"], &second["already"]), (&second["video_id"], &true.into()));
            assert_eq!((done.len(), &ran.summary()["files_done"]), (3, &3.into()));
            assert!(ran.stderr.contains("named twice; uploaded once"), "{}", ran.stderr);
        }
    }
    let mut for_people = films.command(&["upload"]);
    let ran = run(for_people.args([films.path(0), films.path(0)])).done();
    let ids: Vec<&str> = ran.stdout.lines().collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ran:?}");
}

#[test]
fn a_file_that_a_program_starts_twice_is_said_to_be_uploaded_by_this_process() {
    let house = House::faulty(
        Scheme::Http,
        vec![Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 1000 })],
    );
    let sample = Sample::new(MIB);
    let journal = |settings: &mut Settings| settings.journal = Some(house.journal());
    let client = house.client().with(journal).build().unwrap();
    let first = pollster::block_on(client.upload(sample.path()).start()).unwrap();
    let error = client.upload(sample.path()).send_blocking().unwrap_err();
    let why =
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default() + &error.to_string();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(why.contains("this process") && why.contains("is uploading the file already"), "{why}");
    first.join_blocking().unwrap();
    house.assert_created(1);
}
