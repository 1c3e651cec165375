//! Totals of many uploads: files, bytes, speeds, the remaining time, and the cause of a wait.
//!
//! Pure: the caller passes the clock. The memory depends on the number of files under way only: of an ended file
//! nothing but counts remains.

mod running;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bulk::rate::{SpeedMeter, Speeds};
use crate::pacing::ThrottleReason;
use crate::session::event::UploadEvent;
use crate::upload::Progress;

pub use running::RunningFile;
use running::{Lengths, MovedBytes};

/// A number that identifies a file of the run, chosen by the caller.
pub type FileKey = u64;

/// The end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEnd {
    /// The service has confirmed these bytes.
    Done {
        /// Length of the file.
        bytes: u64,
    },
    /// Nothing was sent, because an earlier run has uploaded the file.
    Skipped {
        /// Length of the file.
        bytes: u64,
    },
    /// The upload failed.
    Failed,
    /// The upload was cancelled.
    Cancelled,
}

/// Numbers of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileCounts {
    /// Files that this run has uploaded.
    pub done: u64,
    /// Files whose upload failed.
    pub failed: u64,
    /// Files that an earlier run has uploaded.
    pub skipped: u64,
    /// Files whose upload was cancelled.
    pub cancelled: u64,
    /// Files under way.
    pub running: u64,
    /// Files found so far.
    pub found: u64,
    /// `true` if no further files can be found, so that `found` is the number of all files.
    pub is_complete: bool,
}

/// Numbers of file bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TotalBytes {
    /// Acknowledged by the service, to this run or an earlier one.
    pub acknowledged: u64,
    /// Sent by this run, acknowledged or not.
    pub sent: u64,
    /// Stored by an earlier run.
    pub resumed: u64,
    /// Sent again after a failure; not part of the other counts.
    pub resent: u64,
    /// Bytes of all files; `None` while files are being found, or while the length of one is unknown. A file that
    /// failed counts with the bytes that were sent.
    pub total: Option<u64>,
    /// Bytes of all files that were found, also of those that failed; `None` if `total` is. Never decreases, apart from
    /// being `None`.
    pub found: Option<u64>,
}

/// The cause that holds back the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitedBy {
    /// Nothing but the speed of the connection.
    Nothing,
    /// New requests wait for a limit of the service, or for its recovery.
    Throttle {
        /// The end of the delay.
        until: Instant,
        /// The cause of the delay.
        reason: ThrottleReason,
    },
    /// Every file under way waits for its next attempt.
    Retry {
        /// The first of these attempts.
        until: Instant,
    },
    /// Every byte under way is sent, and the service has not answered.
    Answer {
        /// The time of the last byte.
        since: Instant,
    },
    /// No byte has moved for a while.
    Stalled {
        /// The time of the last byte.
        since: Instant,
    },
}

/// The state of a run at one time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TotalsSnapshot {
    /// Time since the start of the run.
    pub elapsed: Duration,
    /// Numbers of files.
    pub files: FileCounts,
    /// Numbers of file bytes.
    pub bytes: TotalBytes,
    /// Speeds of this run, in bytes per second. Bytes of an earlier run do not count.
    pub bytes_per_second: Speeds,
    /// Repeated attempts.
    pub retries: u64,
    /// The estimated time to the end; `None` if the total is unknown, or if nothing moves.
    pub eta: Option<Duration>,
    /// The cause that holds back the run.
    pub limited_by: LimitedBy,
}

/// The totals of a run.
#[derive(Clone, Debug)]
pub struct Totals {
    started: Instant,
    files: FileCounts,
    /// Lengths of files that have not begun.
    queued: Lengths,
    /// Counts of ended files.
    ended: MovedBytes,
    running: BTreeMap<FileKey, RunningFile>,
    /// Bytes that have left the total unsent: of failed and cancelled files, and of files that became shorter.
    dropped: u64,
    /// The bytes found when the queue was last replaced. Files may have left it for other processes.
    least_found: u64,
    speed: SpeedMeter,
    /// The throttle delay that ends last.
    throttle: Option<(Instant, ThrottleReason)>,
}

impl Totals {
    /// Creates the totals of a run that starts at `now`, without files.
    pub fn new(now: Instant) -> Totals {
        Totals {
            started: now,
            files: FileCounts::default(),
            queued: Lengths::default(),
            ended: MovedBytes::default(),
            running: BTreeMap::new(),
            dropped: 0,
            least_found: 0,
            speed: SpeedMeter::new(now),
            throttle: None,
        }
    }

    /// Adds a file that was found; `bytes` is its length if that is known.
    pub fn find(&mut self, bytes: Option<u64>) {
        self.files.found += 1;
        self.queued.add(bytes);
    }

    /// Replaces the files that have not begun by `files`, of `bytes` altogether. For runs on a queue that other
    /// processes use, too: the queue knows its length at any time.
    pub fn set_queue(&mut self, files: u64, bytes: u64) {
        self.least_found = self.found_bytes().unwrap_or(self.least_found);
        self.files.found = self.taken() + files;
        self.queued = Lengths::default();
        self.queued.add(Some(bytes));
    }

    /// Returns a file under way to the queue, after an attempt that failed for now. `bytes` is the length that
    /// [`Totals::find`] received.
    pub fn defer(&mut self, key: FileKey, bytes: Option<u64>) {
        if let Some(file) = self.running.remove(&key) {
            self.ended.add(&file.moved);
            self.queued.add(bytes);
            let counted = file.position().saturating_add(bytes.unwrap_or(0));
            self.drop_unsent(file.total_bytes(), counted);
        }
    }

    /// Records that all files were found.
    pub fn found_all(&mut self) {
        self.files.is_complete = true;
    }

    /// Returns `true` if all files were found.
    pub fn is_complete(&self) -> bool {
        self.files.is_complete
    }

    /// Records that the upload of a file begins. `bytes` is the length that [`Totals::find`] received.
    ///
    /// A file that is already under way is left as it is.
    pub fn begin(&mut self, key: FileKey, name: &str, bytes: Option<u64>, now: Instant) {
        if !self.running.contains_key(&key) {
            self.queued.remove(bytes);
            self.running.insert(key, RunningFile::new(name, bytes, now));
        }
    }

    /// Records newer progress of a file under way. Does nothing for another file.
    pub fn advance(&mut self, key: FileKey, progress: &Progress, now: Instant) {
        if let Some(file) = self.running.get_mut(&key) {
            let length = file.total_bytes();
            let moved = file.advance(progress, now);
            self.speed.add(moved, now);
            if let Some(newer) = file.total_bytes() {
                self.drop_unsent(length, newer);
            }
        }
    }

    /// Records an event of a file under way. Events other than retries and throttle delays change nothing.
    pub fn record(&mut self, key: FileKey, event: &UploadEvent, now: Instant) {
        match event {
            UploadEvent::Throttled { why, delay, .. } => {
                let until = later(now, *delay);
                if self.throttle.is_none_or(|(other, _)| other < until) {
                    self.throttle = Some((until, *why));
                }
            }
            UploadEvent::Retry { delay, .. } => {
                if let Some(file) = self.running.get_mut(&key) {
                    file.retry_at = Some(later(now, *delay));
                }
            }
            _ => {}
        }
    }

    /// Records the end of a file, which may never have begun. `bytes` is the length that [`Totals::find`] received.
    pub fn end(&mut self, key: FileKey, bytes: Option<u64>, end: FileEnd, now: Instant) {
        let (mut file, length) = match self.running.remove(&key) {
            Some(file) => (file.moved, file.total_bytes()),
            None => (MovedBytes::default(), Some(self.queued.remove(bytes))),
        };
        match end {
            FileEnd::Done { bytes } => {
                self.files.done += 1;
                // The last progress may never have been published.
                self.speed.add(file.complete(bytes), now);
            }
            FileEnd::Skipped { bytes } => {
                self.files.skipped += 1;
                file.take_over(bytes);
            }
            FileEnd::Failed => self.files.failed += 1,
            FileEnd::Cancelled => self.files.cancelled += 1,
        }
        self.ended.add(&file);
        self.drop_unsent(length, file.position());
    }

    /// Records that a file of this length, if it is known, counts with `counted` bytes from now on.
    fn drop_unsent(&mut self, length: Option<u64>, counted: u64) {
        let unsent = length.unwrap_or(0).saturating_sub(counted);
        self.dropped = self.dropped.saturating_add(unsent);
    }

    /// Returns the files under way, in the order of their keys.
    pub fn running(&self) -> impl ExactSizeIterator<Item = (FileKey, &RunningFile)> {
        self.running.iter().map(|(key, file)| (*key, file))
    }

    /// Returns the state of the run at `now`.
    pub fn snapshot(&self, now: Instant) -> TotalsSnapshot {
        let moved = self.moved();
        let bytes = TotalBytes {
            acknowledged: moved.acknowledged,
            sent: moved.sent,
            resumed: moved.resumed,
            resent: moved.resent,
            total: self.total_bytes(),
            found: self.found_bytes(),
        };
        let (bytes_per_second, limited_by) = (self.speed.speeds(now), self.limited_by(now));
        TotalsSnapshot {
            elapsed: now.saturating_duration_since(self.started),
            files: FileCounts {
                running: self.running.len() as u64,
                // A queue of several processes gives files that this one has not counted yet.
                found: self.files.found.max(self.taken()),
                ..self.files
            },
            bytes,
            bytes_per_second,
            retries: moved.retries,
            eta: eta(&bytes, bytes_per_second, limited_by, now),
            limited_by,
        }
    }

    /// Returns the number of files that have begun.
    fn taken(&self) -> u64 {
        let FileCounts { done, failed, skipped, cancelled, .. } = self.files;
        done + failed + skipped + cancelled + self.running.len() as u64
    }

    fn moved(&self) -> MovedBytes {
        let mut moved = self.ended;
        self.running.values().for_each(|file| moved.add(&file.moved));
        moved
    }

    fn total_bytes(&self) -> Option<u64> {
        let queued = self.queued.sum().filter(|_| self.files.is_complete)?;
        let running = self.running.values().map(RunningFile::total_bytes);
        running
            .chain([Some(queued), Some(self.ended.position())])
            .try_fold(0, |sum: u64, bytes| Some(sum.saturating_add(bytes?)))
    }

    fn found_bytes(&self) -> Option<u64> {
        let total = self.total_bytes()?;
        Some(total.saturating_add(self.dropped).max(self.least_found))
    }

    fn limited_by(&self, now: Instant) -> LimitedBy {
        if let Some((until, reason)) = self.throttle.filter(|(until, _)| *until > now) {
            return LimitedBy::Throttle { until, reason };
        }
        let Some(since) = self.running.values().map(|file| file.moved_at).max() else {
            return LimitedBy::Nothing;
        };
        // A single file that does not wait makes the whole `None`: then the run is not waiting.
        let retry_at = self.running.values().map(|file| file.retry_at(now));
        if let Some(until) = retry_at.reduce(|one, other| Some(one?.min(other?))).flatten() {
            return LimitedBy::Retry { until };
        }
        let still = now.saturating_duration_since(since);
        if still >= ANSWER_AFTER && self.running.values().all(RunningFile::is_sent) {
            return LimitedBy::Answer { since };
        }
        if still >= STALLED_AFTER { LimitedBy::Stalled { since } } else { LimitedBy::Nothing }
    }
}

/// Estimates the time to the end of the run.
fn eta(bytes: &TotalBytes, speeds: Speeds, limited_by: LimitedBy, now: Instant) -> Option<Duration> {
    let left = bytes.total?.saturating_sub(bytes.sent.saturating_add(bytes.resumed));
    let (speed, earliest) = match limited_by {
        // The minute before a pause says little about the minutes after it: only the whole run has pauses in
        // proportion.
        LimitedBy::Throttle { until, .. } => (speeds.run, until.saturating_duration_since(now)),
        LimitedBy::Stalled { .. } if left > 0 => return None,
        _ if speeds.minute > 0 => (speeds.minute, Duration::ZERO),
        _ => (speeds.run, Duration::ZERO),
    };
    if left == 0 {
        return Some(Duration::ZERO);
    }
    let seconds = (speed > 0).then(|| left as f64 / speed as f64)?;
    let eta = (seconds < LONGEST_ETA.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))?;
    Some(eta.max(earliest))
}

/// Adds a delay that the service may have chosen, without overflow.
fn later(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay).unwrap_or_else(|| now + LONGEST_ETA)
}

/// The time without an answer after which the wait is worth mentioning. Ordinary answers take milliseconds.
const ANSWER_AFTER: Duration = Duration::from_secs(3);

/// The time without a byte that counts as a stall. Retransmissions of TCP take up to a few seconds.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// A longer time is no estimate but the trace of a speed near zero.
const LONGEST_ETA: Duration = Duration::from_secs(100 * 24 * 3600);

#[cfg(test)]
mod tests;
