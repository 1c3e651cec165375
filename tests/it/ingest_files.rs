//! Bulk ingestion of files, stores and reports that change, vanish, or have no room.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use ringlift::journal::Journal;
use ringlift::server::{Fault, FaultAction, RouteClass};
use rusqlite::Connection;
use serde_json::Value;

use crate::support::command::{CommandOutput, end, ringlift, ringlift_apart, start};
use crate::support::queue::{folder, jobs, wait_until};
use crate::support::{MIB, Scheme, TestServer, each_in_parallel};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(server: &TestServer, args: &[&str]) -> CommandOutput {
    server.run([&["ingest", "--json"], args].concat())
}

/// A run that has submitted these files and uploads none before its input ends.
fn submitted(server: &TestServer, files: &[&Path], args: &[&str]) -> (Child, ChildStdin) {
    let mut command = ringlift();
    command.args(["ingest", "--json", "--files-from", "-", "--order-by", "name"]).args(args);
    let mut child = start(server.configure(command.stdin(Stdio::piped())));
    let mut stdin = child.stdin.take().unwrap();
    files.iter().for_each(|file| writeln!(stdin, "{}", text(file)).unwrap());
    wait_until(|| jobs(server, &[]).len() == files.len());
    (child, stdin)
}

/// Returns the values of a column of a report.
fn column(report: &Path, name: &str) -> Vec<Value> {
    let rows = fs::read_to_string(report).unwrap();
    rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()[name].clone()).collect()
}

#[test]
fn a_file_that_vanishes_changes_or_becomes_another_kind_fails_alone() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(4));
    let path = |index: usize| films.path().join(format!("clip{index:03}.mp4"));
    let report = films.path().join("report.jsonl");
    let files: Vec<_> = (0..4).map(path).collect();
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let (child, stdin) = submitted(&server, &files, &["--report", text(&report)]);
    fs::remove_file(path(0)).unwrap();
    fs::write(path(1), "other content of another length").unwrap();
    fs::remove_file(path(2)).unwrap();
    fs::create_dir(path(2)).unwrap();
    drop(stdin);
    let output = end(child).failed(1, &["clip000.mp4", "clip001.mp4: has changed", "clip002.mp4"]);
    assert_eq!((&output.summary()["files_done"], &output.summary()["files_failed"]), (&1.into(), &3.into()));
    let mut kinds: Vec<_> =
        column(&report, "error_kind").into_iter().filter(|kind| !kind.is_null()).collect();
    kinds.sort_by_key(ToString::to_string);
    assert_eq!(kinds, ["no_such_file", "source_changed", "source_unreadable"]);
    server.assert_created(1);
}

#[test]
fn a_folder_that_is_away_is_waited_for_by_the_next_run() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(0));
    let (mount, away) = (films.path().join("mount"), films.path().join("away"));
    fs::create_dir(&mount).unwrap();
    fs::write(mount.join("clip.mp4"), "clip").unwrap();
    let (child, stdin) = submitted(&server, &[&mount.join("clip.mp4")], &[]);
    fs::rename(&mount, &away).unwrap();
    drop(stdin);
    end(child).failed(5, &["waits for another attempt"]);
    fs::rename(&away, &mount).unwrap();
    // At once, though the job rests.
    let output = run(&server, &[text(&mount)]).done();
    assert_eq!(output.summary()["files_done"], 1);
}

#[test]
fn a_file_that_changes_while_it_is_sent_fails_and_is_a_new_job_in_the_next_run() {
    let slow = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 700 }).times(0);
    let (server, films) = (TestServer::faulty(Scheme::Http, vec![slow]), folder(0));
    let film = films.path().join("film.mp4");
    fs::write(&film, vec![1; 11 * MIB as usize]).unwrap();
    let args = ["--chunk-size", "5M", "--transfers", "1", "-c", "1", text(&film)];
    let mut command = ringlift();
    let child = start(server.configure(command.args(["ingest", "--json"]).args(args)));
    wait_until(|| !server.chunk_requests().is_empty());
    fs::write(&film, vec![2; 11 * MIB as usize]).unwrap();
    let output = end(child).failed(1, &["film.mp4"]);
    assert_eq!(output.event("file_failed")["error"]["kind"], "source_changed");
    let output = run(&server, &args).done();
    server.assert_holds(output.event("file_done")["video_id"].as_str().unwrap(), &film);
}

#[test]
fn two_processes_that_move_their_files_leave_none_and_fail_none() {
    let (server, films, done) = (TestServer::new(Scheme::Http), folder(60), folder(0));
    let after = format!("move:{}", text(done.path()));
    let begin = || {
        let mut command = ringlift();
        start(server.configure(command.args(["ingest", "--json", "--after", &after, text(films.path())])))
    };
    let (one, other) = (begin(), begin());
    end(one).done();
    end(other).done();
    assert_eq!(fs::read_dir(films.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(done.path()).unwrap().count(), 60);
    server.assert_created(60);
}

// Stores.

#[test]
fn a_store_of_another_version_or_program_is_left_as_it_is() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let queue = films.path().join("jobs.db");
    let args = ["--queue", text(&queue), text(films.path())];
    run(&server, &args).done();
    let sent = server.server.requests().len();
    let newer = Connection::open(&queue).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    run(&server, &args).failed(1, &["another version of ringlift", "format 99"]);
    fs::write(&queue, "no database at all").unwrap();
    run(&server, &args).failed(1, &["is not a ringlift job store"]);
    assert_eq!(fs::read_to_string(&queue).unwrap(), "no database at all");
    assert_eq!(server.server.requests().len(), sent);
}

/// Takes the write lock of a journal as a process does that was stopped in a transaction, until the return is dropped.
fn locked_journal(path: &Path) -> Connection {
    drop(Journal::open(path).unwrap());
    let holder = Connection::open(path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    holder
}

#[test]
fn a_journal_that_is_locked_is_a_temporary_failure_and_costs_a_job_no_attempt() {
    let (server, films, state) = (TestServer::new(Scheme::Http), folder(2), folder(0));
    let (queue, clip) = (state.path().join("jobs.db"), films.path().join("clip000.mp4"));
    let ingest = ["ingest", "--json", "--queue", text(&queue), text(films.path())];
    let upload = ["upload", "--json", text(&clip)];
    let commands = [&upload[..], &ingest];
    let locks = [server.journal(), state.path().join("jobs.journal.db")].map(|path| locked_journal(&path));
    // At the same time, because each of them waits for the lock.
    let [upload, ingest] = commands.map(|args| start(server.configure(ringlift().args(args)))).map(end);
    let upload = upload.failed(5, &["journal.db was locked by another process for", "try again"]);
    let error = &upload.event("file_failed")["error"];
    assert_eq!((&error["kind"], &error["temporary"]), (&"busy".into(), &true.into()), "{error}");
    ingest.failed(5, &["jobs.journal.db was locked by another process for", "wait for another attempt"]);
    let count = "SELECT sum(json_extract(record, '$.attempts_without_progress')) FROM jobs";
    let attempts: Option<i64> =
        Connection::open(&queue).unwrap().query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!((attempts.unwrap_or(0), server.server.stats().videos_created), (0, 0));
    // The reason is with the job, too.
    let on_queue = |args: &[&str]| server.run([args, &["--queue", text(&queue)]].concat()).done();
    let listed = on_queue(&["jobs", "list", "--json", "--state", "queued"]).events();
    let id = listed[0]["id"].as_str().unwrap();
    let shown = on_queue(&["jobs", "show", id]).stdout;
    let has_reason =
        |name: &str, text: &str| shown.lines().any(|line| line.starts_with(name) && line.contains(text));
    assert!(has_reason("reason", "jobs.journal.db was locked by another process"), "{shown}");
    assert!(has_reason("next try", "T") && has_reason("advice", "fuser"), "{shown}");
    let event = on_queue(&["jobs", "show", "--json", id]).event("job");
    assert_eq!((&event["error_kind"], event["not_before"].is_string()), (&"busy".into(), true), "{event}");
    drop(locks);
    for args in commands {
        server.run(args).done();
    }
    server.assert_created(3);
}

/// Returns the command that runs after a file system of 1 MiB was mounted, of which all but `kib` KiB are taken.
fn on_small_disk(at: &Path, kib: u32) -> Option<Command> {
    let at = at.display();
    let before = format!(
        "mount -t tmpfs -o size=1m none {at} && head -c $(((1024 - {kib}) * 1024)) /dev/zero > {at}/full"
    );
    ringlift_apart(&["--mount", "--map-root-user"], &before)
}

#[test]
fn a_store_that_cannot_be_written_is_reported_before_any_request() {
    let (server, films, disk) = (TestServer::new(Scheme::Http), folder(2), folder(0));
    let at = disk.path().display();
    let before = format!("mount -t tmpfs none {at} && mount -o remount,ro {at}");
    let Some(mut command) = ringlift_apart(&["--mount", "--map-root-user"], &before) else {
        return eprintln!("skipped: no mounts here");
    };
    let queue = disk.path().join("jobs.db");
    command.args(["ingest", "--json", "--queue", text(&queue), text(films.path())]);
    end(start(server.configure(&mut command))).failed(1, &["jobs.db"]);
    assert!(server.server.requests().is_empty());
}

#[test]
fn a_disk_without_room_for_the_store_or_the_report_never_doubles_a_video() {
    each_in_parallel(
        [("--queue", 0), ("--queue", 40), ("--queue", 120), ("--report", 0), ("--report", 8)],
        |(flag, kib)| {
            let (server, films, disk) = (TestServer::new(Scheme::Http), folder(150), folder(0));
            let file = disk.path().join(if flag == "--queue" { "jobs.db" } else { "report.jsonl" });
            let Some(mut command) = on_small_disk(disk.path(), kib) else {
                return eprintln!("skipped: no mounts here");
            };
            command.args(["ingest", "--json", flag, text(&file), text(films.path())]);
            let output = end(start(server.configure(&mut command)));
            assert!(matches!(output.code, Some(0 | 1)), "{flag} {kib}: {output:?}");
            if output.code == Some(1) {
                assert!(output.stderr.contains("space"), "{flag} {kib}: {}", output.stderr);
                assert_eq!(output.summary()["files_failed"], 0, "{flag} {kib}");
            }
            let videos = server.server.stats().videos_created;
            assert!(videos <= 150, "{flag} {kib}: {videos}");
            if flag == "--report" {
                run(&server, &[text(films.path())]).done();
                server.assert_created(150);
            }
        },
    );
}

/// Both names have the lock of the same file in the journal: the second one waits for the first.
#[test]
fn hard_links_are_uploaded_one_after_the_other_in_one_run() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let first = fs::read_dir(films.path()).unwrap().next().unwrap().unwrap().path();
    (0..3).for_each(|number| fs::hard_link(&first, films.path().join(format!("link{number}.mp4"))).unwrap());
    let output = run(&server, &[text(films.path())]).done();
    assert_eq!(output.summary()["files_done"], 4, "{output:?}");
    let waits = output.stderr.matches("is already uploading this file").count();
    assert!(waits <= 3, "each name waits with one line at most: {}", output.stderr);
    run(&server, &[text(films.path())]).done();
    server.assert_created(4);
}

// Reports.

#[test]
fn a_report_with_a_torn_last_line_is_continued_and_read() {
    for name in ["report.jsonl", "report.csv"] {
        let (server, films) = (TestServer::new(Scheme::Http), folder(3));
        let report = films.path().join(name);
        run(&server, &["--report", text(&report), text(films.path())]).done();
        let whole = fs::read(&report).unwrap();
        let torn = [&whole[..], &whole[whole.len() - 90..whole.len() - 20]].concat();
        fs::write(&report, torn).unwrap();
        run(&server, &["--manifest", text(&report), "--retry", "all"]).done();
        run(&server, &["--report", text(&report), text(films.path())]).done();
        let rows = fs::read_to_string(&report).unwrap();
        let header = usize::from(name.ends_with(".csv"));
        assert_eq!((rows.lines().count(), rows.matches("skipped").count()), (6 + header, 3), "{rows}");
        server.assert_created(3);
    }
}

/// A program can write into a file and set its time back.
#[test]
fn a_file_with_other_content_and_the_old_time_is_not_deleted_by_a_later_run() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    run(&server, &[text(films.path())]).done();
    let changed = films.path().join("clip000.mp4");
    let (len, modified) = {
        let metadata = fs::metadata(&changed).unwrap();
        (metadata.len() as usize, metadata.modified().unwrap())
    };
    fs::write(&changed, vec![0; len]).unwrap();
    fs::File::options().write(true).open(&changed).unwrap().set_modified(modified).unwrap();
    let output = run(&server, &["--after", "delete", text(films.path())]);
    assert!(output.stderr.contains("clip000.mp4: was changed after its upload"), "{}", output.stderr);
    assert!(changed.exists() && !films.path().join("clip001.mp4").exists());
}
