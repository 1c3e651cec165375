//! The request for one upload, and its result.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::api::Video;
use crate::engine::checkpoint::Checkpoint;
use crate::engine::options::UploadOptions;
use crate::engine::progress::Progress;
use crate::engine::receipt::ReceiptState;
use crate::engine::stream_input::StreamInput;
use crate::source::Reader;
use crate::wire::Addressing;

/// The reaction to an upload that has no entry in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum IfNotBegun {
    /// The upload begins.
    #[default]
    Begin,
    /// The upload ends with an error: an earlier one was to be continued.
    Refuse,
}

/// The source, the options and the terms of an upload.
#[derive(Debug)]
pub(crate) struct UploadRequest {
    pub(crate) input: SourceSpec,
    /// The length of the source in bytes, if the caller stated it.
    pub(crate) len: Option<u64>,
    pub(crate) options: UploadOptions,
    pub(crate) terms: JournalTerms,
    /// The state from which the upload continues, beside that of the journal.
    pub(crate) checkpoint: Option<Box<Checkpoint>>,
    /// The mark of the video that every host derives for the same job; `None` for a mark of this upload only.
    pub(crate) job_mark: Option<JobMark>,
    /// The state of the caller's receipt; `None` if success needs no receipt.
    pub(crate) receipt: Option<watch::Receiver<ReceiptState>>,
}

/// A question that is asked before the first byte is sent to a video: another host may have the job by then. The answer
/// is `true` if the upload may go on.
#[derive(Clone)]
pub(crate) struct ContainerGate(Arc<dyn Fn(String) -> BoxFuture<'static, bool> + Send + Sync>);

impl ContainerGate {
    /// Creates a gate that asks about the id of a video.
    #[allow(dead_code)] // Bulk runs use it, which a build may leave out.
    pub(crate) fn new(
        ask: impl Fn(String) -> BoxFuture<'static, bool> + Send + Sync + 'static,
    ) -> ContainerGate {
        ContainerGate(Arc::new(ask))
    }

    /// Asks whether the upload may fill this video.
    pub(crate) fn ask(&self, video_id: &str) -> BoxFuture<'static, bool> {
        (self.0)(video_id.to_owned())
    }
}

impl fmt::Debug for ContainerGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerGate")
    }
}

/// A mark of a video that other hosts use, too.
#[derive(Clone, Debug)]
pub(crate) struct JobMark {
    pub(crate) text: String,
    /// `true` if another worker may have created the video moments ago.
    pub(crate) may_exist: bool,
    /// `true` if another worker had chunks acknowledged in the video that the options name.
    pub(crate) has_begun: bool,
    /// The video that the workers have agreed on, if they have.
    pub(crate) container: Option<String>,
    pub(crate) gate: Option<ContainerGate>,
}

/// The terms on which an upload uses its entry in the journal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JournalTerms {
    pub(crate) if_not_begun: IfNotBegun,
    /// `true` to leave an upload alone that another upload token began.
    pub(crate) own_token_only: bool,
    /// `true` to send the file even if an unfinished command has uploaded it.
    pub(crate) again: bool,
}

/// The source of the bytes.
pub(crate) enum SourceSpec {
    File(PathBuf),
    /// Bytes in memory, with their name.
    Memory(String, Bytes),
    /// A stream, with its name.
    Stream(String, StreamInput),
}

impl fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSpec::File(path) => f.debug_tuple("File").field(path).finish(),
            SourceSpec::Memory(name, _) => f.debug_tuple("Memory").field(name).finish(),
            SourceSpec::Stream(name, _) => f.debug_tuple("Stream").field(name).finish(),
        }
    }
}

pub(crate) struct OnProgress(pub(crate) Box<dyn FnMut(&Progress) + Send>);

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// An upload that the service confirmed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Uploaded {
    /// The video that holds the file.
    pub video_id: String,
    /// The video as described in the service's last answer; `None` if that answer had no description.
    pub video: Option<Video>,
    /// The length of the file.
    pub bytes: u64,
    /// The bytes of the file that this upload has sent. An earlier, interrupted upload may have sent the others.
    /// Repetitions do not count.
    pub sent_bytes: u64,
    /// The number of chunks.
    pub chunks: u32,
    /// The addressing of the chunks on the wire.
    pub addressing: Addressing,
    /// The reader of the file; `None` for a stream and for bytes in memory.
    pub reader: Option<Reader>,
    /// Attempts that were repetitions.
    pub retries: u32,
    /// Bytes of the chunks that were sent again after failures, each in full whatever part of it the failed attempt had
    /// sent. Chunks that are sent again after 429, or after 401 with renewed credentials, do not count.
    pub resent_bytes: u64,
    /// The time from the start of the upload to the service's confirmation.
    pub elapsed: Duration,
    /// `true` if an earlier upload of the same file was remembered ([`Receipt::remember`](crate::Receipt::remember))
    /// and nothing was sent now.
    pub already: bool,
}

/// The request to end an upload early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopRequest {
    No,
    /// Ends the upload when the chunks under way are answered.
    AfterChunks,
    Now,
}
