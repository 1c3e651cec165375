//! The events of an upload: in the library, as JSON, and as log lines.

use futures_util::StreamExt;
use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use ringlift::{Class, ErrorKind, Fate, StatusReason, ThrottleReason, UploadEvent};
use serde_json::json;

use crate::support::command::{CommandOutput, ringlift, run};
use crate::support::way::{CHUNK, Way};
use crate::support::{Scheme, TestServer};

const THROTTLE: FaultAction =
    FaultAction::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::AfterBody };

/// Returns all events of an upload of three chunks with one fault.
fn events_of(way: Way, fault: Fault) -> Vec<UploadEvent> {
    let test_server = TestServer::faulty(Scheme::Http, vec![fault]);
    let client = test_server.short_pause_client().build().unwrap();
    let sample = way.sample(3);
    pollster::block_on(async {
        let mut running = way.upload(&test_server, &client, &sample).start().await.unwrap();
        let events = running.events();
        let video_id = running.join().await.unwrap().video_id;
        test_server.assert_holds(&video_id, &sample.path());
        events.collect().await
    })
}

fn done(events: &[UploadEvent]) -> Vec<(u32, u64, u32)> {
    let done = |event: &UploadEvent| match event {
        UploadEvent::ChunkDone { index, bytes, attempt, .. } => Some((*index, *bytes, *attempt)),
        _ => None,
    };
    let mut done: Vec<_> = events.iter().filter_map(done).collect();
    done.sort_unstable();
    done
}

#[test]
fn every_chunk_and_every_retry_has_one_event() {
    for way in [Way::Bytes, Way::DelegatedParts] {
        let events = events_of(way, way.fault(1, FaultAction::unavailable()));
        assert_eq!(done(&events), [(0, CHUNK, 1), (1, CHUNK, 2), (2, 4321, 1)], "{events:?}");
        let retries: Vec<_> =
            events.iter().filter(|event| matches!(event, UploadEvent::Retry { .. })).collect();
        let [UploadEvent::Retry { index, attempt, why, fate, .. }] = retries[..] else {
            panic!("{events:?}")
        };
        assert_eq!((index, attempt, fate), (&Some(1), &1, &Fate::NotStored));
        assert_eq!(why.kind, ErrorKind::Unavailable);
    }
}

#[test]
fn a_video_has_one_event_whoever_creates_it() {
    for way in [Way::Bytes, Way::DelegatedParts] {
        let events = events_of(way, way.fault(1, FaultAction::unavailable()));
        let created = |event: &&UploadEvent| matches!(event, UploadEvent::Created { .. });
        assert_eq!(events.iter().filter(created).count(), 1, "{events:?}");
    }
}

#[test]
fn a_lost_answer_leads_to_a_status_request_and_not_to_a_retry() {
    let events = events_of(Way::Bytes, Way::Bytes.fault(1, FaultAction::CloseAfterRecording));
    assert_eq!(done(&events).len(), 3, "{events:?}");
    let asked = |event: &UploadEvent| {
        matches!(event, UploadEvent::StatusAsked { reason: StatusReason::LostAnswer, .. })
    };
    assert!(events.iter().any(asked), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, UploadEvent::Retry { .. })), "{events:?}");
}

#[test]
fn a_throttled_event_has_the_request_class_and_the_reason() {
    let events = events_of(Way::Parts, Way::Parts.fault(1, THROTTLE));
    let throttled = |event: &&UploadEvent| {
        let (uploads, brake) = (Class::Uploads, ThrottleReason::TooManyRequests);
        matches!(event, UploadEvent::Throttled { class, why, .. } if (*class, *why) == (uploads, brake))
    };
    assert_eq!(events.iter().filter(throttled).count(), 1, "{events:?}");
    let events = events_of(Way::Single, Fault::new(RouteClass::Create, THROTTLE));
    let throttled =
        |event: &UploadEvent| matches!(event, UploadEvent::Throttled { class: Class::Writes, .. });
    let told = events.iter().any(throttled);
    assert!(told, "{events:?}");
}

#[test]
fn a_possible_stray_video_has_an_event() {
    let way = Way::DelegatedBytes;
    let events = events_of(way, way.fault(0, FaultAction::CloseAfterRecording));
    let stray = events.iter().filter(|event| **event == UploadEvent::StrayVideo).count();
    assert_eq!(stray, 1, "{events:?}");
    let unknown = |event: &UploadEvent| matches!(event, UploadEvent::Retry { fate: Fate::Unknown, .. });
    assert!(events.iter().any(unknown), "{events:?}");
}

/// Runs the command on a file of three chunks, with one fault.
fn run_with_fault(fault: Fault, flags: &[&str]) -> CommandOutput {
    let test_server = TestServer::faulty(Scheme::Http, vec![fault]);
    let mut command = ringlift();
    test_server.configure(&mut command).args(["upload", "--json", "--no-journal", "--chunk-size", "5MiB"]);
    run(command.args(flags).arg(Way::Bytes.sample(3).path())).done()
}

#[test]
fn a_retry_is_one_json_event_and_one_log_line() {
    let second = || Way::Bytes.fault(1, FaultAction::unavailable());
    let ran = run_with_fault(second(), &[]);
    let retry = ran.event("retry");
    let expected = [
        ("file", json!(ran.event("file_done")["file"])),
        ("index", json!(1)),
        ("attempt", json!(1)),
        ("kind", json!("unavailable")),
        ("fate_unknown", json!(false)),
    ];
    for (name, value) in expected {
        assert_eq!(retry[name], value, "{name} of {retry}");
    }
    assert!(retry["delay_ms"].is_u64() && retry["why"].is_string(), "{retry}");
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.contains("retrying")).collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    assert!(
        lines[0].contains("movie.mp4: chunk 2 of 3 failed (the service answered 503")
            && lines[0].contains("retrying in")
            && lines[0].ends_with("(attempt 2 of 11)"),
        "{}",
        lines[0]
    );
    let chunks = ran.events().into_iter().filter(|event| event["event"] == "chunk_done").count();
    assert_eq!(chunks, 3);
    assert_eq!(run_with_fault(second(), &["-q"]).stderr, "");
}

#[test]
fn a_throttle_is_one_json_event_and_one_log_line() {
    let ran = run_with_fault(Way::Bytes.fault(1, THROTTLE), &[]);
    let throttled = ran.event("throttled");
    assert_eq!(
        (&throttled["class"], &throttled["why"]),
        (&json!("uploads"), &json!("too_many_requests")),
        "{throttled}"
    );
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.contains("rate limit")).collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    assert!(lines[0].contains("upload requests were answered by 429"), "{}", lines[0]);
    assert!(lines[0].contains("continuing in 1."), "{}", lines[0]);
}
