//! Streams and bytes in memory: unknown and stated lengths, every kind of source, sources that fail.

use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{Addressing, ChunkSize, Client, ErrorKind, Hint, Mode, Upload, Uploaded};
use tokio::io::AsyncWriteExt;

use crate::support::command::{ringlift, run_with_stdin};
use crate::support::{MIB, Sample, Scheme, TestServer};

const CHUNK: u64 = 5 * MIB;
const FAILED: i32 = 1;

fn client(test_server: &TestServer) -> Client {
    test_server.short_pause_client().build().unwrap()
}

/// Returns the `Content-Range` of every accepted chunk, by the chunks' order in the file.
fn headers(test_server: &TestServer) -> Vec<String> {
    let accepted = test_server.chunk_requests().into_iter().filter(|request| request.status == Some(201));
    let mut headers: Vec<_> = accepted.map(|request| request.content_range.unwrap_or_default()).collect();
    let place = |header: &String| {
        header.split([' ', '-', '/']).nth(1).and_then(|from| from.parse::<u64>().ok()).unwrap_or_default()
    };
    headers.sort_by_key(place);
    headers
}

fn reader(client: &Client, sample: &Sample) -> Upload {
    let file = File::open(sample.path()).unwrap();
    client.upload_reader("live.mp4", file).chunk_size(ChunkSize::Bytes(CHUNK))
}

// Unknown length.

#[test]
fn a_stream_in_byte_ranges_states_its_length_with_its_last_chunk() {
    for scheme in [Scheme::Http, Scheme::Https] {
        for (len, expected) in [
            (1, &["bytes 0-0/1"][..]),
            (CHUNK, &["bytes 0-5242879/5242880"]),
            (CHUNK + 1, &["bytes 0-5242879/*", "bytes 5242880-5242880/5242881"]),
            (
                3 * CHUNK,
                &["bytes 0-5242879/*", "bytes 5242880-10485759/*", "bytes 10485760-15728639/15728640"],
            ),
        ] {
            let test_server = TestServer::new(scheme);
            let sample = Sample::new(len);
            // One lane: with several, the first chunk may wait for a lane until the length is known.
            let client = test_server.client().lanes(1).build().unwrap();
            let uploaded = reader(&client, &sample).mode(Mode::Bytes).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!((uploaded.bytes, uploaded.addressing), (len, Addressing::ByteRange));
            let sent = headers(&test_server);
            let matches = |(sent, expected): (&String, &&str)| {
                // A chunk that waited until the stream had ended states the length too.
                sent == expected || *sent == expected.replace('*', &len.to_string())
            };
            assert!(sent.len() == expected.len() && sent.iter().zip(expected).all(matches), "{sent:?}");
        }
    }
}

#[test]
fn a_stream_in_byte_ranges_survives_lost_answers() {
    let lost = || Fault::new(RouteClass::Chunk, FaultAction::CloseAfterRecording);
    let test_server = TestServer::faulty(Scheme::Http, vec![lost().nth(1), lost().nth(3)]);
    let sample = Sample::new(4 * CHUNK + 7);
    let uploaded = reader(&client(&test_server), &sample).mode(Mode::Bytes).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    assert_eq!(test_server.server.stats().chunks_accepted, 5, "the status has shown what was stored");
}

#[test]
fn an_empty_stream_creates_nothing_in_any_mode() {
    let test_server = TestServer::new(Scheme::Http);
    for mode in [Mode::Bytes, Mode::Parts, Mode::Auto] {
        let error = client(&test_server).upload_reader("empty", io::empty()).mode(mode).send_blocking();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::PlanImpossible);
    }
    test_server.assert_created(0);
}

#[test]
fn an_upload_token_sends_a_stream_of_unknown_length_in_parts_only() {
    let test_server = TestServer::new(Scheme::Http);
    let (token, sample) = (test_server.upload_token(), Sample::new(2 * CHUNK + 1));
    let delegated = || reader(&client(&test_server), &sample).upload_token(token.clone());
    for mode in [Mode::Bytes, Mode::Single] {
        let error = delegated().mode(mode).send_blocking().unwrap_err();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::PlanImpossible, Some(Hint::SendInParts)));
    }
    test_server.assert_created(0);
    let uploaded = delegated().send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    let uploaded = delegated().len(sample.len).mode(Mode::Bytes).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    test_server.assert_created(2);
}

#[test]
fn the_command_sends_standard_input_in_byte_ranges() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(2 * CHUNK + 9);
    let command = |args: &[&str]| {
        let mut command = ringlift();
        test_server.configure(&mut command).args([
            "upload",
            "--json",
            "--mode",
            "bytes",
            "--chunk-size",
            "5M",
        ]);
        command.args(args).arg("-");
        run_with_stdin(&mut command, fs::read(sample.path()).unwrap())
    };
    let planned = command(&["--dry-run"]).done().event("planned");
    assert_eq!((&planned["mode"], &planned["chunk_bytes"]), (&"bytes".into(), &CHUNK.into()));
    let summary = command(&[]).done().summary();
    test_server.assert_holds(summary["video_id"].as_str().unwrap(), &sample.path());
    assert_eq!(headers(&test_server)[2], "bytes 10485760-10485768/10485769");
    let token = test_server.upload_token();
    command(&["--upload-token", &token]).failed(FAILED, &["upload token", "--mode parts"]);
    test_server.assert_created(1);
}

// Kinds of sources.

/// Sends the sample from each kind of source, prepared by `change`.
fn by_every_source(client: &Client, sample: &Sample, change: impl Fn(Upload) -> Upload) -> Vec<Uploaded> {
    let bytes = Bytes::from(fs::read(sample.path()).unwrap());
    let file = || File::open(sample.path()).unwrap();
    let pieces = {
        let pieces: Vec<Bytes> = bytes.chunks(1_000_003).map(Bytes::copy_from_slice).collect();
        stream::iter(pieces).map(Ok)
    };
    let uploads = [
        client.upload_reader("movie.mp4", file()),
        client.upload_async_read("movie.mp4", tokio::fs::File::from_std(file())),
        client.upload_stream("movie.mp4", pieces),
        client.upload_bytes("movie.mp4", bytes),
        client.upload(sample.path()),
    ];
    let chunked = |upload: Upload| change(upload.chunk_size(ChunkSize::Bytes(CHUNK)));
    uploads.into_iter().map(|upload| chunked(upload).send_blocking().unwrap()).collect()
}

#[test]
fn every_source_delivers_every_byte() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        for len in [1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let sample = Sample::new(len);
            for uploaded in by_every_source(&client(&test_server), &sample, |upload| upload) {
                test_server.assert_holds(&uploaded.video_id, &sample.path());
                assert_eq!(uploaded.bytes, len);
            }
        }
    }
}

#[test]
fn every_source_of_stated_length_is_planned_like_a_file() {
    for (mode, addressing, chunks) in [
        (Mode::Auto, Addressing::ByteRange, 3),
        (Mode::Bytes, Addressing::ByteRange, 3),
        (Mode::Parts, Addressing::Part, 3),
        (Mode::Single, Addressing::Single, 1),
    ] {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Sample::new(2 * CHUNK + 1);
        let stated = |upload: Upload| upload.mode(mode).len(sample.len);
        for uploaded in by_every_source(&client(&test_server), &sample, stated) {
            test_server.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!((uploaded.addressing, uploaded.chunks), (addressing, chunks));
        }
        assert!(headers(&test_server).iter().all(|header| !header.contains('*')));
    }
}

#[test]
fn bytes_in_memory_are_sent_again_after_failures() {
    let lost = || Fault::new(RouteClass::Chunk, FaultAction::unavailable());
    let test_server = TestServer::faulty(Scheme::Http, vec![lost().nth(1), lost().nth(2)]);
    let sample = Sample::new(2 * CHUNK + 1);
    for (mode, chunk) in [(Mode::Auto, CHUNK), (Mode::Single, 0)] {
        let bytes = fs::read(sample.path()).unwrap();
        let upload = client(&test_server).upload_bytes("a.mp4", bytes).mode(mode);
        let upload = if chunk > 0 { upload.chunk_size(ChunkSize::Bytes(chunk)) } else { upload };
        let uploaded = upload.send_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
    }
}

// Sources that fail.

#[test]
fn a_source_of_another_length_than_stated_is_refused_and_never_complete() {
    let (test_server, untouched) = (TestServer::new(Scheme::Http), TestServer::new(Scheme::Http));
    let sample = Sample::new(2 * CHUNK);
    for stated in [2 * CHUNK + 1, 2 * CHUNK - 1, CHUNK, 1] {
        for mode in [Mode::Bytes, Mode::Parts] {
            let upload = reader(&client(&test_server), &sample).mode(mode).len(stated);
            let error = upload.send_blocking().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(
                error.to_string().contains(&format!("stated length of {stated}"))
                    || error.to_string().contains(&format!("stated length is {stated}")),
                "{error}"
            );
            if let Some(video_id) = error.video_id() {
                let status = pollster::block_on(client(&test_server).video_status(video_id)).unwrap();
                assert_ne!(status.received(), ringlift::ReceivedContent::Everything, "{stated}");
            }
        }
        // Its own server: a creation that its failed stream has left behind may still be under way at the other one.
        let error = client(&untouched).upload(sample.path()).len(stated).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(untouched.server.stats().videos_created, 0, "a file is refused before its video exists");
}

#[test]
fn a_silent_source_fails_its_upload_within_the_read_timeout() {
    let test_server = TestServer::new(Scheme::Http);
    let client =
        test_server.short_pause_client().with(|settings| settings.patience.body = Duration::from_millis(200));
    let client = client.build().unwrap();
    let (silent, _open) = tokio::io::duplex(64);
    let error = client.upload_async_read("live.mp4", silent).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stalled, "{error}");
    assert!(error.to_string().contains("live.mp4"), "{error}");
    test_server.assert_created(0);
}

#[test]
fn a_source_that_panics_or_fails_ends_its_upload_and_no_other() {
    let test_server = TestServer::new(Scheme::Http);
    let client = client(&test_server);
    let failing =
        stream::iter([Ok(Bytes::from(vec![7; CHUNK as usize])), Err(io::Error::other("the camera is gone"))]);
    let error = client.upload_stream("a.mp4", failing).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnreadable);
    assert!(format!("{error:?}").contains("the camera is gone"), "{error:?}");
    struct Panics;
    impl Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("no frame")
        }
    }
    let panics = stream::poll_fn(|_| panic!("no frame"));
    for upload in [client.upload_reader("a.mp4", Panics), client.upload_stream("a.mp4", panics)] {
        let error = upload.send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        assert!(format!("{error:?}").contains("panicked: no frame"), "{error:?}");
    }
    let sample = Sample::new(CHUNK + 1);
    let uploaded = reader(&client, &sample).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
}

/// Sets a flag when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn dropping_the_upload_drops_a_source_that_waits() {
    let test_server = TestServer::new(Scheme::Http);
    let client = client(&test_server);
    let is_dropped = Arc::new(AtomicBool::new(false));
    let (guard, begun) = (Dropped(is_dropped.clone()), Arc::new(AtomicBool::new(false)));
    let flag = begun.clone();
    let waits = stream::poll_fn(move |_| {
        let _guard = &guard;
        flag.store(true, Ordering::Release);
        std::task::Poll::Pending
    });
    let running = pollster::block_on(client.upload_stream("live.mp4", waits).start()).unwrap();
    wait_for("the first poll", || begun.load(Ordering::Acquire));
    drop(running);
    wait_for("the drop of the source", || is_dropped.load(Ordering::Acquire));
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_source_is_read_no_further_than_the_memory_for_streams() {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 300 });
    let test_server = TestServer::faulty(Scheme::Http, vec![stall.times(0)]);
    let client =
        test_server.short_pause_client().with(|settings| settings.buffer_bytes = 2 * CHUNK).build().unwrap();
    let (given, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let most = Arc::new(AtomicU64::new(0));
    let (counter, stored, peak) = (given.clone(), acknowledged.clone(), most.clone());
    let len = 6 * CHUNK;
    let piece = Bytes::from(vec![7; 1 << 16]);
    let pieces = stream::iter(0..len >> 16).map(move |_| {
        let ahead = counter.fetch_add(1 << 16, Ordering::AcqRel) - stored.load(Ordering::Acquire);
        peak.fetch_max(ahead, Ordering::AcqRel);
        Ok(piece.clone())
    });
    let upload = client.upload_stream("live.mp4", pieces).chunk_size(ChunkSize::Bytes(CHUNK));
    let upload = upload
        .on_progress(move |progress| acknowledged.store(progress.acknowledged_bytes, Ordering::Release));
    assert_eq!(upload.send_blocking().unwrap().bytes, len);
    // The report of a stored chunk may come after the memory of the chunk was used again.
    let most = most.load(Ordering::Acquire);
    assert!(most <= 4 * CHUNK, "{most} bytes were read ahead");
}

#[test]
fn every_kind_of_caller_runtime_drives_an_upload() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(CHUNK + 1);
    let send = || {
        let client = client(&test_server);
        let bytes = fs::read(sample.path()).unwrap();
        async move {
            let (mut writer, reader) = tokio::io::duplex(1 << 16);
            let upload = client.upload_async_read("live.mp4", reader).chunk_size(ChunkSize::Bytes(CHUNK));
            let write = async move {
                writer.write_all(&bytes).await.unwrap();
            };
            let (uploaded, ()) = futures_util::future::join(upload.send(), write).await;
            uploaded.unwrap()
        }
    };
    let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for uploaded in [current.block_on(send()), many.block_on(send()), pollster::block_on(send())] {
        test_server.assert_holds(&uploaded.video_id, &sample.path());
    }
}
