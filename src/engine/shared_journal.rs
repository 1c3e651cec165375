//! The journal of an engine, with the counter of its failures.

use std::cell::{RefCell, RefMut};
use std::sync::Arc;

use crate::engine::counters::Counters;
use crate::journal::Journal;

/// The journal that all uploads of an engine share. Only the driver's thread uses it.
#[derive(Debug)]
pub(crate) struct SharedJournal {
    journal: RefCell<Journal>,
    counters: Arc<Counters>,
}

impl SharedJournal {
    pub(crate) fn new(journal: Journal, counters: Arc<Counters>) -> SharedJournal {
        SharedJournal { journal: RefCell::new(journal), counters }
    }

    pub(crate) fn borrow_mut(&self) -> RefMut<'_, Journal> {
        self.journal.borrow_mut()
    }

    /// Counts a record that the journal did not take, if the upload goes on without it.
    pub(crate) fn count_failure(&self) {
        self.counters.journal_failed();
    }
}
