//! The loop of an ingestion.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::background::{Background, Finish};
use super::deferred_jobs::report_deferred;
use super::event::{IngestEnd, IngestEvent};
use super::fetched::fetch;
use super::finish;
use super::ingest_job::IngestJob;
use super::inputs::Inputs;
use super::leases::{Leases, LostJob, boot_time};
use super::options::{CutoffMode, IngestOptions};
use super::orphans;
use super::report_writer::ReportWriter;
use super::shared::{OpenJobs, SharedState};
use super::state::{WorkState, ahead_of};
use super::submitter;
use super::work::Claims;
use crate::bulk::job_state::JobStateName;
use crate::bulk::report::Report;
use crate::bulk::runner::{RunnerEvent, run};
use crate::bulk::shutdown::{Shutdown, ShutdownSignal, ShutdownStage};
use crate::bulk::store::{JobQuery, JobStore, JobStoreError};
use crate::error::ErrorKind;
use crate::session::event::UploadEvent;
use crate::upload::{Client, Progress};

/// Submits the jobs of `inputs` to `store`, works on the jobs of the pool until none is open, and returns the events.
///
/// Jobs that other runs left in the store are worked on, too. Several processes may work on the same store: each job is
/// with one of them at a time. Nothing is kept about a job that has ended. The client should have a journal, shared by
/// all processes of this host: without one, a job that was interrupted begins again with another video.
///
/// The jobs that wait in the pool are announced in the client's [`Settings::backlog`](crate::Settings), beside what the
/// caller announces there.
///
/// The run advances only while the stream is polled; leases are renewed all the same. Dropping the stream cancels the
/// uploads under way, and their jobs are free when the process ends or their leases run out.
pub fn ingest(
    inputs: Inputs,
    store: Arc<dyn JobStore>,
    client: &Client,
    options: IngestOptions,
    report: Option<Report>,
    shutdown: ShutdownSignal,
) -> impl Stream<Item = IngestEvent> + use<> {
    drive_all(Some(inputs), store, client, options, report, shutdown)
}

/// Works on the jobs of the pool, and returns the events. See [`ingest`], which also submits jobs.
///
/// Without [`IngestOptions::waits_for_jobs`] the run ends once no job of the pool is open.
pub fn work(
    store: Arc<dyn JobStore>,
    client: &Client,
    options: IngestOptions,
    report: Option<Report>,
    shutdown: ShutdownSignal,
) -> impl Stream<Item = IngestEvent> + use<> {
    drive_all(None, store, client, options, report, shutdown)
}

fn drive_all(
    inputs: Option<Inputs>,
    store: Arc<dyn JobStore>,
    client: &Client,
    options: IngestOptions,
    report: Option<Report>,
    shutdown: ShutdownSignal,
) -> impl Stream<Item = IngestEvent> + use<> {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let (lost_sender, lost) = mpsc::channel(QUEUE_LEN);
    let leases = Leases::start(store.clone(), options.clock, lost_sender);
    let report = ReportWriter::start(report);
    let has_watch = inputs.as_ref().is_some_and(Inputs::has_watch);
    let shared = Arc::new(SharedState::new(store, options, report, sender, has_watch));
    let state = WorkState::new(shared, client.clone(), leases, shutdown);
    let driver = drive(Arc::new(state), inputs, lost);
    let events = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (event, receiver))
    });
    let driver = stream::once(driver).filter_map(|()| ready(None));
    stream::select(events, driver)
}

async fn drive(state: Arc<WorkState>, inputs: Option<Inputs>, mut lost: mpsc::Receiver<LostJob>) {
    // Dropped with this future, which the end of the run and the drop of its stream have in common.
    let _watches = inputs.as_ref().map(Inputs::watch_guard);
    begin_inputs(&state, inputs).await;
    // One job waits for its fetch. The others stay in the store, where other workers can claim them.
    let (url_sender, mut urls) = mpsc::channel(1);
    let jobs = stream::unfold(Claims::new(state.clone(), url_sender), Claims::next);
    let mut options = state.options.runner.clone();
    let concurrent = options.concurrent.max(1);
    // The claims keep the number of large files.
    options.concurrent = concurrent + ahead_of(concurrent);
    let most_finishing = options.concurrent;
    // The claims end by themselves: a claim whose future is dropped has no holder until its lease runs out. Each job has a
    // shutdown of its own, to which the stages are forwarded.
    let never = Shutdown::new().signal();
    let mut events = Box::pin(run(jobs, &state.client, options, never));
    let mut shutdown = state.shutdown.clone();
    let mut background = Background::default();
    let mut is_over = false;
    // Kept over many events: each one is a call of the engine.
    let mut tick = Box::pin(state.client.pause(TICK));
    while !is_over || !background.is_empty() {
        tokio::select! {
            // In this order: a shutdown and a lost lease stop uploads at once, and ends are recorded before further
            // events, which could add to them.
            biased;
            stage = shutdown.changed() => {
                state.end_with(IngestEnd::Shutdown);
                forward(&state, stage);
            }
            Some((id, reason)) = lost.recv() => state.lose(&id, reason),
            () = background.advance() => {}
            Some(job) = urls.recv(), if background.fetching.len() < concurrent => {
                let state = state.clone();
                background.fetching.push(Box::pin(async move { fetch(&state, job).await }));
            }
            // Each end that is not recorded holds the lock of its journal entry.
            event = events.next(), if !is_over && background.finishing.len() < most_finishing => match event {
                Some(event) => {
                    let finish = background.beside(handle(&state, event)).await;
                    background.finishing.extend(finish);
                }
                None => is_over = true,
            },
            _ = &mut tick => {
                tick.set(state.client.pause(TICK));
                state.examiner.expire(Instant::now());
                background.beside(check_service(&state)).await;
            }
        }
        check_limits(&state);
        if state.cannot_record() {
            // The active chunks finish, and the next run goes on with the jobs.
            forward(&state, ShutdownStage::Stopping);
        }
    }
    end(&state).await;
}

/// Starts to submit the inputs, if there are any.
async fn begin_inputs(state: &WorkState, inputs: Option<Inputs>) {
    let Some(inputs) = inputs else { return state.set_inputs_read() };
    // Before the submission, whose jobs are open, too.
    announce_earlier_jobs(state).await;
    submitter::start(inputs, state.shared());
}

/// Publishes the end, after the last events and rows.
async fn end(state: &WorkState) {
    state.end_with(IngestEnd::Shutdown);
    if state.is_claiming.load(Ordering::Relaxed)
        && let Err(error) = release_unknown(state).await
    {
        // A job that was claimed last is not free before its lease ends.
        state.end_with(IngestEnd::Store(error));
    }
    orphans::examine_left(state).await;
    state.wait_for_inputs().await;
    report_deferred(state).await;
    state.finish_report().await;
    let end = state.take_end().unwrap_or(IngestEnd::Shutdown);
    state.emit(IngestEvent::Ended(end)).await;
}

/// Releases the jobs that this process has claimed and never begun: an error of every job drops the claim that is under way.
async fn release_unknown(state: &WorkState) -> Result<(), JobStoreError> {
    let mut query = JobQuery::default();
    (query.state, query.pool) = (Some(JobStateName::Running), Some(state.options.pool.clone()));
    loop {
        let page = state.store.list(query.clone()).await?;
        for job in page.jobs {
            let lease = job.record.lease(&job.spec.id).filter(|lease| lease.owner == state.options.owner);
            if let Some(lease) = lease {
                state.store.release(&lease, Duration::ZERO, state.now()).await?;
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(());
        }
    }
}

/// Publishes the number of jobs that earlier runs left open: this run uploads files that its inputs may not name.
async fn announce_earlier_jobs(state: &WorkState) {
    loop {
        match state.open_jobs().await {
            Ok(OpenJobs { queued: 0, .. }) => return,
            Ok(OpenJobs { queued, .. }) => {
                return state.emit(IngestEvent::EarlierJobs { jobs: queued }).await;
            }
            Err(error) if state.waits_for_store(&error).await => {}
            Err(error) => return state.end_with(IngestEnd::Store(error)),
        }
    }
}

/// Sends an event of an upload to the reader. Returns what is to be recorded in the store.
async fn handle(state: &Arc<WorkState>, event: RunnerEvent<Arc<IngestJob>>) -> Option<Finish> {
    let of_end = state.clone();
    match event {
        RunnerEvent::Started { key } => state.emit(IngestEvent::Started(key)).await,
        RunnerEvent::Progress { key, progress } => {
            state.advance(&key.job.spec.id, &progress);
            let checkpoint = checkpoint(state, &key, &progress);
            state.emit(IngestEvent::Progress(key, progress)).await;
            return checkpoint;
        }
        RunnerEvent::Upload { key, event } => {
            watch_service(state, &event);
            state.emit(IngestEvent::Upload(key, event)).await;
        }
        RunnerEvent::Done(done) => {
            state.service().answered();
            return Some(Box::pin(async move { finish::done(&of_end, *done).await }));
        }
        RunnerEvent::Failed(failed) => {
            match failed.error.kind() {
                // A disk may be silent, too.
                ErrorKind::Connect | ErrorKind::Unavailable => state.service().failed(boot_time()),
                _ if failed.error.refusal().is_some() => state.service().answered(),
                _ => {}
            }
            return Some(Box::pin(async move { finish::upload_failed(&of_end, *failed).await }));
        }
        RunnerEvent::NotStarted { key } => {
            return Some(Box::pin(async move { finish::release(&of_end, &key).await }));
        }
        _ => {}
    }
    None
}

/// Takes over an event of an upload that has or has not got an answer of the service.
fn watch_service(state: &WorkState, event: &UploadEvent) {
    match event {
        UploadEvent::Retry { why, .. } if finish::is_of_connection(why.kind) => {
            state.service().failed(boot_time());
        }
        UploadEvent::Retry { .. } | UploadEvent::ChunkDone { .. } => state.service().answered(),
        _ => {}
    }
}

/// Lets the jobs under way go if the service has not answered for too long: another host may reach it.
async fn check_service(state: &WorkState) {
    // On a queue of one host no other worker could reach the service.
    if state.options.shared_account.is_none() || state.is_ending() {
        return;
    }
    let (now, has_uploads) = (boot_time(), !state.active().is_empty());
    if !state.service().gives_up(now, has_uploads) {
        return;
    }
    let rest = state.service().rest(now).unwrap_or_default();
    let jobs = state.set_all_aside();
    state.emit(IngestEvent::ServiceAway { jobs, rest }).await;
}

/// Records the progress of a job, from which the store counts attempts without progress. The first checkpoint of a shared
/// queue names the video before it has any content: another worker that has created one, too, learns of this one by it.
fn checkpoint(state: &Arc<WorkState>, job: &Arc<IngestJob>, progress: &Progress) -> Option<Finish> {
    let (id, video_id) = (&job.job.spec.id, progress.video_id.as_deref()?);
    // A file of one chunk ends with its first progress: its end is the next write of the store.
    let has_more = progress.total_chunks != Some(1);
    let is_due =
        has_more && progress.acknowledged_bytes > 0 && state.is_checkpoint_due(id, BETWEEN_CHECKPOINTS);
    if !is_due && !state.is_unnamed(id) {
        return None;
    }
    let checkpoint = state.next_checkpoint(id, video_id, progress.acknowledged_bytes)?;
    let (state, job) = (state.clone(), job.clone());
    Some(Box::pin(async move {
        if let Err(error) = state.record_checkpoint(&job, checkpoint).await {
            // A lost lease is found by the renewal; the journal has the progress.
            tracing::debug!(id = %job.job.spec.id, %error, "a checkpoint was not recorded");
        }
    }))
}

/// Forwards a stage of the shutdown to the jobs under way.
fn forward(state: &WorkState, stage: ShutdownStage) {
    let now = Instant::now();
    for job in state.active().values_mut() {
        match stage {
            ShutdownStage::Running => {}
            ShutdownStage::Stopping => {
                // Without a grace of its own: the next stage of the run is forwarded, too.
                let _ = job.shutdown.stop(Duration::MAX, now);
            }
            _ => job.shutdown.cancel(now),
        }
    }
}

/// Ends the run when a limit is reached, and stops the uploads under way as the cutoff mode requires.
fn check_limits(state: &WorkState) {
    let IngestOptions { max_transfer, max_duration, cutoff, .. } = &state.options;
    let end = if max_transfer.is_some_and(|most| state.sent() >= most) {
        IngestEnd::MaxTransfer
    } else if max_duration.is_some_and(|longest| state.started.elapsed() >= longest) {
        IngestEnd::MaxDuration
    } else if state.is_at_max_errors() {
        IngestEnd::MaxErrors
    } else {
        return;
    };
    state.end_with(end);
    match cutoff {
        CutoffMode::Hard => forward(state, ShutdownStage::Cancelled),
        CutoffMode::Soft | CutoffMode::Cautious => state.cancel_unbegun(),
    }
}

/// The events that wait for the reader.
const QUEUE_LEN: usize = 64;

/// The precision of the limits of time.
const TICK: Duration = Duration::from_millis(200);

/// A checkpoint is one write of the store for each job under way.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(2);
