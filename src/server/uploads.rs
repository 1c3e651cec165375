//! The two ways in for file bytes, and the way out.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use rusqlite::{OptionalExtension, params};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::answer::{Answer, Content, Failure};
use super::containers::{self, Progress};
use super::form::{self, Upload};
use super::intake::Intake;
use super::problem::Problem;
use super::query::Query;
use super::rules::{self, Container};
use super::site::Site;
use super::{dates, status, tokens, videos};

/// `POST /videos/{videoId}/source`. A `videoId` in the form changes nothing here.
pub(super) async fn into_container(
    site: &Arc<Site>,
    video_id: &str,
    headers: &HeaderMap,
    intake: &mut Intake,
) -> Result<Answer, Failure> {
    let header = content_range(headers);
    site.containers.check_header(&site.store, video_id, header.as_deref())?;
    let form = form::receive(intake, headers, &site.shelves, &site.tallies).await?;
    deposit(site, Target::Existing(video_id.to_owned()), header, form.file?).await
}

/// `POST /upload?token=`: into the video of the form, or into a new one called after the file.
pub(super) async fn delegated(
    site: &Arc<Site>,
    query: &Query,
    headers: &HeaderMap,
    intake: &mut Intake,
) -> Result<Answer, Failure> {
    tokens::check(&site.store, query.get("token"))?;
    let header = content_range(headers);
    let form = form::receive(intake, headers, &site.shelves, &site.tallies).await?;
    if let Some(video_id) = form.video_id {
        site.containers.check_header(&site.store, &video_id, header.as_deref())?;
        return deposit(site, Target::Existing(video_id), header, form.file?).await;
    }
    // A refused first request must not leave a video behind.
    let range = rules::check_header(&Container::default(), header.as_deref())?;
    let upload = form.file?;
    rules::check_body(&Container::default(), range, upload.spool.len())?;
    deposit(site, Target::New, header, upload).await
}

/// `GET /videos/{videoId}/status`
pub(super) fn status(site: &Site, video_id: &str) -> Result<Answer, Failure> {
    let video = videos::existing(&site.store, video_id)?;
    let container = site.containers.snapshot(&site.store, video_id)?;
    let complete_for = video.completed_ms.map(|completed_ms| {
        Duration::from_millis(u64::try_from(dates::now_ms() - completed_ms).unwrap_or_default())
    });
    let document = status::document(&container, complete_for, site.settings.ingest_delay);
    Ok(Answer::json(StatusCode::OK, document))
}

/// `GET` and `HEAD /videos/{videoId}/source`: the stored bytes and their digest.
pub(super) async fn download(site: &Arc<Site>, video_id: &str, method: &Method) -> Result<Answer, Failure> {
    let container = site.containers.snapshot(&site.store, video_id)?;
    let pieces = containers::pieces(&container);
    if !container.is_complete() || pieces.is_empty() {
        let detail = "The source of this video was not uploaded completely.";
        return Err(Problem::not_found("videoId").detail(detail).into());
    }
    let sha256 = digest(site.clone(), video_id.to_owned(), container.clone()).await?;
    let value = HeaderValue::from_str(&sha256).map_err(Problem::server_error)?;
    let stream = (*method == Method::GET).then(|| site.shelves.read(video_id, pieces));
    let content = Content::File(container.received_bytes(), stream);
    Ok(Answer { content, ..Answer::empty(StatusCode::OK) }.with(CONTENT_SHA256, value))
}

/// Which video a file goes into.
enum Target {
    Existing(String),
    /// One called after the file; gone again when the file cannot be kept.
    New,
}

/// Runs to its end even when the client goes away: what was received whole is recorded whole.
async fn deposit(
    site: &Arc<Site>,
    target: Target,
    header: Option<String>,
    upload: Upload,
) -> Result<Answer, Failure> {
    let site = site.clone();
    let work = move || match target {
        Target::Existing(video_id) => record(&site, &video_id, header.as_deref(), &upload),
        Target::New => {
            let video = videos::create_titled(&site.store, &site.tallies, &upload.file_name)?;
            record(&site, &video.id, header.as_deref(), &upload).inspect_err(|_| {
                // What led here is the better answer than what might follow.
                let _ = site.containers.delete(&site.store, &site.shelves, &video.id);
            })
        }
    };
    spawn_blocking(work).await.map_err(Problem::server_error)?
}

fn record(site: &Site, video_id: &str, header: Option<&str>, upload: &Upload) -> Result<Answer, Failure> {
    let progress = site.containers.deposit(&site.store, &site.shelves, video_id, header, &upload.spool)?;
    site.tallies.count(|tally| tally.chunks_accepted += 1);
    match progress {
        Progress::Complete => {
            Ok(Answer::json(StatusCode::CREATED, videos::existing(&site.store, video_id)?.json()?))
        }
        Progress::Incomplete => {
            let status = StatusCode::from_u16(site.settings.intermediate_status);
            Ok(Answer::json(status.unwrap_or(StatusCode::CREATED), json!({"videoId": video_id})))
        }
    }
}

/// Reads the whole file once, then remembers.
async fn digest(site: Arc<Site>, video_id: String, container: Container) -> Result<String, Failure> {
    let work = move || {
        let known: Option<Option<String>> = site.store.with(|db| {
            db.query_row("SELECT sha256 FROM videos WHERE id = ?1", [&video_id], |row| row.get(0)).optional()
        })?;
        if let Some(Some(sha256)) = known {
            return Ok(sha256);
        }
        let sha256 = site.shelves.digest(&video_id, containers::pieces(&container), &site.stopping)?;
        site.store.with(|db| {
            db.execute("UPDATE videos SET sha256 = ?2 WHERE id = ?1", params![video_id, sha256])
        })?;
        Ok(sha256)
    };
    spawn_blocking(work).await.map_err(Problem::server_error)?
}

/// What is not text is no grammar either.
fn content_range(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_RANGE).map(|value| value.to_str().unwrap_or("?").to_owned())
}

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-content-sha256");
