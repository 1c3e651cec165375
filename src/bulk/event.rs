//! The events of a run as JSON, one per line.
//!
//! The names of events and fields are a contract: existing ones never change, new ones may be added. Values borrow from
//! the run; writing them is the program's part.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::error_event::ErrorEvent;
use crate::session::event::{STRAY_VIDEO, UploadEvent};
use crate::session::retry::Fate;
use crate::upload::{Progress, Uploaded};
use crate::usage::Usage;
use crate::wire::Addressing;

/// One line of JSON output: an event with the version of the schema and the time.
#[derive(Debug, Serialize)]
pub struct JsonLine<'a, E> {
    schema: u8,
    #[serde(flatten)]
    event: &'a E,
    /// Bytes of the file's name in base64, if the name is not UTF-8 and `file` is only an approximation.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<String>,
    /// RFC 3339 in UTC, with milliseconds.
    time: String,
}

impl<'a, E: Serialize> JsonLine<'a, E> {
    /// Creates a line. `name` is the file's name in bytes if it is not UTF-8 ([`odd_name`]), `time` is the time of the
    /// event.
    pub fn new(event: &'a E, name: Option<&[u8]>, time: SystemTime) -> JsonLine<'a, E> {
        JsonLine {
            schema: SCHEMA,
            event,
            file_bytes: name.map(|name| BASE64_STANDARD.encode(name)),
            time: humantime::format_rfc3339_millis(time).to_string(),
        }
    }
}

/// Returns the bytes of a path that is not UTF-8, and `None` for any other path.
pub fn odd_name(path: &Path) -> Option<&[u8]> {
    path.to_str().is_none().then_some(path.as_os_str().as_encoded_bytes())
}

/// An event of a run. `file` is the name of the file in the run.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The fields have the names of the JSON, which the variants explain.
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JsonEvent<'a> {
    /// The plan of a file.
    Planned(Planned),
    /// The service created a video for a file.
    Created { file: &'a str, video_id: &'a str },
    /// Progress of a file.
    Progress(ProgressEvent<'a>),
    /// The upload of an earlier run is resumed; `chunks` and `bytes` are already stored.
    Resumed { file: &'a str, video_id: &'a str, chunks: u32, bytes: u64 },
    /// The service has stored a chunk. `index` counts from 0, `attempt` from 1.
    ChunkDone { file: &'a str, index: u32, bytes: u64, attempt: u32, elapsed_ms: u64 },
    /// An attempt failed and is retried.
    Retry(RetryEvent<'a>),
    /// A class of requests is delayed by a limit.
    Throttled { file: &'a str, class: &'static str, why: &'static str, delay_ms: u64 },
    /// The number of connections in use, among `most`, or the reason why it is kept has changed. `hold` is `budget`,
    /// `bandwidth`, `memory`, `work` or `brake`; `null` if nothing keeps the number.
    Lanes { lanes: u64, most: u64, hold: Option<&'static str> },
    /// The service is asked for the upload's status.
    StatusAsked { file: &'a str, video_id: &'a str, why: &'static str },
    /// Attributes, links or the name of a file changed during the upload; its bytes did not.
    SourceTouched { file: &'a str, change: &'static str },
    /// The digests of an earlier run's chunks match the file.
    Proved { file: &'a str, video_id: &'a str, chunks: u32, bytes: u64 },
    /// The file is uploaded to a new video, because it may differ from the file of the stored chunks.
    BeginsAnew { file: &'a str, video_id: Option<&'a str>, why: &'a str },
    /// The service may have created a video whose id is unknown.
    StrayVideo { file: &'a str, advice: &'static str },
    /// The number of events that were dropped because the reader was too slow.
    Missed { file: &'a str, events: u64 },
    /// The service has confirmed a file.
    FileDone(FileDone<'a>),
    /// The upload of a file failed.
    FileFailed {
        file: &'a str,
        elapsed_ms: u64,
        /// `true` if the same command sends only the missing chunks.
        resumable: bool,
        #[serde(flatten)]
        error: ErrorEvent,
    },
    /// A file of a bulk run needs no upload, or failed in an earlier run.
    FileSkipped(FileSkipped<'a>),
    /// A signal was received: active chunks may finish, and no new ones start.
    Stopping { signal: &'static str, grace_ms: u64 },
    /// The last line of every run.
    Summary(&'a RunSummary),
}

/// The plan of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// Name of the file.
    pub file: String,
    /// Length of the file; `None` if it is unknown.
    pub bytes: Option<u64>,
    /// Name of the mode.
    pub mode: &'static str,
    /// Bytes of a chunk; `None` for standard input unless a chunk size was given.
    pub chunk_bytes: Option<u64>,
    /// Number of chunks, if the length is known.
    pub chunks: Option<u32>,
    /// Number of connections.
    pub lanes: usize,
    /// Name of the reader; `None` for standard input.
    pub reader: Option<String>,
    /// Base URL of the service.
    pub endpoint_url: String,
    /// `true` if nothing is sent.
    pub dry_run: bool,
}

/// Progress of a file.
#[derive(Debug, Serialize)]
pub struct ProgressEvent<'a> {
    file: &'a str,
    video_id: Option<&'a str>,
    /// Bytes or chunks that the service has acknowledged.
    bytes: u64,
    /// Bytes written to sockets, acknowledged or not.
    sent_bytes: u64,
    total_bytes: Option<u64>,
    chunks: u32,
    retries: u32,
    resent_bytes: u64,
    elapsed_ms: u64,
}

impl<'a> ProgressEvent<'a> {
    /// Creates the event. `elapsed` is the time since the start of the upload.
    pub fn new(file: &'a str, progress: &'a Progress, elapsed: Duration) -> ProgressEvent<'a> {
        ProgressEvent {
            file,
            video_id: progress.video_id.as_deref(),
            bytes: progress.acknowledged_bytes,
            sent_bytes: progress.sent_bytes,
            total_bytes: progress.total_bytes,
            chunks: progress.acknowledged_chunks,
            retries: progress.retries,
            resent_bytes: progress.resent_bytes,
            elapsed_ms: millis(elapsed),
        }
    }
}

/// A failed attempt.
#[derive(Debug, Serialize)]
pub struct RetryEvent<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Index of the chunk, from 0; `None` for the creation of the video.
    pub index: Option<u32>,
    /// Number of the failed attempt, from 1.
    pub attempt: u32,
    /// Name of the service's problem, or of the error's kind.
    pub why: &'a str,
    /// Stable name of the error's kind.
    pub kind: &'static str,
    /// The failure in words, with its causes.
    pub message: &'a str,
    /// Time until the next attempt.
    pub delay_ms: u64,
    /// `true` if the service may have processed the request.
    pub fate_unknown: bool,
}

impl<'a> JsonEvent<'a> {
    /// Converts an event of the library. Returns `None` for [`UploadEvent::Planned`]: the run reports the plan of a file
    /// with more fields, before its upload begins.
    pub fn of(file: &'a str, event: &'a UploadEvent) -> Option<JsonEvent<'a>> {
        Some(match event {
            UploadEvent::Planned { .. } => return None,
            UploadEvent::Resumed { video_id, chunks, bytes } => {
                JsonEvent::Resumed { file, video_id, chunks: *chunks, bytes: *bytes }
            }
            UploadEvent::ChunkDone { index, bytes, attempt, elapsed } => JsonEvent::ChunkDone {
                file,
                index: *index,
                bytes: *bytes,
                attempt: *attempt,
                elapsed_ms: millis(*elapsed),
            },
            UploadEvent::Created { video_id } => JsonEvent::Created { file, video_id },
            UploadEvent::Retry { index, attempt, why, delay, fate } => JsonEvent::Retry(RetryEvent {
                file,
                index: *index,
                attempt: *attempt,
                why: why.name(),
                kind: why.kind.name(),
                message: &why.message,
                delay_ms: millis(*delay),
                fate_unknown: *fate == Fate::Unknown,
            }),
            UploadEvent::Throttled { class, why, delay } => {
                JsonEvent::Throttled { file, class: class.name(), why: why.name(), delay_ms: millis(*delay) }
            }
            UploadEvent::StatusAsked { video_id, reason } => {
                JsonEvent::StatusAsked { file, video_id, why: reason.name() }
            }
            UploadEvent::SourceTouched { change } => JsonEvent::SourceTouched { file, change: change.name() },
            UploadEvent::Proved { video_id, chunks, bytes } => {
                JsonEvent::Proved { file, video_id, chunks: *chunks, bytes: *bytes }
            }
            UploadEvent::BeginsAnew { video_id, why } => {
                JsonEvent::BeginsAnew { file, video_id: video_id.as_deref(), why }
            }
            UploadEvent::StrayVideo => JsonEvent::StrayVideo { file, advice: STRAY_VIDEO },
            UploadEvent::Missed { count } => JsonEvent::Missed { file, events: *count },
        })
    }
}

/// A file that the service has confirmed.
#[derive(Debug, Serialize)]
pub struct FileDone<'a> {
    file: &'a str,
    video_id: &'a str,
    bytes: u64,
    /// Bytes that this run has sent, without those of earlier runs.
    sent_bytes: u64,
    mode: &'static str,
    chunks: u32,
    reader: Option<String>,
    retries: u32,
    resent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    elapsed_ms: u64,
    /// `true` if nothing was sent, because the file or another of its names was already uploaded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    already: bool,
}

impl<'a> FileDone<'a> {
    /// Creates the event.
    pub fn new(file: &'a str, uploaded: &'a Uploaded, sha256: Option<&'a str>) -> FileDone<'a> {
        FileDone {
            file,
            video_id: &uploaded.video_id,
            bytes: uploaded.bytes,
            sent_bytes: uploaded.sent_bytes,
            mode: mode(uploaded.addressing),
            chunks: uploaded.chunks,
            reader: uploaded.reader.map(|reader| reader.to_string()),
            retries: uploaded.retries,
            resent_bytes: uploaded.resent_bytes,
            sha256,
            elapsed_ms: millis(uploaded.elapsed),
            already: uploaded.already,
        }
    }
}

/// A file of a bulk run that needs no upload, or failed in an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FileSkipped<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Id of the job.
    pub id: &'a str,
    /// Id of the video, if the job is done.
    pub video_id: Option<&'a str>,
    /// The reason, for a person.
    pub reason: &'a str,
}

/// The counts that only a bulk run has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IngestCounts {
    /// Number of files that needed no upload, or that failed in an earlier run.
    pub files_skipped: usize,
    /// Number of files of folders that were left out.
    pub files_ignored: u64,
    /// Number of videos that this run has created.
    pub videos_created: u64,
    /// Number of videos that were left beside the one of their job, and are not deleted.
    #[serde(skip_serializing_if = "is_zero")]
    pub orphan_videos: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Totals of a run: the last line of its output.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Exit code of the program.
    pub exit_code: u8,
    /// Id of the video, if the run has exactly one file.
    pub video_id: Option<String>,
    /// Bytes of the files that the service has confirmed.
    pub bytes: u64,
    /// Bytes that this run has sent, without those of earlier runs and without repetitions.
    pub sent_bytes: u64,
    /// SHA-256 of the only file, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Number of uploaded files.
    pub files_done: usize,
    /// Number of failed files.
    pub files_failed: usize,
    /// Number of files that were not started because the run ended early.
    pub files_cancelled: usize,
    /// Number of repeated attempts.
    pub retries: u32,
    /// Bytes sent again after failures.
    pub resent_bytes: u64,
    /// Duration of the run in milliseconds.
    pub elapsed_ms: u64,
    /// Resource usage of the process, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The counts of a bulk run.
    #[serde(flatten)]
    pub ingest: Option<IngestCounts>,
}

/// Returns the name of an addressing: the name of the [`Mode`](crate::Mode) that has it.
pub fn mode(addressing: Addressing) -> &'static str {
    match addressing {
        Addressing::Single => "single",
        Addressing::ByteRange => "bytes",
        Addressing::Part => "parts",
    }
}

/// Returns a duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Version of the schema; increases if a name or a meaning changes.
const SCHEMA: u8 = 1;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn line(event: &JsonEvent<'_>) -> Value {
        to_value(JsonLine::new(event, None, SystemTime::UNIX_EPOCH + Duration::from_millis(1500))).unwrap()
    }

    #[test]
    fn every_line_has_its_schema_its_event_and_its_time() {
        let stopping = JsonEvent::Stopping { signal: "SIGINT", grace_ms: 30_000 };
        let expected = json!({
            "schema": 1, "event": "stopping", "signal": "SIGINT", "grace_ms": 30000,
            "time": "1970-01-01T00:00:01.500Z",
        });
        assert_eq!(line(&stopping), expected);
    }

    #[test]
    fn the_summary_has_all_fields_after_a_failure() {
        let summary = RunSummary { exit_code: 5, retries: 3, ..RunSummary::default() };
        let expected = json!({
            "schema": 1, "event": "summary", "exit_code": 5, "video_id": null, "bytes": 0, "sent_bytes": 0,
            "files_done": 0, "files_failed": 0, "files_cancelled": 0, "retries": 3, "resent_bytes": 0,
            "elapsed_ms": 0, "time": "1970-01-01T00:00:01.500Z",
        });
        assert_eq!(line(&JsonEvent::Summary(&summary)), expected);
        let hashed = RunSummary { sha256: Some("ab".to_owned()), ..summary };
        assert_eq!(line(&JsonEvent::Summary(&hashed))["sha256"], "ab");
    }

    #[test]
    fn a_failed_file_has_the_kind_and_the_video_id() {
        let error = Error::new(ErrorKind::Connect, "create the video").with_video_id("vi1");
        let error = ErrorEvent::from(&error);
        let event = line(&JsonEvent::FileFailed { file: "a.mp4", elapsed_ms: 7, resumable: true, error });
        assert_eq!((&event["event"], &event["file"]), (&json!("file_failed"), &json!("a.mp4")));
        assert_eq!((&event["video_id"], &event["resumable"]), (&json!("vi1"), &json!(true)));
        assert_eq!(
            (&event["error"]["kind"], &event["error"]["temporary"]),
            (&json!("connect"), &json!(true))
        );
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_kept_in_bytes() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let path = Path::new(OsStr::from_bytes(b"a\xff"));
        let event = JsonEvent::Missed { file: &path.to_string_lossy(), events: 1 };
        let line = to_value(JsonLine::new(&event, odd_name(path), SystemTime::UNIX_EPOCH)).unwrap();
        assert_eq!(line["file_bytes"], "Yf8=");
        assert_eq!(odd_name(Path::new("a")), None);
    }
}
