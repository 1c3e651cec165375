//! What happens to an upload on its way, one thing at a time: for programs and for the log.
//!
//! Whoever follows reads from a queue of [`QUEUE`] entries. Nothing waits for a slow reader: it loses
//! the oldest and is told how many.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::pacing::{Class, ThrottleReason};
use crate::session::retry::Fate;
use crate::source::Change;

/// Something that happened to an upload. None of it holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadEvent {
    /// An earlier run's upload is taken up; what the service has of it is not sent again.
    Resumed {
        /// The container.
        video_id: String,
        /// Chunks that are there.
        chunks: u32,
        /// File bytes in them.
        bytes: u64,
    },
    /// The service has a chunk: it answered so, or showed it when it was asked.
    ChunkDone {
        /// Which one, counted from 0.
        index: u32,
        /// Its file bytes.
        bytes: u64,
        /// The attempt that brought it there, counted from 1.
        attempt: u32,
        /// From that attempt's start until it was known.
        elapsed: Duration,
    },
    /// An attempt failed, and is made again.
    Retry {
        /// The chunk, counted from 0; `None` for the creation of the video.
        index: Option<u32>,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// Why.
        why: Why,
        /// Until the next one.
        delay: Duration,
        /// What was known of the chunk when the attempt failed.
        fate: Fate,
    },
    /// Requests of a class wait for longer than their turn.
    Throttled {
        /// Which requests.
        class: Class,
        /// What holds them back.
        why: ThrottleReason,
        /// For how long.
        delay: Duration,
    },
    /// The service is asked what it holds.
    StatusAsked {
        /// The container.
        video_id: String,
        /// What for.
        reason: StatusReason,
    },
    /// The file's attributes, links or name changed while it is being sent. Its bytes did not, as far as the kernel
    /// reports, and the upload goes on. At most once an upload.
    SourceTouched {
        /// The change that was found first.
        change: Change,
    },
    /// The file's times cannot tell whether it changed since an earlier run sent chunks of it. These chunks were
    /// compared with the file by their digests, and all of them are equal.
    Proved {
        /// The container.
        video_id: String,
        /// Chunks that were compared.
        chunks: u32,
        /// File bytes in them.
        bytes: u64,
    },
    /// The upload begins anew, with a video of its own: the file is not, or may not be, the one of which chunks were
    /// sent.
    BeginsAnew {
        /// The container that was being filled. With [`OnChange::Restart`](crate::OnChange::Restart) it is deleted,
        /// otherwise it is left as it is.
        video_id: Option<String>,
        /// The reason, in words.
        why: String,
    },
    /// With an upload token alone: the first chunk may have made a video that no answer named. It cannot be
    /// found without the API key, is titled like the file, and the upload makes another one.
    StrayVideo,
    /// The reader was slow: this many events are lost to it, the oldest ones.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The service's name for the problem, when it refused.
    pub slug: Option<String>,
    /// In words, with the causes.
    pub message: String,
}

impl Why {
    /// The service's name for the problem, or that of the kind.
    pub fn name(&self) -> &str {
        self.slug.as_deref().unwrap_or(self.kind.name())
    }
}

impl From<&Error> for Why {
    fn from(error: &Error) -> Why {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message += &format!(": {text}");
            }
            next = cause.source();
        }
        let slug = error.refusal().and_then(|refusal| refusal.slug.clone());
        Why { kind: error.kind(), slug, message }
    }
}

/// What the service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusReason {
    /// An earlier run's upload is taken up.
    Resume,
    /// The answer to a chunk was lost.
    LostAnswer,
    /// Every chunk was acknowledged, and no answer said that the file is complete.
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

/// What [`UploadEvent::StrayVideo`] means and what to do about it.
pub const STRAY_VIDEO: &str = "the answer to the first chunk was lost: the service may have made a video from it \
    that nothing names; whoever has the API key finds it by its title, the file's name, and can delete what is \
    not complete";

/// Events that wait for a reader of one upload; beyond that, the oldest are lost.
pub const QUEUE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_names_the_slug_and_every_cause() {
        let inner = std::io::Error::other("reset by peer");
        let error = Error::new(ErrorKind::Unavailable, "send chunk 1").with_source(inner);
        let why = Why::from(&error);
        assert_eq!(why.name(), "unavailable");
        assert!(why.message.ends_with("as it should: reset by peer"), "{}", why.message);
    }
}
