//! Files that are found again, and files that are not.

use super::*;

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
fn an_empty_container_is_resumed_for_a_touched_file() {
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
