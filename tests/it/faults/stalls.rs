//! Servers that stop reading or answering.

use super::*;

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
