//! Tests the pacer against a simulated service that counts in windows, which other hosts use as well.

use proptest::prelude::*;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pace() -> (Pacer, Instant) {
    let now = Instant::now();
    (Pacer::new(&Caps::default(), now), now)
}

fn quota(per_minute: u32, remaining: u32, resets_in_s: u64) -> Option<Quota> {
    Some(Quota { per_minute, remaining, resets_in: Some(Duration::from_secs(resets_in_s)) })
}

/// One request that is answered at once.
fn request(pace: &mut Pacer, quota: Option<Quota>, health: ServiceHealth, now: Instant) {
    let permit = pace.started(Class::Uploads, RequestKind::First, now);
    pace.finished(permit, quota, health, now, 0.0);
}

#[test]
fn before_the_first_answer_nothing_is_held_back_unless_a_preset_is_asked_for() {
    let (mut free, now) = pace();
    let caps = Caps { preset: Some(QuotaPreset::Sandbox), ..Caps::default() };
    let mut preset = Pacer::new(&caps, now);
    for _ in 0..40 {
        assert_eq!(preset.check(Class::Uploads, now), Start::Ready);
        let _ = (
            preset.started(Class::Uploads, RequestKind::First, now),
            free.started(Class::Uploads, RequestKind::First, now),
        );
    }
    assert_eq!(free.check(Class::Uploads, now), Start::Ready);
    assert!(matches!(preset.check(Class::Uploads, now), Start::NotBefore(_)));
    assert_eq!(preset.check(Class::Reads, now), Start::Ready);
}

#[test]
fn what_other_hosts_spend_is_followed() {
    let (mut pace, now) = pace();
    request(&mut pace, quota(100, 90, 30), ServiceHealth::Well, now);
    assert_eq!(pace.check(Class::Uploads, now), Start::Ready);
    request(&mut pace, quota(100, 0, 29), ServiceHealth::Well, now + SECOND);
    let Start::NotBefore(at) = pace.check(Class::Uploads, now + SECOND) else { panic!("nothing is left") };
    assert!(at >= now + 30 * SECOND && at < now + 40 * SECOND);
    assert_eq!(pace.check(Class::Uploads, at), Start::Ready);
    assert_eq!(pace.per_minute(Class::Uploads), Some(100));
}

#[test]
fn an_answer_that_was_overtaken_gives_nothing_back() {
    let (mut pace, now) = pace();
    request(&mut pace, quota(100, 0, 30), ServiceHealth::Well, now);
    request(&mut pace, quota(100, 3, 30), ServiceHealth::Well, now);
    assert!(matches!(pace.check(Class::Uploads, now), Start::NotBefore(_)));
}

#[test]
fn requests_under_way_are_counted_before_their_answers() {
    let (mut pace, now) = pace();
    request(&mut pace, quota(100, 2, 30), ServiceHealth::Well, now);
    let first = pace.started(Class::Uploads, RequestKind::First, now);
    let _second = pace.started(Class::Uploads, RequestKind::First, now + SECOND);
    assert!(matches!(pace.check(Class::Uploads, now), Start::NotBefore(_)));
    pace.finished(first, quota(100, 2, 30), ServiceHealth::Well, now, 0.0);
    assert_eq!(pace.check(Class::Uploads, now), Start::Ready);
}

#[test]
fn a_refusal_for_haste_holds_back_its_class_and_no_other() {
    for (delay, least) in
        [(Some(7 * SECOND), 7 * SECOND), (Some(Duration::ZERO), SECOND / 2), (None, 10 * SECOND)]
    {
        let (mut pace, now) = pace();
        let permit = pace.started(Class::Uploads, RequestKind::First, now);
        pace.finished(permit, None, ServiceHealth::Throttling(delay), now, 0.5);
        let Start::NotBefore(at) = pace.check(Class::Uploads, now) else { panic!("{delay:?} is ignored") };
        assert!(at > now + least && at <= now + MINUTE_AND_A_FIFTH, "{delay:?}");
        assert_eq!(pace.check(Class::Writes, now), Start::Ready);
    }
}

const MINUTE_AND_A_FIFTH: Duration = Duration::from_secs(72);

#[test]
fn a_delay_of_a_million_years_is_cut() {
    let (mut pace, now) = pace();
    request(
        &mut pace,
        quota(u32::MAX, u32::MAX, u64::MAX),
        ServiceHealth::Throttling(Some(Duration::MAX)),
        now,
    );
    let Start::NotBefore(at) = pace.check(Class::Uploads, now) else { panic!("held back") };
    assert!(at <= now + 4000 * SECOND);
}

#[test]
fn caps_of_the_user_space_requests_evenly() {
    let now = Instant::now();
    let caps = Caps { requests_a_second: Some(10.0), uploads_a_minute: Some(100), preset: None };
    let mut pace = Pacer::new(&caps, now);
    let _ = pace.started(Class::Uploads, RequestKind::First, now);
    assert_eq!(pace.check(Class::Reads, now), Start::NotBefore(now + SECOND / 10));
    assert_eq!(pace.check(Class::Uploads, now), Start::NotBefore(now + SECOND * 6 / 10));
}

#[test]
fn a_burst_of_failures_leaves_one_probe_at_a_time_and_one_success_ends_that() {
    let (mut pace, mut now) = pace();
    let lanes: Vec<Permit> = (0..8).map(|_| pace.started(Class::Uploads, RequestKind::First, now)).collect();
    lanes.into_iter().for_each(|permit| pace.finished(permit, None, ServiceHealth::Failing, now, 0.5));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let Start::NotBefore(at) = pace.check(Class::Reads, now) else { panic!("the service is down") };
        pauses.push(at - now);
        now = at;
        assert_eq!(pace.check(Class::Uploads, now), Start::Ready);
        let probe = pace.started(Class::Uploads, RequestKind::First, now);
        assert!(matches!(pace.check(Class::Uploads, now), Start::NotBefore(_)), "one probe at a time");
        pace.finished(probe, None, ServiceHealth::Failing, now, 0.5);
    }
    assert!(pauses.is_sorted() && pauses[0] <= SECOND && pauses[7] <= 30 * SECOND, "{pauses:?}");
    let Start::NotBefore(at) = pace.check(Class::Uploads, now) else { panic!("still down") };
    request(&mut pace, None, ServiceHealth::Well, at);
    let lanes: Vec<Start> = (0..8)
        .map(|_| {
            let start = pace.check(Class::Uploads, at);
            let _ = pace.started(Class::Uploads, RequestKind::First, at);
            start
        })
        .collect();
    assert_eq!(lanes, [Start::Ready; 8]);
}

#[test]
fn repetitions_cannot_outnumber_successes_for_long() {
    let (mut pace, now) = pace();
    let mut at = now;
    let mut sent = 0;
    while at < now + 60 * SECOND {
        match pace.check(Class::Uploads, at) {
            Start::Ready => {
                let permit = pace.started(Class::Uploads, RequestKind::Retry, at);
                let health = if sent % 4 == 0 { ServiceHealth::Well } else { ServiceHealth::Failing };
                pace.finished(permit, None, health, at, 0.0);
                sent += 1;
            }
            Start::NotBefore(later) => at = later,
        }
    }
    assert!((60..=100).contains(&sent), "{sent} in a minute");
}

// The simulated service.

/// When the service writes the headers of an answer.
#[derive(Clone, Copy, Debug)]
enum Written {
    AtArrival,
    AtAnswer,
}

#[derive(Clone, Debug)]
struct World {
    per_minute: u32,
    lanes: usize,
    phase_ms: u64,
    written: Written,
    /// Requests of other hosts: when, and how many at once.
    others: Vec<(u64, u32)>,
    /// How long our requests take, over and over.
    takes_ms: Vec<u64>,
}

#[derive(Debug, Default)]
struct Tally {
    started: u32,
    refused: u32,
}

const MINUTES: u64 = 5;

impl World {
    fn window(&self, at_ms: u64) -> u64 {
        (at_ms + self.phase_ms) / 60_000
    }

    fn resets_in(&self, at_ms: u64) -> Duration {
        Duration::from_secs((60_000 - (at_ms + self.phase_ms) % 60_000) / 1000)
    }

    /// Each window's tally of what we did.
    fn run(&self) -> Vec<Tally> {
        let epoch = Instant::now();
        let instant = |ms: u64| epoch + Duration::from_millis(ms);
        let mut pace = Pacer::new(&Caps::default(), epoch);
        let mut counted = vec![0u32; MINUTES as usize + 2];
        let mut tallies: Vec<Tally> = counted.iter().map(|_| Tally::default()).collect();
        let mut others = self.others.clone();
        others.sort_unstable();
        let mut others = others.into_iter().peekable();
        let mut takes = self.takes_ms.iter().cycle();
        let mut under_way: Vec<(u64, Permit, ServiceHealth, Quota)> = Vec::new();
        let mut now = 0;
        while now < MINUTES * 60_000 {
            while let Some((at, count)) = others.next_if(|&(at, _)| at <= now) {
                counted[self.window(at) as usize] += count;
            }
            let left = |counted: &[u32], at| Quota {
                per_minute: self.per_minute,
                remaining: self.per_minute.saturating_sub(counted[self.window(at) as usize]),
                resets_in: Some(self.resets_in(at)),
            };
            while let Some(done) = under_way.iter().position(|&(at, ..)| at <= now) {
                let (at, permit, health, quota) = under_way.swap_remove(done);
                let quota = match self.written {
                    Written::AtArrival => quota,
                    Written::AtAnswer => left(&counted, at),
                };
                pace.finished(permit, Some(quota), health, instant(now), 0.3);
            }
            let mut next = under_way.iter().map(|&(at, ..)| at).min().unwrap_or(u64::MAX);
            while under_way.len() < self.lanes {
                match pace.check(Class::Uploads, instant(now)) {
                    Start::NotBefore(at) => {
                        assert!(at > instant(now), "a wait that is over");
                        next = next.min((at - epoch).as_millis() as u64 + 1);
                        break;
                    }
                    Start::Ready => {
                        let window = self.window(now) as usize;
                        tallies[window].started += 1;
                        counted[window] += 1;
                        let health = match counted[window] > self.per_minute {
                            true => ServiceHealth::Throttling(Some(self.resets_in(now))),
                            false => ServiceHealth::Well,
                        };
                        tallies[window].refused += u32::from(health != ServiceHealth::Well);
                        let permit = pace.started(Class::Uploads, RequestKind::First, instant(now));
                        let over = now + *takes.next().unwrap();
                        under_way.push((over, permit, health, left(&counted, now)));
                        next = next.min(over);
                    }
                }
            }
            assert_ne!(next, u64::MAX, "nothing to wait for");
            now = next;
        }
        tallies
    }
}

fn any_world() -> impl Strategy<Value = World> {
    let written = prop_oneof![Just(Written::AtArrival), Just(Written::AtAnswer)];
    let others = proptest::collection::vec((0..MINUTES * 60_000, 1u32..80), 0..12);
    let takes_ms = proptest::collection::vec(prop_oneof![10u64..400, 10u64..20_000], 1..20);
    (1u32..150, 1usize..17, 0u64..60_000, written, others, takes_ms).prop_map(
        |(per_minute, lanes, phase_ms, written, others, takes_ms)| World {
            per_minute,
            lanes,
            phase_ms,
            written,
            others,
            takes_ms,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_rate_is_exceeded_by_no_more_than_what_is_in_flight(world in any_world()) {
        for tally in world.run() {
            prop_assert!(tally.started <= world.per_minute + world.lanes as u32, "{tally:?}");
            prop_assert!(tally.refused <= world.lanes as u32, "{tally:?}");
        }
    }

    #[test]
    fn alone_and_quick_the_whole_budget_is_used(per_minute in 10u32..150, lanes in 1usize..9, phase_ms in 0u64..60_000) {
        let world = World {
            per_minute,
            lanes,
            phase_ms,
            written: Written::AtAnswer,
            others: Vec::new(),
            takes_ms: vec![50, 90],
        };
        let tallies = world.run();
        let whole = &tallies[1..MINUTES as usize];
        prop_assert!(whole.iter().all(|tally| tally.started >= per_minute), "{tallies:?}");
        prop_assert!(tallies.iter().all(|tally| tally.refused <= lanes as u32), "{tallies:?}");
    }
}

#[test]
fn what_holds_requests_back_is_named() {
    let now = Instant::now();
    let quota = |remaining| Some(Quota { per_minute: 100, remaining, resets_in: None });
    let mut pace = Pacer::new(&Caps::default(), now);
    assert_eq!(pace.delay(Class::Uploads, now), None);
    let permit = pace.started(Class::Uploads, RequestKind::First, now);
    pace.finished(permit, quota(0), ServiceHealth::Well, now, 0.0);
    assert_eq!(pace.delay(Class::Uploads, now).map(|held| held.by), Some(ThrottleReason::Budget));
    assert_eq!(pace.delay(Class::Reads, now), None);
    let permit = pace.started(Class::Reads, RequestKind::First, now);
    pace.finished(permit, None, ServiceHealth::Throttling(Some(Duration::from_secs(90))), now, 0.0);
    assert_eq!(pace.delay(Class::Reads, now).map(|held| held.by), Some(ThrottleReason::TooManyRequests));
    for _ in 0..5 {
        let permit = pace.started(Class::Writes, RequestKind::First, now);
        pace.finished(permit, None, ServiceHealth::Failing, now, 0.0);
    }
    assert_eq!(pace.delay(Class::Writes, now).map(|held| held.by), Some(ThrottleReason::Failures));
    let later = now + Duration::from_secs(2);
    let _probe = pace.started(Class::Writes, RequestKind::First, later);
    assert_eq!(pace.delay(Class::Writes, later).map(|held| held.by), Some(ThrottleReason::Probe));
}

/// A shared budget with a number of requests, which counts the questions.
#[derive(Debug, Default)]
struct CountedBudget {
    left: AtomicU32,
    questions: AtomicU32,
}

impl SharedBudgetSource for CountedBudget {
    fn not_before(&self, _: Class, now: Instant) -> Option<Instant> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        (self.left.load(Ordering::Relaxed) == 0).then(|| now + Duration::from_secs(1))
    }

    fn started(&self, _: Class, _: Instant) {
        self.left.fetch_sub(1, Ordering::Relaxed);
    }

    fn finished(&self, _: Class, _: Option<Quota>, _: Option<Duration>, _: Instant) {}
}

#[test]
fn a_shared_budget_is_asked_last_and_only_for_a_request_that_is_ready() {
    let (source, now) = (Arc::new(CountedBudget::default()), Instant::now());
    let caps = Caps { requests_a_second: Some(1.0), ..Caps::default() };
    let mut pacer = Pacer::new(&caps, now).with_shared(SharedBudget::new(source.clone()));
    let questions = || source.questions.load(Ordering::Relaxed);
    assert_eq!((pacer.delay(Class::Uploads, now), questions()), (None, 0));
    let waits = pacer.wait(Class::Uploads, now).unwrap();
    assert_eq!((waits.by, questions()), (ThrottleReason::SharedBudget, 1));
    source.left.store(1, Ordering::Relaxed);
    assert_eq!(pacer.check(Class::Uploads, now), Start::Ready);
    let _permit = pacer.started(Class::Uploads, RequestKind::First, now);
    assert_eq!(source.left.load(Ordering::Relaxed), 0);
    // The own limit holds now, and the shared budget is not asked.
    let (asked, waits) = (questions(), pacer.wait(Class::Uploads, now).unwrap());
    assert_eq!((waits.by, questions()), (ThrottleReason::Caps, asked));
}
