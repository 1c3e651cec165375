//! The request for one upload, and its result.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::{NewVideo, Secret, Video};
use crate::engine::progress::Progress;
use crate::source::Reader;
use crate::wire::Addressing;

/// The addressing of an upload's chunks.
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

/// The chunk size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChunkSize {
    /// The size is chosen from the file's length and the number of lanes.
    #[default]
    Auto,
    /// This many bytes, between 5 MiB and 200 MiB.
    Bytes(u64),
}

/// The reaction of an upload to a change of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnChange {
    /// The upload ends with [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged).
    #[default]
    Fail,
    /// The upload deletes the video that it created and begins anew with the changed file, three times at most. A
    /// video that was named, or that an upload token fills, is not deleted: the upload fails.
    Restart,
    /// The upload ends as with [`OnChange::Fail`], and a change of attributes, links or name counts as well. Such a
    /// change moves only ctime. Without this option it is reported as
    /// [`UploadEvent::SourceTouched`](crate::UploadEvent::SourceTouched). Every write moves mtime, but a program can
    /// set mtime back.
    Strict,
}

/// The policy for digests of chunks in the journal. A later process compares them with the file to prove that it
/// still has the bytes that were sent.
///
/// Digests are needed if the file's times cannot exclude a change: after a change of attributes, links or name, and
/// on file systems without ctime. Without digests such an upload begins anew. A digest takes 16 bytes per chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// Keeps digests over TLS, where the bytes pass through this process in any case.
    #[default]
    Auto,
    /// Keeps digests over plain HTTP too, where the process must read the bytes for them.
    Always,
    /// Keeps no digests.
    Never,
}

/// The reaction to an upload that has no entry in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum IfNotBegun {
    /// The upload begins.
    #[default]
    Begin,
    /// The upload ends with an error: an earlier one was to be continued.
    Refuse,
}

/// The destination of the file.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// A video that is created for the file; needs an API key.
    NewVideo(Box<NewVideo>),
    /// A container that exists and is empty; needs an API key.
    Video(String),
    /// The account of the upload token; an existing video if `video_id` names one.
    Delegated {
        /// The upload token.
        token: Secret,
        /// The container, if it exists already.
        video_id: Option<String>,
    },
}

/// The source, the destination and the options of an upload.
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
    /// `true` to leave an upload alone that another upload token began.
    pub(crate) own_token_only: bool,
    /// `true` to send the file even if an unfinished command has uploaded it.
    pub(crate) again: bool,
    /// The state of the caller's receipt; `None` if success needs no receipt.
    pub(crate) receipt: Option<watch::Receiver<ReceiptState>>,
}

/// The source of the bytes.
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
    /// The video as described in the service's last answer; `None` if that answer had no description.
    pub video: Option<Video>,
    /// The length of the file.
    pub bytes: u64,
    /// The number of chunks.
    pub chunks: u32,
    /// The addressing of the chunks on the wire.
    pub addressing: Addressing,
    /// The reader of the file; `None` for a stream.
    pub reader: Option<Reader>,
    /// Attempts that were repetitions.
    pub retries: u32,
    /// Bytes sent again after failures.
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

/// The state of the caller's receipt for a successful upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiptState {
    /// The caller has not received the result.
    Pending,
    /// The caller has received the result, but the larger work that it belongs to is not over.
    Remembered,
    /// The caller has received the result.
    Confirmed,
}
