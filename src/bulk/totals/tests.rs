//! Totals of single files and of random histories.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::pacing::Class;
use crate::session::event::FailureSummary;
use crate::session::retry::Fate;

const SECOND: Duration = Duration::from_secs(1);

fn progress(total: u64, sent: u64, resumed: u64) -> Progress {
    Progress {
        total_bytes: Some(total),
        read_bytes: sent,
        sent_bytes: sent,
        acknowledged_bytes: sent,
        resumed_bytes: resumed,
        ..Progress::default()
    }
}

fn throttled(seconds: u64) -> UploadEvent {
    UploadEvent::Throttled {
        class: Class::Uploads,
        why: ThrottleReason::Budget,
        delay: SECOND * seconds as u32,
    }
}

fn retry(seconds: u32) -> UploadEvent {
    let why = FailureSummary::from(&Error::new(ErrorKind::Unavailable, "send"));
    UploadEvent::Retry { index: Some(0), attempt: 1, why, delay: SECOND * seconds, fate: Fate::NotStored }
}

/// Returns the totals of `files` files of 1000 bytes each, all under way.
fn under_way(files: u64, now: Instant) -> Totals {
    let mut totals = Totals::new(now);
    (0..files).for_each(|_| totals.find(Some(1000)));
    totals.found_all();
    (0..files).for_each(|key| totals.begin(key, "movie.mp4", Some(1000), now));
    totals
}

#[test]
fn bytes_of_an_earlier_run_count_as_done_and_not_as_speed() {
    let start = Instant::now();
    let mut totals = under_way(1, start);
    totals.advance(0, &progress(1000, 800, 800), start);
    totals.advance(0, &progress(1000, 900, 800), start + 10 * SECOND);
    let at = totals.snapshot(start + 10 * SECOND);
    assert_eq!((at.bytes.resumed, at.bytes.sent, at.bytes.total), (800, 100, Some(1000)));
    assert_eq!((at.bytes_per_second.run, at.bytes_per_second.minute), (10, 10));
    assert_eq!(at.eta, Some(10 * SECOND));
}

#[test]
fn a_skipped_file_is_done_without_speed_and_a_failed_one_leaves_the_total() {
    let start = Instant::now();
    let mut totals = Totals::new(start);
    (0..3).for_each(|_| totals.find(Some(1000)));
    assert_eq!(totals.snapshot(start).bytes.total, None, "files are still being found");
    totals.found_all();
    assert_eq!(totals.snapshot(start).bytes.total, Some(3000));
    totals.end(0, Some(1000), FileEnd::Skipped { bytes: 1000 }, start);
    totals.begin(1, "b.mp4", Some(1000), start);
    totals.advance(1, &progress(1000, 300, 0), start + SECOND);
    totals.end(1, Some(1000), FileEnd::Failed, start + SECOND);
    totals.begin(2, "c.mp4", Some(1000), start + SECOND);
    totals.end(2, Some(1000), FileEnd::Done { bytes: 1000 }, start + SECOND);
    let at = totals.snapshot(start + SECOND);
    assert_eq!((at.files.done, at.files.failed, at.files.skipped, at.files.running), (1, 1, 1, 0));
    assert_eq!((at.bytes.total, at.bytes.sent, at.bytes.resumed), (Some(2300), 1300, 1000));
    assert_eq!(at.bytes.found, Some(3000), "the failed file was found");
    assert_eq!(at.eta, Some(Duration::ZERO));
}

#[test]
fn a_stream_of_unknown_length_has_no_total_until_its_end() {
    let start = Instant::now();
    let mut totals = Totals::new(start);
    totals.find(None);
    totals.found_all();
    totals.begin(0, "stdin", None, start);
    let open = Progress { total_bytes: None, ..progress(0, 500, 0) };
    totals.advance(0, &open, start + SECOND);
    let at = totals.snapshot(start + SECOND);
    assert_eq!((at.bytes.total, at.eta, at.bytes.sent), (None, None, 500));
    totals.advance(0, &progress(700, 600, 0), start + SECOND);
    assert_eq!(totals.snapshot(start + SECOND).bytes.total, Some(700));
}

#[test]
fn a_throttle_delay_is_the_cause_until_its_end() {
    let start = Instant::now();
    let mut totals = under_way(2, start);
    totals.record(0, &throttled(42), start);
    totals.record(1, &throttled(41), start);
    let expected = LimitedBy::Throttle { until: start + 42 * SECOND, reason: ThrottleReason::Budget };
    assert_eq!(totals.snapshot(start + 41 * SECOND).limited_by, expected);
    totals.advance(0, &progress(1000, 1, 0), start + 42 * SECOND);
    assert_eq!(totals.snapshot(start + 42 * SECOND).limited_by, LimitedBy::Nothing);
}

#[test]
fn the_end_of_a_run_is_not_before_the_end_of_a_delay() {
    let start = Instant::now();
    let mut totals = under_way(1, start);
    totals.advance(0, &progress(1000, 900, 0), start + SECOND);
    totals.record(0, &throttled(42), start + SECOND);
    assert_eq!(totals.snapshot(start + SECOND).eta, Some(42 * SECOND));
}

#[test]
fn a_retry_is_the_cause_only_if_every_file_waits_for_one() {
    let start = Instant::now();
    let mut totals = under_way(2, start);
    totals.record(0, &retry(9), start);
    assert_eq!(totals.snapshot(start).limited_by, LimitedBy::Nothing);
    totals.record(1, &retry(7), start);
    assert_eq!(totals.snapshot(start).limited_by, LimitedBy::Retry { until: start + 7 * SECOND });
    // Other chunks of the file move.
    totals.advance(1, &progress(1000, 5, 0), start);
    assert_eq!(totals.snapshot(start).limited_by, LimitedBy::Nothing);
}

#[test]
fn silence_is_a_stall_or_a_wait_for_the_answer() {
    let start = Instant::now();
    let mut totals = under_way(1, start);
    totals.advance(0, &progress(1000, 900, 0), start + SECOND);
    let later = start + SECOND + STALLED_AFTER;
    assert_eq!(totals.snapshot(later - SECOND).limited_by, LimitedBy::Nothing);
    let stalled = totals.snapshot(later);
    assert_eq!(stalled.limited_by, LimitedBy::Stalled { since: start + SECOND });
    assert_eq!(stalled.eta, None);
    totals.advance(0, &progress(1000, 1000, 0), later);
    let answer = totals.snapshot(later + ANSWER_AFTER);
    assert_eq!(answer.limited_by, LimitedBy::Answer { since: later });
}

#[test]
fn an_unlimited_delay_does_not_overflow_the_clock() {
    let start = Instant::now();
    let mut totals = under_way(1, start);
    let why = ThrottleReason::TooManyRequests;
    let forever = UploadEvent::Throttled { class: Class::Uploads, why, delay: Duration::MAX };
    totals.record(0, &forever, start);
    assert!(matches!(totals.snapshot(start).limited_by, LimitedBy::Throttle { .. }));
}

/// A step of a history. Keys and lengths need not be consistent.
#[derive(Clone, Debug)]
enum Step {
    Begin(u64),
    Advance(u64, u64, u64, u64),
    Record(u64, bool, u64),
    End(u64, FileEnd),
    Defer(u64),
    SetQueue(u64, u64),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (key, bytes) = (0u64..6, 0u64..1 << 50);
    let end = prop_oneof![
        bytes.clone().prop_map(|bytes| FileEnd::Done { bytes }),
        bytes.clone().prop_map(|bytes| FileEnd::Skipped { bytes }),
        Just(FileEnd::Failed),
        Just(FileEnd::Cancelled),
    ];
    prop_oneof![
        key.clone().prop_map(Step::Begin),
        (key.clone(), bytes.clone(), bytes.clone(), bytes)
            .prop_map(|(key, total, sent, resumed)| Step::Advance(key, total, sent, resumed)),
        (key.clone(), any::<bool>(), 0u64..100).prop_map(|(key, is, delay)| Step::Record(key, is, delay)),
        (key.clone(), end).prop_map(|(key, end)| Step::End(key, end)),
        key.prop_map(Step::Defer),
        (0u64..10, 0u64..1 << 50).prop_map(|(files, bytes)| Step::SetQueue(files, bytes)),
        (0u64..90_000).prop_map(Step::Wait),
    ]
}

fn apply(totals: &mut Totals, step: &Step, now: &mut Instant) {
    match *step {
        Step::Begin(key) => totals.begin(key, "movie.mp4", Some(1000), *now),
        Step::Advance(key, total, sent, resumed) => {
            totals.advance(key, &progress(total, sent, resumed), *now);
        }
        Step::Record(key, true, delay) => totals.record(key, &throttled(delay), *now),
        Step::Record(key, false, delay) => totals.record(key, &retry(delay as u32), *now),
        Step::End(key, end) => totals.end(key, Some(1000), end, *now),
        Step::Defer(key) => totals.defer(key, Some(1000)),
        Step::SetQueue(files, bytes) => totals.set_queue(files, bytes),
        Step::Wait(millis) => *now += Duration::from_millis(millis),
    }
}

fn started(start: Instant) -> Totals {
    let mut totals = Totals::new(start);
    (0..6).for_each(|_| totals.find(Some(1000)));
    totals.found_all();
    totals
}

proptest! {
    #[test]
    fn counts_never_pass_the_total_and_never_fall(steps in vec(any_step(), 0..60)) {
        let start = Instant::now();
        let (mut totals, mut now) = (started(start), start);
        let mut before = totals.snapshot(now).bytes;
        for step in &steps {
            apply(&mut totals, step, &mut now);
            let at = totals.snapshot(now);
            let total = at.bytes.total.unwrap();
            prop_assert!(at.bytes.sent + at.bytes.resumed <= total, "{at:?}");
            prop_assert!(at.bytes.sent >= before.sent && at.bytes.acknowledged >= before.acknowledged);
            prop_assert!(at.bytes.found >= before.found && at.bytes.found >= at.bytes.total, "{at:?}");
            prop_assert!(at.eta.is_none_or(|eta| eta <= LONGEST_ETA));
            prop_assert!(at.files.running <= 6);
            before = at.bytes;
        }
    }

    #[test]
    fn the_order_of_simultaneous_progress_does_not_matter(
        moves in vec((0u64..6, 0u64..1 << 40), 1..30),
        seed in any::<u64>(),
    ) {
        let start = Instant::now();
        let now = start + 5 * SECOND;
        let run = |moves: &[(u64, u64)]| {
            let mut totals = started(start);
            (0..6).for_each(|key| totals.begin(key, "movie.mp4", Some(1000), start));
            for (key, sent) in moves {
                totals.advance(*key, &progress(1 << 41, *sent, 0), now);
            }
            totals.snapshot(now)
        };
        let mut shuffled = moves.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        let (one, other) = (run(&moves), run(&shuffled));
        prop_assert_eq!(one, other);
    }
}

#[test]
fn files_that_leave_for_other_processes_or_become_shorter_stay_found() {
    let now = Instant::now();
    let found = |totals: &Totals| totals.snapshot(now).bytes.found;
    let mut totals = Totals::new(now);
    totals.found_all();
    totals.set_queue(3, 3000);
    totals.set_queue(1, 1000);
    assert_eq!((totals.snapshot(now).bytes.total, found(&totals)), (Some(1000), Some(3000)));
    totals.set_queue(5, 5000);
    assert_eq!(found(&totals), Some(5000));
    let mut totals = under_way(2, now);
    totals.advance(0, &progress(400, 0, 0), now);
    assert_eq!((totals.snapshot(now).bytes.total, found(&totals)), (Some(1400), Some(2000)));
    totals.end(0, Some(1000), FileEnd::Done { bytes: 400 }, now);
    totals.end(1, Some(1000), FileEnd::Cancelled, now);
    assert_eq!((totals.snapshot(now).bytes.total, found(&totals)), (Some(400), Some(2000)));
}

#[test]
fn a_queue_that_others_use_never_counts_fewer_files_than_have_begun() {
    let now = Instant::now();
    let mut totals = Totals::new(now);
    totals.begin(1, "a", Some(5), now);
    assert_eq!(totals.snapshot(now).files.found, 1);
    totals.set_queue(3, 30);
    totals.found_all();
    let snapshot = totals.snapshot(now);
    assert_eq!((snapshot.files.found, snapshot.bytes.total), (4, Some(35)));
    totals.end(1, Some(5), FileEnd::Done { bytes: 5 }, now);
    totals.set_queue(0, 0);
    assert_eq!(totals.snapshot(now).files.found, 1);
}

#[test]
fn a_deferred_file_is_queued_again_and_not_cancelled() {
    let now = Instant::now();
    let mut totals = Totals::new(now);
    totals.find(Some(5));
    totals.found_all();
    totals.begin(1, "a", Some(5), now);
    totals.defer(1, Some(5));
    let files = totals.snapshot(now).files;
    assert_eq!((files.found, files.cancelled, files.running), (1, 0, 0));
    totals.begin(2, "a", Some(5), now);
    totals.end(2, Some(5), FileEnd::Done { bytes: 5 }, now);
    assert_eq!((totals.snapshot(now).files.done, totals.snapshot(now).files.found), (1, 1));
}
