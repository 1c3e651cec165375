//! Interrupted uploads that continue: by the same call, by another client, from the journal.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::journal::{ContainerState, CreatedBy, Entry, EntryState, Journal};
use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{Client, ClientBuilder, Error, ErrorKind, Running, Uploaded};

use crate::support::way::{CHUNK, Way};
use crate::support::{Sample, Scheme, TestServer, each_in_parallel};

const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https];

/// An upload that takes several runs.
struct ResumeScenario {
    way: Way,
    sample: Sample,
    token: Option<String>,
    folder: tempfile::TempDir,
}

impl ResumeScenario {
    fn new(test_server: &TestServer, way: Way) -> ResumeScenario {
        let (sample, token) = (way.sample(6), way.token(test_server));
        ResumeScenario { way, sample, token, folder: tempfile::tempdir().unwrap() }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn client(&self, test_server: &TestServer) -> ClientBuilder {
        test_server.short_pause_client().lanes(2).with(|settings| settings.journal = Some(self.journal()))
    }

    fn start(&self, client: &Client) -> Running {
        let upload = self.way.upload_with(self.token.as_deref(), client, &self.sample);
        pollster::block_on(upload.start()).unwrap()
    }

    /// Starts the upload with a new client, and waits until `chunks` chunks are acknowledged.
    fn begin(&self, client: ClientBuilder, chunks: u32) -> Running {
        let running = self.start(&client.build().unwrap());
        let begun = Instant::now();
        while running.current().acknowledged_chunks < chunks {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", running.current());
            sleep(Duration::from_millis(5));
        }
        running
    }

    /// Repeats the call with a new client, and asserts success.
    fn finish(&self, test_server: &TestServer) -> Uploaded {
        let client = self.client(test_server).build().unwrap();
        let uploaded = self.start(&client).join_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &self.sample.path());
        uploaded
    }

    fn entries(&self) -> Vec<Entry> {
        Journal::open(&self.journal()).unwrap().entries().unwrap()
    }
}

/// Starts a server that delays the answer to every chunk, and to the fifth much longer.
fn slow_server(scheme: Scheme, way: Way) -> TestServer {
    let slow = FaultAction::StallAnswering { for_ms: 150 };
    let stop = way.fault(4, FaultAction::StallReading { after_bytes: 0, for_ms: 2000 });
    TestServer::faulty(scheme, vec![stop, Fault::new(RouteClass::Chunk, slow).times(0)])
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(5));
    }
}

fn all_schemes_and_ways() -> impl Iterator<Item = (Scheme, Way)> {
    SCHEMES.into_iter().flat_map(|scheme| Way::CHUNKED.map(|way| (scheme, way)))
}

// Kinds of interruptions.

#[test]
fn a_cancelled_upload_continues() {
    each_in_parallel(all_schemes_and_ways(), |(scheme, way)| {
        let test_server = slow_server(scheme, way);
        let scenario = ResumeScenario::new(&test_server, way);
        let running = scenario.begin(scenario.client(&test_server), 2);
        let video_id = running.current().video_id.unwrap();
        running.stopper().cancel();
        let error = running.join_blocking().unwrap_err();
        assert_eq!((error.kind(), error.video_id()), (ErrorKind::Cancelled, Some(&*video_id)));
        let [left] = &scenario.entries()[..] else { panic!("one is left") };
        assert!(left.is_resumable() && left.stored_chunks >= 2, "{left:?}");
        assert_eq!(scenario.finish(&test_server).video_id, video_id, "{scheme:?} {way:?}");
        test_server.assert_created(1);
        assert!(test_server.chunk_requests().len() <= 6 + 2, "only what was under way is sent again");
        assert!(scenario.entries().is_empty());
    });
}

#[test]
fn an_upload_continues_after_its_client_was_dropped() {
    each_in_parallel(all_schemes_and_ways(), |(scheme, way)| {
        let test_server = slow_server(scheme, way);
        let scenario = ResumeScenario::new(&test_server, way);
        let running = scenario.begin(scenario.client(&test_server), 2);
        let video_id = running.current().video_id.unwrap();
        // This drops the last handle of the client.
        drop(running);
        assert_eq!(scenario.finish(&test_server).video_id, video_id, "{scheme:?} {way:?}");
        test_server.assert_created(1);
        assert!(test_server.chunk_requests().len() <= 6 + 2, "only what was under way is sent again");
    });
}

#[test]
fn a_stopped_upload_sends_exactly_the_rest() {
    each_in_parallel(all_schemes_and_ways(), |(scheme, way)| {
        let test_server = slow_server(scheme, way);
        let scenario = ResumeScenario::new(&test_server, way);
        let running = scenario.begin(scenario.client(&test_server), 2);
        running.stopper().stop();
        let error = running.join_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
        let uploaded = scenario.finish(&test_server);
        assert_eq!(test_server.chunk_requests().len() as u32, uploaded.chunks, "{scheme:?} {way:?}");
        test_server.assert_created(1);
    });
}

#[test]
fn an_upload_continues_when_its_server_is_back() {
    each_in_parallel(all_schemes_and_ways(), |(scheme, way)| {
        let test_server = slow_server(scheme, way);
        let scenario = ResumeScenario::new(&test_server, way);
        let impatient = scenario.client(&test_server).with(|settings| settings.retry.retries = 2);
        let running = scenario.begin(impatient, 2);
        let video_id = running.current().video_id.unwrap();
        let closed = test_server.close();
        let error = running.join_blocking().unwrap_err();
        assert!(error.is_temporary(), "{error:?}");
        assert_eq!(error.video_id(), Some(&*video_id));
        let test_server = closed.open();
        assert_eq!(scenario.finish(&test_server).video_id, video_id, "{scheme:?} {way:?}");
        test_server.assert_created(0);
        assert!(test_server.chunk_requests().len() <= 4);
    });
}

#[test]
fn an_upload_continues_with_other_credentials() {
    let test_server =
        TestServer::faulty(Scheme::Http, vec![Way::Bytes.fault(3, FaultAction::unauthorized())]);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    let client = scenario.client(&test_server).build().unwrap();
    let error = scenario.start(&client).join_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthorized);
    drop(client);
    assert_eq!(Some(&*scenario.finish(&test_server).video_id), error.video_id());
    test_server.assert_created(1);
    test_server.assert_nothing_was_sent_twice();
}

#[test]
fn a_single_request_is_repeated_into_the_same_container() {
    for action in [FaultAction::CloseBeforeRecording, FaultAction::CloseAfterRecording] {
        let test_server = TestServer::faulty(Scheme::Http, vec![Way::Single.fault(0, action)]);
        let scenario = ResumeScenario::new(&test_server, Way::Single);
        let impatient = scenario.client(&test_server).with(|settings| settings.retry.retries = 0);
        let client = impatient.build().unwrap();
        let first = scenario.start(&client).join_blocking();
        drop(client);
        if let Err(error) = first {
            assert!(error.is_temporary(), "{error:?}");
            assert_eq!(Some(&*scenario.finish(&test_server).video_id), error.video_id());
        }
        test_server.assert_created(1);
    }
}

// Journal and service disagree.

/// Interrupts an upload whose second chunk is stored but not acknowledged, and continues it.
fn resume_after_unacknowledged_chunk(scheme: Scheme, way: Way) -> (TestServer, Uploaded) {
    let test_server =
        TestServer::faulty(scheme, vec![way.fault(1, FaultAction::StallAnswering { for_ms: 60_000 })]);
    let scenario = ResumeScenario::new(&test_server, way);
    let running = scenario.begin(scenario.client(&test_server).lanes(1), 1);
    wait_for("the second chunk", || test_server.server.stats().chunks_accepted == 2);
    drop(running);
    let uploaded = scenario.finish(&test_server);
    test_server.assert_created(1);
    (test_server, uploaded)
}

#[test]
fn with_a_key_a_stored_chunk_is_not_sent_again_even_if_not_journalled() {
    each_in_parallel([(Scheme::Http, Way::Bytes), (Scheme::Https, Way::Parts)], |(scheme, way)| {
        let (test_server, uploaded) = resume_after_unacknowledged_chunk(scheme, way);
        assert_eq!(test_server.chunk_requests().len() as u32, uploaded.chunks);
    });
}

#[test]
fn without_a_key_an_unjournalled_chunk_is_sent_again_and_already_sent_counts_as_stored() {
    each_in_parallel(
        [(Scheme::Http, Way::DelegatedParts), (Scheme::Https, Way::DelegatedBytes)],
        |(scheme, way)| {
            let (test_server, uploaded) = resume_after_unacknowledged_chunk(scheme, way);
            assert_eq!(test_server.chunk_requests().len() as u32, uploaded.chunks + 1);
            assert_eq!(test_server.server.stats().refused.values().sum::<u64>(), 1);
        },
    );
}

#[test]
fn an_acknowledged_chunk_that_the_service_lost_is_sent_again() {
    each_in_parallel([(Way::Bytes, CHUNK), (Way::Parts, 2)], |(way, place)| {
        let stop = |index| way.fault(index, FaultAction::StallReading { after_bytes: 0, for_ms: 60_000 });
        let test_server = TestServer::faulty(Scheme::Http, vec![stop(3), stop(4)]);
        let scenario = ResumeScenario::new(&test_server, way);
        let running = scenario.begin(scenario.client(&test_server), 3);
        let video_id = running.current().video_id.unwrap();
        drop(running);
        let closed = test_server.close();
        closed.forget_pieces_from(place);
        let test_server = closed.open();
        assert_eq!(scenario.finish(&test_server).video_id, video_id);
        test_server.assert_created(0);
        assert_eq!(test_server.chunk_requests().len(), 5, "all but the first");
    });
}

#[test]
fn another_chunk_size_does_not_change_a_started_upload() {
    let test_server = slow_server(Scheme::Http, Way::Bytes);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    drop(scenario.begin(scenario.client(&test_server), 2));
    let client = scenario.client(&test_server).build().unwrap();
    let uploaded = client.upload(scenario.sample.path()).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &scenario.sample.path());
    assert_eq!(uploaded.chunks, 6);
    test_server.assert_created(1);
}

// Concurrent and repeated uploads.

#[test]
fn the_second_client_with_the_same_file_is_busy() {
    each_in_parallel(Way::CHUNKED, |way| {
        let test_server = slow_server(Scheme::Http, way);
        let scenario = ResumeScenario::new(&test_server, way);
        let running = scenario.begin(scenario.client(&test_server), 1);
        let client = scenario.client(&test_server).build().unwrap();
        let error = scenario.start(&client).join_blocking().unwrap_err();
        assert_eq!((error.kind(), error.video_id()), (ErrorKind::Busy, None), "{error:?}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let [running_entry] = &scenario.entries()[..] else { panic!("there is one") };
        assert!(matches!(running_entry.state, EntryState::Running { .. }));
        let uploaded = running.join_blocking().unwrap();
        test_server.assert_holds(&uploaded.video_id, &scenario.sample.path());
        test_server.assert_created(1);
        assert_eq!(test_server.chunk_requests().len(), 6);
    });
}

#[test]
fn a_finished_upload_starts_again() {
    each_in_parallel(Way::ALL, |way| {
        let test_server = TestServer::new(Scheme::Http);
        let scenario = ResumeScenario::new(&test_server, way);
        let (first, second) = (scenario.finish(&test_server), scenario.finish(&test_server));
        assert_ne!(first.video_id, second.video_id, "{way:?}");
        test_server.assert_created(2);
        assert!(scenario.entries().is_empty());
    });
}

#[test]
fn a_stream_is_never_resumed_and_its_container_is_listed() {
    let test_server =
        TestServer::faulty(Scheme::Http, vec![Way::Parts.fault(1, FaultAction::unauthorized())]);
    let scenario = ResumeScenario::new(&test_server, Way::Parts);
    let client = scenario.client(&test_server).build().unwrap();
    let stream = || client.upload_reader("live.mp4", fs::File::open(scenario.sample.path()).unwrap());
    let chunked = |upload: ringlift::Upload| upload.chunk_size(ringlift::ChunkSize::Bytes(CHUNK));
    let error = chunked(stream()).send_blocking().unwrap_err();
    let uploaded = chunked(stream()).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &scenario.sample.path());
    test_server.assert_created(2);
    let entries = scenario.entries();
    let orphans: Vec<_> = entries.iter().filter_map(Entry::orphan).collect();
    assert_eq!(orphans, [error.video_id().unwrap()]);
}

#[test]
fn no_chunk_is_sent_again_if_the_last_answers_of_a_delegated_upload_change_places() {
    each_in_parallel([Way::DelegatedBytes, Way::DelegatedParts], |way| {
        // The answer to the last chunk, which calls the video complete, overtakes this one.
        let late = way.fault(4, FaultAction::StallAnswering { for_ms: 500 });
        let test_server = TestServer::faulty(Scheme::Http, vec![late]);
        let scenario = ResumeScenario::new(&test_server, way);
        let upload = || {
            let client = scenario.client(&test_server).build().unwrap();
            let upload = way.upload_with(scenario.token.as_deref(), &client, &scenario.sample);
            upload.with_receipt().0.send_blocking().unwrap()
        };
        let first = upload();
        let sent = test_server.chunk_requests().len();
        assert_eq!(upload().video_id, first.video_id, "{way:?}");
        assert_eq!(test_server.chunk_requests().len(), sent, "{way:?}");
    });
}

#[test]
fn an_unconfirmed_upload_is_found_complete() {
    each_in_parallel(Way::ALL, |way| {
        // The status shows a single request only after the ingestion.
        let test_server = TestServer::with(Scheme::Http, |settings| settings.ingest_delay = Duration::ZERO);
        let scenario = ResumeScenario::new(&test_server, way);
        let upload = || {
            let client = scenario.client(&test_server).build().unwrap();
            let upload = way.upload_with(scenario.token.as_deref(), &client, &scenario.sample);
            let (upload, receipt) = upload.with_receipt();
            let uploaded = upload.send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &scenario.sample.path());
            (uploaded, receipt)
        };
        let (first, unconfirmed) = upload();
        drop(unconfirmed);
        let sent = test_server.chunk_requests().len();
        let (second, receipt) = upload();
        assert_eq!((&second.video_id, second.bytes), (&first.video_id, scenario.sample.len), "{way:?}");
        assert_eq!(test_server.chunk_requests().len(), sent, "{way:?}");
        receipt.confirm();
        wait_for("the journal to forget", || scenario.entries().is_empty());
        test_server.assert_created(1);
        assert_ne!(upload().0.video_id, first.video_id, "a confirmed upload begins anew");
    });
}

// Orphaned containers.

#[test]
fn a_file_changed_between_two_runs_gets_a_new_container_and_the_old_one_is_listed() {
    each_in_parallel(Way::CHUNKED, |way| {
        let test_server = slow_server(Scheme::Http, way);
        let scenario = ResumeScenario::new(&test_server, way);
        let running = scenario.begin(scenario.client(&test_server), 2);
        let old = running.current().video_id.unwrap();
        drop(running);
        let file = OpenOptions::new().write(true).open(scenario.sample.path()).unwrap();
        file.write_all_at(b"other bytes", 7).unwrap();
        let uploaded = scenario.finish(&test_server);
        assert_ne!(uploaded.video_id, old, "{way:?}");
        test_server.assert_created(2);
        let entries = scenario.entries();
        let orphans: Vec<_> = entries.iter().filter_map(Entry::orphan).collect();
        assert_eq!(orphans, [old]);
    });
}

#[test]
fn a_file_changed_during_the_upload_leaves_a_listed_container() {
    let test_server = slow_server(Scheme::Http, Way::Bytes);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    let running = scenario.begin(scenario.client(&test_server), 2);
    let file = OpenOptions::new().write(true).open(scenario.sample.path()).unwrap();
    file.write_all_at(b"other bytes", 7).unwrap();
    let error = running.join_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceChanged);
    let [entry] = &scenario.entries()[..] else { panic!("there is one") };
    assert_eq!((entry.state, entry.orphan()), (EntryState::Abandoned, error.video_id()));
}

#[test]
fn a_given_container_is_continued_and_never_listed_as_orphaned() {
    let test_server = slow_server(Scheme::Http, Way::Bytes);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    let client = scenario.client(&test_server).build().unwrap();
    let video = pollster::block_on(client.create_video(ringlift::NewVideo::default())).unwrap();
    let upload =
        |client: &Client| Way::Bytes.upload(&test_server, client, &scenario.sample).video_id(&video.video_id);
    let running = pollster::block_on(upload(&client).start()).unwrap();
    wait_for("two chunks", || running.current().acknowledged_chunks >= 2);
    drop(running);
    wait_for("the end", || scenario.entries()[0].state == EntryState::Interrupted);
    let [entry] = &scenario.entries()[..] else { panic!("there is one") };
    let given = ContainerState::Known { video_id: video.video_id.clone(), made: CreatedBy::Given };
    assert_eq!((&entry.container, entry.orphan()), (&given, None));
    let uploaded = upload(&client).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &scenario.sample.path());
    test_server.assert_created(1);
}

#[test]
fn a_creation_without_an_answer_is_found_by_the_next_run() {
    let test_server = TestServer::faulty(
        Scheme::Http,
        vec![Fault::new(RouteClass::Create, FaultAction::StallAnswering { for_ms: 60_000 })],
    );
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    let running = scenario.begin(scenario.client(&test_server), 0);
    wait_for("the creation", || test_server.server.stats().videos_created == 1);
    drop(running);
    let [entry] = &scenario.entries()[..] else { panic!("there is one") };
    assert!(matches!(entry.container, ContainerState::Intended { .. }), "{entry:?}");
    scenario.finish(&test_server);
    test_server.assert_created(1);
}

// Unusable journals.

fn refused(scenario: &ResumeScenario, test_server: &TestServer) -> Error {
    let client = match scenario.client(test_server).build() {
        Ok(client) => client,
        Err(error) => return error,
    };
    scenario.start(&client).join_blocking().unwrap_err()
}

fn assert_refused(test_server: &TestServer, scenario: &ResumeScenario, reason: &str) {
    let before = fs::read(scenario.journal()).unwrap();
    let error = refused(scenario, test_server);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!((error.kind(), cause.contains(reason)), (ErrorKind::Journal, true), "{error:?}");
    assert!(cause.contains("journal.db"), "{cause}");
    assert_eq!(fs::read(scenario.journal()).unwrap(), before, "it was written to");
}

#[test]
fn a_file_that_is_not_a_journal_is_refused_before_anything_is_created() {
    let test_server = TestServer::new(Scheme::Http);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    fs::write(scenario.journal(), b"a letter to somebody").unwrap();
    assert_refused(&test_server, &scenario, "is not a ringlift journal");
    fs::write(scenario.journal(), [b"SQLite format 3\0".as_slice(), &[7; 4096]].concat()).unwrap();
    assert_refused(&test_server, &scenario, "is not a ringlift journal");
    test_server.assert_created(0);
    assert!(test_server.chunk_requests().is_empty());
}

#[test]
fn a_damaged_journal_is_refused_before_anything_is_created() {
    let test_server = slow_server(Scheme::Http, Way::Bytes);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    drop(scenario.begin(scenario.client(&test_server), 2));
    test_server.assert_created(1);
    let sent = test_server.chunk_requests().len();
    let tampered = rusqlite::Connection::open(scenario.journal()).unwrap();
    tampered.execute("UPDATE sessions SET stored = x'ff'", []).unwrap();
    tampered.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(tampered);
    assert_refused(&test_server, &scenario, "is damaged");
    let whole = fs::read(scenario.journal()).unwrap();
    fs::write(scenario.journal(), &whole[..50]).unwrap();
    assert_refused(&test_server, &scenario, "is damaged");
    test_server.assert_created(1);
    assert_eq!(test_server.chunk_requests().len(), sent);
}

#[test]
fn a_journal_of_another_version_is_refused_before_anything_is_created() {
    let test_server = TestServer::new(Scheme::Http);
    let scenario = ResumeScenario::new(&test_server, Way::Bytes);
    drop(Journal::open(&scenario.journal()).unwrap());
    for (version, reason) in [(99, "newer"), (0, "older")] {
        let other = rusqlite::Connection::open(scenario.journal()).unwrap();
        other.pragma_update(None, "user_version", version).unwrap();
        other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(other);
        assert_refused(&test_server, &scenario, reason);
    }
    test_server.assert_created(0);
}
