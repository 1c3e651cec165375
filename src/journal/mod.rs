//! The journal: every container before its first byte, every acknowledged chunk after its answer.
//!
//! One SQLite file in WAL mode, with one row for each session. A row holds the key (service, source, destination), the
//! plan, the container, and one bit for each acknowledged chunk. Ten thousand chunks take 1250 bytes, so that an
//! acknowledgement rewrites one small row and nothing grows. Each row carries a digest of itself, its seal. A row that
//! does not match its seal is an error for every operation that depends on the row.
//!
//! - A container, and the intent to create one by a request of its own, is on the disk when the call returns. Claims,
//!   acknowledgements and ends survive the death of the process. A power failure may lose the newest ones; those chunks
//!   are sent again then.
//! - A session is claimed by a lock (flock(2)) on a file beside the journal. The row holds the number of that file.
//!   The kernel releases the lock when the process ends, however it ends.
//! - The journal contains no secret: of an upload token it holds only the SHA-256.
//!
//! The journal does not depend on the service, the clock or the place of its file, and does not decide what happens to
//! its sessions.

mod chunk_set;
mod claim;
mod claim_outcome;
mod claimed_entry;
mod container;
mod database;
mod digests;
mod endpoint;
mod entry;
mod error;
pub(crate) mod error_conversion;
mod file;
pub(crate) mod file_id;
mod finished;
pub(crate) mod format;
pub(crate) mod header;
mod identity;
mod key;
mod lock;
pub(crate) mod logging;
mod lookup;
pub(crate) mod owner;
mod pending;
mod row;
mod seal;
mod session_table;
mod stored_plan;

use std::path::Path;
use std::time::SystemTime;

use crate::source::ChunkDigest;
use crate::wire::Plan;
pub use claim_outcome::{Claim, ClaimOptions};
pub use claimed_entry::ClaimedEntry;
pub use container::{ContainerState, CreatedBy};
pub use entry::{Entry, EntryState, Finished, SavedProgress};
#[cfg(feature = "bulk")]
pub(crate) use error::BUSY_TIMEOUT;
pub use error::JournalError;
pub use identity::{Comparison, FileSystem, SourceIdentity, compare};
pub use key::{EntryDestination, EntrySource, Key, TokenDigest};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use row::fuzzing;

use claim::{claim_in, entry};
use database::Database;
use error_conversion::database_error;
use lock::{LockAttempt, LockFiles};
use logging::Durability;
use pending::Pending;
use row::SessionRow;
use session_table::{relocate, update};

/// An open journal. One thread uses it. Other processes may have the same file open.
///
/// Every method blocks while the disk works, and waits at most ten seconds for other processes.
#[cfg_attr(docsrs, doc(cfg(feature = "journal")))]
#[derive(Debug)]
pub struct Journal {
    database: Database,
    locks: LockFiles,
    /// Changes that the next claim writes in its own transaction.
    pending: Pending,
}

impl Journal {
    /// Opens the journal at `path`. Creates it, and the folders above it, if it is missing.
    ///
    /// Only the owner can read or write the created files.
    ///
    /// # Errors
    /// The file is not a journal, is damaged, was made by another version, or cannot be written. The file is unchanged
    /// then.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let (database, locks) = (Database::open(path)?, LockFiles::beside(path)?);
        Ok(Journal { database, locks, pending: Pending::default() })
    }

    /// Returns the sessions of a journal that cannot be written, such as one on a read-only file system; oldest first.
    ///
    /// # Errors
    /// The file is not a journal, is damaged, was made by another version, or cannot be read.
    pub fn read(path: &Path) -> Result<Vec<Entry>, JournalError> {
        let connection = file::open_to_read(path)?;
        // One transaction, so that all rows are of one moment.
        let transaction = connection.unchecked_transaction().map_err(|error| database_error(path, error))?;
        let locks = LockFiles::to_look_at(path);
        lookup::all(&transaction, path)?.into_iter().map(|row| entry(row, &locks)).collect()
    }

    /// Returns the path of the journal.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// Claims the session for `key`: a new one, or one that an earlier process left.
    ///
    /// `arguments` is stored for a process that resumes the session without arguments of its own. It must not contain a
    /// secret. A new session for an upload token starts with [`ContainerState::Intended`], as the first chunk creates
    /// the container. A session that began with another upload token is resumed if its container and plan are known.
    ///
    /// # Errors
    /// The journal cannot be read or written. Nothing is claimed then.
    pub fn claim(&mut self, key: &Key, arguments: &str, now: SystemTime) -> Result<Claim, JournalError> {
        self.claim_with(ClaimOptions::default(), key, arguments, now)
    }

    /// Claims the session for `key` under the given conditions. See [`Journal::claim`].
    ///
    /// # Errors
    /// The journal cannot be read or written. Nothing is claimed then.
    pub fn claim_with(
        &mut self,
        options: ClaimOptions,
        key: &Key,
        arguments: &str,
        now: SystemTime,
    ) -> Result<Claim, JournalError> {
        self.grouped(|journal| {
            journal.database.check_in_place()?;
            // Before the claim: a session of the same file that has finished must not be claimed again.
            journal.write_pending()?;
            let (locks, request) = (&mut journal.locks, (key, arguments, now));
            journal.database.transact_statement(Durability::Process, |connection, path| {
                claim_in(connection, locks, options, request, path)
            })
        })
    }

    /// Lets the operations until [`Journal::commit_batch`] share a transaction, which holds the lock of the file from its
    /// first write on.
    ///
    /// Until the commit, no operation is recorded, though its method returns `Ok`: nothing that depends on a record may
    /// happen before. Operations that reach the disk and those that need not share a flush.
    pub(crate) fn begin_batch(&mut self) {
        self.pending.begin_batch();
        self.database.begin_batch();
    }

    /// Commits the batch.
    ///
    /// # Errors
    /// The journal cannot be written. No claim, intent or container of the batch is recorded then, and the sessions that
    /// were claimed in the batch must be dropped: their ids may be assigned again.
    pub(crate) fn commit_batch(&mut self) -> Result<(), JournalError> {
        let committed = self.database.commit_batch();
        match &committed {
            Ok(()) => self.locks.keep(self.pending.written()),
            Err(_) => self.pending.undone(),
        }
        committed
    }

    /// Runs operations as one batch, or as a part of the open one.
    fn grouped<T>(
        &mut self,
        operations: impl FnOnce(&mut Journal) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if self.database.is_batching() {
            return operations(self);
        }
        self.begin_batch();
        match operations(self) {
            Ok(value) => self.commit_batch().map(|()| value),
            Err(error) => {
                self.database.undo_batch();
                // What was pending belongs to operations that succeeded earlier: it waits for the next transaction.
                self.pending.not_written();
                Err(error)
            }
        }
    }

    /// Writes the pending changes.
    fn write_pending(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = &mut self.pending;
        self.database.transact(Durability::Process, |connection, path| pending.write(connection, path))
    }

    /// Records that a container is about to be created, before the request that creates it.
    ///
    /// `mark` identifies the container in the service's list of videos if its id never arrives. The record is on the
    /// disk when the method returns. The acknowledged chunks of an earlier container are deleted.
    ///
    /// # Errors
    /// The journal cannot be written. The container must not be created then.
    pub fn record_intent(
        &mut self,
        claimed: &mut ClaimedEntry,
        plan: Option<Plan>,
        mark: &str,
    ) -> Result<(), JournalError> {
        self.begin_container(
            claimed,
            ContainerState::Intended { mark: mark.to_owned() },
            plan,
            Durability::Disk,
        )
    }

    /// Records that the file of `key` has the bytes of every chunk that was sent. It becomes the session's file.
    ///
    /// # Errors
    /// The journal cannot be written. The next process has to prove the file again then.
    pub fn record_proof(&mut self, claimed: &mut ClaimedEntry, key: &Key) -> Result<(), JournalError> {
        claimed.row.set_file(key);
        let row = &claimed.row;
        self.database.transact(Durability::Process, |connection, path| {
            update(connection, row, path)?;
            // The seal covers the path: both have to change in one transaction.
            relocate(connection, row, path)
        })
    }

    /// Records that no container was created: every request for it was refused, or was never sent whole.
    ///
    /// # Errors
    /// The journal cannot be written. The container counts as one that may exist then.
    pub fn withdraw_intent(&mut self, claimed: &mut ClaimedEntry) -> Result<(), JournalError> {
        claimed.row.withdraw();
        self.write(&claimed.row, Durability::Process)
    }

    /// Records the container before its first byte is sent. The record is on the disk when the method returns.
    ///
    /// `plan` is `None` for a stream.
    ///
    /// # Errors
    /// The journal cannot be written. Nothing must be sent then.
    pub fn record_container(
        &mut self,
        claimed: &mut ClaimedEntry,
        plan: Option<Plan>,
        video_id: &str,
        made: CreatedBy,
    ) -> Result<(), JournalError> {
        let container = ContainerState::Known { video_id: video_id.to_owned(), made };
        self.begin_container(claimed, container, plan, Durability::Disk)
    }

    /// Records the digest of the chunk at `index` as it was sent. It survives the process, and may be lost in a power
    /// failure.
    ///
    /// A chunk that was sent twice with different bytes keeps no usable digest: the service may have stored either.
    ///
    /// # Errors
    /// The journal cannot be written. The file cannot be proved later then.
    pub fn record_digest(
        &mut self,
        claimed: &ClaimedEntry,
        index: u32,
        digest: ChunkDigest,
    ) -> Result<(), JournalError> {
        let chunk = (claimed.row.id, index);
        self.database.transact_statement(Durability::Process, |connection, path| {
            digests::record(connection, chunk, &digest, path)
        })
    }

    /// Records that the service has the chunk at `index`. Repeating the call does no harm.
    ///
    /// # Errors
    /// The journal cannot be written. The next call that succeeds records this chunk as well.
    pub fn record_chunk(&mut self, claimed: &mut ClaimedEntry, index: u32) -> Result<(), JournalError> {
        claimed.row.stored.insert(index);
        self.write(&claimed.row, Durability::Process)
    }

    /// Records that the chunk at `index` completed the container `video_id`, which the session created.
    ///
    /// Like an acknowledgement, the record survives the process and may be lost in a power failure.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record_completion(
        &mut self,
        claimed: &mut ClaimedEntry,
        plan: Option<Plan>,
        video_id: &str,
        index: u32,
    ) -> Result<(), JournalError> {
        claimed
            .row
            .begin(ContainerState::Known { video_id: video_id.to_owned(), made: CreatedBy::ByUs }, plan);
        self.record_chunk(claimed, index)
    }

    /// Ends a session whose file is uploaded. The next claim or [`Journal::flush`] deletes the session.
    ///
    /// If neither follows, the next process resumes the session and finds it complete.
    pub fn finish(&mut self, claimed: ClaimedEntry) {
        self.pending.forget(claimed);
    }

    /// Ends a session like [`Journal::finish`], and remembers the file and its video in the same transaction.
    ///
    /// For one of several files of a command. A claim of the file returns [`Claim::Finished`] until
    /// [`Journal::forget_finished`], for a week at most. `touched` is the file's current identity, which is stored if
    /// at most its ctime differs. Returns the id for [`Journal::forget_finished`]; `None` for a stream, which is not
    /// remembered.
    pub fn finish_and_remember(
        &mut self,
        mut claimed: ClaimedEntry,
        video_id: &str,
        touched: Option<SourceIdentity>,
        now: SystemTime,
    ) -> Option<i64> {
        touched.into_iter().for_each(|identity| claimed.row.touch(identity));
        let row = claimed.row.finished_row(video_id, now);
        self.pending.remember(claimed, row, now)
    }

    /// Forgets a file that [`Journal::finish_and_remember`] remembered. The same command uploads the file anew then.
    ///
    /// The next claim or [`Journal::flush`] deletes the row.
    pub fn forget_finished(&mut self, id: i64) {
        self.pending.forget_finished(id);
    }

    /// Deletes the finished sessions. A power failure may restore them; the next process finds them complete then.
    ///
    /// # Errors
    /// The journal cannot be written. The next process resumes the sessions and finds them complete then.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.grouped(Journal::write_pending)
    }

    /// Returns the session to the upload token with which it began, after the service refused the token of this claim.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn give_back(&mut self, mut claimed: ClaimedEntry) -> Result<(), JournalError> {
        if let Some(former) = claimed.former.take() {
            claimed.row.give_back(former);
            self.write(&claimed.row, Durability::Process)?;
        }
        Ok(())
    }

    /// Abandons the session. It is not resumed, and a container that it created is listed as an orphan.
    ///
    /// # Errors
    /// The journal cannot be written. The session would be resumed then.
    pub fn abandon(&mut self, mut claimed: ClaimedEntry) -> Result<(), JournalError> {
        // Without a container of its own the session has nothing that `clean` could delete.
        if !claimed.row.may_leave_an_orphan() {
            return self.forget(claimed);
        }
        claimed.row.abandon();
        // On the disk: a power failure that undid this would resume an upload that cannot succeed.
        self.write(&claimed.row, Durability::Disk)
    }

    /// Returns every session that is running, interrupted or abandoned; oldest first.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn entries(&mut self) -> Result<Vec<Entry>, JournalError> {
        // A session that has finished must not be listed.
        self.flush()?;
        let locks = &self.locks;
        self.database.transact(Durability::Process, |connection, path| {
            lookup::all(connection, path)?.into_iter().map(|row| entry(row, locks)).collect()
        })
    }

    /// Claims the session `id` of [`Journal::entries`] for cleaning up; `None` if it is no longer there. No other
    /// process resumes the session while the claim lives.
    ///
    /// # Errors
    /// [`JournalError::Claimed`] if another process has claimed the session. Other errors if the journal cannot be
    /// read.
    pub fn take(&mut self, id: i64) -> Result<Option<ClaimedEntry>, JournalError> {
        let locks = &self.locks;
        self.database.transact(Durability::Process, |connection, path| {
            let Some(row) = lookup::by_id(connection, id, path)? else { return Ok(None) };
            match locks.take(row.lock())? {
                LockAttempt::Acquired(lock) => Ok(Some(ClaimedEntry::new(row, lock))),
                LockAttempt::HeldBy(pid) => Err(JournalError::Claimed { path: path.to_owned(), pid }),
            }
        })
    }

    /// Deletes the session. It is neither resumed nor listed any more.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn forget(&mut self, claimed: ClaimedEntry) -> Result<(), JournalError> {
        self.finish(claimed);
        self.flush()
    }

    fn begin_container(
        &mut self,
        claimed: &mut ClaimedEntry,
        container: ContainerState,
        plan: Option<Plan>,
        durability: Durability,
    ) -> Result<(), JournalError> {
        self.database.check_in_place()?;
        let forgets_digests = claimed.row.begin(container, plan);
        let row = &claimed.row;
        if !forgets_digests {
            return self.write(row, durability);
        }
        self.database.transact(durability, |connection, path| {
            digests::forget(connection, row.id, path)?;
            update(connection, row, path)
        })
    }

    fn write(&mut self, row: &SessionRow, durability: Durability) -> Result<(), JournalError> {
        self.database.transact_statement(durability, |connection, path| update(connection, row, path))
    }
}

#[cfg(test)]
mod tests;
