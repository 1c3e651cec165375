//! The ends of jobs: the store first, then the file, the report, and the journal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::deferred_jobs::defer;
use super::event::{IngestEnd, IngestEvent};
use super::ingest_job::IngestJob;
use super::job_rows::{cancelled_row, report, timed};
use super::leases::LossReason;
use super::orphans;
use super::shared::SharedState;
use super::state::{WorkState, with_failure};
use crate::bulk::after_action::{AfterAction, AfterActionError, AfterOutcome};
use crate::bulk::host_decline::REST_AFTER_DECLINE;
use crate::bulk::job_state::{JobEnd, JobFailure, JobResult, JobState};
use crate::bulk::lease::{Lease, LostLease};
use crate::bulk::report::{ReportRow, RowState};
use crate::bulk::runner::{DoneJob, FailedJob};
use crate::bulk::store::{JobStoreError, StoreFuture};
use crate::error::{Error, ErrorKind, Hint};
use crate::upload::Uploaded;

/// The effect of a failure on its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureVerdict {
    /// The attempt counts.
    Failed,
    /// A mount may be away: the job fails only after three tries a minute apart.
    Declined,
    /// The mount of this host may be away or another one: other hosts try at once.
    DeclinedByHost,
}

/// Ends an upload that the service has confirmed.
pub(super) async fn done(state: &WorkState, done: DoneJob<Arc<IngestJob>>) {
    let DoneJob { key: job, uploaded, sha256, receipt } = done;
    if let Some(failure) = wrong_digest(state, &job, &uploaded, sha256.as_deref()).await {
        failed(state, &job, failure, None).await;
        // The video is deleted or named in the failure: the journal must not answer the next attempt with it.
        return receipt.confirm();
    }
    let mut result = JobResult::new(&uploaded.video_id, uploaded.bytes);
    result.resent_bytes = uploaded.resent_bytes;
    result.chunks = uploaded.chunks;
    result.retries = uploaded.retries;
    let video_id = result.video_id.clone();
    state.saw_video(&job.job.spec.id, &video_id);
    if let Some(recorded) = completed(state, &job, result, Some(Box::new(uploaded)), sha256).await {
        // Not before the store has the end: until then the journal is what prevents a second video.
        receipt.confirm();
        orphans::examine_others(state, &job, &video_id, recorded).await;
    }
}

/// Records a success. Returns the videos that are recorded beside the job's own; `None` if the store does not have the
/// success.
pub(super) async fn completed(
    state: &WorkState,
    job: &Arc<IngestJob>,
    result: JobResult,
    uploaded: Option<Box<Uploaded>>,
    sha256: Option<String>,
) -> Option<Vec<String>> {
    let orphans = match record_success(state, job, &result).await {
        Ok(orphans) => orphans,
        Err(error) => {
            ended_by_store(state, job, error).await;
            return None;
        }
    };
    // After the store: a file that is moved or deleted cannot be uploaded again if the end is not on record.
    let after = apply_after(state, job).await;
    let mut row = row_of_success(state, job, &result);
    row.message = after.as_ref().err().map(ToString::to_string);
    // Before the row, so that the next claim does not wait for the disk of the report.
    state.finish(&job.job.spec.id);
    report(state, row).await;
    let job = job.clone();
    state.emit(IngestEvent::Done { job, result, uploaded, sha256, after }).await;
    Some(orphans)
}

fn row_of_success(state: &WorkState, job: &IngestJob, result: &JobResult) -> ReportRow {
    let mut row = timed(state, job, state.row(&job.job.spec.id, &job.job.spec.source, RowState::Done));
    row.video_id = Some(result.video_id.clone());
    (row.bytes, row.resent_bytes) = (result.bytes, result.resent_bytes);
    (row.chunks, row.retries) = (result.chunks, result.retries);
    row
}

/// Writes a success to the store. A claim of this process may replace the lease meanwhile, after a jump of the wall clock:
/// its answer brings the new lease.
async fn record_success(
    state: &WorkState,
    job: &Arc<IngestJob>,
    result: &JobResult,
) -> Result<Vec<String>, JobStoreError> {
    let mut waits = 0;
    loop {
        let lease = job.lease();
        let finish = || finish_in(state, &lease, result);
        let finished = state.persist(finish).await;
        match finished {
            Err(JobStoreError::LeaseLost { reason: LostLease::TakenOver { owner }, .. })
                if owner == state.options.owner && waits < MOST_WAITS =>
            {
                if job.lease() == lease {
                    waits += 1;
                    // With a client that has ended the attempts follow each other at once, and MOST_WAITS bounds them.
                    let _ = state.client.pause(BETWEEN_WAITS).await;
                }
            }
            finished => return finished,
        }
    }
}

fn finish_in<'a>(state: &'a WorkState, lease: &Lease, result: &JobResult) -> StoreFuture<'a, Vec<String>> {
    let (end, now) = (JobEnd::Done(result.clone()), state.now());
    if state.options.shared_account.is_some() {
        return state.store.finish_with_orphans(lease, end, now);
    }
    // On a queue of one host no other worker could have left a video.
    let finished = state.store.finish(lease, end, now);
    Box::pin(async move { finished.await.map(|()| Vec::new()) })
}

/// Ends a failed upload.
pub(super) async fn upload_failed(state: &WorkState, failed_job: FailedJob<Arc<IngestJob>>) {
    let FailedJob { key: job, error, finished, ends_run } = failed_job;
    if let Some(video_id) = error.video_id() {
        state.saw_video(&job.job.spec.id, video_id);
    }
    if error.kind() == ErrorKind::Cancelled {
        return release(state, &job).await;
    }
    if ends_run {
        return stopped(state, &job, error).await;
    }
    let failure = JobFailure::from(&error);
    // While no upload gets an answer, or another process holds the file or the journal, the job is not to blame.
    let is_without_service = state.service().is_failing() && is_of_connection(error.kind());
    if is_without_service || error.kind() == ErrorKind::Busy {
        let is_of_this_run = error.hint() == Some(Hint::OneAfterTheOther);
        let rest = if is_of_this_run { REST_BESIDE_ITSELF } else { REST_WITHOUT_BLAME };
        return set_aside(state, &job, failure, rest).await;
    }
    let is_permanent = failure.permanent;
    failed(state, &job, failure, Some(error)).await;
    // After a temporary failure the journal keeps the upload: the next attempt only repeats the step that failed.
    if let Some((_, receipt)) = finished.filter(|_| is_permanent) {
        receipt.confirm();
    }
}

/// Returns a job to the queue whose error concerns every job, and ends the run.
pub(super) async fn stopped(state: &WorkState, job: &Arc<IngestJob>, error: Error) {
    // The next run has another key or another endpoint: the job is not to blame, and stays in the queue.
    // The end comes first: this run would claim the job again.
    state.end_with(IngestEnd::Fatal(Box::new(error.clone())));
    let released = state.store.release(&job.lease(), Duration::ZERO, state.now()).await;
    if let Err(error) = released {
        return ended_by_store(state, job, error).await;
    }
    state.finish(&job.job.spec.id);
    let row = state.row(&job.job.spec.id, &job.job.spec.source, RowState::Cancelled);
    report(state, with_failure(timed(state, job, row), &JobFailure::from(&error))).await;
    state.emit(IngestEvent::Stopped { job: job.clone(), error: Box::new(error) }).await;
}

/// Records a failed attempt.
pub(super) async fn failed(
    state: &WorkState,
    job: &Arc<IngestJob>,
    failure: JobFailure,
    error: Option<Error>,
) {
    let verdict = verdict(state, job, &failure, error.as_ref()).await;
    // A permanent failure would end the job at once.
    let permanent = failure.permanent && verdict == FailureVerdict::Failed;
    let failure = JobFailure { permanent, ..failure };
    let now = state.now();
    let record = || {
        let (store, lease, failure) = (&state.store, job.lease(), failure.clone());
        match verdict {
            FailureVerdict::Failed => store.fail(&lease, failure, now),
            FailureVerdict::DeclinedByHost => store.decline_on_host(&lease, failure, now),
            FailureVerdict::Declined => store.decline(&lease, failure, now),
        }
    };
    let new = match state.persist(record).await {
        Ok(new) => new,
        Err(error) => return ended_by_store(state, job, error).await,
    };
    if let JobState::Queued { not_before } = new {
        let delay = match verdict {
            // The job waits only for this host.
            FailureVerdict::DeclinedByHost => REST_AFTER_DECLINE,
            _ => Duration::from_millis(not_before.get().saturating_sub(now.get())),
        };
        return defer(state, job, failure, delay).await;
    }
    match new {
        JobState::Failed(failure) => {
            state.finish(&job.job.spec.id);
            report_failure(state, job, &failure).await;
            count_failure(state);
            let (job, error) = (job.clone(), error.map(Box::new));
            state.emit(IngestEvent::Failed { job, failure, error }).await;
        }
        // Another state is the decision of a user, made meanwhile.
        other => {
            let reason = LostLease::Ended { state: other.name() };
            end_lost(state, job, LossReason::Refused(reason)).await;
        }
    }
}

/// Returns the effect of a failure on its job: a file that is missing here may be there with another mount.
async fn verdict(
    state: &WorkState,
    job: &IngestJob,
    failure: &JobFailure,
    error: Option<&Error>,
) -> FailureVerdict {
    let is_missing = failure.kind == ErrorKind::NoSuchFile.name();
    // With an error it is a change during the upload, and the bytes that were sent are of a file that is no more.
    let is_other_file = failure.kind == ErrorKind::SourceChanged.name() && error.is_none();
    let has_other_hosts = state.options.shared_account.is_some() && !job.job.spec.pool.is_of_one_host();
    if has_other_hosts && (is_missing || is_other_file) {
        FailureVerdict::DeclinedByHost
    } else if is_missing && !has_folder(state, job).await {
        // The folder is gone with the file.
        FailureVerdict::Declined
    } else {
        FailureVerdict::Failed
    }
}

/// Returns `true` if the folder of a job's file exists.
async fn has_folder(state: &WorkState, job: &IngestJob) -> bool {
    let Some(folder) = job.path().and_then(Path::parent).map(Path::to_owned) else { return true };
    // A disk that does not answer is treated like a mount that is away.
    state.examiner.ask(move || folder.exists()).await.unwrap_or(false)
}

/// Returns `true` if the kind of error is one of a service that cannot be reached.
pub(super) fn is_of_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Connect | ErrorKind::Stalled | ErrorKind::Unavailable)
}

/// Returns a job to the queue for other workers, without counting an attempt.
async fn set_aside(state: &WorkState, job: &Arc<IngestJob>, failure: JobFailure, delay: Duration) {
    let set_aside = || state.store.set_aside(&job.lease(), failure.clone(), delay, state.now());
    let released = state.persist(set_aside).await;
    if let Err(error) = released {
        return ended_by_store(state, job, error).await;
    }
    defer(state, job, failure, delay).await;
}

/// Returns a job to the queue, because the run ends or gives the job up. A job whose lease is lost is left alone.
pub(super) async fn release(state: &WorkState, job: &Arc<IngestJob>) {
    let id = &job.job.spec.id;
    if let Some(reason) = state.lost(id) {
        return end_lost(state, job, reason).await;
    }
    if state.is_set_aside(id) {
        let failure = JobFailure::temporary("unavailable", "the service does not answer this worker");
        return set_aside(state, job, failure, Duration::ZERO).await;
    }
    let released = state.store.release(&job.lease(), Duration::ZERO, state.now()).await;
    if let Err(error) = released {
        return ended_by_store(state, job, error).await;
    }
    state.finish(&job.job.spec.id);
    report(state, cancelled_row(state, job)).await;
    state.emit(IngestEvent::Cancelled(job.clone())).await;
}

/// Counts a failed job, and ends the run at its limit.
pub(super) fn count_failure(state: &SharedState) {
    state.failed_jobs.fetch_add(1, Ordering::Relaxed);
    // At once, so that no further job is claimed. The driver stops the uploads under way.
    if state.is_at_max_errors() {
        state.end_with(IngestEnd::MaxErrors);
    }
}

/// Ends a job whose lease is lost. Another worker that has the job writes its row; a job that a user has cancelled has
/// no other worker.
async fn end_lost(state: &WorkState, job: &Arc<IngestJob>, reason: LossReason) {
    // Before the end: the video is forgotten with the job.
    let video_id = state.video_of(job);
    state.finish_lost(job);
    let is_cancelled = reason.is_cancellation();
    if is_cancelled {
        let row = cancelled_row(state, job);
        report(state, ReportRow { message: Some(reason.to_string()), video_id: video_id.clone(), ..row })
            .await;
    }
    let (job, reason) = (job.clone(), reason.to_string());
    state.emit(IngestEvent::Lost { job, reason, is_cancelled, video_id }).await;
}

/// Ends a job whose end the store did not take.
pub(super) async fn ended_by_store(state: &WorkState, job: &Arc<IngestJob>, error: JobStoreError) {
    match error {
        // The store's answer is newer than the reason of a job that was given up while the store was silent.
        JobStoreError::LeaseLost { reason, .. } => end_lost(state, job, LossReason::Refused(reason)).await,
        error => {
            state.finish(&job.job.spec.id);
            // The lease of a job that is not released runs out by itself: no reason to end a run that waits for the store.
            if !state.waits_for_store(&error).await {
                state.end_with(IngestEnd::Store(error));
            }
            report(state, cancelled_row(state, job)).await;
            state.emit(IngestEvent::Cancelled(job.clone())).await;
        }
    }
}

async fn report_failure(state: &WorkState, job: &IngestJob, failure: &JobFailure) {
    let row = state.row(&job.job.spec.id, &job.job.spec.source, RowState::Failed);
    report(state, with_failure(timed(state, job, row), failure)).await;
}

/// Compares the digest of a manifest with that of the file. A video with other bytes is deleted if this job created it.
async fn wrong_digest(
    state: &WorkState,
    job: &IngestJob,
    uploaded: &Uploaded,
    found: Option<&str>,
) -> Option<JobFailure> {
    let expected = job.job.spec.sha256.as_deref()?;
    if found.is_some_and(|found| found.eq_ignore_ascii_case(expected)) {
        return None;
    }
    let video_id = &uploaded.video_id;
    // The holder of an upload token has no right to delete the video that was created with it.
    let is_created = job.job.spec.options.video_id.is_none() && job.job.spec.token_sha256.is_none();
    // A video of an earlier run may be in use, and the error may be in the manifest or the file.
    let is_own = is_created && !uploaded.already;
    let deleted = is_own && state.client.delete_video(video_id).await.is_ok();
    let fate = if deleted {
        format!("video {video_id} is deleted")
    } else {
        format!("video {video_id} has the wrong bytes, and stays: delete it")
    };
    let found = found.unwrap_or("unknown");
    let message = format!("the SHA-256 of the file is {found}, and the manifest has {expected}; {fate}");
    let mut failure = JobFailure::permanent("mismatch", message);
    failure.video_id = (!deleted).then(|| video_id.clone());
    Some(failure)
}

/// Carries out the action on a file, on a thread of its own: a move to another file system copies.
async fn apply_after(state: &WorkState, job: &IngestJob) -> Result<AfterOutcome, AfterActionError> {
    let (Some(path), Some(stamp)) = (job.path(), job.stamp) else { return Ok(AfterOutcome::Kept) };
    if state.options.after == AfterAction::Keep {
        return Ok(AfterOutcome::Kept);
    }
    let (path, after) = (path.to_owned(), state.options.after.clone());
    let (sender, answer) = oneshot::channel();
    let missing = AfterActionError::Missing { path: path.clone() };
    let act = move || drop(sender.send(after.apply(&path, &stamp)));
    let thread = std::thread::Builder::new().name("ringlift-after".to_owned()).spawn(act);
    match thread {
        Ok(_) => answer.await.unwrap_or(Err(missing)),
        // The next run makes the action good.
        Err(source) => {
            let path = job.path().unwrap_or(Path::new("")).to_owned();
            Err(AfterActionError::Io { path, doing: "start a thread for", source })
        }
    }
}

/// The answer to a claim that the store has carried out is on its way.
const BETWEEN_WAITS: Duration = Duration::from_millis(20);
const MOST_WAITS: u32 = 250;

/// The wait of a job that is not to blame for its failure: as long as the first wait after a failed attempt.
const REST_WITHOUT_BLAME: Duration = Duration::from_secs(30);

/// The rest of a job whose file another job of this run uploads by another name. The run waits for it: a longer rest would
/// end the run once nothing else is left.
const REST_BESIDE_ITSELF: Duration = Duration::from_secs(2);
