//! The display at many sizes.

use ringlift::bulk::totals::FileEnd;
use ringlift::{Class, Progress, UploadEvent};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

fn screen(columns: usize, rows: usize) -> Screen {
    Screen { columns, rows, is_utf8: true }
}

fn sent(totals: &mut Totals, key: u64, sent: u64, now: Instant) {
    let mut progress = Progress::default();
    progress.total_bytes = Some(MIB);
    progress.sent_bytes = sent;
    totals.advance(key, &progress, now);
}

/// Returns the totals of `all` files of 1 MiB each, of which the first `done` are done and the next are under way.
fn totals(all: u64, done: u64, running: u64, name: &str, start: Instant) -> Totals {
    let mut totals = Totals::new(start);
    (0..all).for_each(|_| totals.find(Some(MIB)));
    totals.found_all();
    for key in 0..done {
        totals.end(key, Some(MIB), FileEnd::Done { bytes: MIB }, start + SECOND);
    }
    for key in done..done + running {
        totals.begin(key, &name.replace("{}", &key.to_string()), Some(MIB), start);
        sent(&mut totals, key, MIB / 4 * (key % 4), start + SECOND);
    }
    totals
}

fn throttle(totals: &mut Totals, seconds: u32, now: Instant) {
    let (class, why) = (Class::Uploads, ThrottleReason::Budget);
    totals.record(0, &UploadEvent::Throttled { class, why, delay: SECOND * seconds }, now);
}

#[test]
fn a_batch_shows_totals_and_files_at_80_columns() {
    let start = Instant::now();
    let totals = totals(40, 3, 3, "films/clip{}.mp4", start);
    let lines = render(&totals, screen(80, 24), start + 2 * SECOND);
    assert_eq!(
        lines,
        [
            "3/40 files  10%  4.0 of 40.0 MiB  2.0 MiB/s  ETA 18s",
            "  films/clip3.mp4                                              75%   383.4 KiB/s",
            "  films/clip4.mp4                                               0%         0 B/s",
            "  films/clip5.mp4                                              25%   127.8 KiB/s",
        ]
    );
}

#[test]
fn a_single_file_shows_its_name_on_the_first_line() {
    let start = Instant::now();
    let mut totals = totals(1, 0, 1, "movie.mp4", start);
    sent(&mut totals, 0, MIB / 2, start + SECOND);
    let lines = render(&totals, screen(80, 24), start + SECOND);
    assert_eq!(lines, ["movie.mp4  50%  512.0 KiB of 1.0 MiB  538.0 KiB/s  ETA 1s"]);
    let lines = render(&totals, screen(40, 12), start + SECOND);
    assert_eq!(lines, ["movie.mp4  50%  538.0 KiB/s  ETA 1s"]);
}

#[test]
fn a_pause_for_the_rate_limit_has_a_line_with_its_end() {
    let start = Instant::now();
    let mut totals = totals(40, 3, 20, "films/clip{}.mp4", start);
    throttle(&mut totals, 60, start + SECOND);
    let lines = render(&totals, screen(80, 24), start + 19 * SECOND);
    assert_eq!(lines[1], "waiting for the rate limit, continues in 42 s");
    assert_eq!((lines.len(), lines[11].as_str()), (12, "  + 11 more"));
    assert!(lines[2].ends_with("waiting"), "{}", lines[2]);
    assert_eq!(render(&totals, screen(40, 24), start + 19 * SECOND)[1], "rate limit, continues in 42 s");
    assert_eq!(render(&totals, screen(24, 24), start + 19 * SECOND)[1], "rate limit: 42 s");
    assert!(
        stats_line(&totals, start + 19 * SECOND).ends_with("waiting for the rate limit, continues in 42 s")
    );
}

#[test]
fn an_unknown_total_shows_the_elapsed_time() {
    let start = Instant::now();
    let mut totals = Totals::new(start);
    totals.find(None);
    totals.begin(0, "stdin", None, start);
    let mut progress = Progress::default();
    progress.sent_bytes = 3 * MIB;
    totals.advance(0, &progress, start + SECOND);
    let lines = render(&totals, screen(80, 24), start + SECOND);
    assert_eq!(lines[0], "0/1+ files  3.0 MiB  3.2 MiB/s  1s");
}

#[test]
fn the_line_for_a_log_has_every_part() {
    let start = Instant::now();
    let mut totals = totals(40, 3, 1, "a.mp4", start);
    totals.end(9, Some(MIB), FileEnd::Failed, start + SECOND);
    let line = stats_line(&totals, start + SECOND);
    assert_eq!(line, "9%, 3.8 of 39.0 MiB, 3.9 MiB/s, ETA 10s, 3/40 files, 1 failed");
}

#[test]
fn no_line_is_too_wide_and_no_display_too_high() {
    let start = Instant::now();
    let names = [
        "a.mp4",
        "films/season-{}/episode-0123456789-0123456789-0123456789-0123456789-0123456789-final.mp4",
        "映画/とても長い名前の映画ファイル-その{}-最終版-映画映画映画映画映画映画映画映画映画映画映画映画.mp4",
        "\u{1b}[2J\n\r\u{202e}{}👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦a\u{301}a\u{301}.mp4",
    ];
    for name in names {
        for (all, done, running) in [(1, 0, 1), (100, 50, 8), (100, 0, 100), (7, 7, 0), (1, 0, 0)] {
            let mut totals = totals(all, done, running, name, start);
            for is_throttled in [false, true] {
                if is_throttled {
                    throttle(&mut totals, 100_000, start + SECOND);
                }
                for (columns, rows) in
                    (20..=200).flat_map(|columns| [(columns, 12), (columns, 24), (columns, 2)])
                {
                    for is_utf8 in [true, false] {
                        let screen = Screen { columns, rows, is_utf8 };
                        let lines = render(&totals, screen, start + 2 * SECOND);
                        assert!(!lines.is_empty() && lines.len() <= (rows / 2).max(1), "{rows}: {lines:#?}");
                        for line in &lines {
                            assert!(width(line) <= columns, "{columns}: {line:?}");
                            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
                            assert!(is_utf8 || line.is_ascii(), "{line:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_smaller_screen_drops_parts_and_keeps_the_percentage() {
    let start = Instant::now();
    let totals = totals(40, 3, 3, "clip{}.mp4", start);
    let first = |columns| render(&totals, screen(columns, 24), start + 2 * SECOND).remove(0);
    assert_eq!(first(48), "3/40 files  10%  4.0 MiB  2.0 MiB/s  ETA 18s");
    assert_eq!(first(40), "3/40 files  10%  2.0 MiB/s  ETA 18s");
    assert_eq!(first(30), "3/40 files  10%  ETA 18s");
    assert_eq!(first(20), "3/40 files  10%");
}

#[test]
fn durations_have_at_most_two_units() {
    for (seconds, text) in [(8, "8s"), (90, "1m30s"), (7500, "2h05m"), (273_600, "3d04h")] {
        assert_eq!(compact(Duration::from_secs(seconds)), text);
    }
}
