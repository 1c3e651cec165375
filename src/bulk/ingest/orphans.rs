//! Videos that were left beside the one of a job, because two workers created one at the same time.
//!
//! The record names the video that the holder of the job fills. A worker that has lost the job deletes its own video if
//! the record names another one, and the holder that completes the job deletes the others with its mark. Only an empty
//! video with the job's mark is deleted. Any other one is named in an event, and in the record until it is gone.

use std::sync::Arc;
use std::time::Duration;

use super::event::{IngestEvent, OrphanFate};
use super::ingest_job::{IngestJob, LeftVideo};
use super::state::WorkState;
use crate::api::ReceivedContent;
use crate::bulk::job::Job;
use crate::bulk::job_id::video_mark;
use crate::bulk::job_source::JobSource;
use crate::bulk::job_state::JobState;
use crate::bulk::store::JobStoreError;
use crate::error::{Error, ErrorKind};
use crate::upload::{ContainerGate, MARK_KEY};

/// Examines the videos of the jobs that this worker has lost since the last call.
///
/// Called between claims and at the end of a run. During an outage of the store the videos wait: the record decides.
pub(super) async fn examine_left(state: &WorkState) {
    while let Some(left) = state.next_left_video() {
        match state.store.get(&left.job.job.spec.id).await {
            Ok(record) => settle(state, left, record).await,
            Err(error) if state.is_ending() => return give_up(state, left, &error).await,
            Err(_) => return state.leave_video(left),
        }
    }
}

/// Deletes or names a video if the record names another one.
///
/// A record without a video decides nothing: its holder may be about to fill this one, which it finds by the mark. That
/// holder examines the others at its end.
async fn settle(state: &WorkState, left: LeftVideo, record: Option<Job>) {
    let LeftVideo { job, video_id } = left;
    let Some(record) = record else {
        let reason = "its job was forgotten".to_owned();
        return state.emit(IngestEvent::Orphan { job, video_id, fate: OrphanFate::Kept { reason } }).await;
    };
    let is_replaced = named_video(&record).is_some_and(|named| named != video_id);
    if is_replaced {
        settle_all(state, &job, vec![video_id]).await;
    }
}

/// Names the videos whose records cannot be read before the run ends.
async fn give_up(state: &WorkState, first: LeftVideo, error: &JobStoreError) {
    let mut next = Some(first);
    // Without further questions: each would wait for the store.
    while let Some(LeftVideo { job, video_id }) = next {
        let fate = OrphanFate::Unknown { reason: error.to_string() };
        state.emit(IngestEvent::Orphan { job, video_id, fate }).await;
        next = state.next_left_video();
    }
}

/// Examines the other videos of a job that is done in `video_id`: those with its mark, and those that were `recorded`
/// when the job ended.
pub(super) async fn examine_others(
    state: &WorkState,
    job: &Arc<IngestJob>,
    video_id: &str,
    recorded: Vec<String>,
) {
    let is_file = matches!(job.job.spec.source, JobSource::File { .. });
    let Some(mark) = mark_of(state, job).filter(|_| is_file) else { return };
    let found = match limited(state, state.client.marked_videos(mark)).await {
        Ok(found) => found.into_iter().map(|video| video.video_id),
        Err(error) => {
            tracing::warn!(%video_id, %error, "the other videos of a job could not be searched for");
            return;
        }
    };
    // A list may lag behind: the record has those that other workers have named.
    let mut others: Vec<String> = found.chain(recorded).filter(|other| other != video_id).collect();
    others.sort_unstable();
    others.dedup();
    if !others.is_empty() {
        settle_all(state, job, others).await;
    }
}

/// Deletes the videos that are empty and marked, names the others, and records both.
async fn settle_all(state: &WorkState, job: &Arc<IngestJob>, videos: Vec<String>) {
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    for video_id in videos {
        let fate = limited(state, delete_if_empty(state, job, &video_id)).await;
        // The video may be there: it is named rather than forgotten.
        let fate = fate.unwrap_or_else(|error| OrphanFate::Kept { reason: error.to_string() });
        match &fate {
            OrphanFate::Kept { .. } | OrphanFate::Unknown { .. } => found.push(video_id.clone()),
            OrphanFate::Deleted | OrphanFate::Gone => gone.push(video_id.clone()),
        }
        state.emit(IngestEvent::Orphan { job: job.clone(), video_id, fate }).await;
    }
    if let Err(error) = state.store.note_orphans(&job.job.spec.id, found, gone).await {
        tracing::warn!(%error, id = %job.job.spec.id, "the videos beside a job's own were not recorded");
    }
}

/// Deletes a video if it carries the mark of the job and the service has nothing of its content.
async fn delete_if_empty(state: &WorkState, job: &IngestJob, video_id: &str) -> Result<OrphanFate, Error> {
    let gone = |error: Error| match error.kind() {
        ErrorKind::NotFound => Ok(OrphanFate::Gone),
        _ => Err(error),
    };
    let video = match state.client.video(video_id).await {
        Ok(video) => video,
        Err(error) => return gone(error),
    };
    if !mark_of(state, job).is_some_and(|mark| video.has_metadata(MARK_KEY, &mark)) {
        let reason = "it does not carry the mark of its job".to_owned();
        return Ok(OrphanFate::Kept { reason });
    }
    let status = match state.client.video_status(video_id).await {
        Ok(status) => status,
        Err(error) => return gone(error),
    };
    if status.received() != ReceivedContent::Nothing || status.is_playable() {
        return Ok(OrphanFate::Kept { reason: "the service has content of it".to_owned() });
    }
    match state.client.delete_video(video_id).await {
        Ok(()) => Ok(OrphanFate::Deleted),
        Err(error) => gone(error),
    }
}

/// Limits requests to the service to the time of [`LONGEST_SETTLEMENT`]: a job that is done must not keep the next one
/// waiting for the repetitions of a request.
async fn limited<T>(state: &WorkState, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = request => done,
        paused = state.client.pause(LONGEST_SETTLEMENT) => {
            paused?;
            Err(Error::new(ErrorKind::Stalled, "examine a video that another one has replaced"))
        }
    }
}

fn mark_of(state: &WorkState, job: &IngestJob) -> Option<String> {
    let account = state.options.shared_account.as_ref()?;
    Some(video_mark(account, &job.job.spec.id, job.job.record.restarts))
}

/// Returns the question before a worker fills a video: the record has to name it, which only the holder of the job can
/// write. An answer of `false` leaves the video to [`examine_left`].
pub(super) fn gate(state: &Arc<WorkState>, job: &Arc<IngestJob>) -> ContainerGate {
    let (state, job) = (state.clone(), job.clone());
    ContainerGate::new(move |video_id| {
        let (state, job) = (state.clone(), job.clone());
        Box::pin(async move { name_video(&state, &job, &video_id).await })
    })
}

/// Names a video in the record of its job. Waits for a store that is away, until the lease is lost.
async fn name_video(state: &WorkState, job: &IngestJob, video_id: &str) -> bool {
    let id = &job.job.spec.id;
    loop {
        let Some(checkpoint) = state.next_checkpoint(id, video_id, 0) else { return false };
        match state.record_checkpoint(job, checkpoint).await {
            Ok(()) => return true,
            Err(JobStoreError::LeaseLost { .. }) => return false,
            Err(error) if state.lost(id).is_none() && state.waits_for_store(&error).await => {}
            Err(_) => return false,
        }
    }
}

/// Returns the video that the record of a job names.
pub(super) fn named_video(job: &Job) -> Option<String> {
    if let JobState::Done(result) = &job.record.state {
        return Some(result.video_id.clone());
    }
    job.checkpoint_video()
}

/// The longest time for the requests about one video.
const LONGEST_SETTLEMENT: Duration = Duration::from_secs(30);
