use proptest::prelude::*;

use super::*;
use crate::transport::testing::{Frames, Server, WIRES, Wire, long_timeouts, pattern, post, run};
use crate::transport::{DialSettings, Lane, MinSpeed, Timeouts, TransportError};

const SECOND: Duration = Duration::from_secs(1);
const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";

fn limit(bytes: u64) -> NonZeroU64 {
    NonZeroU64::new(bytes).unwrap()
}

proptest! {
    #[test]
    fn the_limit_holds_for_any_sequence_of_requests(
        limit_bytes in 1u64..10_000_000_000,
        asked in proptest::collection::vec((0u64..200_000_000, 0u64..100_000_000), 1..200),
    ) {
        let (limit, start) = (limit(limit_bytes), Instant::now());
        let (mut gcra, mut now, mut grants) = (Gcra::default(), start, Vec::new());
        for (pause_ns, wanted) in asked {
            now += Duration::from_nanos(pause_ns);
            let grant = gcra.reserve(limit, wanted, now);
            prop_assert!(grant.bytes >= 1 && grant.bytes <= wanted.max(1) && grant.at >= now);
            grants.push(grant);
        }
        prop_assert!(grants.is_sorted_by_key(|grant| grant.at), "first come, first served");
        for first in 0..grants.len() {
            let mut bytes = 0;
            for grant in &grants[first..] {
                bytes += grant.bytes;
                let allowed = (grant.at - grants[first].at + SLACK).as_nanos() * u128::from(limit_bytes)
                    / NANOS_A_SECOND + u128::from(most_grant_bytes(limit));
                prop_assert!(u128::from(bytes) <= allowed, "{bytes} bytes where {allowed} are allowed");
            }
        }
    }

    #[test]
    fn a_busy_socket_gets_the_full_rate_with_late_timers(
        limit_bytes in 10_000u64..1_000_000_000,
        late_ms in proptest::collection::vec(0u64..25, 200),
    ) {
        let (limit, start) = (limit(limit_bytes), Instant::now());
        let (mut gcra, mut now, mut bytes) = (Gcra::default(), start, 0);
        for late in &late_ms {
            let grant = gcra.reserve(limit, u64::MAX, now);
            bytes += grant.bytes;
            now = grant.at + Duration::from_millis(*late);
        }
        let due = (now - start).as_secs_f64() * limit_bytes as f64;
        prop_assert!(bytes as f64 >= due * 0.99, "{bytes} of {due}");
    }
}

#[test]
fn after_an_idle_hour_only_the_slack_is_made_up_for() {
    let (limit, start) = (limit(32_000), Instant::now());
    let mut gcra = Gcra::default();
    gcra.reserve(limit, 1, start);
    let later = start + 3600 * SECOND;
    let waits = |gcra: &mut Gcra| gcra.reserve(limit, u64::MAX, later).at - later;
    // 60 ms are 1920 bytes: one share of 1460 at once, and a third of another.
    assert_eq!(waits(&mut gcra), Duration::ZERO);
    assert_eq!(waits(&mut gcra), Duration::ZERO);
    assert_eq!(waits(&mut gcra), 2 * time_for(1460, limit) - SLACK);
}

#[test]
fn a_share_never_takes_longer_than_a_second() {
    for bytes in [1, 100, 1460, 40_000, u64::MAX] {
        let limit = limit(bytes);
        assert!(most_grant_bytes(limit) >= 1 && time_for(most_grant_bytes(limit), limit) <= SECOND);
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
    server.dialer(DialSettings::default()).with_bandwidth(bandwidth.clone()).dial().await.unwrap()
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
                lane.send(post(Frames::new([pattern(100_000)])), &long_timeouts()).await.unwrap();
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
        let timeouts = long_timeouts();
        // At the limit it would take a quarter of an hour.
        let sent = lane.send(post(Frames::new([pattern(20_000_000)])), &timeouts);
        let (_, answer) = tokio::join!(lifted, sent);
        answer.unwrap();
    });
}

#[test]
fn timeouts_do_not_expire_under_a_bandwidth_limit() {
    for wire in WIRES {
        let server = server(wire, 1);
        run(async {
            // A share every half second, and patience for a fifth of one.
            let mut lane = lane(&server, &Bandwidth::bytes_per_second(limit(2_920))).await;
            let min_speed = Some(MinSpeed { bytes_per_s: 1_000_000, window: SECOND / 10 });
            let timeouts = Timeouts { stall: SECOND / 5, min_speed, ..long_timeouts() };
            lane.send(post(Frames::new([pattern(4_000)])), &timeouts).await.unwrap();
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
            let timeouts = Timeouts { stall: SECOND / 2, ..long_timeouts() };
            let error = lane.send(post(Frames::new([pattern(24 << 20)])), &timeouts).await.unwrap_err();
            assert!(matches!(error, TransportError::Stalled { .. }), "{error:?}");
        });
    }
}
