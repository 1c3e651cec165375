//! Handlers that receive and return file bytes.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::app_state::AppState;
use super::form::{self, UploadedFile};
use super::problem::ProblemDetails;
use super::query::QueryString;
use super::request_body::RequestBody;
use super::response::{ApiResponse, HandlerError, ResponseContent};
use super::rules::{self, UploadState};
use super::upload_registry::{self, AcceptedChunk};
use super::{clock, status, tokens, videos};

/// Handles `POST /videos/{videoId}/source`. A `videoId` field in the form has no effect.
pub(super) async fn upload_to_video(
    state: &Arc<AppState>,
    video_id: &str,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<ApiResponse, HandlerError> {
    let header = content_range(headers);
    // Refused before the body arrives. `store_chunk` checks again: another chunk may be stored meanwhile.
    state.uploads.check_header(&state.database, video_id, header.as_deref())?;
    let form = form::receive(body, headers, &state.files, &state.stats).await?;
    store_file(state, UploadTarget::Existing(video_id.to_owned()), header, form.file?).await
}

/// Handles `POST /upload?token=`: stores the file in the video that the form names, or in a new video titled
/// after the file.
pub(super) async fn upload_with_token(
    state: &Arc<AppState>,
    query: &QueryString,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<ApiResponse, HandlerError> {
    tokens::check(&state.database, query.get("token"))?;
    let header = content_range(headers);
    rules::check_delegated_header(header.as_deref())?;
    let form = form::receive(body, headers, &state.files, &state.stats).await?;
    if let Some(video_id) = form.video_id {
        state.uploads.check_header(&state.database, &video_id, header.as_deref())?;
        return store_file(state, UploadTarget::Existing(video_id), header, form.file?).await;
    }
    // Checked before a video exists, so that a refused first request leaves no video behind.
    let range = rules::check_header(&UploadState::default(), header.as_deref())?;
    let file = form.file?;
    rules::check_body(&UploadState::default(), range, file.writer.len())?;
    store_file(state, UploadTarget::New, header, file).await
}

/// Handles `GET /videos/{videoId}/status`.
pub(super) fn status(state: &AppState, video_id: &str) -> Result<ApiResponse, HandlerError> {
    let video = videos::existing(&state.database, video_id)?;
    let upload = state.uploads.state(&state.database, video_id)?;
    let complete_for = video.completed_ms.map(|completed_ms| {
        // A clock that was set back gives zero.
        Duration::from_millis(u64::try_from(clock::now_ms() - completed_ms).unwrap_or_default())
    });
    let document = status::document(&upload, complete_for, state.settings.ingest_delay);
    Ok(ApiResponse::json(StatusCode::OK, document))
}

/// Handles `GET` and `HEAD /videos/{videoId}/source`: returns the stored bytes and their SHA-256.
pub(super) async fn download(
    state: &Arc<AppState>,
    video_id: &str,
    method: &Method,
) -> Result<ApiResponse, HandlerError> {
    let upload = state.uploads.state(&state.database, video_id)?;
    if !has_file(&upload) {
        let detail = "The source of this video was not uploaded completely.";
        return Err(ProblemDetails::not_found("videoId").detail(detail).into());
    }
    let sha256 = {
        let (state, video_id, upload) = (state.clone(), video_id.to_owned(), upload.clone());
        let work = move || digest(&state, &video_id, &upload);
        spawn_blocking(work).await.map_err(ProblemDetails::server_error)??
    };
    let value = HeaderValue::from_str(&sha256).map_err(ProblemDetails::server_error)?;
    // HEAD has the headers of GET and no content (RFC 9110, section 9.3.2).
    let stream =
        (*method == Method::GET).then(|| state.files.read(video_id, upload_registry::chunks(&upload)));
    let content = ResponseContent::File(upload.received_bytes(), stream);
    Ok(ApiResponse { content, ..ApiResponse::empty(StatusCode::OK) }.with(CONTENT_SHA256, value))
}

/// The video that receives a file.
enum UploadTarget {
    Existing(String),
    /// A new video titled after the file; deleted again if the file cannot be stored.
    New,
}

/// Stores a received file on a blocking thread.
///
/// The work completes even if the client disconnects, because dropping the future does not stop the thread.
async fn store_file(
    state: &Arc<AppState>,
    target: UploadTarget,
    header: Option<String>,
    file: UploadedFile,
) -> Result<ApiResponse, HandlerError> {
    let state = state.clone();
    let work = move || match target {
        UploadTarget::Existing(video_id) => store_in_video(&state, &video_id, header.as_deref(), &file),
        UploadTarget::New => {
            let video = videos::create_titled(&state.database, &state.stats, &file.file_name)?;
            store_in_video(&state, &video.id, header.as_deref(), &file).inspect_err(|_| {
                // The first error is returned; an error of this clean-up would hide it.
                let _ = state.uploads.delete(&state.database, &state.files, &video.id);
            })
        }
    };
    spawn_blocking(work).await.map_err(ProblemDetails::server_error)?
}

fn store_in_video(
    state: &AppState,
    video_id: &str,
    header: Option<&str>,
    file: &UploadedFile,
) -> Result<ApiResponse, HandlerError> {
    let accepted =
        state.uploads.store_chunk(&state.database, &state.files, video_id, header, &file.writer)?;
    state.stats.count(|stats| stats.chunks_accepted += 1);
    match accepted {
        AcceptedChunk::Completing => {
            Ok(ApiResponse::json(StatusCode::CREATED, videos::existing(&state.database, video_id)?.json()?))
        }
        AcceptedChunk::Intermediate => {
            // `Server::start` has checked the status.
            let status = StatusCode::from_u16(state.settings.intermediate_status);
            Ok(ApiResponse::json(status.unwrap_or(StatusCode::CREATED), json!({"videoId": video_id})))
        }
    }
}

/// Returns the SHA-256 of a video's file; blocking. `None` if the file is not complete.
pub(super) fn sha256(state: &AppState, video_id: &str) -> Result<Option<String>, HandlerError> {
    let upload = state.uploads.state(&state.database, video_id)?;
    has_file(&upload).then(|| digest(state, video_id, &upload)).transpose()
}

/// Returns `true` if the whole file has arrived. A source that was given as a URL is complete without bytes.
fn has_file(upload: &UploadState) -> bool {
    upload.is_complete() && !upload_registry::chunks(upload).is_empty()
}

/// Returns the SHA-256 of a complete file. The first call reads the file and saves the digest.
fn digest(state: &AppState, video_id: &str, upload: &UploadState) -> Result<String, HandlerError> {
    if let Some(sha256) = state.database.sha256(video_id)? {
        return Ok(sha256);
    }
    let sha256 = state.files.digest(video_id, upload_registry::chunks(upload), &state.stopping)?;
    state.database.set_sha256(video_id, &sha256)?;
    Ok(sha256)
}

/// Returns the `Content-Range` header. A non-ASCII value becomes `?`, which is refused as malformed.
fn content_range(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_RANGE).map(|value| value.to_str().unwrap_or("?").to_owned())
}

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-content-sha256");
