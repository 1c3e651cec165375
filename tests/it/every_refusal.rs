//! Every way in which the service refuses: people read its name, its title, what it means and what to do;
//! programs get the same as fields; the exit code says whether to try again.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use serde_json::Value;

use crate::support::command::{Ran, ringlift, run};
use crate::support::{House, MIB, Sample, Scheme};

const FAILED: i32 = 1;
const NO_SUCH_VIDEO: i32 = 3;
const TEMPORARY: i32 = 5;
const UNSUITED: i32 = 6;
const NOT_ALLOWED: i32 = 7;

/// What the command was about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Create,
    Send,
    SendWithToken,
    Get,
}

#[rustfmt::skip]
const REFUSALS: &[(u16, &str, To, i32)] = &[
    (400, "uploaded-file-no-file", To::Send, FAILED),
    (400, "uploaded-file-multiple-files", To::Send, FAILED),
    (400, "uploaded-file-empty", To::Send, FAILED),
    (400, "uploaded-file-invalid-file", To::Send, FAILED),
    (400, "uploaded-file-extension-invalid", To::Send, FAILED),
    (400, "uploaded-file-too-large", To::Send, FAILED),
    (400, "video-source-already-uploaded", To::Send, UNSUITED),
    (400, "video-source-already-downloaded", To::Send, UNSUITED),
    (400, "video-source-already-copied", To::Send, UNSUITED),
    (400, "video-content-range-malformed", To::Send, FAILED),
    (400, "video-content-range-already-initiated", To::Send, FAILED),
    (400, "video-content-range-started-with-bytes", To::Send, FAILED),
    (400, "video-content-range-started-with-part", To::Send, FAILED),
    (400, "video-content-range-by-bytes-from-byte-too-high", To::Send, FAILED),
    (400, "video-content-range-by-bytes-range-mismatch", To::Send, FAILED),
    (400, "video-content-range-by-bytes-range-overlap", To::Send, UNSUITED),
    (400, "video-content-range-by-bytes-range-too-small", To::Send, FAILED),
    (400, "video-content-range-by-bytes-range-too-large", To::Send, FAILED),
    (400, "video-content-range-by-bytes-to-byte-too-high-allowed", To::Send, FAILED),
    (400, "video-content-range-by-bytes-to-byte-too-high-total", To::Send, FAILED),
    (400, "video-content-range-by-bytes-total-bytes-zero", To::Send, FAILED),
    (400, "video-content-range-by-bytes-total-bytes-too-high", To::Send, FAILED),
    (400, "video-content-range-by-bytes-total-bytes-too-low", To::Send, FAILED),
    (400, "video-content-range-by-bytes-different-total-bytes", To::Send, FAILED),
    (400, "video-content-range-by-part-part-zero", To::Send, FAILED),
    (400, "video-content-range-by-part-total-parts-zero", To::Send, FAILED),
    (400, "video-content-range-by-part-part-too-high-allowed", To::Send, FAILED),
    (400, "video-content-range-by-part-total-parts-too-high", To::Send, FAILED),
    (400, "video-content-range-by-part-part-too-high-total", To::Send, FAILED),
    (400, "video-content-range-by-part-total-parts-too-low", To::Send, FAILED),
    (400, "video-content-range-by-part-different-total-parts", To::Send, FAILED),
    (400, "video-content-range-by-part-part-already-sent", To::Send, UNSUITED),
    (400, "video-content-range-by-part-uploaded-file-too-small", To::Send, FAILED),
    (401, "authentication-invalid-api-key", To::Create, NOT_ALLOWED),
    (401, "authentication-invalid-access-token", To::Send, NOT_ALLOWED),
    (401, "authentication-invalid-refresh-token", To::Create, NOT_ALLOWED),
    (401, "authentication-invalid-authorization-header-value", To::Create, NOT_ALLOWED),
    (401, "authentication-missing-authorization-header", To::Create, NOT_ALLOWED),
    (401, "authentication-missing-upload-token", To::SendWithToken, NOT_ALLOWED),
    (401, "authentication-invalid-upload-token", To::SendWithToken, NOT_ALLOWED),
    (400, "authentication-invalid-user-credentials", To::Create, NOT_ALLOWED),
    (401, "authentication-invalid-user-credentials", To::Create, NOT_ALLOWED),
    (403, "authorization-suspended-account", To::Create, NOT_ALLOWED),
    (400, "attribute-required", To::Create, FAILED),
    (400, "invalid-attribute", To::Create, FAILED),
    (400, "invalid-payload", To::Create, FAILED),
    (400, "invalid-query-parameter", To::Get, FAILED),
    (400, "webhook-limit-reached", To::Create, FAILED),
    (404, "resource-not-found", To::Get, NO_SUCH_VIDEO),
    (404, "resource-not-found", To::SendWithToken, NO_SUCH_VIDEO),
    (404, "unrecognized-request-url", To::Create, FAILED),
    (405, "method-not-allowed", To::Create, FAILED),
    (409, "summary-already-exists", To::Create, FAILED),
    (429, "too-many-requests", To::Create, TEMPORARY),
    (429, "too-many-requests", To::Send, TEMPORARY),
    // The years before 2023.
    (400, "filealreadyuploaded", To::Send, UNSUITED),
    (400, "filemissing", To::Send, FAILED),
    (400, "multiplefilesuploaded", To::Send, FAILED),
    (404, "resourcenot_found", To::Get, NO_SUCH_VIDEO),
    (400, "attribute.invalid", To::Create, FAILED),
];

/// Without a name there is the status, and its usual title.
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

/// Asserts that people and programs are told the same, all of it.
fn assert_told(ran: Ran, code: i32, status: u16, name: &str, title: &str) -> Value {
    let ran = ran.failed(code, &[name, title]);
    let error = ran.events().iter().find_map(|event| event.get("error").cloned()).expect("no error");
    assert_eq!((&error["refusal"]["status"], &error["refusal"]["title"]), (&status.into(), &title.into()));
    for (field, label) in [("meaning", "means: "), ("advice", "advice: ")] {
        let text = error[field].as_str().unwrap_or_else(|| panic!("{name}: no {field} in {error}"));
        assert!(ran.stderr.contains(&format!("  {label}{text}\n")), "{name}: {}", ran.stderr);
    }
    assert_eq!(ran.summary()["exit_code"], code);
    error
}

#[test]
fn every_problem_is_named_explained_and_answered() {
    let sample = Sample::new(MIB);
    few_at_once(REFUSALS, |&(status, slug, to, code)| {
        let on = match to {
            To::Create => RouteClass::Create,
            To::Get => RouteClass::Video,
            To::Send | To::SendWithToken => RouteClass::Chunk,
        };
        let action =
            FaultAction::Refuse { status, slug: Some(slug.to_owned()), timing: RefusalTiming::AfterBody };
        let house = House::faulty(Scheme::Http, vec![Fault::new(on, action).times(0)]);
        let mut command = ringlift();
        house.host(&mut command).arg("--json").args(ONCE);
        match to {
            To::Get => command.args(["video", "get", "vi1"]),
            To::SendWithToken => send(command.env("RINGLIFT_UPLOAD_TOKEN", "to1"), &sample),
            To::Create | To::Send => send(&mut command, &sample),
        };
        let error = assert_told(
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
fn a_status_without_a_name_is_explained_and_answered_too() {
    few_at_once(STATUSES, |&(status, title, code)| {
        let url =
            answering(format!("HTTP/1.1 {status} {title}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        let mut command = ringlift();
        command.env("APIVIDEO_API_KEY", "key").args(["--json", "--endpoint-url", &url]).args(ONCE);
        let ran = run(command.args(["status", "vi1"]));
        assert_told(ran, code, status, &format!("the service answered {status}"), title);
    });
}

/// The address of something that gives this answer to whatever it is asked.
fn answering(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the tests.
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let _ = peer.read(&mut [0; 4096]);
            let _ = peer.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn a_problem_that_nobody_knows_yet_leads_to_its_page() {
    let action = FaultAction::Refuse {
        status: 422,
        slug: Some("something-new".into()),
        timing: RefusalTiming::AfterBody,
    };
    let house = House::faulty(Scheme::Http, vec![Fault::new(RouteClass::Video, action)]);
    let ran = house.run(["--json", "video", "get", "vi1"]);
    let title = "This refusal was asked for by the fault plan.";
    let error = assert_told(ran, FAILED, 422, "something-new", title);
    assert!(error["advice"].as_str().unwrap().contains("https://docs.api.video/reference"), "{error}");
}

#[test]
fn an_upload_token_that_nobody_knows_is_not_taken_for_a_video() {
    let house = House::new(Scheme::Http);
    let ran = house.run(["--json", "token", "delete", "toNobody"]).failed(NO_SUCH_VIDEO, &["upload token"]);
    let error = &ran.event("failed")["error"];
    assert!(error["meaning"].as_str().unwrap().contains("no such upload token"), "{error}");
    assert!(error["advice"].as_str().unwrap().contains("ringlift token list"), "{error}");
    assert!(!ran.stderr.contains("video") && !ran.stderr.contains("toNobody"), "{}", ran.stderr);
}

#[test]
fn what_does_not_answer_is_named_with_what_was_asked_of_it() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = deaf.local_addr().unwrap().to_string();
    let odd = answering("SSH-2.0-OpenSSH_9.6\r\n".to_owned());
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

/// Tries every case, some at a time.
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
