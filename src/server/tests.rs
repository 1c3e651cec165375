//! Tests of the server over real sockets, with real files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const MIN: usize = 5 << 20;

/// A server with its own temporary folder.
struct ServerFixture {
    server: Server,
    data: TempDir,
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl ServerFixture {
    fn start() -> ServerFixture {
        ServerFixture::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ServerSettings)) -> ServerFixture {
        let data = tempfile::tempdir().unwrap();
        let mut settings = ServerSettings::new(data.path());
        change(&mut settings);
        ServerFixture { server: Server::start(settings).unwrap(), data }
    }

    fn faulty(faults: Vec<Fault>) -> ServerFixture {
        ServerFixture::with(|settings| settings.faults = faults.into())
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_request(method, path, headers, body).unwrap()
    }

    fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        exchange(connect(&self.server), &self.head(method, path, headers, body.len()), body)
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], len: usize) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len}\r\n");
        let has = |name: &str| headers.iter().any(|(found, _)| found.eq_ignore_ascii_case(name));
        if !has("authorization") {
            head += &format!(
                "Authorization: Basic {}\r\n",
                STANDARD.encode(format!("{}:", self.server.api_key()))
            );
        }
        if !has("connection") {
            head += "Connection: close\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    fn json(&self, method: &str, path: &str, body: Value) -> Reply {
        self.request(method, path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    fn create(&self) -> String {
        let reply = self.json("POST", "/videos", json!({"title": "a"}));
        assert_eq!(reply.status, 201);
        reply.json()["videoId"].as_str().unwrap().to_owned()
    }

    fn upload(&self, id: &str, range: Option<&str>, data: &[u8]) -> Reply {
        self.upload_body(&format!("/videos/{id}/source"), range, &form(&[("file", Some("a.mp4"), data)]))
    }

    fn upload_body(&self, path: &str, range: Option<&str>, body: &[u8]) -> Reply {
        let mut headers = vec![("Content-Type", "multipart/form-data; boundary=XyZ")];
        headers.extend(range.map(|range| ("Content-Range", range)));
        self.request("POST", path, &headers, body)
    }

    fn stored(&self, id: &str) -> Vec<u8> {
        let reply = self.request("GET", &format!("/videos/{id}/source"), &[], b"");
        assert_eq!(reply.status, 200, "{}", reply.head);
        let sha256 = sha256(&reply.body);
        assert_eq!(reply.header("x-content-sha256"), Some(&*sha256));
        assert_eq!(self.server.source_sha256(id), Some(sha256));
        reply.body
    }

    fn status(&self, id: &str) -> Value {
        self.request("GET", &format!("/videos/{id}/status"), &[], b"").json()
    }

    fn token(&self) -> String {
        let reply = self.json("POST", "/upload-tokens", json!({}));
        assert_eq!(reply.status, 200);
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    fn incoming(&self) -> usize {
        self.data.path().join("incoming").read_dir().unwrap().count()
    }
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[track_caller]
    fn assert_refused(&self, status: u16, slug: &str) {
        let problem = self.json();
        assert_eq!(problem["type"], format!("https://docs.api.video/reference/{slug}"), "{problem}");
        assert_eq!((self.status, &problem["status"]), (status, &json!(status)));
        assert!(problem["title"].is_string());
    }
}

fn connect(server: &Server) -> TcpStream {
    let tcp = TcpStream::connect(server.addr()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp
}

fn exchange(mut stream: impl Read + Write, head: &str, body: &[u8]) -> io::Result<Reply> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let end = response.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8(response[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    Ok(Reply { status, head, body: response[end + 4..].to_vec() })
}

/// Returns a multipart form of fields (name, file name, data); the boundary is `XyZ`.
fn form(fields: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file_name, data) in fields {
        let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        let head = format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XyZ--\r\n");
    body
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    (0..len).map(|_| random.u8(..)).collect()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_sent_in_one_request_is_stored() {
    let fixture = ServerFixture::start();
    let data = random_bytes(3 << 20);
    let id = fixture.create();
    let reply = fixture.upload(&id, None, &data);
    assert_eq!(reply.status, 201);
    assert_eq!(reply.json()["videoId"], id);
    assert!(reply.json()["assets"]["hls"].is_string());
    assert_eq!(fixture.stored(&id), data);
    let head = fixture.request("HEAD", &format!("/videos/{id}/source"), &[], b"");
    assert_eq!((head.header("content-length"), head.body.len()), (Some("3145728"), 0));
}

#[test]
fn byte_ranges_in_any_order_form_the_file() {
    let fixture = ServerFixture::start();
    let data = random_bytes(2 * MIN + 9);
    let id = fixture.create();
    let last = fixture.upload(&id, Some("bytes 10485760-10485768/10485769"), &data[2 * MIN..]);
    assert_eq!((last.status, last.json()), (201, json!({"videoId": id})));
    fixture.upload(&id, Some("bytes 0-5242879/*"), &data[..MIN]);
    let status = fixture.status(&id);
    assert_eq!(
        status["ingest"]["receivedBytes"],
        json!([
            {"from": 0, "to": 5_242_879, "total": 10_485_769},
            {"from": 10_485_760, "to": 10_485_768, "total": 10_485_769},
        ])
    );
    assert_eq!(status["ingest"]["filesize"], Value::Null);
    assert_eq!(fixture.server.source_sha256(&id), None, "the file is not complete");
    let full = fixture.upload(&id, Some("bytes 5242880-10485759/10485769"), &data[MIN..2 * MIN]);
    assert_eq!(full.json()["title"], "a");
    assert_eq!(fixture.stored(&id), data);
}

#[test]
fn parts_sent_at_the_same_time_form_the_file() {
    let fixture = ServerFixture::start();
    let data = random_bytes(3 * MIN + 1);
    let id = fixture.create();
    let replies: Vec<Reply> = thread::scope(|scope| {
        let parts: Vec<_> = data
            .chunks(MIN)
            .enumerate()
            .map(|(index, chunk)| {
                let (fixture, id) = (&fixture, &id);
                scope.spawn(move || fixture.upload(id, Some(&format!("part {}/4", index + 1)), chunk))
            })
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    });
    assert!(replies.iter().all(|reply| reply.status == 201));
    let full = replies.iter().filter(|reply| reply.json()["assets"].is_object()).count();
    assert_eq!(full, 1, "exactly one request completes the set");
    assert_eq!(fixture.stored(&id), data);
    assert_eq!(fixture.status(&id)["ingest"]["receivedParts"], json!({"parts": [1, 2, 3, 4], "total": 4}));
}

#[test]
fn only_one_of_two_requests_for_the_same_part_is_stored() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let contents: Vec<Vec<u8>> = (0..6u8).map(|byte| vec![byte; MIN]).collect();
    let replies: Vec<(u8, Reply)> = thread::scope(|scope| {
        let send = |content: &Vec<u8>| (content[0], fixture.upload(&id, Some("part 1/2"), content));
        let sent: Vec<_> = contents.iter().map(|content| scope.spawn(move || send(content))).collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    let winners: Vec<u8> =
        replies.iter().filter(|(_, reply)| reply.status == 201).map(|(byte, _)| *byte).collect();
    assert_eq!(winners.len(), 1);
    for (_, reply) in replies.iter().filter(|(_, reply)| reply.status != 201) {
        reply.assert_refused(400, "video-content-range-by-part-part-already-sent");
    }
    fixture.upload(&id, Some("part 2/2"), b"end");
    let stored = fixture.stored(&id);
    assert!(stored[..MIN].iter().all(|byte| *byte == winners[0]));
    assert_eq!((stored.len(), fixture.incoming()), (MIN + 3, 0));
    assert_eq!(fixture.server.stats().chunks_accepted, 2);
}

#[test]
fn refusals_do_not_change_the_upload() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let part = random_bytes(MIN);
    fixture.upload(&id, Some("part 1/3"), &part);
    let before = fixture.status(&id);
    for (range, data, slug) in [
        (None, &part[..], "video-content-range-already-initiated"),
        (Some("part%201%2F3"), &part[..], "video-content-range-malformed"),
        (Some("bytes 0-5242879/*"), &part[..], "video-content-range-started-with-part"),
        (Some("part 0/3"), &part[..], "video-content-range-by-part-part-zero"),
        (Some("part 2/4"), &part[..], "video-content-range-by-part-different-total-parts"),
        (Some("part 4/*"), &part[..], "video-content-range-by-part-part-too-high-total"),
        (Some("part 1/3"), &part[..], "video-content-range-by-part-part-already-sent"),
        (Some("part 2/3"), b"small", "video-content-range-by-part-uploaded-file-too-small"),
        (Some("part 2/3"), b"", "uploaded-file-empty"),
    ] {
        fixture.upload(&id, range, data).assert_refused(400, slug);
    }
    assert_eq!(fixture.status(&id), before);
    assert_eq!(fixture.incoming(), 0);
    assert_eq!(fixture.server.stats().refused["video-content-range-malformed"], 1);
}

#[test]
fn a_form_needs_exactly_one_file() {
    let fixture = ServerFixture::start();
    let path = format!("/videos/{}/source", fixture.create());
    for (body, slug) in [
        (form(&[("file", None, b"text")]), "uploaded-file-no-file"),
        (form(&[("a", Some("a"), b"1"), ("b", Some("b"), b"2")]), "uploaded-file-multiple-files"),
        (form(&[("file", Some("a"), b"")]), "uploaded-file-empty"),
        (b"--XyZ\r\nContent-Disposition: form-data; filename=a\r\n\r\n123".to_vec(), "invalid-payload"),
        (b"--XyZoo\r\n".to_vec(), "invalid-payload"),
        (b"nothing at all".to_vec(), "invalid-payload"),
    ] {
        fixture.upload_body(&path, None, &body).assert_refused(400, slug);
    }
    let reply = fixture.request("POST", &path, &[("Content-Type", "multipart/form-data")], b"x");
    reply.assert_refused(400, "uploaded-file-no-file");
    assert_eq!(fixture.incoming(), 0);
}

#[test]
fn a_file_over_200_mib_is_refused() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let large = vec![0; (200 << 20) + 1];
    fixture.upload(&id, None, &large).assert_refused(400, "uploaded-file-too-large");
    assert_eq!(fixture.incoming(), 0);
    assert_eq!(fixture.upload(&id, None, &large[1..]).status, 201);
}

#[test]
fn the_forms_of_the_official_clients_are_parsed() {
    let fixture = ServerFixture::start();
    let node = b"--------------------------012345678901234567890123\r\n\
        Content-Disposition: form-data; name=\"10m.mp4\"; filename=\"10m.mp4\"\r\n\
        Content-Type: video/mp4\r\n\r\nbytes\r\n\
        --------------------------012345678901234567890123--\r\n";
    let php = b"--q:b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"10m.mp4\"\r\n\
        Content-Length: 5\r\nContent-Type: application/octet-stream\r\n\r\nbytes\r\n--q:b--\r\n";
    for (content_type, body) in [
        ("multipart/form-data; boundary=------------------------012345678901234567890123", &node[..]),
        ("multipart/form-data; boundary=\"q:b\"", &php[..]),
    ] {
        let id = fixture.create();
        let path = format!("/videos/{id}/source");
        let reply = fixture.request("POST", &path, &[("Content-Type", content_type)], body);
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
        assert_eq!(fixture.stored(&id), b"bytes");
    }
}

#[test]
fn a_chunked_request_body_is_read() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let mut body = Vec::new();
    for piece in form(&[("file", Some("a"), &random_bytes(100_000))]).chunks(7919) {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ"), ("Transfer-Encoding", "chunked")];
    let head = fixture.head("POST", &format!("/videos/{id}/source"), &headers, 0);
    let head = head.replace("Content-Length: 0\r\n", "");
    assert_eq!(exchange(connect(&fixture.server), &head, &body).unwrap().status, 201);
    assert_eq!(fixture.stored(&id), random_bytes(100_000));
}

#[test]
fn an_upload_token_replaces_the_api_key() {
    let fixture = ServerFixture::start();
    let path = format!("/upload?token={}", fixture.token());
    let anonymous = |range: &str, body: &[u8]| {
        let headers = [
            ("Content-Type", "multipart/form-data; boundary=XyZ"),
            ("Content-Range", range),
            ("Authorization", ""),
        ];
        fixture.request("POST", &path, &headers, body)
    };
    let data = random_bytes(MIN + 10);
    let first = anonymous("part 1/*", &form(&[("file", Some("/tmp/10m.mp4.part.a"), &data[..MIN])]));
    assert_eq!(first.status, 201);
    let id = first.json()["videoId"].as_str().unwrap().to_owned();
    assert_eq!(first.json(), json!({"videoId": id}));
    let file = ("file", Some("10m.mp4.part.b"), &data[MIN..]);
    let last = anonymous("part 2/2", &form(&[file, ("videoId", None, id.as_bytes())]));
    assert_eq!(last.json()["title"], "10m.mp4.part.a");
    assert_eq!(fixture.stored(&id), data);
    assert_eq!(fixture.server.stats().videos_created, 1);
}

#[test]
fn an_upload_token_allows_an_upload_to_an_existing_video() {
    let fixture = ServerFixture::start();
    let (id, token) = (fixture.create(), fixture.token());
    let body = form(&[("videoId", None, id.as_bytes()), ("file", Some("other.mp4"), b"bytes")]);
    let reply = fixture.upload_body(&format!("/upload?token={token}"), None, &body);
    assert_eq!((reply.status, reply.json()["title"].as_str()), (201, Some("a")));
    let body = form(&[("videoId", None, b"viUnknown"), ("file", Some("other.mp4"), b"bytes")]);
    let reply = fixture.upload_body(&format!("/upload?token={token}"), None, &body);
    reply.assert_refused(404, "resource-not-found");
}

#[test]
fn a_refused_delegated_upload_creates_no_video() {
    let fixture = ServerFixture::start();
    let token = fixture.token();
    let body = form(&[("file", Some("a.mp4"), b"small")]);
    let path = format!("/upload?token={token}");
    let reply = fixture.upload_body(&path, Some("part 1/2"), &body);
    reply.assert_refused(400, "video-content-range-by-part-uploaded-file-too-small");
    fixture.upload_body("/upload", None, &body).assert_refused(401, "authentication-missing-upload-token");
    let reply = fixture.upload_body("/upload?token=toNone", None, &body);
    reply.assert_refused(401, "authentication-invalid-upload-token");
    assert_eq!((fixture.server.stats().videos_created, fixture.incoming()), (0, 0));
    assert_eq!(fixture.request("DELETE", &format!("/upload-tokens/{token}"), &[], b"").status, 204);
    fixture.upload_body(&path, None, &body).assert_refused(401, "authentication-invalid-upload-token");
}

#[test]
fn keys_and_tokens_authenticate() {
    let fixture = ServerFixture::start();
    let auth = |path: &str, body: Value| {
        fixture.request("POST", path, &[("Authorization", "")], body.to_string().as_bytes())
    };
    let videos = |value: &str| fixture.request("GET", "/videos", &[("Authorization", value)], b"");
    let tokens = auth("/auth/api-key", json!({"apiKey": fixture.server.api_key()})).json();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    assert_eq!(videos(&bearer).status, 200);
    let renewed = auth("/auth/refresh", json!({"refreshToken": tokens["refresh_token"]}));
    assert_eq!(renewed.status, 200);
    assert_ne!(renewed.json()["refresh_token"], tokens["refresh_token"]);
    let reused = auth("/auth/refresh", json!({"refreshToken": tokens["refresh_token"]}));
    reused.assert_refused(400, "authentication-invalid-user-credentials");
    let wrong = auth("/auth/api-key", json!({"apiKey": "wrong"}));
    wrong.assert_refused(400, "authentication-invalid-user-credentials");
    for (value, slug) in [
        ("", "authentication-missing-authorization-header"),
        ("Digest x", "authentication-invalid-authorization-header-value"),
        ("Basic !", "authentication-invalid-authorization-header-value"),
        ("Basic d3Jvbmc6", "authentication-invalid-api-key"),
        ("Bearer wrong", "authentication-invalid-access-token"),
    ] {
        videos(value).assert_refused(401, slug);
    }
}

#[test]
fn an_access_token_expires() {
    let fixture = ServerFixture::with(|settings| {
        settings.token_lifetime = Duration::from_millis(1);
        settings.wrong_key = WrongKey::Unauthorized;
    });
    let tokens = fixture.json("POST", "/auth/api-key", json!({"apiKey": fixture.server.api_key()})).json();
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    thread::sleep(Duration::from_millis(5));
    let reply = fixture.request("GET", "/videos", &[("Authorization", &bearer)], b"");
    reply.assert_refused(401, "authentication-invalid-access-token");
    let wrong = fixture.json("POST", "/auth/api-key", json!({"apiKey": "wrong"}));
    wrong.assert_refused(401, "authentication-invalid-api-key");
}

#[test]
fn videos_are_created_found_changed_and_deleted() {
    let fixture = ServerFixture::start();
    let payload = json!({
        "title": "Märchen", "description": "d", "tags": ["x", "y"], "public": false, "language": "de",
        "metadata": [{"key": "hash", "value": "7"}], "clip": {"startTimecode": "00:00:01"}, "mp4Support": false,
    });
    let created = fixture.json("POST", "/videos", payload.clone());
    let video = created.json();
    for (name, value) in payload.as_object().unwrap() {
        assert_eq!(&video[name], value, "{name}");
    }
    assert!(video["assets"]["hls"].as_str().unwrap().contains("/token/"));
    assert!(video["assets"].get("mp4").is_none());
    fixture.create();
    let count = |query: &str| {
        fixture.request("GET", &format!("/videos?{query}"), &[], b"").json()["pagination"]["itemsTotal"]
            .clone()
    };
    for (query, expected) in [
        ("", 2),
        ("title=M%C3%A4r", 1),
        ("tags[]=x&tags[]=y", 1),
        ("tags[]=z", 0),
        ("metadata[hash]=7", 1),
        ("metadata[hash]=8", 0),
        ("description=d&sortBy=title&sortOrder=desc", 1),
        ("liveStreamId=li1", 0),
    ] {
        assert_eq!(count(query), expected, "{query}");
    }
    fixture.request("GET", "/videos?pageSize=0", &[], b"").assert_refused(400, "invalid-query-parameter");
    let path = format!("/videos/{}", video["videoId"].as_str().unwrap());
    let patched = fixture.json("PATCH", &path, json!({"title": "b", "tags": []})).json();
    assert_eq!(
        (&patched["title"], &patched["tags"], &patched["description"]),
        (&json!("b"), &json!([]), &json!("d"))
    );
    fixture.upload(video["videoId"].as_str().unwrap(), None, b"bytes");
    assert_eq!(fixture.request("DELETE", &path, &[], b"").status, 204);
    fixture.request("GET", &path, &[], b"").assert_refused(404, "resource-not-found");
    fixture.request("DELETE", &path, &[], b"").assert_refused(404, "resource-not-found");
    assert_eq!(fixture.data.path().join("videos").read_dir().unwrap().count(), 0);
}

#[test]
fn a_video_with_another_source_is_created_and_accepts_no_upload() {
    let fixture = ServerFixture::with(|settings| settings.ingest_delay = Duration::ZERO);
    let reply = fixture.json("POST", "/videos", json!({"title": "a", "source": "https://example.com/a.mp4"}));
    assert_eq!(reply.status, 202);
    let id = reply.json()["videoId"].as_str().unwrap().to_owned();
    assert_eq!(fixture.status(&id)["ingest"]["status"], "ingested");
    fixture.upload(&id, None, b"bytes").assert_refused(400, "video-source-already-downloaded");
    let copy = fixture.json("POST", "/videos", json!({"title": "b", "source": id})).json();
    let copy = copy["videoId"].as_str().unwrap().to_owned();
    fixture.upload(&copy, None, b"bytes").assert_refused(400, "video-source-already-copied");
}

#[test]
fn unknown_paths_methods_and_videos_are_refused() {
    let fixture = ServerFixture::start();
    fixture.request("GET", "/nowhere", &[], b"").assert_refused(404, "unrecognized-request-url");
    let reply = fixture.request("DELETE", "/videos", &[], b"");
    reply.assert_refused(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), Some("GET, POST"));
    fixture.upload("viNone", None, b"bytes").assert_refused(404, "resource-not-found");
    let preflight = fixture.request("OPTIONS", "/upload", &[("Authorization", "")], b"");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("*")));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("content-range"));
}

#[test]
fn a_restart_keeps_all_data_and_the_port() {
    let fixture = ServerFixture::start();
    let data = random_bytes(MIN + 3);
    let (id, token, key) = (fixture.create(), fixture.token(), fixture.server.api_key().to_owned());
    fixture.upload(&id, Some("bytes 0-5242879/5242883"), &data[..MIN]);
    let tokens = fixture.json("POST", "/auth/api-key", json!({"apiKey": key})).json();
    let before = fixture.status(&id);
    let ServerFixture { server, data: folder } = fixture;
    let addr = server.addr();
    server.stop();
    let settings = ServerSettings { listen: addr, ..ServerSettings::new(folder.path()) };
    let fixture = ServerFixture { server: Server::start(settings).unwrap(), data: folder };
    assert_eq!((fixture.server.addr(), fixture.server.api_key()), (addr, &*key));
    assert_eq!(fixture.status(&id), before);
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    assert_eq!(fixture.request("GET", "/videos", &[("Authorization", &bearer)], b"").status, 200);
    assert_eq!(fixture.request("GET", &format!("/upload-tokens/{token}"), &[], b"").status, 200);
    let again = fixture.upload(&id, Some("bytes 0-5242879/5242883"), &data[..MIN]);
    again.assert_refused(400, "video-content-range-by-bytes-range-overlap");
    fixture.upload(&id, Some("bytes 5242880-5242882/5242883"), &data[MIN..]);
    assert_eq!(fixture.stored(&id), data);
}

#[test]
fn an_aborted_request_leaves_no_data() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let body = form(&[("file", Some("a"), &random_bytes(MIN))]);
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ"), ("Content-Range", "part 1/2")];
    let head = fixture.head("POST", &format!("/videos/{id}/source"), &headers, body.len());
    let mut tcp = connect(&fixture.server);
    tcp.write_all(head.as_bytes()).unwrap();
    tcp.write_all(&body[..2 << 20]).unwrap();
    wait_until("the server writes what arrives", || fixture.incoming() == 1);
    drop(tcp);
    wait_until("the unfinished file is removed", || fixture.incoming() == 0);
    assert_eq!(fixture.status(&id)["ingest"]["receivedParts"]["parts"], json!([]));
    assert_eq!(fixture.upload(&id, Some("part 1/2"), &random_bytes(MIN)).status, 201);
    assert!(fixture.server.stats().file_bytes > MIN as u64);
}

#[test]
fn stopping_does_not_wait_for_a_stalled_request() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ")];
    let head = fixture.head("POST", &format!("/videos/{id}/source"), &headers, 1 << 20);
    let mut tcp = connect(&fixture.server);
    tcp.write_all(head.as_bytes()).unwrap();
    wait_until("the request arrives", || fixture.server.requests().len() == 2);
    let ServerFixture { server, data } = fixture;
    server.stop();
    assert_eq!(data.path().join("incoming").read_dir().unwrap().count(), 0);
}

#[test]
fn one_connection_serves_many_requests() {
    let fixture = ServerFixture::start();
    let mut tcp = connect(&fixture.server);
    let head = fixture.head("GET", "/videos/viNone", &[("Connection", "keep-alive")], 0);
    for _ in 0..3 {
        tcp.write_all(head.as_bytes()).unwrap();
        let mut response = [0; 4096];
        let len = tcp.read(&mut response).unwrap();
        assert!(response[..len].starts_with(b"HTTP/1.1 404"));
    }
    assert_eq!(fixture.server.stats().connections, 1);
}

#[test]
fn expect_continue_is_answered_with_100_or_the_refusal() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let body = form(&[("file", Some("a"), b"bytes")]);
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ"), ("Expect", "100-continue")];
    let mut tcp = connect(&fixture.server);
    let head = fixture.head("POST", &format!("/videos/{id}/source"), &headers, body.len());
    tcp.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    tcp.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(exchange(tcp, "", &body).unwrap().status, 201);
    // The upload is complete now, so the refusal arrives without the body being sent.
    exchange(connect(&fixture.server), &head, b"")
        .unwrap()
        .assert_refused(400, "video-source-already-uploaded");
}

#[test]
fn rate_limits_are_reported_and_enforced() {
    let fixture = ServerFixture::with(|settings| {
        let window = Duration::from_secs(3600);
        settings.limits = Limits::Custom(RequestBudget { uploads: 1, writes: 10, reads: 10, window });
    });
    let id = fixture.create();
    let reply = fixture.upload(&id, Some("part 1/2"), &random_bytes(MIN));
    assert_eq!(
        (reply.header("x-ratelimit-limit"), reply.header("x-ratelimit-remaining")),
        (Some("1"), Some("0"))
    );
    let reply = fixture.upload(&id, Some("part 2/2"), b"end");
    reply.assert_refused(429, "too-many-requests");
    assert!(reply.header("x-ratelimit-retry-after").unwrap().parse::<u64>().unwrap() > 3000);
    assert_eq!(fixture.status(&id)["ingest"]["receivedParts"]["parts"], json!([1]));
}

#[test]
fn every_response_states_the_limits_even_if_none_is_enforced() {
    let fixture = ServerFixture::start();
    let id = fixture.create();
    let stated = |reply: &Reply| {
        let number = |name: &str| reply.header(name).and_then(|value| value.parse::<u64>().ok());
        (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("x-ratelimit-retry-after"))
    };
    let uploads = [Some("part 1/2"), Some("no range"), Some("part 2/2")];
    for reply in uploads.map(|range| fixture.upload(&id, range, &random_bytes(MIN))) {
        let (limit, remaining, retry_after) = stated(&reply);
        assert_eq!((limit, remaining), (Some(100), Some(100)), "{}", reply.status);
        assert!((1..=60).contains(&retry_after.unwrap()));
    }
    let reads =
        [fixture.request("GET", "/videos/vi0", &[], b""), fixture.request("GET", "/nowhere", &[], b"")];
    assert!(reads.iter().all(|reply| reply.status == 404 && stated(reply).0 == Some(500)));
    assert_eq!(stated(&fixture.request("DELETE", "/upload-tokens/none", &[], b"")).0, Some(200));
}

#[test]
fn a_cut_connection_is_reset_and_stores_nothing() {
    let cut = FaultAction::Cut { after_bytes: 1 << 20, how: ConnectionEnd::Reset };
    let fixture = ServerFixture::faulty(vec![Fault::new(RouteClass::Chunk, cut).part(1)]);
    let id = fixture.create();
    let body = form(&[("file", Some("a"), &random_bytes(2 * MIN))]);
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ"), ("Content-Range", "part 1/2")];
    let error = fixture.try_request("POST", &format!("/videos/{id}/source"), &headers, &body).err().unwrap();
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
    assert_eq!((fixture.server.requests()[1].status, fixture.incoming()), (None, 0));
    assert_eq!(fixture.upload(&id, Some("part 1/2"), &random_bytes(MIN)).status, 201);
    assert_eq!(fixture.server.stats().faults, 1);
}

#[test]
fn closing_before_recording_stores_nothing_and_closing_after_stores_the_chunk() {
    let fixture = ServerFixture::faulty(vec![
        Fault::new(RouteClass::Chunk, FaultAction::CloseBeforeRecording),
        Fault::new(RouteClass::Chunk, FaultAction::CloseAfterRecording),
    ]);
    let id = fixture.create();
    let send = || {
        let body = form(&[("file", Some("a"), &random_bytes(MIN))]);
        let headers = [("Content-Type", "multipart/form-data; boundary=XyZ"), ("Content-Range", "part 1/2")];
        fixture.try_request("POST", &format!("/videos/{id}/source"), &headers, &body)
    };
    let parts = || fixture.status(&id)["ingest"]["receivedParts"]["parts"].clone();
    assert!(send().is_err());
    assert_eq!(parts(), json!([]));
    assert!(send().is_err());
    assert_eq!(parts(), json!([1]));
    send().unwrap().assert_refused(400, "video-content-range-by-part-part-already-sent");
}

#[test]
fn injected_refusals_follow_the_plan() {
    let refuse = |status, timing| FaultAction::Refuse { status, slug: None, timing };
    let fixture = ServerFixture::faulty(vec![
        Fault::new(RouteClass::Chunk, refuse(503, RefusalTiming::AfterBody)).times(2),
        Fault::new(RouteClass::Chunk, refuse(500, RefusalTiming::Early)),
        Fault::new(RouteClass::Chunk, FaultAction::unauthorized()),
        Fault::new(
            RouteClass::Chunk,
            FaultAction::TooManyRequests { retry_after_s: Some(7), timing: RefusalTiming::AfterBody },
        ),
    ]);
    let id = fixture.create();
    let upload = || fixture.upload(&id, Some("part 1/2"), &random_bytes(MIN));
    assert_eq!([upload().status, upload().status, upload().status], [503, 503, 500]);
    upload().assert_refused(401, "authentication-invalid-access-token");
    let reply = upload();
    reply.assert_refused(429, "too-many-requests");
    assert_eq!(reply.header("x-ratelimit-retry-after"), Some("7"));
    assert_eq!(upload().status, 201);
    let refused = fixture.server.stats().refused;
    assert_eq!((refused["server-error"], refused["too-many-requests"]), (3, 1));
}

#[test]
fn an_early_refusal_does_not_wait_for_the_body() {
    for timing in [RefusalTiming::Early, RefusalTiming::EarlyClose] {
        let refuse = FaultAction::Refuse { status: 401, slug: None, timing };
        let fixture = ServerFixture::faulty(vec![Fault::new(RouteClass::Chunk, refuse)]);
        let head = fixture.head("POST", "/videos/vi1/source", &[("Connection", "keep-alive")], 1 << 20);
        let mut tcp = connect(&fixture.server);
        tcp.write_all(head.as_bytes()).unwrap();
        let mut response = [0; 4096];
        let len = tcp.read(&mut response).unwrap();
        let response = String::from_utf8_lossy(&response[..len]).into_owned();
        assert!(response.starts_with("HTTP/1.1 401"), "{response}");
        assert_eq!(response.contains("connection: close"), timing == RefusalTiming::EarlyClose);
        if timing == RefusalTiming::Early {
            tcp.write_all(&vec![0; 1 << 20]).unwrap();
            assert_eq!(exchange(tcp, &fixture.head("GET", "/videos", &[], 0), b"").unwrap().status, 200);
        }
    }
}

#[test]
fn requests_with_corrupted_responses_take_effect() {
    let fixture = ServerFixture::faulty(vec![
        Fault::new(RouteClass::Create, FaultAction::TruncatedAnswer),
        Fault::new(RouteClass::Create, FaultAction::MalformedAnswer),
        Fault::new(RouteClass::Create, FaultAction::HtmlAnswer),
        Fault::new(RouteClass::Create, FaultAction::OtherVideoId),
    ]);
    let create = || fixture.json("POST", "/videos", json!({"title": "a"}));
    let truncated = create();
    let announced: usize = truncated.header("content-length").unwrap().parse().unwrap();
    assert!(truncated.body.len() < announced && !truncated.body.is_empty());
    let malformed = create();
    assert_eq!((malformed.status, malformed.header("content-type")), (201, Some("application/json")));
    assert!(serde_json::from_slice::<Value>(&malformed.body).is_err());
    assert_eq!(create().header("content-type"), Some("text/html"));
    assert_eq!(create().json()["videoId"], "vi0000000000000000000000");
    assert_eq!(fixture.server.stats().videos_created, 4);
}

#[test]
fn stalls_and_throttling_delay_and_lose_nothing() {
    let fixture = ServerFixture::faulty(vec![
        Fault::new(RouteClass::Chunk, FaultAction::StallReading { after_bytes: 1000, for_ms: 30 }),
        Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 30 }),
        Fault::new(RouteClass::Chunk, FaultAction::Throttle { bytes_per_second: 100 << 20 }),
    ]);
    for _ in 0..3 {
        let id = fixture.create();
        let start = Instant::now();
        assert_eq!(fixture.upload(&id, None, &random_bytes(3 << 20)).status, 201);
        assert!(start.elapsed() >= Duration::from_millis(25));
        assert_eq!(fixture.stored(&id), random_bytes(3 << 20));
    }
}

#[test]
fn an_idle_client_is_disconnected() {
    let fixture = ServerFixture::with(|settings| settings.idle = Duration::from_millis(50));
    let id = fixture.create();
    let headers = [("Content-Type", "multipart/form-data; boundary=XyZ")];
    let head = fixture.head("POST", &format!("/videos/{id}/source"), &headers, 1 << 20);
    assert!(exchange(connect(&fixture.server), &head, b"--XyZ").is_err());
}

#[test]
fn the_folders_authority_is_valid_after_a_restart() {
    let fixture = ServerFixture::with(|settings| settings.tls = TlsMode::OwnAuthority);
    assert!(fixture.server.url().starts_with("https://127.0.0.1:"));
    let ca = fixture.server.ca_pem().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(fixture.server.ca_path().unwrap()).unwrap(), ca);
    assert_eq!(over_tls(&fixture, &ca, "localhost").status, 200);
    let ServerFixture { server, data } = fixture;
    server.stop();
    let settings = ServerSettings { tls: TlsMode::OwnAuthority, ..ServerSettings::new(data.path()) };
    let fixture = ServerFixture { server: Server::start(settings).unwrap(), data };
    assert_eq!(fixture.server.ca_pem(), Some(&*ca));
    assert_eq!(over_tls(&fixture, &ca, "127.0.0.1").status, 200);
}

fn over_tls(fixture: &ServerFixture, ca: &str, name: &'static str) -> Reply {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let stream = rustls::StreamOwned::new(tls, connect(&fixture.server));
    exchange(stream, &fixture.head("GET", "/videos", &[], 0), b"").unwrap()
}

#[test]
fn a_server_reachable_from_other_machines_requires_a_key() {
    let data = tempfile::tempdir().unwrap();
    let open = ServerSettings { listen: ([0, 0, 0, 0], 0).into(), ..ServerSettings::new(data.path()) };
    let error = Server::start(open).unwrap_err();
    assert!(error.to_string().contains("ServerSettings::api_key"), "{error}");
}

#[test]
fn a_second_server_on_a_folder_is_refused() {
    let fixture = ServerFixture::start();
    let second = Server::start(ServerSettings::new(fixture.data.path())).unwrap_err();
    assert!(matches!(second, ServeError::InUse { .. }), "{second}");
}

#[test]
fn the_error_of_an_unusable_folder_contains_its_path() {
    let error = Server::start(ServerSettings::new("/proc/none")).unwrap_err();
    assert!(error.to_string().contains("/proc/none"), "{error}");
    assert!(!Path::new("/proc/none").exists());
}
