//! One budget of bytes a second for any number of sockets.
//!
//! A socket that has something to write reserves a share and is told when it may write it: first come, first
//! served, so that no lane starves beside another. What nobody used is made up for by [`SLACK`] at most.
//!
//! No crate fits: `governor` grants all or nothing of a fixed quota, `async-speed-limit` and `leaky-bucket` are
//! futures that know the amount beforehand, while a socket takes what it takes and the limit changes by the hour.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How many bytes a second all lanes together may send; it may be changed while they do.
///
/// A clone is the same budget, and clients that are given clones share it. What counts is what sockets take, with
/// heads and TLS records; handshakes and the service's JSON calls do not count.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth {
    state: Arc<BandwidthState>,
}

#[derive(Debug, Default)]
struct BandwidthState {
    /// Bytes a second; none at 0.
    limit: AtomicU64,
    gcra: Mutex<Gcra>,
}

impl Bandwidth {
    /// No limit, until one is [set](Bandwidth::set).
    pub fn unlimited() -> Bandwidth {
        Bandwidth::default()
    }

    /// At most this many bytes a second.
    pub fn bytes_per_second(limit: NonZeroU64) -> Bandwidth {
        let bandwidth = Bandwidth::default();
        bandwidth.set(Some(limit));
        bandwidth
    }

    /// Changes the limit, in bytes a second, or lifts it. Shares that lanes wait for already are not changed.
    pub fn set(&self, limit: Option<NonZeroU64>) {
        self.state.limit.store(limit.map_or(0, NonZeroU64::get), Ordering::Relaxed);
    }

    /// The limit in bytes a second; `None` where there is none.
    pub fn limit(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.state.limit.load(Ordering::Relaxed))
    }

    fn reserve(&self, limit: NonZeroU64, wanted: u64, now: Instant) -> WriteGrant {
        self.state.gcra.lock().unwrap_or_else(PoisonError::into_inner).reserve(limit, wanted, now)
    }
}

/// One socket's end of the budget.
#[derive(Debug)]
pub(super) struct SocketLimiter {
    bandwidth: Bandwidth,
    /// Bytes that may be written at once.
    granted: u64,
    pending: Option<PendingGrant>,
}

#[derive(Debug)]
struct PendingGrant {
    bytes: u64,
    alarm: Pin<Box<Sleep>>,
}

impl SocketLimiter {
    pub(super) fn new(bandwidth: Bandwidth) -> SocketLimiter {
        SocketLimiter { bandwidth, granted: 0, pending: None }
    }

    /// How many bytes may be written now, [`usize::MAX`] without a limit; `wanted` is asked only if there is one.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, wanted: impl Fn() -> u64) -> Poll<usize> {
        while let Some(limit) = self.bandwidth.limit() {
            if self.granted > 0 {
                return Poll::Ready(usize::try_from(self.granted).unwrap_or(usize::MAX));
            }
            match &mut self.pending {
                None => self.reserve(limit, wanted(), Instant::now()),
                Some(pending) => {
                    ready!(pending.alarm.as_mut().poll(cx));
                    self.granted = pending.bytes;
                    self.pending = None;
                }
            }
        }
        self.pending = None;
        Poll::Ready(usize::MAX)
    }

    fn reserve(&mut self, limit: NonZeroU64, wanted: u64, now: Instant) {
        let WriteGrant { bytes, at } = self.bandwidth.reserve(limit, wanted, now);
        if at <= now {
            self.granted = bytes;
        } else {
            self.pending = Some(PendingGrant { bytes, alarm: Box::pin(sleep_until(at)) });
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, len: usize) {
        self.granted = self.granted.saturating_sub(len as u64);
    }

    /// When it opens, while it is shut.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.alarm.deadline())
    }
}

/// Bytes, and when they may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WriteGrant {
    bytes: u64,
    at: Instant,
}

/// The generic cell rate algorithm (ITU-T I.371): a moment is all that has to be remembered.
#[derive(Debug, Default)]
struct Gcra {
    /// When the limit has made up for all that was reserved.
    theoretical_arrival: Option<Instant>,
}

impl Gcra {
    fn reserve(&mut self, limit: NonZeroU64, wanted: u64, now: Instant) -> WriteGrant {
        let bytes = wanted.clamp(1, most_grant_bytes(limit));
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let begin = self.theoretical_arrival.map_or(now, |settled| settled.max(earliest));
        self.theoretical_arrival = Some(begin + time_for(bytes, limit));
        WriteGrant { bytes, at: begin.max(now) }
    }
}

/// What one reservation gets at most: small enough for turns to come often, large enough for whole segments.
fn most_grant_bytes(limit: NonZeroU64) -> u64 {
    let limit = limit.get();
    (limit / GRANTS_PER_SECOND).max(SEGMENT_BYTES.min(limit))
}

/// Rounded up, so that the limit is kept to the byte. A share takes a second at most.
fn time_for(bytes: u64, limit: NonZeroU64) -> Duration {
    let nanos = (u128::from(bytes) * NANOS_A_SECOND).div_ceil(u128::from(limit.get()));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const GRANTS_PER_SECOND: u64 = 32;

/// Beside a share, what timers and the scheduler may be late without speed being lost.
const SLACK: Duration = Duration::from_millis(60);

/// What an Ethernet frame carries of a TCP stream (RFC 9293, section 3.7.1).
const SEGMENT_BYTES: u64 = 1460;

const NANOS_A_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests;
