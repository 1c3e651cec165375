//! `ringlift ingest --watch` with real folders, the local server and the service manager's socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{CommandOutput, Watched, end, ringlift, ringlift_apart, run, start};
use crate::support::queue::{folder, wait_until};
use crate::support::{MIB, Scheme, TestServer};

/// Longer than any of these runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn start_watch(server: &TestServer, folder: &Path, args: &[&str]) -> Watched {
    Watched::of(server.configure(&mut watch(folder, args)))
}

fn watch(folder: &Path, args: &[&str]) -> Command {
    watch_by(ringlift(), folder, args)
}

fn watch_by(mut command: Command, folder: &Path, args: &[&str]) -> Command {
    command.env("RINGLIFT_SETTLE", "50ms").args(["ingest", "--json", "--watch"]).args(args).arg(folder);
    command
}

fn count(output: &CommandOutput, name: &str) -> usize {
    output.events().iter().filter(|event| event["event"] == name).count()
}

/// Moves a file with this content into the folder.
fn move_in(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let outside = tempfile::NamedTempFile::new_in(folder.path().parent().unwrap()).unwrap();
    fs::write(outside.path(), content).unwrap();
    let path = folder.path().join(name);
    outside.persist(&path).unwrap();
    path
}

#[test]
fn files_that_arrive_are_uploaded_once_whatever_restarts() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    fs::write(films.path().join("there.mp4"), "there").unwrap();
    let mut first = start_watch(&server, films.path(), &[]);
    first.event("file_done");
    let moved = move_in(&films, "moved.mp4", b"moved");
    let video_id = first.event("file_done")["video_id"].as_str().unwrap().to_owned();
    server.assert_holds(&video_id, &moved);
    fs::create_dir(films.path().join("new")).unwrap();
    fs::write(films.path().join("new/film.mp4"), "film").unwrap();
    first.event("file_done");
    let first = first.stop().done();
    assert_eq!((first.summary()["files_done"].as_u64(), count(&first, "stopping")), (Some(3), 1));
    let mut second = start_watch(&server, films.path(), &[]);
    (0..3).for_each(|_| drop(second.event("file_skipped")));
    move_in(&films, "late.mp4", b"late");
    second.event("file_done");
    assert_eq!(second.stop().done().summary()["files_done"], 1);
    server.assert_created(4);
    // The same files without a watch are the same jobs.
    server.run([Path::new("ingest"), films.path()]).done();
    server.assert_created(4);
}

#[test]
fn a_file_of_a_slow_writer_is_uploaded_whole() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let path = films.path().join("film.mp4");
    let mut run = start_watch(&server, films.path(), &[]);
    let mut writer = File::create(&path).unwrap();
    for part in 0u8..20 {
        writer.write_all(&[part; 1000]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    drop(writer);
    let done = run.event("file_done");
    assert_eq!(done["bytes"], 20_000);
    server.assert_holds(done["video_id"].as_str().unwrap(), &path);
    run.stop().done();
    server.assert_created(1);
}

#[test]
fn a_mark_makes_a_file_complete() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let mut run =
        start_watch(&server, films.path(), &["--settle", "1h", "--done-suffix", ".ok", "--all-files"]);
    move_in(&films, "unmarked.mp4", b"unmarked");
    move_in(&films, "film.mp4", b"film");
    move_in(&films, "film.mp4.ok", b"");
    let done = run.event("file_done");
    assert!(done["file"].as_str().unwrap().ends_with("/film.mp4"), "{done}");
    run.stop().done();
    server.assert_created(1);
}

#[test]
fn sigterm_releases_what_is_under_way_and_the_next_watch_goes_on_with_it() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let film = move_in(&films, "film.mp4", &vec![7; 30 * MIB as usize]);
    let args = ["--chunk-size", "5M", "--grace", "1s", "--bwlimit", "2M"];
    let mut first = start_watch(&server, films.path(), &args);
    first.event("chunk_done");
    let first = first.stop().done();
    assert_eq!(first.summary()["files_done"], 0);
    let mut second = start_watch(&server, films.path(), &[]);
    assert!(second.event("resumed")["chunks"].as_u64() >= Some(1));
    let done = second.event("file_done");
    server.assert_holds(done["video_id"].as_str().unwrap(), &film);
    second.stop().done();
    server.assert_created(1);
    server.assert_nothing_was_sent_twice();
}

/// Writes files slowly in the ways of producers: in place, in parts that are closed, and by a rename.
fn produce(folder: &Path, count: usize) {
    for number in 0..count {
        let path = folder.join(format!("film{number:03}.mp4"));
        let written = if number % 3 == 2 { path.with_extension("mp4.part") } else { path.clone() };
        let mut file = File::create(&written).unwrap();
        for part in 0..4u8 {
            file.write_all(&[part; 5000]).unwrap();
            thread::sleep(Duration::from_millis(20));
            if number % 3 == 1 {
                file = File::options().append(true).open(&written).unwrap();
            }
        }
        drop(file);
        fs::rename(&written, &path).unwrap();
    }
}

#[test]
fn killed_at_any_moment_a_watch_uploads_every_file_whole() {
    const FILES: usize = 48;
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    // Longer than the pauses of the writers.
    let args = ["--settle", "2s"];
    thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|number| {
                let folder = films.path().join(number.to_string());
                fs::create_dir(&folder).unwrap();
                scope.spawn(move || produce(&folder, FILES / 4))
            })
            .collect();
        for millis in [700, 2300, 2600, 2900, 2450] {
            let mut run = start_watch(&server, films.path(), &args);
            thread::sleep(Duration::from_millis(millis));
            run.child.kill().unwrap();
            run.child.wait().unwrap();
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
    let mut last = start_watch(&server, films.path(), &args);
    while last.events.iter().filter(|event| is_end_of_file(event)).count() < FILES {
        last.event_where(is_end_of_file);
    }
    last.stop().done();
    let jobs = server.run(["jobs", "list", "--json"]).done();
    let jobs: Vec<_> = jobs.events().into_iter().filter(|event| event["event"] == "job").collect();
    assert_eq!(jobs.len(), FILES, "{jobs:?}");
    for job in jobs {
        let path = PathBuf::from(job["path"].as_str().unwrap());
        assert_eq!(job["state"], "done", "{job}");
        assert_eq!(path.metadata().unwrap().len(), 20_000);
        server.assert_holds(job["video_id"].as_str().unwrap(), &path);
    }
}

fn is_end_of_file(event: &Value) -> bool {
    event["event"] == "file_done" || event["event"] == "file_skipped"
}

#[test]
fn files_that_are_deleted_after_their_upload_free_their_space() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let (server, films) = (TestServer::new(scheme), tempfile::tempdir().unwrap());
        let mut run = start_watch(&server, films.path(), &["--after", "delete"]);
        for number in 0..3 {
            move_in(&films, &format!("{number}.mp4"), &vec![7; 3 * MIB as usize]);
            run.event("file_done");
        }
        let process = Path::new("/proc").join(run.child.id().to_string());
        let is_open = || {
            let files = fs::read_dir(process.join("fd")).unwrap().filter_map(Result::ok);
            let is_film = |link: PathBuf| link.starts_with(films.path());
            let is_mapped =
                fs::read_to_string(process.join("maps")).unwrap().contains(films.path().to_str().unwrap());
            // The directory itself is open while it is scanned.
            is_mapped || files.filter_map(|file| fs::read_link(file.path()).ok()).any(is_film)
        };
        let end = Instant::now() + PATIENCE;
        while is_open() {
            assert!(Instant::now() < end, "an uploaded file is still open");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(fs::read_dir(films.path()).unwrap().count(), 0);
        run.stop().done();
    }
}

#[test]
fn an_interrupt_from_a_terminal_keeps_its_exit_code() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    move_in(&films, "film.mp4", b"film");
    let mut run = start_watch(&server, films.path(), &[]);
    run.event("file_done");
    run.signal(Signal::INT);
    run.event("summary");
    run.end().failed(130, &[]);
}

#[test]
fn a_folder_that_vanishes_is_reported_and_waited_for() {
    let (server, above) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let films = above.path().join("films");
    fs::create_dir(&films).unwrap();
    let mut run = start_watch(&server, &films, &[]);
    fs::write(films.join("first.mp4"), "first").unwrap();
    run.event("file_done");
    fs::remove_dir_all(&films).unwrap();
    let gone = run.event("watch");
    assert_eq!(gone["kind"], "folder_gone");
    assert!(gone["message"].as_str().unwrap().contains(films.to_str().unwrap()), "{gone}");
    fs::create_dir(&films).unwrap();
    fs::write(films.join("second.mp4"), "second").unwrap();
    assert_eq!(run.event("watch")["kind"], "folder_back");
    run.event("file_done");
    run.stop().done();
    server.assert_created(2);
}

#[test]
fn a_folder_is_watched_once_for_a_queue_and_only_folders_are() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let film = move_in(&films, "film.mp4", b"film");
    let mut first = start_watch(&server, films.path(), &[]);
    first.event("file_done");
    let pid = format!("process {}", first.child.id());
    run(server.configure(&mut watch(films.path(), &[]))).failed(5, &[&pid, films.path().to_str().unwrap()]);
    first.stop().done();
    run(server.configure(&mut watch(&film, &[]))).failed(2, &["film.mp4"]);
    run(server.configure(&mut watch(&films.path().join("gone"), &[]))).failed(4, &["gone"]);
    for flag in ["--force", "--dry-run", "--strict"] {
        run(server.configure(&mut watch(films.path(), &[flag]))).failed(2, &[flag]);
    }
    server.assert_created(1);
}

const NAMESPACE: &[&str] = &["--user", "--map-root-user", "--mount"];

#[test]
fn without_inotify_watches_directories_are_scanned_and_the_limit_is_named() {
    for (limit, least, sysctl) in [
        ("max_inotify_watches", 3, "fs.inotify.max_user_watches"),
        ("max_inotify_instances", 0, "fs.inotify.max_user_instances"),
    ] {
        let before = format!("echo {least} > /proc/sys/user/{limit}");
        let Some(command) = ringlift_apart(NAMESPACE, &before) else { return };
        let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
        for number in 0..10 {
            fs::create_dir(films.path().join(number.to_string())).unwrap();
        }
        let mut command = watch_by(command, films.path(), &["--rescan", "200ms"]);
        let mut run = Watched::of(server.configure(&mut command));
        let notice = run.event("watch");
        assert_eq!(notice["kind"], "polling");
        assert!(notice["message"].as_str().unwrap().contains(sysctl), "{notice}");
        for number in 0..10 {
            fs::write(films.path().join(format!("{number}/film.mp4")), "film").unwrap();
        }
        (0..10).for_each(|_| drop(run.event("file_done")));
        run.stop().done();
        server.assert_created(10);
    }
}

#[test]
fn a_file_system_that_is_mounted_over_the_directory_and_unmounted_is_noticed() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let (folder, marks) = (films.path().to_str().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| marks.path().join(name).to_str().unwrap().to_owned();
    let wait = |name: &str| format!("until [ -e {} ]; do sleep 0.1; done", at(name));
    let mounts = format!(
        "{}; mount -t tmpfs none {folder}; echo film > {folder}/over.mp4; {}; umount {folder}",
        wait("mount"),
        wait("unmount")
    );
    let Some(command) = ringlift_apart(NAMESPACE, &format!("{{ ({mounts}) & }}")) else { return };
    move_in(&films, "below.mp4", b"film");
    let mut command = watch_by(command, films.path(), &[]);
    let mut run = Watched::of(server.configure(&mut command));
    run.event("file_done");
    for (mark, end) in [("mount", "file_done"), ("unmount", "doubled")] {
        File::create(at(mark)).unwrap();
        assert_eq!(run.event("watch")["kind"], "folder_gone");
        assert_eq!(run.event("watch")["kind"], "folder_back");
        run.event(end);
    }
    run.stop().done();
    server.assert_created(2);
}

#[test]
fn on_a_file_system_without_events_files_are_found_by_scans() {
    let (films, mounted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // FUSE: a change of the folder below gives no event on the mount.
    let is_mounted = Command::new("bindfs").arg(films.path()).arg(mounted.path()).status();
    if !is_mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let server = TestServer::new(Scheme::Http);
    let mut run = start_watch(&server, mounted.path(), &["--rescan", "200ms", "--settle", "1s"]);
    let notice = run.event("watch");
    assert!(notice["message"].as_str().unwrap().contains("file system (type 0x65735546)"), "{notice}");
    fs::create_dir(films.path().join("new")).unwrap();
    produce(&films.path().join("new"), 6);
    (0..6).for_each(|_| drop(run.event("file_done")));
    let output = run.stop().done();
    let _ = Command::new("umount").arg(mounted.path()).status();
    let done = output.events().into_iter().filter(|event| event["event"] == "file_done");
    assert!(done.map(|event| event["bytes"].clone()).all(|bytes| bytes == 20_000));
    server.assert_created(6);
}

/// The socket of a service manager.
struct NotifySocket {
    socket: UnixDatagram,
    folder: TempDir,
}

impl NotifySocket {
    fn new() -> NotifySocket {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        NotifySocket { socket, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// Waits for a message with this line, or with a line that begins so.
    fn wait_for(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut message = [0; 4096];
            let len = self.socket.recv(&mut message).unwrap_or_else(|error| panic!("no {text}: {error}"));
            let message = String::from_utf8_lossy(&message[..len]).into_owned();
            if message.lines().any(|line| line.starts_with(text)) {
                return message;
            }
            assert!(Instant::now() < end, "no {text}, but {message}");
        }
    }
}

#[test]
fn the_service_manager_learns_of_start_state_life_and_end() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let manager = NotifySocket::new();
    let mut command = watch(films.path(), &[]);
    command.env("NOTIFY_SOCKET", manager.path()).env("WATCHDOG_USEC", "2000000");
    let mut run = Watched::of(server.configure(&mut command));
    manager.wait_for("READY=1");
    (0..3).for_each(|_| drop(manager.wait_for("WATCHDOG=1")));
    move_in(&films, "film.mp4", b"film");
    run.event("file_done");
    manager.wait_for("STATUS=0 uploading, 0 settling, 1 uploaded, 0 failed");
    run.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    run.event("summary");
    run.end().done();
}

#[test]
fn an_upload_that_hangs_does_not_feed_the_watchdog() {
    // A service that accepts the connection, and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (films, manager) = (tempfile::tempdir().unwrap(), NotifySocket::new());
    move_in(&films, "film.mp4", b"film");
    let mut command = watch(films.path(), &["--grace", "0s"]);
    command.env("NOTIFY_SOCKET", manager.path()).env("WATCHDOG_USEC", "2000000");
    command.env("APIVIDEO_API_KEY", "a-key-of-nobody").env("RINGLIFT_ENDPOINT_URL", url);
    command.env("XDG_STATE_HOME", manager.folder.path());
    let run = Watched::of(&mut command);
    manager.wait_for("STATUS=1 uploading");
    manager.socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let (mut fed, mut message) = (0, [0; 4096]);
    while let Ok(len) = manager.socket.recv(&mut message) {
        // The message before the upload began, and one for its beginning.
        fed += usize::from(message[..len].starts_with(b"WATCHDOG=1"));
        assert!(fed < 4, "fed although nothing moves");
    }
    let mut child = run.child;
    child.kill().unwrap();
    child.wait().unwrap();
    drop(listener);
}

/// Returns the unit file for systemd.
fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd/ringlift-ingest@.service");
    fs::read_to_string(path).unwrap()
}

/// Runs systemd-analyze(1); `None` where there is none.
fn analyze(args: &[&str], unit: &Path) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let child = command.args(args).arg(unit).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn the_unit_file_is_valid_and_hardened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringlift-ingest@srv-films.service");
    // The check requires the program to be there.
    fs::write(&path, unit().replace("/usr/bin/ringlift", env!("CARGO_BIN_EXE_ringlift"))).unwrap();
    let Some((is_valid, text)) = analyze(&["verify", "--man=no"], &path) else { return };
    assert!(is_valid && !text.contains("ringlift-ingest"), "{text}");
    let (is_hardened, text) = analyze(&["security", "--offline=true", "--threshold=30"], &path).unwrap();
    assert!(is_hardened, "{text}");
}

#[test]
fn the_command_line_of_the_unit_file_works() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let state = tempfile::tempdir().unwrap();
    let key = state.path().join("api-key");
    fs::write(&key, server.server.api_key()).unwrap();
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/ringlift ")).unwrap();
    // systemd creates this folder.
    fs::create_dir_all(state.path().join("ringlift/films")).unwrap();
    let args = line.split_whitespace().map(|arg| {
        let arg = arg.replace("%S", state.path().to_str().unwrap()).replace("%i", "films");
        arg.replace("%d", state.path().to_str().unwrap()).replace("%f", films.path().to_str().unwrap())
    });
    let mut command = ringlift();
    command.args(args).env("RINGLIFT_SETTLE", "50ms").env("RINGLIFT_JSON", "1");
    let mut run = Watched::of(command.env("RINGLIFT_ENDPOINT_URL", server.server.url()));
    move_in(&films, "film.mp4", b"film");
    run.event("file_done");
    run.stop().done();
    assert!(state.path().join("ringlift/films/jobs.db").exists());
    server.assert_created(1);
}

/// Locks the queue as another process does, such as a backup or a shell of SQLite.
fn locked_queue(server: &TestServer) -> Connection {
    let queue = Connection::open(server.journal().with_file_name("jobs.db")).unwrap();
    queue.busy_timeout(PATIENCE).unwrap();
    queue.execute_batch("BEGIN IMMEDIATE").unwrap();
    queue
}

#[test]
fn a_worker_waits_for_a_queue_that_another_process_has_locked() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let mut command = ringlift();
    let mut run = Watched::of(server.configure(command.args(["work", "--json"])));
    // The queue is opened before the journal.
    wait_until(|| server.journal().exists());
    let other = locked_queue(&server);
    let message = run.event("queue_away")["message"].to_string();
    assert!(message.contains("jobs.db") && message.contains("locked by another process"), "{message}");
    drop(other);
    server.run(["submit", films.path().to_str().unwrap()]).done();
    run.event("queue_back");
    run.event("file_done");
    let output = run.stop().done();
    assert_eq!((count(&output, "queue_away"), count(&output, "queue_back")), (1, 1), "{output:?}");
    assert_eq!(output.stderr.matches("locked by another process").count(), 1, "{}", output.stderr);
}

#[test]
fn a_watch_on_a_locked_queue_ends_with_0_by_sigterm_and_the_next_one_uploads_the_file() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let mut run = start_watch(&server, films.path(), &[]);
    move_in(&films, "early.mp4", b"early film");
    run.event("file_done");
    let other = locked_queue(&server);
    move_in(&films, "late.mp4", b"late film");
    run.event("queue_away");
    run.stop().done();
    drop(other);
    let mut run = start_watch(&server, films.path(), &[]);
    run.event("file_done");
    run.stop().done();
    server.assert_created(2);
}

#[test]
fn a_reader_that_is_gone_does_not_stop_the_watch_from_ending() {
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let mut child = start(server.configure(&mut watch(films.path(), &[])));
    let mut stdout = child.stdout.take().unwrap();
    move_in(&films, "film.mp4", b"film");
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    for number in 0..20 {
        move_in(&films, &format!("{number}.mp4"), b"film");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(end(child).code.is_some());
}
