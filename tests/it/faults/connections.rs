//! Connections that break, and answers that are lost.

use super::*;

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
