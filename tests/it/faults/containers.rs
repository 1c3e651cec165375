//! Containers that are unknown, full or shared.

use super::*;

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
