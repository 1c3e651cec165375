//! Stands in for `mod.rs` in a build without the feature `journal`.
//!
//! The types of sessions are the same. No [`Journal`] and no [`ClaimedEntry`] exists: [`Journal::open`] always fails,
//! and so nothing needs SQLite.

mod claim_outcome;
mod container;
mod endpoint;
mod entry;
mod error;
mod identity;
// What only the files of `mod.rs` use.
#[allow(dead_code)]
mod key;

use std::path::Path;
use std::time::SystemTime;

use crate::source::ChunkDigest;
use crate::wire::Plan;
pub use claim_outcome::{Claim, ClaimOptions};
pub use claimed_entry::ClaimedEntry;
pub use container::{ContainerState, CreatedBy};
pub use entry::{Entry, EntryState, Finished, SavedProgress};
pub use error::JournalError;
pub use identity::{Comparison, FileSystem, SourceIdentity, compare};
pub use key::{EntryDestination, EntrySource, Key, TokenDigest};

mod claimed_entry {
    /// A claimed session, which this build has none of.
    #[derive(Debug)]
    pub enum ClaimedEntry {}

    impl ClaimedEntry {
        pub(crate) fn is_new(&self) -> bool {
            match *self {}
        }

        pub(crate) fn is_of_another_token(&self) -> bool {
            match *self {}
        }
    }
}

/// An open journal, which this build has none of.
#[derive(Debug)]
pub enum Journal {}

/// The methods that uploads use; their docs are in `mod.rs`.
impl Journal {
    /// Refuses to open a journal.
    pub(crate) fn open(path: &Path) -> Result<Journal, JournalError> {
        Err(JournalError::LeftOut { path: path.to_owned() })
    }

    pub(crate) fn claim(&mut self, _: &Key, _: &str, _: SystemTime) -> Result<Claim, JournalError> {
        match *self {}
    }

    pub(crate) fn claim_with(
        &mut self,
        _: ClaimOptions,
        _: &Key,
        _: &str,
        _: SystemTime,
    ) -> Result<Claim, JournalError> {
        match *self {}
    }

    pub(crate) fn record_intent(
        &mut self,
        _: &mut ClaimedEntry,
        _: Option<Plan>,
        _: &str,
    ) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn record_proof(&mut self, _: &mut ClaimedEntry, _: &Key) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn withdraw_intent(&mut self, _: &mut ClaimedEntry) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn record_container(
        &mut self,
        _: &mut ClaimedEntry,
        _: Option<Plan>,
        _: &str,
        _: CreatedBy,
    ) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn record_digest(
        &mut self,
        _: &ClaimedEntry,
        _: u32,
        _: ChunkDigest,
    ) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn record_chunk(&mut self, _: &mut ClaimedEntry, _: u32) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn record_completion(
        &mut self,
        _: &mut ClaimedEntry,
        _: Option<Plan>,
        _: &str,
        _: u32,
    ) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn finish(&mut self, _: ClaimedEntry) {
        match *self {}
    }

    pub(crate) fn finish_and_remember(
        &mut self,
        _: ClaimedEntry,
        _: &str,
        _: Option<SourceIdentity>,
        _: SystemTime,
    ) -> Option<i64> {
        match *self {}
    }

    pub(crate) fn forget_finished(&mut self, _: i64) {
        match *self {}
    }

    pub(crate) fn begin_batch(&mut self) {
        match *self {}
    }

    pub(crate) fn commit_batch(&mut self) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn flush(&mut self) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn give_back(&mut self, _: ClaimedEntry) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn abandon(&mut self, _: ClaimedEntry) -> Result<(), JournalError> {
        match *self {}
    }

    pub(crate) fn forget(&mut self, _: ClaimedEntry) -> Result<(), JournalError> {
        match *self {}
    }
}
