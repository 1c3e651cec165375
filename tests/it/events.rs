//! What is told of an upload on its way: to programs, to those who read JSON, and in words.

use futures_util::StreamExt;
use ringlift::pacing::{Class, ThrottleReason};
use ringlift::server::{Action, Fault, RefusalTiming, RouteClass};
use ringlift::session::event::StatusReason;
use ringlift::session::retry::Fate;
use ringlift::{ErrorKind, UploadEvent};
use serde_json::json;

use crate::support::command::{Ran, ringlift, run};
use crate::support::way::{CHUNK, Way};
use crate::support::{House, Scheme};

const THROTTLE: Action = Action::TooManyRequests { retry_after_s: Some(1), timing: RefusalTiming::AfterBody };

/// Everything that happens to an upload of three chunks, one of which has an accident.
fn events(way: Way, accident: Fault) -> Vec<UploadEvent> {
    let house = House::faulty(Scheme::Http, vec![accident]);
    let client = house.hasty_client().build().unwrap();
    let sample = way.sample(3);
    pollster::block_on(async {
        let mut running = way.upload(&house, &client, &sample).start().await.unwrap();
        let events = running.events();
        let video_id = running.join().await.unwrap().video_id;
        house.assert_holds(&video_id, &sample.path());
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
fn every_chunk_is_told_of_once_and_so_is_a_repetition() {
    for way in [Way::Bytes, Way::DelegatedParts] {
        let heard = events(way, way.fault(1, Action::unavailable()));
        assert_eq!(done(&heard), [(0, CHUNK, 1), (1, CHUNK, 2), (2, 4321, 1)], "{heard:?}");
        let retries: Vec<_> =
            heard.iter().filter(|event| matches!(event, UploadEvent::Retry { .. })).collect();
        let [UploadEvent::Retry { index, attempt, why, fate, .. }] = retries[..] else { panic!("{heard:?}") };
        assert_eq!((index, attempt, fate), (&Some(1), &1, &Fate::NotStored));
        assert_eq!(why.kind, ErrorKind::Unavailable);
    }
}

#[test]
fn a_lost_answer_leads_to_a_question_and_not_to_a_repetition() {
    let heard = events(Way::Bytes, Way::Bytes.fault(1, Action::CloseAfterRecording));
    assert_eq!(done(&heard).len(), 3, "{heard:?}");
    let asked = |event: &UploadEvent| {
        matches!(event, UploadEvent::StatusAsked { reason: StatusReason::LostAnswer, .. })
    };
    assert!(heard.iter().any(asked), "{heard:?}");
    assert!(!heard.iter().any(|event| matches!(event, UploadEvent::Retry { .. })), "{heard:?}");
}

#[test]
fn a_throttle_says_which_requests_wait_and_why() {
    let heard = events(Way::Parts, Way::Parts.fault(1, THROTTLE));
    let throttled = |event: &&UploadEvent| {
        let (uploads, brake) = (Class::Uploads, ThrottleReason::TooManyRequests);
        matches!(event, UploadEvent::Throttled { class, why, .. } if (*class, *why) == (uploads, brake))
    };
    assert_eq!(heard.iter().filter(throttled).count(), 1, "{heard:?}");
    let heard = events(Way::Single, Fault::new(RouteClass::Create, THROTTLE));
    let throttled =
        |event: &UploadEvent| matches!(event, UploadEvent::Throttled { class: Class::Writes, .. });
    let told = heard.iter().any(throttled);
    assert!(told, "{heard:?}");
}

#[test]
fn a_video_that_no_answer_named_is_told_of() {
    let way = Way::DelegatedBytes;
    let heard = events(way, way.fault(0, Action::CloseAfterRecording));
    let stray = heard.iter().filter(|event| **event == UploadEvent::StrayVideo).count();
    assert_eq!(stray, 1, "{heard:?}");
    let unknown = |event: &UploadEvent| matches!(event, UploadEvent::Retry { fate: Fate::Unknown, .. });
    assert!(heard.iter().any(unknown), "{heard:?}");
}

/// The command's upload of three chunks, one of which has an accident.
fn told(accident: Fault, flags: &[&str]) -> Ran {
    let house = House::faulty(Scheme::Http, vec![accident]);
    let mut command = ringlift();
    house.host(&mut command).args(["upload", "--json", "--no-journal", "--chunk-size", "5MiB"]);
    run(command.args(flags).arg(Way::Bytes.sample(3).path())).done()
}

#[test]
fn a_repetition_is_one_event_and_one_line_in_words() {
    let second = || Way::Bytes.fault(1, Action::unavailable());
    let ran = told(second(), &[]);
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
        lines[0].contains("WARN movie.mp4: retrying chunk 2 in") && lines[0].contains("503"),
        "{}",
        lines[0]
    );
    let chunks = ran.events().into_iter().filter(|event| event["event"] == "chunk_done").count();
    assert_eq!(chunks, 3);
    assert_eq!(told(second(), &["-q"]).stderr, "");
}

#[test]
fn a_throttle_is_one_event_and_one_line_in_words() {
    let ran = told(Way::Bytes.fault(1, THROTTLE), &[]);
    let throttled = ran.event("throttled");
    assert_eq!(
        (&throttled["class"], &throttled["why"]),
        (&json!("uploads"), &json!("too_many_requests")),
        "{throttled}"
    );
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.contains("wait for")).collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    assert!(lines[0].contains("WARN uploads wait for") && lines[0].contains("429"), "{}", lines[0]);
}
