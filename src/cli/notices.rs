//! Lines about retries and throttle delays, coalesced over all files. Pure: the clock is an argument.
//!
//! When a service fails, every chunk of every file fails at the same time. The first failure is shown at once; those
//! with the same reason within a second are counted and shown as one line.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ringlift::{Class, ErrorKind, Fate, ThrottleReason, UploadEvent};

use super::escape::visible;

/// Pauses and failures that were shown, or wait to be shown.
#[derive(Debug)]
pub(super) struct Notices {
    /// Attempts that the retry policy permits.
    most_attempts: u32,
    /// The end of each pause that was shown.
    pauses: Vec<(Class, ThrottleReason, Instant)>,
    failures: Vec<FailureGroup>,
}

/// A file, for a line about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLabel<'a> {
    pub(super) name: &'a str,
    /// Number of its chunks, if that is known.
    pub(super) chunks: Option<u32>,
}

/// Failures with the same reason.
#[derive(Debug)]
struct FailureGroup {
    operation: Operation,
    reason: String,
    since: Instant,
    /// Failures after the one that was shown.
    more: u32,
    /// Files of these failures; at most as many as are under way.
    files: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Creation,
    Chunk,
}

impl Notices {
    /// Creates an empty collection. `retries` is the limit of the retry policy.
    pub(super) fn new(retries: u32) -> Notices {
        Notices { most_attempts: retries.saturating_add(1), pauses: Vec::new(), failures: Vec::new() }
    }

    /// Takes in an event of a file. Returns a line to show at once.
    pub(super) fn record(
        &mut self,
        file: FileLabel<'_>,
        event: &UploadEvent,
        now: Instant,
    ) -> Option<String> {
        match event {
            UploadEvent::Throttled { class, why, delay } => self.throttled(*class, *why, *delay, now),
            // Expired credentials are routine.
            UploadEvent::Retry { why, .. } if why.kind == ErrorKind::NotAuthorized => None,
            UploadEvent::Retry { index, attempt, why, delay, fate } => {
                let operation = if index.is_some() { Operation::Chunk } else { Operation::Creation };
                if self.is_known(operation, &why.reason, file.name, now) {
                    return None;
                }
                let what = match (index, file.chunks) {
                    (None, _) => "creating the video failed".to_owned(),
                    (Some(_), Some(1)) => "the upload failed".to_owned(),
                    (Some(index), Some(chunks)) => format!("chunk {} of {chunks} failed", index + 1),
                    (Some(index), None) => format!("chunk {} failed", index + 1),
                };
                let open = if *fate == Fate::Unknown { ", although it may have arrived" } else { "" };
                let next = attempt.saturating_add(1);
                let attempt = if next <= self.most_attempts {
                    format!(" (attempt {next} of {})", self.most_attempts)
                } else {
                    String::new()
                };
                Some(format!(
                    "{}: {what} ({}); retrying in {}{open}{attempt}",
                    visible(file.name),
                    visible(&why.reason),
                    in_seconds(*delay),
                ))
            }
            _ => None,
        }
    }

    /// Returns the lines about failures that were counted for a second.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let due = |group: &mut FailureGroup| now.saturating_duration_since(group.since) >= GROUP_TIME;
        self.failures.extract_if(.., due).filter_map(|group| group.line()).collect()
    }

    /// Returns the lines about all failures that were counted.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.failures.drain(..).filter_map(|group| group.line()).collect()
    }

    /// Counts a failure in its group. Returns `false` if it is the first one, which opens the group.
    fn is_known(&mut self, operation: Operation, reason: &str, file: &str, now: Instant) -> bool {
        let group =
            self.failures.iter_mut().find(|group| group.operation == operation && group.reason == reason);
        if let Some(group) = group {
            group.more += 1;
            group.files.insert(file.to_owned());
            return true;
        }
        if self.failures.len() < MOST_GROUPS {
            let (reason, files) = (reason.to_owned(), BTreeSet::new());
            self.failures.push(FailureGroup { operation, reason, since: now, more: 0, files });
        }
        false
    }

    /// Every file reports the same pause; the first report is shown.
    fn throttled(
        &mut self,
        class: Class,
        why: ThrottleReason,
        delay: Duration,
        now: Instant,
    ) -> Option<String> {
        // After its end the same pause may come again, and is then shown again.
        self.pauses.retain(|(.., until)| *until > now);
        let is_known = self.pauses.iter().any(|(other, by, _)| (*other, *by) == (class, why));
        if is_known || delay < SHORTEST_PAUSE {
            return None;
        }
        self.pauses.push((class, why, now.checked_add(delay)?));
        Some(format!("{}; continuing in {}", cause_of_pause(class, why), in_seconds(delay)))
    }
}

fn cause_of_pause(class: Class, why: ThrottleReason) -> String {
    let requests = match class {
        Class::Uploads => "upload requests",
        Class::Writes => "write requests",
        Class::Reads => "read requests",
    };
    match why {
        ThrottleReason::Budget => format!("rate limit reached (no {requests} left this minute)"),
        ThrottleReason::TooManyRequests => {
            format!("rate limit reached ({requests} were answered by 429)")
        }
        why => format!("{requests} wait: {why}"),
    }
}

impl FailureGroup {
    /// Returns the line about the failures that were not shown.
    fn line(self) -> Option<String> {
        let (more, files, reason) = (self.more, self.files.len(), visible(&self.reason).into_owned());
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let what = match self.operation {
            Operation::Chunk => {
                format!("{more} more chunk{} of {files} file{} failed", plural(more as usize), plural(files),)
            }
            // Several attempts of a file are for one video.
            Operation::Creation => {
                let attempts = plural(more as usize);
                format!(
                    "{more} more attempt{attempts} to create the video{0} of {files} file{0} failed",
                    plural(files)
                )
            }
        };
        (more > 0).then(|| format!("{what} ({reason}); retrying"))
    }
}

/// Writes short durations with one decimal: `0.3 s`, `42 s`.
pub(super) fn in_seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// The time in which failures with the same reason are counted.
const GROUP_TIME: Duration = Duration::from_secs(1);

/// Shorter pauses are over before their line is read.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// Limits the memory. Further failures are shown one by one.
const MOST_GROUPS: usize = 16;

#[cfg(test)]
mod tests {
    use ringlift::FailureSummary;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn file(name: &str) -> FileLabel<'_> {
        FileLabel { name, chunks: Some(8) }
    }

    fn retry(index: Option<u32>, kind: ErrorKind) -> UploadEvent {
        let why = FailureSummary::new(kind, kind.to_string());
        UploadEvent::Retry { index, attempt: 1, why, delay: 300 * MILLI, fate: Fate::NotStored }
    }

    fn budget(seconds: u64) -> UploadEvent {
        let (class, why) = (Class::Uploads, ThrottleReason::Budget);
        UploadEvent::Throttled { class, why, delay: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_retry_names_the_chunk_the_reason_and_the_attempt() {
        let mut notices = Notices::new(10);
        let line = notices.record(file("movie.mp4"), &retry(Some(6), ErrorKind::Stalled), Instant::now());
        assert_eq!(
            line.as_deref(),
            Some(
                "movie.mp4: chunk 7 of 8 failed (the transfer timed out); retrying in 0.3 s (attempt 2 of 11)"
            )
        );
        let line = notices.record(file("a\n.mp4"), &retry(None, ErrorKind::Stalled), Instant::now());
        assert!(line.unwrap().starts_with("a\\n.mp4: creating the video failed ("));
        assert_eq!(notices.record(file("a"), &retry(None, ErrorKind::NotAuthorized), Instant::now()), None);
    }

    #[test]
    fn failures_of_the_same_second_and_reason_are_one_more_line() {
        let (mut notices, now) = (Notices::new(10), Instant::now());
        let event = retry(Some(0), ErrorKind::Stalled);
        assert!(notices.record(file("a.mp4"), &event, now).is_some());
        for name in ["a.mp4", "b.mp4", "b.mp4", "c.mp4"] {
            assert_eq!(notices.record(file(name), &event, now + MILLI), None);
        }
        assert!(notices.record(file("d.mp4"), &retry(Some(0), ErrorKind::Connect), now).is_some());
        assert_eq!(notices.due(now + 999 * MILLI), [""; 0]);
        let expected = "4 more chunks of 3 files failed (the transfer timed out); retrying";
        assert_eq!(notices.due(now + 1000 * MILLI), [expected]);
        assert!(notices.record(file("a.mp4"), &event, now + 1001 * MILLI).is_some());
    }

    #[test]
    fn attempts_to_create_the_video_of_one_file_are_not_several_videos() {
        let (mut notices, now) = (Notices::new(10), Instant::now());
        let event = retry(None, ErrorKind::Stalled);
        for _ in 0..3 {
            notices.record(file("a.mp4"), &event, now);
        }
        let expected =
            "2 more attempts to create the video of 1 file failed (the transfer timed out); retrying";
        assert_eq!(notices.rest(), [expected]);
        for name in ["a.mp4", "b.mp4", "c.mp4"] {
            notices.record(file(name), &event, now);
        }
        assert!(notices.rest()[0].contains("the videos of 2 files"));
    }

    #[test]
    fn a_pause_is_one_line_whatever_the_number_of_files() {
        let (mut notices, now) = (Notices::new(10), Instant::now());
        let line = notices.record(file("a.mp4"), &budget(60), now);
        let expected = "rate limit reached (no upload requests left this minute); continuing in 60 s";
        assert_eq!(line.as_deref(), Some(expected));
        assert_eq!(notices.record(file("b.mp4"), &budget(60), now + MILLI), None);
        assert_eq!(notices.record(file("c.mp4"), &budget(30), now + 30_000 * MILLI), None);
        assert!(notices.record(file("d.mp4"), &budget(60), now + 60_000 * MILLI).is_some());
    }

    #[test]
    fn different_reasons_do_not_fill_the_memory() {
        let (mut notices, now) = (Notices::new(10), Instant::now());
        for number in 0..1000 {
            let why = FailureSummary::new(ErrorKind::Stalled, format!("reason {number}"));
            let fate = Fate::NotStored;
            let event = UploadEvent::Retry { index: Some(0), attempt: 1, why, delay: MILLI, fate };
            assert!(notices.record(file("a.mp4"), &event, now).is_some());
        }
        assert_eq!(notices.failures.len(), MOST_GROUPS);
    }
}
