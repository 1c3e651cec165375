//! Watches of real folders.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::event_source::{AddError, FolderEvent, FolderId};
use super::*;
use crate::bulk::walk::WalkOptions;

/// Longer than any of these watches needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watch that a thread reads.
struct Reading {
    handle: WatchHandle,
    files: Receiver<FoundFile>,
    notices: Vec<WatchNotice>,
}

impl Reading {
    fn of(watch: Watch) -> Reading {
        let (handle, (sender, files)) = (watch.handle(), channel());
        std::thread::spawn(move || {
            let mut watch = watch;
            watch.by_ref().take_while(|file| sender.send(file.clone()).is_ok()).for_each(drop);
        });
        Reading { handle, files, notices: Vec::new() }
    }

    fn start(folder: &Path, options: WatchOptions) -> Reading {
        Reading::of(Watch::start(&[folder.to_owned()], options).unwrap())
    }

    /// Returns the next file: its path relative to the folder, and its length.
    fn next(&self) -> (String, u64) {
        let file = self.files.recv_timeout(PATIENCE).expect("a file is missing");
        (file.relative.to_string_lossy().into_owned(), file.stamp.bytes)
    }

    fn next_names(&self, count: usize) -> Vec<String> {
        let mut names: Vec<_> = (0..count).map(|_| self.next().0).collect();
        names.sort();
        names
    }

    /// Waits for a notice with this name.
    fn notice(&mut self, name: &str) -> WatchNotice {
        let end = Instant::now() + PATIENCE;
        loop {
            self.notices.extend(self.handle.notices());
            if let Some(index) = self.notices.iter().position(|notice| notice.name() == name) {
                return self.notices.remove(index);
            }
            assert!(Instant::now() < end, "no {name} among {:?}", self.notices);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the folder was scanned and nothing is pending, and asserts that no other file was returned.
    fn assert_nothing_more(&self) {
        let end = Instant::now() + PATIENCE;
        let first = self.handle.status().steps;
        loop {
            let status = self.handle.status();
            if status.steps > first + 2 && status.pending == 0 && !status.is_scanning {
                break;
            }
            assert!(Instant::now() < end, "{status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.files.try_recv().ok(), None);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn quick() -> WatchOptions {
    WatchOptions { settle: Some(Duration::from_millis(20)), ..WatchOptions::default() }
}

/// Creates a folder on tmpfs, where there is one.
fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn files_are_found_that_were_there_are_moved_in_linked_or_written() {
    for folder in [memory_folder(), tempfile::tempdir().unwrap()] {
        let outside = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("there.mp4"), "1").unwrap();
        fs::write(path("notes.txt"), "no video").unwrap();
        let reading = Reading::start(folder.path(), quick());
        assert_eq!(reading.next(), ("there.mp4".to_owned(), 1));
        fs::write(outside.path().join("moved.mp4"), "22").unwrap();
        fs::rename(outside.path().join("moved.mp4"), path("moved.mp4")).unwrap();
        assert_eq!(reading.next(), ("moved.mp4".to_owned(), 2));
        fs::write(outside.path().join("film.mp4"), "333").unwrap();
        fs::hard_link(outside.path().join("film.mp4"), path("linked.mp4")).unwrap();
        assert_eq!(reading.next(), ("linked.mp4".to_owned(), 3));
        fs::write(path("film.mp4.part"), "4444").unwrap();
        fs::rename(path("film.mp4.part"), path("film.mp4")).unwrap();
        assert_eq!(reading.next(), ("film.mp4".to_owned(), 4));
        fs::rename(path("film.mp4"), path("renamed.mp4")).unwrap();
        assert_eq!(reading.next(), ("renamed.mp4".to_owned(), 4));
        fs::write(path("there.mp4"), "55555").unwrap();
        assert_eq!(reading.next(), ("there.mp4".to_owned(), 5));
        reading.assert_nothing_more();
    }
}

#[test]
fn folders_that_arrive_with_their_files_are_watched_and_renamed_ones_have_their_new_name() {
    let (folder, outside) = (memory_folder(), memory_folder());
    let reading = Reading::start(folder.path(), quick());
    for round in 0..20 {
        let deep = folder.path().join(format!("a{round}/b"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("film.mp4"), "film").unwrap();
        fs::create_dir_all(outside.path().join(format!("c{round}/d"))).unwrap();
        fs::write(outside.path().join(format!("c{round}/d/film.mp4")), "film").unwrap();
        fs::rename(outside.path().join(format!("c{round}")), folder.path().join(format!("c{round}")))
            .unwrap();
    }
    let names = reading.next_names(40);
    assert!(names.contains(&"a19/b/film.mp4".to_owned()) && names.contains(&"c0/d/film.mp4".to_owned()));
    fs::rename(folder.path().join("a0"), folder.path().join("new")).unwrap();
    assert_eq!(reading.next().0, "new/b/film.mp4");
    fs::write(folder.path().join("new/b/second.mp4"), "film").unwrap();
    assert_eq!(reading.next().0, "new/b/second.mp4");
    reading.assert_nothing_more();
}

#[test]
fn a_file_that_is_open_for_writing_is_returned_after_it_is_closed() {
    let folder = memory_folder();
    let path = folder.path().join("film.mp4");
    let mut writer = File::create(&path).unwrap();
    if !writer_lease::has_writer(&File::open(&path).unwrap()) {
        return; // The kernel grants no leases here.
    }
    let reading = Reading::start(folder.path(), quick());
    for _ in 0..5 {
        writer.write_all(b"part").unwrap();
        // Several settle times, and two looks at the open file in the end.
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(writer);
    assert_eq!(reading.next(), ("film.mp4".to_owned(), 20));
    reading.assert_nothing_more();
}

#[test]
fn a_file_that_is_written_in_many_parts_is_returned_when_it_rests() {
    let folder = memory_folder();
    let mut options = quick();
    options.settle = Some(Duration::from_secs(2));
    let reading = Reading::start(folder.path(), options);
    let path = folder.path().join("film.mp4");
    for _ in 0..30 {
        OpenOptions::new().create(true).append(true).open(&path).unwrap().write_all(b"part").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(reading.next(), ("film.mp4".to_owned(), 120));
    reading.assert_nothing_more();
}

#[test]
fn a_mark_replaces_the_settle_time_and_is_never_returned() {
    let folder = memory_folder();
    let path = |name: &str| folder.path().join(name);
    let mut options = quick();
    options.settle = Some(Duration::from_secs(3600));
    options.done_suffix = Some(".done".into());
    options.walk.all_files = true;
    fs::write(path("early.mp4"), "1").unwrap();
    fs::write(path("early.mp4.done"), "").unwrap();
    fs::write(path("unmarked.mp4"), "22").unwrap();
    let reading = Reading::start(folder.path(), options);
    assert_eq!(reading.next().0, "early.mp4");
    fs::write(path("late.mp4"), "333").unwrap();
    fs::write(path("orphan.mp4.done"), "").unwrap();
    fs::write(path(".done"), "").unwrap();
    fs::write(path("late.mp4.done"), "").unwrap();
    assert_eq!(reading.next(), ("late.mp4".to_owned(), 3));
    reading.assert_nothing_more();
    // A mark that is older than its file says nothing about this content.
    fs::write(path("again.mp4"), "4444").unwrap();
    let file = File::open(path("again.mp4")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + Duration::from_secs(100)).unwrap();
    fs::write(path("again.mp4.done"), "").unwrap();
    let end = Instant::now() + PATIENCE;
    while reading.handle.status().pending == 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(reading.files.try_recv().ok(), None);
}

/// Events that are lost as long as `is_deaf` is set, and a queue that then overflows.
#[derive(Debug)]
struct LossySource {
    inner: InotifySource,
    is_deaf: Arc<AtomicBool>,
    has_lost: bool,
}

impl EventSource for LossySource {
    fn add(&mut self, folder: &Path) -> Result<FolderId, AddError> {
        self.inner.add(folder)
    }

    fn remove(&mut self, folder: FolderId) {
        self.inner.remove(folder);
    }

    fn read(&mut self, events: &mut Vec<FolderEvent>) -> std::io::Result<()> {
        self.inner.read(events)?;
        if self.is_deaf.load(Ordering::SeqCst) {
            self.has_lost |= !events.is_empty();
            events.clear();
        } else if std::mem::take(&mut self.has_lost) {
            events.push(FolderEvent::Overflow);
        }
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}

#[test]
fn after_lost_events_everything_is_scanned() {
    let folder = memory_folder();
    let is_deaf = Arc::new(AtomicBool::new(true));
    let inner = InotifySource::new().unwrap();
    let source = LossySource { inner, is_deaf: is_deaf.clone(), has_lost: false };
    let folders = [folder.path().to_owned()];
    let watch = Watch::start_with(&folders, quick(), Ok(Box::new(source))).unwrap();
    let mut reading = Reading::of(watch);
    reading.assert_nothing_more();
    fs::create_dir(folder.path().join("new")).unwrap();
    fs::write(folder.path().join("new/film.mp4"), "film").unwrap();
    let steps = reading.handle.status().steps;
    while reading.handle.status().steps < steps + 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    reading.assert_nothing_more();
    is_deaf.store(false, Ordering::SeqCst);
    assert_eq!(reading.next().0, "new/film.mp4");
    assert_eq!(reading.notice("events_lost"), WatchNotice::EventsLost);
    // The folder is watched since its scan.
    fs::write(folder.path().join("new/second.mp4"), "film").unwrap();
    assert_eq!(reading.next().0, "new/second.mp4");
}

/// A user who has no watch left.
#[derive(Debug)]
struct ExhaustedSource;

impl EventSource for ExhaustedSource {
    fn add(&mut self, _: &Path) -> Result<FolderId, AddError> {
        Err(AddError::Limit)
    }

    fn remove(&mut self, _: FolderId) {}

    fn read(&mut self, _: &mut Vec<FolderEvent>) -> std::io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn without_watches_folders_are_scanned_and_the_limit_is_named() {
    let errors = [None, Some(std::io::Error::from_raw_os_error(24))];
    for (error, sysctl) in
        errors.into_iter().zip(["fs.inotify.max_user_watches", "fs.inotify.max_user_instances"])
    {
        let folder = memory_folder();
        let source = error.map_or(Ok(Box::new(ExhaustedSource) as Box<dyn EventSource>), Err);
        let mut options = quick();
        options.rescan = Duration::from_millis(50);
        let folders = [folder.path().to_owned()];
        let mut reading = Reading::of(Watch::start_with(&folders, options, source).unwrap());
        assert!(reading.notice("polling").to_string().contains(sysctl));
        fs::create_dir(folder.path().join("new")).unwrap();
        fs::write(folder.path().join("new/film.mp4"), "film").unwrap();
        assert_eq!(reading.next().0, "new/film.mp4");
        reading.assert_nothing_more();
        assert!(reading.handle.notices().is_empty(), "the notice is given once");
    }
}

#[test]
fn a_folder_that_vanishes_is_waited_for() {
    let above = memory_folder();
    let folder = above.path().join("films");
    fs::create_dir(&folder).unwrap();
    let mut reading = Reading::start(&folder, quick());
    fs::write(folder.join("first.mp4"), "film").unwrap();
    assert_eq!(reading.next().0, "first.mp4");
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(reading.notice("folder_gone"), WatchNotice::FolderGone { folder: folder.clone() });
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("second.mp4"), "film").unwrap();
    assert_eq!(reading.notice("folder_back"), WatchNotice::FolderBack { folder: folder.clone() });
    assert_eq!(reading.next().0, "second.mp4");
    // Renamed away, and another folder in its place.
    fs::rename(&folder, above.path().join("old")).unwrap();
    fs::create_dir(&folder).unwrap();
    reading.notice("folder_gone");
    reading.notice("folder_back");
    fs::write(above.path().join("old/elsewhere.mp4"), "film").unwrap();
    fs::write(folder.join("third.mp4"), "film").unwrap();
    assert_eq!(reading.next().0, "third.mp4");
    reading.assert_nothing_more();
}

#[test]
fn one_process_watches_a_folder_for_a_queue() {
    let (folder, state) = (memory_folder(), memory_folder());
    let mut options = quick();
    options.lock_beside = Some(state.path().join("jobs.db"));
    let folders = [folder.path().to_owned()];
    let first = Watch::start(&folders, options.clone()).unwrap();
    let error = Watch::start(&folders, options.clone()).unwrap_err();
    assert!(matches!(error, WatchError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    let texts = [format!("process {}", std::process::id()), folder.path().display().to_string()];
    assert!(texts.iter().all(|text| error.to_string().contains(text)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let other_queue = WatchOptions { lock_beside: Some(state.path().join("other.db")), ..options.clone() };
    drop(Watch::start(&folders, other_queue).unwrap());
    drop(first);
    Watch::start(&folders, options).unwrap();
}

#[test]
fn folders_that_cannot_be_watched_are_refused_by_name() {
    let folder = memory_folder();
    let (inner, file) = (folder.path().join("inner"), folder.path().join("film.mp4"));
    fs::create_dir(&inner).unwrap();
    fs::write(&file, "film").unwrap();
    let start = |folders: &[&Path]| {
        let folders: Vec<_> = folders.iter().map(|folder| folder.to_path_buf()).collect();
        Watch::start(&folders, quick())
    };
    assert!(matches!(start(&[]), Err(WatchError::NoFolder)));
    assert!(matches!(start(&[&file]), Err(WatchError::NotAFolder { .. })));
    assert!(matches!(start(&[&folder.path().join("gone")]), Err(WatchError::Folder { .. })));
    assert!(matches!(start(&[folder.path(), &inner]), Err(WatchError::Nested { .. })));
    drop(start(&[&inner, &folder.path().join("inner/."), &inner]).unwrap());
    for suffix in ["", "/x"] {
        let options = WatchOptions { done_suffix: Some(suffix.into()), ..quick() };
        let refused = Watch::start(std::slice::from_ref(&inner), options);
        assert!(matches!(refused, Err(WatchError::DoneSuffix)));
    }
}

#[test]
fn a_slow_reader_gets_every_file_once_and_a_fifo_stops_nothing() {
    let folder = memory_folder();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("fifo.mp4"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for number in 0..500 {
        fs::write(folder.path().join(format!("{number:03}.mp4")), "film").unwrap();
    }
    let watch = Watch::start(&[folder.path().to_owned()], quick()).unwrap();
    let handle = watch.handle();
    let end = Instant::now() + PATIENCE;
    while handle.status().queued < 64 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    let reading = Reading::of(watch);
    let names = reading.next_names(500);
    assert_eq!((names[0].as_str(), names[499].as_str()), ("000.mp4", "499.mp4"));
    reading.assert_nothing_more();
}

#[test]
fn a_stopped_watch_returns_nothing_more_and_ends_its_thread() {
    let folder = memory_folder();
    fs::write(folder.path().join("film.mp4"), "film").unwrap();
    let mut watch = Watch::start(&[folder.path().to_owned()], quick()).unwrap();
    let handle = watch.handle();
    handle.stop();
    assert_eq!(watch.next(), None);
    drop(watch);
    assert!(handle.status().is_ended);
}

#[test]
fn a_folder_that_is_skipped_or_too_deep_gives_nothing_by_events_either() {
    let folder = memory_folder();
    let done = folder.path().join("done");
    fs::create_dir(&done).unwrap();
    let mut options = quick();
    options.walk =
        WalkOptions { max_depth: Some(2), skipped_folders: vec![done.clone()], ..WalkOptions::default() };
    let reading = Reading::start(folder.path(), options);
    reading.assert_nothing_more();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    for path in ["done/moved.mp4", "a/b/deep.mp4", "a/.hidden.mp4", "a/film.mp4.part", "a/film.mp4"] {
        fs::write(folder.path().join(path), "film").unwrap();
    }
    assert_eq!(reading.next().0, "a/film.mp4");
    reading.assert_nothing_more();
}
