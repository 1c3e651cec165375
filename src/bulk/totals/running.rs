//! Counts of single files, and sums of lengths.

use std::time::Instant;

use crate::bulk::rate::RecentSpeed;
use crate::upload::Progress;

/// A file under way.
#[derive(Clone, Debug)]
pub struct RunningFile {
    name: String,
    total: Option<u64>,
    pub(super) moved: MovedBytes,
    /// The time of the last progress, or of the start.
    pub(super) moved_at: Instant,
    /// The time of the last announced attempt.
    pub(super) retry_at: Option<Instant>,
    speed: RecentSpeed,
}

/// Numbers of file bytes of one file, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MovedBytes {
    pub(super) acknowledged: u64,
    /// Sent by this run.
    pub(super) sent: u64,
    /// Stored by an earlier run.
    pub(super) resumed: u64,
    pub(super) resent: u64,
    pub(super) retries: u64,
}

/// The sum of lengths, some of which may be unknown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths {
    bytes: u64,
    unknown: u64,
}

impl RunningFile {
    pub(super) fn new(name: &str, total: Option<u64>, now: Instant) -> RunningFile {
        RunningFile {
            name: name.to_owned(),
            total,
            moved: MovedBytes::default(),
            moved_at: now,
            retry_at: None,
            speed: RecentSpeed::new(now),
        }
    }

    /// Takes in newer progress. Returns the number of bytes that this run has sent since.
    pub(super) fn advance(&mut self, progress: &Progress, now: Instant) -> u64 {
        let before = self.moved;
        self.total = progress.total_bytes.or(self.total);
        // An upload that begins anew counts from 0 again. Totals that went back would be taken for an error.
        let resumed = progress.resumed_bytes.max(before.resumed);
        self.moved = MovedBytes {
            acknowledged: progress.acknowledged_bytes.max(before.acknowledged),
            sent: progress.sent_bytes.saturating_sub(resumed).max(before.sent),
            resumed,
            resent: progress.resent_bytes.max(before.resent),
            retries: u64::from(progress.retries).max(before.retries),
        };
        let sent = self.moved.sent - before.sent;
        if self.moved.position() > before.position() || self.moved.acknowledged > before.acknowledged {
            self.moved_at = self.moved_at.max(now);
            // Bytes that move are the end of the pause before them.
            self.retry_at = None;
        }
        self.speed.add(sent, now);
        sent
    }

    /// Returns the name that [`Totals::begin`](super::Totals::begin) received.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the length; `None` if it is unknown. Never less than the bytes sent.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total.map(|total| total.max(self.moved.position()))
    }

    /// Returns the bytes sent, those of an earlier run included.
    pub fn position(&self) -> u64 {
        self.moved.position()
    }

    /// Returns the part that is sent, from 0 to 1; `None` if the length is unknown. An empty file is whole.
    pub fn fraction(&self) -> Option<f64> {
        let total = self.total_bytes()?;
        Some(if total == 0 { 1.0 } else { self.position() as f64 / total as f64 })
    }

    /// Returns the speed of the last ten seconds or so at `now`, in bytes per second.
    pub fn bytes_per_second(&self, now: Instant) -> u64 {
        self.speed.bytes_per_second(now)
    }

    /// Returns the time of the last progress, or of the start.
    pub fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// Returns the time of the next attempt; `None` unless the file waits for it.
    pub fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    /// Returns `true` if every byte is sent.
    pub fn is_sent(&self) -> bool {
        self.total.is_some_and(|total| self.position() >= total)
    }
}

impl MovedBytes {
    /// Returns the bytes sent by this run and stored by earlier ones.
    pub(super) fn position(&self) -> u64 {
        self.sent.saturating_add(self.resumed)
    }

    pub(super) fn add(&mut self, other: &MovedBytes) {
        self.acknowledged = self.acknowledged.saturating_add(other.acknowledged);
        self.sent = self.sent.saturating_add(other.sent);
        self.resumed = self.resumed.saturating_add(other.resumed);
        self.resent = self.resent.saturating_add(other.resent);
        self.retries = self.retries.saturating_add(other.retries);
    }

    /// Counts all `bytes` of a file as acknowledged. Returns the number of bytes that were not counted as sent.
    pub(super) fn complete(&mut self, bytes: u64) -> u64 {
        let late = bytes.saturating_sub(self.position());
        self.sent = self.sent.saturating_add(late);
        self.acknowledged = self.acknowledged.max(bytes);
        late
    }

    /// Counts all `bytes` of a file as stored by an earlier run.
    pub(super) fn take_over(&mut self, bytes: u64) {
        self.resumed = bytes.saturating_sub(self.sent).max(self.resumed);
        self.acknowledged = self.acknowledged.max(bytes);
    }
}

impl Lengths {
    pub(super) fn add(&mut self, bytes: Option<u64>) {
        self.bytes = self.bytes.saturating_add(bytes.unwrap_or(0));
        self.unknown += u64::from(bytes.is_none());
    }

    /// Removes a length. Returns the bytes by which the sum is smaller.
    pub(super) fn remove(&mut self, bytes: Option<u64>) -> u64 {
        // The queue may have been counted after the claim of this job, which has left the count then.
        let removed = self.bytes.min(bytes.unwrap_or(0));
        self.bytes -= removed;
        self.unknown = self.unknown.saturating_sub(u64::from(bytes.is_none()));
        removed
    }

    /// Returns the sum; `None` if a length is unknown.
    pub(super) fn sum(&self) -> Option<u64> {
        (self.unknown == 0).then_some(self.bytes)
    }
}
