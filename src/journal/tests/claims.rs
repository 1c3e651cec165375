//! Claims of several processes, and their cost.

use super::*;

#[test]
fn the_second_claim_of_a_session_is_refused_with_the_process_of_the_first() {
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
fn a_running_session_cannot_be_forgotten_by_another_process() {
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
fn ten_thousand_acknowledgements_are_cheap_and_all_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let began = Instant::now();
    left_behind(&path, 0..10_000);
    eprintln!("{:?} an acknowledgement", began.elapsed() / 10_000);
    let (_ticket, saved) = resumed(&mut Journal::open(&path).unwrap(), &key());
    assert_eq!(saved.stored, (0..10_000).collect::<Vec<_>>());
    assert!(fs::metadata(&path).unwrap().len() < 64 << 10);
}
