//! The text of the progress display. Pure: the clock and the size of the terminal are arguments.

use std::time::{Duration, Instant};

use ringlift::ThrottleReason;
use ringlift::bulk::totals::{FileCounts, LimitedBy, RunningFile, Totals, TotalsSnapshot};

use super::display_width::{fit, middle_cut, padded, width};
use super::escape::visible;

/// Size and character set of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Screen {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) is_utf8: bool,
}

/// Returns the lines of the progress display: the totals, the cause of a wait if there is one, and the files under
/// way. No line is wider than the screen, and there is at least one.
pub(super) fn render(totals: &Totals, screen: Screen, now: Instant) -> Vec<String> {
    let snapshot = totals.snapshot(now);
    let only = only_file(totals, &snapshot.files);
    let mut lines = vec![headline(&snapshot, only.map(RunningFile::name), screen)];
    let most = most_lines(screen.rows);
    let cause = cause_of_wait(snapshot.limited_by, now);
    let cause = cause.into_iter().find(|text| width(text) <= screen.columns);
    lines.extend(cause.filter(|text| !text.is_empty() && most > 1));
    if only.is_none() {
        let room = most - lines.len();
        let files = totals.running();
        // The line about the others takes the place of a file.
        let shown = if files.len() > room { room.saturating_sub(1) } else { files.len() };
        let hidden = files.len() - shown;
        let is_throttled = matches!(snapshot.limited_by, LimitedBy::Throttle { .. });
        lines.extend(files.take(shown).map(|(_, file)| file_line(file, is_throttled, screen, now)));
        lines.extend((hidden > 0 && room > 0).then(|| format!("  + {hidden} more")));
    }
    lines.iter().map(|line| fit(line, screen.columns)).collect()
}

/// Returns the state of the run as a line for a log.
pub(super) fn stats_line(totals: &Totals, now: Instant) -> String {
    let snapshot = totals.snapshot(now);
    let parts = HeadlineParts::new(&snapshot);
    let files = files_text(&snapshot.files);
    let [cause, ..] = cause_of_wait(snapshot.limited_by, now);
    let cause = Some(cause).filter(|cause| !cause.is_empty());
    let parts =
        [parts.percent, Some(parts.bytes_of_total), Some(parts.speed), parts.time, Some(files), cause];
    let line = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    match only_file(totals, &snapshot.files) {
        Some(file) => format!("{}: {line}", visible(file.name())),
        None => line,
    }
}

/// Returns a duration in at most two units: `8s`, `1m30s`, `2h05m`, `3d04h`.
pub(super) fn compact(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / (24 * 3600));
    match () {
        () if days > 0 => format!("{days}d{:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// The parts of the first line that follow the files or the name.
struct HeadlineParts {
    percent: Option<String>,
    bytes: String,
    bytes_of_total: String,
    speed: String,
    /// The remaining time, or the elapsed time if the total is unknown.
    time: Option<String>,
}

impl HeadlineParts {
    fn new(snapshot: &TotalsSnapshot) -> HeadlineParts {
        let bytes = &snapshot.bytes;
        let position = bytes.sent.saturating_add(bytes.resumed);
        let is_complete = bytes.total == Some(bytes.acknowledged);
        HeadlineParts {
            percent: bytes.total.map(|total| percent(position, total, is_complete)),
            bytes: amount(position),
            bytes_of_total: bytes.total.map_or_else(|| amount(position), |total| of(position, total)),
            speed: format!("{}/s", amount(snapshot.bytes_per_second.now)),
            time: match (bytes.total, snapshot.eta) {
                (None, _) => Some(compact(snapshot.elapsed)),
                (Some(_), eta) => eta.map(|eta| format!("ETA {}", compact(rounded_up(eta)))),
            },
        }
    }
}

/// Returns the first line with as many parts as fit.
fn headline(snapshot: &TotalsSnapshot, name: Option<&str>, screen: Screen) -> String {
    let HeadlineParts { percent, bytes, bytes_of_total, speed, time } = HeadlineParts::new(snapshot);
    let files = files_text(&snapshot.files);
    let tails = [
        vec![percent.clone(), Some(bytes_of_total), Some(speed.clone()), time.clone()],
        vec![percent.clone(), Some(bytes.clone()), Some(speed.clone()), time.clone()],
        vec![percent.clone(), Some(speed), time.clone()],
        vec![percent.clone(), time],
        vec![percent.or(Some(bytes))],
    ];
    for tail in &tails {
        let tail = tail.iter().flatten().cloned().collect::<Vec<_>>().join(GAP);
        let room = screen.columns.saturating_sub(width(&tail) + GAP.len());
        let head = match name {
            Some(name) => shown_name(name, room, screen.is_utf8).filter(|_| room >= NAME_COLUMNS),
            None => Some(files.clone()).filter(|files| width(files) <= room),
        };
        if let Some(head) = head {
            return format!("{head}{GAP}{tail}");
        }
    }
    let [.., last] = tails;
    last.into_iter().flatten().collect()
}

/// Returns the only file of the run, if it is under way.
fn only_file<'a>(totals: &'a Totals, files: &FileCounts) -> Option<&'a RunningFile> {
    let first = totals.running().next().map(|(_, file)| file);
    first.filter(|_| files.is_complete && files.found == 1)
}

fn files_text(files: &FileCounts) -> String {
    let more = if files.is_complete { "" } else { "+" };
    let failed = if files.failed > 0 { format!(", {} failed", files.failed) } else { String::new() };
    format!("{}/{}{more} files{failed}", files.done + files.skipped, files.found)
}

/// Returns texts about the cause of a wait, the longest first. They are empty if nothing is waited for.
fn cause_of_wait(limited_by: LimitedBy, now: Instant) -> [String; 3] {
    let left = |until: Instant| in_words(rounded_up(until.saturating_duration_since(now)));
    let passed = |since: Instant| in_words(now.saturating_duration_since(since));
    let until = |long: &str, short: &str, end: &str, at: Instant| {
        let left = left(at);
        [format!("{long}, {end} in {left}"), format!("{short}, {end} in {left}"), format!("{short}: {left}")]
    };
    match limited_by {
        LimitedBy::Throttle { until: at, reason } => {
            let (long, short) = match reason {
                ThrottleReason::Budget | ThrottleReason::SharedBudget => {
                    ("waiting for the rate limit", "rate limit")
                }
                ThrottleReason::TooManyRequests => ("waiting as the service asks (429)", "rate limit"),
                _ => ("waiting after failures of the service", "failures"),
            };
            until(long, short, "continues", at)
        }
        LimitedBy::Retry { until: at } => until("waiting after a failure", "failure", "retries", at),
        LimitedBy::Answer { since } => {
            let passed = passed(since);
            let long = format!("waiting for the service's answer, for {passed}");
            [long, format!("waiting for the answer, {passed}"), format!("no answer: {passed}")]
        }
        LimitedBy::Stalled { since } => {
            let long = format!("no progress for {}", passed(since));
            [long.clone(), long, format!("stalled: {}", passed(since))]
        }
        _ => Default::default(),
    }
}

fn file_line(file: &RunningFile, is_throttled: bool, screen: Screen, now: Instant) -> String {
    let share = match file.total_bytes() {
        Some(total) => percent(file.position(), total, false),
        None => amount(file.position()),
    };
    let state = file_state(file, is_throttled, now);
    let mut tail = format!("{}{GAP}{}", padded(&share, 4), padded(&state, STATE_COLUMNS));
    let indented = |tail: &str| screen.columns.saturating_sub(2 * GAP.len() + width(tail));
    if indented(&tail) < NAME_COLUMNS {
        tail = padded(&share, 4);
    }
    let room = indented(&tail);
    let name = shown_name(file.name(), room, screen.is_utf8).unwrap_or_default();
    // Numbers in columns are read at a glance: names are padded to the same width.
    let padding =
        " ".repeat(room.saturating_sub(width(&name)).min(LONGEST_NAME.saturating_sub(width(&name))));
    format!("{GAP}{name}{padding}{GAP}{tail}")
}

/// Returns the speed of a file, or the reason why it has none.
fn file_state(file: &RunningFile, is_throttled: bool, now: Instant) -> String {
    if let Some(at) = file.retry_at(now) {
        return format!("retry in {}", compact(rounded_up(at.saturating_duration_since(now))));
    }
    if file.is_sent() {
        return "finishing".to_owned();
    }
    let still = now.saturating_duration_since(file.moved_at());
    if is_throttled && still >= WAITING_AFTER {
        return "waiting".to_owned();
    }
    if still >= IDLE_AFTER {
        return format!("idle {}", compact(still));
    }
    format!("{}/s", amount(file.bytes_per_second(now)))
}

/// Returns a name in at most `room` columns; `None` if there is no room for a part of it.
fn shown_name(name: &str, room: usize, is_utf8: bool) -> Option<String> {
    let name = visible(name);
    let (name, mark) = if is_utf8 {
        (name.into_owned(), "…")
    } else {
        (name.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(), "...")
    };
    // Names of a screen's width would push the numbers far away from short names.
    middle_cut(&name, room.min(LONGEST_NAME), mark)
}

/// Returns the percentage, rounded down. 100 % is left for a run that is acknowledged.
fn percent(position: u64, total: u64, is_complete: bool) -> String {
    let percent = if total == 0 { 0 } else { u128::from(position) * 100 / u128::from(total) };
    let most = if is_complete { 100 } else { 99 };
    format!("{}%", if is_complete { most } else { percent.min(most) })
}

/// Returns a number of bytes and a total; the unit is written once if both have the same.
fn of(bytes: u64, total: u64) -> String {
    let (shift, unit) = unit_of(total);
    if bytes == 0 || unit_of(bytes).0 == shift {
        format!("{} of {} {unit}", number(bytes, shift), number(total, shift))
    } else {
        format!("{} of {}", amount(bytes), amount(total))
    }
}

/// Returns a number of bytes with one decimal, so that its width seldom changes: `144.6 MiB`.
fn amount(bytes: u64) -> String {
    let (shift, unit) = unit_of(bytes);
    format!("{} {unit}", number(bytes, shift))
}

fn number(bytes: u64, shift: u32) -> String {
    if shift == 0 { bytes.to_string() } else { format!("{:.1}", bytes as f64 / (1u64 << shift) as f64) }
}

/// Returns the largest unit that is not larger than the number.
fn unit_of(bytes: u64) -> (u32, &'static str) {
    let units = [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    units.into_iter().find(|(shift, _)| bytes >> shift > 0).unwrap_or((0, "B"))
}

/// Returns a duration for a sentence: `42 s`, `2m05s`.
fn in_words(time: Duration) -> String {
    if time < Duration::from_secs(100) { format!("{} s", time.as_secs()) } else { compact(time) }
}

/// Rounds up to whole seconds, so that a wait ends when the display says so.
fn rounded_up(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// Returns the most lines of the display: half the screen, because messages appear above it.
pub(super) fn most_lines(rows: usize) -> usize {
    // With a line more than fits, the first one would scroll out and stay there.
    (rows / 2).max(3).min(rows.saturating_sub(1)).max(1)
}

const GAP: &str = "  ";

/// A name is not cut below this width for the sake of other parts of its line.
const NAME_COLUMNS: usize = 8;
const LONGEST_NAME: usize = 60;

/// The width of `1023.9 MiB/s`.
const STATE_COLUMNS: usize = 12;

/// The time without a byte after which a file is shown as waiting during a pause. Chunks under way go on in it.
const WAITING_AFTER: Duration = Duration::from_secs(1);

/// The time without a byte after which a file is shown as idle. Chunks of parallel files alternate faster.
const IDLE_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
