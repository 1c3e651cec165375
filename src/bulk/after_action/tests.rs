use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::bulk::file_stamp::FileStamp;

struct Film {
    folder: tempfile::TempDir,
    path: PathBuf,
    stamp: FileStamp,
    done: PathBuf,
}

fn film() -> Film {
    let folder = tempfile::tempdir().unwrap();
    let (path, done) = (folder.path().join("a.mp4"), folder.path().join("done"));
    fs::write(&path, "film").unwrap();
    fs::create_dir(&done).unwrap();
    Film { stamp: FileStamp::of(&path).unwrap(), folder, path, done }
}

impl Film {
    fn moved(&self) -> Result<AfterOutcome, AfterActionError> {
        AfterAction::MoveTo(self.done.clone()).apply(&self.path, &self.stamp)
    }
}

/// A folder on another file system, if there is one here.
fn other_file_system(than: &Path) -> Option<tempfile::TempDir> {
    let device = |path: &Path| FileStamp::of(path).ok().map(|stamp| stamp.device);
    let shm = Path::new("/dev/shm");
    let is_other = device(shm).is_some() && device(shm) != device(than);
    is_other.then(|| tempfile::tempdir_in(shm).ok()).flatten()
}

#[test]
fn actions_are_parsed_and_shown() {
    for (text, action) in [
        ("keep", AfterAction::Keep),
        ("delete", AfterAction::Delete),
        ("move:/a b", AfterAction::MoveTo("/a b".into())),
    ] {
        assert_eq!(text.parse(), Ok(action.clone()));
        assert_eq!(action.to_string(), text);
    }
    for text in ["", "move", "move:", "Keep", "remove"] {
        assert_eq!(text.parse::<AfterAction>(), Err(UnknownAfterAction), "{text}");
    }
    let bytes = OsStr::from_bytes(b"move:/caf\xe9");
    let folder = PathBuf::from(OsStr::from_bytes(b"/caf\xe9"));
    assert_eq!(AfterAction::try_from(bytes), Ok(AfterAction::MoveTo(folder)));
}

#[test]
fn a_kept_file_is_not_even_examined() {
    let film = film();
    fs::remove_file(&film.path).unwrap();
    assert_eq!(AfterAction::Keep.apply(&film.path, &film.stamp).unwrap(), AfterOutcome::Kept);
}

#[test]
fn a_move_can_be_repeated() {
    let film = film();
    let to = film.done.join("a.mp4");
    assert_eq!(film.moved().unwrap(), AfterOutcome::Moved(to.clone()));
    assert_eq!(fs::read(&to).unwrap(), b"film");
    assert_eq!(film.moved().unwrap(), AfterOutcome::AlreadyDone);
    fs::remove_file(&to).unwrap();
    assert!(matches!(film.moved(), Err(AfterActionError::Missing { .. })));
}

#[test]
fn a_deletion_can_be_repeated() {
    let film = film();
    let delete = || AfterAction::Delete.apply(&film.path, &film.stamp).unwrap();
    assert_eq!(delete(), AfterOutcome::Deleted);
    assert!(!film.path.exists());
    assert_eq!(delete(), AfterOutcome::AlreadyDone);
}

#[test]
fn a_move_overwrites_nothing() {
    let film = film();
    fs::write(film.done.join("a.mp4"), "firm").unwrap();
    assert!(matches!(film.moved(), Err(AfterActionError::NameTaken { .. })));
    assert_eq!(fs::read(&film.path).unwrap(), b"film");
    assert_eq!(fs::read(film.done.join("a.mp4")).unwrap(), b"firm");
}

#[test]
fn a_file_that_changed_is_neither_moved_nor_deleted() {
    let film = film();
    for content in ["longer film", "firm"] {
        fs::remove_file(&film.path).unwrap();
        fs::write(&film.path, content).unwrap();
        assert!(matches!(film.moved(), Err(AfterActionError::Changed { .. })));
        let deleted = AfterAction::Delete.apply(&film.path, &film.stamp);
        assert!(matches!(deleted, Err(AfterActionError::Changed { .. })));
        assert_eq!(fs::read(&film.path).unwrap(), content.as_bytes());
    }
}

#[test]
fn a_file_in_the_folder_of_finished_files_stays() {
    let film = film();
    let action = AfterAction::MoveTo(film.done.join(".."));
    assert!(matches!(action.apply(&film.path, &film.stamp).unwrap(), AfterOutcome::Moved(_)));
    assert_eq!(fs::read(&film.path).unwrap(), b"film");
}

#[test]
fn a_move_that_a_crash_left_between_two_links_is_finished() {
    let film = film();
    fs::hard_link(&film.path, film.done.join("a.mp4")).unwrap();
    assert!(matches!(film.moved().unwrap(), AfterOutcome::Moved(_)));
    assert!(!film.path.exists() && film.done.join("a.mp4").exists());
}

#[test]
fn links_and_missing_folders_are_refused() {
    let film = film();
    let link = film.folder.path().join("link.mp4");
    symlink(&film.path, &link).unwrap();
    let deleted = AfterAction::Delete.apply(&link, &film.stamp);
    assert!(matches!(deleted, Err(AfterActionError::Link { .. })) && link.exists());
    let missing = AfterAction::MoveTo(film.folder.path().join("gone"));
    assert!(matches!(missing.check(), Err(AfterActionError::NoFolder { .. })));
    assert!(matches!(missing.apply(&film.path, &film.stamp), Err(AfterActionError::NoFolder { .. })));
    assert!(film.path.exists());
}

#[test]
fn a_move_to_another_file_system_copies_and_then_removes() {
    let mut film = film();
    let Some(other) = other_file_system(&film.path) else { return };
    film.done = other.path().to_owned();
    let to = film.done.join("a.mp4");
    assert_eq!(film.moved().unwrap(), AfterOutcome::Moved(to.clone()));
    let copy = FileStamp::of(&to).unwrap();
    assert_eq!((copy.bytes, copy.modified_ns), (film.stamp.bytes, film.stamp.modified_ns));
    assert!(!film.path.exists());
    assert_eq!(fs::read_dir(&film.done).unwrap().count(), 1, "nothing is left beside the copy");
    assert_eq!(film.moved().unwrap(), AfterOutcome::AlreadyDone);
}

#[test]
fn a_copy_that_a_crash_left_beside_the_original_is_recognized_by_its_bytes() {
    let mut film = film();
    let Some(other) = other_file_system(&film.path) else { return };
    film.done = other.path().to_owned();
    let to = film.done.join("a.mp4");
    let times = fs::FileTimes::new().set_modified(film.stamp.modified());
    fs::write(&to, "firm").unwrap();
    fs::File::options().write(true).open(&to).unwrap().set_times(times).unwrap();
    assert!(matches!(film.moved(), Err(AfterActionError::NameTaken { .. })));
    assert!(film.path.exists());
    fs::write(&to, "film").unwrap();
    fs::File::options().write(true).open(&to).unwrap().set_times(times).unwrap();
    assert_eq!(film.moved().unwrap(), AfterOutcome::Moved(to));
    assert!(!film.path.exists());
}
