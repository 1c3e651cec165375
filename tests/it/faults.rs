//! Faults between the client and the service, and their effect on the upload.
//!
//! Every test sends real bytes over real sockets to a server that injects faults. All tests check that the file is
//! complete or the error gives the reason, that one video is created and named, that no stored chunk is sent again,
//! and that retries end.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::server::{
    ConnectionEnd, Fault, FaultAction, Limits, RefusalTiming, RequestBudget, RouteClass, TlsMode,
};
use ringlift::transport::{MinSpeed, Timeouts};
use ringlift::wire::Envelope;
use ringlift::{
    ChunkSize, Client, Credentials, Error, ErrorKind, Mode, Reader, Running, Secret, Upload, Uploaded,
};

use crate::support::command::Restriction;
use crate::support::relay::Relay;
use crate::support::way::{CHUNK, Way};
use crate::support::{MIB, Sample, Scheme, StoppedServer, TestServer, each_in_parallel};

const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https];

/// Uploads `sample` with a client with short pauses, and asserts that it is stored.
fn upload_successfully(test_server: &TestServer, way: Way, sample: &Sample) -> Uploaded {
    let client = test_server.short_pause_client().with(|settings| {
        // Only the end of the ingestion shows that a single request was stored.
        settings.retry.grace *= if way == Way::Single { 20 } else { 1 };
    });
    let client = client.build().unwrap();
    let uploaded = way.upload(test_server, &client, sample).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    uploaded
}

/// Uploads a file of four chunks with a client with short pauses, and returns the error.
fn upload_and_fail(test_server: &TestServer, way: Way) -> Error {
    let client = test_server.short_pause_client().build().unwrap();
    way.upload(test_server, &client, &way.sample(4)).send_blocking().unwrap_err()
}

fn start(upload: Upload) -> Running {
    pollster::block_on(upload.start()).unwrap()
}

/// Waits until the progress of an upload satisfies `is_there`.
fn wait_until(running: &Running, is_there: impl Fn(&ringlift::Progress) -> bool) {
    let begun = Instant::now();
    while !is_there(&running.current()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", running.current());
        sleep(Duration::from_millis(5));
    }
}

fn refusal(status: u16, slug: Option<&str>, timing: RefusalTiming) -> FaultAction {
    FaultAction::Refuse { status, slug: slug.map(str::to_owned), timing }
}

// Connections that break.

/// Offsets in a request's body: in the envelope, at an edge, in the file, in the closing boundary.
fn break_offsets(chunk_bytes: u64) -> [u64; 8] {
    let envelope = Envelope::new(&"b".repeat(41), "movie.mp4", None);
    let (head, whole) = (envelope.head().len() as u64, envelope.content_length(chunk_bytes));
    [0, 1, head / 2, head + 1, 16 << 10, head + chunk_bytes / 2, head + chunk_bytes - 1, whole - 3]
}

#[test]
fn a_chunk_is_sent_again_if_its_connection_breaks_at_any_byte() {
    each_in_parallel(
        [
            (Scheme::Http, Way::Bytes),
            (Scheme::Http, Way::DelegatedParts),
            (Scheme::Https, Way::Parts),
            (Scheme::Https, Way::DelegatedBytes),
        ],
        |(scheme, way)| {
            let break_offsets = break_offsets(CHUNK);
            let cut = |(index, &after_bytes): (usize, &u64)| {
                let how = if index % 2 == 0 { ConnectionEnd::Reset } else { ConnectionEnd::Close };
                way.fault(index as u32, FaultAction::Cut { after_bytes, how })
            };
            let test_server = TestServer::faulty(scheme, break_offsets.iter().enumerate().map(cut).collect());
            let sample = way.sample(break_offsets.len() as u64 + 1);
            let uploaded = upload_successfully(&test_server, way, &sample);
            assert_eq!(uploaded.retries, break_offsets.len() as u32, "{scheme:?} {way:?}");
            assert_eq!(uploaded.resent_bytes, break_offsets.len() as u64 * CHUNK);
            assert_eq!(test_server.chunk_requests().len(), 2 * break_offsets.len() + 1);
            test_server.assert_created(1);
            test_server.assert_nothing_was_sent_twice();
        },
    );
}

#[test]
fn a_single_request_that_breaks_at_any_byte_is_sent_again() {
    each_in_parallel(SCHEMES, |scheme| {
        let break_offsets = [0, 1, 16 << 10, CHUNK / 2];
        let cut =
            |after_bytes| Way::Single.fault(0, FaultAction::Cut { after_bytes, how: ConnectionEnd::Reset });
        let test_server = TestServer::faulty(scheme, break_offsets.map(cut).into());
        let uploaded = upload_successfully(&test_server, Way::Single, &Way::Single.sample(1));
        assert_eq!(uploaded.retries as usize, break_offsets.len());
        test_server.assert_created(1);
    });
}

// Lost answers.

#[test]
fn a_stored_chunk_with_a_lost_answer_is_not_sent_again() {
    each_in_parallel(
        [
            (Scheme::Http, Way::Bytes),
            (Scheme::Https, Way::Bytes),
            (Scheme::Https, Way::Parts),
            (Scheme::Http, Way::Single),
        ],
        |(scheme, way)| {
            let test_server =
                TestServer::faulty(scheme, vec![way.fault(0, FaultAction::CloseAfterRecording)]);
            let sample = way.sample(4);
            let uploaded = upload_successfully(&test_server, way, &sample);
            assert_eq!((uploaded.retries, uploaded.resent_bytes), (0, 0), "{scheme:?} {way:?}");
            assert_eq!(test_server.chunk_requests().len() as u32, uploaded.chunks);
            test_server.assert_created(1);
        },
    );
}

#[test]
fn a_missing_chunk_is_sent_again_after_two_status_requests() {
    each_in_parallel(
        [(Scheme::Http, Way::Bytes), (Scheme::Https, Way::Parts), (Scheme::Http, Way::Single)],
        |(scheme, way)| {
            let test_server =
                TestServer::faulty(scheme, vec![way.fault(0, FaultAction::CloseBeforeRecording)]);
            let sample = way.sample(4);
            let uploaded = upload_successfully(&test_server, way, &sample);
            assert_eq!(uploaded.retries, 1, "{scheme:?} {way:?}");
            assert!(test_server.server.stats().requests[&RouteClass::Status] >= 2);
            test_server.assert_created(1);
            test_server.assert_nothing_was_sent_twice();
        },
    );
}

#[test]
fn without_a_key_an_uncertain_chunk_is_sent_again_and_already_sent_counts_as_stored() {
    for (scheme, way) in [(Scheme::Http, Way::DelegatedParts), (Scheme::Https, Way::DelegatedBytes)] {
        let lost = [FaultAction::CloseAfterRecording, FaultAction::TruncatedAnswer, FaultAction::HtmlAnswer];
        let faults = (1..).zip(lost).map(|(index, action)| way.fault(index, action)).collect();
        let test_server = TestServer::faulty(scheme, faults);
        let sample = way.sample(5);
        let uploaded = upload_successfully(&test_server, way, &sample);
        assert_eq!(uploaded.retries, 3, "{scheme:?} {way:?}");
        let tally = test_server.server.stats();
        assert_eq!(tally.refused.values().sum::<u64>(), 3, "{:?}", tally.refused);
        assert!(tally.refused.keys().all(|slug| slug.contains("already") || slug.contains("overlap")));
        test_server.assert_created(1);
    }
}

#[test]
fn the_last_chunk_of_a_delegated_upload_may_lose_its_answer_too() {
    for way in [Way::DelegatedParts, Way::DelegatedBytes] {
        let test_server =
            TestServer::faulty(Scheme::Http, vec![way.fault(3, FaultAction::CloseAfterRecording)]);
        let client = test_server.short_pause_client().lanes(1).build().unwrap();
        let sample = way.sample(4);
        let uploaded = way.upload(&test_server, &client, &sample).send_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(uploaded.retries, 1, "{way:?}");
        assert_eq!(test_server.server.stats().refused["video-source-already-uploaded"], 1);
        test_server.assert_created(1);
    }
}

/// The service has created a video that the client cannot find, because a token cannot list videos.
#[test]
fn a_lost_first_answer_of_a_delegated_upload_creates_a_second_video() {
    let way = Way::DelegatedBytes;
    let test_server = TestServer::faulty(Scheme::Http, vec![way.fault(0, FaultAction::CloseAfterRecording)]);
    upload_successfully(&test_server, way, &way.sample(4));
    test_server.assert_created(2);
}

#[test]
fn a_video_with_a_lost_creation_answer_is_found_and_not_created_again() {
    for action in [FaultAction::CloseAfterRecording, FaultAction::TruncatedAnswer, FaultAction::HtmlAnswer] {
        let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Create, action)]);
        upload_successfully(&test_server, Way::Bytes, &Way::Bytes.sample(2));
        test_server.assert_created(1);
    }
}

#[test]
fn a_lost_creation_request_is_repeated_once() {
    let cut = FaultAction::Cut { after_bytes: 0, how: ConnectionEnd::Reset };
    for action in [cut, FaultAction::CloseBeforeRecording, FaultAction::unavailable()] {
        let test_server = TestServer::faulty(Scheme::Https, vec![Fault::new(RouteClass::Create, action)]);
        upload_successfully(&test_server, Way::Parts, &Way::Parts.sample(2));
        test_server.assert_created(1);
    }
}

#[test]
fn a_failed_status_request_is_repeated() {
    let way = Way::Bytes;
    let faults = vec![
        way.fault(1, FaultAction::CloseAfterRecording),
        Fault::new(RouteClass::Status, FaultAction::unavailable()),
        Fault::new(RouteClass::Status, FaultAction::HtmlAnswer),
        Fault::new(RouteClass::Status, FaultAction::TruncatedAnswer),
    ];
    let test_server = TestServer::faulty(Scheme::Http, faults);
    let uploaded = upload_successfully(&test_server, way, &way.sample(3));
    assert_eq!(uploaded.retries, 0);
    assert_eq!(test_server.chunk_requests().len(), 3);
    test_server.assert_created(1);
}

// Refusals before the body is read.

#[test]
fn an_early_refusal_is_reported_and_not_the_broken_pipe_that_follows() {
    let cases = [
        (401, None, ErrorKind::NotAuthorized),
        (403, None, ErrorKind::NotAuthorized),
        (404, None, ErrorKind::NotFound),
        (413, None, ErrorKind::Refused),
        (400, Some("video-content-range-malformed"), ErrorKind::Refused),
    ];
    each_in_parallel(SCHEMES, |scheme| {
        for timing in [RefusalTiming::Early, RefusalTiming::EarlyClose, RefusalTiming::AfterBody] {
            for (status, slug, kind) in cases {
                let way = Way::Bytes;
                // The fault repeats without end, because the client retries a proxy's answer and an unknown video.
                let fault = way.fault(1, refusal(status, slug, timing)).times(0);
                let test_server = TestServer::faulty(scheme, vec![fault]);
                let error = upload_and_fail(&test_server, way);
                let tries = if matches!(status, 404 | 413) { 11 } else { 1 };
                let case = format!("{scheme:?} {timing:?} {status}: {error:?}");
                assert_eq!(error.kind(), kind, "{case}");
                assert_eq!(error.refusal().unwrap().status, status, "{case}");
                assert!(error.advice().is_some(), "{case}");
                assert!(error.video_id().is_some(), "{case}");
                assert!(test_server.chunk_requests().len() <= 3 + tries, "{case}");
                test_server.assert_created(1);
            }
        }
    });
}

#[test]
fn a_request_too_large_for_a_proxy_suggests_smaller_chunks() {
    for scheme in SCHEMES {
        let fault = Fault::new(RouteClass::Chunk, refusal(413, None, RefusalTiming::EarlyClose)).times(0);
        let error = upload_and_fail(&TestServer::faulty(scheme, vec![fault]), Way::Single);
        assert!(error.advice().unwrap().contains("smaller chunk size"), "{error:?}");
    }
}

#[test]
fn an_early_server_failure_is_retried() {
    each_in_parallel(SCHEMES, |scheme| {
        for timing in [RefusalTiming::Early, RefusalTiming::EarlyClose] {
            let way = Way::Parts;
            let faults =
                vec![way.fault(0, refusal(503, None, timing)), way.fault(2, refusal(500, None, timing))];
            let test_server = TestServer::faulty(scheme, faults);
            let uploaded = upload_successfully(&test_server, way, &way.sample(4));
            assert_eq!(uploaded.retries, 2, "{scheme:?} {timing:?}");
            test_server.assert_created(1);
            test_server.assert_nothing_was_sent_twice();
        }
    });
}

// Failures and throttling by the service.

#[test]
fn a_burst_of_failures_reduces_requests_until_the_service_recovers() {
    each_in_parallel([Way::Bytes, Way::DelegatedParts], |way| {
        let test_server = TestServer::faulty(
            Scheme::Http,
            vec![Fault::new(RouteClass::Chunk, FaultAction::unavailable()).times(7)],
        );
        let uploaded = upload_successfully(&test_server, way, &way.sample(4));
        assert_eq!(uploaded.retries, 7, "{way:?}");
        assert_eq!(test_server.chunk_requests().len(), 4 + 7);
        test_server.assert_created(1);
        test_server.assert_nothing_was_sent_twice();
    });
}

#[test]
fn a_permanent_service_failure_ends_the_upload_after_the_retries() {
    each_in_parallel([(Way::Bytes, Scheme::Http), (Way::Single, Scheme::Https)], |(way, scheme)| {
        let test_server = TestServer::faulty(
            scheme,
            vec![Fault::new(RouteClass::Chunk, FaultAction::unavailable()).times(0)],
        );
        let client =
            test_server.short_pause_client().with(|settings| settings.retry.retries = 2).build().unwrap();
        let error = way.upload(&test_server, &client, &way.sample(2)).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(error.refusal().unwrap().status, 503);
        assert!(error.to_string().contains("after 3 attempts"), "{error}");
        assert!(error.is_temporary() && error.video_id().is_some());
        assert!(test_server.chunk_requests().len() <= 6);
        test_server.assert_created(1);
    });
}

#[test]
fn a_permanent_service_failure_ends_the_upload_after_the_retry_time() {
    let test_server = TestServer::faulty(
        Scheme::Http,
        vec![Fault::new(RouteClass::Chunk, FaultAction::unavailable()).times(0)],
    );
    let hurried = test_server.short_pause_client().with(|settings| {
        settings.retry.retries = 1_000_000;
        settings.retry.max_time = Duration::from_millis(700);
    });
    let client = hurried.build().unwrap();
    let error = Way::Bytes.upload(&test_server, &client, &Way::Bytes.sample(2)).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(test_server.chunk_requests().len() < 50);
}

#[test]
fn throttling_delays_requests_and_is_not_a_failure() {
    each_in_parallel([RefusalTiming::AfterBody, RefusalTiming::EarlyClose], |timing| {
        let throttle = |s| {
            Fault::new(RouteClass::Chunk, FaultAction::TooManyRequests { retry_after_s: Some(s), timing })
        };
        let test_server = TestServer::faulty(Scheme::Https, vec![throttle(1), throttle(0)]);
        // No retry is allowed.
        let client =
            test_server.short_pause_client().with(|settings| settings.retry.retries = 0).build().unwrap();
        let sample = Way::Bytes.sample(4);
        let begun = Instant::now();
        let uploaded = Way::Bytes.upload(&test_server, &client, &sample).send_blocking().unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1));
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(test_server.chunk_requests().len(), 4 + 2);
        test_server.assert_created(1);
    });
}

#[test]
fn api_calls_wait_for_the_end_of_throttling() {
    let slow_down = FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::AfterBody };
    let faults = vec![
        Fault::new(RouteClass::Create, slow_down.clone()),
        Way::Parts.fault(1, FaultAction::CloseAfterRecording),
        Fault::new(RouteClass::Status, slow_down),
    ];
    let test_server = TestServer::faulty(Scheme::Http, faults);
    let uploaded = upload_successfully(&test_server, Way::Parts, &Way::Parts.sample(3));
    assert_eq!(uploaded.retries, 0);
    test_server.assert_created(1);
}

#[test]
fn a_throttle_longer_than_the_retry_time_is_an_error_with_its_length() {
    let a_day =
        FaultAction::TooManyRequests { retry_after_s: Some(86_400), timing: RefusalTiming::AfterBody };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, a_day).times(0)]);
    let error = upload_and_fail(&test_server, Way::Bytes);
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(86_400)));
    assert!(error.video_id().is_some());
    assert!(test_server.chunk_requests().len() <= 3);
}

#[test]
#[ignore = "takes as long as the pause that is assumed where none is said: half a minute"]
fn a_throttle_without_a_duration_is_retried() {
    let throttle = FaultAction::TooManyRequests { retry_after_s: None, timing: RefusalTiming::AfterBody };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, throttle)]);
    upload_successfully(&test_server, Way::Bytes, &Way::Bytes.sample(3));
    assert_eq!(test_server.chunk_requests().len(), 4);
}

#[test]
fn requests_of_another_host_reduce_the_budget() {
    let window = Duration::from_secs(3);
    let budget = RequestBudget { uploads: 8, writes: 100, reads: 100, window };
    let test_server = TestServer::with(Scheme::Http, |settings| settings.limits = Limits::Custom(budget));
    let one_lane = || test_server.short_pause_client().lanes(1).build().unwrap();
    let (other, ours) = (Way::Parts.sample(5), Way::Bytes.sample(6));
    Way::Parts.upload(&test_server, &one_lane(), &other).send_blocking().unwrap();
    let uploaded = Way::Bytes.upload(&test_server, &one_lane(), &ours).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &ours.path());
    assert_eq!(test_server.server.stats().refused.len(), 0, "{:?}", test_server.server.stats().refused);
}

// Slow servers.

/// A chunk that is larger than every socket buffer.
const LONG_CHUNK: u64 = 32 * MIB;

fn client_with_timeouts(test_server: &TestServer, change: impl FnOnce(&mut Timeouts)) -> Client {
    test_server.short_pause_client().with(|settings| change(&mut settings.patience)).build().unwrap()
}

#[test]
fn a_server_that_stops_reading_gets_a_new_connection() {
    each_in_parallel(SCHEMES, |scheme| {
        let stop = FaultAction::StallReading { after_bytes: MIB, for_ms: 30_000 };
        let test_server = TestServer::faulty(scheme, vec![Fault::new(RouteClass::Chunk, stop)]);
        let client =
            client_with_timeouts(&test_server, |patience| patience.stall = Duration::from_millis(700));
        let sample = Sample::new(LONG_CHUNK);
        let uploaded = client.upload(sample.path()).mode(Mode::Single).send_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(uploaded.retries, 1, "{scheme:?}");
        test_server.assert_created(1);
    });
}

#[test]
fn a_server_that_never_reads_fails_the_upload_after_the_retries() {
    let stop = FaultAction::StallReading { after_bytes: MIB, for_ms: 30_000 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, stop).times(0)]);
    let hurried = test_server.short_pause_client().with(|settings| {
        settings.patience.stall = Duration::from_millis(300);
        settings.retry.retries = 1;
    });
    let sample = Sample::new(LONG_CHUNK);
    let error =
        hurried.build().unwrap().upload(sample.path()).mode(Mode::Single).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stalled, "{error:?}");
    assert_eq!(test_server.chunk_requests().len(), 2);
}

#[test]
fn a_server_that_reads_too_slowly_gets_a_new_connection() {
    let slow = FaultAction::Throttle { bytes_per_second: 64 << 10 };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Chunk, slow)]);
    let client = client_with_timeouts(&test_server, |patience| {
        patience.min_speed = Some(MinSpeed { bytes_per_s: MIB, window: Duration::from_secs(1) });
    });
    let sample = Sample::new(LONG_CHUNK);
    let uploaded = client.upload(sample.path()).mode(Mode::Single).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    assert!(uploaded.retries >= 1);
}

#[test]
fn the_client_waits_for_a_slow_answer_and_sends_nothing_else() {
    each_in_parallel(Way::ALL, |way| {
        let fault = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 300 }).times(0);
        let test_server = TestServer::faulty(Scheme::Http, vec![fault]);
        let uploaded = upload_successfully(&test_server, way, &way.sample(3));
        assert_eq!(uploaded.retries, 0, "{way:?}");
        assert_eq!(test_server.chunk_requests().len() as u32, uploaded.chunks);
        test_server.assert_created(1);
    });
}

#[test]
fn a_missing_answer_leads_to_a_status_request() {
    each_in_parallel(
        [(Scheme::Http, Way::Bytes), (Scheme::Https, Way::Parts), (Scheme::Http, Way::Single)],
        |(scheme, way)| {
            let test_server = TestServer::faulty(
                scheme,
                vec![way.fault(0, FaultAction::StallAnswering { for_ms: 60_000 })],
            );
            let client =
                client_with_timeouts(&test_server, |patience| patience.answer = Duration::from_secs(2));
            let sample = way.sample(3);
            let uploaded = way.upload(&test_server, &client, &sample).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!(uploaded.retries, 0, "{scheme:?} {way:?}");
            test_server.assert_nothing_was_sent_twice();
            test_server.assert_created(1);
        },
    );
}

// Answers that violate the protocol.

#[test]
fn an_unreadable_answer_leads_to_a_status_request() {
    each_in_parallel(SCHEMES, |scheme| {
        for way in [Way::Bytes, Way::Parts, Way::Single] {
            let spoilt =
                [FaultAction::TruncatedAnswer, FaultAction::MalformedAnswer, FaultAction::HtmlAnswer];
            let last = if way == Way::Single { 1 } else { 3 };
            let faults = (0..last).zip(spoilt).map(|(index, action)| way.fault(index, action)).collect();
            let test_server = TestServer::faulty(scheme, faults);
            let uploaded = upload_successfully(&test_server, way, &way.sample(3));
            assert_eq!(uploaded.retries, 0, "{scheme:?} {way:?}");
            assert!(test_server.server.stats().requests[&RouteClass::Status] >= 1);
            test_server.assert_nothing_was_sent_twice();
            test_server.assert_created(1);
        }
    });
}

#[test]
fn permanently_unreadable_answers_end_the_upload() {
    let spoilt = |class| Fault::new(class, FaultAction::HtmlAnswer).times(0);
    let test_server =
        TestServer::faulty(Scheme::Http, vec![spoilt(RouteClass::Chunk), spoilt(RouteClass::Status)]);
    let client =
        test_server.short_pause_client().with(|settings| settings.retry.retries = 2).build().unwrap();
    let error = Way::Bytes.upload(&test_server, &client, &Way::Bytes.sample(2)).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MalformedAnswer, "{error:?}");
    assert!(error.to_string().contains("Sign in"), "{error}");
    assert!(error.advice().unwrap().contains("proxy"));
    assert!(error.video_id().is_some());
}

#[test]
fn an_answer_about_another_video_ends_the_upload() {
    for way in Way::CHUNKED {
        let test_server = TestServer::faulty(Scheme::Https, vec![way.fault(1, FaultAction::OtherVideoId)]);
        let error = upload_and_fail(&test_server, way);
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{way:?} {error:?}");
        assert!(error.to_string().contains("vi0000000000000000000000"), "{error}");
        assert!(error.video_id().is_some_and(|id| id != "vi0000000000000000000000"));
        test_server.assert_created(1);
    }
}

#[test]
fn a_container_filled_with_another_length_fails_the_upload() {
    let faults = vec![
        Fault::new(RouteClass::Chunk, FaultAction::CloseBeforeRecording),
        Fault::new(RouteClass::Status, FaultAction::StallAnswering { for_ms: 1500 }),
    ];
    let test_server = TestServer::faulty(Scheme::Http, faults);
    let client = test_server.short_pause_client().lanes(1).build().unwrap();
    let sample = Way::Single.sample(1);
    let running = start(Way::Single.upload(&test_server, &client, &sample));
    wait_until(&running, |progress| progress.video_id.is_some());
    let video_id = running.current().video_id.unwrap();
    while !test_server.server.stats().requests.contains_key(&RouteClass::Status) {
        sleep(Duration::from_millis(5));
    }
    let other = Sample::new(MIB);
    let stranger = test_server.short_pause_client().build().unwrap();
    stranger.upload(other.path()).video_id(&video_id).send_blocking().unwrap();
    let error = running.join_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    assert!(error.to_string().contains(&MIB.to_string()), "{error}");
}

#[test]
fn interim_answers_are_ignored_and_never_requested() {
    let interims = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ];
    each_in_parallel(interims, |interim| {
        for way in Way::ALL {
            let test_server = TestServer::new(Scheme::Http);
            let relay = Relay::start(test_server.server.addr(), interim);
            let client = test_server.short_pause_client().endpoint_url(relay.url()).build().unwrap();
            let sample = way.sample(3);
            let uploaded = way.upload(&test_server, &client, &sample).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!(uploaded.retries, 0, "{interim} {way:?}");
            let heads = relay.heads();
            assert!(heads.contains("content-length:") && !heads.contains("expect:"), "{heads}");
        }
    });
}

#[test]
fn an_expectation_that_failed_is_reported_as_it_is() {
    for timing in [RefusalTiming::Early, RefusalTiming::AfterBody] {
        let test_server =
            TestServer::faulty(Scheme::Http, vec![Way::Bytes.fault(1, refusal(417, None, timing))]);
        let error = upload_and_fail(&test_server, Way::Bytes);
        assert_eq!((error.kind(), error.refusal().unwrap().status), (ErrorKind::Refused, 417), "{error:?}");
        assert!(error.to_string().contains("417") && error.video_id().is_some(), "{error}");
        assert!(test_server.chunk_requests().len() <= 4);
    }
}

// Containers that cannot be filled.

#[test]
fn an_unknown_container_is_an_error_at_once() {
    for scheme in SCHEMES {
        let test_server = TestServer::new(scheme);
        let client = test_server.short_pause_client().build().unwrap();
        let sample = Way::Bytes.sample(4);
        let error = Way::Bytes
            .upload(&test_server, &client, &sample)
            .video_id("viNowhere")
            .send_blocking()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert_eq!(error.video_id(), None, "it was not made here");
        assert!(test_server.chunk_requests().len() <= 3);
        test_server.assert_created(0);
    }
}

#[test]
fn a_container_that_is_full_is_an_error_at_once() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.short_pause_client().build().unwrap();
    let first = upload_successfully(&test_server, Way::Single, &Way::Single.sample(1));
    for way in [Way::Bytes, Way::Parts, Way::Single] {
        let sample = way.sample(4);
        let upload = way.upload(&test_server, &client, &sample).video_id(&first.video_id);
        let error = upload.send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyFilled, "{way:?} {error:?}");
        assert!(error.advice().unwrap().contains("new video"));
    }
    assert!(test_server.chunk_requests().len() <= 1 + 3 * 3, "no lane tried twice");
    test_server.assert_created(1);
}

#[test]
fn a_container_that_is_deleted_during_the_upload_is_an_error() {
    let test_server = TestServer::faulty(
        Scheme::Https,
        vec![Way::Bytes.fault(1, FaultAction::StallAnswering { for_ms: 1500 })],
    );
    let client = test_server.short_pause_client().lanes(1).build().unwrap();
    let sample = Way::Bytes.sample(4);
    let running = start(Way::Bytes.upload(&test_server, &client, &sample));
    wait_until(&running, |progress| progress.acknowledged_chunks >= 1);
    let video_id = running.current().video_id.unwrap();
    pollster::block_on(client.delete_video(&video_id)).unwrap();
    let error = running.join_blocking().unwrap_err();
    assert_eq!((error.kind(), error.video_id()), (ErrorKind::NotFound, Some(&*video_id)), "{error:?}");
    // A delayed replica gives the same answer, so the client sends the chunk again for a while.
    assert!(test_server.chunk_requests().len() <= 3 + 3 * 10);
}

#[test]
fn two_hosts_that_fill_one_container_never_mix_their_files() {
    for way in [Way::Bytes, Way::Parts] {
        let test_server = TestServer::new(Scheme::Http);
        let sample = way.sample(6);
        let client = test_server.short_pause_client().build().unwrap();
        let video = pollster::block_on(client.create_video(ringlift::NewVideo::default())).unwrap();
        let host = || {
            let client = test_server.short_pause_client().lanes(1).build().unwrap();
            way.upload(&test_server, &client, &sample).video_id(&video.video_id).send_blocking()
        };
        let outcomes =
            std::thread::scope(|scope| [(), ()].map(|()| scope.spawn(host)).map(|host| host.join().unwrap()));
        for outcome in &outcomes {
            match outcome {
                Ok(uploaded) => test_server.assert_holds(&uploaded.video_id, &sample.path()),
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::AlreadySent | ErrorKind::AlreadyFilled),
                        "{error:?}"
                    );
                }
            }
        }
        assert!(outcomes.iter().any(Result::is_err));
        test_server.assert_created(1);
    }
}

// Expired credentials.

fn client_with_exchanged_key(test_server: &TestServer) -> Client {
    let key = Secret::new(test_server.server.api_key());
    test_server
        .short_pause_client()
        .with(|settings| settings.credentials = Credentials::ExchangedApiKey(key))
        .build()
        .unwrap()
}

#[test]
fn one_renewal_serves_all_chunks_refused_at_the_same_time() {
    for scheme in SCHEMES {
        let expired = |index| Way::Bytes.fault(index, FaultAction::unauthorized());
        let test_server = TestServer::faulty(scheme, vec![expired(0), expired(1), expired(2)]);
        let sample = Way::Bytes.sample(5);
        let uploaded = Way::Bytes
            .upload(&test_server, &client_with_exchanged_key(&test_server), &sample)
            .send_blocking()
            .unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        let auth = test_server.server.stats().requests[&RouteClass::Auth];
        assert!(
            (2..=4).contains(&auth),
            "one for the key, and one for each time a fresh token was refused: {auth}"
        );
        test_server.assert_created(1);
        test_server.assert_nothing_was_sent_twice();
    }
}

#[test]
fn a_token_that_is_refused_early_in_a_body_is_renewed() {
    for scheme in SCHEMES {
        let expired = refusal(401, None, RefusalTiming::EarlyClose);
        let test_server = TestServer::faulty(scheme, vec![Way::Parts.fault(1, expired)]);
        let sample = Way::Parts.sample(3);
        let uploaded = Way::Parts
            .upload(&test_server, &client_with_exchanged_key(&test_server), &sample)
            .send_blocking()
            .unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(test_server.server.stats().requests[&RouteClass::Auth], 2);
    }
}

#[test]
fn tokens_that_expire_early_are_renewed_as_often_as_necessary() {
    let slow = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 250 }).times(0);
    let test_server = TestServer::with(Scheme::Http, |settings| {
        // A lifetime below one second is reported as 0.
        settings.token_lifetime = Duration::from_millis(700);
        settings.faults = vec![slow].into();
    });
    let sample = Way::Bytes.sample(12);
    let uploaded = Way::Bytes
        .upload(&test_server, &client_with_exchanged_key(&test_server), &sample)
        .send_blocking()
        .unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    assert!(test_server.server.stats().requests[&RouteClass::Auth] >= 2);
    test_server.assert_created(1);
}

#[test]
fn a_temporary_failure_of_a_renewal_is_retried() {
    let faults = vec![
        Way::Bytes.fault(1, FaultAction::unauthorized()),
        Fault::new(RouteClass::Auth, FaultAction::unavailable()).nth(2).times(2),
    ];
    let test_server = TestServer::faulty(Scheme::Http, faults);
    let sample = Way::Bytes.sample(4);
    let uploaded = Way::Bytes
        .upload(&test_server, &client_with_exchanged_key(&test_server), &sample)
        .send_blocking()
        .unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    test_server.assert_created(1);
}

#[test]
fn a_token_that_cannot_be_renewed_ends_the_upload() {
    let expired = || Way::Bytes.fault(1, FaultAction::unauthorized());
    let stale = || Credentials::AccessToken {
        token: Secret::new("stale"),
        refresh_token: Some(Secret::new("used-before")),
    };
    let test_server = TestServer::faulty(Scheme::Http, vec![expired()]);
    let error = upload_and_fail(&test_server, Way::Bytes);
    assert_eq!(error.kind(), ErrorKind::NotAuthorized, "{error:?}");
    assert!(error.video_id().is_some() && error.kind().is_resumable());
    assert!(test_server.chunk_requests().len() <= 4);

    let test_server = TestServer::faulty(Scheme::Http, vec![expired().times(0)]);
    let error = Way::Bytes
        .upload(&test_server, &client_with_exchanged_key(&test_server), &Way::Bytes.sample(4))
        .send_blocking()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthorized, "a fresh token is refused too: {error:?}");
    assert!(test_server.chunk_requests().len() <= 5);

    let test_server = TestServer::new(Scheme::Http);
    let client =
        test_server.short_pause_client().with(|settings| settings.credentials = stale()).build().unwrap();
    let error = Way::Bytes.upload(&test_server, &client, &Way::Bytes.sample(2)).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthorized, "{error:?}");
    test_server.assert_created(0);
}

#[test]
fn an_upload_token_that_is_deleted_during_the_upload_ends_it() {
    let way = Way::DelegatedBytes;
    let test_server =
        TestServer::faulty(Scheme::Http, vec![way.fault(1, FaultAction::StallAnswering { for_ms: 1500 })]);
    let client = test_server.short_pause_client().lanes(1).build().unwrap();
    let token = test_server.upload_token();
    let sample = way.sample(4);
    let upload = client.upload(sample.path()).mode(way.mode()).chunk_size(ChunkSize::Bytes(CHUNK));
    let running = start(upload.upload_token(token.clone()));
    wait_until(&running, |progress| progress.acknowledged_chunks >= 1);
    pollster::block_on(client.delete_upload_token(token.clone())).unwrap();
    let error = running.join_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthorized, "{error:?}");
    assert!(error.advice().unwrap().contains("create a new one"));
    assert!(error.video_id().is_some());
    assert!(test_server.chunk_requests().len() <= 3);
    test_server.assert_created(1);
}

// A server that restarts.

/// Starts an upload, stops the server in the middle, applies `lose` to its data, and starts the server again.
fn upload_across_restart(scheme: Scheme, way: Way, lose: impl FnOnce(&StoppedServer)) {
    let stop = |index| way.fault(index, FaultAction::StallReading { after_bytes: 0, for_ms: 60_000 });
    let test_server = TestServer::faulty(scheme, vec![stop(3), stop(4)]);
    let sample = way.sample(6);
    let patient = test_server.short_pause_client().lanes(2).with(|settings| {
        settings.retry.first_pause = Duration::from_millis(100);
        settings.retry.longest_pause = Duration::from_millis(500);
        settings.retry.retries = 50;
    });
    let client = patient.build().unwrap();
    let running = start(way.upload(&test_server, &client, &sample));
    wait_until(&running, |progress| progress.acknowledged_chunks >= 2);
    let closed = test_server.close();
    lose(&closed);
    sleep(Duration::from_millis(300));
    let test_server = closed.open();
    let uploaded = running.join_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    test_server.assert_created(0);
    assert!(test_server.chunk_requests().len() < 50);
    test_server.assert_nothing_was_sent_twice();
}

#[test]
fn an_upload_survives_a_restart_of_the_server() {
    let cases = [
        (Scheme::Http, Way::Bytes),
        (Scheme::Https, Way::Parts),
        (Scheme::Http, Way::DelegatedBytes),
        (Scheme::Https, Way::DelegatedParts),
    ];
    each_in_parallel(cases, |(scheme, way)| upload_across_restart(scheme, way, |_| {}));
}

#[test]
fn chunks_that_the_server_lost_in_a_restart_are_sent_again() {
    let cases = [(Scheme::Http, Way::Bytes, CHUNK), (Scheme::Https, Way::Parts, 2)];
    each_in_parallel(cases, |(scheme, way, place)| {
        upload_across_restart(scheme, way, |closed| closed.forget_pieces_from(place));
    });
}

#[test]
fn an_unreachable_service_is_reported() {
    each_in_parallel(SCHEMES, |scheme| {
        let test_server = TestServer::new(scheme);
        let hurried = test_server.short_pause_client().with(|settings| settings.retry.retries = 2);
        let client = hurried.build().unwrap();
        let closed = test_server.close();
        let sample = Sample::new(CHUNK);
        let error = client.upload(sample.path()).send_blocking().unwrap_err();
        assert_eq!((error.kind(), error.video_id()), (ErrorKind::Connect, None), "{error:?}");
        assert!(error.is_temporary());
        drop(closed);
    });
}

// Certificates.

#[test]
fn an_untrusted_certificate_is_an_error_at_once() {
    let test_server = TestServer::new(Scheme::Https);
    let builder =
        Client::builder().endpoint_url(test_server.server.url()).api_key(test_server.server.api_key());
    let sample = Sample::new(CHUNK);
    let error = builder.build().unwrap().upload(sample.path()).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
    assert!(error.advice().unwrap().contains("authority"));
    assert!(test_server.server.stats().connections <= 2, "it was tried again");
    test_server.assert_created(0);
}

#[test]
fn a_certificate_for_another_host_is_an_error_at_once() {
    let everywhere = TestServer::with(Scheme::Https, |settings| {
        settings.listen = ([0, 0, 0, 0], 0).into();
        settings.api_key = Some("a-key".into());
        settings.tls = TlsMode::OwnAuthority;
    });
    let elsewhere = format!("https://127.0.0.9:{}", everywhere.server.addr().port());
    let client = everywhere.short_pause_client().endpoint_url(elsewhere).build().unwrap();
    let sample = Sample::new(CHUNK);
    let error = client.upload(sample.path()).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
    assert!(everywhere.server.stats().connections <= 2, "it was tried again");
    everywhere.assert_created(0);
}

// Sources that change.

fn reopen(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Applies `act` to a file while its second chunk is sent, and asserts that the upload fails.
fn upload_while_changing(way: Way, act: impl FnOnce(&Path)) {
    let test_server =
        TestServer::faulty(Scheme::Http, vec![way.fault(1, FaultAction::StallAnswering { for_ms: 1500 })]);
    let client = test_server.short_pause_client().lanes(1).build().unwrap();
    let sample = way.sample(4);
    let running = start(way.upload(&test_server, &client, &sample));
    wait_until(&running, |progress| progress.acknowledged_chunks >= 1);
    let video_id = running.current().video_id.unwrap();
    act(&sample.path());
    let error = running.join_blocking().unwrap_err();
    assert_eq!((error.kind(), error.video_id()), (ErrorKind::SourceChanged, Some(&*video_id)), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap();
    assert!(format!("{error} {cause}").contains("movie.mp4"), "{error}: {cause}");
    assert!(test_server.chunk_requests().len() <= 3);
    let other = way.sample(2);
    let uploaded = way.upload(&test_server, &client, &other).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &other.path());
}

#[test]
fn a_file_rewritten_in_place_is_detected() {
    upload_while_changing(Way::Bytes, |path| reopen(path).write_all_at(b"other bytes", 7).unwrap());
}

#[test]
fn a_growing_file_is_detected() {
    upload_while_changing(Way::Parts, |path| reopen(path).set_len(100 * MIB).unwrap());
}

#[test]
fn a_truncated_file_is_detected() {
    upload_while_changing(Way::DelegatedBytes, |path| reopen(path).set_len(1).unwrap());
}

#[test]
fn a_replaced_file_is_detected() {
    upload_while_changing(Way::DelegatedParts, |path| {
        let other = path.with_extension("new");
        fs::copy(path, &other).unwrap();
        fs::rename(&other, path).unwrap();
    });
}

#[test]
fn a_file_that_shrinks_within_a_chunk_ends_only_its_own_upload_with_every_reader() {
    let all = [
        (Scheme::Http, Reader::Mmap),
        (Scheme::Http, Reader::Pread),
        (Scheme::Http, Reader::Uring),
        (Scheme::Http, Reader::Direct),
        (Scheme::Https, Reader::Mmap),
        (Scheme::Https, Reader::Uring),
    ];
    each_in_parallel(all, |(scheme, reader)| {
        let pause = FaultAction::StallReading { after_bytes: MIB, for_ms: 700 };
        let test_server = TestServer::faulty(scheme, vec![Fault::new(RouteClass::Chunk, pause)]);
        let client = test_server.short_pause_client().reader(reader).build().unwrap();
        let (sample, other) = (Sample::new(LONG_CHUNK), Way::Bytes.sample(2));
        let running = start(client.upload(sample.path()).mode(Mode::Single));
        wait_until(&running, |progress| progress.sent_bytes > 0);
        sleep(Duration::from_millis(200));
        reopen(&sample.path()).set_len(4096).unwrap();
        let beside = Way::Bytes.upload(&test_server, &client, &other).send_blocking().unwrap();
        test_server.assert_holds(&beside.video_id, &other.path());
        let error = running.join_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceChanged, "{scheme:?} {reader:?} {error:?}");
        assert_eq!(test_server.server.stats().chunks_accepted, 2, "{scheme:?} {reader:?}");
    });
}

// Limits of this machine.

#[test]
fn the_command_works_with_few_descriptors_little_locked_memory_or_no_ring() {
    for scheme in SCHEMES {
        let test_server = TestServer::new(scheme);
        let sample = Way::Bytes.sample(5);
        for want in [Restriction::Descriptors(64), Restriction::LockedKib(64), Restriction::Ring] {
            let args = ["upload", "--json", "-c", "3", "--chunk-size", "5MiB", sample.arg()];
            let ran = want
                .run(|command| {
                    test_server.configure(command).args(args);
                })
                .done();
            test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
        }
    }
}

#[test]
fn too_few_descriptors_are_an_error_and_not_a_hang() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Way::Bytes.sample(3);
    let args = ["upload", "--json", "-c", "3", "--retries", "0", "--chunk-size", "5MiB", sample.arg()];
    each_in_parallel([0, 1, 2], |third| {
        for most in (4 + third..40).step_by(3) {
            let ran = Restriction::Descriptors(most).run(|command| {
                test_server.configure(command).args(args);
            });
            match ran.code {
                Some(0) => {
                    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path())
                }
                _ => assert!(
                    ran.stderr.contains("ringlift:") && !ran.stderr.contains("panicked"),
                    "{most}: {ran:?}"
                ),
            }
        }
    });
}

/// A reader that returns some bytes and then panics.
struct PanickingReader(usize);

impl std::io::Read for PanickingReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        assert!(self.0 > 0, "this reader panics, as it should");
        let len = buf.len().min(self.0);
        self.0 -= len;
        Ok(len)
    }
}

#[test]
fn a_panicking_reader_ends_only_its_own_upload() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.short_pause_client().build().unwrap();
    for len in [0, 3 * MIB, 12 * MIB] {
        let upload = client.upload_reader("live.mp4", PanickingReader(len as usize));
        let error = upload.chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        assert!(error.to_string().contains("live.mp4"), "{error}");
    }
    let sample = Way::Bytes.sample(2);
    let uploaded = Way::Bytes.upload(&test_server, &client, &sample).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
}

// Impossible plans.

#[test]
fn a_file_beyond_the_limits_of_the_protocol_is_refused_with_the_limits_before_anything_is_created() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    let refused = |len: u64, mode: Mode, chunk_size: ChunkSize| {
        let sample = Sample::sparse(len);
        let error =
            client.upload(sample.path()).mode(mode).chunk_size(chunk_size).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PlanImpossible, "{error:?}");
        std::error::Error::source(&error).unwrap().to_string()
    };
    let auto = ChunkSize::Auto;
    let too_long = refused(100 << 30, Mode::Auto, auto);
    assert!(too_long.contains("52428800000"), "{too_long}");
    let too_long = refused(10_000 * CHUNK + 1, Mode::Parts, ChunkSize::Bytes(CHUNK));
    assert!(too_long.contains("52428800000"), "{too_long}");
    let too_small = refused(MIB * 100, Mode::Bytes, ChunkSize::Bytes(CHUNK - 1));
    assert!(too_small.contains("5242880"), "{too_small}");
    let too_large = refused(MIB * 300, Mode::Parts, ChunkSize::Bytes(200 * MIB + 1));
    assert!(too_large.contains("209715200"), "{too_large}");
    let too_long_for_one = refused(200 * MIB + 1, Mode::Single, auto);
    assert!(too_long_for_one.contains("209715200"), "{too_long_for_one}");
    test_server.assert_created(0);
    assert_eq!(test_server.chunk_requests().len(), 0);
}

#[test]
fn a_last_chunk_of_one_byte_and_one_of_full_length_both_arrive() {
    for way in Way::CHUNKED {
        for len in [2 * CHUNK, 2 * CHUNK + 1, CHUNK, CHUNK - 1, 1] {
            let test_server = TestServer::new(Scheme::Http);
            upload_successfully(&test_server, way, &Sample::new(len));
            test_server.assert_created(1);
        }
    }
}

// Malicious file names.

#[test]
fn no_file_name_can_end_its_header() {
    let long = "x".repeat(255);
    let names: [&[u8]; 7] = [
        b"a \"quoted\" name.mp4",
        b"two\r\nContent-Length: 0\r\n\r\nlines.mp4",
        b"not \xff\xfe utf-8.mp4",
        b"..\\..\\up.mp4",
        "\u{202e}4pm.\u{1f4fc}".as_bytes(),
        b"--ringlift-\t%0d%0a;name=x.mp4",
        long.as_bytes(),
    ];
    for scheme in SCHEMES {
        let test_server = TestServer::new(scheme);
        let client = test_server.short_pause_client().build().unwrap();
        let (folder, token) = (tempfile::tempdir().unwrap(), test_server.upload_token());
        for name in names {
            let path = folder.path().join(OsStr::from_bytes(name));
            fs::write(&path, name).unwrap();
            let uploaded = client.upload(&path).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &path);
            let title =
                pollster::block_on(client.video(&uploaded.video_id)).unwrap().title.unwrap_or_default();
            assert_eq!(title, String::from_utf8_lossy(name));
            let uploaded = client.upload(&path).upload_token(token.clone()).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &path);
        }
    }
}
