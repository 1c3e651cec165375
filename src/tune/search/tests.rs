//! The search on model links, compared with the exhaustive best.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::tune::interval::RateSample;

/// The rate of a link in MB/s: a function of the number of lanes and the time in seconds.
type Link<'a> = &'a dyn Fn(u32, f64) -> f64;

/// A search on a model link.
struct ModelRun {
    choice: LaneChoice,
    measurements: usize,
    seconds: f64,
}

/// Runs a search. Every measurement takes a warm-up of 2 s, and 2 to 10 s of samples with this relative noise, as
/// `Trial` does.
fn run(link: Link<'_>, noise: f64, seed: u64) -> ModelRun {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut search = Search::new(32);
    let (mut now, mut measurements) = (0.0_f64, 0);
    while let Some(step) = search.next_step() {
        now += 2.0;
        let (began, mut bytes) = (now, 0.0);
        let longest = ((60.0 - now) / 7.0).clamp(2.0, 10.0);
        let mut samples = vec![RateSample { at: Duration::ZERO, bytes: 0 }];
        let rate = loop {
            let factor = 1.0 + noise * (random.f64() - 0.5) * 2.0;
            bytes += (link(step.lanes, now) * factor).max(0.0) * 1e6 * 0.05;
            now += 0.05;
            samples.push(RateSample { at: Duration::from_secs_f64(now - began), bytes: bytes as u64 });
            if samples.len() % 10 == 1 && now - began >= 2.0 {
                let rate = RateInterval::of_samples(&samples).unwrap();
                if search.is_enough(&rate) || now - began >= longest {
                    break rate;
                }
            }
        };
        search.record(rate);
        measurements += 1;
        assert!(measurements < 64, "the search does not end");
    }
    ModelRun { choice: search.choice().unwrap(), measurements, seconds: now }
}

/// Returns the largest rate of any number of lanes at the end of the run, and the smallest number that suffices.
fn exhaustive(link: Link<'_>, at: f64) -> (f64, u32) {
    let best = (1..=32).map(|lanes| link(lanes, at)).fold(0.0, f64::max);
    let enough = (1..=32).find(|lanes| link(*lanes, at) >= ENOUGH * best).unwrap();
    (best, enough)
}

/// Asserts that the choice reaches `share` of the best, with at most twice the lanes that suffice.
fn assert_finds_the_best(name: &str, link: Link<'_>, noise: f64, share: f64) {
    for seed in 0..10 {
        let run = run(link, noise, seed);
        let (best, enough) = exhaustive(link, run.seconds);
        let (lanes, reached) = (run.choice.lanes, link(run.choice.lanes, run.seconds));
        assert!(reached >= share * best, "{name}, {seed}: {lanes} lanes reach {reached} of {best}");
        assert!(lanes <= (2 * enough).max(2), "{name}, {seed}: {lanes} lanes, {enough} suffice");
    }
}

#[test]
fn one_lane_suffices_on_a_clean_and_fast_link() {
    let link = |_: u32, _: f64| 1000.0;
    assert_finds_the_best("clean", &link, 0.02, 0.95);
    let run = run(&link, 0.02, 1);
    assert_eq!((run.choice.lanes, run.choice.is_compared), (1, true));
    assert!(run.measurements <= 6 && run.seconds <= 40.0, "{} in {} s", run.measurements, run.seconds);
}

#[test]
fn one_lane_suffices_on_a_thin_link() {
    assert_finds_the_best("thin", &|_, _| 0.6, 0.1, 0.95);
}

#[test]
fn a_link_that_caps_each_connection_is_filled_with_few_spare_lanes() {
    assert_finds_the_best("5 of 40", &|lanes, _| (5.0 * f64::from(lanes)).min(40.0), 0.05, 0.95);
    assert_finds_the_best("5 of 30", &|lanes, _| (5.0 * f64::from(lanes)).min(30.0), 0.05, 0.95);
    assert_finds_the_best("20 of 110", &|lanes, _| (20.0 * f64::from(lanes)).min(110.0), 0.05, 0.95);
    // Without an end, the ladder's own is the best.
    assert_finds_the_best("without an end", &|lanes, _| 5.0 * f64::from(lanes), 0.05, 0.95);
}

#[test]
fn a_link_that_collapses_under_many_lanes_is_left_at_its_peak() {
    let link = |lanes: u32, _: f64| {
        let lanes = f64::from(lanes);
        (10.0 * lanes).min(60.0) * (1.0 - 0.03 * (lanes - 6.0).max(0.0)).max(0.1)
    };
    assert_finds_the_best("collapse", &link, 0.03, 0.93);
}

#[test]
fn full_buffers_that_swing_do_not_hide_the_best() {
    // A buffer that fills and drains every three seconds once two lanes fill it.
    let link = |lanes: u32, at: f64| {
        let swing = if lanes > 1 { 0.08 * (at * std::f64::consts::TAU / 3.0).sin() } else { 0.0 };
        12.0 * (1.0 + swing)
    };
    assert_finds_the_best("bufferbloat", &link, 0.05, 0.9);
}

#[test]
fn lost_packets_make_each_lane_slow_and_uneven() {
    assert_finds_the_best("lossy", &|lanes, _| (3.0 * f64::from(lanes)).min(35.0), 0.3, 0.9);
}

#[test]
fn beside_a_rival_more_lanes_get_more_until_they_gain_little() {
    // Fair shares: the rival has four connections.
    assert_finds_the_best("rival", &|lanes, _| 100.0 * f64::from(lanes) / f64::from(lanes + 4), 0.05, 0.85);
}

#[test]
fn a_link_that_changes_in_the_middle_is_measured_as_it_is_afterwards() {
    for middle in [5.0, 9.0, 13.0, 17.0, 21.0] {
        let faster = move |lanes: u32, at: f64| {
            let (each, all) = if at < middle { (5.0, 20.0) } else { (10.0, 40.0) };
            (each * f64::from(lanes)).min(all)
        };
        assert_finds_the_best(&format!("faster at {middle}"), &faster, 0.03, 0.9);
        let slower = move |lanes: u32, at: f64| {
            let (each, all) = if at < middle { (10.0, 40.0) } else { (5.0, 20.0) };
            (each * f64::from(lanes)).min(all)
        };
        assert_finds_the_best(&format!("slower at {middle}"), &slower, 0.03, 0.9);
    }
}

#[test]
fn steps_that_cost_too_much_are_left_out() {
    let exactly = |mean: f64| RateInterval { mean, low: 0.99 * mean, high: 1.01 * mean, is_settled: true };
    let mut search = Search::new(32);
    assert_eq!(search.choice(), None);
    search.record(exactly(10.0));
    search.record(exactly(20.0));
    // Four lanes cost too much, and so does the comparison.
    search.skip();
    assert_eq!(search.next_step(), Some(SearchStep { lanes: 2, purpose: RungPurpose::Pair }));
    search.skip();
    assert_eq!(search.next_step(), None);
    let choice = search.choice().unwrap();
    assert_eq!((choice.lanes, choice.is_compared), (2, false));
    assert!(search.gain_at_top().unwrap().0.low > 1.5);
}

#[test]
fn one_permitted_lane_needs_one_measurement() {
    let mut search = Search::new(1);
    search.record(RateInterval { mean: 1.0, low: 0.9, high: 1.1, is_settled: false });
    assert_eq!(search.next_step(), None);
    assert_eq!(search.choice().map(|choice| (choice.lanes, choice.is_compared)), Some((1, false)));
    assert!(search.is_undecided(), "no other number was measured");
}

/// Returns a rate with an interval of `width` to each side, as a share of it.
fn around(mean: f64, width: f64) -> RateInterval {
    RateInterval { mean, low: (1.0 - width) * mean, high: (1.0 + width) * mean, is_settled: width < 0.05 }
}

#[test]
fn a_ladder_that_a_limit_ends_shows_no_limit_of_the_lanes() {
    let is_undecided = |rates: &[f64], width: f64| {
        let mut search = Search::new(32);
        rates.iter().for_each(|rate| search.record(around(*rate, width)));
        while search.next_step().is_some() {
            search.skip();
        }
        search.is_undecided()
    };
    assert!(is_undecided(&[], 0.01) && is_undecided(&[10.0], 0.01));
    // Twice the lanes may have doubled the rate, or gained nothing.
    assert!(is_undecided(&[10.0, 16.0], 0.4));
    assert!(!is_undecided(&[10.0, 20.0], 0.01), "the lanes scale");
    assert!(!is_undecided(&[10.0, 13.0], 0.01), "the lanes share a link");
    assert!(!is_undecided(&[10.0, 10.0], 0.01), "the ladder ended by itself");
}

#[test]
fn the_largest_permitted_number_shows_no_limit_while_it_seems_to_gain() {
    let is_undecided = |width: f64| {
        let rate = |mean| RateInterval { is_settled: false, ..around(mean, width) };
        let mut search = Search::new(2);
        [10.0, 14.0].into_iter().for_each(|mean| search.record(rate(mean)));
        (0..4).for_each(|index| search.record(rate(if index % 2 == 0 { 14.0 } else { 10.0 })));
        search.is_undecided()
    };
    assert!(is_undecided(0.2) && !is_undecided(0.02));
}

#[test]
fn a_link_with_rivals_is_full_though_a_limit_ends_the_ladder() {
    let is_full = |rate: &dyn Fn(f64) -> f64, width: f64| {
        let mut search = Search::new(32);
        while let Some(step) = search.next_step() {
            if step.lanes == 32 {
                search.skip();
                continue;
            }
            search.record(around(rate(f64::from(step.lanes)), width));
        }
        !search.is_undecided() && !search.still_scales()
    };
    // Sixteen lanes gain a fifth over eight, and over twelve less than the rates are uncertain.
    assert!(is_full(&|lanes| 24.0 * lanes / (lanes + 4.0), 0.1));
    // Sixteen lanes gain almost a half over eight, and little over twelve.
    assert!(is_full(&|lanes| (1.5 * lanes).min(20.0 * lanes / (lanes + 2.0)), 0.015));
}

#[test]
fn a_measurement_ends_early_only_where_more_precision_changes_nothing() {
    let wide = |mean: f64| RateInterval { mean, low: 0.9 * mean, high: 1.1 * mean, is_settled: false };
    let mut search = Search::new(4);
    assert!(search.is_enough(&wide(10.0)), "the first rate is only the lower end of a gain");
    assert!(!search.is_enough(&RateInterval { high: 12.0, ..wide(10.0) }));
    assert!(!search.is_enough(&wide(0.0)), "a stall may end");
    search.record(wide(10.0));
    assert!(search.is_enough(&wide(20.0)) && !search.is_enough(&wide(13.0)));
    search.record(wide(20.0));
    // The largest permitted number may be the choice.
    assert!(!search.is_enough(&wide(40.0)));
    assert!(search.is_enough(&RateInterval { is_settled: true, ..wide(40.0) }));
}

#[test]
fn a_stall_during_a_comparison_does_not_decide_it() {
    let exactly = |mean: f64| RateInterval { mean, low: 0.98 * mean, high: 1.02 * mean, is_settled: true };
    let stalled = |mean: f64| RateInterval { mean, low: 0.4 * mean, high: 1.6 * mean, is_settled: false };
    for stalled_at in 0..4 {
        let mut search = Search::new(4);
        // Ladder 1, 2, 4 and refinement 3.
        [4.0, 8.0, 16.0, 12.0].into_iter().for_each(|rate| search.record(exactly(rate)));
        for index in 0..4 {
            let lanes = f64::from(search.next_step().unwrap().lanes);
            let rate = if index == stalled_at { stalled(2.0 * lanes) } else { exactly(4.0 * lanes) };
            search.record(rate);
        }
        assert_eq!(search.choice().unwrap().lanes, 4, "stalled at {stalled_at}");
    }
}

#[test]
fn a_lucky_refinement_is_compared_with_the_rung_above() {
    let about = |mean: f64| RateInterval { mean, low: 0.9 * mean, high: 1.1 * mean, is_settled: false };
    let settled = |mean: f64| RateInterval { mean, low: 0.97 * mean, high: 1.03 * mean, is_settled: true };
    let mut search = Search::new(16);
    // Ladder 1, 2, 4, 8, 16 and refinement 6, which reaches 18.6 in the long run.
    let rates = [about(3.6), about(7.4), about(14.4), settled(20.0), settled(20.0), about(20.0)];
    rates.into_iter().for_each(|rate| search.record(rate));
    for (lanes, rate) in [(8, 20.0), (6, 18.4), (8, 19.8), (6, 18.8)] {
        assert_eq!(search.next_step(), Some(SearchStep { lanes, purpose: RungPurpose::Pair }));
        search.record(about(rate));
    }
    assert_eq!(search.choice().unwrap().lanes, 8);
}

#[test]
fn a_lucky_rung_does_not_end_the_ladder() {
    let about = |mean: f64| RateInterval { mean, low: 0.88 * mean, high: 1.12 * mean, is_settled: false };
    let exactly = |mean: f64| RateInterval { mean, low: 0.97 * mean, high: 1.03 * mean, is_settled: true };
    let truth = |lanes: u32| match lanes {
        4 => 8.0,
        8 => 8.9,
        _ => 9.4,
    };
    let mut search = Search::new(16);
    // 4 lanes seem as good as 8, which ends the climb too early.
    [about(2.1), about(4.6), about(9.1), exactly(8.9)].into_iter().for_each(|rate| search.record(rate));
    while let Some(step) = search.next_step() {
        search.record(exactly(truth(step.lanes)));
    }
    assert!(search.choice().unwrap().lanes > 8, "{search:?}");
}

#[test]
fn a_comparison_whose_intervals_are_wide_keeps_the_larger_number() {
    let chosen = |width: f64| {
        let rate = |mean| RateInterval { is_settled: false, ..around(mean, width) };
        let mut search = Search::new(2);
        [8.6, 9.0].into_iter().for_each(|mean| search.record(rate(mean)));
        (0..4).for_each(|_| search.record(rate(9.0)));
        search.choice().unwrap().lanes
    };
    assert_eq!((chosen(0.03), chosen(0.15)), (1, 2));
}

#[test]
fn only_a_gain_in_proportion_shows_that_lanes_are_the_limit() {
    let exactly = |mean: f64| RateInterval { mean, low: 0.99 * mean, high: 1.01 * mean, is_settled: true };
    let scales = |rates: &[f64]| {
        let mut search = Search::new(16);
        rates.iter().for_each(|rate| search.record(exactly(*rate)));
        search.still_scales()
    };
    assert!(!scales(&[]) && !scales(&[10.0]));
    assert!(scales(&[10.0, 20.0, 40.0]));
    assert!(!scales(&[10.0, 20.0, 20.0]));
    // Fair shares beside four connections of others: the link is full.
    assert!(!scales(&[4.8, 8.0, 12.0, 16.0, 19.2]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_capped_link_is_filled(each in 1.0..100.0, spread in 1.0..40.0, noise in 0.0..0.08, seed: u64) {
        let all = each * spread;
        let link = move |lanes: u32, _: f64| f64::min(each * f64::from(lanes), all);
        let run = run(&link, noise, seed);
        let (best, enough) = exhaustive(&link, 0.0);
        prop_assert!(link(run.choice.lanes, 0.0) >= 0.9 * best, "{} lanes for {enough}", run.choice.lanes);
        prop_assert!(run.choice.lanes <= (2 * enough).max(2), "{} lanes for {enough}", run.choice.lanes);
        prop_assert!(run.measurements <= 6 + 1 + 4 * MOST_PAIRS);
    }

    #[test]
    fn any_rates_end_the_search(rates in prop::collection::vec((0.0..1e9, 0.0..1.0), 64), skips: u64) {
        let mut search = Search::new(32);
        for (index, (mean, width)) in rates.into_iter().enumerate() {
            let Some(step) = search.next_step() else { break };
            prop_assert!((1..=32).contains(&step.lanes));
            if skips >> (index % 64) & 7 == 7 {
                search.skip();
            } else {
                search.record(RateInterval {
                    mean,
                    low: mean * (1.0 - width),
                    high: mean * (1.0 + width),
                    is_settled: width < 0.05,
                });
            }
        }
        prop_assert_eq!(search.next_step(), None);
    }
}
