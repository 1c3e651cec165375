//! Rules of claims and of the leases that they give.

use std::collections::HashSet;
use std::thread;

use pollster::block_on;

use super::fixtures::*;
use crate::bulk::lease::LostLease;
use crate::bulk::order::OrderBy;
use crate::bulk::store::*;

pub(crate) fn priority_comes_before_the_chosen_order_and_that_before_submission(open: Open<'_>) {
    let store = open();
    let ordered = |name: &str, size, priority| {
        let mut job = job_of_size(name, size);
        job.priority = priority;
        job.sort_key = OrderBy::Size { descending: true }.key(&job.id, &job.source, job.stamp);
        job
    };
    let jobs =
        [("small", 1, 0), ("large", 900, 0), ("large2", 900, 0), ("urgent", 5, 3), ("later", 9000, -1)];
    submit(&*store, jobs.map(|(name, size, priority)| ordered(name, size, priority)).to_vec());
    let claimed: Vec<_> =
        (0..5).map(|pid| claim(&*store, pid, at(0)).job.spec.id.as_str().to_owned()).collect();
    assert_eq!(claimed, ["urgent", "large", "large2", "small", "later"]);
}

pub(crate) fn a_job_is_claimed_once_by_two_processes_at_work(open: Open<'_>) {
    let jobs = 60;
    submit(&*open(), (0..jobs).map(|n| job(&n.to_string())).collect());
    let work = |pid| {
        let store = open();
        let mut ids = Vec::new();
        while let ClaimAnswer::Claimed(claimed) = block_on(store.claim(&pool(), &owner(pid), at(0))).unwrap()
        {
            block_on(store.finish(&claimed.lease, done("vi1"), at(1))).unwrap();
            ids.push(claimed.job.spec.id);
        }
        ids
    };
    let ids: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|pid| scope.spawn(move || work(pid))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), jobs);
    assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), jobs);
    assert_eq!(count(&*open(), JobStateName::Done), (jobs as u64, 10 * jobs as u64));
}

pub(crate) fn jobs_claimed_together_are_the_next_ones_in_order_and_each_has_a_lease(open: Open<'_>) {
    let (store, other) = (open(), open());
    let names: Vec<String> = (0..20).map(|number| format!("film-{number:02}")).collect();
    submit(&*store, names.iter().map(|name| job_of_size(name, 10)).collect());
    let mut claimed = Vec::new();
    while claimed.len() < names.len() {
        // Two processes take turns, and none gets a job of the other.
        let (store, pid) = if claimed.len() % 2 == 0 { (&store, 1) } else { (&other, 2) };
        let answers = block_on(store.claim_several(&pool(), &owner(pid), at(0), 3, 10)).unwrap();
        assert!((1..=3).contains(&answers.len()), "{}", answers.len());
        for answer in answers {
            let ClaimAnswer::Claimed(job) = answer else { panic!("expected a job, got {answer:?}") };
            block_on(store.renew(&job.lease, at(1))).unwrap();
            claimed.push(job.lease.id);
        }
    }
    assert_eq!(claimed, names.iter().map(|name| id(name)).collect::<Vec<_>>());
    let answers = block_on(store.claim_several(&pool(), &owner(1), at(1), 3, 10)).unwrap();
    assert!(matches!(answers.as_slice(), [ClaimAnswer::NoneReady { .. }]), "{answers:?}");
}

pub(crate) fn only_small_files_are_claimed_with_another_job(open: Open<'_>) {
    let store = open();
    let sizes = [("large", 11), ("small", 10), ("next", 11), ("empty", 0)];
    submit(&*store, sizes.iter().map(|(name, size)| job_of_size(name, *size)).collect());
    let mut left = sizes.len();
    while left > 0 {
        let answers = block_on(store.claim_several(&pool(), &owner(1), at(0), 9, 10)).unwrap();
        for (place, answer) in answers.into_iter().enumerate() {
            let ClaimAnswer::Claimed(claimed) = answer else { panic!("expected a job, got {answer:?}") };
            let size = claimed.job.spec.stamp.unwrap().size;
            assert!(place == 0 || (1..=10).contains(&size), "{size} bytes at place {place}");
            left -= 1;
        }
    }
}

pub(crate) fn a_job_that_waits_does_not_fail_for_the_workers_that_vanish_with_others(open: Open<'_>) {
    let store = open();
    let jobs = 40;
    submit(&*store, (0..jobs).map(|number| job_of_size(&number.to_string(), 10)).collect());
    // Each worker holds five jobs or more, ends one, and vanishes.
    for (worker, now) in (0..jobs).map(|worker| (worker, at(61 * u64::from(worker)))) {
        let mut held = Vec::new();
        while held.len() < 5 {
            let together = block_on(store.claim_several(&pool(), &owner(worker), now, 30, 10)).unwrap();
            let claimed = together.iter().filter_map(|answer| match answer {
                ClaimAnswer::Claimed(claimed) => Some(ClaimedJob::clone(claimed)),
                _ => None,
            });
            let before = held.len();
            held.extend(claimed);
            match &held[before..] {
                [] => break,
                [_] => {}
                several => assert!(several.iter().all(|claimed| claimed.job.record.lost_workers == 0)),
            }
        }
        block_on(store.finish(&held[0].lease, done("vi1"), now)).unwrap();
    }
    assert_eq!(count(&*store, JobStateName::Done).0, u64::from(jobs));
}

pub(crate) fn a_claim_carries_the_job_and_its_checkpoint(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    assert_eq!((lease.id.as_str(), lease.owner.clone(), lease.length), ("a", owner(1), LEASE));
    block_on(store.checkpoint(&lease, JobCheckpoint::new(1, 4, "{\"chunks\":[1]}").durable(), at(1)))
        .unwrap();
    block_on(store.release(&lease, Duration::ZERO, at(2))).unwrap();
    let ClaimedJob { job: found, lease } = claim(&*open(), 2, at(3));
    assert_eq!(found.checkpoint.as_deref(), Some("{\"chunks\":[1]}"));
    assert_eq!(found.spec.source, job("a").source);
    assert_eq!((found.record.acknowledged_bytes, found.record.started_at), (4, Some(at(0))));
    assert_eq!(found.record.owner, Some(lease.owner));
}

pub(crate) fn nothing_to_claim_names_the_next_time_or_the_end(open: Open<'_>) {
    let store = open();
    let ask = |now| block_on(store.claim(&pool(), &owner(2), now)).unwrap();
    assert!(matches!(ask(at(0)), ClaimAnswer::Drained));
    let lease = claimed(&*store);
    let ClaimAnswer::NoneReady { next_at } = ask(at(1)) else { panic!("expected a wait") };
    assert_eq!(next_at, at(60));
    block_on(store.release(&lease, 20 * SECOND, at(1))).unwrap();
    let ClaimAnswer::NoneReady { next_at } = ask(at(2)) else { panic!("expected a wait") };
    assert_eq!(next_at, at(21));
    let lease = claim(&*store, 2, at(21)).lease;
    block_on(store.finish(&lease, JobEnd::Skipped { reason: "gone".into() }, at(22))).unwrap();
    assert!(matches!(ask(at(23)), ClaimAnswer::Drained));
}

pub(crate) fn a_lease_that_is_renewed_does_not_run_out(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    for now in [20, 40, 60, 80, 100] {
        block_on(store.renew(&lease, at(now))).unwrap();
    }
    // A renewal that was delayed on its way does not shorten the lease.
    block_on(store.renew(&lease, at(60))).unwrap();
    let answer = block_on(store.claim(&pool(), &owner(2), at(150))).unwrap();
    assert!(matches!(answer, ClaimAnswer::NoneReady { .. }), "{answer:?}");
    block_on(store.finish(&lease, done("vi1"), at(151))).unwrap();
}

pub(crate) fn a_job_with_a_lease_that_ran_out_goes_to_another_worker(open: Open<'_>) {
    let store = open();
    let first = claimed(&*store);
    // Late, but before another worker has claimed the job.
    block_on(store.renew(&first, at(100))).unwrap();
    let second = claim(&*store, 2, at(160)).lease;
    assert_eq!(second.id, first.id);
    assert!(second.epoch > first.epoch);
    assert_eq!(lost(block_on(store.renew(&first, at(161)))), LostLease::TakenOver { owner: owner(2) });
}
