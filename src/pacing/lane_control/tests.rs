//! The controller on model links, compared with every fixed number.

use proptest::prelude::*;

use super::*;
use crate::pacing::{ChunkSizing, chunk_bytes_for};

/// The rate of a link in MB/s: a function of the lanes that send and the time in seconds.
type Link<'a> = &'a dyn Fn(usize, f64) -> f64;

/// The choice of the number of lanes of a run.
#[derive(Clone, Copy, PartialEq)]
enum Lanes {
    Fixed(usize),
    Automatic,
}

/// An upload of one file on a model link.
struct Model<'a> {
    link: Link<'a>,
    megabytes: f64,
    noise: f64,
    round_trip: f64,
    seed: u64,
    /// The limit that binds at a time, if one does.
    limit: &'a dyn Fn(f64) -> Option<LaneHold>,
    /// The answers 429 so far.
    refused: &'a dyn Fn(f64) -> u64,
    /// Runs no longer than this.
    seconds: f64,
}

/// One lane of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ModelLane {
    Closed,
    Open { since: f64 },
    Connecting { until: f64 },
    Sending { since: f64, left: f64 },
    Answering { since: f64, until: f64 },
}

/// The end of a run.
struct ModelRun {
    seconds: f64,
    megabytes: f64,
    /// The numbers in use, one for each sample.
    used: Vec<usize>,
    controller: LaneController,
}

impl<'a> Model<'a> {
    /// Returns an upload of 2 GiB.
    fn new(link: Link<'a>) -> Model<'a> {
        Model {
            link,
            megabytes: 2048.0,
            noise: 0.05,
            round_trip: 0.04,
            seed: 1,
            limit: &|_| None,
            refused: &|_| 0,
            seconds: 1e6,
        }
    }

    fn run(&self, lanes: Lanes) -> ModelRun {
        let most = if let Lanes::Fixed(lanes) = lanes { lanes } else { MOST };
        // As `Settings::plan` cuts a file.
        let planned = if lanes == Lanes::Automatic { most + most / 2 } else { most };
        let sizing = ChunkSizing::new((self.megabytes * MIB) as u64, planned as u32);
        let chunk = chunk_bytes_for(&sizing) as f64 / MIB;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut controller = LaneController::new(if lanes == Lanes::Automatic { FIRST } else { most }, most);
        let mut states = vec![ModelLane::Closed; most];
        let (origin, mut now, mut waiting, mut acked) = (Instant::now(), 0.0, self.megabytes, 0.0);
        let (mut used, mut permitted, mut tick) = (Vec::new(), controller.lanes(), 0u64);
        while acked < self.megabytes - 1e-6 && now < self.seconds {
            now += TICK;
            tick += 1;
            self.turn(&mut states, now, permitted, chunk, &mut waiting);
            acked += self.send(&mut states, now, &mut random);
            if tick.is_multiple_of(4) {
                if lanes == Lanes::Automatic {
                    let sample = self.sample(&states, now, acked, (waiting / chunk).ceil() as usize);
                    permitted = controller.observe(sample, origin + Duration::from_secs_f64(now));
                }
                used.push(permitted);
            }
        }
        ModelRun { seconds: now, megabytes: acked, used, controller }
    }

    /// Ends connecting and answers, and gives chunks to idle lanes.
    fn turn(&self, states: &mut [ModelLane], now: f64, permitted: usize, chunk: f64, waiting: &mut f64) {
        let is_idle = |state: &ModelLane| matches!(state, ModelLane::Closed | ModelLane::Open { .. });
        for state in states.iter_mut() {
            match *state {
                ModelLane::Connecting { until } if now >= until => {
                    *state = ModelLane::Sending { since: now, left: chunk };
                }
                ModelLane::Answering { since, until } if now >= until => *state = ModelLane::Open { since },
                _ => {}
            }
        }
        let mut busy = states.iter().filter(|state| !is_idle(state)).count();
        // Open connections first.
        for is_open in [true, false] {
            for state in states.iter_mut().filter(|state| is_idle(state)) {
                if busy >= permitted || *waiting <= 0.0 {
                    return;
                }
                let next = match *state {
                    ModelLane::Open { since } if is_open => ModelLane::Sending { since, left: chunk },
                    ModelLane::Closed if !is_open => {
                        ModelLane::Connecting { until: now + 2.0 * self.round_trip }
                    }
                    _ => continue,
                };
                *state = next;
                *waiting -= chunk;
                busy += 1;
            }
        }
    }

    /// Sends for one tick. Connections begin with ten segments in a round trip, and double.
    fn send(&self, states: &mut [ModelLane], now: f64, random: &mut fastrand::Rng) -> f64 {
        let sending = states.iter().filter(|state| matches!(state, ModelLane::Sending { .. })).count();
        if sending == 0 {
            return 0.0;
        }
        let noise = 1.0 + self.noise * (random.f64() - 0.5) * 2.0;
        let share = (self.link)(sending, now) * noise / sending as f64;
        let mut sent = 0.0;
        for (lane, state) in states.iter_mut().enumerate() {
            if let ModelLane::Sending { since, left } = state {
                // No two connections are equally fast, and each is now faster and now slower.
                let share = share * (1.0 + UNEVEN * (now / 2.0 + lane as f64 * 1.7).sin());
                let start = 0.014 / self.round_trip * ((now - *since) / self.round_trip).min(30.0).exp2();
                let amount = (share.min(start) * TICK).min(*left);
                *left -= amount;
                sent += amount;
                if *left <= 1e-9 {
                    *state = ModelLane::Answering { since: *since, until: now + 2.0 * self.round_trip };
                }
            }
        }
        sent
    }

    fn sample(&self, states: &[ModelLane], now: f64, acked: f64, waiting: usize) -> LaneSample {
        let count = |is: fn(&ModelLane) -> bool| states.iter().filter(|state| is(state)).count();
        let connecting = count(|state| matches!(state, ModelLane::Connecting { .. }));
        let sending = count(|state| matches!(state, ModelLane::Sending { .. }));
        let busy = connecting + sending + count(|state| matches!(state, ModelLane::Answering { .. }));
        LaneSample {
            acked_bytes: (acked * 1e6) as u64,
            busy,
            connecting,
            sending,
            wanted: busy + waiting,
            refused: (self.refused)(now),
            round_trip: Duration::from_secs_f64(self.round_trip),
            most_lanes: MOST,
            limit: (self.limit)(now),
            ..LaneSample::default()
        }
    }

    /// Returns the speed of the automatic number, relative to the best fixed number, and that number.
    fn compared(&self) -> (f64, usize, ModelRun) {
        let automatic = self.run(Lanes::Automatic);
        let fixed = FIXED.map(|lanes| (lanes, self.run(Lanes::Fixed(lanes)).seconds));
        let (best, seconds) = fixed.into_iter().min_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
        (seconds / automatic.seconds, best, automatic)
    }
}

/// Asserts that an upload of 2 GiB takes at most a twentieth longer than with the best fixed number.
fn assert_is_fast(name: &str, link: Link<'_>, noise: f64, round_trip: f64) {
    assert_reaches(0.95, name, link, noise, round_trip);
}

/// Asserts that an upload of 2 GiB reaches `share` of the speed of the best fixed number.
fn assert_reaches(share: f64, name: &str, link: Link<'_>, noise: f64, round_trip: f64) {
    for seed in 0..2 {
        let model = Model { noise, round_trip, seed, ..Model::new(link) };
        let (ratio, best, run) = model.compared();
        let mut course = run.used.clone();
        course.dedup();
        assert!(ratio >= share, "{name}, {seed}: {ratio:.3} of {best} lanes, {course:?}");
    }
}

#[test]
fn a_clean_link_is_filled() {
    assert_is_fast("clean", &|_, _| 40.0, 0.02, 0.002);
}

#[test]
fn a_thin_link_is_filled() {
    assert_is_fast("thin", &|_, _| 2.0, 0.2, 0.03);
}

#[test]
fn a_link_that_caps_each_connection_is_filled() {
    assert_is_fast("4 of 16", &|lanes, _| (4.0 * lanes as f64).min(16.0), 0.05, 0.08);
    assert_is_fast("5 of 30", &|lanes, _| (5.0 * lanes as f64).min(30.0), 0.05, 0.04);
    assert_is_fast("3 of 50", &|lanes, _| (3.0 * lanes as f64).min(50.0), 0.05, 0.04);
    assert_is_fast("1 without an end", &|lanes, _| lanes as f64, 0.05, 0.06);
    // 2 GiB take half a minute there, of which the climb is a larger part.
    assert_reaches(0.95, "2 without an end", &|lanes, _| 2.0 * lanes as f64, 0.05, 0.08);
}

#[test]
fn rates_that_swing_do_not_delay_the_climb_on_a_distant_link() {
    // The window of a long round trip bounds each connection, and its acknowledgements arrive in bursts. With the errors
    // and pairs of small gains, the climb took 5 s: 0.87 and 0.967.
    assert_reaches(0.94, "half a minute", &|lanes, _| 2.0 * lanes as f64, 0.4, 0.08);
    assert_reaches(0.98, "three minutes", &|lanes, _| 0.4 * lanes as f64, 0.4, 0.08);
}

#[test]
fn full_buffers_that_swing_do_not_hide_the_best() {
    let link = |lanes: usize, at: f64| {
        let swing = if lanes > 1 { 0.08 * (at * std::f64::consts::TAU / 3.0).sin() } else { 0.0 };
        5.0 * (1.0 + swing)
    };
    assert_is_fast("bufferbloat", &link, 0.05, 0.02);
}

#[test]
fn lost_packets_make_each_lane_slow_and_uneven() {
    assert_is_fast("lossy", &|lanes, _| (3.0 * lanes as f64).min(20.0), 0.4, 0.04);
}

#[test]
fn beside_a_rival_more_lanes_get_more() {
    assert_is_fast("rival", &|lanes, _| 24.0 * lanes as f64 / (lanes + 4) as f64, 0.05, 0.04);
}

/// A link on which more lanes than four lose what they fight over.
fn collapsing(lanes: usize, _: f64) -> f64 {
    let lanes = lanes as f64;
    (4.0 * lanes).min(16.0) * (1.0 - 0.04 * (lanes - 4.0).max(0.0)).max(0.1)
}

#[test]
fn a_link_that_collapses_under_many_lanes_is_left_at_its_peak() {
    // The lanes of the first trial have to end their chunks on the collapsed link.
    assert_reaches(0.85, "collapse", &collapsing, 0.03, 0.04);
    let run = Model::new(&collapsing).run(Lanes::Automatic);
    assert_eq!(run.controller.base, 4);
}

#[test]
fn a_link_that_changes_in_the_middle_is_filled_as_it_is() {
    // The best fixed number is that of both halves; it is known in advance here.
    for middle in [8.0, 31.0, 60.0] {
        let with = |factor: f64| {
            move |lanes: usize, at: f64| {
                let factor = if at < middle { 1.0 } else { factor };
                (factor * 4.0 * lanes as f64).min(factor * 16.0)
            }
        };
        assert_reaches(0.93, &format!("half from {middle} s"), &with(0.5), 0.03, 0.04);
        assert_reaches(0.92, &format!("twice from {middle} s"), &with(2.0), 0.03, 0.04);
        let capped =
            move |lanes: usize, at: f64| (if at < middle { 8.0 } else { 1.0 } * lanes as f64).min(16.0);
        assert_reaches(0.83, &format!("capped from {middle} s"), &capped, 0.03, 0.04);
    }
}

#[test]
fn no_link_is_slower_than_with_one_lane() {
    let links: [(&str, Link<'_>); 4] = [
        ("clean", &|_, _| 40.0),
        ("collapse", &collapsing),
        ("rival", &|lanes, _| 24.0 * lanes as f64 / (lanes + 4) as f64),
        ("thin", &|_, _| 2.0),
    ];
    for (name, link) in links {
        let model = Model::new(link);
        let (automatic, one) = (model.run(Lanes::Automatic).seconds, model.run(Lanes::Fixed(1)).seconds);
        assert!(automatic <= one / 0.95, "{name}: {automatic} s, one lane {one} s");
    }
}

#[test]
fn where_each_lane_makes_all_slower_few_are_left() {
    let link = |lanes: usize, _: f64| 16.0 / (1.0 + 0.05 * (lanes as f64 - 1.0));
    let model = Model::new(&link);
    let (automatic, one) = (model.run(Lanes::Automatic), model.run(Lanes::Fixed(1)));
    // The second lane sends while the first one waits for an answer.
    assert!(automatic.controller.base <= 2, "{:?}", automatic.controller);
    // The chunks of the first eight lanes, and of the trial with sixteen, have to end.
    assert!(automatic.seconds <= 1.15 * one.seconds, "{} s, one lane {} s", automatic.seconds, one.seconds);
}

#[test]
fn a_search_that_is_over_changes_the_number_seldom_and_by_one_level() {
    let run =
        Model { seconds: 600.0, megabytes: 1e6, ..Model::new(&|lanes, _| (4.0 * lanes as f64).min(18.0)) };
    let used = run.run(Lanes::Automatic).used;
    // The second half of ten minutes.
    let late = &used[used.len() / 2..];
    let changes = late.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let (least, most) = (late.iter().min().unwrap(), late.iter().max().unwrap());
    assert!(changes <= 12 && *most <= 2 * *least, "{changes} changes between {least} and {most}");
}

#[test]
fn while_a_limit_binds_the_number_is_kept() {
    for limit in [LaneHold::Budget, LaneHold::Bandwidth, LaneHold::Memory] {
        let always = move |_: f64| Some(limit);
        let model = Model { limit: &always, seconds: 60.0, ..Model::new(&|lanes, _| lanes as f64) };
        let run = model.run(Lanes::Automatic);
        assert!(run.used.iter().all(|lanes| *lanes == FIRST), "{limit}: {:?}", run.used);
        assert_eq!(run.controller.hold(), Some(limit));
    }
}

#[test]
fn a_limit_that_begins_to_bind_ends_a_trial() {
    // 16 lanes are tried after about half a second.
    let from = |at: f64| (at > 1.3).then_some(LaneHold::Budget);
    let model = Model { limit: &from, seconds: 5.0, ..Model::new(&|_, _| 20.0) };
    let used = model.run(Lanes::Automatic).used;
    assert!(used.contains(&16) && used.last() == Some(&FIRST), "{used:?}");
}

#[test]
fn a_limit_that_binds_no_longer_lets_the_search_begin() {
    let until = |at: f64| (at < 20.0).then_some(LaneHold::Bandwidth);
    let model = Model { limit: &until, seconds: 30.0, ..Model::new(&|lanes, _| lanes as f64) };
    let run = model.run(Lanes::Automatic);
    assert_eq!((run.used.last(), run.controller.hold()), (Some(&MOST), None));
}

#[test]
fn an_answer_that_asks_for_less_halves_the_number_once() {
    // A burst of refusals is one event.
    let refused = |at: f64| if at < 3.0 { 0 } else { (at * 10.0).min(35.0) as u64 };
    let model = Model { refused: &refused, seconds: 9.0, ..Model::new(&|_, _| 20.0) };
    let run = model.run(Lanes::Automatic);
    let before = run.used[(2.9 / 0.1) as usize];
    assert!(*run.used.last().unwrap() <= (before / 2).max(1), "{:?}", run.used);
    assert_eq!(run.controller.hold(), Some(LaneHold::Brake));
}

#[test]
fn after_a_brake_more_lanes_are_tried_again() {
    let refused = |at: f64| u64::from(at > 3.0);
    let model = Model { refused: &refused, seconds: 60.0, ..Model::new(&|lanes, _| lanes as f64) };
    assert_eq!(model.run(Lanes::Automatic).used.last(), Some(&MOST));
}

#[test]
fn refusals_that_go_on_end_at_one_lane() {
    let refused = |at: f64| at as u64;
    let model = Model { refused: &refused, seconds: 60.0, ..Model::new(&|lanes, _| lanes as f64) };
    assert_eq!(model.run(Lanes::Automatic).used.last(), Some(&1));
}

/// Returns a sample of a link on which every lane has work.
fn sample(at: f64, lanes: usize, rate_of_each: f64) -> LaneSample {
    LaneSample {
        acked_bytes: (at * lanes as f64 * rate_of_each) as u64,
        busy: lanes,
        sending: lanes,
        wanted: 1000,
        most_lanes: MOST,
        round_trip: Duration::from_millis(10),
        ..LaneSample::default()
    }
}

/// Observes samples that `change` has changed, ten a second. Returns the controller and the numbers in use.
fn observed(seconds: f64, change: impl Fn(&mut LaneSample, f64)) -> (LaneController, Vec<usize>) {
    let (mut controller, origin, mut used) = (LaneController::new(FIRST, MOST), Instant::now(), Vec::new());
    let (mut acked, mut at) = (0.0, 0.0);
    while at < seconds {
        let lanes = controller.lanes();
        acked += lanes as f64 * 1e5;
        let mut now = LaneSample { acked_bytes: acked as u64, ..sample(at, lanes, 1e6) };
        change(&mut now, at);
        used.push(controller.observe(now, origin + Duration::from_secs_f64(at)));
        at += 0.1;
    }
    (controller, used)
}

#[test]
fn fewer_chunks_than_lanes_are_no_measurement() {
    let (controller, used) = observed(30.0, |now, _| now.wanted = 3);
    assert!(used.iter().all(|lanes| *lanes == FIRST), "{used:?}");
    assert_eq!(controller.hold(), Some(LaneHold::Work));
}

#[test]
fn a_trial_without_enough_chunks_is_given_up() {
    // The trial begins after half a second and lasts for as long.
    let (controller, used) = observed(8.0, |now, at| now.wanted = if at < 0.7 { 100 } else { 12 });
    assert!(used.contains(&16) && controller.lanes() <= FIRST, "{used:?}");
}

#[test]
fn connections_that_fail_end_a_trial() {
    let (controller, used) = observed(20.0, |now, at| {
        if now.busy > FIRST {
            (now.connecting, now.sending, now.unconnected) = (now.busy - FIRST, FIRST, (at * 10.0) as u64);
        }
    });
    assert!(used.contains(&16) && controller.lanes() == FIRST, "{used:?}");
}

#[test]
fn connections_that_do_not_open_end_a_trial() {
    let (controller, used) = observed(20.0, |now, _| {
        if now.busy > FIRST {
            (now.connecting, now.sending) = (now.busy - FIRST, FIRST);
        }
    });
    assert!(used.contains(&16) && controller.lanes() == FIRST, "{used:?}");
}

#[test]
fn fewer_lanes_are_measured_while_all_of_them_send_or_after_a_while() {
    // The rate does not grow with the lanes, so that the search goes down to four.
    let first_after_four = |waiting: usize| {
        let (_, used) = observed(60.0, |now, at| {
            now.acked_bytes = (at * 1e6) as u64;
            now.sending = now.busy - if now.busy == 4 { waiting } else { 0 };
        });
        let begun = used.iter().position(|lanes| *lanes == 4).expect("four lanes are tried");
        used[begun..].iter().position(|lanes| *lanes != 4).expect("and measured")
    };
    // Samples are a tenth of a second apart.
    let (at_once, later) = (first_after_four(0), first_after_four(1));
    assert!((15..30).contains(&(later - at_once)), "{at_once} and {later}");
}

#[test]
fn lanes_that_lose_their_packets_gain_nothing() {
    let (_, used) = observed(20.0, |now, at| {
        now.segments = (at * 1e4) as u64;
        now.retransmitted = if now.busy > FIRST { (at * 1e3) as u64 } else { 0 };
    });
    assert!(used.contains(&16) && !used.contains(&MOST), "{used:?}");
}

#[test]
fn packets_that_new_connections_lose_at_their_start_do_not_end_a_trial() {
    let lost = std::cell::Cell::new((FIRST, -1.0));
    let (_, used) = observed(10.0, |now, at| {
        // Half a second in which a tenth of the segments is lost, whenever lanes are added.
        let (lanes, since) = lost.get();
        let since = if now.busy > lanes { at } else { since };
        lost.set((now.busy, since));
        now.segments = (at * 1e3) as u64;
        now.retransmitted = now.busy as u64 * 10 + ((at - since).min(0.8) * 1e2) as u64;
    });
    assert!(used.contains(&MOST), "{used:?}");
}

#[test]
fn a_setting_that_allows_fewer_lanes_holds_at_once() {
    let (controller, used) = observed(30.0, |now, at| now.most_lanes = if at < 15.0 { MOST } else { 5 });
    assert!(used.contains(&MOST) && controller.lanes() <= 5, "{used:?}");
}

#[test]
fn a_pause_of_the_process_is_no_measurement() {
    let (mut controller, origin) = (LaneController::new(FIRST, MOST), Instant::now());
    for step in 0..100 {
        // Ten seconds between two samples.
        controller.observe(sample(step as f64, FIRST, 1e6), origin + Duration::from_secs(10 * step));
    }
    assert_eq!(controller.lanes(), FIRST);
}

/// Returns the number that a search tries after it has climbed from 16 to 32 lanes by an early gain of 1.45, once 32 lanes
/// have shown the gain `settled`.
fn tried_below_the_peak(settled: f64) -> Option<usize> {
    let rate = |mean, seconds| LaneRate { mean, error: 0.01, loss: 0.0, seconds };
    let mut search = LaneSearch::new(16, MOST, 1000, true);
    assert!(search.take_early(rate(100.0, 0.4), 1000));
    assert!(search.take_early(rate(145.0, 0.4), 1000));
    assert_eq!((search.base(), search.lanes()), (MOST, Some(MOST)));
    assert!(search.take(rate(100.0 * settled, 1.0), true, 1000));
    search.lanes()
}

#[test]
fn a_gain_that_was_measured_early_is_measured_again_before_fewer_lanes_are_tried() {
    assert_eq!(tried_below_the_peak(2.0), None);
    assert_eq!(tried_below_the_peak(1.4), Some(24));
}

#[test]
fn the_end_of_requests_does_not_change_the_rate() {
    // Lanes that wait for answers a tenth of their time, all of them together.
    let mut window = LaneWindow::default();
    let (mut before, mut rates) = (LaneSample::default(), Vec::new());
    for tick in 1..=1000_u64 {
        let sending = if tick % 50 < 5 { 0 } else { 4 };
        let acked_bytes = before.acked_bytes + sending as u64 * 100_000;
        let now = LaneSample { acked_bytes, busy: 4, sending, ..LaneSample::default() };
        // The state at the start of a step is that of its whole time here.
        let begun = LaneSample { acked_bytes: before.acked_bytes, ..now };
        window.push(&begun, &now, Duration::from_millis(100), 4);
        before = now;
        if tick > 500 && tick % 10 == 0 {
            rates.extend(window.rate().map(|rate| rate.mean).filter(|mean| *mean > 0.0));
            window.clear();
        }
    }
    let (least, most) =
        rates.iter().fold((f64::MAX, 0.0_f64), |(least, most), rate| (rate.min(least), rate.max(most)));
    // Half of a window of a second may be such a gap, or nothing of it.
    assert!(most / least < 1.1, "{least} to {most}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_capped_link_is_filled(each in 0.5..8.0, spread in 1.0..32.0, noise in 0.0..0.1, seed: u64) {
        let all = each * spread;
        let link = move |lanes: usize, _: f64| f64::min(each * lanes as f64, all);
        let model = Model { noise, seed, ..Model::new(&link) };
        let (ratio, best, run) = model.compared();
        // Uploads of less than a minute end soon after the search.
        let share = match run.seconds {
            60.0.. => 0.9,
            30.0.. => 0.85,
            _ => 0.75,
        };
        prop_assert!(ratio >= share, "{ratio:.3} of {best} lanes in {:.0} s, {:?}", run.seconds, run.controller);
        prop_assert!(run.megabytes >= 2048.0 - 1e-3);
    }

    #[test]
    fn any_samples_leave_the_number_within_its_bounds(
        samples in prop::collection::vec(
            (any::<u32>(), 0_usize..70, 0_usize..70, 0_usize..70, 0_usize..70, 0_u64..3, 1_usize..40, 0_u32..3000),
            0..400,
        ),
    ) {
        let (mut controller, mut now) = (LaneController::new(FIRST, MOST), Instant::now());
        for (acked, busy, connecting, sending, wanted, refused, most_lanes, step_ms) in samples {
            let before = controller.latest.map_or(LaneSample::default(), |(_, sample)| sample);
            let sample = LaneSample {
                acked_bytes: before.acked_bytes + u64::from(acked),
                busy,
                connecting,
                sending,
                wanted,
                refused: before.refused + refused / 2,
                most_lanes,
                limit: (acked % 7 == 0).then_some(LaneHold::Budget),
                ..before
            };
            now += Duration::from_millis(u64::from(step_ms));
            let lanes = controller.observe(sample, now);
            prop_assert!(lanes >= 1 && lanes <= MOST.min(most_lanes), "{lanes} of {most_lanes}");
            prop_assert!(controller.base >= 1 && controller.base <= MOST);
        }
    }
}

const MIB: f64 = 1048576.0;
const MOST: usize = 32;
const FIRST: usize = 8;
const UNEVEN: f64 = 0.2;
const TICK: f64 = 0.025;
const FIXED: [usize; 6] = [2, 4, 8, 12, 16, 32];
