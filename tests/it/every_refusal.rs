//! Every refusal of the service. The text output has its name, title, meaning and advice. The JSON output has the
//! same as fields. The exit code shows whether a later attempt may succeed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use serde_json::Value;

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::{MIB, Sample, Scheme, TestServer};

const FAILED: i32 = 1;
const NO_SUCH_VIDEO: i32 = 3;
const TEMPORARY: i32 = 5;
const UNSUITED: i32 = 6;
const NOT_ALLOWED: i32 = 7;

/// The operation that the service refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    Send,
    SendWithToken,
    Get,
}

#[rustfmt::skip]
const REFUSALS: &[(u16, &str, Operation, i32)] = &[
    (400, "uploaded-file-no-file", Operation::Send, FAILED),
    (400, "uploaded-file-multiple-files", Operation::Send, FAILED),
    (400, "uploaded-file-empty", Operation::Send, FAILED),
    (400, "uploaded-file-invalid-file", Operation::Send, FAILED),
    (400, "uploaded-file-extension-invalid", Operation::Send, FAILED),
    (400, "uploaded-file-too-large", Operation::Send, FAILED),
    (400, "video-source-already-uploaded", Operation::Send, UNSUITED),
    (400, "video-source-already-downloaded", Operation::Send, UNSUITED),
    (400, "video-source-already-copied", Operation::Send, UNSUITED),
    (400, "video-content-range-malformed", Operation::Send, FAILED),
    (400, "video-content-range-already-initiated", Operation::Send, FAILED),
    (400, "video-content-range-started-with-bytes", Operation::Send, FAILED),
    (400, "video-content-range-started-with-part", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-from-byte-too-high", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-range-mismatch", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-range-overlap", Operation::Send, UNSUITED),
    (400, "video-content-range-by-bytes-range-too-small", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-range-too-large", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-to-byte-too-high-allowed", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-to-byte-too-high-total", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-total-bytes-zero", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-total-bytes-too-high", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-total-bytes-too-low", Operation::Send, FAILED),
    (400, "video-content-range-by-bytes-different-total-bytes", Operation::Send, FAILED),
    (400, "video-content-range-by-part-part-zero", Operation::Send, FAILED),
    (400, "video-content-range-by-part-total-parts-zero", Operation::Send, FAILED),
    (400, "video-content-range-by-part-part-too-high-allowed", Operation::Send, FAILED),
    (400, "video-content-range-by-part-total-parts-too-high", Operation::Send, FAILED),
    (400, "video-content-range-by-part-part-too-high-total", Operation::Send, FAILED),
    (400, "video-content-range-by-part-total-parts-too-low", Operation::Send, FAILED),
    (400, "video-content-range-by-part-different-total-parts", Operation::Send, FAILED),
    (400, "video-content-range-by-part-part-already-sent", Operation::Send, UNSUITED),
    (400, "video-content-range-by-part-uploaded-file-too-small", Operation::Send, FAILED),
    (401, "authentication-invalid-api-key", Operation::Create, NOT_ALLOWED),
    (401, "authentication-invalid-access-token", Operation::Send, NOT_ALLOWED),
    (401, "authentication-invalid-refresh-token", Operation::Create, NOT_ALLOWED),
    (401, "authentication-invalid-authorization-header-value", Operation::Create, NOT_ALLOWED),
    (401, "authentication-missing-authorization-header", Operation::Create, NOT_ALLOWED),
    (401, "authentication-missing-upload-token", Operation::SendWithToken, NOT_ALLOWED),
    (401, "authentication-invalid-upload-token", Operation::SendWithToken, NOT_ALLOWED),
    (400, "authentication-invalid-user-credentials", Operation::Create, NOT_ALLOWED),
    (401, "authentication-invalid-user-credentials", Operation::Create, NOT_ALLOWED),
    (403, "authorization-suspended-account", Operation::Create, NOT_ALLOWED),
    (400, "attribute-required", Operation::Create, FAILED),
    (400, "invalid-attribute", Operation::Create, FAILED),
    (400, "invalid-payload", Operation::Create, FAILED),
    (400, "invalid-query-parameter", Operation::Get, FAILED),
    (400, "webhook-limit-reached", Operation::Create, FAILED),
    (404, "resource-not-found", Operation::Get, NO_SUCH_VIDEO),
    (404, "resource-not-found", Operation::SendWithToken, NO_SUCH_VIDEO),
    (404, "unrecognized-request-url", Operation::Create, FAILED),
    (405, "method-not-allowed", Operation::Create, FAILED),
    (409, "summary-already-exists", Operation::Create, FAILED),
    (429, "too-many-requests", Operation::Create, TEMPORARY),
    (429, "too-many-requests", Operation::Send, TEMPORARY),
    // Names that the service used before 2023.
    (400, "filealreadyuploaded", Operation::Send, UNSUITED),
    (400, "filemissing", Operation::Send, FAILED),
    (400, "multiplefilesuploaded", Operation::Send, FAILED),
    (404, "resourcenot_found", Operation::Get, NO_SUCH_VIDEO),
    (400, "attribute.invalid", Operation::Create, FAILED),
];

/// Statuses without a problem document, with their standard titles.
#[rustfmt::skip]
const STATUSES: &[(u16, &str, i32)] = &[
    (301, "Moved Permanently", FAILED),
    (400, "Bad Request", FAILED),
    (401, "Unauthorized", NOT_ALLOWED),
    (403, "Forbidden", NOT_ALLOWED),
    (404, "Not Found", FAILED),
    (405, "Method Not Allowed", FAILED),
    (407, "Proxy Authentication Required", FAILED),
    (408, "Request Timeout", TEMPORARY),
    (409, "Conflict", FAILED),
    (413, "Payload Too Large", FAILED),
    (418, "I'm a teapot", FAILED),
    (425, "Too Early", TEMPORARY),
    (429, "Too Many Requests", TEMPORARY),
    (500, "Internal Server Error", TEMPORARY),
    (501, "Not Implemented", FAILED),
    (502, "Bad Gateway", TEMPORARY),
    (503, "Service Unavailable", TEMPORARY),
    (504, "Gateway Timeout", TEMPORARY),
    (505, "HTTP Version Not Supported", FAILED),
];

const ONCE: [&str; 4] = ["--retries", "0", "--retry-max-time", "1s"];

/// Asserts that the text output and the JSON output have the same complete refusal.
fn assert_reported(ran: CommandOutput, code: i32, status: u16, name: &str, title: &str) -> Value {
    let ran = ran.failed(code, &[name, title]);
    let error = ran.events().iter().find_map(|event| event.get("error").cloned()).expect("no error");
    assert_eq!((&error["refusal"]["status"], &error["refusal"]["title"]), (&status.into(), &title.into()));
    for (field, label) in [("meaning", "reason: "), ("advice", "advice: ")] {
        let text = error[field].as_str().unwrap_or_else(|| panic!("{name}: no {field} in {error}"));
        assert!(ran.stderr.contains(&format!("  {label}{text}\n")), "{name}: {}", ran.stderr);
    }
    assert_eq!(ran.summary()["exit_code"], code);
    error
}

#[test]
fn every_problem_has_a_name_an_explanation_and_advice() {
    let sample = Sample::new(MIB);
    few_at_once(REFUSALS, |&(status, slug, to, code)| {
        let on = match to {
            Operation::Create => RouteClass::Create,
            Operation::Get => RouteClass::Video,
            Operation::Send | Operation::SendWithToken => RouteClass::Chunk,
        };
        let action =
            FaultAction::Refuse { status, slug: Some(slug.to_owned()), timing: RefusalTiming::AfterBody };
        let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(on, action).times(0)]);
        let mut command = ringlift();
        test_server.configure(&mut command).arg("--json").args(ONCE);
        match to {
            Operation::Get => command.args(["video", "get", "vi1"]),
            Operation::SendWithToken => send(command.env("RINGLIFT_UPLOAD_TOKEN", "to1"), &sample),
            Operation::Create | Operation::Send => send(&mut command, &sample),
        };
        let error = assert_reported(
            run(&mut command),
            code,
            status,
            slug,
            "This refusal was asked for by the fault plan.",
        );
        assert_eq!(error["refusal"]["slug"], slug);
        let meaning = error["meaning"].as_str().unwrap();
        assert!(!meaning.contains("says no more"), "{slug} means nothing here: {meaning}");
    });
}

fn send<'a>(command: &'a mut Command, sample: &Sample) -> &'a mut Command {
    command.args(["upload", "--no-journal", sample.arg()])
}

#[test]
fn a_status_without_a_problem_name_has_an_explanation_and_advice() {
    few_at_once(STATUSES, |&(status, title, code)| {
        let url = serve_answer(format!(
            "HTTP/1.1 {status} {title}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ));
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").args(["--json", "--endpoint-url", &url]).args(ONCE);
        let ran = run(command.args(["status", "vi1"]));
        assert_reported(ran, code, status, &format!("the service answered {status}"), title);
    });
}

/// Starts a server that gives this answer to every request, and returns its URL.
fn serve_answer(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The thread ends with the test process.
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let _ = peer.read(&mut [0; 4096]);
            let _ = peer.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn an_unknown_problem_links_to_its_page() {
    let action = FaultAction::Refuse {
        status: 422,
        slug: Some("something-new".into()),
        timing: RefusalTiming::AfterBody,
    };
    let test_server = TestServer::faulty(Scheme::Http, vec![Fault::new(RouteClass::Video, action)]);
    let ran = test_server.run(["--json", "video", "get", "vi1"]);
    let title = "This refusal was asked for by the fault plan.";
    let error = assert_reported(ran, FAILED, 422, "something-new", title);
    assert!(error["advice"].as_str().unwrap().contains("https://docs.api.video/reference"), "{error}");
}

#[test]
fn an_unknown_upload_token_is_not_reported_as_an_unknown_video() {
    let test_server = TestServer::new(Scheme::Http);
    let ran =
        test_server.run(["--json", "token", "delete", "toNobody"]).failed(NO_SUCH_VIDEO, &["upload token"]);
    let error = &ran.event("failed")["error"];
    assert!(error["meaning"].as_str().unwrap().contains("no such upload token"), "{error}");
    assert!(error["advice"].as_str().unwrap().contains("ringlift token list"), "{error}");
    assert!(!ran.stderr.contains("video") && !ran.stderr.contains("toNobody"), "{}", ran.stderr);
}

#[test]
fn an_endpoint_without_an_answer_is_reported_with_the_operation() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = deaf.local_addr().unwrap().to_string();
    let odd = serve_answer("SSH-2.0-OpenSSH_9.6\r\n".to_owned());
    let odd = odd.trim_start_matches("http://").to_owned();
    for (host, code) in [(&gone, TEMPORARY), (&mute, TEMPORARY), (&odd, FAILED)] {
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").args(ONCE).args(["--timeout", "1s", "--json"]);
        let ran = run(command.args(["--endpoint-url", &format!("http://{host}"), "status", "vi1"]));
        let asked = "could not read the status of video vi1: ";
        let ran = ran.failed(code, &[asked, host, "advice: check"]);
        assert!(!ran.stderr.contains("exchange a request"), "{}", ran.stderr);
    }
}

/// Runs the cases, a few in parallel.
fn few_at_once<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    let left = Mutex::new(cases.iter());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = { left.lock().unwrap().next() } {
                    test(case);
                }
            });
        }
    });
}
