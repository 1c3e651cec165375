//! Where the journal is: behind a link, nowhere, on file systems that lack something, at another spelling of the
//! service; and which upload token goes on.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, RouteClass};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{Ran, Want, end, ringlift, run, start};
use crate::support::{House, MIB, Sample, Scheme};

const UPLOAD: &[&str] = &["upload", "--json", "--concurrency", "1", "--chunk-size", "5MiB"];

/// A house that answers the third chunk late.
fn house() -> House {
    let fault = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).nth(3);
    House::faulty(Scheme::Http, vec![fault])
}

fn command(house: &House, args: &[&str]) -> Command {
    let mut command = ringlift();
    house.host(&mut command).args(args);
    command
}

fn begin(house: &House, upload: &mut Command) -> Child {
    let child = start(upload);
    while house.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(10));
    }
    child
}

fn kill(child: Child) -> Ran {
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child)
}

#[test]
fn an_upload_under_way_is_left_alone_by_who_reaches_its_journal_through_a_link() {
    let house = house();
    let (sample, link) = (Sample::new(20 * MIB), house.folder.path().join("link.db"));
    let child = begin(&house, command(&house, UPLOAD).arg(sample.path()));
    symlink(house.journal(), &link).unwrap();
    let linked = |args: &[&str]| run(command(&house, args).arg("--journal").arg(&link));
    assert_eq!(linked(&["resume", "--list", "--json"]).done().event("session")["standing"], "running");
    linked(&["clean", "--yes", "--all"]).done();
    let upload = linked(&[UPLOAD, &[sample.arg()]].concat());
    upload.failed(5, &[&format!("process {}", child.id())]);
    let ran = end(child).done();
    house.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
}

#[test]
fn another_spelling_of_the_endpoint_goes_on_with_the_same_upload() {
    let house = house();
    let sample = Sample::new(20 * MIB);
    kill(begin(&house, command(&house, UPLOAD).arg(sample.path())));
    // As an earlier version wrote it down.
    let other = format!("{}/", house.server.url().replace("http", "HTTP"));
    let listed = run(&mut command(&house, &["resume", "--list", "--json"])).done();
    assert_eq!(listed.event("session")["standing"], "left");
    let ran = run(command(&house, UPLOAD).args(["--endpoint-url", &other]).arg(sample.path())).done();
    ran.event("resumed");
    house.assert_created(1);
}

#[test]
fn a_user_without_a_home_is_told_that_no_journal_is_kept() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be a user without a home");
    }
    let house = House::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let film = folder.path().join("film.mp4");
    fs::write(&film, "a film").unwrap();
    let homeless = |more: &[&str]| {
        let mut upload = command(&house, &["upload"]);
        upload.arg(&film).args(more).env_remove("XDG_STATE_HOME").uid(61_234).gid(61_234);
        upload
    };
    let ran = run(&mut homeless(&[])).done();
    assert_eq!(ran.stderr.matches("no journal is kept").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("--journal FILE"), "{}", ran.stderr);
    assert!(!run(&mut homeless(&["--no-journal"])).done().stderr.contains("no journal is kept"));
    let services = format!("{0}:/nowhere", folder.path().display());
    let ran = run(homeless(&[]).env("STATE_DIRECTORY", services)).done();
    assert!(!ran.stderr.contains("no journal is kept"), "{}", ran.stderr);
    assert!(folder.path().join("ringlift/journal.db").exists());
}

#[test]
fn a_journal_without_shared_memory_is_kept_by_several_processes() {
    let house = house();
    let (sample, other) = (Sample::new(20 * MIB), Sample::new(6 * MIB));
    // With a log, as a process left it where memory could be shared.
    kill(begin(&house, command(&house, UPLOAD).arg(sample.path())));
    let here = |args: &[&str]| {
        Want::SharedMaps.run(|command| {
            house.host(command).args(args);
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
            house.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &file.path());
        }
    });
    house.assert_created(2);
}

#[test]
fn a_journal_that_cannot_be_written_is_listed() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can be another user");
    }
    let house = house();
    let sample = Sample::new(20 * MIB);
    kill(begin(&house, command(&house, UPLOAD).arg(sample.path())));
    let folder = house.journal().parent().unwrap().to_owned();
    let locks = folder.join("journal.db.locks");
    for log in ["with a log", "without one"] {
        for (folder, mode) in [(house.folder.path(), 0o555), (&folder, 0o555), (&locks, 0o555)] {
            for file in
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_file())
            {
                fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
            }
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        let ran = run(command(&house, &["resume", "--list", "--json"]).uid(61_234).gid(61_234)).done();
        assert_eq!(ran.event("session")["standing"], "left", "{log}");
        assert_eq!(ran.event("session")["stored_chunks"], 2, "{log}");
        // Who may write takes the log into the database.
        run(&mut command(&house, &["resume", "--list"])).done();
    }
}

/// What a run with sudo leaves is the user's.
#[test]
fn root_makes_a_journal_for_the_owner_of_its_folder() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this is not root");
    }
    let house = House::new(Scheme::Http);
    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(61_234), Some(61_234)).unwrap();
    let film = home.path().join("film.mp4");
    fs::write(&film, "a film").unwrap();
    chown(&film, Some(61_234), Some(61_234)).unwrap();
    let upload = || {
        let mut upload = command(&house, &["upload"]);
        upload.arg(&film).env("XDG_STATE_HOME", home.path().join("state"));
        upload
    };
    run(&mut upload()).done();
    run(upload().uid(61_234).gid(61_234)).done();
}

// Upload tokens.

/// The same command, by somebody with this token and without the key.
fn delegated(house: &House, token: &str, sample: &Sample) -> Command {
    let mut upload = command(house, UPLOAD);
    upload.arg(sample.path()).env_remove("APIVIDEO_API_KEY").env("RINGLIFT_UPLOAD_TOKEN", token);
    upload
}

#[test]
fn a_new_upload_token_goes_on_with_the_video_of_the_old_one() {
    let house = house();
    let sample = Sample::new(20 * MIB);
    let (old, new) = (house.upload_token(), house.upload_token());
    kill(begin(&house, &mut delegated(&house, &old, &sample)));
    let ran = run(&mut delegated(&house, &new, &sample)).done();
    assert!(ran.event("resumed")["chunks"].as_u64().unwrap() >= 2, "{ran:?}");
    house.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    house.assert_created(1);
}

#[test]
fn a_token_that_the_service_refuses_for_that_video_begins_anew_and_leaves_the_old_one_its_own() {
    let house = house();
    let sample = Sample::new(20 * MIB);
    let (old, new) = (house.upload_token(), house.upload_token());
    let begun = kill(begin(&house, &mut delegated(&house, &old, &sample)));
    let video_id = begun.event("created")["video_id"].as_str().unwrap().to_owned();
    // To the service, a video of another account is none.
    run(&mut command(&house, &["video", "delete", &video_id])).done();
    let ran = run(&mut delegated(&house, &new, &sample)).done();
    assert!(ran.stderr.contains("does not let this upload token go on"), "{}", ran.stderr);
    house.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    house.assert_created(2);
    let left = run(&mut command(&house, &["resume", "--list", "--json"])).done().event("session");
    assert_eq!((&left["video_id"], &left["standing"]), (&video_id.into(), &"left".into()));
}
