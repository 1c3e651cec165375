//! The service's answers that uploads need.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ringlift::internals::ContentRange;
use serde_json::{Value, json};

use super::http::{Answer, Head};

/// The videos and their received chunks.
#[derive(Default)]
pub(crate) struct Service {
    videos: Mutex<HashMap<String, Received>>,
    ids_issued: AtomicU64,
}

/// The received chunks of one file.
#[derive(Default)]
struct Received {
    pieces: HashSet<u64>,
    bytes: u64,
    complete: bool,
}

impl Service {
    pub(crate) fn answer(&self, head: &Head) -> Answer {
        let (path, _) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
        match (head.method.as_str(), steps.as_slice()) {
            ("POST", ["videos"]) => created(&video(&self.next_video_id())),
            ("POST", ["videos", id, "source"]) => created(&self.receive(id, head)),
            ("POST", ["upload"]) => created(&self.receive(&self.next_video_id(), head)),
            ("POST", ["auth", _]) => ok(&tokens()),
            ("GET", ["videos", id, "status"]) => ok(&self.status(id)),
            ("GET" | "PATCH", ["videos", id]) => ok(&video(id)),
            ("DELETE", ["videos", _]) => Answer { status: "204 No Content", body: String::new() },
            ("POST", ["raw"]) => created(&json!({})),
            _ => Answer { status: "404 Not Found", body: problem(&head.target).to_string() },
        }
    }

    fn next_video_id(&self) -> String {
        format!("vi{:022}", self.ids_issued.fetch_add(1, Ordering::Relaxed))
    }

    fn receive(&self, id: &str, head: &Head) -> Value {
        let mut videos = self.videos.lock().unwrap_or_else(PoisonError::into_inner);
        let received = videos.entry(id.to_owned()).or_default();
        received.take(head.content_range.as_deref().and_then(|range| range.parse().ok()));
        match received.complete {
            true => video(id),
            false => json!({ "videoId": id }),
        }
    }

    fn status(&self, id: &str) -> Value {
        let videos = self.videos.lock().unwrap_or_else(PoisonError::into_inner);
        let (complete, bytes) = videos.get(id).map_or((false, 0), |video| (video.complete, video.bytes));
        let ingest = if complete { "uploaded" } else { "uploading" };
        json!({
            "ingest": { "status": ingest, "filesize": bytes, "receivedBytes": [] },
            "encoding": { "playable": complete, "qualities": [], "metadata": {} },
        })
    }
}

impl Received {
    fn take(&mut self, range: Option<ContentRange>) {
        match range {
            None => self.complete = true,
            Some(ContentRange::Bytes { extent, total }) => {
                if self.pieces.insert(extent.offset()) {
                    self.bytes += extent.len();
                }
                self.complete |= total == Some(self.bytes);
            }
            Some(ContentRange::Part { number, total }) => {
                self.pieces.insert(u64::from(number));
                self.complete |= total.map(|total| total as usize) == Some(self.pieces.len());
            }
        }
    }
}

fn video(id: &str) -> Value {
    json!({
        "videoId": id,
        "title": "a movie",
        "createdAt": "2024-07-14T23:36:07+00:00",
        "publishedAt": "2024-07-14T23:36:07+00:00",
        "updatedAt": "2024-07-14T23:36:07+00:00",
        "tags": [],
        "metadata": [],
        "public": true,
        "panoramic": false,
        "mp4Support": true,
        "source": { "type": "upload", "uri": format!("/videos/{id}/source") },
        "assets": {
            "player": format!("https://embed.api.video/vod/{id}"),
            "hls": format!("https://cdn.api.video/vod/{id}/hls/manifest.m3u8"),
            "mp4": format!("https://cdn.api.video/vod/{id}/mp4/source.mp4"),
        },
    })
}

fn tokens() -> Value {
    json!({ "token_type": "Bearer", "expires_in": 3600, "access_token": "a", "refresh_token": "r" })
}

fn problem(target: &str) -> Value {
    json!({
        "type": "https://docs.api.video/reference/resource-not-found",
        "title": "The requested resource was not found.",
        "name": target,
        "status": 404,
    })
}

fn ok(body: &Value) -> Answer {
    Answer { status: "200 OK", body: body.to_string() }
}

fn created(body: &Value) -> Answer {
    Answer { status: "201 Created", body: body.to_string() }
}
