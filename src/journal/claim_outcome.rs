//! The conditions of a claim, and its results.

use super::claimed_entry::ClaimedEntry;
use super::entry::{Finished, SavedProgress};

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
