//! Success is said only when the service holds the file, and no video that may be whole is given up or deleted,
//! whatever stands between the client and the service.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringlift::{Client, ErrorKind};

use crate::support::command::{Ran, ringlift, run};
use crate::support::middlebox::{Middlebox, Seen, Treatment, page, problem};
use crate::support::way::Way;
use crate::support::{House, MIB, Sample, Scheme, hurry};

const LAST_OF_THREE: &str = "bytes 10485760-";
const SECOND: &str = "bytes 5242880-";

/// Counts to say which of several requests is meant.
#[derive(Default)]
struct Count(AtomicU32);

impl Count {
    /// How often this was called before.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn hasty(house: &House, url: &str) -> Client {
    house.client().with(hurry).endpoint_url(url).lanes(1).build().unwrap()
}

fn middlebox(house: &House, treat: impl Fn(&Seen<'_>) -> Treatment + Send + Sync + 'static) -> Middlebox {
    Middlebox::start(house.server.addr(), treat)
}

/// Runs the command through the proxy, with the journal of the house.
fn command(house: &House, url: &str, args: &[&str]) -> Ran {
    let mut command = ringlift();
    house.host(&mut command).args(args).args(["--endpoint-url", url]);
    run(&mut command)
}

fn upload<'a>(sample: &'a Sample, more: &[&'a str]) -> Vec<&'a str> {
    [&["upload", "--json", "--chunk-size", "5MiB", "--concurrency", "1"], more, &[sample.arg()]].concat()
}

#[test]
fn an_odd_answer_to_the_status_question_is_no_word_about_the_video() {
    for odd in [
        page(404, ""),
        page(400, ""),
        page(409, ""),
        page(307, "Location: /elsewhere\r\n"),
        problem(404, "resource-not-found"),
        problem(400, "invalid-attribute"),
    ] {
        let house = House::new(Scheme::Http);
        let (chunks, questions) = (Count::default(), Count::default());
        let told = odd.clone();
        let middlebox = middlebox(&house, move |seen| match () {
            () if seen.is_chunk() && chunks.next() == 2 => Treatment::LoseAnswer,
            () if seen.is_status() && questions.next() == 0 => Treatment::Answer(told.clone()),
            () => Treatment::Pass,
        });
        let sample = Sample::new(11 * MIB);
        let uploaded = hasty(&house, &middlebox.url());
        let uploaded = uploaded.upload(sample.path()).mode(ringlift::Mode::Bytes);
        let uploaded = uploaded.chunk_size(ringlift::ChunkSize::Bytes(5 * MIB)).send_blocking();
        let uploaded = uploaded.unwrap_or_else(|error| panic!("{odd}: {error:?}"));
        house.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(house.chunk_requests().len(), 3, "{odd}");
    }
}

#[test]
fn a_video_whose_state_is_not_known_is_neither_called_incomplete_nor_deleted_and_is_found_complete_later() {
    for all in [false, true] {
        let house = House::new(Scheme::Http);
        let (chunks, questions) = (Count::default(), Count::default());
        let middlebox = middlebox(&house, move |seen| match () {
            () if seen.is_chunk() && chunks.next() == 2 => Treatment::LoseAnswer,
            // The upload asks twice, and `clean` once before it gives the video up.
            () if seen.is_status() && questions.next() < 2 => Treatment::Answer(page(404, "")),
            () => Treatment::Pass,
        });
        let sample = Sample::new(11 * MIB);
        let ran = command(&house, &middlebox.url(), &upload(&sample, &["--retries", "1"]));
        let ran = ran.failed(5, &["ringlift resume"]);
        assert!(!ran.stderr.contains("not filled"), "{}", ran.stderr);
        assert_eq!(ran.event("file_failed")["resumable"], true);
        let video_id = ran.event("created")["video_id"].as_str().unwrap().to_owned();
        let clean: &[&str] = if all { &["clean", "--yes", "--all"] } else { &["clean", "--yes"] };
        command(&house, &middlebox.url(), clean).done();
        house.assert_holds(&video_id, &sample.path());
        if !all {
            let again = command(&house, &middlebox.url(), &upload(&sample, &[])).done();
            assert_eq!(again.summary()["video_id"], *video_id);
            assert_eq!((house.chunk_requests().len(), house.server.stats().videos_created), (3, 1));
        }
    }
}

#[test]
fn clean_keeps_what_it_cannot_ask_about_and_deletes_nothing_that_is_not_there() {
    for (odd, is_kept) in
        [(page(404, ""), true), (page(502, ""), true), (problem(404, "resource-not-found"), false)]
    {
        let house = House::new(Scheme::Http);
        let told = odd.clone();
        let middlebox = middlebox(&house, move |seen| match () {
            () if seen.is_chunk() && seen.content_range().starts_with(LAST_OF_THREE) => {
                Treatment::Replace(problem(400, "video-content-range-malformed"))
            }
            () if seen.is_status() => Treatment::Answer(told.clone()),
            () => Treatment::Pass,
        });
        let sample = Sample::new(11 * MIB);
        let ran = command(&house, &middlebox.url(), &upload(&sample, &[])).failed(1, &[]);
        let video_id = ran.event("created")["video_id"].as_str().unwrap().to_owned();
        let cleaned = command(&house, &middlebox.url(), &["clean", "--yes", "--retries", "0"]);
        assert_eq!(cleaned.code == Some(0), !is_kept, "{odd}: {cleaned:?}");
        house.assert_holds(&video_id, &sample.path());
        let listed = command(&house, &middlebox.url(), &["resume", "--list", "--json"]).done();
        assert_eq!(listed.stdout.contains(&video_id), is_kept, "{odd}: {listed:?}");
    }
}

#[test]
fn a_request_that_a_proxy_delivers_twice_is_stored_once_and_no_error() {
    for way in [Way::Single, Way::Bytes, Way::Parts, Way::DelegatedBytes, Way::DelegatedParts] {
        for hit in 0..3 {
            // Without a video id each delivery makes a video of its own.
            if hit > 0 && way == Way::Single || hit == 0 && way.is_delegated() {
                continue;
            }
            let house = House::new(Scheme::Http);
            let chunks = Count::default();
            let middlebox = middlebox(&house, move |seen| match seen.is_chunk() && chunks.next() == hit {
                true => Treatment::DeliverTwice,
                false => Treatment::Pass,
            });
            let sample = way.sample(3);
            let client = hasty(&house, &middlebox.url());
            let uploaded = way.upload(&house, &client, &sample).send_blocking();
            let uploaded = uploaded.unwrap_or_else(|error| panic!("{way:?}, chunk {hit}: {error:?}"));
            house.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!(house.server.stats().videos_created, 1, "{way:?}, chunk {hit}");
        }
    }
}

#[test]
fn a_service_that_never_sees_the_content_range_gives_no_success() {
    for way in [Way::Bytes, Way::Parts, Way::DelegatedBytes, Way::DelegatedParts] {
        for lanes in [1, 3] {
            let house = House::new(Scheme::Http);
            let middlebox = middlebox(&house, |_| Treatment::Strip("content-range"));
            let client =
                house.client().with(hurry).endpoint_url(middlebox.url()).lanes(lanes).build().unwrap();
            let sample = way.sample(3);
            let error = way.upload(&house, &client, &sample).send_blocking().unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::AlreadyFilled),
                "{way:?}, {lanes} lanes: {error:?}"
            );
        }
    }
}

#[test]
fn one_answer_of_a_gateway_costs_sending_that_chunk_again() {
    for odd in [400, 402, 404, 405, 409, 413, 418, 421, 423, 431, 451, 499, 501] {
        let house = House::new(Scheme::Http);
        let hits = Count::default();
        let middlebox = middlebox(&house, move |seen| {
            let is_hit = seen.is_chunk() && seen.content_range().starts_with(SECOND) && hits.next() == 0;
            if is_hit { Treatment::Answer(page(odd, "")) } else { Treatment::Pass }
        });
        let way = Way::Bytes;
        let sample = way.sample(3);
        let uploaded = way.upload(&house, &hasty(&house, &middlebox.url()), &sample).send_blocking();
        let uploaded = uploaded.unwrap_or_else(|error| panic!("{odd}: {error:?}"));
        house.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(house.server.stats().videos_created, 1, "{odd}");
    }
}

#[test]
fn a_gateway_that_answers_on_and_on_ends_the_upload_and_the_same_command_goes_on_with_it() {
    let house = House::new(Scheme::Http);
    let hits = Count::default();
    let middlebox = middlebox(&house, move |seen| {
        let is_hit = seen.is_chunk() && seen.content_range().starts_with(SECOND) && hits.next() < 3;
        if is_hit { Treatment::Answer(page(404, "")) } else { Treatment::Pass }
    });
    let sample = Sample::new(11 * MIB);
    let ran = command(&house, &middlebox.url(), &upload(&sample, &["--retries", "2"]));
    let ran = ran.failed(1, &["ringlift resume"]);
    assert_eq!(ran.event("file_failed")["resumable"], true);
    let again = command(&house, &middlebox.url(), &upload(&sample, &[])).done();
    assert_eq!(again.summary()["video_id"], ran.event("created")["video_id"]);
    assert_eq!((house.server.stats().chunks_accepted, house.server.stats().videos_created), (3, 1));
}

#[test]
fn a_replica_that_does_not_know_the_new_video_yet_is_waited_for() {
    let house = House::new(Scheme::Http);
    let chunks = Count::default();
    let middlebox = middlebox(&house, move |seen| match seen.is_chunk() && chunks.next() < 2 {
        true => Treatment::Answer(problem(404, "resource-not-found")),
        false => Treatment::Pass,
    });
    let sample = Sample::new(11 * MIB);
    let ran = command(&house, &middlebox.url(), &upload(&sample, &[])).done();
    house.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    assert_eq!(house.server.stats().videos_created, 1);
}

#[test]
fn an_odd_answer_while_the_video_is_waited_for_is_no_failure() {
    for odd in [page(404, ""), problem(404, "resource-not-found")] {
        let house = House::new(Scheme::Http);
        let questions = Count::default();
        let middlebox = middlebox(&house, move |seen| match seen.is_status() && questions.next() == 0 {
            true => Treatment::Answer(odd.clone()),
            false => Treatment::Pass,
        });
        let sample = Sample::new(MIB);
        command(&house, &middlebox.url(), &upload(&sample, &["--verify"])).done();
    }
}

#[test]
fn a_service_that_is_away_is_left_alone_for_as_long_as_it_says() {
    for (status, name) in [(503, "Retry-After"), (502, "X-RateLimit-Retry-After"), (408, "Retry-After")] {
        let house = House::new(Scheme::Http);
        let answer = page(status, &format!("{name}: 2\r\n"));
        let times = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen_at = times.clone();
        let middlebox = middlebox(&house, move |seen| {
            if !seen.is_chunk() || !seen.content_range().starts_with(SECOND) {
                return Treatment::Pass;
            }
            let mut times = seen_at.lock().unwrap();
            times.push(Instant::now());
            if times.len() < 3 { Treatment::Answer(answer.clone()) } else { Treatment::Pass }
        });
        let sample = Sample::new(11 * MIB);
        // Waits that the service asks for are no retries.
        command(&house, &middlebox.url(), &upload(&sample, &["--retries", "0"])).done();
        for pair in times.lock().unwrap().windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_secs(2), "{status} {name}: back too early");
        }
    }
}

#[test]
fn the_creation_waits_for_a_service_that_is_away_too() {
    let house = House::new(Scheme::Http);
    let hits = Count::default();
    let begun = Instant::now();
    let middlebox = middlebox(&house, move |seen| match seen.is_creation() && hits.next() == 0 {
        true => Treatment::Answer(page(503, "Retry-After: 2\r\n")),
        false => Treatment::Pass,
    });
    let sample = Sample::new(MIB);
    command(&house, &middlebox.url(), &upload(&sample, &["--retries", "0"])).done();
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(fs::metadata(sample.path()).is_ok());
}
