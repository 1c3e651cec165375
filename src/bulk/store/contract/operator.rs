//! Rules of the requests without a lease: cancellations, lists, counts, pools, watchers.

use std::collections::HashSet;

use futures_util::future::join_all;
use pollster::block_on;

use super::fixtures::*;
use crate::bulk::lease::LostLease;
use crate::bulk::store::*;

pub(crate) fn a_cancelled_job_is_taken_from_its_worker(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    assert!(matches!(block_on(open().cancel(&id("a"), at(1))).unwrap(), JobState::Running { .. }));
    assert_eq!(lost(block_on(store.renew(&lease, at(2)))), LostLease::Cancelled);
    assert_eq!(lost(block_on(store.finish(&lease, done("vi1"), at(2)))), LostLease::Cancelled);
    assert_eq!(block_on(store.cancel(&id("a"), at(3))).unwrap(), JobState::Cancelled);
    assert!(matches!(block_on(store.cancel(&id("b"), at(3))), Err(JobStoreError::NoSuchJob { .. })));
}

pub(crate) fn a_retry_after_a_cancellation_waits_for_the_former_lease(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    block_on(store.cancel(&id("a"), at(1))).unwrap();
    block_on(store.retry(&id("a"), at(2))).unwrap();
    lost(block_on(store.renew(&lease, at(3))));
    let early = block_on(store.claim(&pool(), &owner(2), at(59))).unwrap();
    assert!(matches!(early, ClaimAnswer::NoneReady { .. }), "{early:?}");
    claim(&*store, 2, at(60));
}

pub(crate) fn a_held_job_cannot_be_forgotten_and_others_leave_nothing(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    assert!(matches!(block_on(store.forget(&id("a"), at(1))), Err(JobStoreError::Held { .. })));
    block_on(store.cancel(&id("a"), at(1))).unwrap();
    assert!(matches!(block_on(store.forget(&id("a"), at(59))), Err(JobStoreError::Held { .. })));
    assert!(block_on(store.forget(&id("a"), at(60))).unwrap());
    assert!(!block_on(store.forget(&id("a"), at(60))).unwrap());
    assert_eq!(lost(block_on(store.renew(&lease, at(61)))), LostLease::Forgotten);
    assert!(block_on(store.count()).unwrap().is_empty());
    assert_eq!(submit(&*store, vec![job("a")]), [Submission::New]);
}

pub(crate) fn a_clock_that_went_back_delays_a_takeover_by_one_lease_at_most(open: Open<'_>) {
    let store = open();
    submit(&*store, vec![job("a"), job("b")]);
    let first = claim(&*store, 1, at(100_000)).lease;
    let waiting = claim(&*store, 1, at(100_000)).lease;
    block_on(store.release(&waiting, 30 * SECOND, at(100_000))).unwrap();
    let ids: HashSet<_> = (2..4).map(|pid| claim(&*store, pid, at(0)).lease.id).collect();
    assert_eq!(ids, HashSet::from([id("a"), id("b")]));
    lost(block_on(store.finish(&first, done("vi1"), at(1))));
}

pub(crate) fn a_list_passes_over_the_jobs_that_it_is_to_skip(open: Open<'_>) {
    let store = open();
    submit(&*store, (0..25).map(|n| job(&n.to_string())).collect());
    let list = |after: Option<Cursor>, skip| {
        let query = JobQuery { after, skip, limit: 10, pool: Some(pool()), ..JobQuery::default() };
        let page = block_on(store.list(query)).unwrap();
        let ids = page.jobs.iter().map(|job| job.spec.id.as_str().parse::<u32>().unwrap());
        (ids.collect::<Vec<_>>(), page.next)
    };
    let (ids, next) = list(None, 7);
    assert_eq!(ids, (7..17).collect::<Vec<_>>());
    // The next page ends with the last job.
    let (ids, end) = list(next, 3);
    assert_eq!((ids, end), ((20..25).collect::<Vec<_>>(), None));
    assert_eq!(list(None, 15).0, (15..25).collect::<Vec<_>>());
    assert_eq!(list(None, 15).1, None);
    assert_eq!(list(None, 25), (Vec::new(), None));
    assert_eq!(list(None, usize::MAX), (Vec::new(), None));
}

pub(crate) fn pages_list_each_job_once_while_others_are_submitted(open: Open<'_>) {
    let store = open();
    submit(&*store, (0..25).map(|n| job(&n.to_string())).collect());
    let mut query = JobQuery { limit: 10, ..JobQuery::default() };
    let mut names = Vec::new();
    loop {
        let page = block_on(store.list(query.clone())).unwrap();
        names.extend(page.jobs.into_iter().map(|job| job.spec.id.as_str().parse::<u32>().unwrap()));
        block_on(store.forget(&id("0"), at(1))).unwrap();
        query.after = match page.next {
            Some(next) => Some(Cursor::new(next.as_str())),
            None => break,
        };
    }
    assert_eq!(names, (0..25).collect::<Vec<_>>());
    let lease = claim(&*store, 1, at(1)).lease;
    let running = JobQuery { state: Some(JobStateName::Running), pool: Some(pool()), ..JobQuery::default() };
    let page = block_on(store.list(running)).unwrap();
    assert_eq!(page.jobs.iter().map(|job| &job.spec.id).collect::<Vec<_>>(), [&lease.id]);
    let elsewhere = JobQuery { pool: Some(Pool::new("other").unwrap()), ..JobQuery::default() };
    assert!(block_on(store.list(elsewhere)).unwrap().jobs.is_empty());
    let foreign = JobQuery { after: Some(Cursor::new("no cursor")), ..JobQuery::default() };
    assert!(matches!(block_on(store.list(foreign)), Err(JobStoreError::BadCursor)));
}

pub(crate) fn counts_follow_every_change(open: Open<'_>) {
    use JobStateName::{Cancelled, Done, Failed, Queued, Running};
    let store = open();
    submit(&*store, vec![job_of_size("a", 1), job_of_size("b", 20), job_of_size("c", 300)]);
    assert_eq!(count(&*store, Queued), (3, 321));
    let leases: Vec<_> = (0..3).map(|pid| claim(&*store, pid, at(0)).lease).collect();
    assert_eq!((count(&*store, Queued), count(&*store, Running)), ((0, 0), (3, 321)));
    block_on(store.finish(&leases[0], done("vi1"), at(1))).unwrap();
    block_on(store.fail(&leases[1], JobFailure::permanent("refused", "no"), at(1))).unwrap();
    block_on(store.cancel(&id("c"), at(1))).unwrap();
    let counts = [Done, Failed, Cancelled, Running].map(|state| count(&*store, state));
    assert_eq!(counts, [(1, 1), (1, 20), (1, 300), (0, 0)]);
    block_on(store.submit(vec![job_of_size("a", 7)], Resubmit::Anew, at(2))).unwrap();
    assert_eq!((count(&*open(), Queued), count(&*open(), Done)), ((1, 7), (0, 0)));
}

pub(crate) fn a_paused_pool_gives_no_job_and_pools_do_not_mix(open: Open<'_>) {
    let store = open();
    let other = Pool::new("other").unwrap();
    submit(&*store, vec![job("a")]);
    assert!(matches!(block_on(store.claim(&other, &owner(1), at(0))).unwrap(), ClaimAnswer::Drained));
    block_on(store.set_paused(&pool(), true)).unwrap();
    assert!(matches!(block_on(open().claim(&pool(), &owner(1), at(0))).unwrap(), ClaimAnswer::Paused));
    block_on(store.set_paused(&pool(), false)).unwrap();
    claim(&*store, 1, at(0));
}

pub(crate) fn a_change_by_another_process_wakes_the_watcher(open: Open<'_>) {
    let (store, other) = (open(), open());
    let mut seen = block_on(store.changed(Revision::default())).unwrap();
    for name in ["a", "b"] {
        let (changed, _) = block_on(async {
            let submitted = other.submit(vec![job(name)], Resubmit::Keep, at(0));
            futures_util::future::join(store.changed(seen), submitted).await
        });
        assert_ne!(changed.as_ref().unwrap(), &seen);
        seen = changed.unwrap();
    }
}

pub(crate) fn a_dropped_request_leaves_the_store_usable(open: Open<'_>) {
    let store = open();
    submit(&*store, (0..10).map(|n| job(&n.to_string())).collect());
    for _ in 0..300 {
        drop(store.changed(Revision::default()));
        drop(store.count());
        let mut watch = store.changed(Revision::new(u64::MAX));
        let mut request = store.count();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = (request.as_mut().poll(&mut context), watch.as_mut().poll(&mut context));
    }
    let leases: Vec<_> = (0..10).map(|pid| claim(&*store, pid, at(0)).lease).collect();
    let finished = leases.iter().map(|lease| store.finish(lease, done("vi1"), at(1)));
    assert!(block_on(join_all(finished)).iter().all(Result::is_ok));
}
