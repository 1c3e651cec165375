//! Rules of the writes by the holder of a lease: checkpoints, ends, failures.

use pollster::block_on;

use super::fixtures::*;
use crate::bulk::job_state::JobResult;
use crate::bulk::lease::LostLease;
use crate::bulk::store::*;

pub(crate) fn late_writes_of_a_former_holder_are_refused_and_change_nothing(open: Open<'_>) {
    let store = open();
    let first = claimed(&*store);
    // The same process again: the owner is the same, and only the epoch distinguishes the two claims.
    let second = claim(&*store, 1, at(60)).lease;
    block_on(store.checkpoint(&second, JobCheckpoint::new(1, 5, "second"), at(61))).unwrap();
    let before = block_on(store.get(&id("a"))).unwrap().unwrap();
    lost(block_on(store.renew(&first, at(62))));
    lost(block_on(store.checkpoint(&first, JobCheckpoint::new(9, 9, "first"), at(62))));
    lost(block_on(store.finish(&first, done("vi0"), at(62))));
    lost(block_on(store.fail(&first, unavailable(), at(62))));
    lost(block_on(store.decline(&first, unavailable(), at(62))));
    lost(block_on(store.release(&first, SECOND, at(62))));
    let after = block_on(store.get(&id("a"))).unwrap().unwrap();
    assert_eq!((after.record, after.checkpoint), (before.record, before.checkpoint));
    block_on(store.finish(&second, done("vi1"), at(63))).unwrap();
}

pub(crate) fn a_repeated_finish_succeeds_and_another_one_is_refused(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    block_on(store.finish(&lease, done("vi1"), at(1))).unwrap();
    block_on(store.finish(&lease, done("vi1"), at(2))).unwrap();
    let reason = lost(block_on(store.finish(&lease, done("vi2"), at(3))));
    assert_eq!(reason, LostLease::Ended { state: JobStateName::Done });
    let found = block_on(store.get(&id("a"))).unwrap().unwrap();
    assert_eq!(found.record.finished_at, Some(at(1)));
    assert_eq!(found.record.state, JobState::Done(JobResult::new("vi1", 10)));
}

pub(crate) fn an_older_checkpoint_does_not_replace_a_newer_one(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    for (number, content) in [(1, "one"), (3, "three"), (2, "two"), (3, "three again")] {
        block_on(store.checkpoint(&lease, JobCheckpoint::new(number, number, content), at(1))).unwrap();
    }
    let found = block_on(store.get(&id("a"))).unwrap().unwrap();
    assert_eq!(found.checkpoint.as_deref(), Some("three"));
    // The next holder counts from 1 again.
    block_on(store.release(&lease, Duration::ZERO, at(2))).unwrap();
    let lease = claim(&*store, 2, at(2)).lease;
    block_on(store.checkpoint(&lease, JobCheckpoint::new(1, 0, "anew"), at(3))).unwrap();
    assert_eq!(block_on(store.get(&id("a"))).unwrap().unwrap().checkpoint.as_deref(), Some("anew"));
}

pub(crate) fn a_temporary_failure_waits_longer_each_time_and_the_fifth_ends_the_job(open: Open<'_>) {
    let store = open();
    submit(&*store, vec![job("a")]);
    let mut now = 0;
    for wait in [30, 60, 120, 240] {
        let lease = claim(&*store, 1, at(now)).lease;
        let state = block_on(store.fail(&lease, unavailable(), at(now))).unwrap();
        // Its answer was lost: the repetition counts no second attempt.
        assert_eq!(block_on(store.fail(&lease, unavailable(), at(now))).unwrap(), state);
        assert_eq!(state, JobState::Queued { not_before: at(now + wait) });
        let early = block_on(store.claim(&pool(), &owner(1), at(now + wait - 1))).unwrap();
        assert!(matches!(early, ClaimAnswer::NoneReady { .. }), "{early:?}");
        now += wait;
    }
    let claimed = claim(&*store, 1, at(now));
    assert_eq!(claimed.job.record.last_failure, Some(unavailable()));
    let state = block_on(store.fail(&claimed.lease, unavailable(), at(now))).unwrap();
    assert_eq!(state, JobState::Failed(unavailable()));
}

pub(crate) fn progress_starts_the_count_of_failures_anew(open: Open<'_>) {
    let store = open();
    submit(&*store, vec![job("a")]);
    for attempt in 1..=30 {
        let lease = claim(&*store, 1, at(attempt * 600)).lease;
        block_on(store.checkpoint(&lease, JobCheckpoint::new(1, attempt, "c"), at(attempt * 600))).unwrap();
        block_on(store.fail(&lease, unavailable(), at(attempt * 600))).unwrap();
    }
    assert!(matches!(state(&*store, "a"), JobState::Queued { .. }));
}

pub(crate) fn a_permanent_failure_ends_the_job_at_once(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    let failure = JobFailure::permanent("no_such_file", "there is no such file");
    let state = block_on(store.fail(&lease, failure.clone(), at(1))).unwrap();
    assert_eq!(state, JobState::Failed(failure));
    assert!(matches!(block_on(store.claim(&pool(), &owner(2), at(9))).unwrap(), ClaimAnswer::Drained));
    assert!(matches!(block_on(store.retry(&id("a"), at(10))).unwrap(), JobState::Failed(_)));
    claim(&*store, 2, at(10));
}

pub(crate) fn a_released_job_counts_no_failure(open: Open<'_>) {
    let store = open();
    submit(&*store, vec![job("a")]);
    for round in 0..30 {
        let lease = claim(&*store, 1, at(round * 700)).lease;
        // A longer delay than the limit is cut.
        block_on(store.release(&lease, 7000 * SECOND, at(round * 700))).unwrap();
    }
    let record = block_on(store.get(&id("a"))).unwrap().unwrap().record;
    assert_eq!((record.attempts_without_progress, record.lost_workers), (0, 0));
}

pub(crate) fn a_job_set_aside_counts_no_failure_and_has_the_reason_until_it_is_queued_anew(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    for _ in 0..2 {
        block_on(store.set_aside(&lease, unavailable(), 20 * SECOND, at(0))).unwrap();
    }
    let record = || block_on(open().get(&lease.id)).unwrap().unwrap().record;
    let (reason, attempts) = (record().last_failure, record().attempts_without_progress);
    assert_eq!((reason, attempts), (Some(unavailable()), 0));
    // Not before the delay is over.
    let answer = block_on(store.claim(&pool(), &owner(2), at(19))).unwrap();
    assert!(matches!(answer, ClaimAnswer::NoneReady { .. }), "{answer:?}");
    claim(&*store, 2, at(20));
    lost(block_on(store.set_aside(&lease, JobFailure::default(), SECOND, at(21))));
    assert_eq!(record().last_failure, Some(unavailable()));
    block_on(store.cancel(&lease.id, at(22))).unwrap();
    block_on(store.retry(&lease.id, at(23))).unwrap();
    assert_eq!(record().last_failure, None);
}

pub(crate) fn videos_left_by_another_worker_are_recorded_without_a_lease_until_they_are_gone(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    let note = |found: &[&str], gone: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        block_on(open().note_orphans(&lease.id, texts(found), texts(gone))).unwrap();
        block_on(store.get(&lease.id)).unwrap().unwrap().record.orphans
    };
    assert_eq!(note(&["vi1", "vi2"], &[]), ["vi1", "vi2"]);
    assert_eq!(note(&["vi2"], &["vi1"]), ["vi2"]);
    // The holder's writes keep them, and they need no lease.
    block_on(store.finish(&lease, done("vi0"), at(1))).unwrap();
    assert_eq!(note(&["vi3"], &["vi2"]), ["vi3"]);
    let many: Vec<String> = (0..100).map(|n| format!("many{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(note(&many, &[]).len(), 16);
    assert_eq!(note(&[&"v".repeat(1000)], &many).as_slice(), ["vi3"]);
    block_on(store.note_orphans(&id("no-such-job"), vec!["vi9".to_owned()], Vec::new())).unwrap();
}

pub(crate) fn a_file_declined_three_times_fails_its_job(open: Open<'_>) {
    let store = open();
    submit(&*store, vec![job("a")]);
    let missing = || JobFailure::temporary("no_such_file", "there is no such file");
    for round in 0..2 {
        let lease = claim(&*store, 1, at(round * 60)).lease;
        let state = block_on(store.decline(&lease, missing(), at(round * 60))).unwrap();
        assert_eq!(state, JobState::Queued { not_before: at(round * 60 + 60) });
    }
    let lease = claim(&*store, 1, at(120)).lease;
    assert_eq!(block_on(store.decline(&lease, missing(), at(120))).unwrap(), JobState::Failed(missing()));
}
