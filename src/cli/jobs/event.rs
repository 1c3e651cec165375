//! A job as a JSON event and as a line.

use std::borrow::Cow;
use std::time::SystemTime;

use ringlift::bulk::event::odd_name;
use ringlift::bulk::{Job, JobId, JobSource, JobState, JobStateName, OwnerId, UnixMillis};
use serde::Serialize;

use crate::cli::console::Console;
use crate::cli::escape::visible;

/// A job as a JSON event.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct JobEvent<'a> {
    event: &'static str,
    pub(super) id: &'a str,
    pub(super) state: &'static str,
    pub(super) path: Cow<'a, str>,
    pub(super) size: Option<u64>,
    pub(super) video_id: Option<String>,
    pub(super) message: Option<&'a str>,
    /// The video of an end, else the reason of the state, for a line.
    #[serde(skip)]
    remark: Option<&'a str>,
    #[serde(flatten)]
    pub(super) record: Option<RecordFields<'a>>,
}

/// The part of a job that only its store knows.
#[derive(Debug, Serialize)]
pub(super) struct RecordFields<'a> {
    pub(super) pool: &'a str,
    pub(super) acknowledged_bytes: u64,
    pub(super) error_kind: Option<&'a str>,
    pub(super) advice: Option<&'a str>,
    /// Videos that were left beside the one of the job.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) orphans: &'a [String],
    /// The host that works on the job, or worked on it last.
    pub(super) host: Option<&'a str>,
    /// The earliest time of the next attempt.
    pub(super) not_before: Option<String>,
    pub(super) submitted_at: String,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
}

impl<'a> JobEvent<'a> {
    /// Returns the event of a job that is queued by this command, or would be.
    pub(in crate::cli) fn queued(id: &'a JobId, source: &'a JobSource, bytes: Option<u64>) -> JobEvent<'a> {
        JobEvent {
            event: "job",
            id: id.as_str(),
            state: JobStateName::Queued.as_str(),
            path: source.name(),
            size: bytes,
            video_id: None,
            message: None,
            remark: None,
            record: None,
        }
    }

    /// Returns the event of a job in a store.
    pub(super) fn of(job: &'a Job) -> JobEvent<'a> {
        let record = &job.record;
        let failure = match &record.state {
            JobState::Failed(failure) => Some(failure),
            JobState::Queued { .. } | JobState::Running { .. } => record.last_failure.as_ref(),
            _ => None,
        };
        let (ended_in, message) = match &record.state {
            JobState::Done(result) => (Some(result.video_id.as_str()), None),
            JobState::Skipped { reason } => (None, Some(reason.as_str())),
            _ => (
                failure.and_then(|failure| failure.video_id.as_deref()),
                failure.map(|failure| failure.message.as_str()),
            ),
        };
        let not_before = match &record.state {
            JobState::Queued { not_before } if failure.is_some() => Some(rfc3339(*not_before)),
            _ => None,
        };
        let fields = RecordFields {
            pool: job.spec.pool.as_str(),
            acknowledged_bytes: record.acknowledged_bytes,
            error_kind: failure.map(|failure| failure.kind.as_str()),
            advice: failure.and_then(|failure| failure.advice.as_deref()),
            orphans: &record.orphans,
            host: record.owner.as_ref().map(OwnerId::host),
            not_before,
            submitted_at: rfc3339(record.submitted_at),
            started_at: record.started_at.map(rfc3339),
            finished_at: record.finished_at.map(rfc3339),
        };
        JobEvent {
            state: record.state.name().as_str(),
            video_id: job.video_id(),
            message,
            remark: ended_in.or(message),
            record: Some(fields),
            ..JobEvent::queued(&job.spec.id, &job.spec.source, job.spec.stamp.map(|stamp| stamp.size))
        }
    }

    /// Writes the event, if events are written.
    pub(in crate::cli) fn emit(&self, source: &JobSource, console: &Console) {
        let name = match source {
            JobSource::File { path } => odd_name(path),
            _ => None,
        };
        let _ = console.emit_for_file(name, self);
    }

    /// Writes the event or a line: id, state, path, and the video or the reason, separated by tabs.
    pub(in crate::cli) fn show(&self, source: &JobSource, console: &Console) {
        self.emit(source, console);
        let (path, other) = (visible(&self.path), visible(self.remark()));
        console.result(format_args!("{}\t{}\t{path}\t{other}", self.id, self.state));
    }

    /// Returns the video of the end, else the reason of the state, else the video that was begun.
    pub(super) fn remark(&self) -> &str {
        self.remark.or(self.video_id.as_deref()).unwrap_or("-")
    }
}

fn rfc3339(time: UnixMillis) -> String {
    humantime::format_rfc3339_millis(SystemTime::from(time)).to_string()
}
