//! Two workers that create a video of the same file at the same time: one video is filled, and none is left without a word.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pollster::block_on;
use ringlift::bulk::{
    ClaimAnswer, ClaimedJob, IngestEvent, JobCheckpoint, JobEnd, JobId, JobResult, JobStore, OrphanFate,
    Pool, UnixMillis,
};
use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use ringlift::{ChunkSize, Client, MARK_KEY, Mode, NewVideo, UploadOptions, VideoQuery};
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet_hosts::{FleetHost, FleetWorker, NatsServer, POOL, StoppableNetwork, open_queue, owner};
use crate::support::command::{end, run, start};
use crate::support::middlebox::{Middlebox, Treatment};
use crate::support::queue::wait_until;
use crate::support::{MIB, Sample, Scheme, TestServer, short_pauses};

/// Returns the ids of all videos, sorted.
fn videos(client: &Client) -> Vec<String> {
    let page = block_on(client.videos(VideoQuery::default())).unwrap();
    let mut ids: Vec<String> = page.data.into_iter().map(|video| video.video_id).collect();
    ids.sort();
    ids
}

fn mark_of(client: &Client, video_id: &str) -> String {
    let video = block_on(client.video(video_id)).unwrap();
    video.metadata.into_iter().find(|pair| pair.key == MARK_KEY).unwrap().value
}

fn create_marked(client: &Client, mark: &str) -> String {
    block_on(client.create_video(NewVideo::new("the same file").metadata(MARK_KEY, mark))).unwrap().video_id
}

/// Returns the id of the only job.
fn only_job(store: &dyn JobStore) -> JobId {
    block_on(store.list(Default::default())).unwrap().jobs.remove(0).spec.id
}

/// Claims the job as another host once its lease has run out.
fn claim_elsewhere(store: &dyn JobStore) -> ClaimedJob {
    loop {
        match block_on(store.claim(&Pool::new(POOL).unwrap(), &owner(99), UnixMillis::default())).unwrap() {
            ClaimAnswer::Claimed(claimed) => return *claimed,
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn stalled_part(part: u32, for_ms: u64) -> Fault {
    Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms }).part(part)
}

/// A request that creates a video and is held up on its way.
#[derive(Default)]
struct HeldCreation {
    is_held: AtomicBool,
    is_free: (Mutex<bool>, Condvar),
}

#[test]
fn a_worker_whose_request_creates_a_second_video_after_the_file_was_done_deletes_it() {
    let Some(nats) = NatsServer::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    fs::write(films.path().join("film.mp4"), vec![7; 2 * MIB as usize]).unwrap();
    let hosts = [0, 1].map(|_| FleetHost::new(&server, nats.url()));
    hosts[0].submit(films.path()).done();
    let held = Arc::new(HeldCreation::default());
    let of_network = held.clone();
    let network = Middlebox::start(server.server.addr(), move |request| {
        if request.is_creation() {
            of_network.is_held.store(true, Ordering::Release);
            let gate = &of_network.is_free;
            drop(gate.1.wait_while(gate.0.lock().unwrap(), |is_free| !*is_free).unwrap());
        }
        Treatment::Pass
    });
    let slow = start(hosts[0].worker(&["--drain"]).env("RINGLIFT_ENDPOINT_URL", network.url()));
    wait_until(|| held.is_held.load(Ordering::Acquire));
    // Its lease runs out, and the other host finds no video with the mark of the job.
    kill_process(Pid::from_child(&slow), Signal::STOP).unwrap();
    end(start(&mut hosts[1].worker(&["--drain"]))).done();
    server.assert_created(1);
    *held.is_free.0.lock().unwrap() = true;
    held.is_free.1.notify_all();
    wait_until(|| server.server.stats().videos_created == 2);
    kill_process(Pid::from_child(&slow), Signal::CONT).unwrap();
    let output = end(slow).done();
    let orphan = output.event("orphan");
    assert_eq!(
        (&orphan["deleted"], orphan["file"].as_str().unwrap().ends_with("film.mp4")),
        (&true.into(), true)
    );
    let left = videos(&server.client().build().unwrap());
    assert_eq!(left.len(), 1, "{output:?}");
    assert_ne!(orphan["video_id"], left[0].as_str());
    server.assert_holds(&left[0], &films.path().join("film.mp4"));
    let job = block_on(open_queue(&nats.url()).list(Default::default())).unwrap().jobs.remove(0);
    assert!(job.record.orphans.is_empty(), "{job:?}");
}

#[test]
fn a_video_with_content_that_another_one_has_replaced_is_kept_named_and_recorded() {
    let Some(nats) = NatsServer::start() else { return };
    let server = TestServer::faulty(Scheme::Http, vec![stalled_part(2, 60_000)]);
    let films = tempfile::tempdir().unwrap();
    fs::write(films.path().join("film.mp4"), vec![7; 12 * MIB as usize]).unwrap();
    FleetHost::new(&server, nats.url()).submit(films.path()).done();
    let network = StoppableNetwork::to(nats.url().trim_start_matches("nats://").parse().unwrap());
    let client = server.client().lanes(1).with(short_pauses).build().unwrap();
    let lost = open_queue(&format!("nats://{}", network.addr()));
    let worker = FleetWorker::start(lost, &client, 1, |_| {});
    let first = worker.until(|event| match event {
        IngestEvent::Progress(_, progress) if progress.acknowledged_bytes > 0 => progress.video_id.clone(),
        _ => None,
    });
    let store = open_queue(&nats.url());
    let id = only_job(&*store);
    // Named in the record before it has content.
    wait_until(|| {
        let job = block_on(store.get(&id)).unwrap().unwrap();
        job.checkpoint.is_some_and(|checkpoint| checkpoint.contains(&first))
    });
    network.set_stopped(true);
    worker.until(|event| matches!(event, IngestEvent::Lost { .. }).then_some(()));
    let lease = claim_elsewhere(&*store).lease;
    let second = create_marked(&client, &mark_of(&client, &first));
    let named = JobCheckpoint::new(1, 0, format!("{{\"video_id\":\"{second}\"}}"));
    block_on(store.checkpoint(&lease, named, UnixMillis::default())).unwrap();
    network.set_stopped(false);
    let (orphan, fate) = worker.until(|event| match event {
        IngestEvent::Orphan { video_id, fate, .. } => Some((video_id.clone(), fate.clone())),
        _ => None,
    });
    assert!(orphan == first && matches!(fate, OrphanFate::Kept { .. }), "{orphan}: {fate:?}");
    wait_until(|| block_on(store.get(&id)).unwrap().unwrap().record.orphans == [first.clone()]);
    let mut expected = vec![first, second.clone()];
    expected.sort();
    assert_eq!(videos(&client), expected);
    let end = JobEnd::Done(JobResult::new(second, 12 * MIB));
    block_on(store.finish(&lease, end, UnixMillis::default())).unwrap();
    worker.until(|event| matches!(event, IngestEvent::Ended(_)).then_some(()));
}

#[test]
fn a_video_whose_record_cannot_be_read_at_the_end_of_the_run_is_named_as_one_of_unknown_fate() {
    let Some(nats) = NatsServer::start() else { return };
    let server = TestServer::faulty(Scheme::Http, vec![stalled_part(1, 60_000)]);
    let films = tempfile::tempdir().unwrap();
    fs::write(films.path().join("film.mp4"), vec![7; 12 * MIB as usize]).unwrap();
    FleetHost::new(&server, nats.url()).submit(films.path()).done();
    let network = StoppableNetwork::to(nats.url().trim_start_matches("nats://").parse().unwrap());
    let client = server.client().lanes(1).with(short_pauses).build().unwrap();
    let lost = open_queue(&format!("nats://{}", network.addr()));
    let mut worker = FleetWorker::start(lost, &client, 1, |_| {});
    let own = worker.until(|event| match event {
        IngestEvent::Progress(_, progress) => progress.video_id.clone(),
        _ => None,
    });
    network.set_stopped(true);
    let lost = worker.until(|event| match event {
        IngestEvent::Lost { video_id, .. } => Some(video_id.clone()),
        _ => None,
    });
    worker.shutdown.cancel(std::time::Instant::now());
    let (left, fate) = worker.until(|event| match event {
        IngestEvent::Orphan { video_id, fate, .. } => Some((video_id.clone(), fate.clone())),
        _ => None,
    });
    assert!((&left, &lost) == (&own, &Some(own.clone())), "{left} {lost:?}");
    assert!(matches!(fate, OrphanFate::Unknown { .. }), "{fate:?}");
    network.set_stopped(false);
    worker.until(|event| matches!(event, IngestEvent::Ended(_)).then_some(()));
    assert_eq!(videos(&client), [own]);
}

#[test]
fn a_video_that_the_record_names_is_never_deleted_by_the_worker_that_lost_it() {
    let Some(nats) = NatsServer::start() else { return };
    let server = TestServer::faulty(Scheme::Http, vec![stalled_part(1, 60_000)]);
    let films = tempfile::tempdir().unwrap();
    fs::write(films.path().join("film.mp4"), vec![7; 12 * MIB as usize]).unwrap();
    FleetHost::new(&server, nats.url()).submit(films.path()).done();
    let client = server.client().lanes(1).with(short_pauses).build().unwrap();
    let (lost, store) = (open_queue(&nats.url()), open_queue(&nats.url()));
    let mut worker = FleetWorker::start(lost, &client, 1, |options| options.waits_for_jobs = true);
    let video_id = worker.until(|event| match event {
        IngestEvent::Progress(_, progress) => progress.video_id.clone(),
        _ => None,
    });
    let id = only_job(&*store);
    wait_until(|| block_on(store.get(&id)).unwrap().unwrap().checkpoint.is_some());
    block_on(store.cancel(&id, UnixMillis::default())).unwrap();
    worker.until(|event| matches!(event, IngestEvent::Lost { .. }).then_some(()));
    block_on(store.retry(&id, UnixMillis::default())).unwrap();
    worker.shutdown.stop(Duration::from_secs(30), std::time::Instant::now());
    worker.until(|event| {
        assert!(!matches!(event, IngestEvent::Orphan { .. }), "{event:?}");
        matches!(event, IngestEvent::Ended(_)).then_some(())
    });
    // The next host goes on with it.
    assert_eq!(videos(&client), [video_id]);
}

#[test]
fn the_video_of_a_cancelled_job_is_named_by_its_worker_and_by_the_queue() {
    let Some(nats) = NatsServer::start() else { return };
    let server = TestServer::faulty(Scheme::Http, vec![stalled_part(2, 60_000)]);
    let films = tempfile::tempdir().unwrap();
    fs::write(films.path().join("film.mp4"), vec![7; 12 * MIB as usize]).unwrap();
    let host = FleetHost::new(&server, nats.url());
    host.submit(films.path()).done();
    let worker = start(&mut host.worker(&["--drain"]));
    let store = open_queue(&nats.url());
    let id = only_job(&*store);
    wait_until(|| block_on(store.get(&id)).unwrap().unwrap().checkpoint.is_some());
    let video = videos(&server.client().build().unwrap()).remove(0);
    let jobs = |args: &[&str]| run(&mut host.command(["jobs"].iter().chain(args))).done();
    let running = jobs(&["list", "--json"]).event("job");
    jobs(&["cancel", id.as_str()]);
    let output = end(worker).done();
    let (lost, cancelled) = (output.event("lost"), jobs(&["list", "--json"]).event("job"));
    let row = jobs(&["report", "--json"]).events().remove(0);
    for named in [&running, &lost, &cancelled, &row] {
        assert_eq!(named["video_id"], *video, "{named}");
    }
    assert_eq!((&running["state"], &row["state"]), (&"running".into(), &"cancelled".into()));
    assert!(output.stderr.contains(&format!("the job was cancelled; its video is {video}")), "{output:?}");
    let shown = jobs(&["show", id.as_str()]);
    assert!(shown.stdout.contains(&video), "{shown:?}");
}

#[test]
fn the_worker_that_completes_a_file_deletes_empty_videos_of_it_and_names_the_others() {
    let Some(nats) = NatsServer::start() else { return };
    let refused = FaultAction::Refuse { status: 400, slug: None, timing: RefusalTiming::AfterBody };
    let refused = Fault::new(RouteClass::Chunk, refused).part(2);
    let server = TestServer::faulty(Scheme::Http, vec![stalled_part(2, 1000), refused]);
    let films = tempfile::tempdir().unwrap();
    let film = films.path().join("film.mp4");
    fs::write(&film, vec![7; 12 * MIB as usize]).unwrap();
    FleetHost::new(&server, nats.url()).submit(films.path()).done();
    let client = server.client().lanes(1).with(short_pauses).build().unwrap();
    let mut worker = FleetWorker::start(open_queue(&nats.url()), &client, 1, |_| {});
    // The second part is on its way: the fault for it would otherwise meet the upload below.
    let own = worker.until(|event| match event {
        IngestEvent::Progress(_, progress) if progress.acknowledged_bytes > 0 => {
            progress.video_id.clone().filter(|_| progress.sent_bytes > progress.acknowledged_bytes)
        }
        _ => None,
    });
    worker.shutdown.cancel(std::time::Instant::now());
    worker.until(|event| matches!(event, IngestEvent::Ended(_)).then_some(()));
    let mark = mark_of(&client, &own);
    let [empty, begun] = [0, 1].map(|_| create_marked(&client, &mark));
    let parts = client.upload(&film).mode(Mode::Parts).chunk_size(ChunkSize::Bytes(5 * MIB));
    parts.video_id(begun.as_str()).send_blocking().unwrap_err();
    let worker = FleetWorker::start(open_queue(&nats.url()), &client, 2, |_| {});
    let mut fates = Vec::new();
    let done = worker.until(|event| match event {
        IngestEvent::Done { result, .. } => Some(result.video_id.clone()),
        _ => None,
    });
    // The one that the record names, though another one has the same mark and content.
    assert_eq!(done, own);
    worker.until(|event| {
        if let IngestEvent::Orphan { video_id, fate, .. } = event {
            fates.push((video_id.clone(), matches!(fate, OrphanFate::Deleted)));
        }
        matches!(event, IngestEvent::Ended(_)).then_some(())
    });
    let mut expected = vec![(empty, true), (begun.clone(), false)];
    fates.sort();
    expected.sort();
    assert_eq!(fates, expected);
    let store = open_queue(&nats.url());
    let record = block_on(store.get(&only_job(&*store))).unwrap().unwrap().record;
    assert_eq!(record.orphans, std::slice::from_ref(&begun));
    let mut left = vec![own.clone(), begun];
    left.sort();
    assert_eq!(videos(&client), left);
    server.assert_holds(&own, &film);
}

#[test]
fn the_video_that_the_hosts_agreed_on_comes_before_an_older_one_and_before_the_journal() {
    let server = TestServer::faulty(Scheme::Http, vec![stalled_part(2, 60_000)]);
    let sample = Sample::new(12 * MIB);
    let journal = server.folder.path().join("host.db");
    let open = || {
        let journal = Some(journal.clone());
        server.client().lanes(1).with(short_pauses).with(move |settings| settings.journal = journal).build()
    };
    let client = open().unwrap();
    let upload = |client: &Client, agreed: Option<&str>| {
        let mut options = UploadOptions::default();
        (options.mode, options.chunk_size) = (Mode::Parts, ChunkSize::Bytes(5 * MIB));
        let upload = client.upload(sample.path()).options(options).shared_mark("the-mark-of-the-job", true);
        match agreed {
            Some(video_id) => upload.shared_container(video_id),
            None => upload,
        }
    };
    let running = block_on(upload(&client, None).start()).unwrap();
    wait_until(|| running.current().acknowledged_bytes > 0);
    let older = running.current().video_id.unwrap();
    running.stopper().cancel();
    running.join_blocking().unwrap_err();
    let newer = create_marked(&client, "the-mark-of-the-job");
    drop(client);
    let client = open().unwrap();
    let uploaded = upload(&client, Some(&newer)).send_blocking().unwrap();
    assert_eq!(uploaded.video_id, newer);
    server.assert_holds(&newer, &sample.path());
    // Its journal entry is left to `clean`, which knows the video.
    let entries = ringlift::journal::Journal::read(&journal).unwrap();
    let orphans: Vec<_> =
        entries.iter().filter(|entry| entry.is_left_over()).filter_map(|entry| entry.orphan()).collect();
    assert_eq!(orphans, [older]);
}
