//! JSON events of `--json`, one per line. Existing names never change; new ones may be added.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ringlift::session::event::STRAY_VIDEO;
use ringlift::session::retry::Fate;
use ringlift::wire::Addressing;
use ringlift::{Client, Progress, Refusal, UploadEvent, Uploaded, Usage};
use serde::Serialize;

use super::demo_result::DemoResult;
use super::exit::{CommandError, Exit};

/// One line of JSON output.
#[derive(Debug, Serialize)]
pub(super) struct JsonLine<'a> {
    schema: u8,
    #[serde(flatten)]
    event: &'a JsonEvent<'a>,
    /// Bytes of the file's name in base64, if the name is not UTF-8 and `file` is only an approximation.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<String>,
}

impl<'a> JsonLine<'a> {
    /// Creates a line. `name` is the file's name in bytes if it is not UTF-8.
    pub(super) fn new(event: &'a JsonEvent<'a>, name: Option<&[u8]>) -> JsonLine<'a> {
        JsonLine { schema: SCHEMA, event, file_bytes: name.map(|name| BASE64_STANDARD.encode(name)) }
    }
}

/// Returns the bytes of a path that is not UTF-8, and `None` for any other path.
pub(super) fn odd_name(path: &Path) -> Option<&[u8]> {
    path.to_str().is_none().then_some(path.as_os_str().as_encoded_bytes())
}

/// An event for programs that read the output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum JsonEvent<'a> {
    /// The plan of a file.
    Planned(Planned),
    /// The id of a file's video is known.
    Created { file: &'a str, video_id: &'a str },
    /// Progress of a file.
    Progress(ProgressEvent<'a>),
    /// The upload of an earlier run is resumed; `chunks` and `bytes` are already stored.
    Resumed { file: &'a str, video_id: &'a str, chunks: u32, bytes: u64 },
    /// The service has stored a chunk. `index` counts from 0, `attempt` from 1.
    ChunkDone { file: &'a str, index: u32, bytes: u64, attempt: u32, elapsed_ms: u64 },
    /// An attempt failed and is retried.
    Retry(Retry<'a>),
    /// A class of requests is delayed by a limit.
    Throttled { file: &'a str, class: &'static str, why: &'static str, delay_ms: u64 },
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
    /// A signal was received: active chunks may finish, and no new ones start.
    Stopping { signal: &'static str, grace_ms: u64 },
    /// The server accepts requests.
    Ready {
        url: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        api_key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_cert: Option<&'a Path>,
    },
    /// The status of a video.
    Status { video_id: &'a str, status: &'a ringlift::VideoStatus },
    /// A video.
    Video { video: &'a ringlift::Video },
    /// An upload token, unredacted because it is the requested result.
    Token { token: &'a ringlift::UploadToken },
    /// An upload in the journal.
    Session(SessionEvent<'a>),
    /// An upload in the journal is not resumed or not removed.
    Skipped { session: i64, file: Option<&'a str>, reason: String },
    /// An upload was removed from the journal.
    Forgotten { session: i64 },
    /// A video or an upload token was deleted.
    Deleted {
        #[serde(skip_serializing_if = "Option::is_none")]
        video_id: Option<&'a str>,
    },
    /// One row of the demonstration.
    Way {
        #[serde(flatten)]
        row: &'a DemoResult,
    },
    /// The command failed.
    Failed {
        #[serde(flatten)]
        error: ErrorEvent,
    },
    /// The last line of every run.
    Summary(&'a Summary),
}

/// A session as a JSON event.
#[derive(Debug, Serialize)]
pub(super) struct SessionEvent<'a> {
    pub(super) session: i64,
    /// `None` for a stream.
    pub(super) file: Option<Cow<'a, str>>,
    /// `None` if no video was created, or its id is unknown.
    pub(super) video_id: Option<&'a str>,
    pub(super) bytes: Option<u64>,
    pub(super) mode: Option<&'static str>,
    pub(super) chunks: Option<u32>,
    /// Number of acknowledged chunks.
    pub(super) stored_chunks: u32,
    pub(super) standing: &'static str,
    /// Id of the process that is working on the upload.
    pub(super) pid: Option<u32>,
    /// `true` if an upload token replaces the API key.
    pub(super) delegated: bool,
    pub(super) resumable: bool,
    pub(super) began: String,
    pub(super) endpoint_url: &'a str,
}

/// The plan of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Planned {
    pub(super) file: String,
    /// Unknown for standard input.
    pub(super) bytes: Option<u64>,
    pub(super) mode: &'static str,
    /// `None` for standard input unless a chunk size was given.
    pub(super) chunk_bytes: Option<u64>,
    pub(super) chunks: Option<u32>,
    pub(super) lanes: usize,
    pub(super) reader: Option<String>,
    pub(super) endpoint_url: String,
    pub(super) dry_run: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ProgressEvent<'a> {
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
    pub(super) fn new(file: &'a str, progress: &'a Progress, elapsed: Duration) -> ProgressEvent<'a> {
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
pub(super) struct Retry<'a> {
    pub(super) file: &'a str,
    /// Index of the chunk, from 0; `None` for the creation of the video.
    pub(super) index: Option<u32>,
    /// Number of the failed attempt, from 1.
    pub(super) attempt: u32,
    /// Name of the service's problem, or of the error's kind.
    pub(super) why: &'a str,
    pub(super) kind: &'static str,
    pub(super) message: &'a str,
    pub(super) delay_ms: u64,
    /// `true` if the service may have processed the request.
    pub(super) fate_unknown: bool,
}

impl<'a> JsonEvent<'a> {
    /// Converts an event of the library. Returns `None` for an event that this program does not know.
    pub(super) fn of(file: &'a str, event: &'a UploadEvent) -> Option<JsonEvent<'a>> {
        Some(match event {
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
            UploadEvent::Retry { index, attempt, why, delay, fate } => JsonEvent::Retry(Retry {
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
            // The library's enum may grow.
            _ => return None,
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct FileDone<'a> {
    file: &'a str,
    video_id: &'a str,
    bytes: u64,
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
    pub(super) fn new(file: &'a str, uploaded: &'a Uploaded, sha256: Option<&'a str>) -> FileDone<'a> {
        FileDone {
            file,
            video_id: &uploaded.video_id,
            bytes: uploaded.bytes,
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

/// A failure.
#[derive(Debug, Serialize)]
pub(super) struct ErrorEvent {
    /// Id of the affected video, including a video that was created and not filled.
    video_id: Option<String>,
    error: ErrorFields,
}

#[derive(Debug, Serialize)]
struct ErrorFields {
    kind: &'static str,
    message: String,
    causes: Vec<String>,
    /// Explanation of the service's refusal.
    meaning: Option<String>,
    /// Suggested action.
    advice: Option<String>,
    temporary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

impl ErrorEvent {
    /// Sets the id of the video, unless the failure has one.
    pub(super) fn of_video(self, video_id: Option<&str>) -> ErrorEvent {
        ErrorEvent { video_id: self.video_id.or(video_id.map(str::to_owned)), ..self }
    }

    pub(super) fn new(failure: &CommandError) -> ErrorEvent {
        let library = match failure {
            CommandError::Library(error) => Some(error),
            _ => None,
        };
        ErrorEvent {
            video_id: library.and_then(|error| error.video_id()).map(str::to_owned),
            error: ErrorFields {
                kind: failure.kind(),
                message: failure.to_string(),
                causes: failure.causes(),
                meaning: failure.meaning().map(str::to_owned),
                advice: failure.advice().map(str::to_owned),
                temporary: failure.exit() == Exit::Temporary,
                refusal: library.and_then(|error| error.refusal()).cloned(),
            },
        }
    }
}

/// Totals of a command.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Summary {
    #[serde(skip)]
    pub(super) exit: Exit,
    /// Client to drop after the summary was written.
    #[serde(skip)]
    pub(super) client: Option<Client>,
    pub(super) exit_code: u8,
    /// Id of the video, if the command has exactly one file.
    pub(super) video_id: Option<String>,
    /// Bytes of the files that the service has confirmed.
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    pub(super) files_done: usize,
    pub(super) files_failed: usize,
    pub(super) retries: u32,
    pub(super) resent_bytes: u64,
    pub(super) elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
}

/// Result of a command: a summary, or `None` for a command whose output is a text for other programs.
pub(super) type CommandResult = Result<Option<Summary>, CommandError>;

/// Returns the value of `--mode` for an addressing.
pub(super) fn mode(addressing: Addressing) -> &'static str {
    match addressing {
        Addressing::Single => "single",
        Addressing::ByteRange => "bytes",
        Addressing::Part => "parts",
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Version of the schema; increases if a name or a meaning changes.
const SCHEMA: u8 = 1;

#[cfg(test)]
mod tests {
    use ringlift::{Error, ErrorKind};
    use serde_json::{Value, json, to_value};

    use super::*;

    fn line(event: &JsonEvent<'_>) -> Value {
        to_value(JsonLine::new(event, None)).unwrap()
    }

    #[test]
    fn every_line_names_its_schema_and_its_event() {
        let stopping = JsonEvent::Stopping { signal: "SIGINT", grace_ms: 30_000 };
        let expected = json!({"schema": 1, "event": "stopping", "signal": "SIGINT", "grace_ms": 30000});
        assert_eq!(line(&stopping), expected);
    }

    #[test]
    fn summary_has_all_fields_after_a_failure() {
        let summary = Summary { exit_code: 5, retries: 3, ..Summary::default() };
        let expected = json!({
            "schema": 1, "event": "summary", "exit_code": 5, "video_id": null, "bytes": 0, "files_done": 0,
            "files_failed": 0, "retries": 3, "resent_bytes": 0, "elapsed_ms": 0,
        });
        assert_eq!(line(&JsonEvent::Summary(&summary)), expected);
        let hashed = Summary { sha256: Some("ab".to_owned()), ..summary };
        assert_eq!(line(&JsonEvent::Summary(&hashed))["sha256"], "ab");
    }

    #[test]
    fn failed_event_has_the_kind_and_the_video_id() {
        let error = Error::new(ErrorKind::Connect, "create the video").with_video_id("vi1");
        let error = ErrorEvent::new(&CommandError::from(error));
        let event = line(&JsonEvent::FileFailed { file: "a.mp4", elapsed_ms: 7, resumable: true, error });
        assert_eq!((&event["event"], &event["file"]), (&json!("file_failed"), &json!("a.mp4")));
        assert_eq!((&event["video_id"], &event["resumable"]), (&json!("vi1"), &json!(true)));
        assert_eq!(
            (&event["error"]["kind"], &event["error"]["temporary"]),
            (&json!("connect"), &json!(true))
        );
    }
}
