//! Limits of the service on requests.

use super::*;

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
