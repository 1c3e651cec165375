//! A claimed session.

use super::container::ContainerState;
use super::key::EntryDestination;
use super::lock::SessionLock;
use super::row::SessionRow;

/// A claimed session. Dropping it releases the claim and keeps the session in the journal, to be resumed.
#[derive(Debug)]
pub struct ClaimedEntry {
    pub(super) row: SessionRow,
    is_new: bool,
    /// The destination before this claim, if the session began with another upload token.
    pub(super) former: Option<EntryDestination>,
    lock: SessionLock,
}

impl ClaimedEntry {
    /// Creates the claim of a session that was in the journal before.
    pub(super) fn new(row: SessionRow, lock: SessionLock) -> ClaimedEntry {
        ClaimedEntry { row, is_new: false, former: None, lock }
    }

    /// Creates the claim of a new session.
    pub(super) fn of_new(row: SessionRow, lock: SessionLock) -> ClaimedEntry {
        ClaimedEntry { row, is_new: true, former: None, lock }
    }

    /// Returns `true` if the journal did not have the session before this claim.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns `true` if the session began with another upload token.
    pub fn is_of_another_token(&self) -> bool {
        self.former.is_some()
    }

    /// Returns the recorded state of the session's container.
    pub fn container(&self) -> &ContainerState {
        self.row.container()
    }

    pub(super) fn into_lock(self) -> SessionLock {
        self.lock
    }
}
