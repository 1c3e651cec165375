//! What is written down with the next claim, since each transaction costs.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::Transaction;

use super::claim::ClaimedEntry;
use super::error::JournalError;
use super::finished::{self, FinishedRow};

/// Changes that the next claim writes down beside itself, or a transaction of their own.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Sessions to be forgotten, and what is saved of their files.
    finished: Vec<(ClaimedEntry, Option<FinishedRow>)>,
    /// Notes about finished files that are to be forgotten.
    forgotten: Vec<i64>,
    /// The time by which outdated notes are to be deleted with the next transaction.
    sweep_at: Option<SystemTime>,
    /// Whether that was done: it reads all notes, so that once for each opened journal must suffice.
    is_swept: bool,
}

impl Pending {
    /// The session is no more.
    pub(super) fn forget(&mut self, claimed: ClaimedEntry) {
        self.finished.push((claimed, None));
    }

    /// The session is no more, and its file is saved. Returns the number of the note.
    pub(super) fn remember(
        &mut self,
        claimed: ClaimedEntry,
        note: Option<FinishedRow>,
        now: SystemTime,
    ) -> Option<i64> {
        let id = note.as_ref().map(|note| note.id);
        if !self.is_swept {
            self.sweep_at = Some(now);
        }
        self.finished.push((claimed, note));
        id
    }

    /// The note is no more. One that is not yet written never is.
    pub(super) fn forget_note(&mut self, id: i64) {
        let is_it = |note: &mut FinishedRow| note.id == id;
        if !self.finished.iter_mut().any(|(_, note)| note.take_if(is_it).is_some()) {
            self.forgotten.push(id);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.forgotten.is_empty()
    }

    /// Writes everything down. [`Pending::written`] follows once that is committed.
    pub(super) fn write(&self, transaction: &Transaction<'_>, path: &Path) -> Result<(), JournalError> {
        if let Some(now) = self.sweep_at {
            finished::delete_outdated(transaction, now, path)?;
        }
        for (claimed, note) in &self.finished {
            if let Some(note) = note {
                finished::insert(transaction, note, path)?;
            }
            super::delete(transaction, claimed, path)?;
        }
        finished::delete(transaction, &self.forgotten, path)
    }

    /// Takes the claimed whose sessions are no more.
    pub(super) fn written(&mut self) -> impl Iterator<Item = ClaimedEntry> {
        self.is_swept |= self.sweep_at.take().is_some();
        self.forgotten.clear();
        self.finished.drain(..).map(|(claimed, _)| claimed)
    }
}
