//! Uploads that ended before they were over, and go on: by the same call, another client, the journal.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::journal::{ContainerState, CreatedBy, Entry, EntryState, Journal};
use ringlift::server::{Action, Fault, RouteClass};
use ringlift::{Client, ClientBuilder, Error, ErrorKind, Running, Uploaded};

use crate::support::way::{CHUNK, Way};
use crate::support::{House, Sample, Scheme, each_at_once};

const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https];

/// An upload that takes several runs.
struct Errand {
    way: Way,
    sample: Sample,
    token: Option<String>,
    folder: tempfile::TempDir,
}

impl Errand {
    fn new(house: &House, way: Way) -> Errand {
        let (sample, token) = (way.sample(6), way.token(house));
        Errand { way, sample, token, folder: tempfile::tempdir().unwrap() }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn client(&self, house: &House) -> ClientBuilder {
        house.hasty_client().lanes(2).with(|settings| settings.journal = Some(self.journal()))
    }

    fn start(&self, client: &Client) -> Running {
        let upload = self.way.upload_with(self.token.as_deref(), client, &self.sample);
        pollster::block_on(upload.start()).unwrap()
    }

    /// Starts with a client of its own and waits until so many chunks are acknowledged.
    fn begin(&self, client: ClientBuilder, chunks: u32) -> Running {
        let running = self.start(&client.build().unwrap());
        let begun = Instant::now();
        while running.current().acknowledged_chunks < chunks {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", running.current());
            sleep(Duration::from_millis(5));
        }
        running
    }

    /// The same call with a new client; now it succeeds.
    fn finish(&self, house: &House) -> Uploaded {
        let client = self.client(house).build().unwrap();
        let uploaded = self.start(&client).join_blocking().unwrap();
        house.assert_holds(&uploaded.video_id, &self.sample.path());
        uploaded
    }

    fn entries(&self) -> Vec<Entry> {
        Journal::open(&self.journal()).unwrap().entries().unwrap()
    }
}

/// A house where every chunk takes its time to be acknowledged, and the fifth much longer.
fn slow_house(scheme: Scheme, way: Way) -> House {
    let slow = Action::StallAnswering { for_ms: 150 };
    let stop = way.fault(4, Action::StallReading { after_bytes: 0, for_ms: 2000 });
    House::faulty(scheme, vec![stop, Fault::new(RouteClass::Chunk, slow).times(0)])
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(5));
    }
}

fn everywhere() -> impl Iterator<Item = (Scheme, Way)> {
    SCHEMES.into_iter().flat_map(|scheme| Way::CHUNKED.map(|way| (scheme, way)))
}

// However it ended.

#[test]
fn a_cancelled_upload_goes_on_where_it_was() {
    each_at_once(everywhere(), |(scheme, way)| {
        let house = slow_house(scheme, way);
        let errand = Errand::new(&house, way);
        let running = errand.begin(errand.client(&house), 2);
        let video_id = running.current().video_id.unwrap();
        running.stopper().cancel();
        let error = running.join_blocking().unwrap_err();
        assert_eq!((error.kind(), error.video_id()), (ErrorKind::Cancelled, Some(&*video_id)));
        let [left] = &errand.entries()[..] else { panic!("one is left") };
        assert!(left.is_resumable() && left.stored_chunks >= 2, "{left:?}");
        assert_eq!(errand.finish(&house).video_id, video_id, "{scheme:?} {way:?}");
        house.assert_created(1);
        assert!(house.chunk_requests().len() <= 6 + 2, "only what was under way is sent again");
        assert!(errand.entries().is_empty());
    });
}

#[test]
fn an_upload_whose_client_went_away_goes_on_where_it_was() {
    each_at_once(everywhere(), |(scheme, way)| {
        let house = slow_house(scheme, way);
        let errand = Errand::new(&house, way);
        let running = errand.begin(errand.client(&house), 2);
        let video_id = running.current().video_id.unwrap();
        // With it goes the last handle of its client.
        drop(running);
        assert_eq!(errand.finish(&house).video_id, video_id, "{scheme:?} {way:?}");
        house.assert_created(1);
        assert!(house.chunk_requests().len() <= 6 + 2, "only what was under way is sent again");
    });
}

#[test]
fn an_upload_that_was_stopped_sends_exactly_the_rest() {
    each_at_once(everywhere(), |(scheme, way)| {
        let house = slow_house(scheme, way);
        let errand = Errand::new(&house, way);
        let running = errand.begin(errand.client(&house), 2);
        running.stopper().stop();
        let error = running.join_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
        let uploaded = errand.finish(&house);
        assert_eq!(house.chunk_requests().len() as u32, uploaded.chunks, "{scheme:?} {way:?}");
        house.assert_created(1);
    });
}

#[test]
fn an_upload_goes_on_when_its_server_is_back() {
    each_at_once(everywhere(), |(scheme, way)| {
        let house = slow_house(scheme, way);
        let errand = Errand::new(&house, way);
        let impatient = errand.client(&house).with(|settings| settings.retry.retries = 2);
        let running = errand.begin(impatient, 2);
        let video_id = running.current().video_id.unwrap();
        let closed = house.close();
        let error = running.join_blocking().unwrap_err();
        assert!(error.is_temporary(), "{error:?}");
        assert_eq!(error.video_id(), Some(&*video_id));
        let house = closed.open();
        assert_eq!(errand.finish(&house).video_id, video_id, "{scheme:?} {way:?}");
        house.assert_created(0);
        assert!(house.chunk_requests().len() <= 4);
    });
}

#[test]
fn an_upload_goes_on_with_other_credentials() {
    let house = House::faulty(Scheme::Http, vec![Way::Bytes.fault(3, Action::unauthorized())]);
    let errand = Errand::new(&house, Way::Bytes);
    let client = errand.client(&house).build().unwrap();
    let error = errand.start(&client).join_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthorized);
    drop(client);
    assert_eq!(Some(&*errand.finish(&house).video_id), error.video_id());
    house.assert_created(1);
    house.assert_nothing_was_sent_twice();
}

#[test]
fn a_single_request_goes_into_the_container_that_was_made_for_it() {
    for action in [Action::CloseBeforeRecording, Action::CloseAfterRecording] {
        let house = House::faulty(Scheme::Http, vec![Way::Single.fault(0, action)]);
        let errand = Errand::new(&house, Way::Single);
        let impatient = errand.client(&house).with(|settings| settings.retry.retries = 0);
        let client = impatient.build().unwrap();
        let first = errand.start(&client).join_blocking();
        drop(client);
        if let Err(error) = first {
            assert!(error.is_temporary(), "{error:?}");
            assert_eq!(Some(&*errand.finish(&house).video_id), error.video_id());
        }
        house.assert_created(1);
    }
}

// Whose word counts.

/// Ends an upload while its second chunk is stored and not acknowledged; goes on with it.
fn with_a_chunk_nobody_acknowledged(scheme: Scheme, way: Way) -> (House, Uploaded) {
    let house = House::faulty(scheme, vec![way.fault(1, Action::StallAnswering { for_ms: 60_000 })]);
    let errand = Errand::new(&house, way);
    let running = errand.begin(errand.client(&house).lanes(1), 1);
    wait_for("the second chunk", || house.server.tally().chunks_accepted == 2);
    drop(running);
    let uploaded = errand.finish(&house);
    house.assert_created(1);
    (house, uploaded)
}

#[test]
fn with_a_key_what_the_service_has_is_not_sent_again_though_nobody_wrote_it_down() {
    each_at_once([(Scheme::Http, Way::Bytes), (Scheme::Https, Way::Parts)], |(scheme, way)| {
        let (house, uploaded) = with_a_chunk_nobody_acknowledged(scheme, way);
        assert_eq!(house.chunk_requests().len() as u32, uploaded.chunks);
    });
}

#[test]
fn without_a_key_it_is_sent_again_and_already_sent_is_an_answer() {
    each_at_once(
        [(Scheme::Http, Way::DelegatedParts), (Scheme::Https, Way::DelegatedBytes)],
        |(scheme, way)| {
            let (house, uploaded) = with_a_chunk_nobody_acknowledged(scheme, way);
            assert_eq!(house.chunk_requests().len() as u32, uploaded.chunks + 1);
            assert_eq!(house.server.tally().refused.values().sum::<u64>(), 1);
        },
    );
}

#[test]
fn what_the_service_lost_is_sent_again_though_it_was_acknowledged() {
    each_at_once([(Way::Bytes, CHUNK), (Way::Parts, 2)], |(way, place)| {
        let stop = |index| way.fault(index, Action::StallReading { after_bytes: 0, for_ms: 60_000 });
        let house = House::faulty(Scheme::Http, vec![stop(3), stop(4)]);
        let errand = Errand::new(&house, way);
        let running = errand.begin(errand.client(&house), 3);
        let video_id = running.current().video_id.unwrap();
        drop(running);
        let closed = house.close();
        closed.forget_pieces_from(place);
        let house = closed.open();
        assert_eq!(errand.finish(&house).video_id, video_id);
        house.assert_created(0);
        assert_eq!(house.chunk_requests().len(), 5, "all but the first");
    });
}

#[test]
fn another_chunk_size_does_not_change_an_upload_that_has_begun() {
    let house = slow_house(Scheme::Http, Way::Bytes);
    let errand = Errand::new(&house, Way::Bytes);
    drop(errand.begin(errand.client(&house), 2));
    let client = errand.client(&house).build().unwrap();
    let uploaded = client.upload(errand.sample.path()).send_blocking().unwrap();
    house.assert_holds(&uploaded.video_id, &errand.sample.path());
    assert_eq!(uploaded.chunks, 6);
    house.assert_created(1);
}

// Who may.

#[test]
fn of_two_clients_with_the_same_file_one_works_and_the_other_says_so() {
    each_at_once(Way::CHUNKED, |way| {
        let house = slow_house(Scheme::Http, way);
        let errand = Errand::new(&house, way);
        let running = errand.begin(errand.client(&house), 1);
        let client = errand.client(&house).build().unwrap();
        let error = errand.start(&client).join_blocking().unwrap_err();
        assert_eq!((error.kind(), error.video_id()), (ErrorKind::Busy, None), "{error:?}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let [running_entry] = &errand.entries()[..] else { panic!("there is one") };
        assert!(matches!(running_entry.state, EntryState::Running { .. }));
        let uploaded = running.join_blocking().unwrap();
        house.assert_holds(&uploaded.video_id, &errand.sample.path());
        house.assert_created(1);
        assert_eq!(house.chunk_requests().len(), 6);
    });
}

#[test]
fn a_finished_upload_begins_anew() {
    each_at_once(Way::ALL, |way| {
        let house = House::new(Scheme::Http);
        let errand = Errand::new(&house, way);
        let (first, second) = (errand.finish(&house), errand.finish(&house));
        assert_ne!(first.video_id, second.video_id, "{way:?}");
        house.assert_created(2);
        assert!(errand.entries().is_empty());
    });
}

#[test]
fn a_stream_is_never_taken_up_and_its_container_is_listed() {
    let house = House::faulty(Scheme::Http, vec![Way::Parts.fault(1, Action::unauthorized())]);
    let errand = Errand::new(&house, Way::Parts);
    let client = errand.client(&house).build().unwrap();
    let stream = || client.upload_reader("live.mp4", fs::File::open(errand.sample.path()).unwrap());
    let chunked = |upload: ringlift::Upload| upload.chunk_size(ringlift::ChunkSize::Bytes(CHUNK));
    let error = chunked(stream()).send_blocking().unwrap_err();
    let uploaded = chunked(stream()).send_blocking().unwrap();
    house.assert_holds(&uploaded.video_id, &errand.sample.path());
    house.assert_created(2);
    let entries = errand.entries();
    let orphans: Vec<_> = entries.iter().filter_map(Entry::orphan).collect();
    assert_eq!(orphans, [error.video_id().unwrap()]);
}

#[test]
fn an_upload_whose_end_nobody_heard_of_is_found_complete() {
    each_at_once(Way::ALL, |way| {
        // What went in a single request shows only once it is ingested.
        let house = House::with(Scheme::Http, |settings| settings.ingest_delay = Duration::ZERO);
        let errand = Errand::new(&house, way);
        let upload = || {
            let client = errand.client(&house).build().unwrap();
            let upload = way.upload_with(errand.token.as_deref(), &client, &errand.sample);
            let (upload, receipt) = upload.with_receipt();
            let uploaded = upload.send_blocking().unwrap();
            house.assert_holds(&uploaded.video_id, &errand.sample.path());
            (uploaded, receipt)
        };
        let (first, unconfirmed) = upload();
        drop(unconfirmed);
        let sent = house.chunk_requests().len();
        let (second, receipt) = upload();
        assert_eq!((&second.video_id, second.bytes), (&first.video_id, errand.sample.len), "{way:?}");
        assert_eq!(house.chunk_requests().len(), sent, "{way:?}");
        receipt.confirm();
        wait_for("the journal to forget", || errand.entries().is_empty());
        house.assert_created(1);
        assert_ne!(upload().0.video_id, first.video_id, "a confirmed upload begins anew");
    });
}

// Containers that nobody will fill.

#[test]
fn a_file_that_changed_between_two_runs_goes_into_a_new_container_and_the_old_one_is_listed() {
    each_at_once(Way::CHUNKED, |way| {
        let house = slow_house(Scheme::Http, way);
        let errand = Errand::new(&house, way);
        let running = errand.begin(errand.client(&house), 2);
        let old = running.current().video_id.unwrap();
        drop(running);
        let file = OpenOptions::new().write(true).open(errand.sample.path()).unwrap();
        file.write_all_at(b"other bytes", 7).unwrap();
        let uploaded = errand.finish(&house);
        assert_ne!(uploaded.video_id, old, "{way:?}");
        house.assert_created(2);
        let entries = errand.entries();
        let orphans: Vec<_> = entries.iter().filter_map(Entry::orphan).collect();
        assert_eq!(orphans, [old]);
    });
}

#[test]
fn a_file_that_changed_in_the_middle_leaves_a_container_that_is_listed() {
    let house = slow_house(Scheme::Http, Way::Bytes);
    let errand = Errand::new(&house, Way::Bytes);
    let running = errand.begin(errand.client(&house), 2);
    let file = OpenOptions::new().write(true).open(errand.sample.path()).unwrap();
    file.write_all_at(b"other bytes", 7).unwrap();
    let error = running.join_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceChanged);
    let [entry] = &errand.entries()[..] else { panic!("there is one") };
    assert_eq!((entry.state, entry.orphan()), (EntryState::Abandoned, error.video_id()));
}

#[test]
fn a_container_that_was_given_is_continued_and_is_nobodys_orphan() {
    let house = slow_house(Scheme::Http, Way::Bytes);
    let errand = Errand::new(&house, Way::Bytes);
    let client = errand.client(&house).build().unwrap();
    let video = pollster::block_on(client.create_video(ringlift::NewVideo::default())).unwrap();
    let upload =
        |client: &Client| Way::Bytes.upload(&house, client, &errand.sample).video_id(&video.video_id);
    let running = pollster::block_on(upload(&client).start()).unwrap();
    wait_for("two chunks", || running.current().acknowledged_chunks >= 2);
    drop(running);
    wait_for("the end", || errand.entries()[0].state == EntryState::Interrupted);
    let [entry] = &errand.entries()[..] else { panic!("there is one") };
    let given = ContainerState::Known { video_id: video.video_id.clone(), made: CreatedBy::Given };
    assert_eq!((&entry.container, entry.orphan()), (&given, None));
    let uploaded = upload(&client).send_blocking().unwrap();
    house.assert_holds(&uploaded.video_id, &errand.sample.path());
    house.assert_created(1);
}

#[test]
fn a_creation_without_an_answer_is_found_by_the_next_run() {
    let house = House::faulty(
        Scheme::Http,
        vec![Fault::new(RouteClass::Create, Action::StallAnswering { for_ms: 60_000 })],
    );
    let errand = Errand::new(&house, Way::Bytes);
    let running = errand.begin(errand.client(&house), 0);
    wait_for("the creation", || house.server.tally().videos_created == 1);
    drop(running);
    let [entry] = &errand.entries()[..] else { panic!("there is one") };
    assert!(matches!(entry.container, ContainerState::Intended { .. }), "{entry:?}");
    errand.finish(&house);
    house.assert_created(1);
}

// Journals that cannot be used.

fn refused(errand: &Errand, house: &House) -> Error {
    let client = match errand.client(house).build() {
        Ok(client) => client,
        Err(error) => return error,
    };
    errand.start(&client).join_blocking().unwrap_err()
}

fn assert_refused(house: &House, errand: &Errand, reason: &str) {
    let before = fs::read(errand.journal()).unwrap();
    let error = refused(errand, house);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!((error.kind(), cause.contains(reason)), (ErrorKind::Journal, true), "{error:?}");
    assert!(cause.contains("journal.db"), "{cause}");
    assert_eq!(fs::read(errand.journal()).unwrap(), before, "it was written to");
}

#[test]
fn a_journal_that_is_none_is_refused_before_anything_is_created() {
    let house = House::new(Scheme::Http);
    let errand = Errand::new(&house, Way::Bytes);
    fs::write(errand.journal(), b"a letter to somebody").unwrap();
    assert_refused(&house, &errand, "no ringlift journal");
    fs::write(errand.journal(), [b"SQLite format 3\0".as_slice(), &[7; 4096]].concat()).unwrap();
    assert_refused(&house, &errand, "no ringlift journal");
    house.assert_created(0);
    assert!(house.chunk_requests().is_empty());
}

#[test]
fn a_damaged_journal_is_refused_before_anything_is_created() {
    let house = slow_house(Scheme::Http, Way::Bytes);
    let errand = Errand::new(&house, Way::Bytes);
    drop(errand.begin(errand.client(&house), 2));
    house.assert_created(1);
    let sent = house.chunk_requests().len();
    let tampered = rusqlite::Connection::open(errand.journal()).unwrap();
    tampered.execute("UPDATE sessions SET stored = x'ff'", []).unwrap();
    tampered.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(tampered);
    assert_refused(&house, &errand, "is damaged");
    let whole = fs::read(errand.journal()).unwrap();
    fs::write(errand.journal(), &whole[..50]).unwrap();
    assert_refused(&house, &errand, "is damaged");
    house.assert_created(1);
    assert_eq!(house.chunk_requests().len(), sent);
}

#[test]
fn a_journal_of_another_version_is_refused_before_anything_is_created() {
    let house = House::new(Scheme::Http);
    let errand = Errand::new(&house, Way::Bytes);
    drop(Journal::open(&errand.journal()).unwrap());
    for (version, reason) in [(99, "newer"), (0, "older")] {
        let other = rusqlite::Connection::open(errand.journal()).unwrap();
        other.pragma_update(None, "user_version", version).unwrap();
        other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(other);
        assert_refused(&house, &errand, reason);
    }
    house.assert_created(0);
}
