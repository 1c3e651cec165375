//! Effects of the machine on the command: signals, disks, limits, host names, the network.
//!
//! The faults are real: a full file system, a disk that fails in the middle, an interface that is down. Some tests
//! need namespaces (namespaces(7)) or root; they print a message if these are not available.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::server::{Fault, FaultAction, RouteClass, Server, ServerSettings};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{
    CommandOutput, Watched, end, ringlift, ringlift_after, ringlift_apart, ringlift_without, run, start,
};
use crate::support::way::Way;
use crate::support::{MIB, Sample, Scheme, TestServer, each_in_parallel};

const FAILED: i32 = 1;
const TEMPORARY: i32 = 5;

const UPLOAD: &[&str] = &["upload", "--json", "-c", "2", "--mode", "bytes", "--chunk-size", "5MiB"];

/// Starts a server that answers every chunk after `for_ms` milliseconds.
fn slow_server(for_ms: u64) -> TestServer {
    let slow = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms }).times(0);
    TestServer::faulty(Scheme::Http, vec![slow])
}

fn upload(test_server: &TestServer, args: &[&str], sample: &Sample) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).args(UPLOAD).args(args).arg(sample.path());
    command
}

fn video_id(ran: &CommandOutput) -> String {
    ran.summary()["video_id"].as_str().unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

// Signals.

#[test]
fn the_first_signal_finishes_running_chunks_and_the_same_command_sends_the_rest() {
    each_in_parallel([(Signal::INT, 130), (Signal::TERM, 143)], |(signal, code)| {
        let test_server = slow_server(500);
        let sample = Way::Bytes.sample(6);
        let child = start(&mut upload(&test_server, &[], &sample));
        wait_for("two chunks", || test_server.server.stats().chunks_accepted == 2);
        send(&child, signal);
        let ran = end(child).failed(code, &["to resume, run the same command again, or `ringlift resume"]);
        assert_eq!(ran.event("stopping")["signal"], if code == 130 { "SIGINT" } else { "SIGTERM" });
        assert_eq!(ran.event("file_failed")["resumable"], true);
        assert_eq!((&ran.summary()["exit_code"], test_server.chunk_requests().len()), (&code.into(), 2));
        let ran = run(&mut upload(&test_server, &[], &sample)).done();
        test_server.assert_holds(&video_id(&ran), &sample.path());
        assert_eq!(test_server.chunk_requests().len(), 6, "what was under way is not sent again");
        test_server.assert_created(1);
    });
}

#[test]
fn the_second_signal_ends_the_command_at_once() {
    each_in_parallel([(Signal::INT, 130), (Signal::TERM, 143)], |(signal, code)| {
        let test_server = slow_server(60_000);
        let sample = Way::Bytes.sample(6);
        let mut running = Watched::of(&mut upload(&test_server, &["--grace", "1h"], &sample));
        wait_for("two chunks", || test_server.server.stats().chunks_accepted == 2);
        let first = Instant::now();
        running.signal_twice(signal);
        let ran = running.end().failed(code, &["to resume, run the same command again, or `ringlift resume"]);
        assert!(first.elapsed() < Duration::from_secs(20), "it took {:?}", first.elapsed());
        assert_eq!(ran.summary()["exit_code"], code);
    });
}

#[test]
fn a_command_stopped_for_longer_than_its_timeouts_continues_and_keeps_its_lock() {
    each_in_parallel([Scheme::Http, Scheme::Https], |scheme| {
        let slow = FaultAction::Throttle { bytes_per_second: 10 * MIB };
        let test_server = TestServer::faulty(scheme, vec![Fault::new(RouteClass::Chunk, slow).times(0)]);
        let sample = Way::Bytes.sample(6);
        let child = start(&mut upload(&test_server, &["--timeout", "1s"], &sample));
        wait_for("a chunk", || test_server.server.stats().chunks_accepted >= 1);
        // The record of the chunk is written by then, and the next one takes longer. A command that stops within a
        // transaction keeps the journal locked.
        sleep(Duration::from_millis(150));
        send(&child, Signal::STOP);
        let stopped = Instant::now();
        let pid = format!("process {}", child.id());
        run(&mut upload(&test_server, &[], &sample)).failed(TEMPORARY, &[&pid]);
        sleep(Duration::from_millis(2500).saturating_sub(stopped.elapsed()));
        send(&child, Signal::CONT);
        let ran = end(child).done();
        test_server.assert_holds(&video_id(&ran), &sample.path());
        test_server.assert_created(1);
        test_server.assert_nothing_was_sent_twice();
    });
}

// Disks.

/// Files in /sys report a length of one page. One of these is shorter, the other cannot be read.
#[test]
fn an_unreadable_file_fails_alone_with_the_offset() {
    let (short, broken) = ("/sys/class/net/lo/mtu", "/sys/class/net/lo/speed");
    if fs::metadata(broken).map_or(true, |metadata| metadata.len() == 0) || fs::read(broken).is_ok() {
        return eprintln!("skipped: {broken} is another here");
    }
    let end = fs::read(short).unwrap().len();
    each_in_parallel(["auto", "uring", "direct", "mmap", "pread"], |reader| {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Sample::new(MIB);
        let ran = run(&mut upload(&test_server, &["--reader", reader, short, broken], &sample));
        let places =
            [format!("{short}: cannot be read at byte {end}"), format!("{broken}: cannot be read at byte 0")];
        let ran = ran.failed(TEMPORARY, &[&places[0], &places[1]]);
        let done = ran.event("file_done");
        test_server.assert_holds(done["video_id"].as_str().unwrap(), &sample.path());
        assert_eq!((&ran.summary()["files_done"], &ran.summary()["files_failed"]), (&1.into(), &2.into()));
        assert_eq!(test_server.server.stats().chunks_accepted, 1, "{reader}: something of them was taken");
    });
}

#[test]
fn an_unreadable_stream_is_reported() {
    let test_server = TestServer::new(Scheme::Http);
    let mut command = ringlift();
    // No memory is mapped at the first address of a process (proc_pid_mem(5)).
    command.stdin(fs::File::open("/proc/self/mem").unwrap());
    test_server.configure(&mut command).args(["upload", "--json", "--name", "live.mp4", "-"]);
    end(start(&mut command))
        .failed(TEMPORARY, &["live.mp4", "cannot be read at byte 0", "Input/output error"]);
    assert_eq!(test_server.server.stats().chunks_accepted, 0);
}

/// The disk's end is missing, and the file extends beyond it.
#[test]
fn a_failing_disk_fails_one_file_with_the_offset() {
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let (sample, other) = (Way::Bytes.sample(6), Way::Bytes.sample(2));
    let (disk, mount) = (folder.path().join("disk"), folder.path().join("mount"));
    fs::create_dir(&mount).unwrap();
    let (disk, at) = (disk.display(), mount.display());
    // Direct writes leave nothing in the page cache.
    let before = format!(
        "truncate -s 40M {disk} && mkfs.ext2 -q {disk} && mount -o loop {disk} {at} && \
         dd if={} of={at}/movie.mp4 bs=1M oflag=direct 2>/dev/null && sync && truncate -s 12M {disk}",
        sample.path().display(),
    );
    let Some(mut command) = ringlift_apart(&["--mount"], &before) else {
        return eprintln!("skipped: no mounts here");
    };
    let movie = mount.join("movie.mp4");
    test_server.configure(&mut command).args(UPLOAD).arg(&movie).arg(other.path());
    let ran = run(&mut command);
    if ran.stdout.is_empty() {
        return eprintln!("skipped: no disk was made: {}", ran.stderr);
    }
    let ran = ran.failed(TEMPORARY, &[&format!("{}: cannot be read at byte ", movie.display()), "error"]);
    test_server.assert_holds(ran.event("file_done")["video_id"].as_str().unwrap(), &other.path());
    assert_eq!((&ran.summary()["files_done"], &ran.summary()["files_failed"]), (&1.into(), &1.into()));
    assert_eq!(ran.event("file_failed")["error"]["kind"], "source_unreadable");
    assert!(ran.event("file_failed")["resumable"] == true && test_server.server.stats().refused.is_empty());
}

// The journal's disk.

/// Returns `true` if the file is stored; otherwise asserts that the message names the journal.
fn is_done_or_names_the_journal(
    test_server: &TestServer,
    ran: CommandOutput,
    sample: &Sample,
    case: &str,
) -> bool {
    let is_done = ran.code == Some(0);
    match is_done {
        true => test_server.assert_holds(&video_id(&ran), &sample.path()),
        false => drop(ran.failed(FAILED, &["journal.db"])),
    }
    assert!(test_server.server.stats().videos_created <= 1, "{case}: {:?}", test_server.server.stats());
    is_done
}

#[test]
fn a_journal_on_a_full_disk_is_reported_first_and_never_breaks_an_upload() {
    let sizes = [0, 4, 12, 24, 36, 48, 64, 96, 160, 512];
    let outcomes = sizes.map(|kib| {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Way::Bytes.sample(4);
        let folder = tempfile::tempdir().unwrap();
        // Fill a disk of 1 MiB up to the given rest.
        let before = format!(
            "mount -t tmpfs -o size=1m none {at} && head -c $(((1024 - {kib}) * 1024)) /dev/zero > {at}/full",
            at = folder.path().display(),
        );
        let mut command = ringlift_apart(&["--mount", "--map-root-user"], &before)?;
        test_server.configure(&mut command).args(UPLOAD).arg("--journal");
        let ran = run(command.arg(folder.path().join("journal.db")).arg(sample.path()));
        if kib == 0 {
            assert!(ran.stderr.contains("no space is left"), "{ran:?}");
            assert_eq!(test_server.server.stats().videos_created, 0);
        }
        Some(is_done_or_names_the_journal(&test_server, ran, &sample, &format!("{kib} KiB")))
    });
    if outcomes.contains(&None) {
        return eprintln!("skipped: no mounts here");
    }
    assert_eq!((outcomes[0], outcomes[sizes.len() - 1]), (Some(false), Some(true)));
}

#[test]
fn a_journal_without_room_ends_a_command_of_many_files_with_one_error() {
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    // Room for the tables, and not for the first claim: with more, files fail at different steps.
    let before = format!(
        "mount -t tmpfs -o size=1m none {at} && head -c {full} /dev/zero > {at}/full",
        at = folder.path().display(),
        full = (1024 - 84) << 10,
    );
    let Some(mut command) = ringlift_apart(&["--mount", "--map-root-user"], &before) else {
        return eprintln!("skipped: no mounts here");
    };
    let samples: Vec<Sample> = (0..40).map(|_| Sample::new(1000)).collect();
    test_server.configure(&mut command).args(["upload", "--journal"]).arg(folder.path().join("journal.db"));
    let ran = run(command.args(samples.iter().map(Sample::path))).failed(FAILED, &["no space is left"]);
    assert_eq!(
        ran.stderr.matches("could not write the upload down: the journal cannot be used\n").count(),
        1
    );
    assert!(ran.stderr.contains("39 of 40 files were not started"), "{ran:?}");
    test_server.assert_created(0);
}

#[test]
fn a_journal_at_its_size_limit_is_reported_and_never_breaks_an_upload() {
    each_in_parallel([0, 4, 8, 24, 40, 64, 400], |kib| {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Way::Bytes.sample(4);
        let mut command = ringlift_after(&format!("ulimit -f {}", kib * 2));
        let ran = run(test_server.configure(&mut command).args(UPLOAD).arg(sample.path()));
        // An upload that stays in the journal is found complete later, as the warning states.
        let is_forgotten = !ran.stderr.contains("they would be found complete");
        let is_done = is_done_or_names_the_journal(&test_server, ran, &sample, &format!("{kib} KiB"));
        assert!(is_done && is_forgotten || kib < 400);
        // With free space again, the command continues the upload.
        let ran = run(&mut upload(&test_server, &[], &sample)).done();
        test_server.assert_holds(&video_id(&ran), &sample.path());
        test_server.assert_created(if is_done && is_forgotten { 2 } else { 1 });
    });
}

#[test]
fn an_unwritable_journal_is_reported_before_anything_is_created() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Way::Bytes.sample(2);
    let with_journal = |command: &mut Command, journal: &Path| {
        run(test_server.configure(command).args(UPLOAD).arg("--journal").arg(journal).arg(sample.path()))
    };
    with_journal(&mut ringlift(), Path::new("/dev/full")).failed(FAILED, &["/dev/full"]);
    with_journal(&mut ringlift(), Path::new("/proc/journal.db")).failed(FAILED, &["/proc/journal.db"]);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let before = format!("mount -t tmpfs none {at} && mount -o remount,ro {at}");
    match ringlift_apart(&["--mount", "--map-root-user"], &before) {
        Some(mut command) => {
            let journal = folder.path().join("journal.db");
            with_journal(&mut command, &journal)
                .failed(FAILED, &["journal.db cannot be written", "--journal"]);
        }
        None => eprintln!("skipped in part: no mounts here"),
    }
    test_server.assert_created(0);
    assert!(test_server.server.requests().is_empty());
    // The upload works without a journal.
    let ran = run(&mut upload(&test_server, &["--no-journal"], &sample)).done();
    test_server.assert_holds(&video_id(&ran), &sample.path());
}

/// The newest pages of the journal are damaged. The lost part determines the chunks that are sent again.
#[test]
fn a_journal_damaged_by_a_crash_costs_chunks_and_no_second_video() {
    let test_server = slow_server(150);
    let sample = Way::Bytes.sample(8);
    let child = start(&mut upload(&test_server, &[], &sample));
    wait_for("five chunks", || test_server.server.stats().chunks_accepted >= 5);
    send(&child, Signal::KILL);
    let begun = end(child).event("created")["video_id"].as_str().unwrap().to_owned();
    let log = test_server.journal().with_extension("db-wal");
    let whole = fs::read(&log).unwrap();
    let torn = |len: usize| [&whole[..len], &[0xa5; 777]].concat();
    fs::write(&log, torn(whole.len() - 100)).unwrap();
    let ran = run(&mut upload(&test_server, &[], &sample)).done();
    assert_eq!(video_id(&ran), begun);
    test_server.assert_holds(&begun, &sample.path());
    test_server.assert_created(1);
    test_server.assert_nothing_was_sent_twice();
}

// Host names and addresses.

/// Returns the command with `hosts` as /etc/hosts, or `None` if mounts are not permitted.
fn ringlift_with_hosts(hosts: &Path) -> Option<Command> {
    let before = format!("mount --bind {} /etc/hosts", hosts.display());
    ringlift_apart(&["--mount", "--map-root-user"], &before)
}

fn by_name<'a>(test_server: &TestServer, command: &'a mut Command, name: &str) -> &'a mut Command {
    let port = test_server.server.addr().port();
    test_server.configure(command).env("RINGLIFT_ENDPOINT_URL", format!("http://{name}:{port}"))
}

#[test]
fn an_unknown_host_name_is_retried_and_then_reported() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    by_name(&test_server, &mut command, "nowhere.invalid").args(UPLOAD).arg(sample.path());
    let ran = run(command.args(["-vv", "--retries", "2", "--connect-timeout", "1s"]));
    ran.failed(TEMPORARY, &["nowhere.invalid"]);
}

#[test]
fn a_temporarily_unknown_host_name_is_retried() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Way::Bytes.sample(3);
    let hosts = test_server.folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let Some(mut command) = ringlift_with_hosts(&hosts) else {
        return eprintln!("skipped: no mounts here");
    };
    by_name(&test_server, &mut command, "films.invalid").args(UPLOAD).args(["--connect-timeout", "1s"]);
    let child = start(command.arg(sample.path()));
    sleep(Duration::from_millis(1200));
    assert!(test_server.server.requests().is_empty());
    fs::write(&hosts, "127.0.0.1 films.invalid\n").unwrap();
    let ran = end(child).done();
    test_server.assert_holds(&video_id(&ran), &sample.path());
    test_server.assert_created(1);
}

#[test]
fn one_address_that_answers_is_enough() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Way::Bytes.sample(3);
    let hosts = test_server.folder.path().join("hosts");
    // The first two have no listener, and the third is reserved for documentation (RFC 5737).
    fs::write(
        &hosts,
        "::1 films.invalid\n127.0.0.2 films.invalid\n192.0.2.1 films.invalid\n127.0.0.1 films.invalid\n",
    )
    .unwrap();
    let Some(mut command) = ringlift_with_hosts(&hosts) else {
        return eprintln!("skipped: no mounts here");
    };
    let begun = Instant::now();
    by_name(&test_server, &mut command, "films.invalid").args(UPLOAD).args(["--retries", "0"]);
    let ran = run(command.arg(sample.path())).done();
    test_server.assert_holds(&video_id(&ran), &sample.path());
    assert_eq!(ran.summary()["retries"], 0);
    assert!(begun.elapsed() < Duration::from_secs(9), "a dead address was waited for to its end");
}

#[test]
fn a_proxy_in_the_environment_is_not_used_for_this_machine() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "RINGLIFT_PROXY"] {
        let ran = run(upload(&test_server, &["-v"], &sample).env(name, &url)).done();
        assert!(!ran.stderr.contains("proxy"), "{name}: {}", ran.stderr);
    }
    assert!(proxy.accept().is_err(), "it was asked");
}

// The network.

/// Client and server run in their own network. Its only interface goes down for a while: packets are lost without
/// any error. The server's videos are checked through its folder.
#[test]
fn an_upload_survives_a_network_outage() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Way::Bytes.sample(8);
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    fs::write(
        path("faults.toml"),
        "[[fault]]\non = \"chunk\"\ntimes = 0\naction = { throttle = { bytes_per_second = 10485760 } }\n",
    )
    .unwrap();
    let script = format!(
        "ip link set lo up; \"$@\" serve --json --data {data} --faults {faults} >{ready} 2>&1 & server=$!; \
         while ! grep -q ready {ready}; do sleep 0.05; done; \
         {{ sleep 0.7; ip link set lo down; sleep 2.5; ip link set lo up; }} & \
         \"$@\" upload --json -c 2 --timeout 1s --mode bytes --chunk-size 5MiB \
           --endpoint-url http://127.0.0.1:8080 {movie}; code=$?; kill $server; wait; exit $code; true",
        data = path("data").display(),
        faults = path("faults.toml").display(),
        ready = path("ready").display(),
        movie = sample.path().display(),
    );
    let Some(mut command) = ringlift_apart(&["--net", "--map-root-user"], &script) else {
        return eprintln!("skipped: no networks here");
    };
    let ran = run(command.env("APIVIDEO_API_KEY", "key")).done();
    assert!(ran.summary()["elapsed_ms"].as_u64() > Some(2500), "the network was there all the time: {ran:?}");
    let mut settings = ServerSettings::new(path("data"));
    settings.api_key = Some("key".into());
    let test_server = TestServer { server: Server::start(settings).unwrap(), folder };
    test_server.assert_holds(&video_id(&ran), &sample.path());
    let client = test_server.client().build().unwrap();
    let videos = pollster::block_on(client.videos(Default::default())).unwrap();
    assert_eq!(videos.data.len(), 1);
}

// Many files.

#[test]
fn two_thousand_files_use_few_descriptors_and_little_memory_and_failures_are_counted() {
    let test_server = TestServer::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let path = |number: u32| folder.path().join(format!("{number}.mp4"));
    for number in 0..FILES {
        fs::write(path(number), number.to_string()).unwrap();
    }
    fs::create_dir(path(FILES)).unwrap();
    fs::write(path(FILES + 1), "secret").unwrap();
    fs::set_permissions(path(FILES + 1), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = ringlift_without("dac_override,-dac_read_search", "ulimit -n 64");
    test_server.configure(&mut command).args(["upload", "--json", "-c", "4"]);
    let ran = run(command.args((0..FILES + 3).map(path)));
    // The permission may be there with the next run.
    let ran = ran.failed(TEMPORARY, &["2000.mp4", "2001.mp4", "2002.mp4"]);
    let summary = ran.summary();
    assert_eq!(
        (&summary["files_done"], &summary["files_failed"]),
        (&FILES.into(), &3.into()),
        "{}",
        ran.stderr
    );
    assert_eq!(test_server.server.stats().videos_created, u64::from(FILES));
    let memory = summary["usage"]["peak_anonymous_bytes"].as_u64().unwrap();
    assert!(memory < 64 * MIB, "{memory} bytes");
    for event in ran.events().iter().filter(|event| event["event"] == "file_done").step_by(100) {
        test_server
            .assert_holds(event["video_id"].as_str().unwrap(), Path::new(event["file"].as_str().unwrap()));
    }
}

const FILES: u32 = 2000;
