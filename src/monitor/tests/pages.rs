//! Routes, access, and the content of answers.

use serde_json::json;

use super::client::{connect, get, request};
use super::*;
use std::io::{Read, Write};

const NAME: &str = "<script>alert(1)</script>\u{202e}\n\"&'.mov";

fn local() -> Monitor {
    start("127.0.0.1:0", quick(), FakeRun::new(view_with(NAME)))
}

#[test]
fn every_route_answers_with_its_type() {
    let monitor = local();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/api/snapshot", "application/json"),
        ("/api/jobs", "application/json"),
        ("/healthz", "text/plain; charset=utf-8"),
    ] {
        let reply = get(monitor.addr(), path, &[]);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let head = request(monitor.addr(), "HEAD", path, &[]);
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
    }
    assert_eq!(request(monitor.addr(), "HEAD", "/api/events", &[]).status, 200);
    assert_eq!(get(monitor.addr(), "/nothing", &[]).status, 404);
    let refused = request(monitor.addr(), "POST", "/metrics", &["Content-Length: 0"]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(get(monitor.addr(), "/", &[&format!("X-Long: {}", "a".repeat(40_000))]).status, 431);
}

#[test]
fn other_sites_are_refused_on_every_route() {
    let monitor = local();
    for path in ["/", "/metrics", "/api/snapshot", "/api/events", "/api/jobs", "/healthz"] {
        for header in ["Host: evil.example", "Origin: http://evil.example", "Origin: null"] {
            assert_eq!(get(monitor.addr(), path, &[header]).status, 403, "{path} {header}");
        }
    }
    assert_eq!(get(monitor.addr(), "/", &["Host: a", "Host: localhost"]).status, 400);
}

#[test]
fn beyond_loopback_a_token_opens_everything_but_health() {
    let monitor = start("0.0.0.0:0", quick(), FakeRun::new(view_with("a")));
    let (addr, token) = (SocketAddr::from(([127, 0, 0, 1], monitor.addr().port())), monitor.token().unwrap());
    assert_eq!(get(addr, "/healthz", &[]).status, 200);
    for path in ["/", "/metrics", "/api/snapshot", "/api/events", "/api/jobs", "/nothing"] {
        assert_eq!(get(addr, path, &[]).status, 401, "{path}");
        assert_eq!(get(addr, path, &["Authorization: Bearer wrong"]).status, 401, "{path}");
        assert_eq!(get(addr, &format!("{path}?token=wrong"), &[]).status, 401, "{path}");
    }
    assert_eq!(get(addr, "/metrics", &[&format!("Authorization: Bearer {token}")]).status, 200);
    let reply = get(addr, &format!("/?state=done&token={token}"), &[]);
    assert_eq!((reply.status, reply.header("location")), (303, Some("/?state=done")));
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(get(addr, "/api/snapshot", &[&cookie]).status, 200);
    let elsewhere = get(addr, &format!("//evil.example?token={token}"), &[]);
    assert_eq!(elsewhere.header("location"), Some("/"));
    assert!(monitor.login_url().ends_with(&format!("/?token={token}")) && !monitor.url().contains(token));
}

#[test]
fn names_are_never_markup() {
    let monitor = local();
    let reply = get(monitor.addr(), "/", &[]);
    assert!(!reply.body.contains("<script>alert"), "the name is escaped");
    assert!(reply.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}\u{fffd}&quot;&amp;&#39;.mov"));
    let policy = reply.header("content-security-policy").unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    // Each element that the policy would refuse has the nonce.
    for element in
        reply.body.split("<s").filter(|tag| tag.starts_with("tyle") || tag.starts_with("cript nonce"))
    {
        assert!(element.contains(&format!("nonce=\"{nonce}\"")));
    }
    assert!(!reply.body.contains("style=") && !reply.body.contains("onclick"));
    let other = get(monitor.addr(), "/", &[]);
    assert_ne!(other.header("content-security-policy"), Some(policy), "a nonce is used once");
    let json = get(monitor.addr(), "/api/snapshot", &[]).json();
    assert_eq!(json["running"][0]["name"], NAME, "JSON has the name as it is");
}

#[test]
fn the_snapshot_has_every_field() {
    let json = get(local().addr(), "/api/snapshot", &[]).json();
    let jobs = json!({"queued": 6, "running": 1, "done": 1, "failed": 1, "skipped": 1, "cancelled": 0});
    assert_eq!(json["jobs"], jobs);
    let bytes = &json["bytes"];
    assert_eq!((&bytes["read"], &bytes["sent"], &bytes["resent"]), (&json!(1600), &json!(1500), &json!(7)));
    assert_eq!((&bytes["acknowledged"], &bytes["resumed"]), (&json!(1200), &json!(1000)));
    assert!(bytes["total"].is_u64() && json["bytes_per_second"]["minute"].is_u64(), "{json}");
    assert_eq!(json["requests_left"], json!({"uploads": 34, "writes": null, "reads": null}));
    assert_eq!(
        (&json["limited_by"], &json["errors"][0]["advice"]),
        (&json!("connection"), &json!("try again later"))
    );
    assert!(
        json["eta_seconds"].is_u64() && json["eta_reason"].is_string() && json["limited_by_text"].is_string()
    );
}

#[test]
fn jobs_are_selected_and_paged() {
    let monitor = local();
    let jobs = |query: &str| get(monitor.addr(), &format!("/api/jobs{query}"), &[]);
    let (mut paths, mut after) = (Vec::new(), String::new());
    loop {
        let page = jobs(&format!("?state=done&limit=7&after={after}")).json();
        paths.extend(
            page["jobs"].as_array().unwrap().iter().map(|job| job["path"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    let different: std::collections::HashSet<_> = paths.iter().collect();
    assert_eq!((paths.len(), different.len()), (60, 60), "each job once");
    let found = jobs("?search=TAKE-00003&state=&limit=").json();
    assert_eq!((found["jobs"].as_array().unwrap().len(), &found["next"]), (1, &json!(null)));
    assert_eq!(found["jobs"][0]["size"], 4 << 24);
    for query in
        ["?state=finished", "?limit=0", "?limit=201", "?limit=x", &format!("?search={}", "a".repeat(513))]
    {
        let refused = jobs(query);
        assert_eq!(refused.status, 400, "{query}");
        assert!(refused.json()["error"].is_string());
    }
    assert_eq!(jobs("?after=x").status, 502);
}

#[test]
fn page_metrics_and_snapshot_agree() {
    let monitor = local();
    let metrics = get(monitor.addr(), "/metrics", &[]).body;
    let json = get(monitor.addr(), "/api/snapshot", &[]).json();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<f64>().unwrap()
    };
    assert_eq!(Some(value("ringlift_bytes_acknowledged_total")), json["bytes"]["acknowledged"].as_f64());
    assert_eq!(Some(value("ringlift_bytes_sent_total")), json["bytes"]["sent"].as_f64());
    for (state, number) in json["jobs"].as_object().unwrap() {
        assert_eq!(Some(value(&format!("ringlift_jobs{{state=\"{state}\"}}"))), number.as_f64());
    }
}

#[test]
fn a_silent_connection_is_closed() {
    let limits = MonitorLimits { head: Duration::from_millis(50), connections: 2, ..quick() };
    let monitor = start("127.0.0.1:0", limits, FakeRun::new(view_with("a")));
    let mut silent = [connect(monitor.addr()), connect(monitor.addr())];
    silent[1].write_all(b"GET / HT").unwrap();
    // The third waits until one of the others is closed.
    assert_eq!(get(monitor.addr(), "/healthz", &[]).status, 200);
    for tcp in &mut silent {
        // A timeout would be an error.
        tcp.read_to_end(&mut Vec::new()).unwrap();
    }
}
