use super::*;
use crate::bulk::submission::prepare;
use crate::bulk::{ContentStamp, JobId, JobSource, JobSpec, OwnerId, Pool, UnixMillis};
use crate::upload::UploadOptions;

const KEY: &str = "job.a";
fn now() -> UnixMillis {
    UnixMillis::new(1_800_000_000_000)
}

fn held() -> StoredJob {
    let source = JobSource::File { path: "/films/a".into() };
    let stamp = Some(ContentStamp { size: 10, mtime_ns: 5 });
    let (id, pool) = (JobId::new("a").unwrap(), Pool::new("films").unwrap());
    let spec = JobSpec::new(id, pool, source, stamp, UploadOptions::default());
    let mut job = StoredJob::new(&prepare(vec![spec]).unwrap()[0], "content", now());
    job.record.claim(&OwnerId::new("host", 1, 1), now(), Duration::from_secs(60));
    job
}

fn moment(connection: u64, ms: u64) -> RequestMoment {
    RequestMoment { connection, at: Duration::from_millis(ms) }
}

/// Writes a job with revision 7 by connection 1 at 1,000 ms, on a server that has the only copy of the store.
fn with_a_job() -> OwnWrites {
    let own = OwnWrites::default();
    own.found_stream(true, moment(1, 990), moment(1, 995));
    own.add(KEY, held(), 7, moment(1, 1_000), moment(1, 1_003));
    own
}

fn revision(own: &OwnWrites, now: RequestMoment) -> Option<u64> {
    own.take(KEY, now).map(|known| known.revision)
}

#[test]
fn a_record_is_known_once_after_each_write() {
    let own = with_a_job();
    assert_eq!(revision(&own, moment(1, 1_050)), Some(7));
    assert_eq!(revision(&own, moment(1, 1_050)), None);
    own.add(KEY, held(), 9, moment(1, 1_060), moment(1, 1_061));
    assert_eq!(revision(&own, moment(1, 1_070)), Some(9));
}

#[test]
fn a_record_is_not_known_to_the_next_connection_nor_again_to_the_last_one() {
    let own = with_a_job();
    assert_eq!(revision(&own, moment(2, 1_010)), None);
    assert_eq!(revision(&own, moment(1, 1_010)), None);
}

#[test]
fn a_record_is_not_known_if_no_request_was_answered_lately() {
    // The process may have been suspended, and its connection may have ended meanwhile.
    assert_eq!(revision(&with_a_job(), moment(1, 1_101)), None);
    let own = with_a_job();
    own.found_stream(true, moment(1, 1_090), moment(1, 1_095));
    assert_eq!(revision(&own, moment(1, 1_150)), Some(7));
}

#[test]
fn an_answer_that_waited_while_the_process_was_suspended_is_no_recent_one() {
    let own = with_a_job();
    own.found_stream(true, moment(1, 1_010), moment(1, 60_000));
    assert_eq!(revision(&own, moment(1, 60_001)), None);
}

#[test]
fn a_write_on_the_boundary_of_two_connections_leaves_no_record() {
    let own = with_a_job();
    own.add(KEY, held(), 8, moment(1, 1_010), moment(2, 1_020));
    assert_eq!(revision(&own, moment(1, 1_030)), None);
    own.found_stream(true, moment(2, 1_030), moment(2, 1_031));
    assert_eq!(revision(&own, moment(2, 1_032)), None);
}

#[test]
fn no_record_is_known_while_other_servers_have_copies_of_the_store() {
    let own = with_a_job();
    own.found_stream(false, moment(1, 1_010), moment(1, 1_011));
    assert_eq!(revision(&own, moment(1, 1_012)), None);
}

#[test]
fn a_job_that_is_no_longer_held_is_not_known() {
    let own = with_a_job();
    let mut done = held();
    done.record.cancel(now());
    own.add(KEY, done, 8, moment(1, 1_010), moment(1, 1_011));
    assert_eq!(revision(&own, moment(1, 1_012)), None);
}

#[test]
fn each_change_is_applied_once_and_only_up_to_the_revision_that_the_server_reported() {
    let own = with_a_job();
    own.add(KEY, held(), 9, moment(1, 1_010), moment(1, 1_011));
    let revisions = |last| own.changes(1, last).into_keys().collect::<Vec<_>>();
    assert_eq!(revisions(8), [7]);
    assert_eq!(revisions(9), [9]);
    assert!(revisions(9).is_empty());
}

#[test]
fn changes_of_an_earlier_connection_are_not_applied() {
    let own = with_a_job();
    assert!(own.changes(2, 9).is_empty());
    assert!(own.changes(1, 9).is_empty());
}
