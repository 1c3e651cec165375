use std::time::Duration;

use http::{HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};

use super::*;
use crate::transport::error::SentProgress;
use crate::transport::limits::ANSWER_LIMIT_BYTES;
use crate::transport::testing::{Frames, Peer, Server, WIRES, Wire, get, long_timeouts, pattern, post, run};
use crate::transport::{DialSettings, MinSpeed};

const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
const TOO_LARGE: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 12\r\n\r\nnot so much!";
const SHORT: Duration = Duration::from_millis(100);

/// More than the buffers of both ends hold.
const ENDLESS: usize = 24 << 20;

#[test]
fn requests_follow_each_other_on_one_connection() {
    for wire in WIRES {
        let body = pattern(3_000_000);
        let expected = body.clone();
        let server = Server::start(wire, move |server| {
            let mut peer = server.accept();
            for _ in 0..3 {
                let received = peer.read_request();
                assert!(received.head.starts_with("POST /videos/vi1/source HTTP/1.1\r\n"));
                assert!(received.head.contains("host: 127.0.0.1:"));
                assert!(received.body == expected);
                peer.answer(CREATED);
            }
            peer.drain();
        });
        run(async {
            let mut lane = server.lane().await;
            for _ in 0..3 {
                assert!(lane.is_open());
                let frames =
                    Frames::new([body.slice(..5), body.slice(5..1_000_000), body.slice(1_000_000..)]);
                let answer = lane.send(post(frames), &long_timeouts()).await.unwrap();
                assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::CREATED, &b"{}"[..]));
                assert_eq!(lane.sent().body_bytes(), body.len() as u64);
                assert!((80..300).contains(&lane.sent().head_bytes()), "{}", lane.sent().head_bytes());
            }
        });
    }
}

#[test]
fn a_request_without_a_body_and_an_answer_without_one_pass() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            for _ in 0..2 {
                peer.read_request();
                peer.answer("HTTP/1.1 204 No Content\r\n\r\n");
            }
            peer.drain();
        });
        run(async {
            let mut lane = server.lane().await;
            for _ in 0..2 {
                let answer = lane.send(get(), &long_timeouts()).await.unwrap();
                assert_eq!((answer.status(), answer.body().len()), (StatusCode::NO_CONTENT, 0));
                assert!(lane.is_open());
            }
        });
    }
}

#[cfg(feature = "uring")]
#[test]
fn a_lane_works_inside_a_ring_runtime() {
    let server = Server::start(Wire::Plain, |server| {
        let mut peer = server.accept();
        peer.read_request();
        peer.answer(CREATED);
        peer.drain();
    });
    if std::panic::catch_unwind(|| tokio_uring::start(async {})).is_err() {
        // This machine refuses rings: let the server end.
        return run(async { drop(server.lane().await.send(get(), &long_timeouts()).await) });
    }
    tokio_uring::start(async {
        let mut lane = server.lane().await;
        let answer = lane.send(post(Frames::new([pattern(1 << 20)])), &long_timeouts()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    Reads,
    StopsReading,
    ShutsDown,
    ClosesWithBytesUnread,
    Resets,
}

impl Afterwards {
    fn happen(self, mut peer: Peer) {
        match self {
            Afterwards::Reads => peer.drain(),
            Afterwards::StopsReading => peer.wait_unread(),
            Afterwards::ShutsDown => {
                peer.shut_down();
                peer.wait_unread();
            }
            Afterwards::ClosesWithBytesUnread => drop(peer),
            Afterwards::Resets => peer.reset(),
        }
    }
}

#[test]
fn an_early_refusal_is_returned_whatever_the_server_does_next() {
    use Afterwards::*;
    for (wire, then) in WIRES.into_iter().flat_map(|wire| {
        [Reads, StopsReading, ShutsDown, ClosesWithBytesUnread, Resets].map(|then| (wire, then))
    }) {
        for read_before in [0, 1, 100_000, 3_000_000] {
            let server = Server::start(wire, move |server| {
                let mut peer = server.accept();
                peer.read_head();
                peer.read_exactly(read_before);
                peer.answer(TOO_LARGE);
                then.happen(peer);
            });
            run(async {
                let mut lane = server.lane().await;
                let answer = lane.send(post(Frames::new([pattern(ENDLESS)])), &long_timeouts()).await;
                let answer =
                    answer.unwrap_or_else(|error| panic!("{wire:?} {then:?} {read_before}: {error}"));
                assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
                assert_eq!(answer.body(), "not so much!");
                // A server that reads on may receive everything before the client sees the answer.
                let sent_all = lane.sent().body_bytes() == ENDLESS as u64;
                assert!(!sent_all || then == Reads, "{wire:?} {then:?} {read_before}");
                assert!(!lane.is_open() || sent_all);
            });
        }
    }
}

#[test]
fn a_refusal_is_an_answer_even_when_its_body_breaks_off() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            peer.read_head();
            peer.answer("HTTP/1.1 401 Unauthorized\r\ncontent-length: 500\r\n\r\n{\"type\":");
        });
        run(async {
            let mut lane = server.lane().await;
            let answer = lane.send(post(Frames::new([pattern(ENDLESS)])), &long_timeouts()).await.unwrap();
            assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::UNAUTHORIZED, &b"{\"type\":"[..]));
        });
    }
}

#[test]
fn an_early_success_counts_only_once_the_whole_request_is_sent() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            peer.read_head();
            peer.answer(CREATED);
            peer.read_exactly(ENDLESS);
            let mut peer = server.accept();
            peer.read_head();
            peer.answer(CREATED);
        });
        run(async {
            let mut lane = server.lane().await;
            let answer = lane.send(post(Frames::new([pattern(ENDLESS)])), &long_timeouts()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
            assert_eq!(lane.sent().body_bytes(), ENDLESS as u64);
            let mut lane = server.lane().await;
            let error = lane.send(post(Frames::new([pattern(ENDLESS)])), &long_timeouts()).await.unwrap_err();
            let gone = matches!(error, TransportError::Reset { .. } | TransportError::Closed { .. });
            assert!(gone && !error.sent_all(), "{error:?}");
        });
    }
}

#[test]
fn an_end_made_while_the_lane_was_idle_is_seen_before_the_next_request() {
    for wire in WIRES {
        let (closed, is_closed) = std::sync::mpsc::channel();
        let server = Server::start(wire, move |server| {
            let mut peer = server.accept();
            peer.read_request();
            peer.answer(CREATED);
            peer.shut_down();
            closed.send(()).unwrap();
            peer.wait_unread();
        });
        run(async {
            let mut lane = server.lane().await;
            lane.send(get(), &long_timeouts()).await.unwrap();
            // Blocks the thread, so that the runtime has no turn in which to notice.
            is_closed.recv().unwrap();
            let error = lane.send(get(), &long_timeouts()).await.unwrap_err();
            assert!(
                matches!(error, TransportError::Closed { sent } if sent == SentProgress::default()),
                "{error:?}"
            );
            assert!(!lane.is_open());
        });
    }
}

#[test]
fn an_answer_that_asks_to_close_closes_the_lane() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            peer.read_request();
            peer.answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        });
        run(async {
            let mut lane = server.lane().await;
            assert_eq!(lane.send(get(), &long_timeouts()).await.unwrap().status(), StatusCode::OK);
            assert!(!lane.is_open());
        });
    }
}

#[test]
fn a_server_that_reads_nothing_is_a_stall() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            peer.read_head();
            peer.wait_unread();
        });
        run(async {
            let timeouts = Timeouts { stall: SHORT, ..long_timeouts() };
            let error = server.lane().await.send(post(Frames::new([pattern(ENDLESS)])), &timeouts).await;
            let error = error.unwrap_err();
            assert!(matches!(error, TransportError::Stalled { after: SHORT, .. }), "{error:?}");
            assert!(!error.sent_all() && error.sent().body_bytes > 0);
        });
    }
}

#[test]
fn a_server_that_reads_too_slowly_fails_the_request() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            peer.read_head();
            for _ in 0..10 {
                peer.read_exactly(1000);
                std::thread::sleep(SHORT / 5);
            }
            peer.wait_unread();
        });
        run(async {
            let min_speed = Some(MinSpeed { bytes_per_s: 1 << 40, window: SHORT });
            let timeouts = Timeouts { min_speed, ..long_timeouts() };
            let error = server.lane().await.send(post(Frames::new([pattern(ENDLESS)])), &timeouts).await;
            assert!(matches!(error, Err(TransportError::TooSlow { window: SHORT, .. })), "{error:?}");
        });
    }
}

#[test]
fn a_body_that_yields_nothing_is_not_reported_as_a_stall() {
    for wire in WIRES {
        let server = Server::start(wire, |server| server.accept().drain());
        run(async {
            let timeouts = Timeouts { body: SHORT, ..long_timeouts() };
            let body = Frames::new([pattern(1000)]).then_silence();
            let error = server.lane().await.send(post(body), &timeouts).await.unwrap_err();
            assert!(matches!(error, TransportError::BodyStalled { after: SHORT, .. }), "{error:?}");
            assert!(!error.sent_all());
        });
    }
}

#[test]
fn a_missing_answer_is_awaited_for_a_while_and_leaves_the_request_sent() {
    for wire in WIRES {
        for partial in ["", "HTTP/1.1 201 Created\r\n", "HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n{"]
        {
            let server = Server::start(wire, move |server| {
                let mut peer = server.accept();
                peer.read_request();
                peer.answer(partial);
                peer.drain();
            });
            run(async {
                let timeouts = Timeouts { answer: SHORT, ..long_timeouts() };
                let body = Frames::new([pattern(1_000_000)]);
                let error = server.lane().await.send(post(body), &timeouts).await.unwrap_err();
                assert!(matches!(error, TransportError::NoAnswer { after: SHORT, .. }), "{error:?}");
                assert_eq!(error.sent(), SentProgress { body_bytes: 1_000_000, whole: true });
            });
        }
    }
}

#[test]
fn an_answer_may_take_longer_than_a_stall() {
    let server = Server::start(Wire::Plain, |server| {
        let mut peer = server.accept();
        peer.read_request();
        std::thread::sleep(3 * SHORT);
        peer.answer(CREATED);
    });
    run(async {
        let timeouts = Timeouts { stall: SHORT, body: SHORT, ..long_timeouts() };
        let answer = server.lane().await.send(post(Frames::new([pattern(1000)])), &timeouts).await;
        assert_eq!(answer.unwrap().status(), StatusCode::CREATED);
    });
}

#[test]
fn a_close_after_the_whole_request_counts_as_possibly_stored() {
    for wire in WIRES {
        for reset in [false, true] {
            let server = Server::start(wire, move |server| {
                let mut peer = server.accept();
                peer.read_request();
                if reset {
                    peer.reset();
                }
            });
            run(async {
                let body = Frames::new([pattern(1_000_000)]);
                let error = server.lane().await.send(post(body), &long_timeouts()).await.unwrap_err();
                match error {
                    TransportError::Closed { .. } if !reset => {}
                    TransportError::Reset { .. } if reset => {}
                    other => panic!("{wire:?} {reset}: {other:?}"),
                }
                assert!(error.sent_all());
            });
        }
    }
}

#[test]
fn a_reset_at_any_byte_of_the_body_is_a_reset() {
    for wire in WIRES {
        for k in [0, 1, 100, 16_384, 1_000_000, 8_000_000] {
            let server = Server::start(wire, move |server| {
                let mut peer = server.accept();
                peer.read_head();
                peer.read_exactly(k);
                peer.reset();
            });
            run(async {
                let mut lane = server.lane().await;
                let error =
                    lane.send(post(Frames::new([pattern(ENDLESS)])), &long_timeouts()).await.unwrap_err();
                assert!(matches!(error, TransportError::Reset { .. }), "{wire:?} {k}: {error:?}");
                assert!(!error.sent_all() && error.sent().body_bytes >= k as u64);
                assert!(!lane.is_open());
            });
        }
    }
}

#[test]
fn answers_other_than_http_are_malformed() {
    for answer in [
        "SMTP ready\r\n\r\n",
        "HTTP/1.1 2x1 Created\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let server = Server::start(Wire::Plain, move |server| {
            let mut peer = server.accept();
            peer.read_request();
            peer.answer(answer);
            peer.drain();
        });
        run(async {
            let error = server.lane().await.send(get(), &long_timeouts()).await.unwrap_err();
            assert!(matches!(error, TransportError::Malformed { .. }), "{answer:?}: {error:?}");
            assert!(error.sent_all());
        });
    }
}

#[test]
fn another_protocol_than_http_is_final_until_the_endpoint_has_answered() {
    // A banner may come before the request, or in answer to it.
    for is_early in [true, false] {
        let server = Server::start(Wire::Plain, move |server| {
            for answer in ["SSH-2.0-x\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "SSH-2.0-x\r\n"] {
                let mut peer = server.accept();
                if !is_early || !answer.starts_with("SSH") {
                    peer.read_request();
                }
                peer.try_answer(answer);
                peer.drain();
            }
        });
        run(async {
            let dialer = server.dialer(Default::default());
            let send = async || {
                let mut lane = dialer.dial().await.unwrap();
                tokio::time::sleep(Duration::from_millis(if is_early { 50 } else { 0 })).await;
                lane.send(get(), &long_timeouts()).await
            };
            let error = send().await.unwrap_err();
            let is_final = |error: &TransportError| {
                matches!(error, TransportError::Malformed { wrong_protocol: true, .. })
            };
            assert!(is_final(&error) && error.to_string().contains("SSH"), "{error:?}");
            send().await.unwrap();
            let error = send().await.unwrap_err();
            assert!(!is_final(&error), "{error:?}");
        });
    }
}

#[test]
fn cookies_go_back_over_every_lane_of_the_dialer() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            assert!(!peer.read_request().head.contains("cookie"));
            peer.answer("HTTP/1.1 404 Not Found\r\nset-cookie: node=7; path=/\r\ncontent-length: 0\r\n\r\n");
            drop(peer);
            let mut peer = server.accept();
            assert!(peer.read_request().head.contains("\r\ncookie: node=7\r\n"));
            peer.answer("HTTP/1.1 204 No Content\r\n\r\n");
        });
        run(async {
            let dialer = server.dialer(Default::default());
            for status in [404, 204] {
                let answer = dialer.dial().await.unwrap().send(get(), &long_timeouts()).await.unwrap();
                assert_eq!(answer.status(), status);
            }
        });
    }
}

#[test]
fn many_header_lines_and_folded_ones_are_read() {
    let head = |lines: usize| {
        let fill: String = (0..lines).map(|i| format!("x-{i}: {i}\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\nx-folded: a\r\n  b\r\n{fill}content-length: 2\r\n\r\nhi")
    };
    for wire in WIRES {
        let server = Server::start(wire, move |server| {
            let mut peer = server.accept();
            for lines in [300, 600] {
                peer.read_request();
                peer.try_answer(&head(lines));
            }
            peer.drain();
        });
        run(async {
            let mut lane = server.lane().await;
            let answer = lane.send(get(), &long_timeouts()).await.unwrap();
            assert_eq!((answer.headers().len(), answer.body().as_ref()), (302, &b"hi"[..]));
            assert_eq!(answer.headers()["x-folded"].to_str().unwrap().replace("  ", " "), "a b");
            let error = lane.send(get(), &long_timeouts()).await.unwrap_err();
            assert!(matches!(error, TransportError::AnswerTooLarge { .. }), "{error:?}");
            assert!(error.to_string().contains("512 header lines"), "{error}");
        });
    }
}

#[test]
fn an_answer_that_breaks_off_is_no_success() {
    for wire in WIRES {
        let server = Server::start(wire, |server| {
            let mut peer = server.accept();
            peer.read_request();
            peer.answer("HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\n{\"a\"");
        });
        run(async {
            let error = server.lane().await.send(get(), &long_timeouts()).await.unwrap_err();
            assert!(matches!(error, TransportError::Closed { .. }), "{wire:?}: {error:?}");
        });
    }
}

#[test]
fn an_answer_beyond_the_limit_is_refused() {
    for (head, len) in [
        ("content-length: 1048577\r\n\r\n", ANSWER_LIMIT_BYTES + 1),
        ("\r\n", ANSWER_LIMIT_BYTES + 1),
        ("x-head: ", 1 << 20),
    ] {
        let server = Server::start(Wire::Plain, move |server| {
            let mut peer = server.accept();
            peer.read_request();
            // The client leaves in the middle.
            peer.try_answer(&format!("HTTP/1.1 200 OK\r\n{head}{}", "a".repeat(len)));
        });
        run(async {
            let error = server.lane().await.send(get(), &long_timeouts()).await.unwrap_err();
            assert!(matches!(error, TransportError::AnswerTooLarge { .. }), "{error:?}");
        });
    }
}

#[test]
fn an_answer_at_the_limit_passes() {
    let server = Server::start(Wire::Plain, |server| {
        let mut peer = server.accept();
        peer.read_request();
        peer.answer(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "a".repeat(ANSWER_LIMIT_BYTES)));
    });
    run(async {
        let answer = server.lane().await.send(get(), &long_timeouts()).await.unwrap();
        assert_eq!(answer.body().len(), ANSWER_LIMIT_BYTES);
    });
}

#[test]
fn the_error_of_a_body_comes_back_as_it_was() {
    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("disk on fire at {0}")]
    struct OnFire(u64);
    let server = Server::start(Wire::Plain, |server| server.accept().drain());
    run(async {
        let frames = [Ok(http_body::Frame::data(pattern(100_000))), Err(OnFire(7))];
        let body: UnsyncBoxBody<Bytes, OnFire> =
            StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let mut lane = server.dialer(DialSettings::default()).dial().await.unwrap();
        let error = lane.send(Request::post("/").body(body).unwrap(), &long_timeouts()).await.unwrap_err();
        let TransportError::Body(error) = error else { panic!("{error:?}") };
        assert_eq!(error.downcast_ref(), Some(&OnFire(7)));
    });
}

#[test]
fn a_body_of_another_length_than_announced_is_the_bodys_fault() {
    for (announced, body) in [
        ("0", Frames::new([pattern(1000)])),
        ("999", Frames::new([pattern(1000)])),
        ("1001", Frames::new([pattern(1000)])),
        ("999", Frames::new([pattern(500), pattern(500)]).of_unknown_length()),
        ("1001", Frames::new([pattern(500), pattern(500)]).of_unknown_length()),
    ] {
        let server = Server::start(Wire::Plain, |server| server.accept().drain());
        run(async {
            let mut request = post(body);
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(announced));
            let error = server.lane().await.send(request, &long_timeouts()).await.unwrap_err();
            assert!(matches!(error, TransportError::Body(_)) && !error.sent_all(), "{error:?}");
        });
    }
}

#[test]
fn a_body_of_unknown_length_goes_in_chunks() {
    let server = Server::start(Wire::Plain, |server| {
        let mut peer = server.accept();
        assert!(peer.read_head().contains("transfer-encoding: chunked\r\n"));
        assert_eq!(peer.read_exactly(2 * (3 + 2 + 500 + 2) - 2 + 5)[..8], *b"1F4\r\n\0\x01\x02");
        peer.answer(CREATED);
        peer.drain();
    });
    run(async {
        let body = Frames::new([pattern(500), pattern(500)]).of_unknown_length();
        let mut lane = server.lane().await;
        assert_eq!(lane.send(post(body), &long_timeouts()).await.unwrap().status(), StatusCode::CREATED);
        assert!(lane.is_open());
    });
}

#[test]
fn dropping_a_send_closes_the_connection_at_once() {
    for wire in WIRES {
        let server = Server::start(wire, |server| server.accept().drain());
        run(async {
            let mut lane = server.lane().await;
            let body = Frames::new([pattern(1000)]).then_silence();
            let timeouts = long_timeouts();
            let unfinished = lane.send(post(body), &timeouts);
            assert!(tokio::time::timeout(SHORT, unfinished).await.is_err());
            assert!(!lane.is_open());
            let error = lane.send(get(), &long_timeouts()).await.unwrap_err();
            assert!(matches!(error, TransportError::Closed { .. }), "{error:?}");
        });
    }
}
