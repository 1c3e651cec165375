//! Events of an upload, for programs and for the log.
//!
//! Each follower reads from a queue of [`QUEUE`] entries. The upload never waits for a slow reader: the reader
//! loses the oldest events and receives their number.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::pacing::{Class, ThrottleReason};
use crate::session::retry::Fate;
use crate::source::Change;

/// An event of an upload. No field holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadEvent {
    /// The upload of a file begins with this plan. A resumed upload keeps the plan of the earlier run.
    Planned {
        /// Length of the file.
        bytes: u64,
        /// File bytes of every chunk except the last.
        chunk_bytes: u64,
        /// Number of chunks, each of which is one request.
        chunks: u32,
    },
    /// The service created a container for this upload. A container of an earlier run or of another host is not one.
    Created {
        /// The container.
        video_id: String,
    },
    /// An upload of an earlier run continues. Stored chunks are not sent again.
    Resumed {
        /// The container.
        video_id: String,
        /// Number of stored chunks.
        chunks: u32,
        /// File bytes in them.
        bytes: u64,
    },
    /// A chunk is stored, by the answer to its request or by a status.
    ChunkDone {
        /// Index of the chunk, counted from 0.
        index: u32,
        /// File bytes of the chunk.
        bytes: u64,
        /// The successful attempt, counted from 1.
        attempt: u32,
        /// Time from the start of that attempt to its confirmation.
        elapsed: Duration,
    },
    /// An attempt failed and will be repeated.
    Retry {
        /// The chunk, counted from 0; `None` for the creation of the video.
        index: Option<u32>,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// The failure.
        why: FailureSummary,
        /// Time until the next attempt.
        delay: Duration,
        /// Knowledge of the chunk after the failed attempt.
        fate: Fate,
    },
    /// Requests of a class are delayed.
    Throttled {
        /// The class of requests.
        class: Class,
        /// The cause of the delay.
        why: ThrottleReason,
        /// Length of the delay.
        delay: Duration,
    },
    /// The status of the video is queried.
    StatusAsked {
        /// The container.
        video_id: String,
        /// The reason for the query.
        reason: StatusReason,
    },
    /// The file's attributes, links or name changed while it is being sent. Its bytes did not, as far as the kernel
    /// reports, and the upload goes on. At most once an upload.
    SourceTouched {
        /// The change that was found first.
        change: Change,
    },
    /// The chunks of an earlier run were compared with the file by their digests, and all are equal. The file's times
    /// alone do not show whether the file changed since.
    Proved {
        /// The container.
        video_id: String,
        /// Chunks that were compared.
        chunks: u32,
        /// File bytes in them.
        bytes: u64,
    },
    /// The upload starts over with a new video: the file differs, or may differ, from the one whose chunks were
    /// sent.
    BeginsAnew {
        /// The container that was being filled. With [`OnChange::Restart`](crate::OnChange::Restart) it is deleted,
        /// otherwise it is left as it is.
        video_id: Option<String>,
        /// The reason, in words.
        why: String,
    },
    /// With an upload token alone: the first chunk may have created a video that no answer named. Only the API key
    /// can find it; its title is the file's name. The upload creates another video.
    StrayVideo,
    /// The reader was too slow and lost the oldest events.
    Missed {
        /// Number of lost events.
        count: u64,
    },
}

/// Summary of a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailureSummary {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The service's name for the problem, when it refused.
    pub slug: Option<String>,
    /// The failure in words, with its causes.
    pub message: String,
    /// The same without the operation and the video, for lines that name them: `the service answered 503`.
    pub reason: String,
}

impl FailureSummary {
    /// Creates a summary, for the tests of a program that handles events.
    pub fn new(kind: ErrorKind, reason: impl Into<String>) -> FailureSummary {
        let reason = reason.into();
        FailureSummary { kind, slug: None, message: reason.clone(), reason }
    }

    /// The service's name for the problem, or that of the kind.
    pub fn name(&self) -> &str {
        self.slug.as_deref().unwrap_or(self.kind.name())
    }
}

impl From<&Error> for FailureSummary {
    fn from(error: &Error) -> FailureSummary {
        let with_causes = |text: String| error.causes().iter().fold(text, |text, cause| text + ": " + cause);
        let (message, reason) = (with_causes(error.to_string()), with_causes(error.why().to_string()));
        let slug = error.refusal().and_then(|refusal| refusal.slug.clone());
        FailureSummary { kind: error.kind(), slug, message, reason }
    }
}

/// Reason for a status query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusReason {
    /// An upload of an earlier run continues.
    Resume,
    /// The answer to a chunk was lost.
    LostAnswer,
    /// Every chunk was acknowledged, and no answer called the file complete.
    Completion,
}

impl StatusReason {
    /// A stable name, for logs and machine-readable output: `lost_answer`.
    pub fn name(self) -> &'static str {
        match self {
            StatusReason::Resume => "resume",
            StatusReason::LostAnswer => "lost_answer",
            StatusReason::Completion => "completion",
        }
    }
}

impl fmt::Display for StatusReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StatusReason::Resume => "an earlier run began it",
            StatusReason::LostAnswer => "the answer to a chunk was lost",
            StatusReason::Completion => "no answer said that the file is complete",
        })
    }
}

/// Explanation of [`UploadEvent::StrayVideo`], and the way to remove the video.
pub const STRAY_VIDEO: &str = "the answer to the first chunk was lost: the service may have made a video from it \
    that nothing names; with the API key it can be found by its title, the file's name, and deleted if it is not \
    complete";

/// Capacity of the event queue of one follower. Beyond it the oldest events are lost.
pub(crate) const QUEUE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_names_the_slug_and_every_cause() {
        let inner = std::io::Error::other("reset by peer");
        let error = Error::new(ErrorKind::Unavailable, "send chunk 1").with_source(inner);
        let why = FailureSummary::from(&error);
        assert_eq!(why.name(), "unavailable");
        assert!(why.message.ends_with("as it should: reset by peer"), "{}", why.message);
        assert!(why.message.contains("send chunk 1: "), "{}", why.message);
    }

    #[test]
    fn the_reason_names_neither_the_operation_nor_the_video() {
        let error = Error::new(ErrorKind::Stalled, "send chunk 1 of a: b.mp4").with_video_id("vi1");
        assert_eq!(FailureSummary::from(&error).reason, "the transfer timed out");
    }
}
