//! A file whose attributes, links, name or times change: while it is sent, and between two runs.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use ringlift::journal::{Entry, EntryState, Journal};
use ringlift::server::{Action, Fault, RouteClass};
use ringlift::{ErrorKind, OnChange, Reader, UploadEvent};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{Ran, end, ringlift, run, start};
use crate::support::way::{CHUNK, Way};
use crate::support::{House, Sample, Scheme, digest, each_at_once};

const UNSUITED: i32 = 6;

/// A house where the third chunk is recorded, and answered so late that there is time to do something.
fn house(scheme: Scheme, for_ms: u64) -> House {
    House::faulty(scheme, vec![Fault::new(RouteClass::Chunk, Action::StallAnswering { for_ms }).nth(3)])
}

fn upload(house: &House, way: Way, token: Option<&str>, file: &Path, args: &[&str]) -> Command {
    let mut command = ringlift();
    house.host(&mut command).args(["upload", "--json", "-c", "1", "--chunk-size", "5MiB"]);
    command.args(["--mode", way.mode_name()]).args(args).arg(file);
    if let Some(token) = token {
        command.env_remove("APIVIDEO_API_KEY").env("RINGLIFT_UPLOAD_TOKEN", token);
    }
    command
}

fn id(ran: &Ran) -> String {
    ran.event("created")["video_id"].as_str().unwrap().to_owned()
}

fn has_event(ran: &Ran, name: &str) -> bool {
    ran.events().iter().any(|event| event["event"] == name)
}

fn wait_for_three_chunks(house: &House) {
    while house.server.tally().chunks_accepted < 3 {
        sleep(Duration::from_millis(5));
    }
}

fn entries(house: &House) -> Vec<Entry> {
    Journal::open(&house.journal()).unwrap().entries().unwrap()
}

// Changes to a file.

type Act = fn(&Path);

fn link(path: &Path) {
    fs::hard_link(path, path.with_extension("link")).unwrap();
}

fn protect(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
}

fn set_accessed(path: &Path) {
    File::open(path).unwrap().set_times(FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH)).unwrap();
}

fn rename(path: &Path) {
    fs::rename(path, path.with_extension("other")).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Other bytes in the first and the last chunk; then length and mtime are as they were.
fn rewrite(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap();
    file.write_all_at(b"other bytes", 100).unwrap();
    file.write_all_at(b"other bytes", before.len() - 100).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before.modified().unwrap());
}

// While it is sent.

#[test]
fn what_changes_no_byte_is_a_warning_and_an_event_and_the_upload_goes_on() {
    let acts: [(Scheme, Act, &str); 6] = [
        (Scheme::Http, link, "touched"),
        (Scheme::Https, link, "touched"),
        (Scheme::Http, protect, "touched"),
        (Scheme::Http, set_accessed, "touched"),
        (Scheme::Http, rename, "removed"),
        (Scheme::Https, remove, "removed"),
    ];
    each_at_once(acts, |(scheme, act, change)| {
        let (house, sample) = (house(scheme, 700), Way::Bytes.sample(6));
        let whole = (sample.len, digest(&sample.path()));
        let child = start(&mut upload(&house, Way::Bytes, None, &sample.path(), &[]));
        wait_for_three_chunks(&house);
        act(&sample.path());
        let ran = end(child).done();
        let touched = ran.event("source_touched");
        assert_eq!((&touched["file"], &touched["change"]), (&sample.arg().into(), &change.into()));
        assert_eq!(ran.stderr.matches("while it is being sent").count(), 1, "{}", ran.stderr);
        assert_eq!(house.stored(&id(&ran)), whole);
        house.assert_nothing_was_sent_twice();
    });
}

#[test]
fn every_reader_goes_on_with_a_file_that_was_renamed() {
    let readers = [
        (Scheme::Http, Reader::Mmap),
        (Scheme::Http, Reader::Pread),
        (Scheme::Http, Reader::Uring),
        (Scheme::Http, Reader::Direct),
        (Scheme::Https, Reader::Mmap),
        (Scheme::Https, Reader::Direct),
    ];
    each_at_once(readers, |(scheme, reader)| {
        // The second worker opens the file after it was renamed.
        let house = House::faulty(
            scheme,
            vec![Fault::new(RouteClass::Create, Action::StallAnswering { for_ms: 500 })],
        );
        let sample = Way::Parts.sample(6);
        let client = house.hasty_client().reader(reader).build().unwrap();
        let running = pollster::block_on(Way::Parts.upload(&house, &client, &sample).start()).unwrap();
        while house.server.tally().videos_created == 0 {
            sleep(Duration::from_millis(5));
        }
        rename(&sample.path());
        let uploaded = running.join_blocking().unwrap();
        house.assert_holds(&uploaded.video_id, &sample.path().with_extension("other"));
    });
}

#[test]
fn another_file_at_the_path_ends_the_upload() {
    let (house, sample) = (house(Scheme::Http, 700), Way::Bytes.sample(6));
    let child = start(&mut upload(&house, Way::Bytes, None, &sample.path(), &[]));
    wait_for_three_chunks(&house);
    let other = sample.path().with_extension("new");
    fs::copy(sample.path(), &other).unwrap();
    fs::rename(&other, sample.path()).unwrap();
    end(child).failed(UNSUITED, &["replaced by another file"]);
}

#[test]
fn strictly_a_link_ends_the_upload() {
    let (house, sample) = (house(Scheme::Http, 700), Way::Bytes.sample(6));
    let args = ["--on-change", "strict"];
    let child = start(&mut upload(&house, Way::Bytes, None, &sample.path(), &args));
    wait_for_three_chunks(&house);
    link(&sample.path());
    end(child).failed(UNSUITED, &["changed in its attributes or links"]);
}

#[test]
fn a_program_is_told_of_the_change() {
    let (house, sample) = (house(Scheme::Http, 700), Way::Bytes.sample(6));
    let client = house.hasty_client().lanes(1).build().unwrap();
    let start = |on_change| {
        let upload = Way::Bytes.upload(&house, &client, &sample).on_change(on_change);
        pollster::block_on(upload.start()).unwrap()
    };
    let mut running = start(OnChange::Fail);
    let events = running.events();
    wait_for_three_chunks(&house);
    link(&sample.path());
    running.join_blocking().unwrap();
    let events: Vec<UploadEvent> = pollster::block_on(futures_util::StreamExt::collect(events));
    let touched = events.iter().filter(|event| matches!(event, UploadEvent::SourceTouched { .. }));
    assert_eq!(touched.count(), 1, "{events:?}");
}

// Between two runs.

/// A file of which a command that was killed has sent three chunks and seen the answers to two.
struct Left {
    house: House,
    way: Way,
    sample: Sample,
    token: Option<String>,
    video_id: String,
}

impl Left {
    fn new(scheme: Scheme, way: Way, args: &[&str]) -> Left {
        Left::of(scheme, way, way.sample(6), args)
    }

    fn of(scheme: Scheme, way: Way, sample: Sample, args: &[&str]) -> Left {
        let house = house(scheme, 60_000);
        let token = way.token(&house);
        let child = start(&mut upload(&house, way, token.as_deref(), &sample.path(), args));
        wait_for_three_chunks(&house);
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        let video_id = id(&end(child));
        // Later than the tick of the clock in which the file was written.
        sleep(Duration::from_millis(20));
        Left { house, way, sample, token, video_id }
    }

    fn again(&self, args: &[&str]) -> Ran {
        run(&mut upload(&self.house, self.way, self.token.as_deref(), &self.sample.path(), args))
    }

    fn assert_begins_anew(&self, ran: Ran) {
        let ran = ran.done();
        let new = ran.summary()["video_id"].as_str().unwrap().to_owned();
        let begins = ran.event("begins_anew");
        assert_ne!(new, self.video_id);
        assert_eq!(begins["video_id"], *self.video_id);
        assert!(ran.stderr.contains("WARN") && ran.stderr.contains("beginning anew"), "{}", ran.stderr);
        assert!(!has_event(&ran, "resumed"), "{}", ran.stdout);
        self.house.assert_holds(&new, &self.sample.path());
    }

    fn assert_goes_on(&self, ran: Ran, sends_again: usize) -> Ran {
        let ran = ran.done();
        assert_eq!(ran.summary()["video_id"], *self.video_id);
        self.house.assert_holds(&self.video_id, &self.sample.path());
        assert_eq!(self.house.chunk_requests().len(), 6 + sends_again);
        ran
    }
}

/// With a key the chunk whose answer was lost is found; with a token it is sent again and answered "already sent".
fn sent_again(way: Way) -> usize {
    usize::from(way.is_delegated())
}

#[test]
fn a_file_that_was_rewritten_with_its_mtime_is_never_mixed_with_what_was_sent() {
    let cases = [
        (Scheme::Http, Way::Bytes, vec![]),
        (Scheme::Http, Way::DelegatedParts, vec![]),
        (Scheme::Http, Way::Parts, vec!["--checksum"]),
        (Scheme::Https, Way::Bytes, vec![]),
        (Scheme::Https, Way::DelegatedBytes, vec![]),
        (Scheme::Https, Way::Parts, vec!["--checksum=never"]),
    ];
    each_at_once(cases, |(scheme, way, args)| {
        let left = Left::new(scheme, way, &args);
        rewrite(&left.sample.path());
        left.assert_begins_anew(left.again(&args));
        let [old] = &entries(&left.house)[..] else { panic!("the old one is left") };
        assert_eq!((old.state, old.orphan()), (EntryState::Abandoned, Some(&*left.video_id)));
    });
}

#[test]
fn chunks_of_a_file_that_was_touched_are_proved_by_their_digests() {
    let cases: [(Scheme, Way, &[&str], Act); 4] = [
        (Scheme::Https, Way::Bytes, &[], protect),
        (Scheme::Https, Way::Parts, &[], link),
        (Scheme::Https, Way::DelegatedParts, &[], set_accessed),
        (Scheme::Http, Way::Bytes, &["--checksum"], link),
    ];
    each_at_once(cases, |(scheme, way, args, act)| {
        let left = Left::new(scheme, way, args);
        act(&left.sample.path());
        let ran = left.assert_goes_on(left.again(args), sent_again(way));
        let proved = ran.event("proved");
        assert_eq!((&proved["video_id"], &proved["chunks"]), (&(*left.video_id).into(), &3.into()));
        assert_eq!(proved["bytes"], 3 * CHUNK);
        assert!(ran.stderr.contains("by their digests"), "{}", ran.stderr);
        assert!(entries(&left.house).is_empty());
    });
}

#[test]
fn without_digests_an_upload_of_a_touched_file_begins_anew() {
    let left = Left::new(Scheme::Http, Way::Bytes, &[]);
    protect(&left.sample.path());
    let ran = left.again(&[]);
    assert!(ran.stderr.contains("no digests"), "{}", ran.stderr);
    left.assert_begins_anew(ran);
}

#[test]
fn the_old_video_is_deleted_where_the_upload_was_to_restart() {
    let left = Left::new(Scheme::Http, Way::Bytes, &[]);
    rewrite(&left.sample.path());
    left.assert_begins_anew(left.again(&["--on-change", "restart"]));
    left.house.run(["video", "get", &left.video_id]).failed(3, &[&left.video_id]);
    assert!(entries(&left.house).is_empty());
}

#[test]
fn a_file_that_was_left_alone_is_taken_up_without_a_word() {
    each_at_once([Scheme::Http, Scheme::Https], |scheme| {
        let left = Left::new(scheme, Way::Bytes, &[]);
        let ran = left.assert_goes_on(left.again(&[]), 0);
        assert!(!has_event(&ran, "proved") && !ran.stderr.contains("WARN"), "{ran:?}");
    });
}

#[test]
fn resume_goes_on_with_proved_chunks_and_refuses_others() {
    for (act, is_proved) in [(protect as Act, true), (rewrite, false)] {
        let left = Left::new(Scheme::Https, Way::Bytes, &[]);
        act(&left.sample.path());
        let resumed = left.house.run(["resume", "--json"]);
        match is_proved {
            true => drop(left.assert_goes_on(resumed, 0)),
            false => {
                resumed.failed(UNSUITED, &["is not what an earlier run sent"]);
                left.house.assert_created(1);
            }
        }
    }
}

#[test]
fn a_video_that_was_named_is_not_filled_with_half_of_another_file() {
    let (house, sample) = (house(Scheme::Http, 60_000), Way::Bytes.sample(6));
    let client = house.client().build().unwrap();
    let video = pollster::block_on(client.create_video(ringlift::NewVideo::new("mine"))).unwrap();
    let args = ["--video-id", video.video_id.as_str()];
    let child = start(&mut upload(&house, Way::Bytes, None, &sample.path(), &args));
    wait_for_three_chunks(&house);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
    sleep(Duration::from_millis(20));
    rewrite(&sample.path());
    let ran = run(&mut upload(&house, Way::Bytes, None, &sample.path(), &args));
    ran.failed(UNSUITED, &[&video.video_id, "no digests"]);
    run(&mut upload(&house, Way::Bytes, None, &sample.path(), &args)).failed(UNSUITED, &[&video.video_id]);
}

#[test]
fn an_upload_that_is_cancelled_while_its_chunks_are_proved_is_left_as_it_was() {
    let left = Left::new(Scheme::Https, Way::Bytes, &[]);
    protect(&left.sample.path());
    let stored = entries(&left.house)[0].stored_chunks;
    let journal = left.house.journal();
    let client = left.house.client().with(|settings| settings.journal = Some(journal)).build().unwrap();
    let running = pollster::block_on(client.upload(left.sample.path()).start()).unwrap();
    running.stopper().cancel();
    assert_eq!(running.join_blocking().unwrap_err().kind(), ErrorKind::Cancelled);
    drop(client);
    let [entry] = &entries(&left.house)[..] else { panic!("it is left") };
    assert_eq!((entry.state, entry.stored_chunks), (EntryState::Interrupted, stored));
    left.assert_goes_on(left.again(&[]), 0);
}

/// Sets the file's mtime, which a file system may cut off.
fn set_modified(path: &Path, seconds: i64) -> bool {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
    path.metadata().unwrap().mtime() == seconds
}

#[test]
fn two_times_after_2262_or_before_1970_are_two_times() {
    for (then, now) in [(13_569_465_600, 13_669_465_600), (-2_000_000_000, -1_000_000_000)] {
        let sample = Way::Bytes.sample(6);
        if !set_modified(&sample.path(), then) || !set_modified(&sample.path(), now) {
            println!("skipped: the file system cuts off {now} seconds since 1970");
            continue;
        }
        set_modified(&sample.path(), then);
        let left = Left::of(Scheme::Https, Way::Bytes, sample, &[]);
        set_modified(&left.sample.path(), now);
        let ran = left.again(&[]).done();
        assert_ne!(id(&ran), left.video_id);
        left.house.assert_holds(&id(&ran), &left.sample.path());
    }
}
