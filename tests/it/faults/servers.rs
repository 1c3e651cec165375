//! Servers that restart, cannot be reached or are not trusted.

use super::*;

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
