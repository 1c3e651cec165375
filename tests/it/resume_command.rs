//! Interrupted uploads, and the commands `resume` and `clean`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{CommandOutput, end, ringlift, run, start};
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NO_SUCH_FILE: i32 = 4;
const TEMPORARY: i32 = 5;
const UNSUITED: i32 = 6;

/// Starts a server that stores the third chunk and delays its answer. The journal is in the server's folder.
fn test_server() -> TestServer {
    with_fault(FaultAction::StallAnswering { for_ms: 5000 })
}

/// Starts a server with a fault on the third chunk.
fn with_fault(action: FaultAction) -> TestServer {
    let fault = Fault::new(RouteClass::Chunk, action).nth(3);
    TestServer::with(Scheme::Http, |settings| settings.faults = vec![fault].into())
}

fn refusal() -> FaultAction {
    FaultAction::Refuse { status: 400, slug: None, timing: RefusalTiming::default() }
}

fn command(test_server: &TestServer, args: &[&str]) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).args(args);
    command
}

/// Returns the same command with this token and without the API key.
fn delegate(test_server: &TestServer, token: &str, args: &[&str]) -> Command {
    let mut command = command(test_server, args);
    command.env_remove("APIVIDEO_API_KEY").env("RINGLIFT_UPLOAD_TOKEN", token);
    command
}

const UPLOAD: &[&str] = &["upload", "--json", "--concurrency", "1", "--chunk-size", "5MiB"];

/// Starts an upload, and waits for its third chunk.
fn begin(test_server: &TestServer, upload: &mut Command) -> Child {
    let before = test_server.server.stats().chunks_accepted;
    let child = start(upload);
    while test_server.server.stats().chunks_accepted < before + 3 {
        thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Runs an upload and kills it at its third chunk.
fn crashed(test_server: &TestServer, upload: &mut Command) -> CommandOutput {
    let child = begin(test_server, upload);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child)
}

fn left(test_server: &TestServer, sample: &Sample) -> String {
    id(&crashed(test_server, command(test_server, UPLOAD).arg(sample.path())))
}

fn id(ran: &CommandOutput) -> String {
    ran.event("created")["video_id"].as_str().unwrap().to_owned()
}

fn sessions(test_server: &TestServer) -> Vec<Value> {
    let listed = run(&mut command(test_server, &["resume", "--list", "--json"])).done();
    listed.events().into_iter().filter(|event| event["event"] == "session").collect()
}

fn assert_gone(test_server: &TestServer, video_id: &str) {
    run(&mut command(test_server, &["video", "get", video_id])).failed(3, &[video_id]);
}

#[test]
fn an_upload_interrupted_by_a_crash_is_listed_and_continued_from_any_folder() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    let mut upload = command(&test_server, UPLOAD);
    upload.args(["--title", "Summer", "movie.mp4"]).current_dir(sample.path().parent().unwrap());
    let video_id = id(&crashed(&test_server, &mut upload));
    let listed = sessions(&test_server);
    let expected = [
        ("file", Value::from(sample.arg())),
        ("video_id", video_id.as_str().into()),
        ("standing", "left".into()),
        ("resumable", true.into()),
        ("chunks", 6.into()),
        ("stored_chunks", 2.into()),
        ("mode", "bytes".into()),
        ("endpoint_url", test_server.server.url().into()),
    ];
    for (name, value) in expected {
        assert_eq!(listed[0][name], value, "{name}");
    }
    let for_people = run(&mut command(&test_server, &["resume", "--list"])).done().stdout;
    assert!(for_people.contains(sample.arg()) && for_people.contains("2/6"), "{for_people}");
    let ran = run(command(&test_server, &["resume", "--json"]).current_dir("/")).done();
    let resumed = ran.event("resumed");
    assert_eq!((&resumed["video_id"], &resumed["chunks"]), (&video_id.as_str().into(), &3.into()));
    let asked = ran.events().into_iter().filter(|event| event["event"] == "status_asked");
    assert_eq!(asked.map(|event| event["why"].clone()).collect::<Vec<_>>(), ["resume", "completion"]);
    assert_eq!(
        (&ran.summary()["video_id"], &ran.summary()["files_done"]),
        (&video_id.as_str().into(), &1.into())
    );
    test_server.assert_holds(&video_id, &sample.path());
    assert_eq!(
        (test_server.server.stats().videos_created, test_server.server.stats().chunks_accepted),
        (1, 6)
    );
    assert_eq!(sessions(&test_server), [] as [Value; 0]);
    assert_eq!(run(&mut command(&test_server, &["resume"])).done().stdout, "");
}

#[test]
fn a_renamed_file_is_continued() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    // A rename changes ctime, so the chunks must be compared by their digests.
    let video_id =
        id(&crashed(&test_server, command(&test_server, UPLOAD).arg("--checksum").arg(sample.path())));
    let moved = sample.path().with_file_name("it's moved.mp4");
    fs::rename(sample.path(), &moved).unwrap();
    run(&mut command(&test_server, &["resume"]))
        .failed(NO_SUCH_FILE, &[sample.arg(), "ringlift resume FILE"]);
    run(command(&test_server, &["resume"]).arg(&moved)).done();
    test_server.assert_holds(&video_id, &moved);
    assert_eq!(test_server.server.stats().videos_created, 1);
}

#[test]
fn a_running_upload_is_listed_and_not_resumed() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    let child = begin(&test_server, command(&test_server, UPLOAD).arg(sample.path()));
    let listed = sessions(&test_server);
    assert_eq!((&listed[0]["standing"], &listed[0]["pid"]), (&"running".into(), &child.id().into()));
    let skipped = run(&mut command(&test_server, &["resume", "--json"])).done().event("skipped");
    assert_eq!(skipped["file"], sample.arg());
    let pid = format!("process {}", child.id());
    run(&mut command(&test_server, &["resume", sample.arg()])).failed(TEMPORARY, &[sample.arg(), &pid]);
    run(&mut command(&test_server, &["clean", "--yes", "--all"])).done();
    let ran = end(child).done();
    test_server.assert_holds(&id(&ran), &sample.path());
}

#[test]
fn a_delegated_upload_continues_with_its_token_or_another_of_the_account() {
    let test_server = test_server();
    let token = || {
        let created = run(&mut command(&test_server, &["token", "create", "--json"])).done();
        created.event("token")["token"]["token"].as_str().unwrap().to_owned()
    };
    let (ours, other) = (token(), token());
    let sample = Sample::new(30 * MIB);
    let video_id = id(&crashed(&test_server, delegate(&test_server, &ours, UPLOAD).arg(sample.path())));
    let resume = |token: &str| run(&mut delegate(&test_server, token, &["resume", "-vv"]));
    run(&mut command(&test_server, &["resume"])).failed(USAGE, &[sample.arg(), "RINGLIFT_UPLOAD_TOKEN"]);
    let ran = resume(&other).done();
    test_server.assert_holds(&video_id, &sample.path());
    for token in [&ours, &other] {
        assert!(!ran.stdout.contains(token) && !ran.stderr.contains(token), "the token was shown");
    }
    assert_eq!(test_server.server.stats().videos_created, 1);
}

#[test]
fn an_upload_that_cannot_continue_is_reported_with_advice() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    left(&test_server, &sample);
    let resume = |args: &[&str]| run(&mut command(&test_server, &[&["resume", "--json"], args].concat()));
    resume(&["/nowhere"]).failed(NO_SUCH_FILE, &["/nowhere", "no such file"]);
    resume(&[text(&Sample::new(1).path())]).failed(FAILED, &["movie.mp4", "ringlift upload"]);
    let elsewhere = ["--endpoint-url", "http://127.0.0.1:9"];
    assert_eq!(resume(&elsewhere).done().event("skipped")["file"], sample.arg());
    resume(&[elsewhere.as_slice(), &[sample.arg()]].concat())
        .failed(USAGE, &[test_server.server.url(), "--endpoint-url"]);
    run(command(&test_server, &["resume"]).env_remove("APIVIDEO_API_KEY"))
        .failed(USAGE, &[sample.arg(), "API key"]);
    fs::write(sample.path(), "something else").unwrap();
    let ran = resume(&[]).failed(UNSUITED, &[sample.arg(), "ringlift upload", "ringlift clean"]);
    assert_eq!((&ran.summary()["files_failed"], &ran.summary()["exit_code"]), (&1.into(), &UNSUITED.into()));
    assert_eq!(test_server.server.stats().videos_created, 1);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn clean_deletes_failed_uploads_after_confirmation() {
    let test_server = with_fault(refusal());
    let sample = Sample::new(30 * MIB);
    let ran = run(command(&test_server, UPLOAD).arg(sample.path())).failed(FAILED, &[]);
    let video_id = id(&ran);
    assert_eq!(sessions(&test_server)[0]["standing"], "abandoned");
    run(&mut command(&test_server, &["resume", sample.arg()]))
        .failed(FAILED, &[sample.arg(), "ringlift clean"]);
    let refused = run(&mut command(&test_server, &["clean"])).failed(USAGE, &["--yes"]);
    assert!(refused.stdout.contains(&video_id), "{}", refused.stdout);
    run(&mut command(&test_server, &["video", "get", &video_id])).done();
    run(command(&test_server, &["clean", "--yes"]).env_remove("APIVIDEO_API_KEY"))
        .failed(USAGE, &["API key"]);
    let cleaned = run(&mut command(&test_server, &["clean", "--yes", "--json"])).done();
    assert_eq!(cleaned.event("deleted")["video_id"], *video_id);
    assert_gone(&test_server, &video_id);
    assert_eq!(sessions(&test_server), [] as [Value; 0]);
}

#[test]
fn clean_treats_a_missing_video_as_deleted() {
    let test_server = with_fault(refusal());
    let sample = Sample::new(30 * MIB);
    let video_id = id(&run(command(&test_server, UPLOAD).arg(sample.path())).failed(FAILED, &[]));
    run(&mut command(&test_server, &["video", "delete", "--yes", &video_id])).done();
    let cleaned = run(&mut command(&test_server, &["clean", "--yes"])).done();
    assert!(cleaned.stderr.contains("gone already"), "{}", cleaned.stderr);
    assert_eq!(sessions(&test_server), [] as [Value; 0]);
}

#[test]
fn clean_keeps_an_upload_whose_video_cannot_be_deleted() {
    let test_server = with_fault(refusal());
    let sample = Sample::new(30 * MIB);
    let video_id = id(&run(command(&test_server, UPLOAD).arg(sample.path())).failed(FAILED, &[]));
    let mut clean = command(&test_server, &["clean", "--yes"]);
    run(clean.env("APIVIDEO_API_KEY", "wrong")).failed(7, &["ringlift"]);
    assert_eq!(sessions(&test_server)[0]["video_id"], *video_id);
}

#[test]
fn clean_forgets_a_complete_video_without_deleting_it() {
    let test_server = test_server();
    let sample = Sample::new(15 * MIB);
    let video_id = left(&test_server, &sample);
    fs::write(sample.path(), "something else").unwrap();
    let cleaned = run(&mut command(&test_server, &["clean", "--yes"])).done();
    assert!(cleaned.stderr.contains("is complete; keeping it"), "{}", cleaned.stderr);
    assert_eq!(test_server.stored(&video_id).0, 15 * MIB);
    assert_eq!(sessions(&test_server), [] as [Value; 0]);
}

#[test]
fn clean_deletes_resumable_uploads_only_with_all() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    let video_id = left(&test_server, &sample);
    let kept = run(&mut command(&test_server, &["clean", "--yes"])).done();
    assert!(kept.stderr.contains("ringlift resume"), "{}", kept.stderr);
    fs::write(sample.path(), "something else").unwrap();
    let cleaned = run(&mut command(&test_server, &["clean", "--yes", "--json"])).done();
    assert_eq!(cleaned.event("deleted")["video_id"], *video_id);
    let test_server = self::test_server();
    let sample = Sample::new(30 * MIB);
    let video_id = left(&test_server, &sample);
    run(&mut command(&test_server, &["clean", "--yes", "--all"])).done();
    assert_gone(&test_server, &video_id);
}

#[test]
fn without_a_journal_there_is_nothing_to_do_and_none_is_created() {
    let test_server = test_server();
    for args in [["resume", "--list"].as_slice(), &["resume"], &["clean"], &["clean", "--yes"]] {
        run(&mut command(&test_server, args)).done();
    }
    assert!(!test_server.folder.path().join("ringlift").exists());
    let foreign: PathBuf = test_server.folder.path().join("letter");
    fs::write(&foreign, "Dear reader").unwrap();
    for name in ["resume", "clean"] {
        run(&mut command(&test_server, &[name, "--journal", text(&foreign)]))
            .failed(FAILED, &[text(&foreign)]);
    }
}

#[test]
fn an_interrupted_upload_prints_the_command_that_continues_it() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    let journal = test_server.folder.path().join("a journal.db");
    let mut upload = command(&test_server, UPLOAD);
    upload.args(["--grace", "0s", "--journal"]).arg(&journal).arg(sample.path());
    let child = begin(&test_server, &mut upload);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = end(child).failed(130, &[]);
    assert_eq!(ran.event("file_failed")["resumable"], true);
    let said = ran.stderr.split("or `").find(|text| text.starts_with("ringlift resume")).expect(&ran.stderr);
    let said = said.split('`').next().unwrap();
    assert!(said.contains(&format!("--journal '{}'", journal.display())), "{said}");
    let mut shell = Command::new("sh");
    let as_said = said.replacen("ringlift", env!("CARGO_BIN_EXE_ringlift"), 1);
    shell.env("APIVIDEO_API_KEY", test_server.server.api_key()).arg("-c").arg(as_said);
    run(&mut shell).done();
    test_server.assert_holds(&id(&ran), &sample.path());
}

#[test]
fn a_command_interrupted_during_wait_waits_again_and_sends_nothing() {
    for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(130))] {
        let stall = Fault::new(RouteClass::Status, FaultAction::StallAnswering { for_ms: 3000 });
        let test_server = TestServer::with(Scheme::Http, |settings| settings.faults = vec![stall].into());
        let sample = Sample::new(12 * MIB);
        let mut upload = command(&test_server, UPLOAD);
        let child = start(upload.args(["--wait", "playable"]).arg(sample.path()));
        while !test_server.server.stats().requests.contains_key(&RouteClass::Status) {
            thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = end(child);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(code.is_none() || ended.event("file_failed")["resumable"] == true, "{ended:?}");
        let ran = run(&mut upload).done();
        assert_eq!(ran.event("file_done")["video_id"], *id(&ended));
        assert_eq!(
            (test_server.server.stats().videos_created, test_server.server.stats().chunks_accepted),
            (1, 3)
        );
        assert_eq!(sessions(&test_server), [] as [Value; 0]);
    }
}

#[test]
fn only_if_begun_never_starts_an_upload() {
    let test_server = test_server();
    let journal = test_server.folder.path().join("journal.db");
    let client =
        test_server.client().with(|settings| settings.journal = Some(journal.clone())).build().unwrap();
    let sample = Sample::new(MIB);
    let error = client.upload(sample.path()).only_if_begun().send_blocking().unwrap_err();
    assert_eq!(error.kind(), ringlift::ErrorKind::Journal);
    assert_eq!(test_server.server.stats().videos_created, 0);
    assert_eq!(ringlift::journal::Journal::open(&journal).unwrap().entries().unwrap(), []);
}

/// Returns the id of the only video.
fn only_video(test_server: &TestServer) -> String {
    let listed = run(&mut command(test_server, &["video", "list", "--json"])).done();
    listed.event("video")["video"]["videoId"].as_str().unwrap().to_owned()
}

#[test]
fn a_video_whose_creation_was_interrupted_is_found_by_its_marker() {
    let stall = FaultAction::StallAnswering { for_ms: 5000 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Create, stall)]);
    let sample = Sample::new(MIB);
    let child = start(command(&test_server, UPLOAD).arg(sample.path()));
    while test_server.server.stats().videos_created < 1 {
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
    let video_id = only_video(&test_server);
    let kept = run(&mut command(&test_server, &["clean", "--yes"])).done();
    assert!(kept.stderr.contains("ringlift resume"), "{}", kept.stderr);
    fs::write(sample.path(), "something else").unwrap();
    let asked = run(&mut command(&test_server, &["clean"])).failed(USAGE, &["--yes"]);
    assert!(asked.stdout.contains(&video_id), "{}", asked.stdout);
    let blind = run(command(&test_server, &["clean", "--yes"]).env("APIVIDEO_API_KEY", "wrong"));
    blind.failed(7, &["API key"]);
    let cleaned = run(&mut command(&test_server, &["clean", "--yes", "--json"])).done();
    assert_eq!(cleaned.event("deleted")["video_id"], *video_id);
    assert_gone(&test_server, &video_id);
    assert_eq!(sessions(&test_server), [] as [Value; 0]);
}

#[test]
fn clean_deletes_a_lost_creation_and_searches_once_for_one_that_never_happened() {
    for (lost, videos) in [(FaultAction::CloseAfterRecording, 1), (FaultAction::CloseBeforeRecording, 0)] {
        let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Create, lost)]);
        let sample = Sample::new(MIB);
        let mut upload = command(&test_server, UPLOAD);
        run(upload.args(["--retries", "0"]).arg(sample.path())).failed(TEMPORARY, &["create the video"]);
        assert_eq!(test_server.server.stats().videos_created, videos);
        let cleaned = run(&mut command(&test_server, &["clean", "--yes", "--all", "--json"])).done();
        let deleted = cleaned.events().iter().filter(|event| event["event"] == "deleted").count();
        assert_eq!(deleted as u64, videos, "{cleaned:?}");
        cleaned.event("forgotten");
        assert_eq!(sessions(&test_server), [] as [Value; 0]);
    }
}

#[test]
fn a_delegated_upload_killed_at_its_first_chunk_warns_of_a_stray_video() {
    let token = |test_server: &TestServer| test_server.upload_token();
    let sample = Sample::new(MIB);
    let upload = |test_server: &TestServer, token: &str| {
        let mut command = delegate(test_server, token, &["upload", "--json", "--retries", "0"]);
        run(command.arg(sample.path()))
    };
    let strays =
        |ran: &CommandOutput| ran.events().iter().filter(|event| event["event"] == "stray_video").count();

    let test_server = TestServer::faulty(
        Scheme::Http,
        vec![Fault::new(RouteClass::Chunk, FaultAction::CloseAfterRecording)],
    );
    let ours = token(&test_server);
    let died = upload(&test_server, &ours)
        .failed(TEMPORARY, &["WARN movie.mp4: the answer to the first chunk was lost"]);
    assert_eq!(strays(&died), 1, "{died:?}");
    let resumed = run(&mut delegate(&test_server, &ours, &["resume", "--json"])).done();
    assert_eq!(strays(&resumed), 1, "{resumed:?}");
    let advice = resumed.event("stray_video")["advice"].to_string();
    assert!(advice.contains("title") && advice.contains("delete"), "{advice}");

    let test_server =
        TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, FaultAction::unavailable())]);
    let ours = token(&test_server);
    let refused = upload(&test_server, &ours).failed(TEMPORARY, &["503"]);
    // The refused upload created nothing, and so left nothing to resume.
    let resumed = run(&mut delegate(&test_server, &ours, &["resume", "--json"])).done();
    assert!(resumed.stderr.contains("nothing to resume"), "{resumed:?}");
    let repeated = upload(&test_server, &ours).done();
    assert_eq!((strays(&refused), strays(&repeated)), (0, 0), "{refused:?} {repeated:?}");
    assert_eq!(test_server.server.stats().videos_created, 1);
}

#[test]
fn resume_and_clean_use_the_journal_of_the_upload_settings() {
    let test_server = test_server();
    let sample = Sample::new(30 * MIB);
    let (journal, config) =
        (test_server.folder.path().join("own.db"), test_server.folder.path().join("config.toml"));
    fs::write(&config, format!("[upload]\njournal = {:?}\n", text(&journal))).unwrap();
    let with_config = |args: &[&str]| command(&test_server, &[args, &["--config", text(&config)]].concat());
    let video_id = id(&crashed(&test_server, with_config(UPLOAD).arg(sample.path())));
    assert!(journal.exists());
    let listed = run(&mut with_config(&["resume", "--list", "--json"])).done();
    assert_eq!(listed.event("session")["video_id"], *video_id);
    let kept = run(&mut with_config(&["clean", "--yes"])).done();
    assert!(kept.stderr.contains("kept"), "{}", kept.stderr);
    run(&mut with_config(&["resume"])).done();
    test_server.assert_holds(&video_id, &sample.path());
}
