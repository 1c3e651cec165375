//! API keys, access tokens and upload tokens that expire or are refused.

use super::*;

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
