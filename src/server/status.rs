//! How far a video is: what arrived, and the encoding that follows.
//!
//! Nothing is encoded. Stages pass by the clock, each as long as the ingest delay, so that a client that
//! waits has something to wait for.

use std::time::Duration;

use serde_json::{Value, json};

use super::rules::{Container, Origin, Received};

/// Where a video is on its way to playable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Uploading,
    Uploaded,
    Ingesting,
    Ingested,
    Encoding,
    Playable,
}

/// The status document; `complete_for` is the time since the last byte arrived.
pub(super) fn document(container: &Container, complete_for: Option<Duration>, delay: Duration) -> Value {
    let stage = stage(container, complete_for, delay);
    let ingest = match stage {
        Stage::Uploading => "uploading",
        Stage::Uploaded => "uploaded",
        Stage::Ingesting => "ingesting",
        _ => "ingested",
    };
    let (parts, total_parts) = received_parts(&container.received);
    json!({
        "ingest": {
            "status": ingest,
            "filesize": complete_for.map(|_| container.received_bytes()).filter(|len| *len > 0),
            "receivedBytes": received_bytes(&container.received),
            "receivedParts": {"parts": parts, "total": total_parts},
        },
        "encoding": {
            "playable": stage == Stage::Playable,
            "qualities": qualities(stage),
            "metadata": {
                "width": null, "height": null, "bitrate": null, "duration": null, "framerate": null,
                "samplerate": null, "videoCodec": null, "audioCodec": null, "aspectRatio": null,
            },
        },
    })
}

fn stage(container: &Container, complete_for: Option<Duration>, delay: Duration) -> Stage {
    let Some(complete_for) = complete_for else { return Stage::Uploading };
    let stages = [Stage::Uploading, Stage::Uploaded, Stage::Ingesting, Stage::Ingested, Stage::Encoding];
    // A source that the server fetches itself is never uploading.
    let first = if container.origin == Origin::Upload { 0 } else { 2 };
    match complete_for.as_nanos().checked_div(delay.as_nanos()) {
        None => Stage::Playable,
        Some(passed) => stages[first..].get(passed as usize).copied().unwrap_or(Stage::Playable),
    }
}

/// One entry for each chunk, in the order of the file.
fn received_bytes(received: &Received) -> Vec<Value> {
    match received {
        Received::Bytes { pieces, total } => pieces
            .iter()
            .map(|(from, len)| json!({"from": from, "to": from + len - 1, "total": total}))
            .collect(),
        _ => Vec::new(),
    }
}

fn received_parts(received: &Received) -> (Vec<u32>, Option<u32>) {
    match received {
        Received::Parts { pieces, total } => (pieces.keys().copied().collect(), *total),
        _ => (Vec::new(), None),
    }
}

fn qualities(stage: Stage) -> Vec<Value> {
    let status = match stage {
        Stage::Uploading | Stage::Uploaded | Stage::Ingesting => return Vec::new(),
        Stage::Ingested => "waiting",
        Stage::Encoding => "encoding",
        Stage::Playable => "encoded",
    };
    let hls = ["240p", "360p", "480p", "720p", "1080p"].map(|quality| ("hls", quality));
    let all = hls.into_iter().chain([("mp4", "1080p")]);
    all.map(|(kind, quality)| json!({"type": kind, "quality": quality, "status": status})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_has_arrived_at_first() {
        let status = document(&Container::default(), None, DELAY);
        assert_eq!(
            status["ingest"],
            json!({
                "status": "uploading", "filesize": null, "receivedBytes": [],
                "receivedParts": {"parts": [], "total": null},
            }),
        );
        assert_eq!(status["encoding"]["playable"], false);
    }

    #[test]
    fn stages_pass_one_by_one() {
        let mut container = Container::default();
        container.add(None, 7);
        let after = |ms| document(&container, Some(Duration::from_millis(ms)), DELAY);
        let statuses = [0, 1000, 2000, 3000].map(|ms| after(ms)["ingest"]["status"].clone());
        assert_eq!(statuses, ["uploading", "uploaded", "ingesting", "ingested"]);
        assert_eq!(after(3000)["encoding"]["qualities"][0]["status"], "waiting");
        assert_eq!(after(4000)["encoding"]["qualities"][0]["status"], "encoding");
        assert_eq!(after(5000)["encoding"]["playable"], true);
        assert_eq!(after(0)["ingest"]["filesize"], 7);
        let at_once = document(&container, Some(Duration::ZERO), Duration::ZERO);
        assert_eq!(at_once["encoding"]["playable"], true);
    }

    #[test]
    fn each_chunk_is_listed_in_the_order_of_the_file() {
        let mut container = Container::default();
        for header in ["bytes 10-19/30", "bytes 0-9/30"] {
            container.add(header.parse().ok(), 10);
        }
        let expected = json!([{"from": 0, "to": 9, "total": 30}, {"from": 10, "to": 19, "total": 30}]);
        assert_eq!(document(&container, None, DELAY)["ingest"]["receivedBytes"], expected);
        let mut container = Container::default();
        for header in ["part 2/*", "part 1/*"] {
            container.add(header.parse().ok(), 10);
        }
        let expected = json!({"parts": [1, 2], "total": null});
        assert_eq!(document(&container, None, DELAY)["ingest"]["receivedParts"], expected);
    }
}
