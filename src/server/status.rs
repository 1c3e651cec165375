//! The status document of a video: the received chunks and the progress of encoding.
//!
//! The server encodes nothing. The stages follow the clock, each as long as the ingest delay, so that a
//! client can exercise its waiting.

use std::time::Duration;

use serde_json::{Value, json};

use super::rules::{ReceivedChunks, SourceOrigin, UploadState};

/// The processing stage of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ProcessingStage {
    Uploading,
    Uploaded,
    Ingesting,
    Ingested,
    Encoding,
    Playable,
}

/// Returns the status document. `complete_for` is the time since the last byte arrived; `None` while bytes
/// are missing.
pub(super) fn document(upload: &UploadState, complete_for: Option<Duration>, delay: Duration) -> Value {
    let stage = stage(upload, complete_for, delay);
    let ingest = match stage {
        ProcessingStage::Uploading => "uploading",
        ProcessingStage::Uploaded => "uploaded",
        ProcessingStage::Ingesting => "ingesting",
        _ => "ingested",
    };
    let (parts, total_parts) = received_parts(&upload.received);
    json!({
        "ingest": {
            "status": ingest,
            // `null` for a source that was not uploaded: there are no bytes of it here.
            "filesize": complete_for.map(|_| upload.received_bytes()).filter(|len| *len > 0),
            "receivedBytes": received_bytes(&upload.received),
            "receivedParts": {"parts": parts, "total": total_parts},
        },
        "encoding": {
            "playable": stage == ProcessingStage::Playable,
            "qualities": qualities(stage),
            "metadata": {
                "width": null, "height": null, "bitrate": null, "duration": null, "framerate": null,
                "samplerate": null, "videoCodec": null, "audioCodec": null, "aspectRatio": null,
            },
        },
    })
}

fn stage(upload: &UploadState, complete_for: Option<Duration>, delay: Duration) -> ProcessingStage {
    let Some(complete_for) = complete_for else { return ProcessingStage::Uploading };
    let stages = [
        ProcessingStage::Uploading,
        ProcessingStage::Uploaded,
        ProcessingStage::Ingesting,
        ProcessingStage::Ingested,
        ProcessingStage::Encoding,
    ];
    // A source that the server fetches or copies skips the upload stages.
    let first = if upload.origin == SourceOrigin::Upload { 0 } else { 2 };
    match complete_for.as_nanos().checked_div(delay.as_nanos()) {
        // A delay of zero has no stages.
        None => ProcessingStage::Playable,
        Some(passed) => stages[first..].get(passed as usize).copied().unwrap_or(ProcessingStage::Playable),
    }
}

/// Returns one entry per chunk, in file order.
fn received_bytes(received: &ReceivedChunks) -> Vec<Value> {
    match received {
        ReceivedChunks::Bytes { chunks, total } => chunks
            .iter()
            .map(|(from, len)| json!({"from": from, "to": from + len - 1, "total": total}))
            .collect(),
        _ => Vec::new(),
    }
}

fn received_parts(received: &ReceivedChunks) -> (Vec<u32>, Option<u32>) {
    match received {
        ReceivedChunks::Parts { chunks, total } => (chunks.keys().copied().collect(), *total),
        _ => (Vec::new(), None),
    }
}

fn qualities(stage: ProcessingStage) -> Vec<Value> {
    let status = match stage {
        ProcessingStage::Uploading | ProcessingStage::Uploaded | ProcessingStage::Ingesting => {
            return Vec::new();
        }
        ProcessingStage::Ingested => "waiting",
        ProcessingStage::Encoding => "encoding",
        ProcessingStage::Playable => "encoded",
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
    fn a_new_video_has_received_nothing() {
        let status = document(&UploadState::default(), None, DELAY);
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
    fn stages_follow_each_other_after_the_delay() {
        let mut upload = UploadState::default();
        upload.add(None, 7);
        let after = |ms| document(&upload, Some(Duration::from_millis(ms)), DELAY);
        let statuses = [0, 1000, 2000, 3000].map(|ms| after(ms)["ingest"]["status"].clone());
        assert_eq!(statuses, ["uploading", "uploaded", "ingesting", "ingested"]);
        assert_eq!(after(3000)["encoding"]["qualities"][0]["status"], "waiting");
        assert_eq!(after(4000)["encoding"]["qualities"][0]["status"], "encoding");
        assert_eq!(after(5000)["encoding"]["playable"], true);
        assert_eq!(after(0)["ingest"]["filesize"], 7);
        let at_once = document(&upload, Some(Duration::ZERO), Duration::ZERO);
        assert_eq!(at_once["encoding"]["playable"], true);
    }

    #[test]
    fn chunks_are_listed_in_file_order() {
        let mut upload = UploadState::default();
        for header in ["bytes 10-19/30", "bytes 0-9/30"] {
            upload.add(header.parse().ok(), 10);
        }
        let expected = json!([{"from": 0, "to": 9, "total": 30}, {"from": 10, "to": 19, "total": 30}]);
        assert_eq!(document(&upload, None, DELAY)["ingest"]["receivedBytes"], expected);
        let mut upload = UploadState::default();
        for header in ["part 2/*", "part 1/*"] {
            upload.add(header.parse().ok(), 10);
        }
        let expected = json!({"parts": [1, 2], "total": null});
        assert_eq!(document(&upload, None, DELAY)["ingest"]["receivedParts"], expected);
    }
}
