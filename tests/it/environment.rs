//! Settings from the environment and from files: precedence, refused values and their origin in messages.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use ringlift::{Client, Credentials, ErrorKind};

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::{MIB, Sample, Scheme, TestServer};

const USAGE: i32 = 2;
const NO_SUCH_FILE: i32 = 4;

/// Returns the upload command for a test server, without the API key.
fn upload(test_server: &TestServer, sample: &Sample) -> Command {
    let mut command = ringlift();
    test_server.configure_without_key(&mut command).args(["upload", "--json"]).arg(sample.path());
    command
}

fn assert_nothing_was_sent(test_server: &TestServer, ran: &CommandOutput) {
    assert_eq!(test_server.server.requests().len(), 0, "{ran:?}");
    assert_eq!(ran.summary()["exit_code"], USAGE, "{ran:?}");
}

#[test]
fn a_key_may_have_white_space_and_a_byte_order_mark_around_it() {
    let test_server = TestServer::with(Scheme::Http, |settings| settings.api_key = Some("hunter2".into()));
    let sample = Sample::new(MIB);
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in ["hunter2", "hunter2\n", "hunter2\r\n", " hunter2\t", "\u{feff}hunter2\r\n"] {
        run(upload(&test_server, &sample).env("APIVIDEO_API_KEY", text)).done();
        fs::write(file.path(), text).unwrap();
        run(upload(&test_server, &sample).arg("--api-key-file").arg(file.path())).done();
        let client = Client::builder().endpoint_url(test_server.server.url()).api_key(text).build().unwrap();
        client.upload(sample.path()).send_blocking().unwrap();
    }
}

#[test]
fn an_invalid_key_is_refused_with_its_origin_and_hidden() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (text, word) in [
        ("hunter2\nhunter3", "line"),
        ("# production\nhunter2", "comment"),
        ("'hunter2'", "quotation"),
        ("API_KEY=hunter2", "NAME=value"),
        ("hun ter2", "white space"),
        ("hunter2\x07", "control"),
        ("\u{200b}hunter2", "ASCII"),
        (" \n", "empty"),
    ] {
        let by_variable = run(upload(&test_server, &sample).env("APIVIDEO_API_KEY", text));
        let by_variable = by_variable.failed(USAGE, &["APIVIDEO_API_KEY", "API key", word]);
        let of_token = run(upload(&test_server, &sample).env("RINGLIFT_UPLOAD_TOKEN", text));
        let of_token = of_token.failed(USAGE, &["RINGLIFT_UPLOAD_TOKEN", "upload token", word]);
        let of_flag = run(upload(&test_server, &sample).arg(format!("--upload-token={text}")));
        let of_flag = of_flag.failed(USAGE, &["upload token", word]);
        fs::write(file.path(), text).unwrap();
        let by_file = run(upload(&test_server, &sample).args(["--api-key-file", path]));
        let by_file = by_file.failed(USAGE, &[path, "API key", word]);
        let token_file = run(upload(&test_server, &sample).args(["--upload-token-file", path]));
        let token_file = token_file.failed(USAGE, &[path, "upload token", word]);
        for ran in [by_variable, of_token, of_flag, by_file, token_file] {
            assert_nothing_was_sent(&test_server, &ran);
            assert!(!ran.stderr.contains("hun") && !ran.stdout.contains("hun"), "{ran:?}");
        }
    }
    fs::write(file.path(), b"\xff\xfeh\0u\0n\0").unwrap();
    run(upload(&test_server, &sample).args(["--api-key-file", path])).failed(USAGE, &[path, "UTF-8"]);
    run(upload(&test_server, &sample).args(["--api-key-file", "/dev/zero"])).failed(USAGE, &["/dev/zero"]);
}

#[test]
fn the_library_refuses_an_invalid_secret_before_it_sends_anything() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    for credentials in [
        Credentials::ApiKey("hun ter2".into()),
        Credentials::ExchangedApiKey("hun ter2".into()),
        Credentials::AccessToken { token: "hun\nter2".into(), refresh_token: None },
    ] {
        let client = Client::builder().endpoint_url(test_server.server.url());
        let error = client.with(|settings| settings.credentials = credentials).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error} {error:?}").contains("hun"), "{error:?}");
    }
    let client = Client::builder().endpoint_url(test_server.server.url()).build().unwrap();
    let error = client.upload(sample.path()).upload_token("\"hunter2\"").send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("upload token") && !error.to_string().contains("hun"), "{error}");
    assert_eq!(test_server.server.requests().len(), 0);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let names = "UPLOAD_TOKEN UPLOAD_TOKEN_FILE VIDEO_ID TAG METADATA TITLE DESCRIPTION CA_CERT API_KEY_FILE \
                 CHUNK_SIZE TIMEOUT JOURNAL CONFIG LANGUAGE PLAYER_ID NAME BWLIMIT SANDBOX CLIP WATERMARK \
                 CONCURRENCY RETRIES JSON QUIET VERBOSE TRANSCRIPT_SUMMARY WAIT RATE TPSLIMIT READER MODE";
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json"]).arg(sample.path());
    for name in names.split_whitespace() {
        command.env(format!("RINGLIFT_{name}"), "");
    }
    let ran = run(&mut command).done();
    let video_id = ran.summary()["video_id"].as_str().unwrap().to_owned();
    let client = test_server.client().build().unwrap();
    let video = pollster::block_on(client.video(&video_id)).unwrap();
    assert_eq!((video.title.as_deref(), video.tags.len()), (Some("movie.mp4"), 0));
    assert_eq!(video.metadata.len(), 1, "only the mark: {:?}", video.metadata);
    let mut stranger = upload(&test_server, &sample);
    run(stranger.env("APIVIDEO_API_KEY", "")).failed(USAGE, &["no API key"]);
}

#[test]
fn a_path_need_not_be_utf_8_and_other_values_must() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let odd = |text: &[u8]| OsStr::from_bytes(text).to_owned();
    let journal = test_server.folder.path().join(Path::new(OsStr::from_bytes(b"j\xff.db")));
    let mut command = ringlift();
    test_server.configure(&mut command).arg("upload").arg(sample.path()).env("RINGLIFT_JOURNAL", &journal);
    run(&mut command).done();
    assert!(journal.exists());
    for (name, code) in [
        ("RINGLIFT_CONFIG", NO_SUCH_FILE),
        ("RINGLIFT_API_KEY_FILE", NO_SUCH_FILE),
        ("RINGLIFT_CHUNK_SIZE", USAGE),
        ("RINGLIFT_TITLE", USAGE),
        ("RINGLIFT_TAG", USAGE),
        ("RINGLIFT_JSON", USAGE),
        ("RINGLIFT_VERBOSE", USAGE),
        ("RINGLIFT_ENDPOINT_URL", USAGE),
        ("RINGLIFT_UPLOAD_TOKEN", USAGE),
        ("APIVIDEO_API_KEY", USAGE),
    ] {
        let before = test_server.server.requests().len();
        let mut command = ringlift();
        test_server.configure(&mut command).arg("upload").arg(sample.path()).env(name, odd(b"/nowhere\xff"));
        let words: &[&str] = if code == USAGE { &[name] } else { &[] };
        run(&mut command).failed(code, words);
        assert_eq!(test_server.server.requests().len(), before, "{name}");
    }
}

#[test]
fn json_output_has_a_summary_for_every_failure() {
    let config = tempfile::NamedTempFile::new().unwrap();
    let path = config.path().to_str().unwrap();
    let equals = format!("--config={path}");
    let of = |text: &str, args: &[&str], environment: &[(&str, &str)]| {
        fs::write(config.path(), text).unwrap();
        run(ringlift().args(args).envs(environment.iter().copied())).failed(USAGE, &[])
    };
    let json = "json = true";
    for ran in [
        of("", &["upload", "--nosuch", "x"], &[("RINGLIFT_JSON", "1")]),
        of("", &["upload", "--chunk-size", "1M", "x"], &[("RINGLIFT_JSON", "true")]),
        of("", &["upload", "x"], &[("RINGLIFT_JSON", "1"), ("RINGLIFT_CHUNK_SIZE", "1M")]),
        of("", &[], &[("RINGLIFT_JSON", "1")]),
        of(json, &["upload", "--nosuch", "x", "--config", path], &[]),
        of(json, &["upload", "--chunk-size", "1M", &equals, "x"], &[]),
        of(json, &["upload", "--chunk-size", "1M", "x"], &[("RINGLIFT_CONFIG", path)]),
        of("[upload]\njson = true", &["upload", "--config", path, "--chunk-size", "1M", "x"], &[]),
        of("json = true\nnosuch = 1", &["upload", "x"], &[("RINGLIFT_CONFIG", path)]),
    ] {
        assert_eq!(ran.event("failed")["error"]["kind"], "usage", "{ran:?}");
        assert_eq!(ran.summary()["exit_code"], USAGE);
    }
    for ran in [
        of(json, &["upload", "--nosuch", "x", "--config", path], &[("RINGLIFT_JSON", "0")]),
        of("[status]\njson = true", &["upload", "--config", path, "--chunk-size", "1M", "x"], &[]),
        of("", &["upload", "--nosuch", "--", "--json"], &[]),
    ] {
        assert_eq!(ran.stdout, "", "{ran:?}");
    }
}

#[test]
fn a_settings_file_has_plain_values_and_a_metadata_table() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let config = tempfile::NamedTempFile::new().unwrap();
    let with = |text: &[u8]| {
        fs::write(config.path(), text).unwrap();
        let mut command = ringlift();
        test_server.configure(&mut command).args(["upload", "--json", "--config"]).arg(config.path());
        run(command.arg(sample.path()))
    };
    let text =
        "\u{feff}title = \"T\"\ntag = [\"a\", 2]\nretries = 3\n[upload.metadata]\ncamera = \"7\"\nshot = 8";
    let ran = with(text.as_bytes()).done();
    let client = test_server.client().build().unwrap();
    let video_id = ran.summary()["video_id"].as_str().unwrap().to_owned();
    let video = pollster::block_on(client.video(&video_id)).unwrap();
    assert_eq!((video.title.as_deref(), video.tags), (Some("T"), vec!["a".to_owned(), "2".to_owned()]));
    let pairs: Vec<_> = video.metadata.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    assert!(pairs.contains(&("camera", "7")) && pairs.contains(&("shot", "8")), "{pairs:?}");
    for (text, word) in [
        (&b"tag = { x = 1 }"[..], "tag"),
        (b"title = 2026-01-01", "title"),
        (b"tag = [[\"a\"]]", "tag"),
        (b"tag = [{ a = 1 }]", "tag"),
        (b"metadata = { a = { b = 1 } }", "metadata"),
        (b"metadata = { \"a=b\" = 1 }", "metadata"),
        (b"config = \"other.toml\"", "config"),
        (b"title = \"\xff\"", "UTF-8"),
        (b"\n\nupload-token = \"hunter2", "line 3"),
    ] {
        let before = test_server.server.requests().len();
        let ran = with(text).failed(USAGE, &[word, config.path().to_str().unwrap()]);
        assert!(!ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"), "{ran:?}");
        assert_eq!(test_server.server.requests().len(), before, "{ran:?}");
    }
}

#[test]
fn excessive_numbers_are_refused_with_their_flag() {
    let sample = Sample::new(MIB);
    let most = u64::MAX.to_string();
    for flag in [
        "--timeout",
        "--connect-timeout",
        "--retry-max-time",
        "--grace",
        "--wait-timeout",
        "--concurrency",
        "--transfers",
        "--retries",
        "--rate",
        "--tpslimit",
        "--chunk-size",
    ] {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").args(["upload", flag, &most]).arg(sample.path());
        run(&mut command).failed(USAGE, &[flag]);
    }
    let mut command = ringlift();
    run(command.env("APIVIDEO_API_KEY", "key").args(["token", "create", "--ttl", &most]))
        .failed(USAGE, &["--ttl"]);
}

#[test]
fn excessive_sizes_do_not_panic() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    for flag in ["--max-buffer-memory", "--bwlimit"] {
        let mut command = ringlift();
        test_server.configure(&mut command).args(["upload", "--name", "x", flag, "16383P", "-"]);
        command.stdin(fs::File::open(sample.path()).unwrap());
        run(&mut command).done();
    }
    let unplanned = test_server.run(["upload", "--expected-size", "16383P", "-"]);
    assert!(unplanned.code.is_some_and(|code| code != 0), "{unplanned:?}");
    unplanned.failed(1, &[]);
}
