//! Changes that are written with the next claim, to save a transaction.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::Connection;

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
    /// The changes that the open transaction has, at the front of the two lists.
    in_transaction: (usize, usize),
    /// The changes that were there when the batch began, at the front of the two lists.
    before_batch: (usize, usize),
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
        // A row that the open transaction has is deleted by the next one.
        let unwritten = self.finished.iter_mut().skip(self.in_transaction.0);
        if !unwritten.into_iter().any(|(_, row)| row.take_if(is_it).is_some()) {
            self.forgotten.push(id);
        }
    }

    /// Returns `true` if no change waits for a transaction.
    pub(super) fn is_empty(&self) -> bool {
        self.in_transaction == self.counts()
    }

    /// Writes the changes that the open transaction does not have. The caller calls [`Pending::written`] after the commit.
    pub(super) fn write(&mut self, connection: &Connection, path: &Path) -> Result<(), JournalError> {
        let (finished, forgotten) = self.in_transaction;
        if let Some(now) = self.sweep_at {
            finished::delete_outdated(connection, now, path)?;
        }
        for (claimed, row) in &self.finished[finished..] {
            if let Some(row) = row {
                // With the deletion in one transaction: the file has its session, or this row.
                finished::insert(connection, row, path)?;
            }
            session_table::delete(connection, claimed.row.id, path)?;
        }
        finished::delete(connection, &self.forgotten[forgotten..], path)?;
        self.in_transaction = self.counts();
        Ok(())
    }

    /// Begins a batch, whose failure drops the changes that are added to it.
    pub(super) fn begin_batch(&mut self) {
        self.before_batch = self.counts();
    }

    /// Takes the locks of the deleted sessions.
    pub(super) fn written(&mut self) -> impl Iterator<Item = SessionLock> {
        let (finished, forgotten) = std::mem::take(&mut self.in_transaction);
        // Not before the commit: a transaction that failed has to delete them again.
        self.is_swept |= self.sweep_at.take_if(|_| finished > 0).is_some();
        self.forgotten.drain(..forgotten);
        self.finished.drain(..finished).map(|(claimed, _)| claimed.into_lock())
    }

    /// Takes in that the transaction was undone. The changes stay for the next one.
    pub(super) fn not_written(&mut self) {
        self.in_transaction = (0, 0);
    }

    /// Takes in that the batch was undone. The changes that were added to it are dropped, which leaves their sessions in
    /// the journal: a change may depend on a record that was undone with it.
    pub(super) fn undone(&mut self) {
        self.not_written();
        self.finished.truncate(self.before_batch.0);
        self.forgotten.truncate(self.before_batch.1);
    }

    fn counts(&self) -> (usize, usize) {
        (self.finished.len(), self.forgotten.len())
    }
}
