//! The open file of a journal, and the transactions on it.
//!
//! A batch is one transaction for several operations: a commit writes each changed page once, however many operations
//! changed it, and takes the locks of the file once. An operation that fails inside a batch is undone alone.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::JournalError;
use super::error_conversion::database_error;
use super::file;
use super::file_id::FileId;
use super::logging::{Durability, Logging};

/// The open file of a journal.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Connection,
    /// The logging mode of the database.
    logging: Logging,
    /// The identity of the file, to detect its replacement.
    id: FileId,
    /// The durability that the connection is set to; `None` before the first transaction.
    durability: Option<Durability>,
    /// `true` while operations share a transaction.
    is_batching: bool,
    /// `true` while the batch has an open transaction, which its first write begins.
    is_open: bool,
    /// `true` if the path was found to lead to the open file since the batch began.
    is_in_place: bool,
    /// `true` if the batch has waited in vain for the lock of another process.
    is_locked_out: bool,
    /// The error that undid operations of the batch which had succeeded.
    undone_by: Option<JournalError>,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Database, JournalError> {
        let (connection, logging) = file::open(path)?;
        // The pages that an operation changes are kept for its savepoint. Beyond 64 KiB, SQLite would write them to a
        // temporary file (<https://www.sqlite.org/tempfiles.html>, "Statement Journal Files"): half of all writes of an
        // upload of many small files, in a folder that may be full. One operation changes at most a few hundred pages.
        connection
            .pragma_update(None, "temp_store", "MEMORY")
            .map_err(|error| database_error(path, error))?;
        // More than there are statements.
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Ok(Database {
            path: path.to_owned(),
            connection,
            logging,
            id: FileId::of(path).map_err(|error| JournalError::io(path, error))?,
            durability: None,
            is_batching: false,
            is_open: false,
            is_in_place: false,
            is_locked_out: false,
            undone_by: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn is_batching(&self) -> bool {
        self.is_batching
    }

    /// Runs one operation: in a transaction of its own, or in that of the batch.
    ///
    /// In a batch, the operation is recorded only with [`Database::commit_batch`]. A failed operation is undone alone:
    /// the batch keeps the others.
    pub(super) fn transact<T>(
        &mut self,
        durability: Durability,
        operation: impl FnOnce(&Connection, &Path) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if self.is_batching {
            self.open_transaction(durability)?;
            return self.step(operation);
        }
        (self.is_batching, self.is_locked_out) = (true, false);
        let done = self.open_transaction(durability).and_then(|()| operation(&self.connection, &self.path));
        match done {
            Ok(value) => self.commit_batch().map(|()| value),
            Err(error) => {
                self.undo_batch();
                Err(error)
            }
        }
    }

    /// Runs an operation like [`Database::transact`] whose changes are one statement, or are made by [`undone_alone`].
    ///
    /// SQLite undoes a failed statement alone. A savepoint would keep a copy of each page that the statement changes.
    pub(super) fn transact_statement<T>(
        &mut self,
        durability: Durability,
        operation: impl FnOnce(&Connection, &Path) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        if !self.is_batching {
            return self.transact(durability, operation);
        }
        self.open_transaction(durability)?;
        let done = operation(&self.connection, &self.path);
        self.unless_undone(done)
    }

    /// Lets the operations until [`Database::commit_batch`] share a transaction.
    pub(super) fn begin_batch(&mut self) {
        // Another process may have replaced the file, or released its lock, since the last batch.
        (self.is_batching, self.is_in_place, self.is_locked_out) = (true, false, false);
    }

    /// Commits the operations of the batch.
    ///
    /// # Errors
    /// The journal cannot be written. None of the operations since [`Database::begin_batch`] may be relied on.
    pub(super) fn commit_batch(&mut self) -> Result<(), JournalError> {
        self.is_batching = false;
        self.is_in_place = false;
        let committed = self.commit();
        match self.undone_by.take() {
            Some(error) => Err(error),
            None => committed,
        }
    }

    /// Undoes the operations of the batch.
    pub(super) fn undo_batch(&mut self) {
        self.is_batching = false;
        self.is_in_place = false;
        self.undone_by = None;
        self.roll_back();
    }

    /// Checks that the path still leads to the open file, once for each batch.
    pub(super) fn check_in_place(&mut self) -> Result<(), JournalError> {
        if self.is_batching && self.is_in_place {
            return Ok(());
        }
        // No other process would find entries in a file that was removed or replaced.
        match FileId::of(&self.path) {
            Ok(there) if there == self.id => self.is_in_place = true,
            _ => return Err(JournalError::Replaced { path: self.path.clone() }),
        }
        Ok(())
    }

    /// Begins the transaction of the batch, unless one with this durability is open.
    fn open_transaction(&mut self, durability: Durability) -> Result<(), JournalError> {
        if let Some(error) = &self.undone_by {
            // The batch fails as a whole; a further transaction of it would be recorded in part.
            return Err(self.repeated(error));
        }
        if self.is_open && (durability == Durability::Process || self.durability == Some(Durability::Disk)) {
            return Ok(());
        }
        if self.is_locked_out {
            // Each further wait would stop all uploads for as long again.
            return Err(JournalError::Locked { path: self.path.clone() });
        }
        // The durability of a transaction cannot change (`PRAGMA synchronous`), so the weaker one ends here.
        if let Err(error) = self.commit() {
            let repeated = self.repeated(&error);
            self.undone_by = Some(error);
            return Err(repeated);
        }
        self.set_durability(durability)?;
        // A deferred transaction takes the write lock with its first write: two claims would both find no row, and
        // both insert one.
        let begun = self.control("BEGIN IMMEDIATE");
        self.is_open = begun.is_ok();
        self.is_locked_out = matches!(begun, Err(JournalError::Locked { .. }));
        begun
    }

    /// Runs an operation in the open transaction. Undoes the operation alone if it fails.
    fn step<T>(
        &mut self,
        operation: impl FnOnce(&Connection, &Path) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let (connection, path) = (&self.connection, self.path.as_path());
        let done = undone_alone(connection, path, || operation(connection, path));
        self.unless_undone(done)
    }

    /// Returns the result of an operation. Lets the batch fail if the operation has undone the whole transaction.
    fn unless_undone<T>(&mut self, done: Result<T, JournalError>) -> Result<T, JournalError> {
        // SQLite undoes the whole transaction when the disk is full, for example
        // (<https://www.sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction").
        if !self.connection.is_autocommit() {
            return done;
        }
        self.is_open = false;
        done.map_err(|error| {
            let repeated = self.repeated(&error);
            self.undone_by = Some(error);
            repeated
        })
    }

    /// Commits the open transaction, if there is one. Undoes it if that fails.
    fn commit(&mut self) -> Result<(), JournalError> {
        if !self.is_open {
            return Ok(());
        }
        let committed = self.control("COMMIT");
        match committed {
            Ok(()) => self.is_open = false,
            Err(_) => self.roll_back(),
        }
        committed
    }

    fn roll_back(&mut self) {
        self.is_open = false;
        // Fails only if SQLite has undone the transaction already.
        if !self.connection.is_autocommit() {
            let _ = self.control("ROLLBACK");
        }
    }

    fn control(&self, sql: &str) -> Result<(), JournalError> {
        control(&self.connection, &self.path, sql)
    }

    /// Sets the durability of the next transaction.
    fn set_durability(&mut self, durability: Durability) -> Result<(), JournalError> {
        // The pragma is a statement of its own, so that it is run with a change only.
        if self.durability != Some(durability) {
            self.connection
                .pragma_update(None, "synchronous", durability.pragma(self.logging))
                .map_err(|error| database_error(&self.path, error))?;
            self.durability = Some(durability);
        }
        Ok(())
    }

    /// Returns an error again for another operation of the same transaction.
    fn repeated(&self, error: &JournalError) -> JournalError {
        let path = self.path.clone();
        match error {
            JournalError::Full { .. } => JournalError::Full { path },
            JournalError::Replaced { .. } => JournalError::Replaced { path },
            JournalError::Locked { .. } => JournalError::Locked { path },
            error => {
                let source = format!("another record of the same transaction failed: {error}").into();
                JournalError::Io { path, source }
            }
        }
    }
}

/// Makes several changes in the open transaction, and undoes them together, without the others, if one of them fails.
///
/// If they cannot be undone alone, the whole transaction is undone, which [`Connection::is_autocommit`] shows.
pub(super) fn undone_alone<T>(
    connection: &Connection,
    path: &Path,
    changes: impl FnOnce() -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    control(connection, path, "SAVEPOINT operation")?;
    let done = changes();
    let undone = match &done {
        Ok(_) => Ok(()),
        Err(_) => control(connection, path, "ROLLBACK TO operation"),
    };
    if let Err(error) = undone.and_then(|()| control(connection, path, "RELEASE operation")) {
        // Fails only if SQLite has undone the transaction already.
        let _ = control(connection, path, "ROLLBACK");
        return Err(done.err().unwrap_or(error));
    }
    done
}

fn control(connection: &Connection, path: &Path, sql: &str) -> Result<(), JournalError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(|error| database_error(path, error))
}

const CACHED_STATEMENTS: usize = 32;
