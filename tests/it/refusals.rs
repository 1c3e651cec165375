//! Every invalid input of the command. The message names the input and the remedy, the exit code shows whether a later
//! attempt may succeed, and every video that is left behind is reported.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use crate::support::command::{
    CommandOutput, ready_url, ringlift, ringlift_after, ringlift_without, run, run_with_stdin, start,
};
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NO_SUCH_VIDEO: i32 = 3;
const NO_SUCH_FILE: i32 = 4;
const TEMPORARY: i32 = 5;
const UNSUITED: i32 = 6;
const NOT_ALLOWED: i32 = 7;

/// Runs `upload` and asserts that no video was created.
fn refused(args: &[&str], code: i32, texts: &[&str]) -> CommandOutput {
    let test_server = TestServer::new(Scheme::Http);
    let ran = test_server.run([&["upload", "--json"], args].concat()).failed(code, texts);
    assert_eq!(test_server.server.stats().videos_created, 0);
    assert_eq!(ran.summary()["exit_code"], code);
    ran
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_missing_file() {
    refused(&["/nowhere/movie.mp4"], NO_SUCH_FILE, &["/nowhere/movie.mp4"]);
}

#[test]
fn a_directory() {
    let folder = tempfile::tempdir().unwrap();
    refused(&[text(folder.path())], USAGE, &[text(folder.path()), "directory"]);
}

#[test]
fn a_file_without_read_permission() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    fs::set_permissions(sample.path(), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = ringlift_without("dac_override,-dac_read_search", "true");
    let ran = run(test_server.configure(command.arg("upload").arg(sample.path())));
    ran.failed(5, &[sample.arg(), "denied"]);
    assert_eq!(test_server.server.stats().videos_created, 0);
}

#[test]
fn a_path_that_is_not_a_regular_file() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [pipe.as_path(), &socket, Path::new("/dev/zero")] {
        refused(&[text(path)], USAGE, &[text(path), "standard input"]);
    }
}

#[test]
fn an_empty_file_or_stream() {
    let sample = Sample::new(0);
    refused(&[sample.arg()], FAILED, &["movie.mp4", "empty"]);
    refused(&["-"], FAILED, &["empty"]);
}

#[test]
fn a_file_over_the_limits() {
    let whole = Sample::sparse(200 * MIB + 1);
    let ran = refused(&["--mode", "single", whole.arg()], FAILED, &["209715200", "--mode bytes"]);
    assert_eq!(ran.event("file_failed")["error"]["kind"], "plan_impossible");
    let longest = Sample::sparse(52_428_800_001);
    refused(&["--mode", "bytes", longest.arg()], FAILED, &["52428800000"]);
}

#[test]
fn a_chunk_size_out_of_bounds() {
    let sample = Sample::new(MIB);
    for size in ["4MiB", "201MiB", "0", "large"] {
        let test_server = TestServer::new(Scheme::Http);
        let ran = test_server.run(["upload", "--chunk-size", size, sample.arg()]);
        ran.failed(USAGE, &["--chunk-size", size]);
    }
}

#[test]
fn no_key() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let ran = run(test_server.configure_without_key(ringlift().arg("upload").arg(sample.path())));
    ran.failed(USAGE, &["APIVIDEO_API_KEY", "--api-key-file", "--upload-token-file"]);
    assert_eq!(test_server.server.requests().len(), 0);
}

#[test]
fn a_wrong_key() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let ran = run(test_server
        .configure(&mut ringlift())
        .env("APIVIDEO_API_KEY", "guessed")
        .arg("upload")
        .arg(sample.path()));
    let ran = ran.failed(NOT_ALLOWED, &["API key"]);
    assert!(!ran.stderr.contains("guessed"), "a key was shown: {}", ran.stderr);
}

#[test]
fn a_wrong_upload_token() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    let ran = run(test_server
        .configure_without_key(&mut command)
        .env("RINGLIFT_UPLOAD_TOKEN", "guessed")
        .arg("upload")
        .arg(sample.path()));
    let ran = ran.failed(NOT_ALLOWED, &["upload token"]);
    assert!(!ran.stderr.contains("guessed"), "a token was shown: {}", ran.stderr);
}

#[test]
fn an_unknown_video() {
    let sample = Sample::new(MIB);
    refused(&["--video-id", "viNobody", sample.arg()], NO_SUCH_VIDEO, &["viNobody"]);
    let test_server = TestServer::new(Scheme::Http);
    test_server.run(["status", "viNobody"]).failed(NO_SUCH_VIDEO, &["viNobody"]);
    test_server.run(["video", "delete", "--yes", "viNobody"]).failed(NO_SUCH_VIDEO, &["viNobody"]);
}

#[test]
fn a_container_that_is_filled_already() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let first = test_server.run(["upload", "--json", sample.arg()]).done().summary();
    let video_id = first["video_id"].as_str().unwrap();
    let again = test_server.run(["upload", "--video-id", video_id, sample.arg()]);
    again.failed(UNSUITED, &[video_id, "already"]);
    test_server.assert_holds(video_id, &sample.path());
}

#[test]
fn an_unreachable_endpoint() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "key").args(["upload", "--retries", "1", "--endpoint-url"]);
    let ran = run(command.arg(format!("http://{gone}")).arg(sample.path()));
    ran.failed(TEMPORARY, &[&gone.to_string(), "refused"]);
}

#[test]
fn an_endpoint_that_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "key").args([
        "upload",
        "--retries",
        "0",
        "--timeout",
        "1s",
        "--endpoint-url",
    ]);
    let ran = run(command.arg(format!("http://{}", silent.local_addr().unwrap())).arg(sample.path()));
    ran.failed(TEMPORARY, &["timed out"]);
}

#[test]
fn an_invalid_endpoint() {
    let sample = Sample::new(MIB);
    for url in ["ftp://127.0.0.1", "127.0.0.1:80", "http://", "nonsense"] {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").args(["upload", "--endpoint-url", url]).arg(sample.path());
        run(&mut command).failed(USAGE, &["http"]);
    }
}

#[test]
fn a_certificate_that_is_not_trusted() {
    let test_server = TestServer::new(Scheme::Https);
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    test_server.configure(&mut command).env_remove("RINGLIFT_CA_CERT").arg("upload").arg(sample.path());
    let started = Instant::now();
    run(&mut command).failed(NOT_ALLOWED, &["certificate", "--ca-cert"]);
    let patience = started.elapsed().as_secs();
    assert!(patience < 20, "it was tried again for {patience} s");
}

#[test]
fn a_missing_certificate_file() {
    let test_server = TestServer::new(Scheme::Https);
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    test_server
        .configure(&mut command)
        .env("RINGLIFT_CA_CERT", "/nowhere/ca.pem")
        .arg("upload")
        .arg(sample.path());
    run(&mut command).failed(USAGE, &["/nowhere/ca.pem"]);
}

#[test]
fn a_server_whose_disk_is_full() {
    let folder = tempfile::tempdir().unwrap();
    // Files may grow to 4 MiB (8192 blocks of 512): enough for the database, too little for the video.
    let mut serve = ringlift_after("trap '' XFSZ && ulimit -f 8192");
    serve.env("APIVIDEO_API_KEY", "key").args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"]);
    let mut server = start(serve.arg(folder.path().join("data")));
    let url = ready_url(&mut server);
    let sample = Sample::new(20 * MIB);
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "key").args([
        "upload",
        "--json",
        "--retries",
        "1",
        "--endpoint-url",
        &url,
    ]);
    let ran = run(command.arg("--chunk-size").arg("5MiB").arg(sample.path()));
    server.kill().unwrap();
    server.wait().unwrap();
    let ran = ran.failed(TEMPORARY, &["movie.mp4"]);
    let video_id = ran.event("created")["video_id"].clone();
    assert_eq!(ran.event("file_failed")["video_id"], video_id);
    assert!(ran.stderr.contains(video_id.as_str().unwrap()), "the container is not named: {}", ran.stderr);
}

#[test]
fn a_stream_longer_than_expected_still_arrives() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(11 * MIB);
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "--expected-size", "1M", "-"]);
    let ran = run_with_stdin(&mut command, fs::read(sample.path()).unwrap()).done();
    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
}
