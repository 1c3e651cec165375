//! Handlers of videos: create, list, get, update.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::attributes;
use super::database::{Database, VideoRecord};
use super::pagination::PageRequest;
use super::problem::ProblemDetails;
use super::query::QueryString;
use super::response::{ApiResponse, HandlerError};
use super::rules::SourceOrigin;
use super::stats::StatsCollector;
use super::{clock, ids};

/// Handles `POST /videos`: 201, or 202 if the server would fetch or copy the source.
pub(super) fn create(
    database: &Database,
    stats: &StatsCollector,
    body: Value,
) -> Result<ApiResponse, HandlerError> {
    let attributes = attributes::for_new_video(body)?;
    let origin = match attributes.get("source").and_then(Value::as_str) {
        None => SourceOrigin::Upload,
        // The id of a video as the source asks for a copy (`POST /videos`, `source`).
        Some(source) if database.video(source)?.is_some() => SourceOrigin::Copy,
        Some(_) => SourceOrigin::Url,
    };
    let status = if origin == SourceOrigin::Upload { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let video = insert(database, stats, attributes, origin)?;
    Ok(ApiResponse::json(status, video.json()?))
}

/// Creates the video of a delegated upload, titled after the file.
pub(super) fn create_titled(
    database: &Database,
    stats: &StatsCollector,
    file_name: &str,
) -> Result<VideoRecord, HandlerError> {
    // Some clients send the whole path as the file name.
    let title = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let attributes = Map::from_iter([("title".to_owned(), title.into())]);
    insert(database, stats, attributes, SourceOrigin::Upload)
}

/// Handles `GET /videos/{videoId}`.
pub(super) fn get(database: &Database, id: &str) -> Result<ApiResponse, HandlerError> {
    Ok(ApiResponse::json(StatusCode::OK, existing(database, id)?.json()?))
}

/// Handles `PATCH /videos/{videoId}`.
pub(super) fn update(database: &Database, id: &str, body: Value) -> Result<ApiResponse, HandlerError> {
    let mut video = existing(database, id)?;
    video.attributes = attributes::apply_update(video.attributes, body)?;
    video.updated_ms = clock::now_ms();
    database.update_video(&video)?;
    Ok(ApiResponse::json(StatusCode::OK, video.json()?))
}

/// Handles `GET /videos`.
pub(super) fn list(database: &Database, query: &QueryString) -> Result<ApiResponse, HandlerError> {
    let page = PageRequest::from_query(query)?;
    let sort = query.word("sortBy", &["createdAt", "publishedAt", "updatedAt", "title"])?;
    let order = query.word("sortOrder", &["asc", "desc"])?;
    let mut videos = database.videos()?;
    videos.retain(|video| video.matches(query));
    match sort {
        "title" => videos.sort_by(|a, b| a.text("title").cmp(b.text("title"))),
        "updatedAt" => videos.sort_by_key(|video| video.updated_ms),
        // The database returns them in this order, and every video is published at its creation.
        _ => {}
    }
    if order == "desc" {
        videos.reverse();
    }
    page.response("/videos", &videos, VideoRecord::json)
}

/// Returns a video, or 404 if there is none with this id.
pub(super) fn existing(database: &Database, id: &str) -> Result<VideoRecord, HandlerError> {
    database.video(id)?.ok_or_else(|| ProblemDetails::not_found("videoId").into())
}

fn insert(
    database: &Database,
    stats: &StatsCollector,
    attributes: Map<String, Value>,
    origin: SourceOrigin,
) -> Result<VideoRecord, HandlerError> {
    let now_ms = clock::now_ms();
    // This server fetches and copies nothing: such a source is complete at once.
    let completed_ms = (origin != SourceOrigin::Upload).then_some(now_ms);
    let video = VideoRecord {
        id: ids::video_id()?,
        created_ms: now_ms,
        updated_ms: now_ms,
        attributes,
        completed_ms,
    };
    database.insert_video(&video, origin)?;
    stats.count(|stats| stats.videos_created += 1);
    Ok(video)
}

impl VideoRecord {
    /// Returns the video object: the defaults, the attributes that the client set, and the links.
    pub(super) fn json(&self) -> Result<Value, HandlerError> {
        let mut video = json!({
            "videoId": self.id,
            "description": null,
            "language": null,
            "languageOrigin": self.attributes.get("language").map(|_| "api"),
            "tags": [],
            "metadata": [],
            "public": true,
            "panoramic": false,
            "mp4Support": true,
            "discarded": false,
            "discardedAt": null,
            "deletesAt": null,
        });
        for (name, value) in &self.attributes {
            video[name] = value.clone();
        }
        // After the attributes, which must not replace them.
        video["createdAt"] = clock::format_date(self.created_ms).into();
        video["updatedAt"] = clock::format_date(self.updated_ms).into();
        video["publishedAt"] = clock::format_date(self.created_ms).into();
        video["source"] = json!({"uri": format!("/videos/{}/source", self.id)});
        video["assets"] = self.assets()?;
        Ok(video)
    }

    /// Returns the links. They exist from the creation on; those of a private video contain a new token each
    /// time.
    fn assets(&self) -> Result<Value, HandlerError> {
        let (path, query) = match self.attributes.get("public") {
            Some(Value::Bool(false)) => {
                let token = ids::uuid()?;
                (format!("{}/token/{token}", self.id), format!("?token={token}"))
            }
            _ => (self.id.clone(), String::new()),
        };
        let player = format!("https://embed.api.video/vod/{}{query}", self.id);
        let mut assets = json!({
            "iframe": format!(
                "<iframe src=\"{player}\" width=\"100%\" height=\"100%\" frameborder=\"0\" scrolling=\"no\" \
                 allowfullscreen=\"true\"></iframe>"
            ),
            "player": player,
            "hls": format!("https://cdn.api.video/vod/{path}/hls/manifest.m3u8"),
            "thumbnail": format!("https://cdn.api.video/vod/{path}/thumbnail.jpg"),
        });
        if self.attributes.get("mp4Support") != Some(&Value::Bool(false)) {
            assets["mp4"] = format!("https://cdn.api.video/vod/{path}/mp4/source.mp4").into();
        }
        Ok(assets)
    }

    fn matches(&self, query: &QueryString) -> bool {
        let contains = |name| query.get(name).is_none_or(|sought| self.text(name).contains(sought));
        contains("title")
            && contains("description")
            && query.list("tags").all(|tag| self.items("tags").any(|found| found == tag))
            && query
                .keyed("metadata")
                .all(|(key, value)| self.items("metadata").any(|pair| pair["key"] == key && pair["value"] == value))
            // This server has no live streams, so no video matches the id of one.
            && query.get("liveStreamId").is_none()
    }

    fn text(&self, name: &str) -> &str {
        self.attributes.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn items(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.attributes.get(name).and_then(Value::as_array).into_iter().flatten()
    }
}
