//! Jobs whose URL the service fetches.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::IngestEvent;
use super::finish;
use super::state::RunState;
use super::work::IngestJob;
use crate::bulk::job_state::{JobFailure, JobResult};
use crate::bulk::store::JobCheckpoint;
use crate::error::Result;
use crate::upload::FetchedState;

/// The content of a checkpoint: the video that was created for a URL.
#[derive(Debug, Serialize, Deserialize)]
struct FetchCheckpoint {
    video_id: String,
}

/// Lets the service fetch the URL of a job, and ends the job.
pub(super) async fn fetch(state: &RunState, job: Arc<IngestJob>) {
    state.emit(IngestEvent::Started(job.clone())).await;
    let fetched = tokio::select! {
        fetched = create_and_wait(state, &job) => fetched,
        // The service goes on with the fetch, and the next run waits for it.
        () = state.shutdown.requested() => return finish::release(state, &job).await,
    };
    match fetched {
        Ok(video_id) => {
            finish::completed(state, &job, JobResult::new(video_id, 0), None, None).await;
        }
        Err(error) => {
            let failure = JobFailure::from(&error);
            finish::failed(state, &job, failure, Some(error)).await;
        }
    }
}

async fn create_and_wait(state: &RunState, job: &IngestJob) -> Result<String> {
    let checkpoint = job.job.checkpoint.as_deref();
    let known = checkpoint.and_then(|content| serde_json::from_str::<FetchCheckpoint>(content).ok());
    let video_id = match known {
        Some(checkpoint) => checkpoint.video_id,
        None => {
            let video = state.client.create_video(job.job.spec.options.video.clone()).await?;
            record(state, job, &video.video_id).await;
            video.video_id
        }
    };
    let timeout = state.options.runner.wait_timeout;
    state.client.wait_until_fetched(&video_id, FetchedState::Ingested, timeout).await?;
    Ok(video_id)
}

/// Records the video durably: another attempt waits for it in place of creating a second one.
async fn record(state: &RunState, job: &IngestJob, video_id: &str) {
    let content = FetchCheckpoint { video_id: video_id.to_owned() };
    let Ok(content) = serde_json::to_string(&content) else { return };
    let checkpoint = JobCheckpoint::new(1, 0, content).durable();
    if let Err(error) = state.store.checkpoint(&job.lease, checkpoint, state.now()).await {
        // The end of the job meets the same error of the store.
        tracing::warn!(video_id, %error, "the video of a URL could not be recorded");
    }
}
