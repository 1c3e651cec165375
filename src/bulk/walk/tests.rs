use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::*;

/// Creates a folder with empty files.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "film").unwrap();
    }
    root
}

fn sorted() -> WalkOptions {
    WalkOptions { is_sorted: true, ..WalkOptions::default() }
}

/// Walks to the end: the relative paths, the errors, the numbers.
fn walked(root: &Path, options: WalkOptions) -> (Vec<String>, Vec<WalkError>, WalkCounts) {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    let mut walk = Walk::new(root, options);
    for found in walk.by_ref() {
        match found {
            Ok(file) => files.push(file.relative.to_string_lossy().into_owned()),
            Err(error) => errors.push(error),
        }
    }
    (files, errors, walk.counts().clone())
}

#[test]
fn videos_are_found_and_the_others_are_counted() {
    let root = folder(&[
        "a.MP4",
        "b/c.mkv",
        "b/notes.txt",
        ".hidden.mp4",
        ".git/x.mp4",
        "d.mp4.part",
        "e.tmp",
        "f.CRDOWNLOAD",
    ]);
    let (files, errors, counts) = walked(root.path(), sorted());
    assert_eq!(files, ["a.MP4", "b/c.mkv"]);
    assert!(errors.is_empty());
    assert_eq!((counts.files, counts.ignored, counts.hidden), (2, 1, 5));
    let all = WalkOptions { all_files: true, ..sorted() };
    assert_eq!(walked(root.path(), all).0, ["a.MP4", "b/c.mkv", "b/notes.txt"]);
}

#[test]
fn a_named_file_is_taken_whatever_its_name() {
    let root = folder(&[".notes.part"]);
    let (files, errors, _) = walked(&root.path().join(".notes.part"), sorted());
    assert_eq!((files, errors.len()), (vec![".notes.part".to_owned()], 0));
}

#[test]
fn a_missing_source_is_an_error_of_its_own() {
    let root = folder(&[]);
    let (files, errors, _) = walked(&root.path().join("gone"), sorted());
    assert!(files.is_empty() && matches!(errors[..], [WalkError::Missing { .. }]));
}

#[test]
fn depth_one_is_the_files_directly_in_the_source() {
    let root = folder(&["a.mp4", "b/c.mp4", "b/d/e.mp4", ".x/f.mp4", "z.mp4"]);
    for (max_depth, expected) in [(1, &["a.mp4", "z.mp4"][..]), (2, &["a.mp4", "b/c.mp4", "z.mp4"])] {
        let options = WalkOptions { max_depth: Some(max_depth), ..sorted() };
        assert_eq!(walked(root.path(), options).0, expected);
    }
}

#[test]
fn a_hidden_source_is_walked() {
    let root = folder(&[".films/a.mp4"]);
    assert_eq!(walked(&root.path().join(".films"), sorted()).0, ["a.mp4"]);
}

#[test]
fn links_are_followed_only_on_request() {
    let root = folder(&["films/a.mp4"]);
    let other = folder(&["b.mp4", "c/d.mp4"]);
    symlink(other.path().join("b.mp4"), root.path().join("films/link.mp4")).unwrap();
    symlink(other.path().join("c"), root.path().join("films/folder")).unwrap();
    symlink(root.path().join("films"), root.path().join("start")).unwrap();
    let (files, _, counts) = walked(&root.path().join("start"), sorted());
    assert_eq!((files, counts.links), (vec!["a.mp4".to_owned()], 2));
    let options = WalkOptions { follow_links: true, ..sorted() };
    assert_eq!(walked(&root.path().join("films"), options).0, ["a.mp4", "folder/d.mp4", "link.mp4"]);
}

#[test]
fn a_loop_of_links_is_reported_once() {
    let root = folder(&["a.mp4", "b/c.mp4"]);
    symlink("..", root.path().join("b/up")).unwrap();
    symlink("gone", root.path().join("z.mp4")).unwrap();
    let options = WalkOptions { follow_links: true, ..sorted() };
    let (files, errors, _) = walked(root.path(), options);
    assert_eq!(files, ["a.mp4", "b/c.mp4"]);
    assert!(matches!(errors[..], [WalkError::Loop { .. }, WalkError::Vanished { .. }]), "{errors:?}");
}

#[test]
fn a_folder_without_permission_is_a_row_and_not_the_end() {
    let root = folder(&["a/b.mp4", "c/d.mp4"]);
    let closed = root.path().join("a");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    let is_closed = fs::read_dir(&closed).is_err();
    let (files, errors, _) = walked(root.path(), sorted());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(files.contains(&"c/d.mp4".to_owned()));
    assert_eq!(errors.len(), usize::from(is_closed));
}

#[test]
fn files_that_vanish_during_the_walk_are_rows() {
    let root = folder(&["a.mp4", "b.mp4", "c/d.mp4"]);
    let mut walk = Walk::new(root.path(), sorted());
    assert!(walk.next().unwrap().is_ok());
    fs::remove_file(root.path().join("b.mp4")).unwrap();
    fs::remove_dir_all(root.path().join("c")).unwrap();
    let rest: Vec<_> = walk.collect();
    assert!(
        !rest.is_empty() && rest.iter().all(|found| matches!(found, Err(WalkError::Vanished { .. }))),
        "{rest:?}"
    );
}

#[test]
fn a_fifo_is_never_opened() {
    let root = folder(&["b.mp4"]);
    let fifo = root.path().join("a.mp4");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (files, errors, counts) = walked(root.path(), sorted());
    assert_eq!((files, errors.len(), counts.special), (vec!["b.mp4".to_owned()], 0, 1));
    assert!(matches!(walked(&fifo, sorted()).1[..], [WalkError::Special { .. }]));
}

#[test]
fn names_are_bytes() {
    let root = folder(&[]);
    let name = OsStr::from_bytes(b"caf\xe9\n.mp4");
    fs::write(root.path().join(name), "film").unwrap();
    let found: Vec<_> = Walk::new(root.path(), sorted()).map(|found| found.unwrap().relative).collect();
    assert_eq!(found, [Path::new(name)]);
}

#[test]
fn a_filter_chooses_and_saves_the_reading_of_folders() {
    let root = folder(&["a.mp4", "drafts/b.mp4", "c/new.mp4", "c/old.mp4"]);
    let filter =
        Filter::default().exclude("/drafts/").unwrap().exclude("old.*").unwrap().exclude("typo").unwrap();
    let filter = Arc::new(filter);
    let options = WalkOptions { filter: Some(filter.clone()), ..sorted() };
    let (files, _, counts) = walked(root.path(), options);
    assert_eq!(files, ["a.mp4", "c/new.mp4"]);
    assert_eq!(counts.filter.excluded_folders, 1);
    assert_eq!(counts.filter.unused(&filter).collect::<Vec<_>>(), ["- typo"]);
}

#[test]
fn ages_are_measured_from_the_given_time() {
    let root = folder(&["a.mp4"]);
    let mut filter = Filter::default();
    filter.min_age = Some(Duration::from_secs(3600));
    let modified = FileStamp::of(&root.path().join("a.mp4")).unwrap().modified();
    for (hours, count) in [(0, 0), (2, 1)] {
        let now = Some(modified + Duration::from_secs(hours * 3600));
        let options = WalkOptions { filter: Some(Arc::new(filter.clone())), now, ..sorted() };
        assert_eq!(walked(root.path(), options).0.len(), count);
    }
}

#[test]
fn the_folder_of_finished_files_is_not_entered() {
    let root = folder(&["a.mp4", "done/b.mp4"]);
    let skipped_folders = vec![root.path().join("x/../done"), root.path().join("./done")];
    let options = WalkOptions { skipped_folders, ..sorted() };
    assert_eq!(walked(root.path(), options).0, ["a.mp4"]);
}

#[test]
fn a_walk_below_a_source_follows_the_rules_of_the_source() {
    let root = folder(&["a/b/c.mp4", "a/b/d/e.mp4", "a/notes.txt", "a/.x/f.mp4", "g.part/h.mp4"]);
    symlink(root.path().join("a"), root.path().join("link")).unwrap();
    let filter = Filter::default().line("- /a/b/c.mp4").unwrap();
    let found = |start: &str, max_depth: Option<usize>| {
        let options = WalkOptions { max_depth, filter: Some(Arc::new(filter.clone())), ..sorted() };
        let files = Walk::below(root.path(), root.path().join(start), options).filter_map(Result::ok);
        files.map(|file| file.relative.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("a/b", None), ["a/b/d/e.mp4"]);
    assert_eq!(found("a/b/d/e.mp4", None), ["a/b/d/e.mp4"]);
    for (start, max_depth) in
        [("a/b/c.mp4", None), ("a/notes.txt", None), ("a/.x", None), ("link", None), ("a/b/d", Some(2))]
    {
        assert!(found(start, max_depth).is_empty(), "{start}");
    }
    assert_eq!(found("a/b/d", Some(4)), ["a/b/d/e.mp4"]);
}

#[test]
fn a_folder_is_reported_before_its_entries_are_read() {
    let root = folder(&["a/b.mp4"]);
    let mut walk = Walk::new(root.path(), WalkOptions::default());
    let Some(WalkStep::Folder(path)) = walk.step() else { panic!("no folder") };
    fs::write(path.join("late.mp4"), "film").unwrap();
    assert_eq!(walk.filter_map(Result::ok).count(), 2);
}
