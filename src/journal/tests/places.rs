//! Paths, modes and file systems of the journal.

use std::collections::BTreeSet;
use std::thread;

use super::*;
use crate::journal::file_id::FileId;
use crate::journal::logging::Logging;

#[test]
fn a_journal_has_the_same_locks_by_whichever_path_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("j"), folder.path().join("link"));
    let mut journal = Journal::open(&path).unwrap();
    let _ticket = fresh(&mut journal, &key());
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut linked = Journal::open(&link).unwrap();
    assert!(matches!(linked.claim(&key(), "", NOW).unwrap(), Claim::Busy { .. }));
    assert!(matches!(linked.entries().unwrap()[0].state, EntryState::Running { .. }));
}

#[test]
fn a_claim_costs_the_same_however_many_sessions_were_left() {
    let folder = tempfile::tempdir().unwrap();
    let steps_of_a_claim = |sessions: u64| {
        let path = folder.path().join(sessions.to_string());
        let mut journal = Journal::open(&path).unwrap();
        let numbered = |number: u64| Key {
            source: EntrySource::File {
                path: format!("/films/{number}.mp4").into(),
                identity: SourceIdentity { inode: number, ..identity() },
            },
            ..key()
        };
        (0..sessions).for_each(|number| drop(fresh(&mut journal, &numbered(number))));
        let steps = |sql: &str| {
            let statement = journal.database.connection().prepare_cached(sql).unwrap();
            statement.reset_status(StatementStatus::VmStep)
        };
        let _ = [lookup::OF_FILE, lookup::LOCKS_FROM].map(steps);
        drop(fresh(&mut journal, &numbered(sessions)));
        [lookup::OF_FILE, lookup::LOCKS_FROM].map(|sql| {
            journal.database.connection().prepare_cached(sql).unwrap().get_status(StatementStatus::VmStep)
        })
    };
    let [few, many] = [steps_of_a_claim(20), steps_of_a_claim(600)];
    assert_eq!(few, many, "steps of the database to find a file and an unused lock");
    assert!(few.iter().all(|&steps| steps > 0 && steps < 200), "{few:?}");
}

#[test]
fn a_journal_that_was_removed_or_replaced_is_not_written_into_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    fs::rename(&path, folder.path().join("moved")).unwrap();
    let replaced = |error: JournalError| matches!(error, JournalError::Replaced { .. });
    assert!(replaced(journal.record_intent(&mut claimed, Some(plan()), "mark").unwrap_err()));
    fs::write(&path, "").unwrap();
    assert!(replaced(journal.claim(&key(), "", NOW).unwrap_err()));
}

/// fcntl(2): a process that closes a file loses its locks on it, whichever descriptor it closes.
#[test]
fn a_second_journal_of_the_same_process_leaves_the_locks_of_the_first_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    fresh(&mut journal, &key());
    let before = record_locks(&path);
    drop(Journal::open(&path).unwrap());
    assert_eq!(record_locks(&path), before);
    assert!(!before.is_empty(), "WAL mode holds a lock while the file is open");
}

/// Returns the record locks of this process on the file, each without its number in the list.
///
/// From `/proc/self/fdinfo`: a reader of `/proc/locks` sees a lock twice, or not at all, if other locks come and go
/// between two of its reads.
fn record_locks(path: &Path) -> BTreeSet<String> {
    let wanted = FileId::of(path).unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|descriptor| descriptor.unwrap());
    descriptors
        .filter(|descriptor| FileId::of(&descriptor.path()).is_ok_and(|open| open == wanted))
        .filter_map(|descriptor| {
            let info = Path::new("/proc/self/fdinfo").join(descriptor.file_name());
            fs::read_to_string(info).ok()
        })
        .flat_map(|info| {
            let locks = info.lines().filter_map(|line| line.strip_prefix("lock:")?.split_once(": "));
            locks.map(|(_number, lock)| lock.to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_journal_that_cannot_be_written_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j é#?%");
    left_behind(&path, [1, 2]);
    let written = Journal::open(&path).unwrap().entries().unwrap();
    let before: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(Journal::read(&path).unwrap(), written);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before.len());
    of_format_2(&folder.path().join("old"));
    assert_eq!(Journal::read(&folder.path().join("old")).unwrap()[0].stored_chunks, 3);
}

#[test]
fn processes_that_leave_a_write_ahead_log_at_once_do_not_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let write_ahead = || drop(Journal::open(&path).unwrap());
    for _ in 0..3 {
        write_ahead();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| drop(file::open_as(&path, Logging::Rollback).unwrap()));
            }
        });
        let database = file::open_as(&path, Logging::Rollback).unwrap();
        let mode: String = database.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "delete");
    }
}

#[test]
fn an_open_journal_leaves_no_probe_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let _journal = Journal::open(&folder.path().join("j")).unwrap();
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["j", "j-shm", "j-wal", "j.locks"]);
}

#[test]
fn a_rollback_journal_takes_over_what_a_write_ahead_log_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    // As a killed process leaves it: with a log that is not yet in the database.
    let left = folder.path().join("left");
    for end in ["", "-wal"] {
        fs::copy(format!("{}{end}", path.display()), format!("{}{end}", left.display())).unwrap();
    }
    let database = file::open_as(&left, logging::Logging::Rollback).unwrap();
    let mode: String = database.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    drop(database);
    assert_eq!(
        resumed(&mut Journal::open(&left).unwrap(), &key()).1.container,
        known("vi1", CreatedBy::ByUs)
    );
}
