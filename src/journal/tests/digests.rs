//! Digests of chunks.

use super::*;

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
