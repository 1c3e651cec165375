//! Sessions as the journal lists them, and as a claim returns the work of earlier processes.

use std::time::SystemTime;

use super::container::ContainerState;
use super::endpoint;
use super::identity::Comparison;
use super::key::{EntryDestination, EntrySource, Key};
use crate::source::ChunkDigest;
use crate::wire::Plan;

/// One session of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The number of the session in the journal. Numbers are never used again.
    pub id: i64,
    /// The service, source and destination.
    pub key: Key,
    /// The state of the session.
    pub state: EntryState,
    /// The container.
    pub container: ContainerState,
    /// The plan; `None` until it is recorded, and for a stream.
    pub plan: Option<Plan>,
    /// The number of chunks that the service acknowledged.
    pub stored_chunks: u32,
    /// The arguments with which the session was last claimed.
    pub arguments: String,
    /// The time of the first claim, in whole seconds.
    pub began: SystemTime,
}

/// The state of a listed session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// A process holds the session's lock.
    Running {
        /// The id of that process; `None` if the lock file does not name it.
        pid: Option<u32>,
    },
    /// The process ended before the session did.
    Interrupted,
    /// The session was abandoned and is not resumed.
    Abandoned,
    /// The lock file belongs to another user and cannot be opened. A process may hold it.
    OutOfReach,
}

impl Entry {
    /// Returns `true` if an upload with the same key would resume the session.
    pub fn is_resumable(&self) -> bool {
        // The bytes of a stream are gone with its process.
        self.state == EntryState::Interrupted && matches!(self.key.source, EntrySource::File { .. })
    }

    /// Returns `true` if the session belongs to the service at this base URL. The spelling of the URL is irrelevant.
    pub fn is_at(&self, endpoint: &str) -> bool {
        endpoint::is_same(&self.key.endpoint, endpoint)
    }

    /// Returns `true` if an upload with another upload token can resume the session: its video and plan are known.
    pub fn continues_with_any_token(&self) -> bool {
        let is_delegated = matches!(
            self.key.destination,
            EntryDestination::Token(_) | EntryDestination::TokenAndVideo { .. }
        );
        is_delegated && self.plan.is_some() && matches!(self.container, ContainerState::Known { .. })
    }

    /// Returns `true` if there may be a video that neither an id nor a mark identifies. This happens when the
    /// answer to the first chunk of a delegated upload is lost.
    pub fn may_have_untraced_video(&self) -> bool {
        matches!(
            (&self.container, &self.key.destination),
            (ContainerState::Intended { .. }, EntryDestination::Token(_))
        )
    }

    /// Returns the id of a container that the session created and that no process is filling. It can be deleted.
    pub fn orphan(&self) -> Option<&str> {
        match self.state {
            // A process may be filling the container: deleting it would destroy that upload.
            EntryState::Running { .. } | EntryState::OutOfReach => None,
            EntryState::Interrupted | EntryState::Abandoned => self.container.own_video_id(),
        }
    }
}

/// The progress of an earlier process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedProgress {
    /// The container. One in the state [`ContainerState::Intended`] may exist nevertheless.
    pub container: ContainerState,
    /// The plan; `None` if none was recorded.
    pub plan: Option<Plan>,
    /// The indexes of the chunks that the service acknowledged, ascending.
    pub stored: Vec<u32>,
    /// The file compared with the one whose chunks were sent. Never [`Comparison::Another`].
    pub comparison: Comparison,
    /// The digests of chunks that were sent whole, with their indexes, ascending. `None` marks a digest that no
    /// file can match.
    pub digests: Vec<(u32, Option<ChunkDigest>)>,
}

/// A file that an earlier command uploaded before the command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The number of the row in the journal.
    pub id: i64,
    /// The video that holds the file.
    pub video_id: String,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The plan; `None` if none was recorded.
    pub plan: Option<Plan>,
}
