//! What the machine does to a run of the command: signals, disks, limits, names, the network.
//!
//! Real ones: a file system that is full, a disk that fails in the middle, an interface that is down. Some
//! of them need namespaces (namespaces(7)) or a superuser; where those are not to be had the test says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::server::{Fault, FaultAction, RouteClass, Server, ServerSettings};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{
    Ran, end, ringlift, ringlift_after, ringlift_apart, ringlift_without, run, start,
};
use crate::support::way::Way;
use crate::support::{House, MIB, Sample, Scheme, each_at_once};

const FAILED: i32 = 1;
const TEMPORARY: i32 = 5;

const UPLOAD: &[&str] = &["upload", "--json", "-c", "2", "--mode", "bytes", "--chunk-size", "5MiB"];

/// A house in which every chunk takes so long to be answered.
fn slow_house(for_ms: u64) -> House {
    let slow = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms }).times(0);
    House::faulty(Scheme::Http, vec![slow])
}

fn upload(house: &House, args: &[&str], sample: &Sample) -> Command {
    let mut command = ringlift();
    house.host(&mut command).args(UPLOAD).args(args).arg(sample.path());
    command
}

fn video_id(ran: &Ran) -> String {
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
fn the_first_signal_lets_the_chunks_under_way_end_and_the_same_command_sends_the_rest() {
    each_at_once([(Signal::INT, 130), (Signal::TERM, 143)], |(signal, code)| {
        let house = slow_house(500);
        let sample = Way::Bytes.sample(6);
        let child = start(&mut upload(&house, &[], &sample));
        wait_for("two chunks", || house.server.stats().chunks_accepted == 2);
        send(&child, signal);
        let ran = end(child).failed(code, &["continue: the same command, or `ringlift resume"]);
        assert_eq!(ran.event("stopping")["signal"], if code == 130 { "SIGINT" } else { "SIGTERM" });
        assert_eq!(ran.event("file_failed")["resumable"], true);
        assert_eq!((&ran.summary()["exit_code"], house.chunk_requests().len()), (&code.into(), 2));
        let ran = run(&mut upload(&house, &[], &sample)).done();
        house.assert_holds(&video_id(&ran), &sample.path());
        assert_eq!(house.chunk_requests().len(), 6, "what was under way is not sent again");
        house.assert_created(1);
    });
}

#[test]
fn the_second_signal_ends_it_at_once() {
    each_at_once([(Signal::INT, 130), (Signal::TERM, 143)], |(signal, code)| {
        let house = slow_house(60_000);
        let sample = Way::Bytes.sample(6);
        let child = start(&mut upload(&house, &["--grace", "1h"], &sample));
        wait_for("two chunks", || house.server.stats().chunks_accepted == 2);
        send(&child, signal);
        sleep(Duration::from_millis(300));
        let second = Instant::now();
        send(&child, signal);
        let ran = end(child).failed(code, &["continue: the same command, or `ringlift resume"]);
        assert!(second.elapsed() < Duration::from_secs(20), "it took {:?}", second.elapsed());
        assert_eq!(ran.summary()["exit_code"], code);
    });
}

#[test]
fn a_command_that_was_stopped_for_longer_than_its_patience_goes_on_and_others_are_told_of_it() {
    each_at_once([Scheme::Http, Scheme::Https], |scheme| {
        let slow = FaultAction::Throttle { bytes_per_second: 10 * MIB };
        let house = House::faulty(scheme, vec![Fault::new(RouteClass::Chunk, slow).times(0)]);
        let sample = Way::Bytes.sample(6);
        let child = start(&mut upload(&house, &["--timeout", "1s"], &sample));
        wait_for("a chunk", || house.server.stats().chunks_accepted >= 1);
        send(&child, Signal::STOP);
        let stopped = Instant::now();
        let pid = format!("process {}", child.id());
        run(&mut upload(&house, &[], &sample)).failed(TEMPORARY, &[&pid]);
        sleep(Duration::from_millis(2500).saturating_sub(stopped.elapsed()));
        send(&child, Signal::CONT);
        let ran = end(child).done();
        house.assert_holds(&video_id(&ran), &sample.path());
        house.assert_created(1);
        house.assert_nothing_was_sent_twice();
    });
}

// Disks.

/// The kernel's own files say that they are a page long: this one has less, that one cannot be read.
#[test]
fn a_file_that_cannot_be_read_names_the_byte_and_fails_alone() {
    let (short, broken) = ("/sys/class/net/lo/mtu", "/sys/class/net/lo/speed");
    if fs::metadata(broken).map_or(true, |metadata| metadata.len() == 0) || fs::read(broken).is_ok() {
        return eprintln!("skipped: {broken} is another here");
    }
    let end = fs::read(short).unwrap().len();
    each_at_once(["auto", "uring", "direct", "mmap", "pread"], |reader| {
        let house = House::new(Scheme::Http);
        let sample = Sample::new(MIB);
        let ran = run(&mut upload(&house, &["--reader", reader, short, broken], &sample));
        let places =
            [format!("{short}: cannot be read at byte {end}"), format!("{broken}: cannot be read at byte 0")];
        let ran = ran.failed(FAILED, &[&places[0], &places[1]]);
        let done = ran.event("file_done");
        house.assert_holds(done["video_id"].as_str().unwrap(), &sample.path());
        assert_eq!((&ran.summary()["files_done"], &ran.summary()["files_failed"]), (&1.into(), &2.into()));
        assert_eq!(house.server.stats().chunks_accepted, 1, "{reader}: something of them was taken");
    });
}

#[test]
fn a_stream_that_cannot_be_read_says_so() {
    let house = House::new(Scheme::Http);
    let mut command = ringlift();
    // Nothing is mapped at a process's first address (proc_pid_mem(5)).
    command.stdin(fs::File::open("/proc/self/mem").unwrap());
    house.host(&mut command).args(["upload", "--json", "--name", "live.mp4", "-"]);
    end(start(&mut command)).failed(FAILED, &["live.mp4", "cannot be read at byte 0", "Input/output error"]);
    assert_eq!(house.server.stats().chunks_accepted, 0);
}

/// A disk whose end is missing, with a file on it that reaches over the edge.
#[test]
fn a_disk_that_fails_in_the_middle_of_a_file_names_the_byte_and_fails_that_file_alone() {
    let house = House::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let (sample, other) = (Way::Bytes.sample(6), Way::Bytes.sample(2));
    let (disk, mount) = (folder.path().join("disk"), folder.path().join("mount"));
    fs::create_dir(&mount).unwrap();
    let (disk, at) = (disk.display(), mount.display());
    // What was written past the page cache is not in it.
    let before = format!(
        "truncate -s 40M {disk} && mkfs.ext2 -q {disk} && mount -o loop {disk} {at} && \
         dd if={} of={at}/movie.mp4 bs=1M oflag=direct 2>/dev/null && sync && truncate -s 12M {disk}",
        sample.path().display(),
    );
    let Some(mut command) = ringlift_apart(&["--mount"], &before) else {
        return eprintln!("skipped: no mounts here");
    };
    let movie = mount.join("movie.mp4");
    house.host(&mut command).args(UPLOAD).arg(&movie).arg(other.path());
    let ran = run(&mut command);
    if ran.stdout.is_empty() {
        return eprintln!("skipped: no disk was made: {}", ran.stderr);
    }
    let ran = ran.failed(FAILED, &[&format!("{}: cannot be read at byte ", movie.display()), "error"]);
    house.assert_holds(ran.event("file_done")["video_id"].as_str().unwrap(), &other.path());
    assert_eq!((&ran.summary()["files_done"], &ran.summary()["files_failed"]), (&1.into(), &1.into()));
    assert_eq!(ran.event("file_failed")["error"]["kind"], "source_unreadable");
    assert!(ran.event("file_failed")["resumable"] == true && house.server.stats().refused.is_empty());
}

// The journal's disk.

/// Whether the file is there or the message is about the journal, and no second video.
fn is_done_or_names_the_journal(house: &House, ran: Ran, sample: &Sample, case: &str) -> bool {
    let is_done = ran.code == Some(0);
    match is_done {
        true => house.assert_holds(&video_id(&ran), &sample.path()),
        false => drop(ran.failed(FAILED, &["journal.db"])),
    }
    assert!(house.server.stats().videos_created <= 1, "{case}: {:?}", house.server.stats());
    is_done
}

#[test]
fn a_journal_on_a_full_disk_is_named_before_anything_is_made_and_never_spoils_an_upload() {
    let sizes = [0, 4, 12, 24, 36, 48, 64, 96, 160, 512];
    let outcomes = sizes.map(|kib| {
        let house = House::new(Scheme::Http);
        let sample = Way::Bytes.sample(4);
        let folder = tempfile::tempdir().unwrap();
        // Of a disk of 1 MiB, all but so much is taken.
        let before = format!(
            "mount -t tmpfs -o size=1m none {at} && head -c $(((1024 - {kib}) * 1024)) /dev/zero > {at}/full",
            at = folder.path().display(),
        );
        let mut command = ringlift_apart(&["--mount", "--map-root-user"], &before)?;
        house.host(&mut command).args(UPLOAD).arg("--journal");
        let ran = run(command.arg(folder.path().join("journal.db")).arg(sample.path()));
        if kib == 0 {
            assert!(ran.stderr.contains("no space is left"), "{ran:?}");
            assert_eq!(house.server.stats().videos_created, 0);
        }
        Some(is_done_or_names_the_journal(&house, ran, &sample, &format!("{kib} KiB")))
    });
    if outcomes.contains(&None) {
        return eprintln!("skipped: no mounts here");
    }
    assert_eq!((outcomes[0], outcomes[sizes.len() - 1]), (Some(false), Some(true)));
}

#[test]
fn a_journal_that_may_not_grow_is_named_and_never_spoils_an_upload() {
    each_at_once([0, 4, 8, 24, 40, 64, 400], |kib| {
        let house = House::new(Scheme::Http);
        let sample = Way::Bytes.sample(4);
        let mut command = ringlift_after(&format!("trap '' XFSZ; ulimit -f {}", kib * 2));
        let ran = run(house.host(&mut command).args(UPLOAD).arg(sample.path()));
        // What could not be forgotten is found complete, as the warning says.
        let is_forgotten = !ran.stderr.contains("they would be found complete");
        let is_done = is_done_or_names_the_journal(&house, ran, &sample, &format!("{kib} KiB"));
        assert!(is_done && is_forgotten || kib < 400);
        // With room again, what was begun is continued.
        let ran = run(&mut upload(&house, &[], &sample)).done();
        house.assert_holds(&video_id(&ran), &sample.path());
        house.assert_created(if is_done && is_forgotten { 2 } else { 1 });
    });
}

#[test]
fn a_journal_that_cannot_be_written_is_named_before_anything_is_made() {
    let house = House::new(Scheme::Http);
    let sample = Way::Bytes.sample(2);
    let with_journal = |command: &mut Command, journal: &Path| {
        run(house.host(command).args(UPLOAD).arg("--journal").arg(journal).arg(sample.path()))
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
    house.assert_created(0);
    assert!(house.server.requests().is_empty());
    // There is a way without.
    let ran = run(&mut upload(&house, &["--no-journal"], &sample)).done();
    house.assert_holds(&video_id(&ran), &sample.path());
}

/// The newest pages of the journal are torn; how much of it is lost decides what is sent again.
#[test]
fn a_journal_that_was_torn_in_a_crash_costs_chunks_and_no_second_video() {
    let house = slow_house(150);
    let sample = Way::Bytes.sample(8);
    let child = start(&mut upload(&house, &[], &sample));
    wait_for("five chunks", || house.server.stats().chunks_accepted >= 5);
    send(&child, Signal::KILL);
    let begun = end(child).event("created")["video_id"].as_str().unwrap().to_owned();
    let log = house.journal().with_extension("db-wal");
    let whole = fs::read(&log).unwrap();
    let torn = |len: usize| [&whole[..len], &[0xa5; 777]].concat();
    fs::write(&log, torn(whole.len() - 100)).unwrap();
    let ran = run(&mut upload(&house, &[], &sample)).done();
    assert_eq!(video_id(&ran), begun);
    house.assert_holds(&begun, &sample.path());
    house.assert_created(1);
    house.assert_nothing_was_sent_twice();
}

// Names and addresses.

/// The command where these lines are all that /etc/hosts says; `None` where that cannot be.
fn ringlift_with_hosts(hosts: &Path) -> Option<Command> {
    let before = format!("mount --bind {} /etc/hosts", hosts.display());
    ringlift_apart(&["--mount", "--map-root-user"], &before)
}

fn by_name<'a>(house: &House, command: &'a mut Command, name: &str) -> &'a mut Command {
    let port = house.server.addr().port();
    house.host(command).env("RINGLIFT_ENDPOINT_URL", format!("http://{name}:{port}"))
}

#[test]
fn a_name_that_nobody_knows_is_tried_again_and_then_named() {
    let house = House::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    by_name(&house, &mut command, "nowhere.invalid").args(UPLOAD).arg(sample.path());
    let ran = run(command.args(["-vv", "--retries", "2", "--connect-timeout", "1s"]));
    ran.failed(TEMPORARY, &["nowhere.invalid"]);
}

#[test]
fn a_name_that_is_unknown_for_a_while_is_waited_for() {
    let house = House::new(Scheme::Http);
    let sample = Way::Bytes.sample(3);
    let hosts = house.folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let Some(mut command) = ringlift_with_hosts(&hosts) else {
        return eprintln!("skipped: no mounts here");
    };
    by_name(&house, &mut command, "films.invalid").args(UPLOAD).args(["--connect-timeout", "1s"]);
    let child = start(command.arg(sample.path()));
    sleep(Duration::from_millis(1200));
    assert!(house.server.requests().is_empty());
    fs::write(&hosts, "127.0.0.1 films.invalid\n").unwrap();
    let ran = end(child).done();
    house.assert_holds(&video_id(&ran), &sample.path());
    house.assert_created(1);
}

#[test]
fn one_address_that_answers_is_enough() {
    let house = House::new(Scheme::Http);
    let sample = Way::Bytes.sample(3);
    let hosts = house.folder.path().join("hosts");
    // Nobody listens at the first two, and nobody has the third (RFC 5737).
    fs::write(
        &hosts,
        "::1 films.invalid\n127.0.0.2 films.invalid\n192.0.2.1 films.invalid\n127.0.0.1 films.invalid\n",
    )
    .unwrap();
    let Some(mut command) = ringlift_with_hosts(&hosts) else {
        return eprintln!("skipped: no mounts here");
    };
    let begun = Instant::now();
    by_name(&house, &mut command, "films.invalid").args(UPLOAD).args(["--retries", "0"]);
    let ran = run(command.arg(sample.path())).done();
    house.assert_holds(&video_id(&ran), &sample.path());
    assert_eq!(ran.summary()["retries"], 0);
    assert!(begun.elapsed() < Duration::from_secs(9), "a dead address was waited for to its end");
}

#[test]
fn a_proxy_in_the_environment_is_not_used_and_that_is_said() {
    let house = House::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let ran = run(upload(&house, &[], &sample).env(name, &url)).done();
        assert!(ran.stderr.contains(name) && ran.stderr.contains("not used"), "{name}: {}", ran.stderr);
        let ran = run(upload(&house, &["-q"], &sample).env(name, &url)).done();
        assert_eq!(ran.stderr, "");
    }
    let ran = run(upload(&house, &[], &sample).env("HTTPS_PROXY", &url)).done();
    assert!(!ran.stderr.contains("not used"), "it is for another scheme: {}", ran.stderr);
    assert!(proxy.accept().is_err(), "it was asked");
}

// The network.

/// Everything in one network of its own, whose only interface goes down for a while in the middle: no
/// packet arrives, and nobody says so. The server is found again by its folder.
#[test]
fn a_network_that_is_gone_for_a_while_is_waited_out() {
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
    let house = House { server: Server::start(settings).unwrap(), folder };
    house.assert_holds(&video_id(&ran), &sample.path());
    let client = house.client().build().unwrap();
    let videos = pollster::block_on(client.videos(Default::default())).unwrap();
    assert_eq!(videos.data.len(), 1);
}

// Many files.

#[test]
fn two_thousand_files_take_few_descriptors_and_little_memory_and_what_fails_is_counted() {
    let house = House::new(Scheme::Http);
    let folder = tempfile::tempdir().unwrap();
    let path = |number: u32| folder.path().join(format!("{number}.mp4"));
    for number in 0..FILES {
        fs::write(path(number), number.to_string()).unwrap();
    }
    fs::create_dir(path(FILES)).unwrap();
    fs::write(path(FILES + 1), "secret").unwrap();
    fs::set_permissions(path(FILES + 1), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = ringlift_without("dac_override,-dac_read_search", "ulimit -n 64");
    house.host(&mut command).args(["upload", "--json", "-c", "4"]);
    let ran = run(command.args((0..FILES + 3).map(path)));
    let ran = ran.failed(FAILED, &["2000.mp4", "2001.mp4", "2002.mp4"]);
    let summary = ran.summary();
    assert_eq!((&summary["files_done"], &summary["files_failed"]), (&FILES.into(), &3.into()));
    assert_eq!(house.server.stats().videos_created, u64::from(FILES));
    let memory = summary["usage"]["peak_anonymous_bytes"].as_u64().unwrap();
    assert!(memory < 64 * MIB, "{memory} bytes");
    for event in ran.events().iter().filter(|event| event["event"] == "file_done").step_by(100) {
        house.assert_holds(event["video_id"].as_str().unwrap(), Path::new(event["file"].as_str().unwrap()));
    }
}

const FILES: u32 = 2000;
