//! Rules of submitted jobs.

use pollster::block_on;

use super::fixtures::*;
use crate::bulk::store::*;

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
