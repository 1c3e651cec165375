//! The upload and encoding status of a video.

use http::Method;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::de::{
    boolean_or_false, default_on_error, float, integer, items, number, object, shown, skip_unreadable, text,
};
use super::exchange::Exchange;
use super::videos::Videos;
use super::videos::about;
use crate::error::Result;

/// The upload and encoding status of a video.
///
/// `GET /videos/{videoId}/status`, <https://docs.api.video/vod/show-video-upload-status>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VideoStatus {
    /// The received data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Ingest>,
    /// The encoding.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// The received data of a video.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Ingest {
    /// The progress. Lags behind the answer to the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<IngestStatus>,
    /// The length of the file in bytes; `None` until the file is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesize: Option<u64>,
    /// The chunks of an upload by byte ranges, in any order, not merged.
    pub received_bytes: Vec<ReceivedRange>,
    /// The chunks of an upload by parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_parts: Option<ReceivedParts>,
}

/// An [`Ingest`] with the chunks not parsed yet.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIngest {
    #[serde(default, deserialize_with = "default_on_error")]
    status: Option<IngestStatus>,
    #[serde(default, deserialize_with = "number")]
    filesize: Option<u64>,
    #[serde(default)]
    received_bytes: Value,
    #[serde(default)]
    received_parts: Value,
}

/// Chunks that cannot be read are an error, because chunks that count as absent are sent again. Once the file is
/// complete, they are not needed.
impl<'de> Deserialize<'de> for Ingest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Ingest, D::Error> {
        let raw = match Value::deserialize(deserializer)? {
            object @ Value::Object(_) => RawIngest::deserialize(object).map_err(D::Error::custom)?,
            // PHP writes an object without keys as a list.
            Value::Array(list) if list.is_empty() => RawIngest::default(),
            other => return Err(D::Error::custom(format!("ingest is {}, not an object", shown(&other)))),
        };
        let is_whole = raw.status.as_ref().is_some_and(IngestStatus::is_whole);
        let (ranges, parts) = (ranges(raw.received_bytes), parts(raw.received_parts));
        let (received_bytes, received_parts) = if is_whole {
            (ranges.unwrap_or_default(), parts.unwrap_or_default())
        } else {
            (ranges.map_err(D::Error::custom)?, parts.map_err(D::Error::custom)?)
        };
        Ok(Ingest { status: raw.status, filesize: raw.filesize, received_bytes, received_parts })
    }
}

fn ranges(value: Value) -> std::result::Result<Vec<ReceivedRange>, String> {
    let wrong = |value| format!("ingest.receivedBytes is {}, not a list", shown(&value));
    let range = |(index, item): (usize, Value)| {
        let bound = |name: &str| {
            let value = item.get(name).unwrap_or(&Value::Null);
            integer(value).ok_or_else(|| {
                format!("ingest.receivedBytes[{index}].{name} is {}, not a number", shown(value))
            })
        };
        let total = item.get("total").and_then(integer);
        Ok(ReceivedRange { from: bound("from")?, to: bound("to")?, total })
    };
    items(value).map_err(wrong)?.into_iter().enumerate().map(range).collect()
}

fn parts(value: Value) -> std::result::Result<Option<ReceivedParts>, String> {
    let (listed, total) = match value {
        Value::Null => return Ok(None),
        // PHP writes an object without keys as an empty list.
        Value::Array(list) if list.is_empty() => return Ok(None),
        list @ Value::Array(_) => (list, None),
        Value::Object(mut object) => {
            (object.remove("parts").unwrap_or_default(), object.get("total").and_then(integer))
        }
        other => return Err(format!("ingest.receivedParts is {}, not an object", shown(&other))),
    };
    let wrong = |listed| format!("ingest.receivedParts.parts is {}, not a list", shown(&listed));
    let part = |(index, item): (usize, Value)| {
        integer(&item)
            .ok_or_else(|| format!("ingest.receivedParts.parts[{index}] is {}, not a number", shown(&item)))
    };
    let parts: std::result::Result<_, String> =
        items(listed).map_err(wrong)?.into_iter().enumerate().map(part).collect();
    Ok(Some(ReceivedParts { parts: parts?, total }))
}

/// The progress of receiving a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IngestStatus {
    /// Nothing was sent yet. Only an older service sends this.
    Missing,
    /// A part of the file has arrived.
    Uploading,
    /// The file is complete.
    Uploaded,
    /// The file is complete and is being inspected.
    Ingesting,
    /// The file is complete and was inspected.
    Ingested,
    /// A value that this version does not list.
    #[serde(untagged)]
    Unknown(String),
}

/// A byte range that has arrived, with both ends inclusive, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReceivedRange {
    /// The first byte, counted from 0.
    pub from: u64,
    /// The last byte.
    pub to: u64,
    /// The length of the whole file in bytes, if the upload stated it.
    pub total: Option<u64>,
}

/// The parts that have arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedParts {
    /// The numbers of the parts, counted from 1.
    pub parts: Vec<u32>,
    /// The number of parts of the whole file, if the upload stated it.
    pub total: Option<u32>,
}

/// The content of a file that the service holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivedContent<'a> {
    /// Nothing, or nothing that the status lists.
    Nothing,
    /// These byte ranges.
    Ranges(&'a [ReceivedRange]),
    /// These parts.
    Parts(&'a ReceivedParts),
    /// The whole file.
    Everything,
}

/// The encoding of a video.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Encoding {
    /// `true` if at least one quality is playable.
    #[serde(default, deserialize_with = "boolean_or_false")]
    pub playable: bool,
    /// The qualities, finished or not.
    #[serde(default, deserialize_with = "skip_unreadable")]
    pub qualities: Vec<Quality>,
    /// The properties of the file.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<EncodingMetadata>,
}

/// One quality of a video.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Quality {
    /// `hls` or `mp4`.
    #[serde(rename = "type", default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `240p` to `2160p`.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// The progress.
    #[serde(default, deserialize_with = "default_on_error", skip_serializing_if = "Option::is_none")]
    pub status: Option<QualityStatus>,
}

/// The progress of encoding one quality.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum QualityStatus {
    /// Not begun.
    Waiting,
    /// Begun.
    Encoding,
    /// Done.
    Encoded,
    /// Failed.
    Failed,
    /// A value that this version does not list.
    #[serde(untagged)]
    Unknown(String),
}

/// The properties of a video file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EncodingMetadata {
    /// The width in pixels.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub width: Option<u64>,
    /// The height in pixels.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// The bit rate, in kilobits per second.
    #[serde(default, deserialize_with = "float", skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<f64>,
    /// The duration in seconds.
    #[serde(default, deserialize_with = "float", skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Frames per second.
    #[serde(default, deserialize_with = "float", skip_serializing_if = "Option::is_none")]
    pub framerate: Option<f64>,
    /// Audio samples per second.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub samplerate: Option<u64>,
    /// The video codec.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub video_codec: Option<String>,
    /// The audio codec.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub audio_codec: Option<String>,
    /// `16/9` or `16:9`.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub aspect_ratio: Option<String>,
}

impl<E: Exchange> Videos<'_, E> {
    /// Fetches the upload and encoding status of the video `video_id`.
    ///
    /// # Errors
    /// The same as those of [`get`](Videos::get). An answer with neither status is malformed.
    pub(crate) async fn status(&self, video_id: &str) -> Result<VideoStatus> {
        let call = about("read the status of", video_id, Method::GET, "/status")?;
        let status: VideoStatus = self.ask(&call).await?;
        // Every field is optional, so any JSON object can be read. One without both is another program's.
        if status == VideoStatus::default() {
            return Err(call.malformed().because("the answer has neither `ingest` nor `encoding`"));
        }
        Ok(status)
    }
}

impl VideoStatus {
    /// Returns the content that the service holds, as far as the status lists it.
    pub fn received(&self) -> ReceivedContent<'_> {
        self.ingest.as_ref().map_or(ReceivedContent::Nothing, Ingest::received)
    }

    /// Returns `true` if at least one quality is playable.
    pub fn is_playable(&self) -> bool {
        self.encoding.as_ref().is_some_and(|encoding| encoding.playable)
    }
}

impl IngestStatus {
    fn is_whole(&self) -> bool {
        use IngestStatus::{Ingested, Ingesting, Uploaded};
        matches!(self, Uploaded | Ingesting | Ingested)
    }
}

impl Ingest {
    fn received(&self) -> ReceivedContent<'_> {
        if self.status.as_ref().is_some_and(IngestStatus::is_whole) {
            return ReceivedContent::Everything;
        }
        // The service refuses ranges and parts in one video, so that one of the lists is empty.
        match &self.received_parts {
            _ if !self.received_bytes.is_empty() => ReceivedContent::Ranges(&self.received_bytes),
            Some(received) if !received.parts.is_empty() => ReceivedContent::Parts(received),
            _ => ReceivedContent::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;
    use crate::api::Credentials;
    use crate::api::scripted::{ScriptedServer, response, start};
    use crate::error::ErrorKind;

    fn ingest(ingest: Value) -> VideoStatus {
        from_value(json!({ "ingest": ingest })).unwrap()
    }

    #[tokio::test]
    async fn the_services_example_is_read_and_written_with_its_names() {
        let described = json!({
            "ingest": {
                "status": "uploading", "filesize": 30_000_000_000_u64,
                "receivedBytes": [{"from": 0, "to": 104_857_599, "total": 281_905_832}],
                "receivedParts": {"parts": [], "total": null},
            },
            "encoding": {
                "playable": true,
                "qualities": [{"type": "hls", "quality": "240p", "status": "encoded"}, {"quality": "360p", "status": "waiting"}],
                "metadata": {
                    "width": 424, "height": 240, "bitrate": 411.218, "duration": 4176.5, "framerate": 24.5,
                    "samplerate": 48000, "videoCodec": "h264", "audioCodec": "aac", "aspectRatio": "16/9",
                },
            },
        });
        let service = ScriptedServer::new([response(200, &described)]).await;
        let status = service.api(Credentials::None).videos(start()).status("vi1").await.unwrap();
        assert_eq!(service.lines(), ["GET /videos/vi1/status"]);
        assert!(status.is_playable());
        let range = ReceivedRange { from: 0, to: 104_857_599, total: Some(281_905_832) };
        assert_eq!(status.received(), ReceivedContent::Ranges(&[range]));
        assert_eq!(to_value(&status).unwrap(), described);
    }

    #[test]
    fn what_the_service_holds_is_told_in_one_word() {
        let parts = json!({"status": "uploading", "receivedBytes": [], "receivedParts": {"parts": [1, 3], "total": 3}});
        let held = ReceivedParts { parts: vec![1, 3], total: Some(3) };
        assert_eq!(ingest(parts).received(), ReceivedContent::Parts(&held));
        assert_eq!(VideoStatus::default().received(), ReceivedContent::Nothing);
        for (status, received) in [
            ("missing", ReceivedContent::Nothing),
            ("uploading", ReceivedContent::Nothing),
            ("uploaded", ReceivedContent::Everything),
            ("ingesting", ReceivedContent::Everything),
            ("ingested", ReceivedContent::Everything),
            ("last_chunck_uploaded", ReceivedContent::Nothing),
        ] {
            assert_eq!(ingest(json!({ "status": status })).received(), received, "{status}");
        }
    }

    #[test]
    fn nulls_and_news_are_fine() {
        let status = ingest(json!({
            "status": "merging", "filesize": null, "receivedBytes": null,
            "receivedParts": {"parts": null}, "new": 1,
        }));
        assert_eq!(status.ingest.unwrap().status, Some(IngestStatus::Unknown("merging".into())));
        assert_eq!(to_value(IngestStatus::Unknown("merging".into())).unwrap(), "merging");
        let status: VideoStatus = from_value(json!({
            "ingest": {"status": null},
            "encoding": {"playable": null, "qualities": [{"status": "paused"}], "metadata": {"width": "wide"}},
        }))
        .unwrap();
        assert_eq!((status.is_playable(), status.received()), (false, ReceivedContent::Nothing));
    }

    #[test]
    fn what_arrived_is_read_however_its_numbers_and_lists_are_written() {
        let range = |from: Value, to: Value| json!({"from": from, "to": to, "total": "11534336"});
        for bytes in [
            json!([range(json!(0), json!(5_242_879))]),
            json!([range(json!("0"), json!("5242879"))]),
            json!([range(json!(0.0), json!(5_242_879.0))]),
            json!({"0": range(json!(0), json!(5_242_879))}),
        ] {
            let status =
                ingest(json!({"status": "uploading", "filesize": "11534336", "receivedBytes": bytes}));
            let held = ReceivedRange { from: 0, to: 5_242_879, total: Some(11_534_336) };
            assert_eq!(status.received(), ReceivedContent::Ranges(&[held]), "{bytes}");
            assert_eq!(status.ingest.unwrap().filesize, Some(11_534_336));
        }
        let parts = json!({"receivedBytes": [], "receivedParts": {"parts": ["1", 3.0], "total": "3"}});
        assert_eq!(
            ingest(parts).received(),
            ReceivedContent::Parts(&ReceivedParts { parts: vec![1, 3], total: Some(3) })
        );
    }

    #[test]
    fn what_no_upload_needs_may_be_odd() {
        for encoding in [
            json!([]),
            json!("none"),
            json!({"playable": 1, "qualities": [5, {"quality": 240, "status": 7}], "metadata": []}),
            json!({"playable": "true", "metadata": {"width": "1280", "height": [], "bitrate": "1.5"}}),
        ] {
            let described =
                json!({"ingest": {"status": "uploaded", "receivedBytes": "all"}, "encoding": encoding});
            let status: VideoStatus = from_value(described).unwrap();
            assert_eq!(status.received(), ReceivedContent::Everything, "{encoding}");
        }
        let odd = json!({"encoding": {"playable": 1, "qualities": [5, {"quality": 240}], "metadata": {"width": "1280"}}});
        let encoding = from_value::<VideoStatus>(odd).unwrap().encoding.unwrap();
        assert!(encoding.playable);
        assert_eq!(encoding.qualities[0].quality.as_deref(), Some("240"));
        assert_eq!(encoding.metadata.unwrap().width, Some(1280));
    }

    #[test]
    fn what_is_needed_and_wrong_is_named() {
        for (ingest, named) in [
            (json!("none"), r#"ingest is "none""#),
            (json!({"receivedBytes": "0-99"}), r#"ingest.receivedBytes is "0-99""#),
            (json!({"receivedBytes": [{"from": 0, "to": "x"}]}), r#"ingest.receivedBytes[0].to is "x""#),
            (json!({"receivedBytes": [{"to": 5}]}), "ingest.receivedBytes[0].from is null"),
            (json!({"receivedParts": {"parts": [1, -1]}}), "ingest.receivedParts.parts[1] is -1"),
        ] {
            let error = from_value::<VideoStatus>(json!({ "ingest": ingest })).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[tokio::test]
    async fn an_error_in_a_200_is_not_a_video_without_bytes() {
        let service =
            ScriptedServer::new([response(200, json!({"title": "Something failed", "status": 500}))]).await;
        let error = service.api(Credentials::None).videos(start()).status("vi1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MalformedAnswer);
    }
}
