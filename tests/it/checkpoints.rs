//! Uploads that another process continues from a checkpoint, without the journal of the first one.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{
    Checkpoint, Checksum, Client, ClientBuilder, ContainerState, Error, ErrorKind, Running, Upload,
    UploadEvent,
};

use crate::support::way::{CHUNK, Way};
use crate::support::{Sample, Scheme, TestServer, each_in_parallel};

/// A server that delays the answer to every chunk, and to the fifth much longer.
fn slow_server(scheme: Scheme, way: Way) -> TestServer {
    let slow = FaultAction::StallAnswering { for_ms: 150 };
    let stop = way.fault(4, FaultAction::StallReading { after_bytes: 0, for_ms: 2000 });
    TestServer::faulty(scheme, vec![stop, Fault::new(RouteClass::Chunk, slow).times(0)])
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(5));
    }
}

/// An upload that one client begins and another one continues.
struct Handover {
    way: Way,
    sample: Sample,
    token: Option<String>,
    folder: tempfile::TempDir,
}

impl Handover {
    fn new(test_server: &TestServer, way: Way) -> Handover {
        let (sample, token) = (way.sample(6), way.token(test_server));
        Handover { way, sample, token, folder: tempfile::tempdir().unwrap() }
    }

    fn client(test_server: &TestServer) -> ClientBuilder {
        test_server.short_pause_client().lanes(2)
    }

    fn start(&self, client: &Client) -> Running {
        pollster::block_on(self.way.upload_with(self.token.as_deref(), client, &self.sample).start()).unwrap()
    }

    /// Begins the upload, waits for `chunks` acknowledged chunks, drops the client, and returns the checkpoint as text.
    fn begin(&self, client: ClientBuilder, chunks: u32) -> String {
        let running = self.start(&client.build().unwrap());
        let checkpoints = running.checkpoints();
        wait_for("chunks", || running.checkpoint().filter(|latest| latest.acknowledged_chunks() >= chunks));
        // This drops the last handle of the client, and waits for its threads.
        drop(running);
        let last = pollster::block_on(checkpoints.collect::<Vec<_>>()).pop().unwrap();
        serde_json::to_string(&last).unwrap()
    }

    /// Copies the file to another path, where it has another inode and ctime.
    fn copied(&self, mtime: SystemTime) -> PathBuf {
        let copy = self.folder.path().join("copy.mp4");
        fs::copy(self.sample.path(), &copy).unwrap();
        File::options().write(true).open(&copy).unwrap().set_modified(mtime).unwrap();
        copy
    }

    fn copied_with_times(&self) -> PathBuf {
        self.copied(fs::metadata(self.sample.path()).unwrap().modified().unwrap())
    }

    fn resume(&self, client: &Client, path: &Path, checkpoint: &str) -> Upload {
        let upload = client.upload(path).resume_from(serde_json::from_str::<Checkpoint>(checkpoint).unwrap());
        match &self.token {
            Some(token) => upload.upload_token(token.clone()),
            None => upload,
        }
    }

    /// Asserts that the second client sent no chunk that the server has. A token cannot ask for the status: chunks that
    /// were under way when the first client ended are sent again, and refused.
    fn assert_nothing_was_sent_twice(&self, test_server: &TestServer) {
        if self.token.is_none() {
            test_server.assert_nothing_was_sent_twice();
        }
    }

    fn refusal(&self, test_server: &TestServer, path: &Path, checkpoint: &str) -> Error {
        let client = Handover::client(test_server).build().unwrap();
        self.resume(&client, path, checkpoint).send_blocking().unwrap_err()
    }
}

#[test]
fn another_client_continues_from_a_checkpoint_and_sends_only_missing_chunks() {
    let cases = [Scheme::Http, Scheme::Https].into_iter().flat_map(|s| Way::CHUNKED.map(|way| (s, way)));
    each_in_parallel(cases, |(scheme, way)| {
        let test_server = slow_server(scheme, way);
        let handover = Handover::new(&test_server, way);
        let text = handover.begin(Handover::client(&test_server), 2);
        if let Some(token) = &handover.token {
            assert!(!text.contains(token.as_str()), "{text}");
        }
        let client = Handover::client(&test_server).build().unwrap();
        let copy = handover.copied_with_times();
        let uploaded = handover.resume(&client, &copy, &text).send_blocking().unwrap();
        let checkpoint: Checkpoint = serde_json::from_str(&text).unwrap();
        assert_eq!(Some(&*uploaded.video_id), checkpoint.video_id(), "{scheme:?} {way:?}");
        test_server.assert_holds(&uploaded.video_id, &handover.sample.path());
        test_server.assert_created(1);
        handover.assert_nothing_was_sent_twice(&test_server);
        assert_eq!(test_server.server.stats().chunks_accepted, 6);
        assert!(test_server.chunk_requests().len() <= 6 + 2, "only what was under way is sent again");
    });
}

#[test]
fn a_video_that_was_being_created_is_searched_by_its_mark_first() {
    let stalled = Fault::new(RouteClass::Create, FaultAction::StallAnswering { for_ms: 60_000 });
    let test_server = TestServer::faulty(Scheme::Http, vec![stalled]);
    let handover = Handover::new(&test_server, Way::Bytes);
    let running = handover.start(&Handover::client(&test_server).build().unwrap());
    let checkpoint = wait_for("the mark", || {
        running
            .checkpoint()
            .filter(|checkpoint| matches!(checkpoint.container, ContainerState::Intended { .. }))
    });
    wait_for("the creation", || (test_server.server.stats().videos_created == 1).then_some(()));
    drop(running);
    let text = serde_json::to_string(&checkpoint).unwrap();
    let client = Handover::client(&test_server).build().unwrap();
    let uploaded = handover.resume(&client, &handover.sample.path(), &text).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &handover.sample.path());
    test_server.assert_created(1);
}

#[test]
fn a_file_of_another_length_or_mtime_is_refused_and_nothing_is_sent() {
    let test_server = slow_server(Scheme::Http, Way::Bytes);
    let handover = Handover::new(&test_server, Way::Bytes);
    let text = handover.begin(Handover::client(&test_server), 2);
    let copy = handover.copied(SystemTime::UNIX_EPOCH);
    let later = handover.refusal(&test_server, &copy, &text);
    // After the first refusal: the server may note a request of the first client after that client has ended.
    let sent = test_server.chunk_requests().len();
    assert_eq!(later.kind(), ErrorKind::SourceChanged, "{later}");
    assert!(later.to_string().contains("mtime"), "{later}");
    OpenOptions::new().append(true).open(&copy).unwrap().set_len(handover.sample.len + 1).unwrap();
    let longer = handover.refusal(&test_server, &copy, &text);
    assert_eq!(longer.kind(), ErrorKind::SourceChanged, "{longer}");
    assert!(
        longer.to_string().contains(&format!("the file that was sent has {}", handover.sample.len)),
        "{longer}"
    );
    assert_eq!(test_server.chunk_requests().len(), sent);
    test_server.assert_created(1);
}

#[test]
fn digests_prove_a_copy_without_its_times_and_refuse_other_bytes() {
    each_in_parallel([Scheme::Http, Scheme::Https], |scheme| {
        let test_server = slow_server(scheme, Way::Bytes);
        let handover = Handover::new(&test_server, Way::Bytes);
        let digesting =
            || Handover::client(&test_server).with(|settings| settings.checksum = Checksum::Always);
        let text = handover.begin(digesting(), 2);
        let copy = handover.copied(SystemTime::UNIX_EPOCH);
        let file = OpenOptions::new().write(true).open(&copy).unwrap();
        let original = fs::read(&copy).unwrap();
        file.write_all_at(b"other bytes", 7).unwrap();
        let differs = handover.refusal(&test_server, &copy, &text);
        assert_eq!(differs.kind(), ErrorKind::SourceChanged, "{differs}");
        assert!(differs.to_string().contains("chunk 1"), "{differs}");
        file.write_all_at(&original[..CHUNK as usize], 0).unwrap();
        drop(file);
        let client = digesting().build().unwrap();
        let mut running = pollster::block_on(handover.resume(&client, &copy, &text).start()).unwrap();
        let events = running.events();
        let uploaded = running.join_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &copy);
        let events: Vec<UploadEvent> = pollster::block_on(events.collect());
        assert!(events.iter().any(|event| matches!(event, UploadEvent::Proved { .. })), "{events:?}");
        test_server.assert_created(1);
    });
}

#[test]
fn the_journal_of_the_second_host_takes_over_from_the_checkpoint() {
    each_in_parallel([Way::Bytes, Way::DelegatedParts], |way| {
        let test_server = slow_server(Scheme::Http, way);
        let handover = Handover::new(&test_server, way);
        let text = handover.begin(Handover::client(&test_server), 2);
        let copy = handover.copied_with_times();
        let journal = handover.folder.path().join("journal.db");
        let client = || {
            let journal = journal.clone();
            Handover::client(&test_server).with(|settings| settings.journal = Some(journal)).build().unwrap()
        };
        let running = pollster::block_on(handover.resume(&client(), &copy, &text).start()).unwrap();
        wait_for("the video", || running.current().video_id);
        drop(running);
        // The journal alone is enough from here on.
        let upload = client().upload(&copy);
        let upload = match &handover.token {
            Some(token) => upload.upload_token(token.clone()),
            None => upload,
        };
        let uploaded = upload.send_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &handover.sample.path());
        test_server.assert_created(1);
        handover.assert_nothing_was_sent_twice(&test_server);
    });
}

#[test]
fn a_checkpoint_of_another_service_video_or_credential_is_refused() {
    let test_server = slow_server(Scheme::Http, Way::Bytes);
    let handover = Handover::new(&test_server, Way::Bytes);
    let text = handover.begin(Handover::client(&test_server), 1);
    let elsewhere = TestServer::new(Scheme::Http);
    let refused = handover.refusal(&elsewhere, &handover.sample.path(), &text);
    assert!(refused.to_string().contains(test_server.server.url()), "{refused}");
    let client = Handover::client(&test_server).build().unwrap();
    let resume = || handover.resume(&client, &handover.sample.path(), &text);
    for upload in [resume().video_id("vi-other"), resume().upload_token(test_server.upload_token())] {
        assert_eq!(upload.send_blocking().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let stream = client.upload_bytes("a.mp4", vec![7; 9]).resume_from(serde_json::from_str(&text).unwrap());
    assert_eq!(stream.send_blocking().unwrap_err().kind(), ErrorKind::InvalidInput);
    elsewhere.assert_created(0);
    test_server.assert_created(1);
}

#[test]
fn the_stream_of_checkpoints_follows_the_upload_to_its_end() {
    let test_server = TestServer::new(Scheme::Http);
    let handover = Handover::new(&test_server, Way::Bytes);
    let client = Handover::client(&test_server).build().unwrap();
    let running = handover.start(&client);
    let checkpoints = running.checkpoints();
    let video_id = running.join_blocking().unwrap().video_id;
    let seen: Vec<Checkpoint> = pollster::block_on(checkpoints.collect());
    assert!(seen.is_sorted_by_key(Checkpoint::acknowledged_chunks), "{seen:?}");
    assert!(seen.iter().all(|checkpoint| checkpoint.video_id().is_none_or(|id| id == video_id)));
    // A stream that is read after the end has the last state.
    assert_eq!(seen.last().unwrap().video_id(), Some(&*video_id));
}
