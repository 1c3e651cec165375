//! The request of one chunk, from a transfer to a lane.

use std::sync::Arc;

use http::HeaderValue;
use tokio::sync::watch;

use crate::api::Redactor;
use crate::source::{Choice, FileIdentity, HeldChunk, SourceError, SourceFile};
use crate::wire::{Chunk, ContentRange};

/// The number of a session, unique within an engine.
pub(crate) type SessionId = u64;

/// One chunk for one lane.
#[derive(Debug)]
pub(crate) struct ChunkRequest {
    pub(crate) session: SessionId,
    /// The operation in words, for errors.
    pub(crate) doing: String,
    pub(crate) chunk: Chunk,
    pub(crate) chunk_source: ChunkSource,
    /// Path and query of the upload.
    pub(crate) target: String,
    pub(crate) content_range: Option<ContentRange>,
    pub(crate) authorization: Option<HeaderValue>,
    /// The secrets of the request that an answer may repeat.
    pub(crate) redactor: Redactor,
    /// The form field `videoId` of a delegated upload.
    pub(crate) video_id_field: Option<String>,
    pub(crate) file_name: Arc<str>,
    /// `true` if the lane reports the chunk's digest.
    pub(crate) digests: bool,
    /// Becomes `true` when the session is over.
    pub(crate) cancelled: watch::Receiver<bool>,
}

/// The source of an order's bytes.
#[derive(Clone, Debug)]
pub(crate) enum ChunkSource {
    File(SourceFile, Choice),
    Held(HeldChunk),
}

impl ChunkSource {
    /// Checks that the source has not changed since it was opened. Returns the identity of its file; `None` for bytes in
    /// memory.
    pub(crate) fn check_unchanged(&self) -> Result<Option<FileIdentity>, SourceError> {
        match self {
            ChunkSource::File(file, _) => file.check_unchanged().map(Some),
            ChunkSource::Held(_) => Ok(None),
        }
    }
}
