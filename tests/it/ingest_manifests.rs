//! Manifests, sidecars and templates of bulk ingestion.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use ringlift::Video;

use crate::support::command::{CommandOutput, end, ringlift, start};
use crate::support::queue::{folder, jobs};
use crate::support::{MIB, Scheme, TestServer};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes a manifest into the folder, and runs it.
fn run(server: &TestServer, folder: &Path, name: &str, content: &[u8], args: &[&str]) -> CommandOutput {
    let manifest = folder.join(name);
    fs::write(&manifest, content).unwrap();
    server.run([&["ingest", "--json", "--manifest", text(&manifest)], args].concat())
}

/// Returns the video of each finished file, by the end of its name.
fn videos(server: &TestServer, output: &CommandOutput) -> Vec<(String, Video)> {
    let client = server.client().build().unwrap();
    let done = output.events().into_iter().filter(|event| event["event"] == "file_done");
    let mut videos: Vec<(String, Video)> = done
        .map(|event| {
            let video_id = event["video_id"].as_str().unwrap().to_owned();
            let name = Path::new(event["file"].as_str().unwrap()).file_name().unwrap().to_owned();
            (name.into_string().unwrap(), pollster::block_on(client.video(video_id)).unwrap())
        })
        .collect();
    videos.sort_by(|a, b| a.0.cmp(&b.0));
    videos
}

#[test]
fn a_spreadsheet_gives_titles_tags_and_metadata() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let sheet = "path;title;tags;metadata.studio\r\nclip000.mp4;\"One; two\";\"red,blue\";North\r\nclip001.mp4;;;\r\n";
    let output =
        run(&server, films.path(), "jobs.csv", sheet.as_bytes(), &["--title", "{stem} no. {index}"]).done();
    let videos = videos(&server, &output);
    assert_eq!(
        (videos[0].1.title.as_deref(), videos[1].1.title.as_deref()),
        (Some("One; two"), Some("clip001 no. 2"))
    );
    assert!(videos[0].1.metadata.iter().any(|pair| pair.key == "studio" && pair.value == "North"));
}

#[test]
fn a_line_that_was_cut_off_is_an_error_of_its_number_and_stops_nothing() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let lines = b"{\"path\":\"clip000.mp4\"}\n{\"path\":\"clip001.mp4\",\"ti";
    let output = run(&server, films.path(), "jobs.jsonl", lines, &[]).failed(1, &["jobs.jsonl:2"]);
    assert_eq!(output.summary()["files_done"], 1);
}

/// Its size and time are a part of the identity of its job, so that a job without them would upload it once more.
#[test]
fn a_line_whose_file_is_missing_has_a_row_and_no_job_and_the_same_command_uploads_it_later() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let lines = b"{\"path\":\"clip000.mp4\"}\n{\"path\":\"late.mp4\",\"title\":\"Late\",\"id\":\"l\"}\n";
    let report = films.path().join("report.jsonl");
    let args = ["--report", text(&report)];
    let output =
        run(&server, films.path(), "jobs.jsonl", lines, &args).failed(1, &["jobs.jsonl:2", "late.mp4"]);
    assert_eq!((&output.summary()["files_done"], &output.summary()["files_failed"]), (&1.into(), &1.into()));
    let rows = fs::read_to_string(&report).unwrap();
    assert!(rows.lines().any(|row| row.contains("late.mp4") && row.contains("no_such_file")), "{rows}");
    assert_eq!(jobs(&server, &["--state", "failed"]).len(), 0);
    fs::write(films.path().join("late.mp4"), "late").unwrap();
    let output = run(&server, films.path(), "jobs.jsonl", lines, &args).done();
    assert_eq!((&output.summary()["files_done"], &output.summary()["files_skipped"]), (&1.into(), &1.into()));
    assert_eq!(videos(&server, &output)[0].1.title.as_deref(), Some("Late"));
    run(&server, films.path(), "jobs.jsonl", lines, &[]).done();
    server.assert_created(2);
}

#[test]
fn a_file_that_is_no_manifest_is_refused_by_its_first_lines() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(0));
    let binary: Vec<u8> = (0..MIB).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, content, expected) in [
        ("jobs.jsonl", &b"\x1f\x8b\x08\x00\x00"[..], "compressed by gzip"),
        ("jobs.csv", b"PK\x03\x04rest", "a ZIP archive or a spreadsheet"),
        ("jobs.jsonl", b"\xff\xfe{\x00", "UTF-16"),
        ("jobs.csv", &binary, "jobs.csv:1"),
        ("jobs.jsonl", &binary, "jobs.jsonl:1"),
    ] {
        let output =
            run(&server, films.path(), name, content, &["--max-errors", "100"]).failed(1, &[expected]);
        assert!(output.stderr.len() < 100_000, "{}", output.stderr.len());
    }
    assert!(server.server.requests().is_empty());
}

#[test]
fn an_endless_line_takes_no_memory_and_the_next_one_is_a_job() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let manifest = films.path().join("jobs.jsonl");
    let mut file = fs::File::create(&manifest).unwrap();
    // The hole reads as zeros.
    file.seek(SeekFrom::Start(256 << 20)).unwrap();
    file.write_all(b"\n{\"path\":\"clip000.mp4\"}\n").unwrap();
    let output = server.run(["ingest", "--json", "--manifest", text(&manifest)]);
    let summary = output.failed(1, &["jobs.jsonl:1: is longer than 1048576 bytes"]).summary();
    assert_eq!((&summary["files_done"], &summary["files_failed"]), (&1.into(), &1.into()));
    assert!(summary["usage"]["peak_anonymous_bytes"].as_u64().unwrap() < 64 * MIB, "{summary}");
}

#[test]
fn an_id_with_other_content_is_an_error_of_the_later_line() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let lines = b"{\"path\":\"clip000.mp4\",\"id\":\"a\"}\n{\"path\":\"clip001.mp4\",\"id\":\"a\"}\n";
    let output = run(&server, films.path(), "jobs.jsonl", lines, &[]);
    let output = output.failed(1, &["jobs.jsonl:2: job id a", "another id"]);
    assert_eq!((&output.summary()["files_done"], &output.summary()["files_failed"]), (&1.into(), &1.into()));
    server.assert_created(1);
}

#[test]
fn an_id_with_equal_content_is_one_job() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let lines = "{\"path\":\"clip000.mp4\",\"id\":\"a\"}\n".repeat(2);
    let output = run(&server, films.path(), "jobs.jsonl", lines.as_bytes(), &[]).done();
    assert_eq!(output.summary()["files_done"], 1);
    server.assert_created(1);
}

#[test]
fn a_sidecar_describes_its_film_and_a_broken_one_fails_it_alone() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(4));
    let write = |name: &str, content: &str| fs::write(films.path().join(name), content).unwrap();
    write("clip000.json", r#"{"title":"By stem"}"#);
    write("clip001.mp4.json", r#"{"title":"By name"}"#);
    write("clip002.json", r#"{"titel":"typo"}"#);
    let output = server.run(["ingest", "--json", "--sidecar", "json", text(films.path())]);
    let output = output.failed(1, &["clip002.json", "titel"]);
    let titles: Vec<String> =
        videos(&server, &output).into_iter().filter_map(|(_, video)| video.title).collect();
    assert_eq!(titles, ["By stem", "By name", "clip003.mp4"]);
}

#[test]
fn a_line_may_repeat_the_token_of_the_run_and_no_other() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(2));
    let token = server.upload_token();
    let manifest = films.path().join("jobs.jsonl");
    let other = "to00000000000000000000000";
    let lines = format!(
        "{{\"path\":\"clip000.mp4\",\"upload_token\":\"{token}\"}}\n{{\"path\":\"clip001.mp4\",\"upload_token\":\"{other}\"}}\n"
    );
    fs::write(&manifest, lines).unwrap();
    let mut command = ringlift();
    command.args(["ingest", "--json", "--manifest", text(&manifest)]).env("RINGLIFT_UPLOAD_TOKEN", &token);
    let output = end(start(server.configure_without_key(&mut command)));
    let output = output.failed(1, &["jobs.jsonl:2", "upload_token: a queue keeps no tokens"]);
    assert!(!output.stderr.contains(other) && !output.stdout.contains(other), "{output:?}");
    assert_eq!(output.summary()["files_done"], 1);
}

/// Its line had a title and a visibility, which a report does not have.
#[test]
fn a_row_without_a_job_is_refused_and_the_manifest_uploads_its_file() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let late = films.path().join("late.mp4");
    let report = films.path().join("report.csv");
    let (report_args, retry) = (["--report", text(&report)], ["--retry", "failed"]);
    let line = b"{\"path\":\"late.mp4\",\"id\":\"secret\",\"private\":true}\n";
    run(&server, films.path(), "jobs.jsonl", line, &report_args).failed(1, &["no such file"]);
    fs::write(&late, b"late").unwrap();
    let again = [&["ingest", "--json", "--manifest", text(&report)][..], &retry, &report_args].concat();
    server.run(&again).failed(1, &["job id secret: is not in the queue", "the manifest again"]);
    server.assert_created(0);
    let output = run(&server, films.path(), "jobs.jsonl", line, &report_args).done();
    assert_eq!(videos(&server, &output)[0].1.public, Some(false));
    // The row of the success is not the last word on the row of the failure, but the job is known now.
    let output = server.run(&again).done();
    assert_eq!(output.summary()["files_skipped"], 1);
}

#[test]
fn a_report_grows_by_one_row_with_each_retry_of_a_line_without_a_job() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let report = films.path().join("report.csv");
    let report_args = ["--report", text(&report)];
    let lines = b"{\"path\":\"gone.mp4\"}\n{\"path\":\"clip000.mp4\",\"bogus\":1}\n";
    run(&server, films.path(), "jobs.jsonl", lines, &report_args).failed(1, &["jobs.jsonl:2", "gone.mp4"]);
    let rows = |kind: &str| fs::read_to_string(&report).unwrap().matches(kind).count();
    for retries in 1..4 {
        let args =
            ["ingest", "--manifest", text(&report), "--retry", "failed", report_args[0], report_args[1]];
        server.run(args).failed(1, &["gone.mp4"]);
        // The row of a line that could not be read names no file to try again.
        assert_eq!((rows(",no_such_file,"), rows(",bad_line,")), (1 + retries, 1));
    }
}
