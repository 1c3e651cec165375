//! Sessions from their first claim to their end.

use super::*;

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
fn the_same_command_finds_its_container_its_plan_and_its_acknowledged_chunks() {
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
fn the_next_claim_forgets_finished_sessions_even_of_the_same_file() {
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
fn a_finished_session_that_was_not_forgotten_is_resumed() {
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
fn an_abandoned_session_is_an_orphan_until_it_is_forgotten() {
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
fn an_entry_names_its_file_its_destination_and_its_title() {
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
