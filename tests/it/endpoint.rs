//! The endpoint: spellings of its URL, and servers that are not the service.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ringlift::server::{Fault, FaultAction, RouteClass};
use ringlift::{ChunkSize, Client, ErrorKind, SANDBOX_URL};

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::relay::Relay;
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_ALLOWED: i32 = 7;

fn upload_to(url: &str, sample: &Sample) -> CommandOutput {
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "key").args(["upload", "--no-journal", "--endpoint-url", url]);
    run(command.arg(sample.path()))
}

#[test]
fn an_invalid_port_is_refused_before_anything_is_sent() {
    let sample = Sample::new(MIB);
    for port in [":99999", ":8080x", ":-1", ":+8080", ":0", ":"] {
        for url in [format!("http://127.0.0.1{port}"), format!("https://[::1]{port}/base")] {
            upload_to(&url, &sample).failed(USAGE, &["port", "1 to 65535"]);
            let error = Client::builder().endpoint_url(&url).api_key("key").build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        }
    }
    upload_to("http://[fe80::1%25eth0]:80", &sample).failed(USAGE, &["zone"]);
}

#[test]
fn a_password_in_the_url_is_refused_and_hidden_from_every_origin() {
    let sample = Sample::new(MIB);
    let url = "http://user:hunter2@127.0.0.1:9";
    let mut by_variable = ringlift();
    by_variable.env("RINGLIFT_ENDPOINT_URL", url).args(["upload", "--json"]).arg(sample.path());
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), format!("endpoint-url = \"{url}\"")).unwrap();
    let mut by_file = ringlift();
    by_file.args(["upload", "--json", "--config"]).arg(config.path()).arg(sample.path());
    for ran in [upload_to(url, &sample), run(&mut by_variable), run(&mut by_file)] {
        let ran = ran.failed(USAGE, &["credentials"]);
        assert!(!ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn an_upload_continues_with_every_spelling_of_its_endpoint() {
    for mend in
        [|url: &str| format!("{url}//"), |url: &str| url.replace("http://127.0.0.1", " HTTP://127.0.0.1")]
    {
        let fault = Fault::new(RouteClass::Chunk, FaultAction::CloseBeforeRecording).nth(3);
        let test_server = TestServer::faulty(Scheme::Http, vec![fault]);
        let sample = Sample::new(16 * MIB);
        let journal = test_server.folder.path().join("journal.db");
        let client = |url: &str| {
            let client = test_server.client().lanes(1).endpoint_url(url).with(|settings| {
                settings.retry.retries = 0;
                settings.journal = Some(journal.clone());
            });
            let client = client.build().unwrap();
            client.upload(sample.path()).chunk_size(ChunkSize::Bytes(5 * MIB)).send_blocking()
        };
        let error = client(test_server.server.url()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let uploaded = client(&mend(test_server.server.url())).unwrap();
        test_server.assert_created(1);
        test_server.assert_nothing_was_sent_twice();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
    }
}

#[test]
fn every_spelling_of_the_sandbox_is_recognised() {
    let sample = Sample::new(MIB);
    let planned = |url: &str| {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").args(["upload", "--dry-run", "--json", "--endpoint-url", url]);
        run(command.arg(sample.path())).done().event("planned")["endpoint_url"].clone()
    };
    for url in ["https://sandbox.api.video/", "HTTPS://Sandbox.api.video:443"] {
        assert_eq!(planned(url), SANDBOX_URL, "{url}");
    }
}

#[test]
fn every_request_has_a_user_agent_and_accepts_no_compression() {
    let test_server = TestServer::new(Scheme::Http);
    let relay = Relay::start(test_server.server.addr(), "");
    let sample = Sample::new(11 * MIB);
    let token = test_server.upload_token();
    let with_key = test_server.client().endpoint_url(relay.url()).build().unwrap();
    with_key.upload(sample.path()).chunk_size(ChunkSize::Bytes(5 * MIB)).send_blocking().unwrap();
    let stranger = Client::builder().endpoint_url(relay.url()).build().unwrap();
    stranger.upload(sample.path()).upload_token(token).send_blocking().unwrap();
    let heads = relay.heads();
    let count = |text: &str| heads.matches(text).count();
    let requests = count(" http/1.1\r\n");
    assert!(requests >= 5, "{heads}");
    let agent = format!("user-agent: ringlift/{}\r\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((count(&agent), count("accept-encoding: identity\r\n")), (requests, requests), "{heads}");
}

/// Starts a server that answers `text` to the first bytes of every connection, closes it, and counts connections.
fn babble(text: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    thread::spawn(move || {
        for peer in listener.incoming() {
            let mut peer = peer.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut bytes = [0; 65536];
            let _ = peer.read(&mut bytes).and_then(|_| peer.write_all(text));
            let _ = peer.shutdown(Shutdown::Write);
            while peer.read(&mut bytes).is_ok_and(|len| len > 0) {}
        }
    });
    (address, connections)
}

#[test]
fn a_server_that_does_not_speak_http_ends_the_upload_at_once() {
    let sample = Sample::new(MIB);
    for (text, word) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "SSH"),
        (b"\x15\x03\x01\0\x02\x02\x46", "https://"),
        (b"220 mail.example ESMTP\r\n", "mail"),
        (b"hello\r\n\r\n", "does not speak HTTP"),
    ] {
        let (address, connections) = babble(text);
        let ran = upload_to(&format!("http://{address}"), &sample);
        let ran = ran.failed(FAILED, &["does not speak HTTP", word, &address]);
        assert!(!ran.stderr.contains("may have it"), "{ran:?}");
        assert_eq!(connections.load(Ordering::Relaxed), 1, "{ran:?}");
    }
}

#[test]
fn a_server_that_does_not_speak_http_ends_an_upload_with_a_token_at_once() {
    let (address, connections) = babble(b"SSH-2.0-OpenSSH_9.6\r\n");
    let sample = Sample::new(MIB);
    let mut command = ringlift();
    command.env("RINGLIFT_UPLOAD_TOKEN", "to1").args(["upload", "--no-journal", "--json", "--endpoint-url"]);
    let ran = run(command.arg(format!("http://{address}")).arg(sample.path()));
    assert_eq!(connections.load(Ordering::Relaxed), 1, "{ran:?}");
    assert!(!ran.stdout.contains("stray_video"), "{ran:?}");
    assert_eq!(ran.failed(FAILED, &["SSH"]).event("file_failed")["error"]["kind"], "wrong_protocol");
}

#[test]
fn a_server_without_tls_ends_the_upload_at_once() {
    let (address, connections) = babble(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let sample = Sample::new(MIB);
    // The system may have no certificate authorities.
    let test_server = TestServer::new(Scheme::Https);
    let mut command = ringlift();
    test_server.configure(&mut command).args([
        "upload",
        "--no-journal",
        "--endpoint-url",
        &format!("https://{address}"),
    ]);
    run(command.arg(sample.path())).failed(NOT_ALLOWED, &["does not speak TLS", "http://"]);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_server_that_closes_each_handshake_is_retried() {
    let (address, connections) = babble(b"");
    let sample = Sample::new(MIB);
    let test_server = TestServer::new(Scheme::Https);
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--no-journal", "--retries", "2", "--endpoint-url"]);
    run(command.arg(format!("https://{address}")).arg(sample.path())).failed(5, &["TLS"]);
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}
