//! Answers that cannot be read or contradict the request.

use super::*;

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
