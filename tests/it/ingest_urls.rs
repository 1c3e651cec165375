//! Bulk ingestion of URLs, which the service fetches itself.

use std::fs;
use std::path::{Path, PathBuf};

use ringlift::server::{Fault, FaultAction, RouteClass};
use tempfile::TempDir;

use crate::support::command::{CommandOutput, end, ringlift, start};
use crate::support::{Scheme, TestServer};

/// Returns a manifest of `count` URLs, and its folder.
fn manifest(count: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("urls.jsonl");
    let lines: String =
        (0..count).map(|n| format!("{{\"source_url\":\"https://films.example/{n}.mp4\"}}\n")).collect();
    fs::write(&path, lines).unwrap();
    (folder, path)
}

fn ingest(server: &TestServer, manifest: &Path) -> CommandOutput {
    server.run(["ingest".as_ref(), "--json".as_ref(), "--manifest".as_ref(), manifest.as_os_str()])
}

#[test]
fn a_url_becomes_one_video_without_a_byte_from_here() {
    let (server, (_folder, manifest)) = (TestServer::new(Scheme::Http), manifest(3));
    let first = ingest(&server, &manifest).done();
    assert_eq!((&first.summary()["files_done"], &first.summary()["videos_created"]), (&3.into(), &3.into()));
    assert!(server.chunk_requests().is_empty());
    let second = ingest(&server, &manifest).done();
    assert_eq!(second.summary()["files_skipped"], 3);
    server.assert_created(3);
}

#[test]
fn a_lost_answer_to_the_creation_leaves_one_video() {
    let lost = Fault::new(RouteClass::Create, FaultAction::CloseAfterRecording);
    let (server, (_folder, manifest)) = (TestServer::faulty(Scheme::Http, vec![lost]), manifest(1));
    ingest(&server, &manifest).done();
    server.assert_created(1);
}

#[test]
fn a_process_that_dies_between_the_creation_and_its_record_leaves_one_video() {
    let slow = Fault::new(RouteClass::Create, FaultAction::StallAnswering { for_ms: 60_000 });
    let (server, (_folder, manifest)) = (TestServer::faulty(Scheme::Http, vec![slow]), manifest(1));
    let mut command = ringlift();
    let arguments = ["ingest".as_ref(), "--manifest".as_ref(), manifest.as_os_str()];
    let mut child = start(server.configure(command.args(arguments)));
    while server.server.stats().videos_created == 0 {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", end(child));
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = ingest(&server, &manifest).done();
    assert_eq!(output.summary()["files_done"], 1);
    server.assert_created(1);
}

#[test]
fn a_refused_key_ends_a_run_of_urls_and_blames_no_job() {
    let (server, (_folder, manifest)) = (TestServer::new(Scheme::Http), manifest(30));
    let mut command = ringlift();
    command.args(["ingest", "--json", "--account", "films", "--manifest"]).arg(&manifest);
    let refused = end(start(server.configure(&mut command).env("APIVIDEO_API_KEY", "wrong")));
    assert_eq!(refused.failed(7, &["The API key is invalid"]).summary()["files_failed"], 0);
    let mut command = ringlift();
    command.args(["ingest", "--json", "--account", "films", "--manifest"]).arg(&manifest);
    let output = end(start(server.configure(&mut command))).done();
    assert_eq!(output.summary()["files_done"], 30);
}

#[test]
fn the_login_in_a_url_is_shown_nowhere() {
    let (server, (_folder, manifest)) = (TestServer::new(Scheme::Http), manifest(0));
    fs::write(&manifest, "{\"source_url\":\"https://kim:hunter2@films.example/a.mp4\"}\n").unwrap();
    let ingested = ingest(&server, &manifest).done();
    let listed = server.run(["jobs", "list"]).done();
    let id = listed.stdout.split('\t').next().unwrap();
    for output in
        [&ingested, &listed, &server.run(["jobs", "list", "--json"]), &server.run(["jobs", "show", id])]
    {
        assert!(output.stdout.contains("films.example/a.mp4"), "{}", output.stdout);
        assert!(!(output.stdout.clone() + &output.stderr).contains("hunter2"), "{output:?}");
    }
}
