//! The journal: every container before its first byte, every acknowledged chunk after its answer.
//!
//! One SQLite file in WAL mode, one row a session. A row holds whose bytes go where (source, endpoint,
//! destination), the plan, the container, and one bit for each acknowledged chunk: ten thousand chunks
//! are 1250 bytes, so an acknowledgement rewrites one small row and nothing grows. Each row carries a
//! digest of itself, and a row that does not match it stops everything that would act upon it.
//!
//! - A container, and the intent to create one by a request of its own, is on the disk when the call
//!   returns. Claims, acknowledgements and ends survive the death of the process; a power failure may
//!   take the newest ones, which costs sending those chunks again and nothing else.
//! - A session is claimed by a lock (flock(2)) on a file beside the journal, whose number stands in its row.
//!   The kernel gives it back when the process dies, however it dies.
//! - No secret is written: an upload token only as its SHA-256.
//!
//! Does not know: the service, the clock, where the file should be, what to do with what it remembers.

mod claim;
mod digests;
mod endpoint;
mod error;
mod file;
mod finished;
mod format;
mod identity;
mod logging;
mod lookup;
mod owner;
mod pending;
mod row;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::wire::Plan;
pub use claim::{Claim, ClaimOptions, ClaimedEntry, SavedProgress};
pub use error::JournalError;
pub use finished::Finished;
pub use identity::{Comparison, FileSystem, SourceIdentity, compare};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use row::fuzzing;
pub use row::{
    ContainerState, CreatedBy, Entry, EntryDestination, EntrySource, EntryState, Key, TokenDigest,
};

use claim::{LockAttempt, LockFiles, claim_in, entry};
use file::{FileId, failed};
use logging::{Durability, Logging};
use pending::Pending;
use row::SessionRow;

/// The journal, open. One thread uses it; other processes may have the same file open.
///
/// Every method blocks for as long as the disk takes, and at most ten seconds more for other processes.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    connection: Connection,
    /// How the database makes its writes safe.
    logging: Logging,
    /// Which file it is, to notice that another took its place.
    id: FileId,
    /// What the database was last told.
    durability: Option<Durability>,
    locks: LockFiles,
    /// What the next claim writes down beside itself.
    pending: Pending,
}

impl Journal {
    /// Opens the journal at `path`; makes it, and the folders above it, when there is none.
    ///
    /// Only its owner can read or write what it makes.
    ///
    /// # Errors
    /// When it is no journal, is damaged, was made by another version or cannot be written. It is left
    /// as it was.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let (connection, logging) = file::open(path)?;
        let (id, locks) = (FileId::of(path)?, LockFiles::beside(path)?);
        let path = path.to_owned();
        let pending = Pending::default();
        Ok(Journal { path, connection, logging, id, durability: None, locks, pending })
    }

    /// Reads the sessions of a journal that cannot be written, as on a read-only file system; oldest first.
    ///
    /// # Errors
    /// When it is no journal, is damaged, was made by another version or cannot be read.
    pub fn read(path: &Path) -> Result<Vec<Entry>, JournalError> {
        let connection = file::open_to_read(path)?;
        let transaction = connection.unchecked_transaction().map_err(|error| failed(path, error))?;
        let locks = LockFiles::to_look_at(path);
        lookup::all(&transaction, path)?.into_iter().map(|row| entry(row, &locks)).collect()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the session for `key`: a new one, or the one that an earlier process left.
    ///
    /// `arguments` is kept for whoever continues the session without being told how. It must hold no
    /// secret. A new session for a bare token says that its container is intended: the first chunk makes it.
    /// A session that another upload token began is continued where its container and chunks are known.
    ///
    /// # Errors
    /// When the journal cannot be read or written; nothing is claimed then.
    pub fn claim(&mut self, key: &Key, arguments: &str, now: SystemTime) -> Result<Claim, JournalError> {
        self.claim_with(ClaimOptions::default(), key, arguments, now)
    }

    /// [`Journal::claim`] on other options.
    ///
    /// # Errors
    /// As [`Journal::claim`].
    pub fn claim_with(
        &mut self,
        options: ClaimOptions,
        key: &Key,
        arguments: &str,
        now: SystemTime,
    ) -> Result<Claim, JournalError> {
        self.check_in_place()?;
        self.survive(Durability::Process)?;
        let path = &self.path;
        let transaction = begin(&mut self.connection, path)?;
        self.pending.write(&transaction, path)?;
        let claim = claim_in(&transaction, &mut self.locks, options, (key, arguments, now), path)?;
        if !matches!(claim, Claim::Busy { .. }) {
            transaction.commit().map_err(|error| failed(path, error))?;
            self.locks.keep(self.pending.written());
        }
        Ok(claim)
    }

    /// Writes down that a container is about to be created, before the request that creates it.
    ///
    /// `mark` is what the container can be recognised by should its id never arrive. On the disk when it
    /// returns. What was stored in an earlier container is forgotten.
    ///
    /// # Errors
    /// When it could not be written down; the container must not be created then.
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

    /// Writes down that the session's file still has the bytes of every chunk that was sent, and is from now on the
    /// one of `key`.
    ///
    /// # Errors
    /// When it could not be written down. The next process has to prove it again then.
    pub fn record_proof(&mut self, claimed: &mut ClaimedEntry, key: &Key) -> Result<(), JournalError> {
        claimed.row.set_file(key);
        self.survive(Durability::Process)?;
        let path = &self.path;
        let transaction = begin(&mut self.connection, path)?;
        update(&transaction, &claimed.row, path)?;
        // The seal covers the path.
        relocate(&transaction, &claimed.row, path)?;
        transaction.commit().map_err(|error| failed(path, error))
    }

    /// Writes down that nothing was created after all: every request for it was refused, or never whole.
    ///
    /// # Errors
    /// When it could not be written down; the container counts as one that may exist then.
    pub fn withdraw_intent(&mut self, claimed: &mut ClaimedEntry) -> Result<(), JournalError> {
        claimed.row.withdraw();
        self.write(&claimed.row, Durability::Process)
    }

    /// Writes down the container, before its first byte. On the disk when it returns.
    ///
    /// `plan` is `None` for a stream.
    ///
    /// # Errors
    /// When it could not be written down; nothing must be sent then.
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

    /// Writes down that the service has the chunk at `index`; saying it twice does no harm.
    ///
    /// # Errors
    /// When it could not be written down. The next call that succeeds writes this one down too.
    pub fn record_chunk(&mut self, claimed: &mut ClaimedEntry, index: u32) -> Result<(), JournalError> {
        claimed.row.stored.insert(index);
        self.write(&claimed.row, Durability::Process)
    }

    /// Writes down that the chunk at `index` made `video_id`, a container of ours, whole: for whoever may yet
    /// have to tell. Like an acknowledgement it survives the process, not the machine.
    ///
    /// # Errors
    /// When it could not be written down.
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

    /// The whole file is there: the session is forgotten with the next claim or by [`Journal::flush`], and the
    /// same command uploads anew. Where neither comes, it is resumed, and found complete.
    pub fn finish(&mut self, claimed: ClaimedEntry) {
        self.pending.forget(claimed);
    }

    /// The whole file is there, and the command that asked for it has other files to upload: the session is
    /// forgotten like that of [`Journal::finish`], and in the same transaction the file is written down with its
    /// video. A claim of the file answers [`Claim::Finished`] until [`Journal::forget_finished`], for a week at most.
    ///
    /// `touched` is the file as it is now: where only its ctime is another, it is the same file. Returns the number
    /// of what is written down; `None` for a stream, of which nothing is.
    pub fn finish_and_remember(
        &mut self,
        mut claimed: ClaimedEntry,
        video_id: &str,
        touched: Option<SourceIdentity>,
        now: SystemTime,
    ) -> Option<i64> {
        touched.into_iter().for_each(|identity| claimed.row.touch(identity));
        let note = claimed.row.note(video_id, now);
        self.pending.remember(claimed, note, now)
    }

    /// The command that uploaded the file has ended well: the same command uploads it anew. Written down like
    /// [`Journal::finish`].
    pub fn forget_finished(&mut self, id: i64) {
        self.pending.forget_note(id);
    }

    /// Forgets what was finished. A power failure may bring it back; it would be resumed then, and found complete.
    ///
    /// # Errors
    /// When it could not be written down; the sessions would be resumed then, and found complete.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.survive(Durability::Process)?;
        let path = &self.path;
        let transaction = begin(&mut self.connection, path)?;
        self.pending.write(&transaction, path)?;
        transaction.commit().map_err(|error| failed(path, error))?;
        self.locks.keep(self.pending.written());
        Ok(())
    }

    /// The service did not take the upload token in place of the one that began the session: that one may go on.
    ///
    /// # Errors
    /// When it could not be written down.
    pub fn give_back(&mut self, mut claimed: ClaimedEntry) -> Result<(), JournalError> {
        if let Some(former) = claimed.former.take() {
            claimed.row.give_back(former);
            self.write(&claimed.row, Durability::Process)?;
        }
        Ok(())
    }

    /// Gives the session up: it is not resumed, and a container that we made is listed as an orphan.
    ///
    /// # Errors
    /// When it could not be written down; the session would be resumed then.
    pub fn abandon(&mut self, mut claimed: ClaimedEntry) -> Result<(), JournalError> {
        if !claimed.row.may_leave_an_orphan() {
            return self.forget(claimed);
        }
        claimed.row.abandon();
        self.write(&claimed.row, Durability::Disk)
    }

    /// Every session that is under way, was left or was given up; oldest first.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn entries(&mut self) -> Result<Vec<Entry>, JournalError> {
        self.flush()?;
        self.survive(Durability::Process)?;
        let (path, locks) = (&self.path, &self.locks);
        let transaction = begin(&mut self.connection, path)?;
        lookup::all(&transaction, path)?.into_iter().map(|row| entry(row, locks)).collect()
    }

    /// Takes the session `id` of [`Journal::entries`] to look after what it left; `None` when it is no
    /// longer there. Nobody resumes it while the claimed lives.
    ///
    /// # Errors
    /// [`JournalError::Claimed`] while a process is at it; or when the journal cannot be read.
    pub fn take(&mut self, id: i64) -> Result<Option<ClaimedEntry>, JournalError> {
        self.survive(Durability::Process)?;
        let (path, locks) = (&self.path, &self.locks);
        let transaction = begin(&mut self.connection, path)?;
        let Some(row) = lookup::by_id(&transaction, id, path)? else { return Ok(None) };
        match locks.take(row.lock())? {
            LockAttempt::Acquired(lock) => Ok(Some(ClaimedEntry::new(row, lock))),
            LockAttempt::HeldBy(pid) => Err(JournalError::Claimed { path: path.clone(), pid }),
        }
    }

    /// Forgets the session: it is neither resumed nor listed any more.
    ///
    /// # Errors
    /// When it could not be written down.
    pub fn forget(&mut self, claimed: ClaimedEntry) -> Result<(), JournalError> {
        self.finish(claimed);
        self.flush()
    }

    /// What the next transactions are to survive.
    fn survive(&mut self, durability: Durability) -> Result<(), JournalError> {
        if self.durability != Some(durability) {
            self.connection
                .pragma_update(None, "synchronous", durability.pragma(self.logging))
                .map_err(|error| failed(&self.path, error))?;
            self.durability = Some(durability);
        }
        Ok(())
    }

    fn begin_container(
        &mut self,
        claimed: &mut ClaimedEntry,
        container: ContainerState,
        plan: Option<Plan>,
        durability: Durability,
    ) -> Result<(), JournalError> {
        self.check_in_place()?;
        let forgets_digests = claimed.row.begin(container, plan);
        self.survive(durability)?;
        let path = &self.path;
        let transaction = begin(&mut self.connection, path)?;
        if forgets_digests {
            digests::forget(&transaction, claimed.row.id, path)?;
        }
        update(&transaction, &claimed.row, path)?;
        transaction.commit().map_err(|error| failed(path, error))
    }

    /// What is written into a file that no path leads to any more is found by no other process.
    fn check_in_place(&self) -> Result<(), JournalError> {
        match FileId::of(&self.path) {
            Ok(there) if there == self.id => Ok(()),
            _ => Err(JournalError::Replaced { path: self.path.clone() }),
        }
    }

    fn write(&mut self, row: &SessionRow, durability: Durability) -> Result<(), JournalError> {
        self.survive(durability)?;
        let path = &self.path;
        let transaction = begin(&mut self.connection, path)?;
        update(&transaction, row, path)?;
        transaction.commit().map_err(|error| failed(path, error))
    }
}

/// The write lock is taken first, so that no two claims both find nothing.
fn begin<'c>(connection: &'c mut Connection, path: &Path) -> Result<Transaction<'c>, JournalError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| failed(path, error))
}

fn insert(
    transaction: &Transaction<'_>,
    mut row: SessionRow,
    path: &Path,
) -> Result<SessionRow, JournalError> {
    let record = row.record();
    transaction
        .prepare_cached(
            "INSERT INTO sessions (path, record, stored, seal, inode, lock) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            let (inode, lock) = (row.inode(), row.lock());
            insert.insert(params![row.path(), record, row.stored.bytes(), row.seal(&record), inode, lock])
        })
        .map(|id| row.id = id)
        .map_err(|error| failed(path, error))?;
    Ok(row)
}

/// Leaves the indexed columns alone: to name them would write their indexes anew with each acknowledgement.
fn update(transaction: &Transaction<'_>, row: &SessionRow, path: &Path) -> Result<(), JournalError> {
    let record = row.record();
    let changed = transaction
        .prepare_cached("UPDATE sessions SET record = ?2, stored = ?3, seal = ?4 WHERE id = ?1")
        .and_then(|mut update| update.execute(params![row.id, record, row.stored.bytes(), row.seal(&record)]))
        .map_err(|error| failed(path, error))?;
    match changed {
        0 => Err(JournalError::Forgotten { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Writes down where the file is now, which [`update`] does not.
fn relocate(transaction: &Transaction<'_>, row: &SessionRow, path: &Path) -> Result<(), JournalError> {
    transaction
        .prepare_cached("UPDATE sessions SET path = ?2, inode = ?3 WHERE id = ?1")
        .and_then(|mut update| update.execute(params![row.id, row.path(), row.inode()]))
        .map(drop)
        .map_err(|error| failed(path, error))
}

fn delete(transaction: &Transaction<'_>, claimed: &ClaimedEntry, path: &Path) -> Result<(), JournalError> {
    for delete in ["DELETE FROM sessions WHERE id = ?1", "DELETE FROM digests WHERE session = ?1"] {
        transaction
            .prepare_cached(delete)
            .and_then(|mut delete| delete.execute(params![claimed.row.id]))
            .map_err(|error| failed(path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
