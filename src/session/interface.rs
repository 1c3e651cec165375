//! What a session is told and what it asks for.

use crate::error::Error;
use crate::extent::Extent;
use crate::session::chunks::Layout;
use crate::session::retry::{Fate, RetryPolicy};
use crate::wire::{Chunk, ContentRange};

/// What the credentials allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// An API key: containers can be created, their status can be asked.
    Key,
    /// An upload token alone: the first chunk makes the video, nothing can be asked.
    Token,
}

/// Where an earlier process left off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// The indexes of the chunks that were acknowledged.
    pub stored: Vec<u32>,
}

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How the bytes become chunks.
    pub cut: Layout,
    /// What the credentials allow.
    pub access: CredentialKind,
    /// The container, when there is one already.
    pub video_id: Option<String>,
    /// Present when an earlier process began to fill the container.
    pub resumed: Option<Resumed>,
    /// How often and how long to try.
    pub policy: RetryPolicy,
}

/// What one attempt at one chunk came to.
#[derive(Debug)]
pub enum Outcome {
    /// The service took the chunk.
    Accepted {
        /// The container that it went into.
        video_id: String,
        /// Whether the service said that the set is complete.
        completion: Completion,
    },
    /// It did not, or it is not known.
    Failed {
        /// What happened.
        error: Error,
        /// What is known of the chunk.
        fate: Fate,
    },
}

/// Whether an answer said that the service holds the complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It does.
    Complete,
    /// Chunks are missing, or it did not say.
    Open,
}

/// What the service says it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedSet {
    /// Stored byte ranges.
    pub extents: Vec<Extent>,
    /// Stored part numbers, counted from 1.
    pub parts: Vec<u32>,
    /// The length of the ingested file, once it is known.
    pub file_bytes: Option<u64>,
    /// Whether the upload is over for the service.
    pub complete: bool,
    /// Whether the status says nothing at all of what arrived: an older service, or one that keeps no count.
    pub lists_nothing: bool,
}

/// What the driver must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAction {
    /// Create the container, then call [`handle_created`](super::Session::handle_created).
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
pub struct ChunkToSend {
    /// The chunk.
    pub chunk: Chunk,
    /// Its name on the wire; `None` for a single request.
    pub content_range: Option<ContentRange>,
    /// The container; `None` for the first chunk of a delegated upload.
    pub video_id: Option<String>,
    /// Counted from 1.
    pub attempt: u32,
}
