//! Sessions of upload tokens.

use super::*;

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
fn another_upload_token_resumes_the_same_video() {
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
fn an_upload_token_and_the_api_key_do_not_resume_each_others_videos() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begun_with_to1(&folder.path().join("j"));
    let _by_key = fresh(&mut journal, &key());
    let other = folder.path().join("k");
    left_behind(&other, [1]);
    fresh(&mut Journal::open(&other).unwrap(), &with_token("to1"));
}

#[test]
fn a_session_of_another_token_is_not_resumed_while_it_runs_or_if_excluded() {
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
fn the_session_with_the_same_token_is_resumed_first() {
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
