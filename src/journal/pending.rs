//! Changes that are written with the next claim, to save a transaction.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::Transaction;

use super::claimed_entry::ClaimedEntry;
use super::error::JournalError;
use super::finished::{self, FinishedRow};
use super::lock::SessionLock;
use super::session_table;

/// Changes that the next claim writes in its own transaction.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Sessions to delete, and the rows that remember their files.
    finished: Vec<(ClaimedEntry, Option<FinishedRow>)>,
    /// The ids of rows about finished files to delete.
    forgotten: Vec<i64>,
    /// The current time, if the next transaction has to delete outdated rows.
    sweep_at: Option<SystemTime>,
    /// `true` if outdated rows were deleted. Done once for each opened journal, as it reads all rows.
    is_swept: bool,
}

impl Pending {
    /// Deletes the session with the next write.
    pub(super) fn forget(&mut self, claimed: ClaimedEntry) {
        self.finished.push((claimed, None));
    }

    /// Deletes the session and inserts `row` with the next write. Returns the id of the row.
    pub(super) fn remember(
        &mut self,
        claimed: ClaimedEntry,
        row: Option<FinishedRow>,
        now: SystemTime,
    ) -> Option<i64> {
        let id = row.as_ref().map(|row| row.id);
        if !self.is_swept {
            self.sweep_at = Some(now);
        }
        self.finished.push((claimed, row));
        id
    }

    /// Deletes the row with this id with the next write. A row that is not yet written is dropped.
    pub(super) fn forget_finished(&mut self, id: i64) {
        let is_it = |row: &mut FinishedRow| row.id == id;
        if !self.finished.iter_mut().any(|(_, row)| row.take_if(is_it).is_some()) {
            self.forgotten.push(id);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.forgotten.is_empty()
    }

    /// Writes all changes. The caller calls [`Pending::written`] after the commit.
    pub(super) fn write(&self, transaction: &Transaction<'_>, path: &Path) -> Result<(), JournalError> {
        if let Some(now) = self.sweep_at {
            finished::delete_outdated(transaction, now, path)?;
        }
        for (claimed, row) in &self.finished {
            if let Some(row) = row {
                // With the deletion in one transaction: the file has its session, or this row.
                finished::insert(transaction, row, path)?;
            }
            session_table::delete(transaction, claimed.row.id, path)?;
        }
        finished::delete(transaction, &self.forgotten, path)
    }

    /// Takes the locks of the deleted sessions.
    pub(super) fn written(&mut self) -> impl Iterator<Item = SessionLock> {
        // Not before the commit: a transaction that failed has to delete them again.
        self.is_swept |= self.sweep_at.take().is_some();
        self.forgotten.clear();
        self.finished.drain(..).map(|(claimed, _)| claimed.into_lock())
    }
}
