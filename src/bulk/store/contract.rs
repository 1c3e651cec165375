//! The contract of [`JobStore`], tested against every store.
//!
//! [`job_store_contract!`] makes a test of each rule. Its argument runs a rule with a function that opens handles on
//! one new store, as several processes would.

use std::collections::HashSet;
use std::thread;

use futures_util::future::join_all;
use pollster::block_on;

use super::*;
use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobResult;
use crate::bulk::lease::LostLease;
use crate::bulk::order::OrderBy;
use crate::upload::UploadOptions;

/// Opens another handle on the store under test.
pub(crate) type Open<'a> = &'a (dyn Fn() -> Box<dyn JobStore> + Sync);

/// The length of leases in the stores under test.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

const SECOND: Duration = Duration::from_secs(1);

macro_rules! job_store_contract {
    ($with:path) => {
        $crate::bulk::store::contract::job_store_contract!($with:
            a_job_submitted_again_is_the_same_job,
            the_same_id_with_other_content_is_a_conflict,
            new_options_reach_a_job_that_waits_and_not_one_that_is_done,
            a_failed_job_is_queued_again_only_on_request,
            a_job_done_begins_anew_only_when_forced,
            a_running_job_is_not_forced_anew,
            a_job_too_large_is_refused_with_all_others,
            priority_comes_before_the_chosen_order_and_that_before_submission,
            a_job_is_claimed_once_by_two_processes_at_work,
            jobs_claimed_together_are_the_next_ones_in_order_and_each_has_a_lease,
            only_small_files_are_claimed_with_another_job,
            a_claim_carries_the_job_and_its_checkpoint,
            nothing_to_claim_names_the_next_time_or_the_end,
            a_lease_that_is_renewed_does_not_run_out,
            a_job_with_a_lease_that_ran_out_goes_to_another_worker,
            late_writes_of_a_former_holder_are_refused_and_change_nothing,
            a_repeated_finish_succeeds_and_another_one_is_refused,
            an_older_checkpoint_does_not_replace_a_newer_one,
            a_temporary_failure_waits_longer_each_time_and_the_fifth_ends_the_job,
            progress_starts_the_count_of_failures_anew,
            a_permanent_failure_ends_the_job_at_once,
            a_released_job_counts_no_failure,
            videos_left_by_another_worker_are_recorded_without_a_lease_until_they_are_gone,
            a_file_declined_three_times_fails_its_job,
            a_cancelled_job_is_taken_from_its_worker,
            a_retry_after_a_cancellation_waits_for_the_former_lease,
            a_held_job_cannot_be_forgotten_and_others_leave_nothing,
            a_clock_that_went_back_delays_a_takeover_by_one_lease_at_most,
            a_list_passes_over_the_jobs_that_it_is_to_skip,
            pages_list_each_job_once_while_others_are_submitted,
            counts_follow_every_change,
            a_paused_pool_gives_no_job_and_pools_do_not_mix,
            a_change_by_another_process_wakes_the_watcher,
            a_dropped_request_leaves_the_store_usable,
        );
    };
    ($with:path: $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                $with(&$crate::bulk::store::contract::$rule);
            }
        )*
    };
}
pub(crate) use job_store_contract;

fn at(seconds: u64) -> UnixMillis {
    UnixMillis::new(1_800_000_000_000 + seconds * 1000)
}

fn pool() -> Pool {
    Pool::new("films").unwrap()
}

fn owner(pid: u32) -> OwnerId {
    OwnerId::new("host", pid, 7)
}

fn id(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

fn job(name: &str) -> JobSpec {
    job_of_size(name, 10)
}

fn job_of_size(name: &str, size: u64) -> JobSpec {
    let source = JobSource::File { path: format!("/films/{name}").into() };
    JobSpec::new(id(name), pool(), source, Some(ContentStamp { size, mtime_ns: 5 }), UploadOptions::default())
}

fn submit(store: &dyn JobStore, jobs: Vec<JobSpec>) -> Vec<Submission> {
    block_on(store.submit(jobs, Resubmit::Keep, at(0))).unwrap()
}

fn claim(store: &dyn JobStore, pid: u32, now: UnixMillis) -> ClaimedJob {
    match block_on(store.claim(&pool(), &owner(pid), now)).unwrap() {
        ClaimAnswer::Claimed(claimed) => *claimed,
        other => panic!("expected a job, got {other:?}"),
    }
}

/// Submits the job `a`, and claims it for process 1 at time 0.
fn claimed(store: &dyn JobStore) -> Lease {
    submit(store, vec![job("a")]);
    claim(store, 1, at(0)).lease
}

fn done(video_id: &str) -> JobEnd {
    JobEnd::Done(JobResult::new(video_id, 10))
}

fn unavailable() -> JobFailure {
    JobFailure::temporary("unavailable", "the service failed")
}

fn state(store: &dyn JobStore, name: &str) -> JobState {
    block_on(store.get(&id(name))).unwrap().unwrap().record.state
}

fn lost<T: fmt::Debug>(result: Result<T, JobStoreError>) -> LostLease {
    match result {
        Err(JobStoreError::LeaseLost { reason, .. }) => reason,
        other => panic!("expected a lost lease, got {other:?}"),
    }
}

fn count(store: &dyn JobStore, state: JobStateName) -> (u64, u64) {
    let counts = block_on(store.count()).unwrap();
    counts.iter().find(|count| count.state == state).map_or((0, 0), |count| (count.jobs, count.bytes))
}

pub(crate) fn a_job_submitted_again_is_the_same_job(open: Open<'_>) {
    let store = open();
    let queued = JobState::Queued { not_before: UnixMillis::default() };
    assert_eq!(
        submit(&*store, vec![job("a"), job("b"), job("a")]),
        [Submission::New, Submission::New, Submission::Same(queued)]
    );
    let lease = claim(&*store, 1, at(1)).lease;
    block_on(store.finish(&lease, done("vi1"), at(2))).unwrap();
    let JobState::Done(result) = state(&*store, "a") else { panic!("not done") };
    assert_eq!(submit(&*open(), vec![job("a")]), [Submission::Same(JobState::Done(result))]);
}

pub(crate) fn the_same_id_with_other_content_is_a_conflict(open: Open<'_>) {
    let store = open();
    submit(&*store, vec![job("a")]);
    assert!(matches!(submit(&*store, vec![job_of_size("a", 11)])[..], [Submission::Conflict(_)]));
    assert_eq!(claim(&*store, 1, at(1)).job.spec.stamp.unwrap().size, 10);
}

pub(crate) fn new_options_reach_a_job_that_waits_and_not_one_that_is_done(open: Open<'_>) {
    let store = open();
    let titled = |title: &str| {
        let mut job = job("a");
        job.options.video.title = title.to_owned();
        job
    };
    submit(&*store, vec![titled("first")]);
    submit(&*store, vec![titled("second")]);
    let claimed = claim(&*store, 1, at(1));
    assert_eq!(claimed.job.spec.options.video.title, "second");
    block_on(store.finish(&claimed.lease, done("vi1"), at(2))).unwrap();
    submit(&*store, vec![titled("third")]);
    assert_eq!(block_on(store.get(&id("a"))).unwrap().unwrap().spec.options.video.title, "second");
}

pub(crate) fn a_failed_job_is_queued_again_only_on_request(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    block_on(store.checkpoint(&lease, JobCheckpoint::new(1, 5, "half"), at(1))).unwrap();
    block_on(store.fail(&lease, JobFailure::permanent("refused", "no"), at(1))).unwrap();
    assert!(matches!(submit(&*store, vec![job("a")])[..], [Submission::Same(JobState::Failed(_))]));
    let again = block_on(store.submit(vec![job("a")], Resubmit::RetryFailed, at(2))).unwrap();
    assert!(matches!(again[..], [Submission::Requeued(JobState::Failed(_))]));
    assert_eq!(claim(&*store, 2, at(3)).job.checkpoint.as_deref(), Some("half"));
}

pub(crate) fn a_job_done_begins_anew_only_when_forced(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    block_on(store.checkpoint(&lease, JobCheckpoint::new(1, 5, "half"), at(1))).unwrap();
    block_on(store.finish(&lease, done("vi1"), at(2))).unwrap();
    let retried = block_on(store.submit(vec![job("a")], Resubmit::RetryFailed, at(3))).unwrap();
    assert!(matches!(retried[..], [Submission::Same(JobState::Done(_))]));
    assert!(matches!(block_on(store.retry(&id("a"), at(3))).unwrap(), JobState::Done(_)));
    let forced = block_on(store.submit(vec![job_of_size("a", 11)], Resubmit::Anew, at(4))).unwrap();
    assert!(matches!(forced[..], [Submission::Requeued(JobState::Done(_))]));
    let claimed = claim(&*store, 2, at(5));
    assert_eq!((claimed.job.checkpoint, claimed.job.spec.stamp.unwrap().size), (None, 11));
    assert!(claimed.lease.epoch > lease.epoch);
}

pub(crate) fn a_running_job_is_not_forced_anew(open: Open<'_>) {
    let store = open();
    let lease = claimed(&*store);
    let forced = block_on(store.submit(vec![job("a")], Resubmit::Anew, at(1))).unwrap();
    assert!(matches!(forced[..], [Submission::Same(JobState::Running { .. })]));
    block_on(store.finish(&lease, done("vi1"), at(2))).unwrap();
}

pub(crate) fn a_job_too_large_is_refused_with_all_others(open: Open<'_>) {
    let store = open();
    let mut large = job("large");
    large.options.video.title = "x".repeat(LONGEST_JOB);
    let refused = block_on(store.submit(vec![job("a"), large], Resubmit::Keep, at(0))).unwrap_err();
    assert!(refused.to_string().contains("job large") && refused.to_string().contains("262144"), "{refused}");
    let many = (0..=MOST_SUBMITTED).map(|n| job(&n.to_string())).collect();
    assert!(matches!(
        block_on(store.submit(many, Resubmit::Keep, at(0))),
        Err(JobStoreError::TooLarge { .. })
    ));
    assert_eq!(count(&*store, JobStateName::Queued), (0, 0));
    let lease = claimed(&*store);
    let checkpoint = JobCheckpoint::new(1, 0, "x".repeat(LONGEST_CHECKPOINT + 1));
    assert!(matches!(
        block_on(store.checkpoint(&lease, checkpoint, at(1))),
        Err(JobStoreError::TooLarge { .. })
    ));
}

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

pub(crate) fn late_writes_of_a_former_holder_are_refused_and_change_nothing(open: Open<'_>) {
    let store = open();
    let first = claimed(&*store);
    // The same process again: the owner is the same, and the epoch alone tells the two claims apart.
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
