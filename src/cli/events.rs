//! JSON events that only the command has. Those of uploads are in the library.

use std::borrow::Cow;
use std::path::Path;
use std::time::SystemTime;

use ringlift::Client;
use ringlift::bulk::{ErrorEvent, JsonLine, RunSummary};
use ringlift::tune::Rung;
use serde::Serialize;

use super::demo_result::DemoResult;
use super::exit::{CommandError, Exit};
use super::tune_events::{TunedEvent, TuningEvent};

/// An event of a command for programs that read the output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum CommandEvent<'a> {
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
    /// The end of a list of videos or of upload tokens.
    ListEnd(ListEnd),
    /// The service has fetched a URL, or has copied a video, into a new video.
    Fetched { file: &'a str, video_id: &'a str, elapsed_ms: u64 },
    /// The work of a bulk run, before it begins.
    Estimate(EstimateEvent),
    /// The live page of a bulk run. The token is printed for people only.
    Monitor { url: &'a str },
    /// The sources name a job a second time.
    Doubled { id: &'a str, file: &'a str },
    /// A pool was paused or resumed.
    Pool { pool: &'a str, paused: bool },
    /// An upload token, unredacted because it is the requested result.
    Token { token: &'a ringlift::UploadToken },
    /// An upload in the journal.
    Session(SessionEvent<'a>),
    /// An upload in the journal is not resumed or not removed.
    Skipped { session: i64, file: Option<&'a str>, reason: String },
    /// An upload was removed from the journal.
    Forgotten { session: i64 },
    /// A job was deleted from its queue.
    ForgottenJob { id: &'a str },
    /// A video or an upload token was deleted.
    Deleted {
        #[serde(skip_serializing_if = "Option::is_none")]
        video_id: Option<&'a str>,
    },
    /// A notice of the watch on directories. `kind` is its stable name.
    Watch { kind: &'static str, message: &'a str },
    /// Another worker has the job, or a user cancelled it. `video_id` is the video that the job has begun to fill.
    Lost { file: &'a str, video_id: Option<&'a str>, message: &'a str },
    /// A video that another one of the same job has replaced. `deleted` is `true` if it is gone.
    Orphan { file: &'a str, video_id: &'a str, deleted: bool, message: &'a str },
    /// The queue does not answer, or another process has locked it.
    QueueAway { message: &'a str },
    /// The queue answers again.
    QueueBack { elapsed_ms: u64 },
    /// The service does not answer, and the jobs under way were let go.
    ServiceAway { jobs: usize, rest_ms: u64 },
    /// The service answers again.
    ServiceBack,
    /// One row of the demonstration.
    Way {
        #[serde(flatten)]
        row: &'a DemoResult,
    },
    /// A measurement begins.
    Tuning(TuningEvent<'a>),
    /// A number of lanes was measured.
    Rung {
        #[serde(flatten)]
        rung: &'a Rung,
    },
    /// The result of a measurement.
    Tuned(TunedEvent<'a>),
    /// The command failed.
    Failed {
        #[serde(flatten)]
        error: ErrorEvent,
    },
}

/// The end of a list of videos or of upload tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ListEnd {
    /// Number of listed items.
    pub(super) listed: u64,
    /// `true` if the service has further items.
    pub(super) more: bool,
    /// Number of the page after the last one that was requested.
    pub(super) next_page: Option<u64>,
    /// Number of items on all pages, if the service counts them.
    pub(super) items_total: Option<u64>,
}

/// The work of a bulk run, and the least time that its limits permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct EstimateEvent {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) upload_requests: u64,
    /// `None` if nothing is limited.
    pub(super) seconds: Option<u64>,
    /// The limit that decides the time: `bandwidth`, `upload_rate` or `write_rate`.
    pub(super) limited_by: Option<&'static str>,
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

/// Result of a command that ended.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) exit: Exit,
    pub(super) totals: RunSummary,
    /// Client to drop after the summary was written.
    pub(super) client: Option<Client>,
}

impl From<Exit> for Summary {
    fn from(exit: Exit) -> Summary {
        Summary { exit, ..Summary::default() }
    }
}

impl Summary {
    /// Creates the summary of a successful command about one video.
    pub(super) fn of_video(video_id: impl Into<String>) -> Summary {
        let totals = RunSummary { video_id: Some(video_id.into()), ..RunSummary::default() };
        Summary { totals, ..Summary::default() }
    }
}

/// Result of a command: a summary, or `None` for a command whose output is a text for other programs.
pub(super) type CommandResult = Result<Option<Summary>, CommandError>;

/// Returns the JSON of an event that happens now. `name` is the file's name in bytes if it is not UTF-8.
pub(super) fn json_line(event: &impl Serialize, name: Option<&[u8]>) -> Option<String> {
    serde_json::to_string(&JsonLine::new(event, name, SystemTime::now())).ok()
}

/// Returns the time of day, for records that outlive the process.
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Returns the event of a failure, with the advice in the words of the command.
pub(super) fn error_event(failure: &CommandError) -> ErrorEvent {
    let mut event = match failure {
        CommandError::Library(error) => ErrorEvent::from(error),
        failure => ErrorEvent::other(failure.kind(), failure.to_string()),
    };
    event.error.advice = failure.advice().map(str::to_owned);
    event.error.temporary = failure.exit() == Exit::Temporary;
    event
}
