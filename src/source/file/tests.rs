use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::*;

fn change_after(act: impl FnOnce(&Path)) -> Option<Change> {
    after(Strictness::Content, act).unwrap_or_else(Some)
}

/// The change that counts as an error, or the one that harmed no byte.
fn after(strictness: Strictness, act: impl FnOnce(&Path)) -> Result<Option<Change>, Change> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("movie.mp4");
    fs::write(&path, b"twelve bytes").unwrap();
    let file = SourceFile::open(&path).unwrap().with_strictness(strictness);
    file.check_unchanged().unwrap();
    // Later than the clock's tick in which it was written.
    std::thread::sleep(Duration::from_millis(20));
    act(&path);
    match file.check_unchanged() {
        Ok(_) => Ok(file.touched()),
        Err(SourceError::Changed { path: named, change }) if named == path => Err(change),
        Err(other) => panic!("{other:?}"),
    }
}

fn reopen(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn a_file_left_alone_is_unchanged() {
    assert_eq!(change_after(|_| {}), None);
    assert_eq!(change_after(|path| drop(fs::read(path))), None);
}

fn link(path: &Path) {
    fs::hard_link(path, path.with_extension("link")).unwrap();
}

fn protect(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
}

fn set_accessed(path: &Path) {
    let times = fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
    reopen(path).set_times(times).unwrap();
}

fn rename(path: &Path) {
    fs::rename(path, path.with_extension("other")).unwrap();
}

#[test]
fn changes_that_keep_the_content_are_recorded_and_fail_only_under_strictness() {
    type Act = fn(&Path);
    let acts: [(Act, Change); 5] = [
        (link, Change::Touched),
        (protect, Change::Touched),
        (set_accessed, Change::Touched),
        (rename, Change::Removed),
        (|path| fs::remove_file(path).unwrap(), Change::Removed),
    ];
    for (act, change) in acts {
        assert_eq!(after(Strictness::Content, act), Ok(Some(change)));
        assert_eq!(after(Strictness::Attributes, act), Err(change));
    }
}

#[test]
fn a_write_counts_also_where_the_file_was_renamed_before() {
    let rename_and_write = |path: &Path| {
        rename(path);
        reopen(&path.with_extension("other")).write_all(b"other").unwrap();
    };
    assert_eq!(after(Strictness::Content, rename_and_write), Err(Change::Rewritten));
}

#[test]
fn a_renamed_or_removed_file_is_opened_a_second_time_by_its_descriptor() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("movie.mp4");
    fs::write(&path, b"twelve bytes").unwrap();
    let file = SourceFile::open(&path).unwrap();
    let Ok(_) = file.open_direct() else {
        return println!("skipped: the file system has no O_DIRECT");
    };
    rename(&path);
    fs::write(&path, b"another file").unwrap();
    let inode = |file: &File| file.metadata().unwrap().ino();
    assert_eq!(inode(&file.open_direct().unwrap()), file.identity().inode);
    fs::remove_file(path.with_extension("other")).unwrap();
    assert_eq!(inode(&file.open_direct().unwrap()), file.identity().inode);
}

#[test]
fn times_before_1970_and_after_2262_are_kept_to_the_nanosecond() {
    for (seconds, nsec) in [(-2, 5), (0, 0), (13_569_465_600, 7), (i64::MAX, 999_999_999)] {
        assert_eq!(nanoseconds(seconds, nsec).div_euclid(1_000_000_000), i128::from(seconds));
        assert_eq!(nanoseconds(seconds, nsec).rem_euclid(1_000_000_000), i128::from(nsec));
    }
}

#[test]
fn every_kind_of_change_has_its_name() {
    let cut = |path: &Path| reopen(path).set_len(3).unwrap();
    assert_eq!(change_after(cut), Some(Change::Truncated { from: 12, to: 3 }));
    let grow = |path: &Path| reopen(path).set_len(13).unwrap();
    assert_eq!(change_after(grow), Some(Change::Grown { from: 12, to: 13 }));
    assert_eq!(change_after(|path| fs::remove_file(path).unwrap()), Some(Change::Removed));
    assert_eq!(change_after(link), Some(Change::Touched));
    let replace = |path: &Path| {
        fs::write(path.with_extension("new"), b"twelve bytes").unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    assert_eq!(change_after(replace), Some(Change::Replaced));
    let rewrite = |path: &Path| {
        let mut file = reopen(path);
        file.write_all(b"other").unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() + Duration::from_secs(5)).unwrap();
    };
    assert_eq!(change_after(rewrite), Some(Change::Rewritten));
}

#[test]
fn other_things_than_readable_files_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| SourceFile::open(folder.path().join(name)).unwrap_err();
    assert!(matches!(open("missing"), SourceError::NotFound { .. }));
    assert!(matches!(open(""), SourceError::IsDirectory { .. }));
    let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    assert!(matches!(open("socket"), SourceError::NotAFile { .. }));
    let device = SourceFile::open("/dev/null").unwrap_err();
    assert!(matches!(device, SourceError::NotAFile { .. }));
    assert_eq!(device.to_string().split(':').next(), Some("/dev/null"));
}

#[test]
fn opening_a_pipe_without_a_writer_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(SourceFile::open(path), Err(SourceError::NotAFile { .. })));
}
