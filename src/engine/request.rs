//! One upload as it was asked for, and what came of it.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::{NewVideo, Secret, Video};
use crate::engine::progress::Progress;
use crate::source::Reader;
use crate::wire::Addressing;

/// How a file is cut and addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One request up to the chunk size, byte ranges above it, parts when the length is unknown.
    #[default]
    Auto,
    /// One request without `Content-Range`; at most 200 MiB.
    Single,
    /// `Content-Range: bytes A-B/T`.
    Bytes,
    /// `Content-Range: part N/M`.
    Parts,
}

/// How large chunks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChunkSize {
    /// Chosen from the file's length and the number of lanes.
    #[default]
    Auto,
    /// This many bytes, between 5 MiB and 200 MiB.
    Bytes(u64),
}

/// What an upload does when its file changes while it is being sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnChange {
    /// It ends with [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged).
    #[default]
    Fail,
    /// It deletes the video that it created and begins anew with the file as it is then, three times at
    /// most. A video that was named, or that an upload token fills, is not deleted: the upload fails.
    Restart,
    /// It ends as with [`OnChange::Fail`], and a change of attributes, links or name counts as well. That moves
    /// ctime alone and is otherwise reported as [`UploadEvent::SourceTouched`](crate::UploadEvent::SourceTouched): the kernel moves mtime with every
    /// write, but a program can put mtime back.
    Strict,
}

/// When the journal keeps digests of the chunks, by which a later process proves that a file still has the bytes
/// that were sent.
///
/// They are needed where the file's times cannot tell: after a change of its attributes, links or name, and on file
/// systems that keep no ctime. Without them the upload begins anew then. A digest costs 16 bytes a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// Over TLS, where the bytes pass through this process in any case.
    #[default]
    Auto,
    /// Over plain HTTP too, where the process has to read the bytes for it.
    Always,
    /// None are kept.
    Never,
}

/// What an upload does of which the journal has nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum IfNotBegun {
    /// It begins.
    #[default]
    Begin,
    /// It ends with an error: an earlier one was to be continued.
    Refuse,
}

/// Where the file goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// Into a video that is created for it; needs an API key.
    NewVideo(Box<NewVideo>),
    /// Into a container that exists and is empty; needs an API key.
    Video(String),
    /// To whoever gave the upload token; into its video when one is named.
    Delegated {
        /// The upload token.
        token: Secret,
        /// The container, when it exists already.
        video_id: Option<String>,
    },
}

/// What to upload, where to and how.
#[derive(Debug)]
pub(crate) struct UploadRequest {
    pub(crate) input: SourceSpec,
    pub(crate) destination: Option<Destination>,
    pub(crate) video: NewVideo,
    pub(crate) mode: Mode,
    pub(crate) chunk_size: ChunkSize,
    pub(crate) expected_bytes: Option<u64>,
    pub(crate) on_change: OnChange,
    pub(crate) if_not_begun: IfNotBegun,
    /// Whether a session that another upload token began is left alone.
    pub(crate) own_token_only: bool,
    /// Whether it is sent even if an unfinished command uploaded it.
    pub(crate) again: bool,
    /// What the caller does with the news of success, where that is waited for.
    pub(crate) receipt: Option<watch::Receiver<ReceiptState>>,
}

/// Where the bytes come from.
pub(crate) enum SourceSpec {
    File(PathBuf),
    Reader(String, Box<dyn Read + Send>),
}

impl fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSpec::File(path) => f.debug_tuple("File").field(path).finish(),
            SourceSpec::Reader(name, _) => f.debug_tuple("Reader").field(name).finish(),
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
    /// The video as the service described it in its last answer, where it did.
    pub video: Option<Video>,
    /// The length of the file.
    pub bytes: u64,
    /// How many chunks it was sent in.
    pub chunks: u32,
    /// How they were named on the wire.
    pub addressing: Addressing,
    /// How the file was read; `None` for a stream.
    pub reader: Option<Reader>,
    /// Attempts that were repetitions.
    pub retries: u32,
    /// Bytes sent again after failures.
    pub resent_bytes: u64,
    /// From the start of the upload to the service's confirmation.
    pub elapsed: Duration,
    /// Whether an earlier upload of the same file was remembered ([`Receipt::remember`](crate::Receipt::remember)), and nothing was sent now.
    pub already: bool,
}

/// Whether an upload is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopRequest {
    No,
    /// When the chunks under way have their answers.
    AfterChunks,
    Now,
}

/// What the caller of an upload has done with the news of its success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiptState {
    /// Nothing yet.
    Pending,
    /// It has arrived, and the work that the upload is part of is not over.
    Remembered,
    /// It has arrived.
    Confirmed,
}
