//! Success is reported only if the service has the file, and no video that may be complete is given up or deleted, with
//! any proxy between the client and the service.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringlift::{Client, ErrorKind};

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::middlebox::{Middlebox, SeenRequest, Treatment, page, problem};
use crate::support::way::Way;
use crate::support::{MIB, Sample, Scheme, TestServer, short_pauses};

const LAST_OF_THREE: &str = "bytes 10485760-";
const SECOND: &str = "bytes 5242880-";

/// Numbers the requests of a test.
#[derive(Default)]
struct CallCounter(AtomicU32);

impl CallCounter {
    /// Returns the number of earlier calls.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn short_pause_client(test_server: &TestServer, url: &str) -> Client {
    test_server.client().with(short_pauses).endpoint_url(url).lanes(1).build().unwrap()
}

fn middlebox(
    test_server: &TestServer,
    treat: impl Fn(&SeenRequest<'_>) -> Treatment + Send + Sync + 'static,
) -> Middlebox {
    Middlebox::start(test_server.server.addr(), treat)
}

/// Runs the command through the proxy, with the journal of the test server.
fn command(test_server: &TestServer, url: &str, args: &[&str]) -> CommandOutput {
    let mut command = ringlift();
    test_server.configure(&mut command).args(args).args(["--endpoint-url", url]);
    run(&mut command)
}

fn upload<'a>(sample: &'a Sample, more: &[&'a str]) -> Vec<&'a str> {
    [&["upload", "--json", "--chunk-size", "5MiB", "--concurrency", "1"], more, &[sample.arg()]].concat()
}

#[test]
fn an_unexpected_status_answer_proves_nothing_about_the_video() {
    for odd in [
        page(404, ""),
        page(400, ""),
        page(409, ""),
        page(307, "Location: /elsewhere\r\n"),
        problem(404, "resource-not-found"),
        problem(400, "invalid-attribute"),
    ] {
        let test_server = TestServer::new(Scheme::Http);
        let (chunks, questions) = (CallCounter::default(), CallCounter::default());
        let told = odd.clone();
        let middlebox = middlebox(&test_server, move |seen| match () {
            () if seen.is_chunk() && chunks.next() == 2 => Treatment::LoseAnswer,
            () if seen.is_status() && questions.next() == 0 => Treatment::Answer(told.clone()),
            () => Treatment::Pass,
        });
        let sample = Sample::new(11 * MIB);
        let uploaded = short_pause_client(&test_server, &middlebox.url());
        let uploaded = uploaded.upload(sample.path()).mode(ringlift::Mode::Bytes);
        let uploaded = uploaded.chunk_size(ringlift::ChunkSize::Bytes(5 * MIB)).send_blocking();
        let uploaded = uploaded.unwrap_or_else(|error| panic!("{odd}: {error:?}"));
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(test_server.chunk_requests().len(), 3, "{odd}");
    }
}

#[test]
fn a_video_of_unknown_state_is_kept_and_found_complete_later() {
    for all in [false, true] {
        let test_server = TestServer::new(Scheme::Http);
        let (chunks, questions) = (CallCounter::default(), CallCounter::default());
        let middlebox = middlebox(&test_server, move |seen| match () {
            () if seen.is_chunk() && chunks.next() == 2 => Treatment::LoseAnswer,
            // The upload requests the status twice, and `clean` once before it gives the video up.
            () if seen.is_status() && questions.next() < 2 => Treatment::Answer(page(404, "")),
            () => Treatment::Pass,
        });
        let sample = Sample::new(11 * MIB);
        let ran = command(&test_server, &middlebox.url(), &upload(&sample, &["--retries", "1"]));
        let ran = ran.failed(5, &["ringlift resume"]);
        assert!(!ran.stderr.contains("is incomplete"), "{}", ran.stderr);
        assert_eq!(ran.event("file_failed")["resumable"], true);
        let video_id = ran.event("created")["video_id"].as_str().unwrap().to_owned();
        let clean: &[&str] = if all { &["clean", "--yes", "--all"] } else { &["clean", "--yes"] };
        command(&test_server, &middlebox.url(), clean).done();
        test_server.assert_holds(&video_id, &sample.path());
        if !all {
            let again = command(&test_server, &middlebox.url(), &upload(&sample, &[])).done();
            assert_eq!(again.summary()["video_id"], *video_id);
            assert_eq!(
                (test_server.chunk_requests().len(), test_server.server.stats().videos_created),
                (3, 1)
            );
        }
    }
}

#[test]
fn clean_keeps_videos_of_unknown_state_and_tolerates_missing_ones() {
    for (odd, is_kept) in
        [(page(404, ""), true), (page(502, ""), true), (problem(404, "resource-not-found"), false)]
    {
        let test_server = TestServer::new(Scheme::Http);
        let told = odd.clone();
        let middlebox = middlebox(&test_server, move |seen| match () {
            () if seen.is_chunk() && seen.content_range().starts_with(LAST_OF_THREE) => {
                Treatment::Replace(problem(400, "video-content-range-malformed"))
            }
            () if seen.is_status() => Treatment::Answer(told.clone()),
            () => Treatment::Pass,
        });
        let sample = Sample::new(11 * MIB);
        let ran = command(&test_server, &middlebox.url(), &upload(&sample, &[])).failed(1, &[]);
        let video_id = ran.event("created")["video_id"].as_str().unwrap().to_owned();
        let cleaned = command(&test_server, &middlebox.url(), &["clean", "--yes", "--retries", "0"]);
        assert_eq!(cleaned.code == Some(0), !is_kept, "{odd}: {cleaned:?}");
        test_server.assert_holds(&video_id, &sample.path());
        let listed = command(&test_server, &middlebox.url(), &["resume", "--list", "--json"]).done();
        assert_eq!(listed.stdout.contains(&video_id), is_kept, "{odd}: {listed:?}");
    }
}

#[test]
fn a_request_delivered_twice_is_stored_once_without_an_error() {
    for way in [Way::Single, Way::Bytes, Way::Parts, Way::DelegatedBytes, Way::DelegatedParts] {
        for hit in 0..3 {
            // Without a video id, each delivery creates a new video.
            if hit > 0 && way == Way::Single || hit == 0 && way.is_delegated() {
                continue;
            }
            let test_server = TestServer::new(Scheme::Http);
            let chunks = CallCounter::default();
            let middlebox =
                middlebox(&test_server, move |seen| match seen.is_chunk() && chunks.next() == hit {
                    true => Treatment::DeliverTwice,
                    false => Treatment::Pass,
                });
            let sample = way.sample(3);
            let client = short_pause_client(&test_server, &middlebox.url());
            let uploaded = way.upload(&test_server, &client, &sample).send_blocking();
            let uploaded = uploaded.unwrap_or_else(|error| panic!("{way:?}, chunk {hit}: {error:?}"));
            test_server.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!(test_server.server.stats().videos_created, 1, "{way:?}, chunk {hit}");
        }
    }
}

#[test]
fn a_removed_content_range_never_leads_to_success() {
    for way in [Way::Bytes, Way::Parts, Way::DelegatedBytes, Way::DelegatedParts] {
        for lanes in [1, 3] {
            let test_server = TestServer::new(Scheme::Http);
            let middlebox = middlebox(&test_server, |_| Treatment::Strip("content-range"));
            let client = test_server
                .client()
                .with(short_pauses)
                .endpoint_url(middlebox.url())
                .lanes(lanes)
                .build()
                .unwrap();
            let sample = way.sample(3);
            let error = way.upload(&test_server, &client, &sample).send_blocking().unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::AlreadyFilled),
                "{way:?}, {lanes} lanes: {error:?}"
            );
        }
    }
}

#[test]
fn one_gateway_answer_leads_to_one_resent_chunk() {
    for odd in [400, 402, 404, 405, 409, 413, 418, 421, 423, 431, 451, 499, 501] {
        let test_server = TestServer::new(Scheme::Http);
        let hits = CallCounter::default();
        let middlebox = middlebox(&test_server, move |seen| {
            let is_hit = seen.is_chunk() && seen.content_range().starts_with(SECOND) && hits.next() == 0;
            if is_hit { Treatment::Answer(page(odd, "")) } else { Treatment::Pass }
        });
        let way = Way::Bytes;
        let sample = way.sample(3);
        let uploaded = way
            .upload(&test_server, &short_pause_client(&test_server, &middlebox.url()), &sample)
            .send_blocking();
        let uploaded = uploaded.unwrap_or_else(|error| panic!("{odd}: {error:?}"));
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        assert_eq!(test_server.server.stats().videos_created, 1, "{odd}");
    }
}

#[test]
fn repeated_gateway_answers_end_the_upload_and_the_same_command_continues_it() {
    let test_server = TestServer::new(Scheme::Http);
    let hits = CallCounter::default();
    let middlebox = middlebox(&test_server, move |seen| {
        let is_hit = seen.is_chunk() && seen.content_range().starts_with(SECOND) && hits.next() < 3;
        if is_hit { Treatment::Answer(page(404, "")) } else { Treatment::Pass }
    });
    let sample = Sample::new(11 * MIB);
    let ran = command(&test_server, &middlebox.url(), &upload(&sample, &["--retries", "2"]));
    let ran = ran.failed(1, &["ringlift resume"]);
    assert_eq!(ran.event("file_failed")["resumable"], true);
    let again = command(&test_server, &middlebox.url(), &upload(&sample, &[])).done();
    assert_eq!(again.summary()["video_id"], ran.event("created")["video_id"]);
    assert_eq!(
        (test_server.server.stats().chunks_accepted, test_server.server.stats().videos_created),
        (3, 1)
    );
}

#[test]
fn the_client_retries_while_a_replica_does_not_know_the_new_video() {
    let test_server = TestServer::new(Scheme::Http);
    let chunks = CallCounter::default();
    let middlebox = middlebox(&test_server, move |seen| match seen.is_chunk() && chunks.next() < 2 {
        true => Treatment::Answer(problem(404, "resource-not-found")),
        false => Treatment::Pass,
    });
    let sample = Sample::new(11 * MIB);
    let ran = command(&test_server, &middlebox.url(), &upload(&sample, &[])).done();
    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    assert_eq!(test_server.server.stats().videos_created, 1);
}

#[test]
fn an_unexpected_answer_during_wait_is_not_a_failure() {
    for odd in [page(404, ""), problem(404, "resource-not-found")] {
        let test_server = TestServer::new(Scheme::Http);
        let questions = CallCounter::default();
        let middlebox =
            middlebox(&test_server, move |seen| match seen.is_status() && questions.next() == 0 {
                true => Treatment::Answer(odd.clone()),
                false => Treatment::Pass,
            });
        let sample = Sample::new(MIB);
        let ran = command(&test_server, &middlebox.url(), &upload(&sample, &["--verify"])).done();
        assert!(ran.stderr.contains(", verified"), "{}", ran.stderr);
    }
}

#[test]
fn retry_after_of_an_unavailable_service_is_respected() {
    for (status, name) in [(503, "Retry-After"), (502, "X-RateLimit-Retry-After"), (408, "Retry-After")] {
        let test_server = TestServer::new(Scheme::Http);
        let answer = page(status, &format!("{name}: 2\r\n"));
        let times = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen_at = times.clone();
        let middlebox = middlebox(&test_server, move |seen| {
            if !seen.is_chunk() || !seen.content_range().starts_with(SECOND) {
                return Treatment::Pass;
            }
            let mut times = seen_at.lock().unwrap();
            times.push(Instant::now());
            if times.len() < 3 { Treatment::Answer(answer.clone()) } else { Treatment::Pass }
        });
        let sample = Sample::new(11 * MIB);
        // Waits that the service requests do not count as retries.
        command(&test_server, &middlebox.url(), &upload(&sample, &["--retries", "0"])).done();
        for pair in times.lock().unwrap().windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_secs(2), "{status} {name}: back too early");
        }
    }
}

#[test]
fn the_creation_respects_retry_after() {
    let test_server = TestServer::new(Scheme::Http);
    let hits = CallCounter::default();
    let begun = Instant::now();
    let middlebox = middlebox(&test_server, move |seen| match seen.is_creation() && hits.next() == 0 {
        true => Treatment::Answer(page(503, "Retry-After: 2\r\n")),
        false => Treatment::Pass,
    });
    let sample = Sample::new(MIB);
    command(&test_server, &middlebox.url(), &upload(&sample, &["--retries", "0"])).done();
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(fs::metadata(sample.path()).is_ok());
}
