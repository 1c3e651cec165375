//! The open file of a store, and the transactions on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::batch::Batch;
use super::need::Need;
use super::open::{self, io_error, problem, sqlite_error};
use super::owners::Owners;
use crate::bulk::job_id::Account;
use crate::bulk::lease::DEFAULT_LEASE;
use crate::bulk::store::{JobStoreError, StoreProblem};
use crate::journal::file_id::FileId;
use crate::journal::logging::{Durability, Logging};

/// An open store. One thread uses it.
#[derive(Debug)]
pub(super) struct JobDatabase {
    path: PathBuf,
    connection: Connection,
    logging: Logging,
    /// The identity of the file, to detect its replacement.
    id: FileId,
    /// The value of `PRAGMA synchronous`; `None` before the first transaction.
    synchronous: Option<&'static str>,
    account: Account,
    account_row: i64,
    lease: Duration,
    owners: Owners,
    /// The revision, raised by each change of this or another process.
    revision: u64,
    data_version: i64,
}

impl JobDatabase {
    pub(super) fn open(
        path: PathBuf,
        account: &Account,
        lease: Duration,
    ) -> Result<JobDatabase, JobStoreError> {
        let (connection, logging) = open::open(&path, lease)?;
        let id = FileId::of(&path).map_err(|error| io_error(&path, error))?;
        let prepared = account_row(&connection, account).and_then(|account_row| {
            Ok((account_row, stored_lease(&connection, lease)?, data_version(&connection)?))
        });
        let (account_row, lease, data_version) = prepared.map_err(|error| sqlite_error(&path, error))?;
        let owners = Owners::beside(&path);
        Ok(JobDatabase {
            path,
            connection,
            logging,
            id,
            synchronous: None,
            account: account.clone(),
            account_row,
            lease,
            owners,
            revision: 1,
            data_version,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs `apply` in one transaction, and commits the transaction if `apply` succeeds.
    pub(super) fn transact(
        &mut self,
        need: Need,
        apply: impl FnOnce(&mut Batch<'_>) -> Result<(), JobStoreError>,
    ) -> Result<(), JobStoreError> {
        self.check_in_place()?;
        // SQLite refuses to change the level inside a transaction.
        self.set_durability(need)?;
        let refused = |error| sqlite_error(&self.path, error);
        let behavior = match need {
            // A page of a list must not wait for the writers of other processes.
            Need::Read => TransactionBehavior::Deferred,
            // A transaction that reads before it writes fails at once, without the busy timeout, if another process
            // wrote between the two (<https://www.sqlite.org/lang_transaction.html>).
            Need::Write | Need::Disk => TransactionBehavior::Immediate,
        };
        let transaction = self.connection.transaction_with_behavior(behavior).map_err(refused)?;
        let mut batch = Batch::new(
            &transaction,
            &self.path,
            (&self.account, self.account_row),
            self.lease,
            &mut self.owners,
        );
        apply(&mut batch)?;
        let changed = batch.write_counts()?;
        transaction.commit().map_err(refused)?;
        self.revision += u64::from(changed);
        Ok(())
    }

    /// Returns the revision, after a look at the changes of other processes.
    pub(super) fn revision(&mut self) -> Result<u64, JobStoreError> {
        let found = data_version(&self.connection).map_err(|error| sqlite_error(&self.path, error))?;
        // Other connections move this number, changes of this connection do not
        // (<https://www.sqlite.org/pragma.html#pragma_data_version>).
        if found != self.data_version {
            (self.data_version, self.revision) = (found, self.revision + 1);
        }
        Ok(self.revision)
    }

    /// Checks that the path still leads to the open file: changes to a removed file would be lost.
    fn check_in_place(&self) -> Result<(), JobStoreError> {
        match FileId::of(&self.path) {
            Ok(id) if id == self.id => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(&self.path, error)),
            Ok(_) | Err(_) => Err(problem(&self.path, StoreProblem::Replaced)),
        }
    }

    fn set_durability(&mut self, need: Need) -> Result<(), JobStoreError> {
        let durability = if need == Need::Disk { Durability::Disk } else { Durability::Process };
        let wanted = durability.pragma(self.logging);
        if self.synchronous != Some(wanted) {
            self.connection
                .pragma_update(None, "synchronous", wanted)
                .map_err(|error| sqlite_error(&self.path, error))?;
            self.synchronous = Some(wanted);
        }
        Ok(())
    }
}

/// Returns the accounts that have jobs in the file.
pub(super) fn accounts(path: &Path) -> Result<Vec<Account>, JobStoreError> {
    if path.is_dir() {
        return Err(problem(path, StoreProblem::Directory));
    }
    let (connection, _) = open::open_existing(path, DEFAULT_LEASE)?;
    let read = || -> rusqlite::Result<Vec<String>> {
        // Looking at a queue adds its account, too.
        let with_jobs = "SELECT name FROM accounts WHERE EXISTS (SELECT 1 FROM jobs WHERE account = accounts.id) ORDER BY id";
        let mut statement = connection.prepare(with_jobs)?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let names = read().map_err(|error| sqlite_error(path, error))?;
    names.iter().map(|name| Account::named(name).map_err(|_| problem(path, StoreProblem::Damaged))).collect()
}

/// Returns the number of the account in the file, to which it is added if it is new.
fn account_row(connection: &Connection, account: &Account) -> rusqlite::Result<i64> {
    // Another process may add the same account at this moment.
    connection
        .execute("INSERT INTO accounts (name) VALUES (?1) ON CONFLICT DO NOTHING", [account.as_str()])?;
    connection.query_row("SELECT id FROM accounts WHERE name = ?1", [account.as_str()], |row| row.get(0))
}

/// Returns the length of the leases of a file: a worker with a longer one would lose its jobs to the others.
fn stored_lease(connection: &Connection, wanted: Duration) -> rusqlite::Result<Duration> {
    let stored_ms: i64 = connection.query_row("SELECT lease_ms FROM settings", [], |row| row.get(0))?;
    let stored = Duration::from_millis(stored_ms.unsigned_abs());
    if stored != wanted {
        tracing::debug!(path = connection.path(), ?stored, lease = ?wanted, "the job store has another length of leases");
    }
    Ok(stored)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .query_row("PRAGMA data_version", [], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}
