//! The calls of the service's API that a client makes on the driver's thread.
//!
//! Plain functions, because an async function without type parameters is compiled again in each program that calls it, here
//! with the retries, the requests and the answers.

#[cfg(feature = "bulk")]
use std::cell::Cell;
use std::future::ready;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;

use crate::api::{
    Api, NewVideo, Page, Secret, UploadToken, UploadTokenQuery, Video, VideoPatch, VideoQuery, VideoStatus,
};
use crate::engine::calls::with_logged_retries;
use crate::engine::control::Control;
use crate::engine::creation;
use crate::error::Result;
use crate::session::retry::RetryPolicy;

/// A call of the API, which the driver runs with its retry policy.
pub(super) type ApiCall<T> =
    Box<dyn FnOnce(Rc<Api<Control>>, RetryPolicy) -> LocalBoxFuture<'static, Result<T>> + Send>;

/// Returns a call that is repeated on temporary failures.
fn retried<T, F>(call: F) -> ApiCall<T>
where
    F: AsyncFn(&Api<Control>) -> Result<T> + Send + 'static,
{
    Box::new(move |api, policy| {
        Box::pin(async move { with_logged_retries(&policy, async || call(&api).await).await })
    })
}

/// Returns the driver's retry policy.
pub(super) fn retry_policy() -> ApiCall<RetryPolicy> {
    Box::new(|_, policy| Box::pin(ready(Ok(policy))))
}

/// Waits on the driver's timer.
pub(super) fn pause(duration: Duration) -> ApiCall<()> {
    Box::new(move |_, _| {
        Box::pin(async move {
            tokio::time::sleep(duration).await;
            Ok(())
        })
    })
}

pub(super) fn create_video(video: NewVideo) -> ApiCall<Video> {
    retried(async move |api| api.videos(Instant::now()).create(&video).await)
}

/// Looks for the video with `mark` before each creation that follows a failed one, and before the first if `may_exist`.
#[cfg(feature = "bulk")]
pub(super) fn create_marked_video(video: NewVideo, mark: String, may_exist: bool) -> ApiCall<String> {
    Box::new(move |api, policy| {
        Box::pin(async move {
            let may_exist = Cell::new(may_exist);
            let create = async || creation::create_or_find(&api, &video, &mark, &may_exist, &policy).await;
            with_logged_retries(&policy, create).await
        })
    })
}

pub(super) fn video(video_id: String) -> ApiCall<Video> {
    retried(async move |api| api.videos(Instant::now()).get(&video_id).await)
}

pub(super) fn videos(query: VideoQuery) -> ApiCall<Page<Video>> {
    retried(async move |api| api.videos(Instant::now()).list(&query).await)
}

pub(super) fn marked_video(mark: String) -> ApiCall<Option<String>> {
    retried(async move |api| creation::find(api, &mark, None).await)
}

#[cfg(feature = "bulk")]
pub(super) fn marked_videos(mark: String) -> ApiCall<Vec<Video>> {
    retried(async move |api| creation::marked(api, &mark).await)
}

/// Makes one attempt at a short list. Returns `true` for any answer of the service.
#[cfg(feature = "bulk")]
pub(super) fn is_service_reachable() -> ApiCall<bool> {
    // Without retries: the caller has pauses of its own.
    Box::new(|api, _| {
        Box::pin(async move {
            let query = VideoQuery { page_size: Some(1), ..VideoQuery::default() };
            let listed = api.videos(Instant::now()).list(&query).await;
            // A refusal is an answer, too, unless a gateway answers in place of the service.
            Ok(listed.map_or_else(|error| !error.is_temporary(), |_| true))
        })
    })
}

pub(super) fn update_video(video_id: String, patch: VideoPatch) -> ApiCall<Video> {
    retried(async move |api| api.videos(Instant::now()).update(&video_id, &patch).await)
}

pub(super) fn delete_video(video_id: String) -> ApiCall<()> {
    retried(async move |api| api.videos(Instant::now()).delete(&video_id).await)
}

pub(super) fn video_status(video_id: String) -> ApiCall<VideoStatus> {
    retried(async move |api| api.videos(Instant::now()).status(&video_id).await)
}

pub(super) fn create_upload_token(ttl: Option<Duration>) -> ApiCall<UploadToken> {
    retried(async move |api| api.upload_tokens(Instant::now()).create(ttl).await)
}

pub(super) fn upload_tokens(query: UploadTokenQuery) -> ApiCall<Page<UploadToken>> {
    retried(async move |api| api.upload_tokens(Instant::now()).list(&query).await)
}

pub(super) fn upload_token(token: Secret) -> ApiCall<UploadToken> {
    retried(async move |api| api.upload_tokens(Instant::now()).get(&token).await)
}

pub(super) fn delete_upload_token(token: Secret) -> ApiCall<()> {
    retried(async move |api| api.upload_tokens(Instant::now()).delete(&token).await)
}
