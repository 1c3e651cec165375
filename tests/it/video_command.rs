//! `ringlift video` and URLs that the service fetches.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringlift::{NewVideo, Video};

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::middlebox::{Middlebox, Treatment, problem};
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const TEMPORARY: i32 = 5;
const URL: &str = "https://films.example/summer%20sun.mp4?signature=hunter2";

fn address(test_server: &TestServer) -> SocketAddr {
    test_server.server.url().strip_prefix("http://").unwrap().parse().unwrap()
}

fn video(test_server: &TestServer, video_id: &str) -> Video {
    pollster::block_on(test_server.client().build().unwrap().video(video_id)).unwrap()
}

fn video_id(ran: &CommandOutput) -> String {
    ran.summary()["video_id"].as_str().unwrap().to_owned()
}

/// Answers every status request with this ingest status.
fn with_status(test_server: &TestServer, status: &'static str) -> Middlebox {
    Middlebox::start(address(test_server), move |request| {
        if !request.is_status() {
            return Treatment::Pass;
        }
        let body = format!(r#"{{"ingest":{{"status":"{status}"}},"encoding":{{"playable":false}}}}"#);
        let length = body.len();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        Treatment::Answer(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
    })
}

#[test]
fn a_video_is_created_with_every_property() {
    let test_server = TestServer::new(Scheme::Http);
    let ran = test_server.run([
        "video",
        "create",
        "--json",
        "--title",
        "Summer",
        "--description",
        "by the sea",
        "--tag",
        "a",
        "--tag",
        "b",
        "--metadata",
        "camera=7",
        "--private",
        "--panoramic",
        "--no-mp4",
        "--language",
        "fr",
    ]);
    let made = video(&test_server, &video_id(&ran.done()));
    assert_eq!((made.title.as_deref(), made.description.as_deref()), (Some("Summer"), Some("by the sea")));
    assert_eq!((made.public, made.panoramic, made.mp4_support), (Some(false), Some(true), Some(false)));
    assert_eq!((made.tags.len(), made.metadata.len()), (2, 1));
    // The id alone, for `$(ringlift video create ...)`.
    let printed = test_server.run(["video", "create", "--title", "T"]).done().stdout;
    let sample = Sample::new(MIB);
    test_server.run(["upload", "--video-id", printed.trim(), sample.arg()]).done();
    test_server.assert_holds(printed.trim(), &sample.path());
    test_server.run(["video", "create"]).failed(USAGE, &["--title"]);
}

#[test]
fn the_service_fetches_a_url_and_the_command_waits_for_it() {
    let test_server = TestServer::new(Scheme::Http);
    for command in [&["video", "create", "--json", "--source", URL][..], &["upload", "--json", URL]] {
        let ran = test_server.run(command).done();
        let made = video(&test_server, &video_id(&ran));
        assert_eq!(made.title.as_deref(), Some("summer sun.mp4"));
        assert_eq!(ran.event("fetched")["video_id"], *made.video_id);
        // The query of a signed URL is a secret.
        assert!(!ran.stdout.contains("hunter2") && !ran.stderr.contains("hunter2"), "{ran:?}");
    }
    let stats = test_server.server.stats();
    assert_eq!((stats.videos_created, stats.chunks_accepted), (2, 0));
    let printed = test_server.run(["upload", "--wait", "playable", URL, URL]).done().stdout;
    assert_eq!(printed.lines().count(), 2);
}

#[test]
fn a_failed_fetch_is_reported_with_its_video() {
    let test_server = TestServer::new(Scheme::Http);
    let middlebox = with_status(&test_server, "failed");
    let mut command = ringlift();
    test_server.configure(&mut command).env("RINGLIFT_ENDPOINT_URL", middlebox.url());
    let ran =
        run(command.args(["upload", "--json", URL])).failed(FAILED, &["failed", "https://films.example"]);
    assert_eq!(ran.event("file_failed")["resumable"], false);
    let created = ran.event("created")["video_id"].as_str().unwrap().to_owned();
    assert!(ran.stderr.contains(&created), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"), "{ran:?}");
    assert_eq!(ran.summary()["files_failed"], 1);
}

#[test]
fn a_fetch_that_never_ends_is_given_up_after_the_wait_timeout() {
    let test_server = TestServer::new(Scheme::Http);
    let middlebox = with_status(&test_server, "ingesting");
    let command = |args: &[&str]| {
        let mut command = ringlift();
        test_server.configure(&mut command).env("RINGLIFT_ENDPOINT_URL", middlebox.url());
        run(command.args(["video", "create", "--source", URL]).args(args))
    };
    command(&["--wait-timeout", "1s"]).failed(TEMPORARY, &["1s", "ringlift status"]);
    assert!(command(&["--no-wait"]).done().stdout.starts_with("vi"));
}

#[test]
fn a_replica_that_does_not_know_the_new_video_yet_is_asked_again() {
    let test_server = TestServer::new(Scheme::Http);
    let asked = AtomicUsize::new(0);
    let middlebox = Middlebox::start(address(&test_server), move |request| {
        if request.is_status() && asked.fetch_add(1, Ordering::Relaxed) < 2 {
            Treatment::Answer(problem(404, "resource-not-found"))
        } else {
            Treatment::Pass
        }
    });
    let mut command = ringlift();
    test_server.configure(&mut command).env("RINGLIFT_ENDPOINT_URL", middlebox.url());
    run(command.args(["upload", URL])).done();
}

#[test]
fn urls_are_not_mixed_with_files_and_a_dry_run_creates_nothing() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    test_server.run(["upload", URL, sample.arg()]).failed(USAGE, &["mixed"]);
    test_server.run(["upload", "--mode", "parts", URL]).failed(USAGE, &["--mode"]);
    let planned = test_server.run(["upload", "--dry-run", URL]).done();
    assert!(planned.stdout.contains("https://films.example/summer%20sun.mp4"), "{planned:?}");
    assert!(test_server.server.requests().is_empty());
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    let new = NewVideo::new("Summer").description("sea").tag("a").metadata("k", "v");
    let id = pollster::block_on(client.create_video(new)).unwrap().video_id;
    let mut command = ringlift();
    // Defaults for uploads must not change a video.
    test_server.configure(&mut command).env("RINGLIFT_TAG", "nightly").env("RINGLIFT_PRIVATE", "1");
    let config = test_server.folder.path().join("config.toml");
    std::fs::write(&config, "metadata = { x = \"y\" }\ndescription = \"of the file\"").unwrap();
    command.args(["video", "update", "--json", &id, "--title", "Autumn", "--config"]).arg(&config);
    let ran = run(&mut command).done();
    assert_eq!(ran.event("video")["video"]["title"], "Autumn");
    let changed = video(&test_server, &id);
    assert_eq!((changed.title.as_deref(), changed.description.as_deref()), (Some("Autumn"), Some("sea")));
    assert_eq!((changed.tags, changed.public, changed.metadata.len()), (vec!["a".to_owned()], Some(true), 1));
    test_server
        .run(["video", "update", &id, "--no-tags", "--no-metadata", "--no-description", "--private"])
        .done();
    let cleared = video(&test_server, &id);
    assert_eq!((cleared.tags.len(), cleared.metadata.len(), cleared.public), (0, 0, Some(false)));
    assert_eq!(cleared.description.unwrap_or_default(), "");
    test_server.run(["video", "update", &id]).failed(USAGE, &["nothing to change"]);
    test_server.run(["video", "update", "viNobody", "--title", "x"]).failed(3, &["viNobody"]);
}

#[test]
fn a_list_shows_a_page_all_videos_or_a_limited_number() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    for number in 0..103 {
        pollster::block_on(client.create_video(NewVideo::new(format!("film {number:03}")))).unwrap();
    }
    let listed = |args: &[&str]| {
        let ran = test_server.run([&["video", "list", "--json"], args].concat()).done();
        let events = ran.events();
        let titles: Vec<String> = events
            .iter()
            .filter(|event| event["event"] == "video")
            .map(|event| event["video"]["title"].as_str().unwrap().to_owned())
            .collect();
        (titles, ran.event("list_end"))
    };
    let (titles, end) = listed(&[]);
    assert_eq!((titles.len(), &end["more"], &end["next_page"]), (25, &true.into(), &2.into()));
    assert_eq!(end["items_total"], 103);
    let (titles, end) = listed(&["--all", "--sort-by", "title,desc"]);
    assert_eq!((titles.len(), &end["more"], &end["listed"]), (103, &false.into(), &103.into()));
    assert_eq!((titles[0].as_str(), titles[102].as_str()), ("film 102", "film 000"));
    let (titles, end) = listed(&["--limit", "101", "--sort-by", "title"]);
    assert_eq!((titles.len(), titles[100].as_str(), &end["more"]), (101, "film 100", &true.into()));
    let (titles, end) = listed(&["--limit", "103"]);
    assert_eq!((titles.len(), &end["more"]), (103, &false.into()));
    let people = test_server.run(["video", "list", "--page-size", "100"]).done();
    assert!(people.stderr.contains("--page 2") && people.stderr.contains("--all"), "{people:?}");
    test_server.run(["video", "list", "--all", "--page", "2"]).failed(USAGE, &["--page"]);
}

#[test]
fn nothing_is_deleted_without_a_confirmation() {
    let test_server = TestServer::new(Scheme::Http);
    let id = test_server.run(["video", "create", "--title", "T"]).done().stdout.trim().to_owned();
    let before = test_server.server.requests().len();
    test_server.run(["video", "delete", &id]).failed(USAGE, &["nothing was deleted", "--yes"]);
    assert_eq!(test_server.server.requests().len(), before);
    test_server.run(["video", "delete", "--yes", &id]).done();
}

#[test]
fn a_text_is_uploaded_with_a_warning_and_a_video_without() {
    let test_server = TestServer::new(Scheme::Http);
    let list = test_server.folder.path().join("films.csv");
    std::fs::write(&list, "title,path\na,b\n").unwrap();
    let ran = test_server.run(["upload", list.to_str().unwrap()]).done();
    assert_eq!(ran.stderr.matches("looks like a text").count(), 1, "{}", ran.stderr);
    test_server.assert_holds(ran.stdout.trim(), &list);
    let sample = Sample::new(MIB);
    let ran = test_server.run(["upload", sample.arg()]).done();
    assert!(!ran.stderr.contains("looks like"), "{}", ran.stderr);
}

#[test]
fn the_verbose_log_gives_mode_chunk_size_connections_and_reader_with_reasons() {
    let test_server = TestServer::with(Scheme::Http, |settings| settings.ingest_delay = Duration::ZERO);
    let (small, large) = (Sample::new(MIB), Sample::new(11 * MIB));
    let ran = test_server.run(["upload", "-v", small.arg()]).done();
    for text in ["mode single (it fits into one request)", "reader chosen: ", "connections"] {
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
    // Not a terminal: each line has its time and its level.
    assert!(ran.stderr.lines().any(|line| line.contains("Z  INFO ")), "{}", ran.stderr);
    let ran = test_server.run(["upload", "-v", "--mode", "parts", "--chunk-size", "5M", large.arg()]).done();
    assert!(
        ran.stderr.contains("mode parts (as requested), 3 chunks of 5 MiB (as requested)"),
        "{}",
        ran.stderr
    );
    let ran = test_server.run(["upload", "-vv", "--force", small.arg()]).done();
    assert!(!ran.stderr.contains("Settings {"), "{}", ran.stderr);
}
