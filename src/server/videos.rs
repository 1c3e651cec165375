//! Videos as a resource: create, list, get, update, delete.

use hyper::StatusCode;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Failure};
use super::attributes;
use super::list::Page;
use super::problem::Problem;
use super::query::Query;
use super::rules::Origin;
use super::store::Store;
use super::tally::Tallies;
use super::{dates, ids};

/// A video without its bytes.
pub(super) struct Video {
    pub(super) id: String,
    created_ms: i64,
    updated_ms: i64,
    pub(super) attributes: Map<String, Value>,
    pub(super) completed_ms: Option<i64>,
}

/// `POST /videos`: 201, or 202 where the server is to fetch or copy the source itself.
pub(super) fn create(store: &Store, tallies: &Tallies, body: Value) -> Result<Answer, Failure> {
    let attributes = attributes::created(body)?;
    let origin = match attributes.get("source").and_then(Value::as_str) {
        None => Origin::Upload,
        Some(source) if find(store, source)?.is_some() => Origin::Copy,
        Some(_) => Origin::Url,
    };
    let status = if origin == Origin::Upload { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let video = insert(store, tallies, attributes, origin)?;
    Ok(Answer::json(status, video.json()?))
}

/// The video that a delegated upload creates, called after its file.
pub(super) fn create_titled(store: &Store, tallies: &Tallies, file_name: &str) -> Result<Video, Failure> {
    // Some clients send the path as it was opened.
    let title = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let attributes = Map::from_iter([("title".to_owned(), title.into())]);
    insert(store, tallies, attributes, Origin::Upload)
}

/// `GET /videos/{videoId}`
pub(super) fn get(store: &Store, id: &str) -> Result<Answer, Failure> {
    Ok(Answer::json(StatusCode::OK, existing(store, id)?.json()?))
}

/// `PATCH /videos/{videoId}`
pub(super) fn update(store: &Store, id: &str, body: Value) -> Result<Answer, Failure> {
    let mut video = existing(store, id)?;
    video.attributes = attributes::updated(video.attributes, body)?;
    video.updated_ms = dates::now_ms();
    let text = Value::Object(video.attributes.clone()).to_string();
    store.with(|db| {
        db.execute(
            "UPDATE videos SET attributes = ?2, updated_ms = ?3 WHERE id = ?1",
            params![id, text, video.updated_ms],
        )
    })?;
    Ok(Answer::json(StatusCode::OK, video.json()?))
}

/// `GET /videos`
pub(super) fn list(store: &Store, query: &Query) -> Result<Answer, Failure> {
    let page = Page::of(query)?;
    let sort = query.word("sortBy", &["createdAt", "publishedAt", "updatedAt", "title"])?;
    let order = query.word("sortOrder", &["asc", "desc"])?;
    let mut videos = store.with(|db| {
        db.prepare(&format!("{SELECT} ORDER BY created_ms, rowid"))?
            .query_map([], Video::read)?
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    videos.retain(|video| video.matches(query));
    match sort {
        "title" => videos.sort_by(|a, b| a.text("title").cmp(b.text("title"))),
        "updatedAt" => videos.sort_by_key(|video| video.updated_ms),
        _ => {}
    }
    if order == "desc" {
        videos.reverse();
    }
    page.answer("/videos", &videos, Video::json)
}

/// The video, or 404.
pub(super) fn existing(store: &Store, id: &str) -> Result<Video, Failure> {
    find(store, id)?.ok_or_else(|| Problem::not_found("videoId").into())
}

fn find(store: &Store, id: &str) -> Result<Option<Video>, Failure> {
    Ok(store.with(|db| {
        db.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?.query_row([id], Video::read).optional()
    })?)
}

fn insert(
    store: &Store,
    tallies: &Tallies,
    attributes: Map<String, Value>,
    origin: Origin,
) -> Result<Video, Failure> {
    let now_ms = dates::now_ms();
    let completed_ms = (origin != Origin::Upload).then_some(now_ms);
    let video =
        Video { id: ids::video_id()?, created_ms: now_ms, updated_ms: now_ms, attributes, completed_ms };
    let text = Value::Object(video.attributes.clone()).to_string();
    store.with(|db| {
        db.execute(
            "INSERT INTO videos (id, created_ms, updated_ms, attributes, origin, completed_ms)
             VALUES (?1, ?2, ?2, ?3, ?4, ?5)",
            params![video.id, now_ms, text, origin.name(), completed_ms],
        )
    })?;
    tallies.count(|tally| tally.videos_created += 1);
    Ok(video)
}

impl Video {
    fn read(row: &Row<'_>) -> rusqlite::Result<Video> {
        let attributes: String = row.get(3)?;
        Ok(Video {
            id: row.get(0)?,
            created_ms: row.get(1)?,
            updated_ms: row.get(2)?,
            attributes: serde_json::from_str(&attributes).unwrap_or_default(),
            completed_ms: row.get(4)?,
        })
    }

    /// The video object: everything that was said about it, the defaults, and the links.
    pub(super) fn json(&self) -> Result<Value, Failure> {
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
        video["createdAt"] = dates::atom(self.created_ms).into();
        video["updatedAt"] = dates::atom(self.updated_ms).into();
        video["publishedAt"] = dates::atom(self.created_ms).into();
        video["source"] = json!({"uri": format!("/videos/{}/source", self.id)});
        video["assets"] = self.assets()?;
        Ok(video)
    }

    /// Links are there from the start; those of a private video carry a new token each time.
    fn assets(&self) -> Result<Value, Failure> {
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

    fn matches(&self, query: &Query) -> bool {
        let contains = |name| query.get(name).is_none_or(|sought| self.text(name).contains(sought));
        contains("title")
            && contains("description")
            && query.list("tags").all(|tag| self.items("tags").any(|found| found == tag))
            && query
                .keyed("metadata")
                .all(|(key, value)| self.items("metadata").any(|pair| pair["key"] == key && pair["value"] == value))
            // No video here comes from a live stream.
            && query.get("liveStreamId").is_none()
    }

    fn text(&self, name: &str) -> &str {
        self.attributes.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn items(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.attributes.get(name).and_then(Value::as_array).into_iter().flatten()
    }
}

const SELECT: &str = "SELECT id, created_ms, updated_ms, attributes, completed_ms FROM videos";
