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
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Budget {
    /// Bytes a second; none at 0.
    limit: AtomicU64,
    ledger: Mutex<Ledger>,
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
        self.budget.limit.store(limit.map_or(0, NonZeroU64::get), Ordering::Relaxed);
    }

    /// The limit in bytes a second; `None` where there is none.
    pub fn limit(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.budget.limit.load(Ordering::Relaxed))
    }

    fn reserve(&self, limit: NonZeroU64, wanted: u64, now: Instant) -> Share {
        self.budget.ledger.lock().unwrap_or_else(PoisonError::into_inner).reserve(limit, wanted, now)
    }
}

/// One socket's end of the budget.
#[derive(Debug)]
pub(super) struct Valve {
    bandwidth: Bandwidth,
    /// Bytes that may be written at once.
    open_for: u64,
    reserved: Option<Reserved>,
}

#[derive(Debug)]
struct Reserved {
    bytes: u64,
    alarm: Pin<Box<Sleep>>,
}

impl Valve {
    pub(super) fn new(bandwidth: Bandwidth) -> Valve {
        Valve { bandwidth, open_for: 0, reserved: None }
    }

    /// How many bytes may be written now, [`usize::MAX`] without a limit; `wanted` is asked only if there is one.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>, wanted: impl Fn() -> u64) -> Poll<usize> {
        while let Some(limit) = self.bandwidth.limit() {
            if self.open_for > 0 {
                return Poll::Ready(usize::try_from(self.open_for).unwrap_or(usize::MAX));
            }
            match &mut self.reserved {
                None => self.reserve(limit, wanted(), Instant::now()),
                Some(reserved) => {
                    ready!(reserved.alarm.as_mut().poll(cx));
                    self.open_for = reserved.bytes;
                    self.reserved = None;
                }
            }
        }
        self.reserved = None;
        Poll::Ready(usize::MAX)
    }

    fn reserve(&mut self, limit: NonZeroU64, wanted: u64, now: Instant) {
        let Share { bytes, at } = self.bandwidth.reserve(limit, wanted, now);
        if at <= now {
            self.open_for = bytes;
        } else {
            self.reserved = Some(Reserved { bytes, alarm: Box::pin(sleep_until(at)) });
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, len: usize) {
        self.open_for = self.open_for.saturating_sub(len as u64);
    }

    /// When it opens, while it is shut.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.reserved.as_ref().map(|reserved| reserved.alarm.deadline())
    }
}

/// Bytes, and when they may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    bytes: u64,
    at: Instant,
}

/// The generic cell rate algorithm (ITU-T I.371): a moment is all that has to be remembered.
#[derive(Debug, Default)]
struct Ledger {
    /// When the limit has made up for all that was reserved.
    settled_at: Option<Instant>,
}

impl Ledger {
    fn reserve(&mut self, limit: NonZeroU64, wanted: u64, now: Instant) -> Share {
        let bytes = wanted.clamp(1, share_bytes(limit));
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let begin = self.settled_at.map_or(now, |settled| settled.max(earliest));
        self.settled_at = Some(begin + time_for(bytes, limit));
        Share { bytes, at: begin.max(now) }
    }
}

/// What one reservation gets at most: small enough for turns to come often, large enough for whole segments.
fn share_bytes(limit: NonZeroU64) -> u64 {
    let limit = limit.get();
    (limit / SHARES_A_SECOND).max(SEGMENT_BYTES.min(limit))
}

/// Rounded up, so that the limit is kept to the byte. A share takes a second at most.
fn time_for(bytes: u64, limit: NonZeroU64) -> Duration {
    let nanos = (u128::from(bytes) * NANOS_A_SECOND).div_ceil(u128::from(limit.get()));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const SHARES_A_SECOND: u64 = 32;

/// Beside a share, what timers and the scheduler may be late without speed being lost.
const SLACK: Duration = Duration::from_millis(60);

/// What an Ethernet frame carries of a TCP stream (RFC 9293, section 3.7.1).
const SEGMENT_BYTES: u64 = 1460;

const NANOS_A_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Frames, Server, WIRES, Wire, patient, pattern, post, run};
    use super::super::{DialSettings, Lane, MinSpeed, Patience, TransportError};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";

    fn limit(bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn whatever_is_asked_and_when_the_limit_is_kept(
            limit_bytes in 1u64..10_000_000_000,
            asked in proptest::collection::vec((0u64..200_000_000, 0u64..100_000_000), 1..200),
        ) {
            let (limit, start) = (limit(limit_bytes), Instant::now());
            let (mut ledger, mut now, mut shares) = (Ledger::default(), start, Vec::new());
            for (pause_ns, wanted) in asked {
                now += Duration::from_nanos(pause_ns);
                let share = ledger.reserve(limit, wanted, now);
                prop_assert!(share.bytes >= 1 && share.bytes <= wanted.max(1) && share.at >= now);
                shares.push(share);
            }
            prop_assert!(shares.is_sorted_by_key(|share| share.at), "first come, first served");
            for first in 0..shares.len() {
                let mut bytes = 0;
                for share in &shares[first..] {
                    bytes += share.bytes;
                    let allowed = (share.at - shares[first].at + SLACK).as_nanos() * u128::from(limit_bytes)
                        / NANOS_A_SECOND + u128::from(share_bytes(limit));
                    prop_assert!(u128::from(bytes) <= allowed, "{bytes} bytes where {allowed} are allowed");
                }
            }
        }

        #[test]
        fn who_always_wants_more_gets_all_of_it_though_each_waking_is_late(
            limit_bytes in 10_000u64..1_000_000_000,
            late_ms in proptest::collection::vec(0u64..25, 200),
        ) {
            let (limit, start) = (limit(limit_bytes), Instant::now());
            let (mut ledger, mut now, mut bytes) = (Ledger::default(), start, 0);
            for late in &late_ms {
                let share = ledger.reserve(limit, u64::MAX, now);
                bytes += share.bytes;
                now = share.at + Duration::from_millis(*late);
            }
            let due = (now - start).as_secs_f64() * limit_bytes as f64;
            prop_assert!(bytes as f64 >= due * 0.99, "{bytes} of {due}");
        }
    }

    #[test]
    fn after_an_idle_hour_only_the_slack_is_made_up_for() {
        let (limit, start) = (limit(32_000), Instant::now());
        let mut ledger = Ledger::default();
        ledger.reserve(limit, 1, start);
        let later = start + 3600 * SECOND;
        let waits = |ledger: &mut Ledger| ledger.reserve(limit, u64::MAX, later).at - later;
        // 60 ms are 1920 bytes: one share of 1460 at once, and a third of another.
        assert_eq!(waits(&mut ledger), Duration::ZERO);
        assert_eq!(waits(&mut ledger), Duration::ZERO);
        assert_eq!(waits(&mut ledger), 2 * time_for(1460, limit) - SLACK);
    }

    #[test]
    fn a_share_never_takes_longer_than_a_second() {
        for bytes in [1, 100, 1460, 40_000, u64::MAX] {
            let limit = limit(bytes);
            assert!(share_bytes(limit) >= 1 && time_for(share_bytes(limit), limit) <= SECOND);
        }
    }

    /// Answers one request of each of `lanes` connections.
    fn server(wire: Wire, lanes: usize) -> Server {
        Server::start(wire, move |server| {
            std::thread::scope(|scope| {
                for _ in 0..lanes {
                    let mut peer = server.accept();
                    scope.spawn(move || {
                        peer.read_request();
                        peer.answer(CREATED);
                        peer.drain();
                    });
                }
            });
        })
    }

    async fn lane(server: &Server, bandwidth: &Bandwidth) -> Lane<Frames> {
        server.dialer(DialSettings::default()).limited_to(bandwidth.clone()).dial().await.unwrap()
    }

    #[test]
    fn all_lanes_together_keep_to_the_limit_and_none_of_them_starves() {
        for wire in WIRES {
            let server = server(wire, 4);
            run(async {
                let bandwidth = Bandwidth::bytes_per_second(limit(800_000));
                let mut lanes = Vec::new();
                for _ in 0..4 {
                    lanes.push(lane(&server, &bandwidth).await);
                }
                let begun = Instant::now();
                let sends = lanes.iter_mut().map(async |lane| {
                    lane.send(post(Frames::new([pattern(100_000)])), &patient()).await.unwrap();
                    begun.elapsed()
                });
                let ends = futures_util::future::join_all(sends).await;
                let (first, last) = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
                assert!(last >= SECOND * 2 / 5, "400 kB in {last:?}");
                assert!(first >= last / 2, "one lane had ended after {first:?}, the last after {last:?}");
            });
        }
    }

    #[test]
    fn the_limit_may_be_lifted_while_lanes_wait_for_it() {
        let server = server(Wire::Plain, 1);
        run(async {
            let bandwidth = Bandwidth::bytes_per_second(limit(20_000));
            let mut lane = lane(&server, &bandwidth).await;
            let lifted = async {
                tokio::time::sleep(SECOND / 5).await;
                bandwidth.set(None);
            };
            let patience = patient();
            // At the limit it would take a quarter of an hour.
            let sent = lane.send(post(Frames::new([pattern(20_000_000)])), &patience);
            let (_, answer) = tokio::join!(lifted, sent);
            answer.unwrap();
        });
    }

    #[test]
    fn patience_does_not_end_while_we_hold_the_bytes_back() {
        for wire in WIRES {
            let server = server(wire, 1);
            run(async {
                // A share every half second, and patience for a fifth of one.
                let mut lane = lane(&server, &Bandwidth::bytes_per_second(limit(2_920))).await;
                let min_speed = Some(MinSpeed { bytes_per_s: 1_000_000, window: SECOND / 10 });
                let patience = Patience { stall: SECOND / 5, min_speed, ..patient() };
                lane.send(post(Frames::new([pattern(4_000)])), &patience).await.unwrap();
            });
        }
    }

    #[test]
    fn a_peer_that_stalls_is_noticed_below_the_limit_too() {
        for wire in WIRES {
            let server = Server::start(wire, |server| {
                let mut peer = server.accept();
                peer.read_head();
                peer.wait_unread();
            });
            run(async {
                let mut lane = lane(&server, &Bandwidth::bytes_per_second(limit(1 << 30))).await;
                let patience = Patience { stall: SECOND / 2, ..patient() };
                let error = lane.send(post(Frames::new([pattern(24 << 20)])), &patience).await.unwrap_err();
                assert!(matches!(error, TransportError::Stalled { .. }), "{error:?}");
            });
        }
    }
}
