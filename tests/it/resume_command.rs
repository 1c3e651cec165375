//! What is left of uploads that were ended, and the commands that look after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{Ran, end, ringlift, run, start};
use crate::support::{House, MIB, Sample, Scheme};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NO_SUCH_FILE: i32 = 4;
const TEMPORARY: i32 = 5;
const UNSUITED: i32 = 6;

/// A house whose commands keep their journal in it. The third chunk is recorded and answered too late.
fn house() -> House {
    with_fault(FaultAction::StallAnswering { for_ms: 5000 })
}

/// A house in which something happens to the third chunk.
fn with_fault(action: FaultAction) -> House {
    let fault = Fault::new(RouteClass::Chunk, action).nth(3);
    House::with(Scheme::Http, |settings| settings.faults = vec![fault].into())
}

fn refusal() -> FaultAction {
    FaultAction::Refuse { status: 400, slug: None, timing: RefusalTiming::default() }
}

fn command(house: &House, args: &[&str]) -> Command {
    let mut command = ringlift();
    house.host(&mut command).args(args);
    command
}

/// The same, by somebody with this token and without the key.
fn delegate(house: &House, token: &str, args: &[&str]) -> Command {
    let mut command = command(house, args);
    command.env_remove("APIVIDEO_API_KEY").env("RINGLIFT_UPLOAD_TOKEN", token);
    command
}

const UPLOAD: &[&str] = &["upload", "--json", "--concurrency", "1", "--chunk-size", "5MiB"];

/// Starts an upload, and waits for the third of its chunks.
fn begin(house: &House, upload: &mut Command) -> Child {
    let before = house.server.stats().chunks_accepted;
    let child = start(upload);
    while house.server.stats().chunks_accepted < before + 3 {
        thread::sleep(Duration::from_millis(10));
    }
    child
}

/// An upload that a crash ended at its third chunk.
fn crashed(house: &House, upload: &mut Command) -> Ran {
    let child = begin(house, upload);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child)
}

fn left(house: &House, sample: &Sample) -> String {
    id(&crashed(house, command(house, UPLOAD).arg(sample.path())))
}

fn id(ran: &Ran) -> String {
    ran.event("created")["video_id"].as_str().unwrap().to_owned()
}

fn sessions(house: &House) -> Vec<Value> {
    let listed = run(&mut command(house, &["resume", "--list", "--json"])).done();
    listed.events().into_iter().filter(|event| event["event"] == "session").collect()
}

fn assert_gone(house: &House, video_id: &str) {
    run(&mut command(house, &["video", "get", video_id])).failed(3, &[video_id]);
}

#[test]
fn what_a_crash_left_is_listed_and_continued_from_any_folder() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    let mut upload = command(&house, UPLOAD);
    upload.args(["--title", "Summer", "movie.mp4"]).current_dir(sample.path().parent().unwrap());
    let video_id = id(&crashed(&house, &mut upload));
    let listed = sessions(&house);
    let expected = [
        ("file", Value::from(sample.arg())),
        ("video_id", video_id.as_str().into()),
        ("standing", "left".into()),
        ("resumable", true.into()),
        ("chunks", 6.into()),
        ("stored_chunks", 2.into()),
        ("mode", "bytes".into()),
        ("endpoint_url", house.server.url().into()),
    ];
    for (name, value) in expected {
        assert_eq!(listed[0][name], value, "{name}");
    }
    let for_people = run(&mut command(&house, &["resume", "--list"])).done().stdout;
    assert!(for_people.contains(sample.arg()) && for_people.contains("2/6"), "{for_people}");
    let ran = run(command(&house, &["resume", "--json"]).current_dir("/")).done();
    let resumed = ran.event("resumed");
    assert_eq!((&resumed["video_id"], &resumed["chunks"]), (&video_id.as_str().into(), &3.into()));
    let asked = ran.events().into_iter().filter(|event| event["event"] == "status_asked");
    assert_eq!(asked.map(|event| event["why"].clone()).collect::<Vec<_>>(), ["resume", "completion"]);
    assert_eq!(
        (&ran.summary()["video_id"], &ran.summary()["files_done"]),
        (&video_id.as_str().into(), &1.into())
    );
    house.assert_holds(&video_id, &sample.path());
    assert_eq!((house.server.stats().videos_created, house.server.stats().chunks_accepted), (1, 6));
    assert_eq!(sessions(&house), [] as [Value; 0]);
    assert_eq!(run(&mut command(&house, &["resume"])).done().stdout, "");
}

#[test]
fn a_moved_file_is_continued_under_its_new_name() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    // A new name moves ctime, so that the chunks have to be proved.
    let video_id = id(&crashed(&house, command(&house, UPLOAD).arg("--checksum").arg(sample.path())));
    let moved = sample.path().with_file_name("it's moved.mp4");
    fs::rename(sample.path(), &moved).unwrap();
    run(&mut command(&house, &["resume"])).failed(NO_SUCH_FILE, &[sample.arg(), "ringlift resume FILE"]);
    run(command(&house, &["resume"]).arg(&moved)).done();
    house.assert_holds(&video_id, &moved);
    assert_eq!(house.server.stats().videos_created, 1);
}

#[test]
fn an_upload_under_way_is_listed_and_left_alone() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    let child = begin(&house, command(&house, UPLOAD).arg(sample.path()));
    let listed = sessions(&house);
    assert_eq!((&listed[0]["standing"], &listed[0]["pid"]), (&"running".into(), &child.id().into()));
    let skipped = run(&mut command(&house, &["resume", "--json"])).done().event("skipped");
    assert_eq!(skipped["file"], sample.arg());
    let pid = format!("process {}", child.id());
    run(&mut command(&house, &["resume", sample.arg()])).failed(TEMPORARY, &[sample.arg(), &pid]);
    run(&mut command(&house, &["clean", "--yes", "--all"])).done();
    let ran = end(child).done();
    house.assert_holds(&id(&ran), &sample.path());
}

#[test]
fn a_delegated_upload_is_continued_with_its_token_or_another_of_the_account() {
    let house = house();
    let token = || {
        let created = run(&mut command(&house, &["token", "create", "--json"])).done();
        created.event("token")["token"]["token"].as_str().unwrap().to_owned()
    };
    let (ours, other) = (token(), token());
    let sample = Sample::new(30 * MIB);
    let video_id = id(&crashed(&house, delegate(&house, &ours, UPLOAD).arg(sample.path())));
    let resume = |token: &str| run(&mut delegate(&house, token, &["resume", "-vv"]));
    run(&mut command(&house, &["resume"])).failed(USAGE, &[sample.arg(), "RINGLIFT_UPLOAD_TOKEN"]);
    let ran = resume(&other).done();
    house.assert_holds(&video_id, &sample.path());
    for token in [&ours, &other] {
        assert!(!ran.stdout.contains(token) && !ran.stderr.contains(token), "the token was shown");
    }
    assert_eq!(house.server.stats().videos_created, 1);
}

#[test]
fn what_cannot_be_continued_is_named_with_the_way_out() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    left(&house, &sample);
    let resume = |args: &[&str]| run(&mut command(&house, &[&["resume", "--json"], args].concat()));
    resume(&["/nowhere"]).failed(NO_SUCH_FILE, &["/nowhere", "no such file"]);
    resume(&[text(&Sample::new(1).path())]).failed(FAILED, &["movie.mp4", "ringlift upload"]);
    let elsewhere = ["--endpoint-url", "http://127.0.0.1:9"];
    assert_eq!(resume(&elsewhere).done().event("skipped")["file"], sample.arg());
    resume(&[elsewhere.as_slice(), &[sample.arg()]].concat())
        .failed(USAGE, &[house.server.url(), "--endpoint-url"]);
    run(command(&house, &["resume"]).env_remove("APIVIDEO_API_KEY"))
        .failed(USAGE, &[sample.arg(), "API key"]);
    fs::write(sample.path(), "something else").unwrap();
    let ran = resume(&[]).failed(UNSUITED, &[sample.arg(), "ringlift upload", "ringlift clean"]);
    assert_eq!((&ran.summary()["files_failed"], &ran.summary()["exit_code"]), (&1.into(), &UNSUITED.into()));
    assert_eq!(house.server.stats().videos_created, 1);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_was_given_up_is_cleaned_away_once_that_is_confirmed() {
    let house = with_fault(refusal());
    let sample = Sample::new(30 * MIB);
    let ran = run(command(&house, UPLOAD).arg(sample.path())).failed(FAILED, &[]);
    let video_id = id(&ran);
    assert_eq!(sessions(&house)[0]["standing"], "abandoned");
    run(&mut command(&house, &["resume", sample.arg()])).failed(FAILED, &[sample.arg(), "ringlift clean"]);
    let refused = run(&mut command(&house, &["clean"])).failed(USAGE, &["--yes"]);
    assert!(refused.stdout.contains(&video_id), "{}", refused.stdout);
    run(&mut command(&house, &["video", "get", &video_id])).done();
    run(command(&house, &["clean", "--yes"]).env_remove("APIVIDEO_API_KEY")).failed(USAGE, &["API key"]);
    let cleaned = run(&mut command(&house, &["clean", "--yes", "--json"])).done();
    assert_eq!(cleaned.event("deleted")["video_id"], *video_id);
    assert_gone(&house, &video_id);
    assert_eq!(sessions(&house), [] as [Value; 0]);
}

#[test]
fn a_video_that_is_gone_already_counts_as_deleted() {
    let house = with_fault(refusal());
    let sample = Sample::new(30 * MIB);
    let video_id = id(&run(command(&house, UPLOAD).arg(sample.path())).failed(FAILED, &[]));
    run(&mut command(&house, &["video", "delete", &video_id])).done();
    let cleaned = run(&mut command(&house, &["clean", "--yes"])).done();
    assert!(cleaned.stderr.contains("gone already"), "{}", cleaned.stderr);
    assert_eq!(sessions(&house), [] as [Value; 0]);
}

#[test]
fn a_video_that_cannot_be_deleted_is_not_forgotten() {
    let house = with_fault(refusal());
    let sample = Sample::new(30 * MIB);
    let video_id = id(&run(command(&house, UPLOAD).arg(sample.path())).failed(FAILED, &[]));
    let mut clean = command(&house, &["clean", "--yes"]);
    run(clean.env("APIVIDEO_API_KEY", "wrong")).failed(7, &["ringlift"]);
    assert_eq!(sessions(&house)[0]["video_id"], *video_id);
}

#[test]
fn a_video_that_is_complete_is_forgotten_and_not_deleted() {
    let house = house();
    let sample = Sample::new(15 * MIB);
    let video_id = left(&house, &sample);
    fs::write(sample.path(), "something else").unwrap();
    let cleaned = run(&mut command(&house, &["clean", "--yes"])).done();
    assert!(cleaned.stderr.contains("is complete, and stays"), "{}", cleaned.stderr);
    assert_eq!(house.stored(&video_id).0, 15 * MIB);
    assert_eq!(sessions(&house), [] as [Value; 0]);
}

#[test]
fn what_can_be_continued_is_cleaned_away_only_when_all_is() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    let video_id = left(&house, &sample);
    let kept = run(&mut command(&house, &["clean", "--yes"])).done();
    assert!(kept.stderr.contains("ringlift resume"), "{}", kept.stderr);
    fs::write(sample.path(), "something else").unwrap();
    let cleaned = run(&mut command(&house, &["clean", "--yes", "--json"])).done();
    assert_eq!(cleaned.event("deleted")["video_id"], *video_id);
    let house = self::house();
    let sample = Sample::new(30 * MIB);
    let video_id = left(&house, &sample);
    run(&mut command(&house, &["clean", "--yes", "--all"])).done();
    assert_gone(&house, &video_id);
}

#[test]
fn without_a_journal_there_is_nothing_to_do_and_none_is_made() {
    let house = house();
    for args in [["resume", "--list"].as_slice(), &["resume"], &["clean"], &["clean", "--yes"]] {
        run(&mut command(&house, args)).done();
    }
    assert!(!house.folder.path().join("ringlift").exists());
    let foreign: PathBuf = house.folder.path().join("letter");
    fs::write(&foreign, "Dear reader").unwrap();
    for name in ["resume", "clean"] {
        run(&mut command(&house, &[name, "--journal", text(&foreign)])).failed(FAILED, &[text(&foreign)]);
    }
}

#[test]
fn an_interrupted_upload_says_what_goes_on_with_it() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    let journal = house.folder.path().join("a journal.db");
    let mut upload = command(&house, UPLOAD);
    upload.args(["--grace", "0s", "--journal"]).arg(&journal).arg(sample.path());
    let child = begin(&house, &mut upload);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = end(child).failed(130, &[]);
    assert_eq!(ran.event("file_failed")["resumable"], true);
    let said = ran.stderr.split('`').find(|text| text.starts_with("ringlift resume")).expect(&ran.stderr);
    assert!(said.contains(&format!("--journal '{}'", journal.display())), "{said}");
    let mut shell = Command::new("sh");
    let as_said = said.replacen("ringlift", env!("CARGO_BIN_EXE_ringlift"), 1);
    shell.env("APIVIDEO_API_KEY", house.server.api_key()).arg("-c").arg(as_said);
    run(&mut shell).done();
    house.assert_holds(&id(&ran), &sample.path());
}

#[test]
fn what_ended_while_it_waited_for_the_video_waits_on_and_sends_nothing_again() {
    for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(130))] {
        let stall = Fault::new(RouteClass::Status, FaultAction::StallAnswering { for_ms: 3000 });
        let house = House::with(Scheme::Http, |settings| settings.faults = vec![stall].into());
        let sample = Sample::new(12 * MIB);
        let mut upload = command(&house, UPLOAD);
        let child = start(upload.args(["--wait", "playable"]).arg(sample.path()));
        while !house.server.stats().requests.contains_key(&RouteClass::Status) {
            thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = end(child);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(code.is_none() || ended.event("file_failed")["resumable"] == true, "{ended:?}");
        let ran = run(&mut upload).done();
        assert_eq!(ran.event("file_done")["video_id"], *id(&ended));
        assert_eq!((house.server.stats().videos_created, house.server.stats().chunks_accepted), (1, 3));
        assert_eq!(sessions(&house), [] as [Value; 0]);
    }
}

#[test]
fn what_is_only_to_be_continued_never_begins() {
    let house = house();
    let journal = house.folder.path().join("journal.db");
    let client = house.client().with(|settings| settings.journal = Some(journal.clone())).build().unwrap();
    let sample = Sample::new(MIB);
    let error = client.upload(sample.path()).only_if_begun().send_blocking().unwrap_err();
    assert_eq!(error.kind(), ringlift::ErrorKind::Journal);
    assert_eq!(house.server.stats().videos_created, 0);
    assert_eq!(ringlift::upload::journal::Journal::open(&journal).unwrap().entries().unwrap(), []);
}

/// The only video that there is.
fn only_video(house: &House) -> String {
    let listed = run(&mut command(house, &["video", "list", "--json"])).done();
    listed.event("video")["video"]["videoId"].as_str().unwrap().to_owned()
}

#[test]
fn a_video_that_was_being_created_when_the_process_died_is_found_by_its_mark() {
    let stall = FaultAction::StallAnswering { for_ms: 5000 };
    let house = House::faulty(Scheme::Http, vec![Fault::new(RouteClass::Create, stall)]);
    let sample = Sample::new(MIB);
    let child = start(command(&house, UPLOAD).arg(sample.path()));
    while house.server.stats().videos_created < 1 {
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
    let video_id = only_video(&house);
    let kept = run(&mut command(&house, &["clean", "--yes"])).done();
    assert!(kept.stderr.contains("ringlift resume"), "{}", kept.stderr);
    fs::write(sample.path(), "something else").unwrap();
    let asked = run(&mut command(&house, &["clean"])).failed(USAGE, &["--yes"]);
    assert!(asked.stdout.contains(&video_id), "{}", asked.stdout);
    let blind = run(command(&house, &["clean", "--yes"]).env("APIVIDEO_API_KEY", "wrong"));
    blind.failed(7, &["API key"]);
    let cleaned = run(&mut command(&house, &["clean", "--yes", "--json"])).done();
    assert_eq!(cleaned.event("deleted")["video_id"], *video_id);
    assert_gone(&house, &video_id);
    assert_eq!(sessions(&house), [] as [Value; 0]);
}

#[test]
fn a_video_whose_creation_was_lost_is_deleted_and_one_that_never_was_is_not_looked_for_twice() {
    for (lost, videos) in [(FaultAction::CloseAfterRecording, 1), (FaultAction::CloseBeforeRecording, 0)] {
        let house = House::faulty(Scheme::Http, vec![Fault::new(RouteClass::Create, lost)]);
        let sample = Sample::new(MIB);
        let mut upload = command(&house, UPLOAD);
        run(upload.args(["--retries", "0"]).arg(sample.path())).failed(TEMPORARY, &["create the video"]);
        assert_eq!(house.server.stats().videos_created, videos);
        let cleaned = run(&mut command(&house, &["clean", "--yes", "--all", "--json"])).done();
        let deleted = cleaned.events().iter().filter(|event| event["event"] == "deleted").count();
        assert_eq!(deleted as u64, videos, "{cleaned:?}");
        cleaned.event("forgotten");
        assert_eq!(sessions(&house), [] as [Value; 0]);
    }
}

#[test]
fn a_delegated_upload_that_died_at_its_first_chunk_says_that_a_video_may_be_left() {
    let token = |house: &House| house.upload_token();
    let sample = Sample::new(MIB);
    let upload = |house: &House, token: &str| {
        let mut command = delegate(house, token, &["upload", "--json", "--retries", "0"]);
        run(command.arg(sample.path()))
    };
    let strays = |ran: &Ran| ran.events().iter().filter(|event| event["event"] == "stray_video").count();

    let house =
        House::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, FaultAction::CloseAfterRecording)]);
    let ours = token(&house);
    let died =
        upload(&house, &ours).failed(TEMPORARY, &["WARN movie.mp4: the answer to the first chunk was lost"]);
    assert_eq!(strays(&died), 1, "{died:?}");
    let resumed = run(&mut delegate(&house, &ours, &["resume", "--json"])).done();
    assert_eq!(strays(&resumed), 1, "{resumed:?}");
    let advice = resumed.event("stray_video")["advice"].to_string();
    assert!(advice.contains("title") && advice.contains("delete"), "{advice}");

    let house = House::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, FaultAction::unavailable())]);
    let ours = token(&house);
    let refused = upload(&house, &ours).failed(TEMPORARY, &["503"]);
    let resumed = run(&mut delegate(&house, &ours, &["resume", "--json"])).done();
    assert_eq!((strays(&refused), strays(&resumed)), (0, 0), "{refused:?} {resumed:?}");
    assert_eq!(house.server.stats().videos_created, 1);
}

#[test]
fn the_journal_that_the_file_names_for_uploads_is_the_one_that_is_looked_into() {
    let house = house();
    let sample = Sample::new(30 * MIB);
    let (journal, config) = (house.folder.path().join("own.db"), house.folder.path().join("config.toml"));
    fs::write(&config, format!("[upload]\njournal = {:?}\n", text(&journal))).unwrap();
    let with_config = |args: &[&str]| command(&house, &[args, &["--config", text(&config)]].concat());
    let video_id = id(&crashed(&house, with_config(UPLOAD).arg(sample.path())));
    assert!(journal.exists());
    let listed = run(&mut with_config(&["resume", "--list", "--json"])).done();
    assert_eq!(listed.event("session")["video_id"], *video_id);
    let kept = run(&mut with_config(&["clean", "--yes"])).done();
    assert!(kept.stderr.contains("kept"), "{}", kept.stderr);
    run(&mut with_config(&["resume"])).done();
    house.assert_holds(&video_id, &sample.path());
}
