//! The conditions of a claim, and its results.

use super::claimed_entry::ClaimedEntry;
use super::container::ContainerState;
use super::identity::Comparison;
use crate::source::ChunkDigest;
use crate::wire::Plan;

/// The result of claiming a session.
#[derive(Debug)]
pub enum Claim {
    /// The session is claimed, and no container was recorded for it.
    Fresh(ClaimedEntry),
    /// The session is claimed, and an earlier process began it.
    Resume(ClaimedEntry, SavedProgress),
    /// Another process has claimed the session.
    Busy {
        /// The id of that process; `None` if the lock file does not name it.
        pid: Option<u32>,
    },
    /// A command that did not succeed as a whole has uploaded the file already.
    Finished(Finished),
}

/// Conditions of a claim. The default answers [`Claim::Finished`] and resumes sessions of other upload tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimOptions {
    /// `true` to upload a file anew that an unfinished command has uploaded already.
    pub again: bool,
    /// `true` to leave sessions alone that began with another upload token.
    pub own_token_only: bool,
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
