//! What the journal promises, tried on real files and with real processes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rusqlite::StatementStatus;

use super::*;
use crate::source::ChunkDigest;
use crate::wire::Addressing;
use crate::wire::limits::MIB;

const NOW: SystemTime = UNIX_EPOCH;

fn plan() -> Plan {
    Plan::new(500 * MIB, 5 * MIB, Addressing::Part).unwrap()
}

fn identity() -> SourceIdentity {
    SourceIdentity {
        device: 64_769,
        inode: u64::MAX - 3,
        len: 500 * MIB,
        mtime_ns: 1_700_000_000_123_456_789,
        ctime_ns: 5,
        file_system: FileSystem::Stable,
    }
}

fn key() -> Key {
    key_of(identity())
}

fn key_of(identity: SourceIdentity) -> Key {
    Key {
        endpoint: "https://ws.api.video".into(),
        source: EntrySource::File { path: "/films/long.mp4".into(), identity },
        destination: EntryDestination::NewVideo,
    }
}

fn fresh(journal: &mut Journal, key: &Key) -> ClaimedEntry {
    match journal.claim(key, "--title=Long", NOW).unwrap() {
        Claim::Fresh(claimed) => claimed,
        other => panic!("expected a fresh session, got {other:?}"),
    }
}

fn resumed(journal: &mut Journal, key: &Key) -> (ClaimedEntry, SavedProgress) {
    match journal.claim(key, "--title=Long", NOW).unwrap() {
        Claim::Resume(claimed, saved) => (claimed, saved),
        other => panic!("expected a session to resume, got {other:?}"),
    }
}

fn known(video_id: &str, made: CreatedBy) -> ContainerState {
    ContainerState::Known { video_id: video_id.into(), made }
}

/// A journal whose one session, with the container `vi1`, is finished and not yet forgotten.
fn with_a_finished_session(path: &Path) -> Journal {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    journal.finish(claimed);
    journal
}

/// A journal with one container and the given chunks, left as a process that ended leaves it.
fn left_behind(path: &Path, chunks: impl IntoIterator<Item = u32>) {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    for index in chunks {
        journal.record_chunk(&mut claimed, index).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_changes_nothing_but_what_is_shown() {
    let (folder, day) = (tempfile::tempdir().unwrap(), Duration::from_secs(24 * 3600));
    let path = folder.path().join("journal.db");
    left_behind(&path, [3]);
    for now in [NOW + 20_000 * day, NOW + 19_999 * day, NOW, NOW - day] {
        let mut journal = Journal::open(&path).unwrap();
        let claim = journal.claim(&key(), "--title=Long", now).unwrap();
        let Claim::Resume(_, saved) = claim else { panic!("{claim:?}") };
        assert_eq!(saved.stored, [3]);
    }
}

#[test]
fn the_same_command_finds_its_container_its_plan_and_every_acknowledged_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/ringlift/journal.db");
    left_behind(&path, [0, 7, 8, 99, 7]);
    let (_ticket, saved) = resumed(&mut Journal::open(&path).unwrap(), &key());
    let expected = SavedProgress {
        container: known("vi1", CreatedBy::ByUs),
        plan: Some(plan()),
        stored: vec![0, 7, 8, 99],
        comparison: Comparison::Same,
        digests: Vec::new(),
    };
    assert_eq!(saved, expected);
}

#[test]
fn a_crash_between_the_request_and_its_answer_is_visible() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    drop(claimed);
    claimed = fresh(&mut journal, &key());
    journal.record_intent(&mut claimed, Some(plan()), "mark-1").unwrap();
    drop(claimed);
    let (_ticket, saved) = resumed(&mut journal, &key());
    assert_eq!(saved.container, ContainerState::Intended { mark: "mark-1".into() });
}

#[test]
fn another_container_or_another_plan_begins_without_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    let other_plan = Plan::new(500 * MIB, 10 * MIB, Addressing::Part).unwrap();
    for (video_id, plan, stored) in
        [("vi1", plan(), 0), ("vi1", plan(), 1), ("vi2", plan(), 0), ("vi2", other_plan, 0)]
    {
        journal.record_container(&mut claimed, Some(plan), video_id, CreatedBy::ByUs).unwrap();
        assert_eq!(journal.entries().unwrap()[0].stored_chunks, stored);
        journal.record_chunk(&mut claimed, 3).unwrap();
    }
}

#[test]
fn a_finished_session_is_forgotten_and_the_same_command_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = with_a_finished_session(&folder.path().join("j"));
    assert_eq!(journal.entries().unwrap(), []);
    fresh(&mut journal, &key());
}

#[test]
fn what_is_finished_is_forgotten_with_the_next_claim_be_it_of_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = with_a_finished_session(&path);
    let seen = || Journal::open(&path).unwrap().entries().unwrap();
    assert_eq!(seen()[0].container.own_video_id(), Some("vi1"), "nothing was written yet");
    let claimed = fresh(&mut journal, &key());
    assert_eq!((seen().len(), &seen()[0].container), (1, &ContainerState::None));
    journal.finish(claimed);
    journal.flush().unwrap();
    assert_eq!(seen(), []);
}

#[test]
fn what_is_finished_and_never_forgotten_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    drop(with_a_finished_session(&path));
    let (_ticket, saved) = resumed(&mut Journal::open(&path).unwrap(), &key());
    assert!(matches!(saved.container, ContainerState::Known { video_id, .. } if video_id == "vi1"));
}

#[test]
fn lock_files_are_used_again_and_never_those_of_a_session_that_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let numbered = |inode: u64| key_of(SourceIdentity { inode, ..identity() });
    let lock_files = || fs::read_dir(folder.path().join("j.locks")).unwrap().count();
    let mut journal = Journal::open(&path).unwrap();
    for number in 0..20 {
        let claimed = fresh(&mut journal, &numbered(number));
        journal.finish(claimed);
    }
    assert_eq!(lock_files(), 2, "that of the last one is held until it is forgotten");
    drop(fresh(&mut journal, &numbered(20)));
    let mut other = Journal::open(&path).unwrap();
    let claimed: Vec<ClaimedEntry> = (21..24).map(|number| fresh(&mut other, &numbered(number))).collect();
    let left =
        journal.entries().unwrap().iter().filter(|entry| entry.state == EntryState::Interrupted).count();
    assert_eq!(left, 1);
    assert!(matches!(journal.claim(&numbered(22), "", NOW).unwrap(), Claim::Busy { .. }));
    drop(claimed);
    fresh(&mut journal, &numbered(22));
}

#[test]
fn a_session_that_was_given_up_is_an_orphan_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    assert_eq!(journal.entries().unwrap()[0].orphan(), None, "somebody is filling it");
    journal.abandon(claimed).unwrap();
    let entry = &journal.entries().unwrap()[0];
    assert_eq!((entry.state, entry.is_resumable()), (EntryState::Abandoned, false));
    assert_eq!(entry.orphan(), Some("vi1"));
    drop(fresh(&mut journal, &key()));
    let claimed = journal.take(entry.id).unwrap().unwrap();
    assert_eq!(claimed.container().own_video_id(), Some("vi1"));
    journal.forget(claimed).unwrap();
    assert!(journal.take(entry.id).unwrap().is_none());
    assert_eq!(journal.entries().unwrap().len(), 1);
}

#[test]
fn a_container_that_the_user_named_is_never_an_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let destination = EntryDestination::Video { video_id: "vi9".into() };
    let given = Key { destination, ..key() };
    let mut claimed = fresh(&mut journal, &given);
    journal.record_container(&mut claimed, Some(plan()), "vi9", CreatedBy::Given).unwrap();
    drop(claimed);
    assert_eq!(journal.entries().unwrap()[0].orphan(), None);
    let (claimed, _) = resumed(&mut journal, &given);
    journal.abandon(claimed).unwrap();
    assert_eq!(journal.entries().unwrap(), []);
}

#[test]
fn what_people_see_of_a_session_says_whose_bytes_go_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, 0..12);
    let entry = Journal::open(&path).unwrap().entries().unwrap().remove(0);
    assert_eq!((entry.key.clone(), entry.state, entry.stored_chunks), (key(), EntryState::Interrupted, 12));
    assert_eq!((entry.arguments.as_str(), entry.began, entry.plan), ("--title=Long", NOW, Some(plan())));
    assert!(entry.is_resumable());
}

#[test]
fn a_new_mode_has_to_be_proved_and_new_content_is_another_upload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [4]);
    let mut journal = Journal::open(&path).unwrap();
    let same = identity();
    let touched = key_of(SourceIdentity { ctime_ns: 6, ..same });
    assert_eq!(resumed(&mut journal, &touched).1.comparison, Comparison::Anew);
    assert_eq!(resumed(&mut journal, &touched).1.comparison, Comparison::Anew, "a claim proves nothing");
    fresh(&mut journal, &key_of(SourceIdentity { mtime_ns: 6, ..same }));
    fresh(&mut journal, &key_of(SourceIdentity { len: 6, ..same }));
    fresh(&mut journal, &key_of(SourceIdentity { inode: 6, ..same }));
}

/// The digest of the chunk at `index`, or of another one.
fn chunk_digest(byte: u8) -> ChunkDigest {
    ChunkDigest::from_bytes(&[byte; 16]).unwrap()
}

/// A journal with one container in which chunks 3 and 4 are stored, and of 3, 4 and 5 the digests.
fn left_with_digests(path: &Path) {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    for index in [3, 4, 5] {
        journal.record_digest(&claimed, index, chunk_digest(index as u8)).unwrap();
    }
    journal.record_chunk(&mut claimed, 3).unwrap();
    journal.record_chunk(&mut claimed, 4).unwrap();
}

fn digests_in(path: &Path) -> i64 {
    let database = Connection::open(path).unwrap();
    database.query_row("SELECT count(*) FROM digests", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_touched_file_can_be_proved_by_the_digest_of_every_chunk_that_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_with_digests(&path);
    let touched = key_of(SourceIdentity { ctime_ns: 6, ..identity() });
    let mut journal = Journal::open(&path).unwrap();
    let (mut claimed, saved) = resumed(&mut journal, &touched);
    let expected: Vec<_> = [3, 4, 5].map(|index| (u32::from(index), Some(chunk_digest(index)))).into();
    assert_eq!((saved.comparison, saved.digests), (Comparison::Prove, expected));
    drop(claimed);
    (claimed, _) = resumed(&mut journal, &touched);
    journal.record_proof(&mut claimed, &touched).unwrap();
    drop(claimed);
    assert_eq!(resumed(&mut journal, &touched).1.comparison, Comparison::Same);
    assert_eq!(resumed(&mut journal, &key()).1.comparison, Comparison::Prove, "as it was before");
}

#[test]
fn a_chunk_that_was_acknowledged_without_a_digest_leaves_nothing_to_prove() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_with_digests(&path);
    Connection::open(&path).unwrap().execute("DELETE FROM digests WHERE chunk = 4", []).unwrap();
    let touched = key_of(SourceIdentity { ctime_ns: 6, ..identity() });
    let (_ticket, saved) = resumed(&mut Journal::open(&path).unwrap(), &touched);
    assert_eq!(saved.comparison, Comparison::Anew);
}

#[test]
fn a_chunk_that_was_sent_with_different_bytes_has_a_digest_that_equals_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_with_digests(&path);
    let mut journal = Journal::open(&path).unwrap();
    let (claimed, _) = resumed(&mut journal, &key());
    journal.record_digest(&claimed, 3, chunk_digest(3)).unwrap();
    journal.record_digest(&claimed, 5, chunk_digest(7)).unwrap();
    journal.record_digest(&claimed, 5, chunk_digest(7)).unwrap();
    drop(claimed);
    let digests = resumed(&mut journal, &key()).1.digests;
    assert_eq!(digests, [(3, Some(chunk_digest(3))), (4, Some(chunk_digest(4))), (5, None)]);
}

#[test]
fn digests_go_with_their_container_and_their_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_with_digests(&path);
    let mut journal = Journal::open(&path).unwrap();
    let (mut claimed, _) = resumed(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    assert_eq!(digests_in(&path), 3);
    journal.record_container(&mut claimed, Some(plan()), "vi2", CreatedBy::ByUs).unwrap();
    assert_eq!(digests_in(&path), 0);
    journal.record_digest(&claimed, 0, chunk_digest(0)).unwrap();
    journal.forget(claimed).unwrap();
    assert_eq!(digests_in(&path), 0);
}

#[test]
fn with_an_upload_token_the_first_chunk_is_sent_before_its_container_has_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let destination = EntryDestination::Token(TokenDigest::of("to-secret"));
    let mut claimed = fresh(&mut journal, &Key { destination, ..key() });
    journal.record_digest(&claimed, 0, chunk_digest(0)).unwrap();
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    assert_eq!(digests_in(&path), 1);
}

#[test]
fn a_container_into_which_nothing_was_sent_is_taken_up_for_a_touched_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_intent(&mut claimed, Some(plan()), "mark-1").unwrap();
    drop(claimed);
    let touched = key_of(SourceIdentity { ctime_ns: 6, ..identity() });
    assert_eq!(resumed(&mut journal, &touched).1.comparison, Comparison::Same);
}

#[test]
fn a_file_on_a_file_system_without_inode_numbers_is_found_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [4]);
    let mut journal = Journal::open(&path).unwrap();
    for file_system in [FileSystem::Renumbering, FileSystem::Fuse, FileSystem::Fat] {
        let remounted = SourceIdentity { device: 9, inode: 9, file_system, ..identity() };
        let (claimed, saved) = resumed(&mut journal, &key_of(remounted));
        assert_eq!((saved.stored, saved.comparison), (vec![4], Comparison::Same));
        drop(claimed);
    }
    let elsewhere = SourceIdentity { device: 9, inode: 9, ..identity() };
    fresh(&mut journal, &key_of(SourceIdentity { inode: 8, ..elsewhere }));
}

#[test]
fn a_file_is_found_again_on_a_renumbered_device_or_under_another_name_but_not_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [4]);
    let mut journal = Journal::open(&path).unwrap();
    let elsewhere = |device| Key {
        source: EntrySource::File {
            path: "/other.mp4".into(),
            identity: SourceIdentity { device, ..identity() },
        },
        ..key()
    };
    fresh(&mut journal, &elsewhere(1));
    let renumbered = key_of(SourceIdentity { device: 2, ..identity() });
    assert_eq!(resumed(&mut journal, &renumbered).1.stored, [4]);
    assert_eq!(resumed(&mut journal, &elsewhere(2)).1.stored, [4]);
}

#[test]
fn another_service_or_another_token_is_another_upload() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [4]);
    let mut journal = Journal::open(&path).unwrap();
    fresh(&mut journal, &Key { endpoint: "https://sandbox.api.video".into(), ..key() });
    let token = |token| Key { destination: EntryDestination::Token(TokenDigest::of(token)), ..key() };
    let mut claimed = fresh(&mut journal, &token("to-first-secret"));
    journal.record_intent(&mut claimed, Some(plan()), "").unwrap();
    fresh(&mut journal, &token("to-other-secret"));
    drop(claimed);
    resumed(&mut journal, &token("to-first-secret"));
}

#[test]
fn an_upload_token_is_nowhere_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let destination = EntryDestination::Token(TokenDigest::of("to-secret"));
    let _ticket = fresh(&mut journal, &Key { destination, ..key() });
    for file in
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|f| f.is_file())
    {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"to-secret"), "{}", file.display());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}

#[test]
fn a_stream_is_written_down_and_never_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("j")).unwrap();
    let stream = Key { source: EntrySource::Stream, ..key() };
    let mut claimed = fresh(&mut journal, &stream);
    journal.record_container(&mut claimed, None, "vi1", CreatedBy::ByUs).unwrap();
    let _second = fresh(&mut journal, &stream);
    drop(claimed);
    let entry = &journal.entries().unwrap()[0];
    assert_eq!((entry.is_resumable(), entry.orphan()), (false, Some("vi1")));
}

#[test]
fn of_two_that_want_the_same_session_one_works_and_the_other_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Journal::open(&path)?.claim(&key(), "", NOW))
        })
        .collect();
    let claims: Vec<Claim> = racers.into_iter().map(|racer| racer.join().unwrap().unwrap()).collect();
    let fresh = claims.iter().filter(|claim| matches!(claim, Claim::Fresh(_))).count();
    let us = Some(std::process::id());
    let busy = claims.iter().filter(|claim| matches!(claim, Claim::Busy { pid } if *pid == us)).count();
    assert_eq!((fresh, busy), (1, 7));
}

#[test]
fn a_session_under_way_cannot_be_forgotten_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::open(&path).unwrap();
    let claimed = fresh(&mut journal, &key());
    let mut other = Journal::open(&path).unwrap();
    let entry = other.entries().unwrap().remove(0);
    assert_eq!(entry.state, EntryState::Running { pid: Some(std::process::id()) });
    assert!(matches!(other.take(entry.id), Err(JournalError::Claimed { .. })));
    drop(claimed);
    let claimed = other.take(entry.id).unwrap().unwrap();
    assert!(matches!(journal.claim(&key(), "", NOW).unwrap(), Claim::Busy { .. }));
    other.forget(claimed).unwrap();
    assert_eq!(other.entries().unwrap(), []);
}

#[test]
fn ten_thousand_acknowledgements_stay_cheap_and_all_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let began = Instant::now();
    left_behind(&path, 0..10_000);
    eprintln!("{:?} an acknowledgement", began.elapsed() / 10_000);
    let (_ticket, saved) = resumed(&mut Journal::open(&path).unwrap(), &key());
    assert_eq!(saved.stored, (0..10_000).collect::<Vec<_>>());
    assert!(fs::metadata(&path).unwrap().len() < 64 << 10);
}

// What is not a journal, or not one of ours.

fn refusal(path: &Path) -> JournalError {
    Journal::open(path).expect_err("this is no journal of ours")
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_as_it_was() {
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
fn a_journal_of_another_version_is_refused_by_name() {
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

/// A journal as format 2 wrote it: one session, of 500 MiB in parts of 5 MiB, of which parts 0, 3 and 8 are stored.
fn of_format_2(path: &Path) {
    let record = r#"{"endpoint":"https://ws.api.video","identity":{"device":64769,"inode":18446744073709551612,"len":524288000,"mtime_ns":1700000000123456789,"ctime_ns":5},"destination":"new_video","arguments":"--title=Long","began_s":0,"lock":0,"stage":"open","container":{"known":{"video_id":"vi1","made":"by_us"}},"plan":{"len":524288000,"chunk_bytes":5242880,"addressing":"part"}}"#;
    let seal = "1ecd80c7105d87c0a862f9349f8a24f3f77e9cb4d9cbbef403121229ced57f68";
    let database = Connection::open(path).unwrap();
    let literal = format!(
        "PRAGMA application_id = 1380731468;
         PRAGMA user_version = 2;
         CREATE TABLE sessions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            path BLOB NOT NULL,
            record TEXT NOT NULL,
            stored BLOB NOT NULL,
            seal BLOB NOT NULL
         ) STRICT;
         INSERT INTO sessions VALUES (7, CAST('/films/long.mp4' AS BLOB), '{record}', x'0901', x'{seal}');
         PRAGMA journal_mode = WAL;"
    );
    database.execute_batch(&literal).unwrap();
}

#[test]
fn a_journal_of_format_2_is_brought_to_this_format_and_its_sessions_go_on() {
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
fn a_row_that_does_not_match_its_seal_is_not_acted_upon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [1]);
    Connection::open(&path).unwrap().execute("UPDATE sessions SET stored = x'FF'", []).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert!(matches!(journal.claim(&key(), "", NOW), Err(JournalError::Damaged { .. })));
    assert!(matches!(journal.entries(), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_damaged_file_says_so_or_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    left_behind(&whole, [3, 50]);
    let len = fs::metadata(&whole).unwrap().len();
    for (at, damage) in (0..len + 64).step_by(96).zip([0x00, 0xa5, 0xff].into_iter().cycle()) {
        let path = folder.path().join("damaged");
        fs::copy(&whole, &path).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[damage; 96], at).unwrap();
        says_so_or_has_lost_nothing(&path, &[3, 50], &format!("{damage:#x} at {at}"));
    }
    for len in (0..len).step_by(511).skip(1) {
        let path = folder.path().join("short");
        fs::copy(&whole, &path).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        says_so_or_has_lost_nothing(&path, &[3, 50], &format!("cut at {len}"));
    }
}

fn says_so_or_has_lost_nothing(path: &Path, stored: &[u32], damage: &str) {
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

// Finished files of an unfinished command.

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
fn a_file_that_an_unfinished_command_uploaded_is_answered_with_its_video_until_it_is_forgotten() {
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
fn only_the_same_file_on_its_way_to_the_same_place_is_answered() {
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
fn a_file_is_remembered_for_a_week_whichever_way_the_clock_jumps() {
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
fn who_wants_the_file_again_gets_it_and_what_was_remembered_is_gone() {
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
fn what_is_remembered_is_written_with_the_end_of_its_session_or_not_at_all() {
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

// Another upload token.

fn with_token(token: &str) -> Key {
    Key { destination: EntryDestination::Token(TokenDigest::of(token)), ..key() }
}

/// A session that the token `to1` began, with two chunks of `vi1` stored.
fn begun_with_to1(path: &Path) -> Journal {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &with_token("to1"));
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    [0, 1].into_iter().for_each(|index| journal.record_chunk(&mut claimed, index).unwrap());
    drop(claimed);
    journal
}

#[test]
fn another_upload_token_goes_on_with_the_same_video() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begun_with_to1(&folder.path().join("j"));
    let (claimed, saved) = resumed(&mut journal, &with_token("to2"));
    assert!(claimed.is_of_another_token() && !claimed.is_new());
    assert_eq!((saved.container, saved.stored), (known("vi1", CreatedBy::ByUs), vec![0, 1]));
    drop(claimed);
    let (claimed, _) = resumed(&mut journal, &with_token("to2"));
    assert!(!claimed.is_of_another_token(), "it is that token's now");
}

#[test]
fn an_upload_token_and_the_api_key_do_not_go_on_with_each_others_videos() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begun_with_to1(&folder.path().join("j"));
    let _by_key = fresh(&mut journal, &key());
    let other = folder.path().join("k");
    left_behind(&other, [1]);
    fresh(&mut Journal::open(&other).unwrap(), &with_token("to1"));
}

#[test]
fn a_session_of_another_token_is_left_alone_while_it_runs_and_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = begun_with_to1(&path);
    let options = ClaimOptions { own_token_only: true, ..ClaimOptions::default() };
    match journal.claim_with(options, &with_token("to3"), "", NOW).unwrap() {
        Claim::Fresh(claimed) => journal.forget(claimed).unwrap(),
        other => panic!("{other:?}"),
    }
    let (_running, _) = resumed(&mut journal, &with_token("to1"));
    fresh(&mut Journal::open(&path).unwrap(), &with_token("to2"));
}

#[test]
fn of_two_sessions_the_one_with_the_same_token_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let mut journal = begun_with_to1(&path);
    let running = resumed(&mut journal, &with_token("to1"));
    let mut other = Journal::open(&path).unwrap();
    let mut claimed = fresh(&mut other, &with_token("to2"));
    other.record_container(&mut claimed, Some(plan()), "vi2", CreatedBy::ByUs).unwrap();
    drop((running, claimed));
    for (token, video_id) in [("to1", "vi1"), ("to2", "vi2")] {
        assert_eq!(resumed(&mut other, &with_token(token)).1.container, known(video_id, CreatedBy::ByUs));
    }
}

#[test]
fn a_session_that_the_service_refuses_to_the_new_token_is_given_back_to_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begun_with_to1(&folder.path().join("j"));
    let (claimed, _) = resumed(&mut journal, &with_token("to2"));
    journal.give_back(claimed).unwrap();
    let (claimed, saved) = resumed(&mut journal, &with_token("to1"));
    assert!(!claimed.is_of_another_token());
    assert_eq!(saved.stored, [0, 1]);
}

// The file and its neighbours.

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
            let statement = journal.connection.prepare_cached(sql).unwrap();
            statement.reset_status(StatementStatus::VmStep)
        };
        let _ = [lookup::OF_FILE, lookup::LOCKS_FROM].map(steps);
        drop(fresh(&mut journal, &numbered(sessions)));
        [lookup::OF_FILE, lookup::LOCKS_FROM]
            .map(|sql| journal.connection.prepare_cached(sql).unwrap().get_status(StatementStatus::VmStep))
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
    let inode = format!(":{} ", std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()));
    let locks = || fs::read_to_string("/proc/locks").unwrap().lines().filter(|l| l.contains(&inode)).count();
    let before = locks();
    drop(Journal::open(&path).unwrap());
    assert_eq!(locks(), before);
    assert!(before > 0, "WAL mode holds a lock while the file is open");
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
    let database = file::open_as(&left, Logging::Rollback).unwrap();
    let mode: String = database.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    drop(database);
    assert_eq!(
        resumed(&mut Journal::open(&left).unwrap(), &key()).1.container,
        known("vi1", CreatedBy::ByUs)
    );
}

/// What root leaves behind, as the user finds it.
#[test]
fn lock_files_of_another_user_are_left_out_and_named_where_their_session_is_wanted() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root leaves files of root");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let owned = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    owned(folder.path());
    left_behind(&path, [1]);
    for made in ["j", "j.locks", "j.locks/0"] {
        let made = folder.path().join(made);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&made).unwrap()), NOBODY, "{made:?}");
    }
    // As earlier versions left them.
    for number in ["0", "1", "2"] {
        let lock = folder.path().join("j.locks").join(number);
        fs::write(&lock, "1").unwrap();
        std::os::unix::fs::chown(&lock, Some(0), Some(0)).unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let binary = File::open(std::env::current_exe().unwrap()).unwrap();
    let as_user = |inode: &str| {
        let mut command = open_binary(&binary);
        command.uid(NOBODY).gid(NOBODY).env("RINGLIFT_TEST_INODE", inode);
        let (child, said) = run_child(command, &path, 1);
        end(child);
        said
    };
    assert_eq!(as_user("7"), "ready");
    let said = as_user("");
    assert!(said.starts_with("OutOfReach") && said.contains("j.locks/0"), "{said}");
}

const NOBODY: u32 = 65_534;

// Other processes.

/// What a child of these tests does: works on the journal that its environment names, then waits.
#[test]
#[ignore = "is run by the tests below, in a process of its own"]
fn child() {
    let path = std::env::var_os("RINGLIFT_TEST_JOURNAL").expect("a path");
    let chunks: u32 = std::env::var("RINGLIFT_TEST_CHUNKS").unwrap().parse().unwrap();
    let worked = || -> Result<(Journal, ClaimedEntry), JournalError> {
        let mut journal = Journal::open(Path::new(&path))?;
        let key = match std::env::var("RINGLIFT_TEST_INODE").ok().and_then(|inode| inode.parse().ok()) {
            Some(inode) => Key {
                source: EntrySource::File {
                    path: "/other.mp4".into(),
                    identity: SourceIdentity { inode, ..identity() },
                },
                ..key()
            },
            None => key(),
        };
        let mut claimed = match journal.claim(&key, &"a".repeat(5000), NOW)? {
            Claim::Fresh(claimed) => claimed,
            claim => panic!("{claim:?}"),
        };
        journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs)?;
        for index in 0..chunks {
            journal.record_chunk(&mut claimed, index)?;
        }
        Ok((journal, claimed))
    };
    match worked() {
        Ok(_held) => {
            println!("\nsays ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        Err(error) => println!("\nsays {error:?}"),
    }
}

fn run_child(mut command: Command, path: &Path, chunks: u32) -> (Child, String) {
    let mut child = command
        .args(["--exact", "journal::tests::child", "--ignored", "--nocapture"])
        .env("RINGLIFT_TEST_JOURNAL", path)
        .env("RINGLIFT_TEST_CHUNKS", chunks.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.filter_map(|line| line.strip_prefix("says ").map(str::to_owned)).next();
    (child, said.expect("the child says how it went"))
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Returns a command that runs `binary` by its descriptor: another user may not search the folders above a build
/// below `/root`.
fn open_binary(binary: &File) -> Command {
    Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
}

#[test]
fn a_killed_process_gives_back_its_claim_and_loses_no_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let (child, said) = run_child(this_binary(), &path, 70);
    assert_eq!(said, "ready");
    let mut journal = Journal::open(&path).unwrap();
    let pid = Some(child.id());
    assert!(matches!(journal.claim(&key(), "", NOW).unwrap(), Claim::Busy { pid: found } if found == pid));
    assert_eq!(journal.entries().unwrap()[0].state, EntryState::Running { pid });
    end(child);
    let (_ticket, saved) = resumed(&mut journal, &key());
    assert_eq!(saved.stored, (0..70).collect::<Vec<_>>());
}

#[test]
fn where_nothing_can_be_written_nothing_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    left_behind(&path, [3]);
    let binary = File::open(std::env::current_exe().unwrap()).unwrap();
    let refused = |name: &str| {
        let mut command = open_binary(&binary);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let (child, said) = run_child(command, &folder.path().join(name), 1);
        end(child);
        assert!(said.starts_with("NotWritable"), "{name}: {said}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&path, 0o444);
    mode(folder.path(), 0o777);
    refused("j");
    mode(&path, 0o666);
    mode(folder.path(), 0o555);
    refused("j");
    refused("new");
    refused("new/j");
    mode(folder.path(), 0o755);
    mode(&path, 0o600);
    assert_eq!(resumed(&mut Journal::open(&path).unwrap(), &key()).1.stored, [3]);
}

/// A limit on the size of files stands in for the end of a disk; the signal that comes with it is ignored.
#[test]
fn a_write_that_does_not_fit_is_an_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for kib in [0, 4, 8, 16, 40, 64, 200] {
        let path = folder.path().join(format!("j{kib}"));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2)]);
        command.arg(std::env::current_exe().unwrap());
        let (child, said) = run_child(command, &path, 10_000);
        end(child);
        assert!(said.starts_with("Io") || said.starts_with("Full"), "{kib} KiB: {said}");
        match Journal::open(&path).unwrap().claim(&key(), "", NOW).unwrap() {
            Claim::Resume(_, saved) => assert_eq!(saved.container, known("vi1", CreatedBy::ByUs)),
            Claim::Fresh(_) => assert!(kib < 200, "{kib} KiB hold a container"),
            claim => panic!("{claim:?}"),
        }
    }
}

/// The header of a rollback journal from which a database is emptied again.
///
/// <https://www.sqlite.org/fileformat.html#the_rollback_journal>
fn rollback_to_nothing() -> Vec<u8> {
    let (records, nonce, pages_before, sector, page) = (0u32, 7u32, 0u32, 512u32, 4096u32);
    let numbers = [records, nonce, pages_before, sector, page].map(u32::to_be_bytes).concat();
    let mut header = [&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7], &*numbers].concat();
    header.resize(512, 0);
    header
}

#[test]
fn a_journal_whose_first_writer_was_killed_while_making_it_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (made, path) = (folder.path().join("made.db"), folder.path().join("journal.db"));
    let mut half = Connection::open(&made).unwrap();
    format::create(&mut half).unwrap();
    drop(half);
    fs::copy(&made, &path).unwrap();
    fs::write(folder.path().join("journal.db-journal"), rollback_to_nothing()).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    fresh(&mut journal, &key());
    assert_eq!(journal.entries().unwrap().len(), 1);
}
