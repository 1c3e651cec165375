//! The place of the journal: behind a link, nowhere, on limited file systems; other spellings of the endpoint; and
//! the upload tokens that may continue an upload.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RouteClass};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{CommandOutput, Restriction, end, ringlift, ringlift_for_any_user, run, start};
use crate::support::{MIB, Sample, Scheme, TestServer};

const UPLOAD: &[&str] = &["upload", "--json", "--concurrency", "1", "--chunk-size", "5MiB"];

/// Starts a server that delays the answer to the third chunk.
fn test_server() -> TestServer {
    let fault = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).nth(3);
    TestServer::faulty(Scheme::Http, vec![fault])
}

fn command(test_server: &TestServer, args: &[&str]) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).args(args);
    command
}

/// Runs a command as a user that owns nothing here and has no home.
fn run_as_other_user(test_server: &TestServer, configure: impl FnOnce(&mut Command)) -> CommandOutput {
    let (_binary, mut command) = ringlift_for_any_user();
    configure(test_server.configure(&mut command).uid(61_234).gid(61_234));
    run(&mut command)
}

fn begin(test_server: &TestServer, upload: &mut Command) -> Child {
    let child = start(upload);
    while test_server.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(10));
    }
    child
}

fn kill(child: Child) -> CommandOutput {
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child)
}

#[test]
fn a_running_upload_is_locked_for_processes_that_use_a_link_to_its_journal() {
    let test_server = test_server();
    let (sample, link) = (Sample::new(20 * MIB), test_server.folder.path().join("link.db"));
    let child = begin(&test_server, command(&test_server, UPLOAD).arg(sample.path()));
    symlink(test_server.journal(), &link).unwrap();
    let linked = |args: &[&str]| run(command(&test_server, args).arg("--journal").arg(&link));
    assert_eq!(linked(&["resume", "--list", "--json"]).done().event("session")["standing"], "running");
    linked(&["clean", "--yes", "--all"]).done();
    let upload = linked(&[UPLOAD, &[sample.arg()]].concat());
    upload.failed(5, &[&format!("process {}", child.id())]);
    let ran = end(child).done();
    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
}

#[test]
fn another_spelling_of_the_endpoint_continues_the_same_upload() {
    let test_server = test_server();
    let sample = Sample::new(20 * MIB);
    kill(begin(&test_server, command(&test_server, UPLOAD).arg(sample.path())));
    // The spelling that an earlier version stored.
    let other = format!("{}/", test_server.server.url().replace("http", "HTTP"));
    let listed = run(&mut command(&test_server, &["resume", "--list", "--json"])).done();
    assert_eq!(listed.event("session")["standing"], "left");
    let ran = run(command(&test_server, UPLOAD).args(["--endpoint-url", &other]).arg(sample.path())).done();
    ran.event("resumed");
    test_server.assert_created(1);
}

#[test]
fn a_user_without_a_home_gets_a_warning_that_no_journal_is_kept() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be a user without a home");
    }
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let film = folder.path().join("film.mp4");
    fs::write(&film, "a film").unwrap();
    let homeless = |more: &[&str], services: Option<&str>| {
        run_as_other_user(&test_server, |command| {
            command.arg("upload").arg(&film).args(more).env_remove("XDG_STATE_HOME");
            command.envs(services.map(|services| ("STATE_DIRECTORY", services)));
        })
    };
    let ran = homeless(&[], None).done();
    assert_eq!(ran.stderr.matches("no journal is kept").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("--journal FILE"), "{}", ran.stderr);
    assert!(!homeless(&["--no-journal"], None).done().stderr.contains("no journal is kept"));
    let services = format!("{0}:/nowhere", folder.path().display());
    let ran = homeless(&[], Some(&services)).done();
    assert!(!ran.stderr.contains("no journal is kept"), "{}", ran.stderr);
    assert!(folder.path().join("ringlift/journal.db").exists());
}

#[test]
fn several_processes_use_a_journal_without_shared_memory() {
    let test_server = test_server();
    let (sample, other) = (Sample::new(20 * MIB), Sample::new(6 * MIB));
    // A write-ahead log, left by a process that could share memory.
    kill(begin(&test_server, command(&test_server, UPLOAD).arg(sample.path())));
    let here = |args: &[&str]| {
        Restriction::SharedMaps.run(|command| {
            test_server.configure(command).args(args);
        })
    };
    assert_eq!(here(&["resume", "--list", "--json"]).done().event("session")["standing"], "left");
    thread::scope(|scope| {
        let both = [&sample, &other].map(|file| {
            let here = &here;
            scope.spawn(move || here(&[UPLOAD, &[file.arg()]].concat()).done())
        });
        for (file, ran) in [&sample, &other].into_iter().zip(both) {
            let ran = ran.join().unwrap();
            test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &file.path());
        }
    });
    test_server.assert_created(2);
}

#[test]
fn a_read_only_journal_can_be_listed() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be another user");
    }
    let test_server = test_server();
    let sample = Sample::new(20 * MIB);
    kill(begin(&test_server, command(&test_server, UPLOAD).arg(sample.path())));
    let folder = test_server.journal().parent().unwrap().to_owned();
    let locks = folder.join("journal.db.locks");
    for log in ["with a log", "without one"] {
        for (folder, mode) in [(test_server.folder.path(), 0o555), (&folder, 0o555), (&locks, 0o555)] {
            for file in
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_file())
            {
                fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        let list = ["resume", "--list", "--json"];
        let ran = run_as_other_user(&test_server, |command| {
            command.args(list);
        });
        let ran = ran.done();
        assert_eq!(ran.event("session")["standing"], "left", "{log}");
        assert_eq!(ran.event("session")["stored_chunks"], 2, "{log}");
        // A process with write access merges the log into the database.
        run(&mut command(&test_server, &["resume", "--list"])).done();
    }
}

/// The files that a run with sudo leaves belong to the user.
#[test]
fn root_creates_a_journal_for_the_owner_of_its_folder() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this is not root");
    }
    let test_server = TestServer::new(Scheme::Http);
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(61_234), Some(61_234)).unwrap();
    let film = home.path().join("film.mp4");
    fs::write(&film, "a film").unwrap();
    chown(&film, Some(61_234), Some(61_234)).unwrap();
    let state = home.path().join("state");
    run(command(&test_server, &["upload"]).arg(&film).env("XDG_STATE_HOME", &state)).done();
    let upload = |command: &mut Command| {
        command.arg("upload").arg(&film).env("XDG_STATE_HOME", &state);
    };
    run_as_other_user(&test_server, upload).done();
}

// Upload tokens.

/// Returns the same command with this token and without the API key.
fn delegated(test_server: &TestServer, token: &str, sample: &Sample) -> Command {
    let mut upload = command(test_server, UPLOAD);
    upload.arg(sample.path()).env_remove("APIVIDEO_API_KEY").env("RINGLIFT_UPLOAD_TOKEN", token);
    upload
}

#[test]
fn a_new_upload_token_continues_the_video_of_the_old_one() {
    let test_server = test_server();
    let sample = Sample::new(20 * MIB);
    let (old, new) = (test_server.upload_token(), test_server.upload_token());
    kill(begin(&test_server, &mut delegated(&test_server, &old, &sample)));
    let ran = run(&mut delegated(&test_server, &new, &sample)).done();
    assert!(ran.event("resumed")["chunks"].as_u64().unwrap() >= 2, "{ran:?}");
    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    test_server.assert_created(1);
}

#[test]
fn a_token_without_access_to_the_video_starts_again_and_keeps_the_old_session() {
    let test_server = test_server();
    let sample = Sample::new(20 * MIB);
    let (old, new) = (test_server.upload_token(), test_server.upload_token());
    let begun = kill(begin(&test_server, &mut delegated(&test_server, &old, &sample)));
    let video_id = begun.event("created")["video_id"].as_str().unwrap().to_owned();
    // To the service, a video of another account is none.
    run(&mut command(&test_server, &["video", "delete", "--yes", &video_id])).done();
    let ran = run(&mut delegated(&test_server, &new, &sample)).done();
    assert!(ran.stderr.contains("does not let this upload token go on"), "{}", ran.stderr);
    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    test_server.assert_created(2);
    let left = run(&mut command(&test_server, &["resume", "--list", "--json"])).done().event("session");
    assert_eq!((&left["video_id"], &left["standing"]), (&video_id.into(), &"left".into()));
}
