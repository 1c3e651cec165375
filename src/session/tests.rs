//! The session against a model of the service: random histories, and the main rules one by one.

mod driver;
mod model;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::error::Refusal;
use crate::session::chunks::Layout;
use crate::session::retry::Fate;
use crate::wire::limits::{MIB, MIN_CHUNK_BYTES};
use crate::wire::{Addressing, Chunk, ContentRange, Plan, StreamAddressing, StreamPlan};
use driver::{Event, History};
use model::{Mishap, Says, StatusMishap};

fn any_mishap() -> impl Strategy<Value = Option<Mishap>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Mishap::Layout)),
        1 => Just(Some(Mishap::AnswerLost)),
        1 => (0u64..9).prop_map(|s| Some(Mishap::AnswerLostAndShownAfter(s))),
        1 => (0u64..9).prop_map(|s| Some(Mishap::ShownAfter(s))),
        1 => Just(Some(Mishap::RequestLost)),
        1 => (0u64..9).prop_map(|s| Some(Mishap::ArrivesAfter(s))),
        1 => proptest::option::of(0u64..40).prop_map(|s| Some(Mishap::Throttled(s))),
        1 => Just(Some(Mishap::Expired)),
        1 => Just(Some(Mishap::Fails)),
        1 => Just(Some(Mishap::Intercepted)),
        1 => Just(Some(Mishap::InterceptedAfterStoring)),
        1 => Just(Some(Mishap::DeliveredTwice)),
        1 => Just(Some(Mishap::VideoUnknown)),
        1 => (0u64..40).prop_map(|s| Some(Mishap::Away(s))),
    ]
}

fn any_status_mishap() -> impl Strategy<Value = StatusMishap> {
    prop_oneof![
        4 => Just(StatusMishap::None),
        1 => Just(StatusMishap::Fails),
        1 => Just(StatusMishap::Throttled),
        1 => Just(StatusMishap::Expired),
        1 => Just(StatusMishap::Intercepted),
        1 => Just(StatusMishap::VideoUnknown),
    ]
}

fn any_event() -> impl Strategy<Value = (u32, Event)> {
    let event = prop_oneof![
        3 => (0usize..4).prop_map(|forgotten| Event::Crash { forgotten }),
        2 => (0u32..8).prop_map(Event::Lose),
        2 => (0u32..8).prop_map(Event::OtherHostSends),
        1 => Just(Event::OtherHostSendsAll),
        1 => Just(Event::Stop),
    ];
    (0u32..20, event)
}

fn stream(addressing: StreamAddressing) -> Layout {
    Layout::Stream(StreamPlan::new(MIN_CHUNK_BYTES, addressing).unwrap())
}

fn sized_stream(chunks: u32, parts: bool) -> Layout {
    let addressing = if parts { Addressing::Part } else { Addressing::ByteRange };
    let len = u64::from(chunks) * MIN_CHUNK_BYTES;
    Layout::PlannedStream(Plan::new(len, MIN_CHUNK_BYTES, addressing).unwrap())
}

fn any_cut() -> impl Strategy<Value = (Layout, u32)> {
    let plan = |len, addressing| Layout::Planned(Plan::new(len, MIN_CHUNK_BYTES, addressing).unwrap());
    let len = || 1..8 * MIN_CHUNK_BYTES;
    prop_oneof![
        (1..100 * MIB).prop_map(move |len| (plan(len, Addressing::Single), 1)),
        len().prop_map(move |len| (plan(len, Addressing::ByteRange), len.div_ceil(MIN_CHUNK_BYTES) as u32)),
        len().prop_map(move |len| (plan(len, Addressing::Part), len.div_ceil(MIN_CHUNK_BYTES) as u32)),
        (1u32..8).prop_map(|chunks| (stream(StreamAddressing::Part), chunks)),
        (1u32..8).prop_map(|chunks| (stream(StreamAddressing::ByteRange), chunks)),
        (1u32..8, any::<bool>()).prop_map(|(chunks, parts)| (sized_stream(chunks, parts), chunks)),
    ]
}

prop_compose! {
    fn any_history()(
        (cut, chunks) in any_cut(),
        token in any::<bool>(),
        given in any::<bool>(),
        shared in any::<bool>(),
        lanes in 1usize..5,
        says in prop_oneof![Just(Says::Nothing), Just(Says::TheTruth), Just(Says::Nonsense), Just(Says::NonsenseAndOverwrites)],
        assembly_s in 0u64..20,
        mishaps in vec(any_mishap(), 0..16),
        status_mishaps in vec(any_status_mishap(), 0..6),
        events in vec(any_event(), 0..4),
        seed in any::<u64>(),
    ) -> History {
        let access = if token { CredentialKind::Token } else { CredentialKind::Key };
        // Hosts share files only, in a video that one of them creates with the API key.
        let is_shared = shared && !given && !token && matches!(cut, Layout::Planned(_));
        History {
            cut, chunks, access, given, is_shared, lanes, says,
            assembly: Duration::from_secs(assembly_s),
            mishaps, status_mishaps, events, seed,
            policy: RetryPolicy::default(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_and_success_means_every_byte_once(
        history in any_history(),
        retries in 0u32..4,
        max_time_s in 0u64..200,
    ) {
        let max_time = Duration::from_secs(max_time_s);
        let history = History { policy: RetryPolicy { retries, max_time, ..RetryPolicy::default() }, ..history };
        let end = history.run();
        if end.result.is_ok() && history.service_keeps_what_it_said() {
            prop_assert!(end.is_complete);
        }
    }

    #[test]
    fn with_patience_every_mishap_is_mended(history in any_history()) {
        let max_time = Duration::from_secs(24 * 3600);
        let history = History { policy: RetryPolicy { retries: 40, max_time, ..RetryPolicy::default() }, ..history };
        let end = history.run();
        if history.can_be_mended() {
            prop_assert!(end.result.is_ok(), "{:?}", end.result);
            prop_assert!(end.is_complete);
        }
    }
}

/// Five chunks into a container that we make, with nothing going wrong.
fn smooth() -> History {
    let plan = Plan::new(5 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::ByteRange).unwrap();
    History {
        cut: Layout::Planned(plan),
        chunks: 5,
        access: CredentialKind::Key,
        given: false,
        is_shared: false,
        lanes: 3,
        says: Says::TheTruth,
        assembly: Duration::ZERO,
        mishaps: Vec::new(),
        status_mishaps: Vec::new(),
        events: Vec::new(),
        seed: 7,
        policy: RetryPolicy::default(),
    }
}

/// Runs it to a complete file, and says how many requests carried chunks.
fn attempts(history: History) -> u32 {
    let end = history.run();
    assert!(end.result.is_ok() && end.is_complete, "{:?}", end.result);
    end.attempts
}

#[test]
fn when_nothing_goes_wrong_every_chunk_is_sent_once() {
    assert_eq!(attempts(smooth()), 5);
    assert_eq!(attempts(History { access: CredentialKind::Token, ..smooth() }), 5);
    for addressing in [StreamAddressing::Part, StreamAddressing::ByteRange] {
        assert_eq!(attempts(History { cut: stream(addressing), ..smooth() }), 5);
    }
    assert_eq!(attempts(History { cut: sized_stream(5, false), ..smooth() }), 5);
}

#[test]
fn a_chunk_whose_answer_was_lost_is_asked_for_and_not_sent_again() {
    let mishaps = vec![Some(Mishap::AnswerLost); 5];
    assert_eq!(attempts(History { mishaps: mishaps.clone(), ..smooth() }), 5);
    let policy = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    assert_eq!(attempts(History { mishaps, policy, ..smooth() }), 5);
}

#[test]
fn a_chunk_that_did_not_arrive_is_sent_again_after_two_looks() {
    assert_eq!(attempts(History { mishaps: vec![Some(Mishap::RequestLost)], ..smooth() }), 6);
}

#[test]
fn with_a_token_a_refusal_says_what_a_status_would_have_said() {
    let mishaps = vec![None, Some(Mishap::AnswerLost)];
    assert_eq!(attempts(History { access: CredentialKind::Token, mishaps, ..smooth() }), 6);
}

#[test]
fn the_first_chunk_of_a_delegated_upload_makes_the_only_video() {
    let end =
        History { access: CredentialKind::Token, mishaps: vec![Some(Mishap::Layout); 3], ..smooth() }.run();
    assert_eq!((end.containers, end.attempts, end.is_complete), (1, 8, true));
}

#[test]
fn throttling_is_no_failure() {
    let policy = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    let mishaps = vec![Some(Mishap::Throttled(Some(7))); 9];
    assert_eq!(attempts(History { mishaps, policy, ..smooth() }), 14);
}

#[test]
fn a_throttle_without_end_ends_in_time() {
    let end = History { mishaps: vec![Some(Mishap::Throttled(Some(u64::MAX)))], lanes: 1, ..smooth() }.run();
    assert_eq!(end.result.unwrap_err().kind(), ErrorKind::RateLimited);
}

#[test]
fn credentials_are_renewed_once_for_all_lanes() {
    let end = History { mishaps: vec![None, Some(Mishap::Expired)], ..smooth() }.run();
    assert_eq!((end.renewals, end.is_complete), (1, true));
    let status_mishaps = vec![StatusMishap::Fails, StatusMishap::Throttled, StatusMishap::Expired];
    let end = History { says: Says::Nothing, status_mishaps, ..smooth() }.run();
    assert_eq!((end.renewals, end.is_complete), (1, true));
}

#[test]
fn after_a_crash_only_what_the_service_lacks_is_sent() {
    let crash = |forgotten| vec![(4, Event::Crash { forgotten })];
    let one_lane = History { lanes: 1, ..smooth() };
    for seed in 0..20 {
        let asked = History { events: crash(2), seed, ..one_lane.clone() };
        assert_eq!(attempts(asked), 5);
        let remembered =
            History { access: CredentialKind::Token, events: crash(0), seed, ..one_lane.clone() };
        assert_eq!(attempts(remembered), 5);
        let forgotten = History { access: CredentialKind::Token, events: crash(2), seed, ..one_lane.clone() };
        assert_eq!(attempts(forgotten), 7);
    }
}

#[test]
fn what_the_service_lost_is_sent_again_until_it_is_too_much() {
    assert_eq!(attempts(History { events: vec![(2, Event::Lose(0))], lanes: 1, ..smooth() }), 6);
    let both = |attempt| [(attempt, Event::Lose(0)), (attempt, Event::Lose(1))];
    let events = (0..200).flat_map(both).collect();
    let end = History { events, lanes: 1, ..smooth() }.run();
    assert_eq!(end.result.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_stream_ends_if_the_service_loses_a_stored_chunk() {
    let plan = Plan::new(5 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::ByteRange).unwrap();
    let history = History { cut: Layout::PlannedStream(plan), lanes: 1, ..smooth() };
    let end = History { events: vec![(2, Event::Lose(0))], ..history }.run();
    assert_eq!(end.result.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(end.attempts, 5);
}

#[test]
fn an_answer_that_claims_the_whole_too_early_is_not_believed() {
    assert_eq!(attempts(History { says: Says::Nonsense, ..smooth() }), 5);
}

#[test]
fn a_service_that_lets_chunks_overwrite_each_other_gives_no_success() {
    for access in [CredentialKind::Key, CredentialKind::Token] {
        for lanes in [1, 3] {
            let end = History { says: Says::NonsenseAndOverwrites, access, lanes, ..smooth() }.run();
            assert_eq!(end.result.unwrap_err().kind(), ErrorKind::Mismatch, "{access:?}, {lanes} lanes");
        }
    }
}

#[test]
fn a_chunk_that_a_proxy_delivered_twice_is_stored() {
    for says in [Says::Nothing, Says::TheTruth] {
        for hit in 0..5 {
            let mut mishaps = vec![None; hit];
            mishaps.push(Some(Mishap::DeliveredTwice));
            assert_eq!(attempts(History { mishaps: mishaps.clone(), says, lanes: 1, ..smooth() }), 5);
            if hit > 0 {
                let end =
                    History { mishaps, says, lanes: 1, access: CredentialKind::Token, ..smooth() }.run();
                assert!(end.result.is_ok() && end.is_complete, "chunk {hit}: {:?}", end.result);
            }
        }
    }
}

#[test]
fn a_duplicate_that_the_status_denies_ends_the_upload_and_keeps_its_chunks() {
    let (mut session, now) = sending(RetryPolicy::default());
    session.handle_outcome(0, accepted(Completion::Open), now, 0.5);
    assert_eq!(session.next_chunk(now).unwrap().chunk.index, 1);
    let error = Error::new(ErrorKind::AlreadySent, "send a chunk");
    session.handle_outcome(1, Outcome::Failed { error, fate: Fate::NotStored }, now, 0.5);
    let extents = vec![Extent::new(0, MIN_CHUNK_BYTES)];
    let later = now + RetryPolicy::default().grace;
    for at in [now, later, later + 2 * RetryPolicy::default().grace] {
        assert_eq!(session.poll(at), Some(SessionAction::AskStatus));
        session.handle_status(
            Ok(ReceivedSet { extents: extents.clone(), ..ReceivedSet::default() }),
            at,
            0.5,
        );
    }
    let error = session.take_result().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_resumable()), (ErrorKind::AlreadySent, true));
}

#[test]
fn a_full_container_that_is_not_ours_is_an_error_without_a_question() {
    let (mut session, now) = sending(RetryPolicy::default());
    let error = Error::new(ErrorKind::AlreadyFilled, "send a chunk");
    session.handle_outcome(0, Outcome::Failed { error, fate: Fate::NotStored }, now, 0.5);
    assert_eq!(session.poll(now), Some(SessionAction::Finish));
    assert_eq!(session.take_result().unwrap().unwrap_err().kind(), ErrorKind::AlreadyFilled);
}

#[test]
fn a_question_that_fails_says_nothing_about_the_video() {
    let page = Refusal { status: 400, ..Refusal::default() };
    let failures = [
        Error::new(ErrorKind::Refused, "ask").with_refusal(page),
        Error::new(ErrorKind::MalformedAnswer, "ask"),
        Error::new(ErrorKind::AlreadyFilled, "ask"),
        Error::new(ErrorKind::NotFound, "ask"),
    ];
    for failure in failures {
        let kind = failure.kind();
        let policy = RetryPolicy { retries: 3, ..RetryPolicy::default() };
        let (mut session, mut now) = sending(policy);
        session.handle_outcome(0, accepted(Completion::Open), now, 0.5);
        assert_eq!(session.next_chunk(now).unwrap().chunk.index, 1);
        let lost = Error::new(ErrorKind::Unavailable, "send a chunk");
        session.handle_outcome(1, Outcome::Failed { error: lost, fate: Fate::Unknown }, now, 0.5);
        let mut questions = 0;
        let mut failure = Some(failure);
        while session.poll(now) == Some(SessionAction::AskStatus) {
            questions += 1;
            let error = failure.take().unwrap_or_else(|| Error::new(kind, "ask"));
            session.handle_status(Err(error), now, 0.5);
            now = session.next_timeout(now).unwrap_or(now);
        }
        assert!(questions > 2, "{kind:?}: asked {questions} times");
        let error = session.take_result().unwrap().unwrap_err();
        assert!(error.is_resumable(), "{kind:?} ended as {error:?}");
    }
}

#[test]
fn a_video_that_a_replica_does_not_know_yet_is_waited_for_and_a_given_one_is_not() {
    assert_eq!(attempts(History { mishaps: vec![Some(Mishap::VideoUnknown); 3], ..smooth() }), 8);
    let end = History { mishaps: vec![Some(Mishap::VideoUnknown)], given: true, lanes: 1, ..smooth() };
    let end = end.run();
    assert_eq!((end.result.unwrap_err().kind(), end.attempts), (ErrorKind::NotFound, 1));
}

#[test]
fn a_service_that_says_how_long_it_is_away_is_waited_for_without_counting() {
    let policy = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    let mishaps = vec![Some(Mishap::Away(60)); 9];
    assert_eq!(attempts(History { mishaps, policy, ..smooth() }), 14);
    let end = History { mishaps: vec![Some(Mishap::Away(u64::MAX))], lanes: 1, ..smooth() }.run();
    assert_eq!(end.result.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_page_of_a_gateway_is_no_word_of_the_service() {
    assert_eq!(attempts(History { mishaps: vec![Some(Mishap::Intercepted); 5], lanes: 1, ..smooth() }), 10);
    let end = History { mishaps: vec![Some(Mishap::Intercepted); 60], lanes: 1, ..smooth() }.run();
    let error = end.result.unwrap_err();
    assert!(error.is_resumable() && error.is_from_intermediary(), "{error:?}");
}

#[test]
fn a_session_that_is_stopped_waits_for_what_is_under_way_and_ends() {
    let end = History { events: vec![(1, Event::Stop)], ..smooth() }.run();
    assert_eq!(end.result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(end.attempts, 3);
}

#[test]
fn a_failure_while_the_video_is_created_ends_the_session() {
    let (now, policy) = (Instant::now(), RetryPolicy::default());
    let spec = SessionConfig {
        cut: smooth().cut,
        access: CredentialKind::Key,
        video_id: None,
        resumed: None,
        is_shared: false,
        policy,
    };
    let mut session = Session::new(spec, now);
    assert_eq!(session.poll(now), Some(SessionAction::Create));
    session.handle_failure(Error::new(ErrorKind::Cancelled, "finish the upload"));
    session.handle_created(Ok("vi0".to_owned()));
    assert_eq!(session.next_chunk(now), None);
    assert_eq!(session.poll(now), Some(SessionAction::Finish));
    assert_eq!(session.video_id(), Some("vi0"));
    assert_eq!(session.take_result().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

/// A session with one chunk in a lane, the clock at its beginning.
fn sending(policy: RetryPolicy) -> (Session, Instant) {
    let video_id = Some("vi0".to_owned());
    let spec = SessionConfig {
        cut: smooth().cut,
        access: CredentialKind::Key,
        video_id,
        resumed: None,
        is_shared: false,
        policy,
    };
    let now = Instant::now();
    let mut session = Session::new(spec, now);
    assert_eq!(session.next_chunk(now).unwrap().chunk.index, 0);
    (session, now)
}

fn accepted(completion: Completion) -> Outcome {
    Outcome::Accepted { video_id: "vi0".into(), completion }
}

#[test]
fn a_chunk_that_took_longer_than_all_patience_before_it_broke_is_sent_again() {
    let (mut session, began) = sending(RetryPolicy::default());
    let now = began + 2 * RetryPolicy::default().max_time;
    let error = Error::new(ErrorKind::Unavailable, "send a chunk");
    session.handle_outcome(0, Outcome::Failed { error, fate: Fate::NotStored }, now, 0.5);
    assert_eq!(session.poll(now), None);
}

#[test]
fn a_chunk_that_went_into_another_video_ends_the_upload() {
    let (mut session, now) = sending(RetryPolicy::default());
    let outcome = Outcome::Accepted { video_id: "vi1".into(), completion: Completion::Open };
    session.handle_outcome(0, outcome, now, 0.5);
    assert_eq!(session.poll(now), Some(SessionAction::Finish));
    let error = session.take_result().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(
        error.to_string(),
        "could not send chunk 1 to video vi0: the service stored it in another video, vi1"
    );
}

// Events of one round of the driver: it handles several before it asks the session for an action.

/// A session with a key, an existing video and three chunks; `resumed` if an earlier run has begun to fill it.
fn of_three_chunks(resumed: Option<Resumed>) -> (Session, Instant) {
    let plan = Plan::new(3 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::Part).unwrap();
    let (cut, access, video_id) = (Layout::Planned(plan), CredentialKind::Key, Some("vi0".to_owned()));
    let now = Instant::now();
    (
        Session::new(
            SessionConfig {
                cut,
                access,
                video_id,
                resumed,
                is_shared: false,
                policy: RetryPolicy::default(),
            },
            now,
        ),
        now,
    )
}

fn listing(parts: &[u32]) -> Result<ReceivedSet, Error> {
    Ok(ReceivedSet { parts: parts.to_vec(), ..ReceivedSet::default() })
}

fn lost_answer() -> Outcome {
    Outcome::Failed { error: Error::new(ErrorKind::Unavailable, "send a chunk"), fate: Fate::Unknown }
}

fn done_chunks(session: &mut Session) -> Vec<u32> {
    let done = |event| match event {
        UploadEvent::ChunkDone { index, .. } => Some(index),
        _ => None,
    };
    session.take_events().into_iter().filter_map(done).collect()
}

/// A session of three chunks that is about to create its video.
fn before_creation(is_shared: bool) -> (Session, Instant) {
    let plan = Plan::new(3 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::Part).unwrap();
    let (cut, access, policy) = (Layout::Planned(plan), CredentialKind::Key, RetryPolicy::default());
    let now = Instant::now();
    let spec = SessionConfig { cut, access, video_id: None, resumed: None, is_shared, policy };
    let mut session = Session::new(spec, now);
    assert_eq!(session.poll(now), Some(SessionAction::Create));
    (session, now)
}

#[test]
fn only_a_host_that_shares_the_video_may_have_completed_it() {
    for is_shared in [false, true] {
        let (mut session, now) = before_creation(is_shared);
        session.handle_created(Ok("vi0".to_owned()));
        session.next_chunk(now).unwrap();
        let error = Error::new(ErrorKind::AlreadyFilled, "send a chunk");
        session.handle_outcome(0, Outcome::Failed { error, fate: Fate::NotStored }, now, 0.5);
        assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
        let complete = ReceivedSet { complete: true, ..ReceivedSet::default() };
        session.handle_status(Ok(complete), now, 0.5);
        let result = session.take_result().unwrap().map_err(|error| error.kind());
        let expected = if is_shared { Ok(Completion::Complete) } else { Err(ErrorKind::Mismatch) };
        assert_eq!(result, expected, "shared: {is_shared}");
    }
}

#[test]
fn only_repetitions_after_failures_count_as_bytes_sent_again() {
    for (kind, resent) in [
        (ErrorKind::Unavailable, MIN_CHUNK_BYTES),
        (ErrorKind::RateLimited, 0),
        (ErrorKind::NotAuthorized, 0),
    ] {
        let (mut session, now) = before_creation(false);
        session.handle_created(Ok("vi0".to_owned()));
        session.next_chunk(now).unwrap();
        let error = Error::new(kind, "send a chunk");
        session.handle_outcome(0, Outcome::Failed { error, fate: Fate::NotStored }, now, 0.5);
        assert_eq!(session.resent_bytes(), resent, "{kind:?}");
    }
}

#[test]
fn a_shared_video_is_complete_if_another_host_sends_the_missing_chunks() {
    for (attempt, seed) in (1..5).flat_map(|attempt| (0..10).map(move |seed| (attempt, seed))) {
        let events = vec![(attempt, Event::OtherHostSendsAll)];
        let end = History { is_shared: true, lanes: 2, events, seed, ..smooth() }.run();
        assert!(end.result.is_ok() && end.is_complete, "attempt {attempt}, seed {seed}: {:?}", end.result);
    }
}

#[test]
fn a_video_that_was_found_is_asked_for_its_chunks_before_any_is_sent() {
    let (mut session, now) = before_creation(true);
    session.handle_found("vi0".to_owned(), now);
    assert!(session.next_chunk(now).is_none());
    assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
    session.handle_status(listing(&[1, 3]), now, 0.5);
    assert_eq!(session.next_chunk(now).unwrap().chunk.index, 1);
    assert!(session.next_chunk(now).is_none());
}

#[test]
fn a_status_after_a_cancellation_reports_no_chunk_of_the_earlier_run_as_sent() {
    for complete in [false, true] {
        let (mut session, now) = of_three_chunks(Some(Resumed::default()));
        assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
        session.handle_failure(Error::new(ErrorKind::Cancelled, "finish the upload"));
        let status = ReceivedSet { parts: vec![1, 2], complete, ..ReceivedSet::default() };
        session.handle_status(Ok(status), now, 0.5);
        assert_eq!(done_chunks(&mut session), [0; 0], "complete: {complete}");
        assert_eq!(session.chunks().sent_bytes(), 0);
        assert_eq!(session.is_incomplete(), !complete, "complete: {complete}");
        assert_eq!(session.take_result().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn a_failed_status_after_a_cancellation_asks_for_nothing_more() {
    let (mut session, now) = of_three_chunks(Some(Resumed::default()));
    assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
    session.handle_failure(Error::new(ErrorKind::Cancelled, "finish the upload"));
    session.take_events();
    session.handle_status(Err(Error::new(ErrorKind::RateLimited, "ask")), now, 0.5);
    assert!(session.take_events().is_empty());
    assert_eq!((session.next_timeout(now), session.poll(now)), (None, Some(SessionAction::Finish)));
}

#[test]
fn a_status_older_than_the_last_answer_does_not_prove_that_bytes_are_missing() {
    let (mut session, now) = of_three_chunks(None);
    let indexes = std::iter::from_fn(|| session.next_chunk(now)).map(|one| one.chunk.index);
    assert_eq!(indexes.collect::<Vec<_>>(), [0, 1, 2]);
    session.handle_outcome(0, lost_answer(), now, 0.5);
    session.handle_outcome(1, accepted(Completion::Open), now, 0.5);
    assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
    // The service answers the question and then stores the last chunk, whose answer is the faster one.
    session.handle_outcome(2, accepted(Completion::Open), now, 0.5);
    session.handle_status(listing(&[1, 2]), now, 0.5);
    assert!(!session.is_incomplete(), "every chunk is stored");
}

#[test]
fn a_chunk_under_way_may_be_the_one_that_a_status_lists_as_missing() {
    let (mut session, now) = of_three_chunks(Some(Resumed::default()));
    assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
    session.handle_status(listing(&[1, 2]), now, 0.5);
    assert!(session.is_incomplete());
    assert_eq!(session.next_chunk(now).unwrap().chunk.index, 2);
    assert!(!session.is_incomplete(), "it may have arrived");
}

#[test]
fn a_chunk_that_a_complete_status_showed_before_its_answer_is_reported_once() {
    let (mut session, now) = of_three_chunks(None);
    assert_eq!(std::iter::from_fn(|| session.next_chunk(now)).count(), 3);
    session.handle_outcome(0, lost_answer(), now, 0.5);
    assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
    let complete = ReceivedSet { complete: true, ..ReceivedSet::default() };
    session.handle_status(Ok(complete), now, 0.5);
    session.handle_outcome(1, accepted(Completion::Complete), now, 0.5);
    session.handle_outcome(2, lost_answer(), now, 0.5);
    assert_eq!(done_chunks(&mut session), [0, 1, 2]);
    assert_eq!((session.chunks().stored(), session.chunks().in_flight()), (3, 0));
    assert_eq!(session.chunks().sent_bytes(), 3 * MIN_CHUNK_BYTES);
    assert!(session.is_complete());
}

#[test]
fn a_service_that_overwrites_is_noticed_across_a_crash() {
    let plan = Plan::new(2 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::Part).unwrap();
    for seed in 0..200 {
        let history = History {
            cut: Layout::Planned(plan),
            chunks: 2,
            lanes: 2,
            access: CredentialKind::Token,
            given: true,
            says: Says::NonsenseAndOverwrites,
            events: vec![(1, Event::Crash { forgotten: 0 })],
            seed,
            ..smooth()
        };
        assert_eq!(history.run().result.unwrap_err().kind(), ErrorKind::Mismatch, "seed {seed}");
    }
}

#[test]
fn stored_ranges_may_be_listed_in_any_order_and_any_pieces() {
    let plan = Plan::new(5 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::ByteRange).unwrap();
    let now = Instant::now();
    let spec = SessionConfig {
        cut: Layout::Planned(plan),
        access: CredentialKind::Key,
        video_id: Some("vi0".into()),
        resumed: Some(Resumed::default()),
        is_shared: false,
        policy: RetryPolicy::default(),
    };
    let mut session = Session::new(spec, now);
    assert_eq!(session.poll(now), Some(SessionAction::AskStatus));
    let extents = [(3 * MIB, 8 * MIB), (16 * MIB, 9 * MIB), (0, 3 * MIB)];
    let extents = extents.map(|(offset, len)| Extent::new(offset, len)).to_vec();
    session.handle_status(Ok(ReceivedSet { extents, ..ReceivedSet::default() }), now, 0.5);
    let sent: Vec<u32> = std::iter::from_fn(|| session.next_chunk(now)).map(|d| d.chunk.index).collect();
    assert_eq!(sent, [2, 3]);
}
