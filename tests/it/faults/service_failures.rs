//! Refusals and failures of the service.

use super::*;

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
