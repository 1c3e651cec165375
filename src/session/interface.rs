//! Inputs and outputs of a session.

use crate::error::Error;
use crate::extent::Extent;
use crate::session::chunks::Layout;
use crate::session::retry::{Fate, RetryPolicy};
use crate::wire::{Chunk, ContentRange};

/// Kind of credentials, which decides whether the status can be queried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialKind {
    /// An API key: creates containers and queries their status.
    Key,
    /// An upload token alone: the first chunk creates the video, and no status can be queried.
    Token,
}

/// Progress of an earlier process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// Indexes of the acknowledged chunks.
    pub stored: Vec<u32>,
}

/// Configuration of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    /// Division of the source into chunks.
    pub cut: Layout,
    /// Kind of credentials in use.
    pub access: CredentialKind,
    /// The container; `None` if it must be created.
    pub video_id: Option<String>,
    /// Progress of an earlier process; `None` for a new upload.
    pub resumed: Option<Resumed>,
    /// `true` if other hosts may send the same source to the container that is created.
    pub is_shared: bool,
    /// Limits of retries.
    pub policy: RetryPolicy,
}

/// Result of one attempt at one chunk.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The service took the chunk.
    Accepted {
        /// The container that it went into.
        video_id: String,
        /// [`Completion::Complete`] if the answer called the video complete.
        completion: Completion,
    },
    /// The attempt failed; the service may still have stored the chunk.
    Failed {
        /// The failure.
        error: Error,
        /// Knowledge of the chunk.
        fate: Fate,
    },
}

/// Statement of an answer about the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// The service holds every byte.
    Complete,
    /// Chunks are missing, or the answer does not state it.
    Open,
}

/// Received bytes as listed by a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReceivedSet {
    /// Stored byte ranges.
    pub extents: Vec<Extent>,
    /// Stored part numbers, counted from 1.
    pub parts: Vec<u32>,
    /// The length of the ingested file, once it is known.
    pub file_bytes: Option<u64>,
    /// `true` if the service has ingested the file.
    pub complete: bool,
    /// `true` if the status lists neither ranges nor parts: an older service, or one that keeps no count.
    pub lists_nothing: bool,
}

/// Next action of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionAction {
    /// Create the container, then call [`handle_created`](super::Session::handle_created) or, if it exists,
    /// [`handle_found`](super::Session::handle_found).
    Create,
    /// Ask for the container's status, then call [`handle_status`](super::Session::handle_status).
    AskStatus,
    /// Renew the credentials, then call [`handle_renewed`](super::Session::handle_renewed).
    Renew,
    /// Take the result by [`take_result`](super::Session::take_result); lanes that still send may be stopped.
    Finish,
}

/// A chunk for a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkToSend {
    /// The chunk.
    pub chunk: Chunk,
    /// Its name on the wire; `None` for a single request.
    pub content_range: Option<ContentRange>,
    /// The container; `None` for the first chunk of a delegated upload.
    pub video_id: Option<String>,
    /// Counted from 1.
    pub attempt: u32,
}
