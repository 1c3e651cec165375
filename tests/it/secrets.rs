//! Runs everything at the highest verbosity with known secrets, and searches the output for them.
//!
//! The test runs in its own process. Every log event of the library and of the server goes into one buffer, together
//! with the `Debug` and `Display` output of every value that the library returns. The bytes of the journals are
//! searched too.

use std::env;
use std::error::Error as _;
use std::fmt::Debug;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use ringlift::{Client, ClientBuilder, Credentials, Error, ErrorKind, Secret, Upload};
use tracing::level_filters::LevelFilter;

use crate::support::way::Way;
use crate::support::{Sample, Scheme, TestServer, short_pauses};

#[test]
fn no_secret_is_logged_shown_or_stored() {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "secrets::everything_with_marked_secrets", "--ignored"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "what the other test starts as a process of its own"]
fn everything_with_marked_secrets() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(|| LogBuffer).init();
    let mut secrets = Secrets::default();
    for scheme in [Scheme::Http, Scheme::Https] {
        successes(scheme, &mut secrets);
        failures(scheme, &mut secrets);
    }
    refused_credentials(&mut secrets);
    echoes(&mut secrets);
    secrets.in_endpoints();
    secrets.search("what was said", &LOG_BUFFER.lock().unwrap());
    for (path, bytes) in &secrets.written {
        secrets.search(path, bytes);
    }
    assert!(contains(&LOG_BUFFER.lock().unwrap(), b"reader chosen"), "the library's events did not arrive");
}

/// The collected log and output.
static LOG_BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct LogBuffer;

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG_BUFFER.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn show(thing: &impl Debug) {
    write!(LogBuffer, "{thing:?} {thing:#?}").unwrap();
}

fn show_error(error: &Error) {
    show(error);
    write!(LogBuffer, "{error} {:?} {:?}", error.advice(), error.refusal()).unwrap();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(LogBuffer, "{cause} {cause:?}").unwrap();
        source = cause.source();
    }
}

/// The secrets, and the files that must not contain them.
#[derive(Default)]
struct Secrets {
    known: Vec<String>,
    written: Vec<(String, Vec<u8>)>,
}

impl Secrets {
    fn add(&mut self, secret: &str) {
        self.known.push(secret.to_owned());
        // `Basic` authentication encodes the key in base64; the last character depends on the following bytes.
        let basic = BASE64_STANDARD.encode(secret);
        self.known.push(basic.trim_end_matches('=')[..basic.len() - 4].to_owned());
    }

    /// Adds the tokens that the server has issued.
    fn add_tokens_of(&mut self, test_server: &TestServer) {
        let db =
            rusqlite::Connection::open(test_server.folder.path().join("data").join("server.db")).unwrap();
        for table in ["access_tokens", "refresh_tokens", "upload_tokens"] {
            let mut tokens = db.prepare(&format!("SELECT token FROM {table}")).unwrap();
            let tokens = tokens.query_map([], |row| row.get::<_, String>(0)).unwrap();
            tokens.for_each(|token| self.add(&token.unwrap()));
        }
    }

    /// Keeps the journal and all files next to it for the search.
    fn keep(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => self.keep(&path),
                false => self.written.push((path.display().to_string(), fs::read(&path).unwrap())),
            }
        }
    }

    fn in_endpoints(&mut self) {
        self.add("marked-password");
        for endpoint in ["https://me:marked-password@127.0.0.1/", "http://127.0.0.1/?key=marked-password"] {
            match Client::builder().endpoint_url(endpoint).build() {
                Ok(_) => panic!("an endpoint with a secret was taken"),
                Err(error) => show_error(&error),
            }
        }
    }

    fn search(&self, place: &str, bytes: &[u8]) {
        assert!(self.known.len() > 10);
        for secret in &self.known {
            if let Some(at) = find(bytes, secret.as_bytes()) {
                let around = &bytes[at.saturating_sub(300)..bytes.len().min(at + 100)];
                panic!("{secret} is in {place}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, part)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    find(bytes, part).is_some()
}

const KEY: &str = "marked-api-key-6d21f0b8c6";

fn test_server(scheme: Scheme, faults: Vec<Fault>) -> TestServer {
    TestServer::with(scheme, |settings| {
        settings.api_key = Some(KEY.to_owned());
        settings.faults = faults.into();
    })
}

/// Uploads a file, logs all visible values, and returns the error kind.
fn send(
    secrets: &mut Secrets,
    test_server: &TestServer,
    way: Way,
    change: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Option<ErrorKind> {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let builder = change(test_server.short_pause_client()).with(|settings| settings.journal = Some(journal));
    show(&builder);
    let client = builder.build().unwrap();
    let (token, sample) = (way.token(test_server), way.sample(3));
    let upload = way.upload_with(token.as_deref(), &client, &sample);
    show(&upload);
    let ended = show_outcome(upload);
    show(&client);
    secrets.add_tokens_of(test_server);
    secrets.keep(folder.path());
    drop(client);
    secrets.keep(folder.path());
    ended
}

fn show_outcome(upload: Upload) -> Option<ErrorKind> {
    let running = pollster::block_on(upload.start()).unwrap();
    show(&running);
    match running.join_blocking() {
        Ok(uploaded) => {
            show(&uploaded);
            None
        }
        Err(error) => {
            show_error(&error);
            Some(error.kind())
        }
    }
}

fn with_exchanged_key(builder: ClientBuilder) -> ClientBuilder {
    builder.with(|settings| settings.credentials = Credentials::ExchangedApiKey(Secret::new(KEY)))
}

fn successes(scheme: Scheme, secrets: &mut Secrets) {
    secrets.add(KEY);
    for way in Way::ALL {
        assert_eq!(send(secrets, &test_server(scheme, Vec::new()), way, |builder| builder), None);
    }
    let mended = [FaultAction::CloseAfterRecording, FaultAction::HtmlAnswer, FaultAction::unauthorized()];
    let faults = (0..).zip(mended).map(|(index, action)| Way::Bytes.fault(index, action)).collect();
    assert_eq!(send(secrets, &test_server(scheme, faults), Way::Bytes, with_exchanged_key), None);
}

fn failures(scheme: Scheme, secrets: &mut Secrets) {
    let refusal = |status| FaultAction::Refuse { status, slug: None, timing: RefusalTiming::EarlyClose };
    let a_day =
        FaultAction::TooManyRequests { retry_after_s: Some(86_400), timing: RefusalTiming::AfterBody };
    let fatal = [
        (refusal(400), ErrorKind::Refused),
        (refusal(401), ErrorKind::NotAuthorized),
        (refusal(404), ErrorKind::NotFound),
        (refusal(503), ErrorKind::Unavailable),
        (a_day, ErrorKind::RateLimited),
        (FaultAction::HtmlAnswer, ErrorKind::MalformedAnswer),
        (FaultAction::MalformedAnswer, ErrorKind::MalformedAnswer),
        (FaultAction::OtherVideoId, ErrorKind::Mismatch),
        (FaultAction::Cut { after_bytes: 1, how: Default::default() }, ErrorKind::Unavailable),
    ];
    for class in [RouteClass::Chunk, RouteClass::Create, RouteClass::Auth] {
        for (action, kind) in &fatal {
            let faults = vec![
                Fault::new(class, action.clone()).times(0),
                Fault::new(RouteClass::Status, action.clone()).times(0),
            ];
            let hurried = |builder: ClientBuilder| {
                with_exchanged_key(builder.with(|settings| settings.retry.retries = 1))
            };
            let ended = send(secrets, &test_server(scheme, faults), Way::Bytes, hurried);
            if class == RouteClass::Chunk {
                assert_eq!(ended, Some(*kind), "{action:?}");
            }
        }
    }
}

fn refused_credentials(secrets: &mut Secrets) {
    let wrong = [
        Credentials::ApiKey(Secret::new("marked-wrong-key-1")),
        Credentials::ExchangedApiKey(Secret::new("marked-wrong-key-2")),
        Credentials::AccessToken {
            token: Secret::new("marked-access-token"),
            refresh_token: Some(Secret::new("marked-refresh-token")),
        },
    ];
    for secret in ["marked-wrong-key-1", "marked-wrong-key-2", "marked-access-token", "marked-refresh-token"]
    {
        secrets.add(secret);
    }
    for credentials in wrong {
        let test_server = test_server(Scheme::Http, Vec::new());
        let with = |builder: ClientBuilder| builder.with(|settings| settings.credentials = credentials);
        assert_eq!(send(secrets, &test_server, Way::Bytes, with), Some(ErrorKind::NotAuthorized));
    }
    secrets.add("marked-upload-token");
    let test_server = test_server(Scheme::Https, Vec::new());
    let client = test_server.short_pause_client().build().unwrap();
    let sample = Sample::new(1);
    let upload = client.upload(sample.path()).upload_token("marked-upload-token");
    assert_eq!(show_outcome(upload), Some(ErrorKind::NotAuthorized));
    let deleted = pollster::block_on(client.delete_upload_token("marked-upload-token"));
    show_error(&deleted.unwrap_err());
}

/// Uploads through a proxy that repeats the request in its answer.
fn echoes(secrets: &mut Secrets) {
    secrets.add("marked-echoed-token");
    secrets.add("marked&odd+token");
    secrets.add("marked%26odd%2Btoken");
    for answer in [
        "HTTP/1.1 404 Not Found\r\ncontent-length: {len}\r\nconnection: close\r\n\r\nCannot POST {target} as {authorization}",
        "HTTP/1.1 302 Found\r\nlocation: https://elsewhere{target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 201 Created\r\ncontent-length: {len}\r\nconnection: close\r\n\r\nCreated {target} as {authorization}",
    ] {
        let endpoint = echo(answer);
        let client = Client::builder().endpoint_url(endpoint).api_key(KEY).with(short_pauses);
        let client = client.with(|settings| settings.retry.retries = 1).build().unwrap();
        let sample = Sample::new(1);
        for token in ["marked-echoed-token", "marked&odd+token"] {
            show_outcome(client.upload(sample.path()).upload_token(token)).unwrap();
        }
        show_outcome(client.upload(sample.path())).unwrap();
        show_outcome(client.upload(sample.path()).video_id("viGiven")).unwrap();
    }
}

/// Starts a server that gives this answer to every request, until the process ends.
fn echo(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            let (mut target, mut authorization) = (String::new(), String::new());
            for line in BufReader::new(&socket).lines().map_while(Result::ok) {
                match line.split_once(' ') {
                    None if line.is_empty() => break,
                    Some(("POST" | "GET", rest)) => target = rest.replace(" HTTP/1.1", ""),
                    Some((name, value)) if name.eq_ignore_ascii_case("authorization:") => {
                        authorization = value.to_owned();
                    }
                    _ => {}
                }
            }
            let answer = answer.replace("{target}", &target).replace("{authorization}", &authorization);
            let body = answer.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
            let _ = (&socket).write_all(answer.replace("{len}", &body.to_string()).as_bytes());
            // Read the rest of the request, because unread bytes would turn the answer into a reset.
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    endpoint
}
