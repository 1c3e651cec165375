//! Files that change while they are sent.

use super::*;

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
