//! Files that an unfinished command has uploaded.

use super::*;

/// A journal in which the file of `key()` was uploaded as `vi1` by a command that goes on; and the note's number.
fn with_a_remembered_file(path: &Path) -> (Journal, i64) {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    let note = journal.finish_and_remember(claimed, "vi1", None, NOW).unwrap();
    journal.flush().unwrap();
    (journal, note)
}

fn answered(journal: &mut Journal, key: &Key, now: SystemTime) -> Option<String> {
    match journal.claim(key, "", now).unwrap() {
        Claim::Finished(finished) => Some(finished.video_id),
        Claim::Fresh(claimed) => {
            journal.forget(claimed).unwrap();
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_remembered_file_returns_its_video_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let (journal, note) = with_a_remembered_file(&path);
    drop(journal);
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.entries().unwrap(), [], "it is no session");
    match journal.claim(&key(), "", NOW).unwrap() {
        Claim::Finished(finished) => {
            let expected =
                Finished { id: note, video_id: "vi1".into(), bytes: 500 * MIB, plan: Some(plan()) };
            assert_eq!(finished, expected);
        }
        other => panic!("{other:?}"),
    }
    journal.forget_finished(note);
    assert_eq!(answered(&mut journal, &key(), NOW), None);
}

#[test]
fn a_remembered_file_matches_only_the_same_file_and_destination() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = with_a_remembered_file(&folder.path().join("j"));
    let same = identity();
    let moved = EntrySource::File { path: "/other.mp4".into(), identity: same };
    let elsewhere =
        EntrySource::File { path: "/other.mp4".into(), identity: SourceIdentity { device: 1, ..same } };
    let others = [
        key_of(SourceIdentity { mtime_ns: 6, ..same }),
        key_of(SourceIdentity { ctime_ns: 6, ..same }),
        key_of(SourceIdentity { len: 6, ..same }),
        key_of(SourceIdentity { inode: 6, ..same }),
        Key { source: elsewhere, ..key() },
        Key { endpoint: "https://sandbox.api.video".into(), ..key() },
        Key { destination: EntryDestination::Video { video_id: "vi9".into() }, ..key() },
        Key { destination: EntryDestination::Token(TokenDigest::of("to1")), ..key() },
    ];
    for other in others {
        assert_eq!(answered(&mut journal, &other, NOW), None, "{other:?}");
    }
    let also = [
        key_of(SourceIdentity { device: 1, ..same }),
        Key { source: moved, ..key() },
        Key { endpoint: "HTTPS://ws.api.video:443/".into(), ..key() },
    ];
    for other in also {
        assert_eq!(answered(&mut journal, &other, NOW).as_deref(), Some("vi1"), "{other:?}");
    }
}

#[test]
fn a_file_is_remembered_for_a_week_if_the_clock_jumps_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let (mut journal, _) = with_a_remembered_file(&path);
    let day = Duration::from_secs(24 * 3600);
    for now in [NOW - day, NOW + 7 * day] {
        assert_eq!(answered(&mut journal, &key(), now).as_deref(), Some("vi1"));
    }
    assert_eq!(answered(&mut journal, &key(), NOW + 8 * day), None);
    let notes = || -> i64 {
        let database = Connection::open(&path).unwrap();
        database.query_row("SELECT count(*) FROM finished", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(notes(), 1);
    let mut journal = Journal::open(&path).unwrap();
    let other = key_of(SourceIdentity { inode: 1, ..identity() });
    let claimed = fresh(&mut journal, &Key { source: EntrySource::Stream, ..other });
    journal.finish_and_remember(claimed, "vi2", None, NOW + 8 * day);
    journal.flush().unwrap();
    assert_eq!(notes(), 0, "what is outdated goes, and a stream leaves nothing");
}

#[test]
fn a_forced_upload_begins_anew_and_forgets_the_remembered_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = with_a_remembered_file(&folder.path().join("j"));
    let options = ClaimOptions { again: true, ..ClaimOptions::default() };
    match journal.claim_with(options, &key(), "", NOW).unwrap() {
        Claim::Fresh(claimed) => journal.forget(claimed).unwrap(),
        other => panic!("{other:?}"),
    }
    assert_eq!(answered(&mut journal, &key(), NOW), None);
}

#[test]
fn a_file_is_remembered_in_the_transaction_that_ends_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    let note = journal.finish_and_remember(claimed, "vi1", None, NOW).unwrap();
    drop(journal);
    // As after a crash: the session is there, to be found complete.
    let mut journal = Journal::open(&path).unwrap();
    let (claimed, _) = resumed(&mut journal, &key());
    assert_eq!(journal.finish_and_remember(claimed, "vi1", None, NOW), Some(note));
    journal.forget_finished(note);
    journal.flush().unwrap();
    assert_eq!(answered(&mut journal, &key(), NOW), None, "forgotten before it was written");
}

#[test]
fn a_file_that_was_touched_while_it_was_sent_is_remembered_as_it_is_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let touched = SourceIdentity { ctime_ns: 9, ..identity() };
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    journal.finish_and_remember(claimed, "vi1", Some(touched), NOW);
    assert_eq!(answered(&mut journal, &key_of(touched), NOW).as_deref(), Some("vi1"));
    assert_eq!(answered(&mut journal, &key(), NOW), None);
}
