//! Files of other versions, and damaged files.

use super::*;

fn refusal(path: &Path) -> JournalError {
    Journal::open(path).expect_err("this is no journal of ours")
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "dear diary, ".repeat(50)).unwrap();
    let database = folder.path().join("other.db");
    let other = Connection::open(&database).unwrap();
    other
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE photos (id INTEGER); PRAGMA user_version=1;")
        .unwrap();
    drop(other);
    for path in [text, database] {
        let before = fs::read(&path).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_journal_of_another_version_is_refused_with_that_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [1]);
    let version =
        |version: i64| Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
    version(4);
    assert!(matches!(refusal(&path), JournalError::Newer { found: 4, known: 3, .. }));
    version(1);
    assert!(matches!(refusal(&path), JournalError::Older { found: 1, known: 3, .. }));
    version(3);
    resumed(&mut Journal::open(&path).unwrap(), &key());
}

#[test]
fn a_journal_of_format_2_is_migrated_and_its_sessions_are_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    of_format_2(&path);
    let racers: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Journal::open(&path).map(drop))
        })
        .collect();
    racers.into_iter().for_each(|racer| racer.join().unwrap().unwrap());
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.entries().unwrap()[0].id, 7);
    let (_ticket, saved) = resumed(&mut journal, &key());
    assert_eq!((saved.plan, saved.stored), (Some(plan()), vec![0, 3, 8]));
    assert_eq!(saved.container, known("vi1", CreatedBy::ByUs));
}

#[test]
fn a_session_that_the_older_version_writes_during_the_migration_is_found_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    of_format_2(&path);
    drop(Journal::open(&path).unwrap());
    let older = Connection::open(&path).unwrap();
    older
        .execute_batch(
            "INSERT INTO sessions (id, path, record, stored, seal)
                SELECT 8, path, record, stored, seal FROM sessions;
             DELETE FROM sessions WHERE id = 7;",
        )
        .unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(resumed(&mut journal, &key()).1.stored, [0, 3, 8]);
    assert_eq!(journal.entries().unwrap()[0].id, 8);
}

#[test]
fn a_damaged_row_of_format_2_is_refused_and_the_journal_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    of_format_2(&path);
    Connection::open(&path).unwrap().execute("UPDATE sessions SET stored = x'FF'", []).unwrap();
    assert!(matches!(refusal(&path), JournalError::Damaged { .. }));
    let database = Connection::open(&path).unwrap();
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
}

#[test]
fn a_row_that_does_not_match_its_seal_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [1]);
    Connection::open(&path).unwrap().execute("UPDATE sessions SET stored = x'FF'", []).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert!(matches!(journal.claim(&key(), "", NOW), Err(JournalError::Damaged { .. })));
    assert!(matches!(journal.entries(), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_damaged_file_is_an_error_or_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    left_behind(&whole, [3, 50]);
    let len = fs::metadata(&whole).unwrap().len();
    for (at, damage) in (0..len + 64).step_by(96).zip([0x00, 0xa5, 0xff].into_iter().cycle()) {
        let path = folder.path().join("damaged");
        fs::copy(&whole, &path).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[damage; 96], at).unwrap();
        assert_error_or_nothing_lost(&path, &[3, 50], &format!("{damage:#x} at {at}"));
    }
    for len in (0..len).step_by(511).skip(1) {
        let path = folder.path().join("short");
        fs::copy(&whole, &path).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        assert_error_or_nothing_lost(&path, &[3, 50], &format!("cut at {len}"));
    }
}

fn assert_error_or_nothing_lost(path: &Path, stored: &[u32], damage: &str) {
    let claim = Journal::open(path).and_then(|mut journal| journal.claim(&key(), "", NOW));
    match claim {
        Ok(Claim::Resume(_, saved)) => assert_eq!(saved.stored, stored, "{damage}"),
        Ok(claim) => panic!("{damage} went unnoticed: {claim:?}"),
        Err(_) => {}
    }
    for left in ["-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(format!("{}{left}", path.display()));
    }
}

/// A log cut anywhere gives back the acknowledgements up to some moment, and always the container.
#[test]
fn a_torn_write_ahead_log_loses_the_newest_acknowledgements_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, []);
    let mut journal = Journal::open(&path).unwrap();
    let (mut claimed, _) = resumed(&mut journal, &key());
    (0..20).for_each(|index| journal.record_chunk(&mut claimed, index).unwrap());
    let log = fs::read(folder.path().join("j-wal")).unwrap();
    let mut most = 0;
    for len in (0..=log.len()).step_by(1000).chain([log.len()]) {
        for tail in [&b""[..], &[0xa5; 5000]] {
            let torn = folder.path().join("torn");
            fs::copy(&path, &torn).unwrap();
            fs::write(folder.path().join("torn-wal"), [&log[..len], tail].concat()).unwrap();
            let (_ticket, saved) = resumed(&mut Journal::open(&torn).unwrap(), &key());
            assert_eq!(saved.stored, (0..saved.stored.len() as u32).collect::<Vec<_>>());
            assert_eq!(saved.container, known("vi1", CreatedBy::ByUs));
            most = most.max(saved.stored.len());
        }
    }
    assert_eq!(most, 20);
}
