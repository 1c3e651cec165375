//! What `--json` writes, one event a line. The names are kept; new ones may be added.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ringlift::session::event::STRAY_VIDEO;
use ringlift::session::retry::Fate;
use ringlift::wire::Addressing;
use ringlift::{Client, Progress, Refusal, UploadEvent, Uploaded};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::usage::Usage;

/// One line of the output.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    schema: u8,
    #[serde(flatten)]
    event: &'a Event<'a>,
    /// The name of the file in base64, where it is not UTF-8: `file` only resembles it.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<String>,
}

impl<'a> Line<'a> {
    /// `name` are the bytes of the file's name, where they say more than `file`.
    pub(super) fn new(event: &'a Event<'a>, name: Option<&[u8]>) -> Line<'a> {
        Line { schema: SCHEMA, event, file_bytes: name.map(|name| BASE64_STANDARD.encode(name)) }
    }
}

/// The bytes of a path that is not UTF-8.
pub(super) fn odd_name(path: &Path) -> Option<&[u8]> {
    path.to_str().is_none().then_some(path.as_os_str().as_encoded_bytes())
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    /// A file will be sent so.
    Planned(Planned),
    /// A file's video is known.
    Created { file: &'a str, video_id: &'a str },
    /// A file has got further.
    Progress(ProgressEvent<'a>),
    /// An earlier run's upload is taken up: so much is there.
    Resumed { file: &'a str, video_id: &'a str, chunks: u32, bytes: u64 },
    /// The service has a chunk, counted from 0; the attempt is counted from 1.
    ChunkDone { file: &'a str, index: u32, bytes: u64, attempt: u32, elapsed_ms: u64 },
    /// An attempt failed and is made again.
    Retry(Retry<'a>),
    /// Requests of a class wait for longer than their turn.
    Throttled { file: &'a str, class: &'static str, why: &'static str, delay_ms: u64 },
    /// The service is asked what it holds.
    StatusAsked { file: &'a str, video_id: &'a str, why: &'static str },
    /// The file's attributes, links or name changed while it is being sent; its bytes did not.
    SourceTouched { file: &'a str, change: &'static str },
    /// The chunks of an earlier run were compared with the file by their digests and are equal.
    Proved { file: &'a str, video_id: &'a str, chunks: u32, bytes: u64 },
    /// The file goes to a new video: it may not be the one of which chunks were sent.
    BeginsAnew { file: &'a str, video_id: Option<&'a str>, why: &'a str },
    /// The service may have made a video that nothing names.
    StrayVideo { file: &'a str, advice: &'static str },
    /// So many events about a file were lost, as nobody took them.
    Missed { file: &'a str, events: u64 },
    /// The service confirmed a file.
    FileDone(FileDone<'a>),
    /// A file was given up.
    FileFailed {
        file: &'a str,
        elapsed_ms: u64,
        /// Whether the same command, run again, sends only what is missing.
        resumable: bool,
        #[serde(flatten)]
        error: ErrorEvent,
    },
    /// A signal was heard: what is under way may end, nothing more is begun.
    Stopping { signal: &'static str, grace_ms: u64 },
    /// The server answers from now on.
    Ready {
        url: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        api_key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_cert: Option<&'a Path>,
    },
    /// What the service has of a video.
    Status { video_id: &'a str, status: &'a ringlift::VideoStatus },
    /// A video, as the service describes it.
    Video { video: &'a ringlift::Video },
    /// An upload token. It is what was asked for, so it is shown.
    Token { token: &'a ringlift::UploadToken },
    /// An upload that the journal remembers.
    Session(super::journal::SessionEvent<'a>),
    /// An upload that the journal remembers is not continued.
    Skipped { session: i64, file: Option<&'a str>, reason: String },
    /// The journal no longer has an upload.
    Forgotten { session: i64 },
    /// Something is no more.
    Deleted {
        #[serde(skip_serializing_if = "Option::is_none")]
        video_id: Option<&'a str>,
    },
    /// One way of the demonstration.
    Way {
        #[serde(flatten)]
        row: &'a super::demo::Row,
    },
    /// The command failed.
    Failed {
        #[serde(flatten)]
        error: ErrorEvent,
    },
    /// The last line, however it ends.
    Summary(&'a Summary),
}

/// How a file will be sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Planned {
    pub(super) file: String,
    /// Unknown for standard input.
    pub(super) bytes: Option<u64>,
    pub(super) mode: &'static str,
    /// Left to the program for standard input unless it was given.
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
    /// Acknowledged by the service.
    bytes: u64,
    /// Taken by the sockets, acknowledged or not.
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

/// A failed attempt, in words and by name.
#[derive(Debug, Serialize)]
pub(super) struct Retry<'a> {
    pub(super) file: &'a str,
    /// The chunk, counted from 0; none where the video is being created.
    pub(super) index: Option<u32>,
    /// The attempt that failed, counted from 1.
    pub(super) attempt: u32,
    /// The service's name for the problem, or that of the kind.
    pub(super) why: &'a str,
    pub(super) kind: &'static str,
    pub(super) message: &'a str,
    pub(super) delay_ms: u64,
    /// Whether the service may have it all the same.
    pub(super) fate_unknown: bool,
}

impl<'a> Event<'a> {
    /// What the library tells of a file; `None` for what this program does not know yet.
    pub(super) fn of(file: &'a str, event: &'a UploadEvent) -> Option<Event<'a>> {
        Some(match event {
            UploadEvent::Resumed { video_id, chunks, bytes } => {
                Event::Resumed { file, video_id, chunks: *chunks, bytes: *bytes }
            }
            UploadEvent::ChunkDone { index, bytes, attempt, elapsed } => Event::ChunkDone {
                file,
                index: *index,
                bytes: *bytes,
                attempt: *attempt,
                elapsed_ms: millis(*elapsed),
            },
            UploadEvent::Retry { index, attempt, why, delay, fate } => Event::Retry(Retry {
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
                Event::Throttled { file, class: class.name(), why: why.name(), delay_ms: millis(*delay) }
            }
            UploadEvent::StatusAsked { video_id, reason } => {
                Event::StatusAsked { file, video_id, why: reason.name() }
            }
            UploadEvent::SourceTouched { change } => Event::SourceTouched { file, change: change.name() },
            UploadEvent::Proved { video_id, chunks, bytes } => {
                Event::Proved { file, video_id, chunks: *chunks, bytes: *bytes }
            }
            UploadEvent::BeginsAnew { video_id, why } => {
                Event::BeginsAnew { file, video_id: video_id.as_deref(), why }
            }
            UploadEvent::StrayVideo => Event::StrayVideo { file, advice: STRAY_VIDEO },
            UploadEvent::Missed { count } => Event::Missed { file, events: *count },
            // The library may learn to tell of more.
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
    /// Whether nothing was sent: the file was there, or another of its names was.
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

/// A failure, for machines.
#[derive(Debug, Serialize)]
pub(super) struct ErrorEvent {
    /// The video that it is about; one that was created and not filled among them.
    video_id: Option<String>,
    error: ErrorBody,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    kind: &'static str,
    message: String,
    causes: Vec<String>,
    /// What it means here, where the service refused.
    meaning: Option<String>,
    /// What to do about it.
    advice: Option<String>,
    temporary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

impl ErrorEvent {
    /// Names the video that holds the file, though something about it failed.
    pub(super) fn of_video(self, video_id: Option<&str>) -> ErrorEvent {
        ErrorEvent { video_id: self.video_id.or(video_id.map(str::to_owned)), ..self }
    }

    pub(super) fn new(failure: &Failure) -> ErrorEvent {
        let library = match failure {
            Failure::Library(error) => Some(error),
            _ => None,
        };
        ErrorEvent {
            video_id: library.and_then(|error| error.video_id()).map(str::to_owned),
            error: ErrorBody {
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

/// What became of the command.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Summary {
    #[serde(skip)]
    pub(super) exit: Exit,
    /// What uploaded, to be let go of once the summary is said.
    #[serde(skip)]
    pub(super) client: Option<Client>,
    pub(super) exit_code: u8,
    /// The video, when there was one file.
    pub(super) video_id: Option<String>,
    /// Bytes of files that the service confirmed.
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

/// As `--mode` says it.
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

/// Changes when a name or a meaning does.
const SCHEMA: u8 = 1;

#[cfg(test)]
mod tests {
    use ringlift::{Error, ErrorKind};
    use serde_json::{Value, json, to_value};

    use super::*;

    fn line(event: &Event<'_>) -> Value {
        to_value(Line::new(event, None)).unwrap()
    }

    #[test]
    fn every_line_names_its_schema_and_its_event() {
        let stopping = Event::Stopping { signal: "SIGINT", grace_ms: 30_000 };
        let expected = json!({"schema": 1, "event": "stopping", "signal": "SIGINT", "grace_ms": 30000});
        assert_eq!(line(&stopping), expected);
    }

    #[test]
    fn the_summary_has_what_scripts_look_for_also_after_a_failure() {
        let summary = Summary { exit_code: 5, retries: 3, ..Summary::default() };
        let expected = json!({
            "schema": 1, "event": "summary", "exit_code": 5, "video_id": null, "bytes": 0, "files_done": 0,
            "files_failed": 0, "retries": 3, "resent_bytes": 0, "elapsed_ms": 0,
        });
        assert_eq!(line(&Event::Summary(&summary)), expected);
        let hashed = Summary { sha256: Some("ab".to_owned()), ..summary };
        assert_eq!(line(&Event::Summary(&hashed))["sha256"], "ab");
    }

    #[test]
    fn a_failure_says_what_kind_it_is_and_which_video_it_left() {
        let error = Error::new(ErrorKind::Connect, "create the video").with_video_id("vi1");
        let error = ErrorEvent::new(&Failure::from(error));
        let event = line(&Event::FileFailed { file: "a.mp4", elapsed_ms: 7, resumable: true, error });
        assert_eq!((&event["event"], &event["file"]), (&json!("file_failed"), &json!("a.mp4")));
        assert_eq!((&event["video_id"], &event["resumable"]), (&json!("vi1"), &json!(true)));
        assert_eq!(
            (&event["error"]["kind"], &event["error"]["temporary"]),
            (&json!("connect"), &json!(true))
        );
    }
}
