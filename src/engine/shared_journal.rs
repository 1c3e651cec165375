//! The journal of an engine, with the counter of its failures.

use std::cell::{Cell, RefCell, RefMut};
use std::sync::Arc;

use crate::engine::counters::Counters;
use crate::error::Error;
use crate::journal::Journal;

/// The journal that all uploads of an engine share. Only the driver's thread uses it.
#[derive(Debug)]
pub(crate) struct SharedJournal {
    journal: RefCell<Journal>,
    counters: Arc<Counters>,
    /// The number of the current batch, from 1.
    batch: Cell<u64>,
}

impl SharedJournal {
    pub(crate) fn new(journal: Journal, counters: Arc<Counters>) -> SharedJournal {
        SharedJournal { journal: RefCell::new(journal), counters, batch: Cell::new(1) }
    }

    pub(crate) fn borrow_mut(&self) -> RefMut<'_, Journal> {
        self.journal.borrow_mut()
    }

    /// Returns the number of the current batch.
    pub(crate) fn batch(&self) -> u64 {
        self.batch.get()
    }

    /// Lets the records until [`SharedJournal::commit_batch`] share a transaction.
    pub(crate) fn begin_batch(&self) {
        self.journal.borrow_mut().begin_batch();
    }

    /// Commits the batch, and begins the next number.
    ///
    /// # Errors
    /// The number of the batch and the cause, if the journal does not have its records.
    pub(crate) fn commit_batch(&self) -> Result<(), (u64, Error)> {
        let batch = self.batch.replace(self.batch.get() + 1);
        let committed = self.journal.borrow_mut().commit_batch();
        committed.map_err(|error| {
            self.count_failure();
            (batch, error.into())
        })
    }

    /// Counts a record that the journal did not take, if the upload goes on without it.
    pub(crate) fn count_failure(&self) {
        self.counters.journal_failed();
    }
}
