//! The requests that the operations on jobs take.

use super::*;

#[test]
fn a_job_takes_a_read_and_three_writes_of_a_worker_that_is_alone() {
    let Some(server) = NatsServer::start() else { return };
    let store = connect(&server);
    submit(&store, 0..8);
    // The first claim makes the index.
    let first = claim(&store, 1).lease;
    let before = store.messages_sent();
    let answers = block_on(store.claim_several(&pool(), &owner(1), now(), 7, 10)).unwrap();
    assert_eq!(answers.len(), 7);
    for answer in answers {
        let ClaimAnswer::Claimed(claimed) = answer else { panic!("expected a job, got {answer:?}") };
        block_on(store.checkpoint(&claimed.lease, JobCheckpoint::new(1, 0, "{}"), now())).unwrap();
        block_on(store.finish(&claimed.lease, done(), now())).unwrap();
    }
    // One more for the state of the stream. A slow machine reads records back; with a read before each write they are 77.
    let sent = store.messages_sent() - before;
    assert!((29..60).contains(&sent), "{sent} messages");
    block_on(store.finish(&first, done(), now())).unwrap();
    assert_eq!(counted(&store, JobStateName::Done), 8);
}

#[test]
fn a_known_record_that_another_process_has_changed_is_read_before_the_next_write() {
    let Some(server) = NatsServer::start() else { return };
    let (store, other) = (connect(&server), connect(&server));
    submit(&store, 0..2);
    let [first, second] = [(); 2].map(|()| claim(&store, 1).lease);
    block_on(other.note_orphans(&first.id, vec!["vi7".to_owned()], Vec::new())).unwrap();
    assert_eq!(block_on(store.finish_with_orphans(&first, done(), now())).unwrap(), ["vi7"]);
    block_on(other.cancel(&second.id, now())).unwrap();
    assert!(is_lost(block_on(store.renew(&second, now()))));
}
