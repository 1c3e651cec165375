//! Operations that share a transaction.

use super::*;

fn numbered(number: u64) -> Key {
    key_of(SourceIdentity { inode: number, ..identity() })
}

/// Claims the sessions of these files.
fn claimed(journal: &mut Journal, numbers: std::ops::Range<u64>) -> Vec<ClaimedEntry> {
    numbers.map(|number| fresh(journal, &numbered(number))).collect()
}

/// Sets the most pages that the database may have, as the end of a disk does.
fn limit(journal: &Journal, pages: i64) {
    journal.database.connection().pragma_update(None, "max_page_count", pages).unwrap();
}

fn pages(journal: &Journal) -> i64 {
    journal.database.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
}

#[test]
fn the_operations_of_a_batch_are_seen_by_others_after_its_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    journal.begin_batch();
    let mut entries = claimed(&mut journal, 0..3);
    journal.record_container(&mut entries[0], Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    journal.record_chunk(&mut entries[0], 7).unwrap();
    // The claim was in a weaker transaction than the container, which ended it.
    let seen = Journal::read(&path).unwrap();
    assert!(seen.iter().all(|entry| entry.container == ContainerState::None), "{seen:?}");
    journal.commit_batch().unwrap();
    let seen = Journal::read(&path).unwrap();
    assert_eq!((seen.len(), seen[0].stored_chunks), (3, 1));
    assert_eq!(seen[0].container, known("vi1", CreatedBy::ByUs));
}

#[test]
fn an_operation_that_fails_leaves_the_others_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let mut entries = claimed(&mut journal, 0..2);
    Connection::open(&path).unwrap().execute("DELETE FROM sessions WHERE inode = 1", []).unwrap();
    journal.begin_batch();
    journal.record_chunk(&mut entries[0], 1).unwrap();
    let forgotten = journal.record_chunk(&mut entries[1], 1);
    assert!(matches!(forgotten, Err(JournalError::Forgotten { .. })), "{forgotten:?}");
    let _third = fresh(&mut journal, &numbered(2));
    journal.commit_batch().unwrap();
    let stored: Vec<u32> = Journal::read(&path).unwrap().iter().map(|entry| entry.stored_chunks).collect();
    assert_eq!(stored, [1, 0]);
}

#[test]
fn a_batch_without_room_on_the_disk_keeps_none_of_its_claims_and_the_next_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let before = claimed(&mut journal, 0..1);
    limit(&journal, pages(&journal));
    journal.begin_batch();
    let mut entries = Vec::new();
    let refused = (1..500).find_map(|number| match journal.claim(&numbered(number), "", NOW) {
        Ok(Claim::Fresh(claimed)) => {
            entries.push(claimed);
            None
        }
        Ok(claim) => panic!("{claim:?}"),
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(JournalError::Full { .. })), "{refused:?}");
    assert!(!entries.is_empty());
    assert!(matches!(journal.commit_batch(), Err(JournalError::Full { .. })));
    assert_eq!(Journal::read(&path).unwrap().len(), 1);
    drop(entries);
    limit(&journal, 100_000);
    journal.begin_batch();
    let entries = claimed(&mut journal, 1..60);
    journal.commit_batch().unwrap();
    assert_eq!(Journal::read(&path).unwrap().len(), before.len() + entries.len());
}

#[test]
fn sessions_that_finished_before_a_failed_batch_are_forgotten_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let mut entries = claimed(&mut journal, 0..3);
    journal.finish(entries.remove(0));
    limit(&journal, pages(&journal));
    journal.begin_batch();
    // Added to the batch that fails: it may depend on a record that is undone with it.
    journal.finish(entries.remove(0));
    let long = "a".repeat(100_000);
    assert!(journal.claim(&numbered(9), &long, NOW).is_err());
    assert!(journal.commit_batch().is_err());
    limit(&journal, 100_000);
    journal.flush().unwrap();
    let left: Vec<i64> = Journal::read(&path).unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(left, [2, 3]);
    assert_eq!(journal.entries().unwrap()[0].state, EntryState::Interrupted);
}

#[test]
fn a_batch_that_was_removed_from_its_path_is_an_error_of_its_first_claim() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    journal.begin_batch();
    let _entries = claimed(&mut journal, 0..1);
    journal.commit_batch().unwrap();
    fs::remove_file(&path).unwrap();
    journal.begin_batch();
    assert!(matches!(journal.claim(&numbered(1), "", NOW), Err(JournalError::Replaced { .. })));
    journal.commit_batch().unwrap();
}

/// Claims three files in a batch, three others in one that is not committed, writes a line, and waits to be killed.
#[test]
#[ignore = "a helper process of another test"]
fn a_process_within_a_batch() {
    let path = std::env::var_os("RINGLIFT_TEST_JOURNAL").expect("a path");
    let mut journal = Journal::open(Path::new(&path)).unwrap();
    journal.begin_batch();
    let _committed = claimed(&mut journal, 0..3);
    journal.commit_batch().unwrap();
    journal.begin_batch();
    let _open = claimed(&mut journal, 3..6);
    println!("\nwithin a batch");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_process_that_is_killed_within_a_batch_leaves_the_batches_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    drop(Journal::open(&path).unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::batches::a_process_within_a_batch", "--ignored", "--nocapture"])
        .env("RINGLIFT_TEST_JOURNAL", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "within a batch"));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut journal = Journal::open(&path).unwrap();
    let entries = journal.entries().unwrap();
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|entry| entry.state == EntryState::Interrupted), "{entries:?}");
    // Nothing holds the files of the batch that was not committed.
    claimed(&mut journal, 3..6);
}

#[test]
fn the_savepoints_of_a_batch_need_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let connection = journal.database.connection();
    let store: i64 = connection.query_row("PRAGMA temp_store", [], |row| row.get(0)).unwrap();
    // 2 is MEMORY.
    assert_eq!(store, 2);
}

#[test]
fn a_batch_waits_once_for_a_lock_and_the_next_batch_succeeds_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    journal.database.connection().busy_timeout(Duration::ZERO).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    journal.begin_batch();
    let refused = journal.claim(&numbered(1), "", NOW);
    assert!(matches!(refused, Err(JournalError::Locked { .. })), "{refused:?}");
    holder.execute_batch("ROLLBACK").unwrap();
    // The lock is free, which only a second attempt to take it would show.
    let refused = journal.claim(&numbered(2), "", NOW);
    assert!(matches!(refused, Err(JournalError::Locked { .. })), "{refused:?}");
    journal.commit_batch().unwrap();
    journal.begin_batch();
    let _claimed = claimed(&mut journal, 1..3);
    journal.commit_batch().unwrap();
}
