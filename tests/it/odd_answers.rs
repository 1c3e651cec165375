//! Answers of other services and gateways: repeated secrets, unexpected JSON, control characters, delayed lists.
//! The service is a few lines over raw sockets, so that the test controls every byte of an answer.

use std::error::Error as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use ringlift::journal::{ContainerState, Journal};
use ringlift::{Client, ErrorKind, VideoQuery};
use serde_json::{Value, json};

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::{Sample, short_pauses};

/// A received request.
#[derive(Clone, Debug)]
struct ReceivedRequest {
    method: String,
    /// Path and query.
    target: String,
    body: Vec<u8>,
}

impl ReceivedRequest {
    fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.target.split('?').next() == Some(path)
    }
}

/// A service that answers each request with a function, on a new connection.
struct Service {
    url: String,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
}

/// Status, additional headers and body of an answer. `None` closes the connection without an answer.
type Answer = Option<(u16, Vec<(&'static str, String)>, Vec<u8>)>;

impl Service {
    fn new(answer: impl Fn(&ReceivedRequest) -> Answer + Send + Sync + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (heard, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (heard, answer) = (heard.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&socket) else { return };
                    heard.lock().unwrap().push(request.clone());
                    if let Some(reply) = answer(&request) {
                        reply_with(&socket, &reply);
                    }
                });
            }
        });
        Service { url, requests }
    }

    fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().unwrap().clone()
    }

    fn client(&self, key: &str) -> Client {
        let client = Client::builder().endpoint_url(&self.url).api_key(key).with(short_pauses);
        client.with(|settings| settings.retry.retries = 1).build().unwrap()
    }

    fn command(&self, key: &str) -> Command {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", key).env("RINGLIFT_ENDPOINT_URL", &self.url);
        command.env("RINGLIFT_RETRIES", "1");
        command
    }
}

fn read(socket: &TcpStream) -> Option<ReceivedRequest> {
    let mut lines = BufReader::new(socket);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    Some(ReceivedRequest { method, target, body })
}

fn reply_with(mut socket: &TcpStream, (status, headers, body): &(u16, Vec<(&'static str, String)>, Vec<u8>)) {
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    // The client may have closed the connection.
    let _ = socket.write_all(&[head.as_bytes(), b"\r\n", body].concat());
}

fn answer_with(status: u16, body: impl AsRef<[u8]>) -> Answer {
    Some((status, Vec::new(), body.as_ref().to_vec()))
}

fn answer_with_json(status: u16, body: &Value) -> Answer {
    answer_with(status, body.to_string())
}

fn problem(status: u16, title: &str) -> Answer {
    let page = "https://docs.api.video/reference/invalid-attribute";
    answer_with_json(status, &json!({"type": page, "title": title, "detail": title, "status": status}))
}

fn percent(text: &str, lower: bool) -> String {
    let escape = |byte: u8| if lower { format!("%{byte:02x}") } else { format!("%{byte:02X}") };
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { (byte as char).into() } else { escape(byte) })
        .collect()
}

const KEY: &str = "sk-live/AbC+=9&\"x";

/// Returns all spellings of the key that programs write.
fn spellings() -> Vec<String> {
    let json = serde_json::to_string(KEY).unwrap();
    let json = json.trim_matches('"');
    let html = KEY.replace('&', "&amp;").replace('"', "&quot;");
    let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{KEY}:"));
    vec![
        KEY.to_owned(),
        basic.clone(),
        basic.trim_end_matches('=').to_owned(),
        percent(KEY, false),
        percent(KEY, true),
        KEY.replace('&', "%26"),
        json.to_owned(),
        json.replace('/', "\\/").replace('&', "\\u0026"),
        html.clone(),
        html.replace('/', "&#x2F;").replace('+', "&#43;"),
        percent(&percent(KEY, true), false),
    ]
}

#[test]
fn no_part_of_an_error_shows_any_spelling_of_the_key() {
    for spelling in spellings() {
        let echoed = spelling.clone();
        let service = Service::new(move |request| match request.target.as_str() {
            "/videos/refused" => problem(400, &format!("Incorrect key: {echoed}.")),
            "/videos/page" => answer_with(502, format!("<pre>Key {echoed}</pre>")),
            "/videos/moved" => {
                let location = format!("https://elsewhere/?key={}", echoed.replace('"', "%22"));
                Some((302, vec![("location", location)], Vec::new()))
            }
            _ => answer_with_json(200, &json!({"videoId": [&echoed], "note": &echoed})),
        });
        let client = service.client(KEY);
        for id in ["refused", "page", "moved", "unreadable"] {
            let error = pollster::block_on(client.video(id)).unwrap_err();
            let mut texts =
                format!("{error} {error:?} {error:#?} {:?} {:?}", error.refusal(), error.advice());
            let mut cause = error.source();
            while let Some(next) = cause {
                texts += &format!("{next} {next:?}");
                cause = next.source();
            }
            assert!(!texts.contains(&spelling), "{id}: {spelling} in {texts}");
            assert!(!texts.contains("AbC"), "{id}: {spelling} in {texts}");
            assert!(texts.contains("***"), "{id}: {texts}");
        }
    }
}

#[test]
fn no_command_shows_the_key() {
    for spelling in spellings() {
        let echoed = spelling.clone();
        let service = Service::new(move |request| match request.method.as_str() {
            "GET" => {
                answer_with_json(200, &json!({"data": [{"videoId": "vi1", "title": format!("of {echoed}")}]}))
            }
            _ => problem(400, &format!("Incorrect key: {echoed}")),
        });
        let sample = Sample::new(1);
        for args in [&["video", "list"][..], &["upload", sample.arg()], &["video", "delete", "--yes", "vi1"]]
        {
            for shown in [&[][..], &["--json"], &["-vvv"]] {
                let ran = run(service.command(KEY).args(args).args(shown));
                let all = format!("{}{}", ran.stdout, ran.stderr);
                assert!(!all.contains(&spelling) && !all.contains("AbC"), "{args:?} {shown:?}: {all}");
                assert!(all.contains("***"), "{args:?} {shown:?}: {all}");
                if shown == ["--json"] {
                    ran.summary();
                }
            }
        }
    }
}

#[test]
fn the_password_of_an_endpoint_or_of_a_proxy_is_not_shown() {
    let mut command = ringlift();
    command.env("APIVIDEO_API_KEY", "key-1234").env("https_proxy", "http://me:marked-pass@proxy:3128");
    command.args(["-vvv", "video", "list", "--endpoint-url", "https://me:marked-pass@127.0.0.1:1"]);
    let ran = run(&mut command);
    assert_ne!(ran.code, Some(0));
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("marked-pass"), "{ran:?}");
}

#[test]
fn an_upload_token_is_hidden_in_every_spelling() {
    let token = "to1/SECRET+=9&x";
    let html = token.replace('&', "&amp;");
    for spelling in
        [token.to_owned(), percent(token, false), percent(token, true), token.replace('/', "%2f"), html]
    {
        let echoed = spelling.clone();
        let service =
            Service::new(move |_| answer_with(403, format!("<p>Blocked: /upload?token={echoed}</p>")));
        let sample = Sample::new(1);
        let upload = service.client("key-1234").upload(sample.path()).upload_token(token);
        let error = pollster::block_on(upload.send()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{spelling}: {error:?}");
        let mut command = ringlift();
        command.env("RINGLIFT_UPLOAD_TOKEN", token).args([
            "upload",
            sample.arg(),
            "--endpoint-url",
            &service.url,
        ]);
        let ran = run(command.args(["--retries", "0", "-vvv"]));
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("SECRET"), "{spelling}: {ran:?}");
    }
}

#[test]
fn a_short_key_does_not_hide_ordinary_words() {
    let service = Service::new(|_| problem(400, "This is an invalid attribute"));
    let ran = run(service.command("a").args(["video", "get", "vi1"]));
    ran.failed(1, &["This is an invalid attribute"]);
}

#[test]
fn one_malformed_video_does_not_hide_the_rest_of_its_page() {
    let service = Service::new(|_| {
        let plain = r#"{"videoId":"vi1","title":"A"}"#;
        let fields = r#"{"videoId":"vi2","title":7,"public":1,"tags":{},"assets":[],"createdAt":1720999999}"#;
        let half = r#"{"videoId":"vi3","title":"\ud83d"}"#;
        let no_id = r#"{"title":"nobody"}"#;
        let steers = "{\"videoId\":\"vi4\\u001b[2J\"}";
        let pages = r#"{"currentPage":"1","pagesTotal":"2"}"#;
        let items = [plain, fields, half, no_id, steers].join(",");
        answer_with(200, format!("\u{feff}{{\"data\":[{items}],\"pagination\":{pages}}}"))
    });
    let page = pollster::block_on(service.client("key-1234").videos(VideoQuery::new())).unwrap();
    let ids: Vec<_> = page.data.iter().map(|video| video.video_id.as_str()).collect();
    assert_eq!((ids.as_slice(), page.unreadable), (&["vi1", "vi2", "vi3"][..], 2));
    assert_eq!(page.next_page(), Some(2));
    let ran = run(service.command("key-1234").args(["video", "list"])).done();
    assert!(ran.stderr.contains("more with --page 2") && ran.stderr.contains("2 videos"), "{}", ran.stderr);
}

#[test]
fn a_page_of_several_mib_is_read() {
    let service = Service::new(|_| {
        let video = |number| json!({"videoId": format!("vi{number}"), "description": "d".repeat(60_000)});
        answer_with_json(200, &json!({"data": (0..100).map(video).collect::<Vec<_>>()}))
    });
    let page = pollster::block_on(service.client("key-1234").videos(VideoQuery::new())).unwrap();
    assert_eq!((page.data.len(), page.unreadable), (100, 0));
}

#[test]
fn a_list_whose_pages_repeat_ends() {
    let service = Service::new(|_| {
        let pagination = json!({"currentPage": 1, "pagesTotal": 1_000_000});
        answer_with_json(
            200,
            &json!({"data": [{"videoId": "vi1"}, {"videoId": "vi2"}], "pagination": pagination}),
        )
    });
    let ran = run(service.command("key-1234").args(["video", "list", "--json", "--all"])).done();
    assert_eq!(ran.event("list_end")["listed"], 2);
    assert_eq!(service.requests().len(), 2);
}

#[test]
fn titles_and_file_names_cannot_control_the_terminal() {
    let service = Service::new(|request| match request.method.as_str() {
        "GET" => answer_with_json(
            200,
            &json!({"data": [{"videoId": "vi1", "title": "a\u{1b}[31m\nb\u{9b}2J\u{202e}"}]}),
        ),
        _ => problem(400, "bad\u{1b}[2J\nvideo"),
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd\u{1b}[31m\nname.mp4");
    std::fs::write(&file, b"x").unwrap();
    for args in [&["video", "list"][..], &["-vv", "upload", file.to_str().unwrap()]] {
        let CommandOutput { stdout, stderr, .. } = run(service.command("key-1234").args(args));
        let steers = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
        assert!(!stdout.contains(steers) && !stderr.contains(steers), "{stdout:?} {stderr:?}");
        assert!(!stdout.contains("\nb") && !stderr.contains("\nname"), "{stdout:?} {stderr:?}");
    }
}

#[test]
fn a_video_id_with_control_characters_is_refused() {
    let service = Service::new(|_| answer_with_json(201, &json!({"videoId": "vi1\u{1b}]0;x\u{7}"})));
    let error = pollster::block_on(service.client("key-1234").video("vi1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MalformedAnswer);
    assert!(!format!("{error} {:?}", error.source().unwrap().to_string()).contains(char::is_control));
}

#[test]
fn path_segments_in_an_id_are_refused_before_anything_is_sent() {
    let service = Service::new(|_| answer_with(204, ""));
    for id in [".", "..", ""] {
        run(service.command("key-1234").args(["video", "delete", "--yes", "--", id]))
            .failed(2, &["its id is"]);
    }
    assert!(service.requests().is_empty());
}

/// Starts a service that loses the answer to the first creation. It lists that video from list request `from` on, on
/// page `page`.
fn service_that_loses_creation(from: usize, page: u64) -> (Service, Arc<Mutex<Vec<Value>>>) {
    let videos: Arc<Mutex<Vec<Value>>> = Arc::default();
    let looks = Mutex::new(0);
    let made = videos.clone();
    let service = Service::new(move |request| {
        let mut videos = made.lock().unwrap();
        if request.is("POST", "/videos") {
            let mut video: Value = serde_json::from_slice(&request.body).unwrap();
            video["videoId"] = format!("vi{}", videos.len() + 1).into();
            videos.push(video.clone());
            return if videos.len() == 1 { None } else { answer_with_json(201, &video) };
        }
        if request.is("GET", "/videos") {
            let mut looks = looks.lock().unwrap();
            *looks += 1;
            let asked_page = request.target.split("currentPage=").nth(1).map_or("1", |rest| &rest[..1]);
            let data = match *looks >= from && asked_page == page.to_string() {
                true => videos.clone(),
                false => vec![json!({"videoId": "viOther", "metadata": []})],
            };
            let pagination = json!({"currentPage": asked_page, "pagesTotal": page});
            return answer_with_json(200, &json!({"data": data, "pagination": pagination}));
        }
        if request.target.ends_with("/status") {
            return answer_with_json(200, &json!({"ingest": {"status": "uploading"}}));
        }
        let id = request.target.split('/').nth(2).unwrap_or_default();
        answer_with_json(201, &json!({"videoId": id, "assets": {}}))
    });
    (service, videos)
}

fn upload_with_journal(service: &Service) -> (String, Vec<ContainerState>) {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let path = journal.clone();
    let client = Client::builder().endpoint_url(&service.url).api_key("key-1234").with(short_pauses);
    let client = client.with(|settings| settings.journal = Some(path)).build().unwrap();
    let sample = Sample::new(1);
    let uploaded = pollster::block_on(client.upload(sample.path()).send()).unwrap();
    drop(client);
    let entries = Journal::open(&journal).unwrap().entries().unwrap();
    (uploaded.video_id, entries.into_iter().map(|entry| entry.container).collect())
}

#[test]
fn a_container_with_a_lost_answer_is_found_in_a_delayed_list() {
    for (from, page) in [(1, 1), (2, 1), (1, 2), (1, 5)] {
        let (service, videos) = service_that_loses_creation(from, page);
        let (video_id, left) = upload_with_journal(&service);
        assert_eq!((video_id.as_str(), videos.lock().unwrap().len()), ("vi1", 1), "from {from}, page {page}");
        assert_eq!(left, []);
        let looks: Vec<_> =
            service.requests().into_iter().filter(|request| request.is("GET", "/videos")).collect();
        assert!(looks[0].target.contains("sortBy=createdAt&sortOrder=desc"), "{}", looks[0].target);
    }
}

#[test]
fn an_unlisted_container_stays_in_the_journal_after_another_is_created() {
    let (service, videos) = service_that_loses_creation(usize::MAX, 1);
    let (video_id, left) = upload_with_journal(&service);
    assert_eq!(video_id, "vi2");
    let marks: Vec<Value> =
        videos.lock().unwrap().iter().map(|video| video["metadata"][0]["value"].clone()).collect();
    assert_ne!(marks[0], marks[1], "who cleans up must not take the one for the other");
    let left: Vec<_> = left.iter().map(|container| container.mark()).collect();
    assert_eq!(left, [marks[0].as_str()]);
}

#[test]
fn clean_deletes_the_unlisted_container_and_keeps_the_filled_one() {
    let (service, _) = service_that_loses_creation(3, 1);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let sample = Sample::new(1);
    let command = |args: &[&str]| {
        let mut command = service.command("key-1234");
        run(command.args(args).args(["--journal", journal.to_str().unwrap()]))
    };
    let ran = command(&["upload", sample.arg()]).done();
    assert_eq!(ran.stdout.trim(), "vi2");
    command(&["clean", "--yes"]).done();
    let deleted: Vec<_> = service
        .requests()
        .into_iter()
        .filter(|request| request.method == "DELETE")
        .map(|request| request.target)
        .collect();
    assert_eq!(deleted, ["/videos/vi1"]);
}

#[test]
fn a_stream_ends_if_the_service_loses_bytes_that_it_acknowledged() {
    const LEN: u64 = 2 * 5_242_880 + 1000;
    let service = Service::new(|request| {
        if request.is("POST", "/videos") {
            return answer_with_json(201, &json!({"videoId": "vi1"}));
        }
        if request.method == "POST" {
            return answer_with(201, r#"{"videoId":"vi1"}"#);
        }
        let second = json!([{"from": 5_242_880, "to": LEN - 1, "total": LEN}]);
        let ingest = json!({"status": "uploading", "receivedBytes": second, "receivedParts": []});
        answer_with_json(200, &json!({"ingest": ingest}))
    });
    let client = service.client("key-1234");
    let stream = std::io::Read::take(std::io::repeat(7), LEN);
    let upload = client.upload_reader("film", stream).chunk_size(ringlift::ChunkSize::Bytes(5_242_880));
    let error = upload.len(LEN).mode(ringlift::Mode::Bytes).send_blocking().unwrap_err();
    assert_eq!((error.kind(), error.video_id()), (ringlift::ErrorKind::Unavailable, Some("vi1")));
    assert!(error.to_string().contains("a stream cannot be read again"), "{error}");
    // A file would be sent again.
    let chunks = service.requests().into_iter().filter(|request| request.is("POST", "/videos/vi1/source"));
    assert_eq!(chunks.count(), 3);
}

#[test]
fn a_status_with_numbers_as_texts_is_read_after_a_lost_answer() {
    const LEN: u64 = 2 * 5_242_880 + 1000;
    let seen = Mutex::new(Vec::new());
    let service = Service::new(move |request| {
        if request.is("POST", "/videos") {
            return answer_with_json(201, &json!({"videoId": "vi1"}));
        }
        let mut seen = seen.lock().unwrap();
        if request.method == "POST" {
            seen.push(request.body.len());
            // The second chunk is stored, and its answer is lost.
            return match seen.len() {
                1 => answer_with(201, r#"{"videoId":"vi1"}"#),
                2 => None,
                _ => answer_with(201, r#"{"videoId":"vi1","assets":{}}"#),
            };
        }
        let range = |index: u64| {
            let from = index * 5_242_880;
            let to = (from + 5_242_879).min(LEN - 1);
            json!({"from": from.to_string(), "to": to as f64, "total": "x"})
        };
        let ranges: Vec<Value> = (0..seen.len() as u64).map(range).collect();
        let ingest =
            json!({"status": "uploading", "filesize": {}, "receivedBytes": ranges, "receivedParts": []});
        answer_with_json(
            200,
            &json!({"ingest": ingest, "encoding": {"playable": 1, "qualities": [{"quality": 240}]}}),
        )
    });
    let client = Client::builder().endpoint_url(&service.url).api_key("key-1234").lanes(1).with(short_pauses);
    let client = client.build().unwrap();
    let sample = Sample::new(LEN);
    let upload = client.upload(sample.path()).chunk_size(ringlift::ChunkSize::Bytes(5_242_880));
    let uploaded = pollster::block_on(upload.mode(ringlift::Mode::Bytes).send()).unwrap();
    assert_eq!((uploaded.video_id.as_str(), uploaded.resent_bytes), ("vi1", 0));
}
