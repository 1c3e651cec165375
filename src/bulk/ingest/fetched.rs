//! Jobs whose URL the service fetches.

use serde::{Deserialize, Serialize};

use super::event::IngestEvent;
use super::finish;
use super::ingest_job::{FetchJob, IngestJob};
use super::state::WorkState;
use crate::bulk::job_state::{JobFailure, JobResult};
use crate::bulk::store::{JobCheckpoint, JobStoreError};
use crate::error::{Error, ErrorKind};
use crate::upload::FetchedState;

/// The content of a checkpoint: the video for a URL. Without a mark and a video nothing was created, or another attempt
/// needs another video.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct FetchCheckpoint {
    /// The mark of the video, recorded before its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_id: Option<String>,
}

/// The failure of an attempt.
enum FetchFailure {
    Service(Error),
    Store(JobStoreError),
}

/// Lets the service fetch the URL of a job, and ends the job.
pub(super) async fn fetch(state: &WorkState, fetched: FetchJob) {
    let FetchJob { job, shutdown } = fetched;
    state.emit(IngestEvent::Started(job.clone())).await;
    let fetched = tokio::select! {
        fetched = create_and_wait(state, &job) => fetched,
        // The service goes on with the fetch, and the next run waits for it.
        () = state.shutdown.requested() => return finish::release(state, &job).await,
        // The lease is lost, or a limit of the run is reached.
        () = shutdown.requested() => return finish::release(state, &job).await,
    };
    match fetched {
        Ok(video_id) => {
            finish::completed(state, &job, JobResult::new(video_id, 0), None, None).await;
        }
        // The run has ended with this error already.
        Err(FetchFailure::Service(error)) if is_of_every_job(&error) && state.is_ending() => {
            finish::release(state, &job).await;
        }
        Err(FetchFailure::Service(error)) if is_of_every_job(&error) => {
            finish::stopped(state, &job, error).await
        }
        Err(FetchFailure::Service(error)) => {
            let failure = JobFailure::from(&error);
            finish::failed(state, &job, failure, Some(error)).await;
        }
        Err(FetchFailure::Store(error)) => finish::ended_by_store(state, &job, error).await,
    }
}

fn is_of_every_job(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Untrusted => true,
        // A web application firewall may refuse one video by its description.
        ErrorKind::NotAuthorized => !error.is_from_intermediary(),
        _ => false,
    }
}

async fn create_and_wait(state: &WorkState, job: &IngestJob) -> Result<String, FetchFailure> {
    let content = job.job.checkpoint.as_deref();
    let known = content.and_then(|content| serde_json::from_str::<FetchCheckpoint>(content).ok());
    let FetchCheckpoint { mark, video_id } = known.unwrap_or_default();
    let video_id = match video_id {
        Some(video_id) => video_id,
        None => create(state, job, mark).await?,
    };
    let timeout = state.options.runner.wait_timeout;
    let until = if state.options.runner.wait_until_playable {
        FetchedState::Playable
    } else {
        FetchedState::Ingested
    };
    match state.client.wait_until_fetched(&video_id, until, timeout).await {
        Ok(()) => Ok(video_id),
        Err(error) => {
            // The video stays empty or is gone: a retry has to begin with another one.
            if matches!(error.kind(), ErrorKind::Refused | ErrorKind::NotFound) {
                // The number follows those of `create`, because the store ignores a lower one of the same lease.
                record(state, job, 3, FetchCheckpoint::default()).await?;
            }
            Err(FetchFailure::Service(error))
        }
    }
}

/// Creates the video of a URL once, though the process may die or the answer may be lost: the mark is recorded before the
/// request, and an attempt that finds a recorded mark searches for the video first.
async fn create(
    state: &WorkState,
    job: &IngestJob,
    recorded: Option<String>,
) -> Result<String, FetchFailure> {
    let may_exist = recorded.is_some();
    // 128 random bits, so that jobs of different hosts share no mark.
    let mark = recorded.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
    record(state, job, 1, FetchCheckpoint { mark: Some(mark.clone()), video_id: None }).await?;
    let video = job.job.spec.options.video.clone();
    let video_id = state.client.create_marked_video(video, mark.clone(), may_exist).await;
    let video_id = video_id.map_err(FetchFailure::Service)?;
    record(state, job, 2, FetchCheckpoint { mark: Some(mark), video_id: Some(video_id.clone()) }).await?;
    Ok(video_id)
}

/// Records a checkpoint of this lease durably. `number` counts the checkpoints of one attempt.
async fn record(
    state: &WorkState,
    job: &IngestJob,
    number: u64,
    content: FetchCheckpoint,
) -> Result<(), FetchFailure> {
    // Two texts always serialize.
    let content = serde_json::to_string(&content).unwrap_or_default();
    let checkpoint = JobCheckpoint::new(number, 0, content).durable();
    state.store.checkpoint(&job.lease(), checkpoint, state.now()).await.map_err(FetchFailure::Store)
}
