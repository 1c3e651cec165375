//! Hosts that fill the same video with the same file, because they have the same job.

use pollster::block_on;
use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use ringlift::{ChunkSize, Client, Mode, Upload, UploadOptions};

use crate::support::queue::wait_until;
use crate::support::{MIB, Sample, Scheme, TestServer, short_pauses};

const CHUNK_BYTES: u64 = 5 * MIB;

fn host(server: &TestServer) -> Client {
    server.client().lanes(1).with(short_pauses).build().unwrap()
}

/// Returns an upload of three chunks under the mark of the job.
fn upload(client: &Client, sample: &Sample) -> Upload {
    let mut options = UploadOptions::default();
    (options.mode, options.chunk_size) = (Mode::Parts, ChunkSize::Bytes(CHUNK_BYTES));
    client.upload(sample.path()).options(options).shared_mark("the-mark-of-the-job", true)
}

fn paused(part: u32, retry_after_s: u64) -> Fault {
    let action =
        FaultAction::TooManyRequests { retry_after_s: Some(retry_after_s), timing: RefusalTiming::AfterBody };
    Fault::new(RouteClass::Chunk, action).part(part)
}

fn has_paused(server: &TestServer) -> bool {
    server.server.requests().iter().any(|request| request.status == Some(429))
}

#[test]
fn a_video_that_another_host_completes_meanwhile_is_complete_for_both() {
    let server = TestServer::faulty(Scheme::Http, vec![paused(2, 3)]);
    let (sample, slow, fast) = (Sample::new(14 * MIB), host(&server), host(&server));
    let running = block_on(upload(&slow, &sample).start()).unwrap();
    wait_until(|| has_paused(&server));
    let fast = upload(&fast, &sample).send_blocking().unwrap();
    let slow = running.join_blocking().unwrap();
    assert_eq!(slow.video_id, fast.video_id);
    server.assert_created(1);
    server.assert_holds(&fast.video_id, &sample.path());
}

#[test]
fn another_host_sends_only_the_chunks_that_the_video_lacks() {
    let server = TestServer::faulty(Scheme::Http, vec![paused(2, 60)]);
    let (sample, first, second) = (Sample::new(14 * MIB), host(&server), host(&server));
    let running = block_on(upload(&first, &sample).start()).unwrap();
    wait_until(|| has_paused(&server));
    running.stopper().cancel();
    running.join_blocking().unwrap_err();
    let uploaded = upload(&second, &sample).send_blocking().unwrap();
    assert_eq!(uploaded.sent_bytes, 14 * MIB - CHUNK_BYTES);
    server.assert_created(1);
    server.assert_holds(&uploaded.video_id, &sample.path());
}
