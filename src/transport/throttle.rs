//! A bandwidth limit in bytes per second, shared by any number of sockets.
//!
//! A socket with bytes to write reserves a grant and waits until its time: first come, first served, so that
//! no lane starves. Unused bandwidth carries over for at most [`SLACK`].
//!
//! No crate fits: `governor` grants all or nothing of a fixed quota; `async-speed-limit` and `leaky-bucket`
//! need to be given the amount beforehand, while a socket accepts any part of a write; and the limit changes
//! at run time.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A limit in bytes per second for all lanes together. It may be changed while they send.
///
/// Clones share one limit, also across clients. Bytes that sockets accept are counted, with heads and TLS
/// records; handshakes and the service's JSON calls are not.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth {
    state: Arc<BandwidthState>,
}

#[derive(Debug, Default)]
struct BandwidthState {
    /// Bytes per second; 0 for no limit.
    limit: AtomicU64,
    gcra: Mutex<Gcra>,
}

impl Bandwidth {
    /// Creates a bandwidth without a limit, until one is [set](Bandwidth::set).
    pub fn unlimited() -> Bandwidth {
        Bandwidth::default()
    }

    /// Creates a limit in bytes per second.
    pub fn bytes_per_second(limit: NonZeroU64) -> Bandwidth {
        let bandwidth = Bandwidth::default();
        bandwidth.set(Some(limit));
        bandwidth
    }

    /// Changes the limit, in bytes per second, or removes it. Grants that lanes already wait for do not
    /// change.
    pub fn set(&self, limit: Option<NonZeroU64>) {
        // Relaxed: the limit is a single value, and a grant under the old one does no harm.
        self.state.limit.store(limit.map_or(0, NonZeroU64::get), Ordering::Relaxed);
    }

    /// Returns the limit in bytes per second; `None` for no limit.
    pub fn limit(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.state.limit.load(Ordering::Relaxed))
    }

    fn reserve(&self, limit: NonZeroU64, wanted: u64, now: Instant) -> WriteGrant {
        self.state.gcra.lock().unwrap_or_else(PoisonError::into_inner).reserve(limit, wanted, now)
    }
}

/// The limiter of one socket.
#[derive(Debug)]
pub(super) struct SocketLimiter {
    bandwidth: Bandwidth,
    /// Granted bytes that may be written now.
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

    /// Returns the number of bytes that may be written now, [`usize::MAX`] without a limit. Calls `wanted`
    /// only with a limit.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, wanted: impl Fn() -> u64) -> Poll<usize> {
        while let Some(limit) = self.bandwidth.limit() {
            if self.granted > 0 {
                // A grant that was not used up continues, so that partial writes wait for no further one.
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
        // The limit was removed during the wait.
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

    /// Subtracts written bytes from the grant.
    pub(super) fn wrote(&mut self, len: usize) {
        // Without a limit more is written than was granted.
        self.granted = self.granted.saturating_sub(len as u64);
    }

    /// Returns the time of the next grant while writing is blocked.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.alarm.deadline())
    }
}

/// A number of bytes, and the time from which they may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WriteGrant {
    bytes: u64,
    at: Instant,
}

/// The generic cell rate algorithm (ITU-T I.371), whose whole state is one point in time.
#[derive(Debug, Default)]
struct Gcra {
    /// The time at which the limit has paid for all grants so far.
    theoretical_arrival: Option<Instant>,
}

impl Gcra {
    fn reserve(&mut self, limit: NonZeroU64, wanted: u64, now: Instant) -> WriteGrant {
        // A grant of no bytes would make `poll_ready` reserve again without end.
        let bytes = wanted.clamp(1, most_grant_bytes(limit));
        // An idle limit saves up at most `SLACK`, not a burst of its whole idle time.
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let begin = self.theoretical_arrival.map_or(now, |settled| settled.max(earliest));
        self.theoretical_arrival = Some(begin + time_for(bytes, limit));
        WriteGrant { bytes, at: begin.max(now) }
    }
}

/// Returns the most bytes of one grant: small enough for frequent turns, large enough for whole TCP segments.
fn most_grant_bytes(limit: NonZeroU64) -> u64 {
    let limit = limit.get();
    (limit / GRANTS_PER_SECOND).max(SEGMENT_BYTES.min(limit))
}

/// Returns the time that `bytes` take, rounded up, so that the limit holds to the byte. At most one second
/// for a grant.
fn time_for(bytes: u64, limit: NonZeroU64) -> Duration {
    let nanos = (u128::from(bytes) * NANOS_A_SECOND).div_ceil(u128::from(limit.get()));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const GRANTS_PER_SECOND: u64 = 32;

/// The delay of timers and the scheduler that does not cost throughput.
const SLACK: Duration = Duration::from_millis(60);

/// The TCP payload of an Ethernet frame (RFC 9293, section 3.7.1).
const SEGMENT_BYTES: u64 = 1460;

const NANOS_A_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests;
