//! Opens and recognizes the file of a store.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::statements::SCHEMA;
use crate::bulk::store::{JobStoreError, StoreProblem};
use crate::journal::error_conversion::database_error;
use crate::journal::format::create_tables;
use crate::journal::header::format_of;
use crate::journal::logging::{self, Logging};
use crate::journal::owner;
use crate::journal::{BUSY_TIMEOUT, JournalError};

/// Opens the store. Creates it if the file is missing or empty.
pub(super) fn open(path: &Path, lease: Duration) -> Result<(Connection, Logging), JobStoreError> {
    if path.is_dir() {
        return Err(problem(path, StoreProblem::Directory));
    }
    let folder = path.parent().map_or(Ok(()), owner::make_folder);
    folder.and_then(|()| owner::make_file(path)).map_err(|error| io_error(path, error))?;
    open_existing(path, lease)
}

/// Opens the store. Creates the tables if the file is empty.
pub(super) fn open_existing(path: &Path, lease: Duration) -> Result<(Connection, Logging), JobStoreError> {
    let logging = logging::for_file_system_of(path);
    match open_as(path, logging, lease) {
        Ok(connection) => Ok((connection, logging)),
        Err(JournalError::NoSharedMemory { .. }) if logging == Logging::WriteAhead => {
            tracing::debug!(path = %path.display(), "no shared memory on this file system: the job store uses no write-ahead log");
            let opened = open_as(path, Logging::Rollback, lease).map_err(|error| store_error(path, error))?;
            Ok((opened, Logging::Rollback))
        }
        // SQLite reports "busy", too, on a file system that has no locks at all.
        Err(error @ JournalError::Locked { .. }) => {
            Err(store_error(path, logging::cannot_lock(path).unwrap_or(error)))
        }
        Err(error) => Err(store_error(path, error)),
    }
}

fn open_as(path: &Path, logging: Logging, lease: Duration) -> Result<Connection, JournalError> {
    let refused = |error| database_error(path, error);
    if logging == Logging::Rollback {
        // By its header: a read of a database in WAL mode needs the shared memory that is missing here.
        if let Some(format) = format_of(path, APPLICATION_ID)? {
            check_format(path, format.into())?;
        }
        logging::leave_write_ahead(path, BUSY_TIMEOUT).map_err(refused)?;
    }
    let mut connection = connect(path).map_err(refused)?;
    // A store of another program or version must be left as it is, down to its mode of logging.
    let is_empty = pragma(&connection, "page_count").map_err(refused)? == 0;
    if !is_empty {
        check(&connection, path)?;
    }
    // SQLite opens a read-only file without an error, and begins transactions that cannot write.
    if connection.is_readonly(MAIN_DB).map_err(refused)? {
        return Err(JournalError::NotWritable { path: path.to_owned(), source: "it is read-only".into() });
    }
    if is_empty {
        create(&mut connection, lease).map_err(refused)?;
        // Another process may have created another store first.
        check(&connection, path)?;
    }
    if logging == Logging::WriteAhead {
        logging::write_ahead(&connection, path).map_err(refused)?;
    }
    // The log keeps its longest length otherwise, after one run of a million jobs for ever.
    connection.pragma_update(None, "journal_size_limit", LONGEST_LOG_BYTES).map_err(refused)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Without SQLITE_OPEN_CREATE, because the file is created readable for its owner only, and without the mutexes of
    // SQLite, because one thread uses the connection.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn create(connection: &mut Connection, lease: Duration) -> rusqlite::Result<()> {
    create_tables(connection, (APPLICATION_ID, FORMAT), |transaction| {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO settings (lease_ms) VALUES (?1)", [lease.as_millis() as i64])?;
        Ok(())
    })
}

/// Checks the application id and the format.
fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let ask = |name| pragma(connection, name).map_err(|error| database_error(path, error));
    if ask("application_id")? != i64::from(APPLICATION_ID) {
        return Err(JournalError::Foreign { path: path.to_owned() });
    }
    check_format(path, ask("user_version")?)
}

fn check_format(path: &Path, found: i64) -> Result<(), JournalError> {
    let path = path.to_owned();
    match found {
        FORMAT => Ok(()),
        _ if found > FORMAT => Err(JournalError::Newer { path, found, known: FORMAT }),
        _ => Err(JournalError::Older { path, found, known: FORMAT }),
    }
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Creates an error without a cause.
pub(super) fn problem(path: &Path, problem: StoreProblem) -> JobStoreError {
    JobStoreError::Store { place: path.display().to_string(), problem, source: None }
}

/// Converts an error of the database.
pub(super) fn sqlite_error(path: &Path, error: rusqlite::Error) -> JobStoreError {
    store_error(path, database_error(path, error))
}

/// Converts an error of the operating system.
pub(super) fn io_error(path: &Path, error: io::Error) -> JobStoreError {
    store_error(path, JournalError::io(path, error))
}

/// Converts an error that the journal has in common with the job store. The words differ, the causes do not.
fn store_error(path: &Path, error: JournalError) -> JobStoreError {
    let (problem, source) = match error {
        JournalError::Foreign { .. } => (StoreProblem::Foreign, None),
        JournalError::Newer { found, known, .. } | JournalError::Older { found, known, .. } => {
            (StoreProblem::OtherVersion { found, known }, None)
        }
        JournalError::Damaged { .. } => (StoreProblem::Damaged, None),
        JournalError::Full { .. } => (StoreProblem::Full, None),
        JournalError::Locked { .. } => (StoreProblem::Locked, None),
        JournalError::NotWritable { source, .. } => (StoreProblem::NotWritable, Some(source)),
        JournalError::NoLocks { source, .. } => (StoreProblem::NoLocks, Some(source)),
        JournalError::NoSharedMemory { source, .. } | JournalError::Io { source, .. } => {
            (StoreProblem::Io, Some(source))
        }
        other => (StoreProblem::Io, Some(other.into())),
    };
    JobStoreError::Store { place: path.display().to_string(), problem, source: source.map(Arc::from) }
}

/// "RLJB"
const APPLICATION_ID: i32 = 0x524c_4a42;
const FORMAT: i64 = 1;

const LONGEST_LOG_BYTES: i64 = 64 << 20;

/// More than there are statements.
const CACHED_STATEMENTS: usize = 48;
