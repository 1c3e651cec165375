//! Creates, recognizes and checks the journal's file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::error::{BUSY_TIMEOUT, JournalError};
use super::error_conversion::database_error;
use super::format::{APPLICATION_ID, FORMAT, OLDEST_FORMAT, create, lacks_columns, migrate};
use super::header::format_of;
use super::logging::{self, Logging};
use super::owner;

/// Opens the journal. Creates it if the file is missing or empty.
pub(super) fn open(path: &Path) -> Result<(Connection, Logging), JournalError> {
    // Created before SQLite opens it: SQLite would make the file readable for every user.
    let is_new = make(path).map_err(|error| JournalError::io(path, error))?;
    // Before SQLite opens the file, which could change a database of another program. The file that was created here is
    // empty.
    if !is_new {
        format_of(path, APPLICATION_ID)?;
    }
    let logging = logging::for_file_system_of(path);
    match open_as(path, logging) {
        Ok(connection) => Ok((connection, logging)),
        Err(JournalError::NoSharedMemory { .. }) if logging == Logging::WriteAhead => {
            tracing::debug!(path = %path.display(), "no shared memory on this file system: the journal uses no write-ahead log");
            Ok((open_as(path, Logging::Rollback)?, Logging::Rollback))
        }
        // SQLite reports "busy", too, on a file system that has no locks at all.
        Err(error @ JournalError::Locked { .. }) => Err(logging::cannot_lock(path).unwrap_or(error)),
        Err(error) => Err(error),
    }
}

/// Opens the journal with the given kind of logging.
pub(super) fn open_as(path: &Path, logging: Logging) -> Result<Connection, JournalError> {
    let connected = connect(path, logging);
    let (mut connection, is_new) = connected.map_err(|error| database_error(path, error))?;
    // SQLite opens a read-only file without an error, and begins transactions that cannot write.
    if connection.is_readonly(MAIN_DB).map_err(|error| database_error(path, error))? {
        return Err(JournalError::NotWritable { path: path.to_owned(), source: "it is read-only".into() });
    }
    let found = check(&connection, path)?;
    // The tables that were created a moment ago have nothing that could be damaged.
    if !is_new {
        check_whole(&connection, path)?;
    }
    // Only after the checks: the switch writes to the header, and a refused file stays as it is.
    if logging == Logging::WriteAhead {
        logging::write_ahead(&connection, path).map_err(|error| database_error(path, error))?;
    }
    let lacks_columns = || lacks_columns(&connection).map_err(|error| database_error(path, error));
    if found < FORMAT || !is_new && lacks_columns()? {
        migrate(&mut connection, path)?;
    }
    Ok(connection)
}

/// Connects to the file, and creates the tables if it is empty. Returns `true` if they are new.
fn connect(path: &Path, logging: Logging) -> rusqlite::Result<(Connection, bool)> {
    // Before the first read: reading a database in WAL mode needs the shared memory that is missing here.
    if logging == Logging::Rollback {
        logging::leave_write_ahead(path, BUSY_TIMEOUT)?;
    }
    // Without CREATE, as the file exists. Without mutexes, as one thread uses the connection.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let is_new = is_empty(&connection)?;
    if is_new {
        create(&mut connection)?;
    }
    Ok((connection, is_new))
}

/// Opens a journal that cannot be written. Does not migrate it to the current format.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    format_of(path, APPLICATION_ID)?;
    let open = |uri: &str| -> Result<Connection, JournalError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let opened = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let connection = opened.map_err(|error| database_error(path, error))?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| database_error(path, error))?;
        check(&connection, path)?;
        check_whole(&connection, path)?;
        Ok(connection)
    };
    let uri = format!("file:{}", percent_encode(path.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC));
    // Reading a write-ahead log creates files beside it, which a read-only folder does not allow. Without a log the
    // database is complete, and `immutable` opens it without any other file.
    if has_log(path) { open(&uri) } else { open(&format!("{uri}?immutable=1")) }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // An empty log has nothing that the database lacks.
    fs::metadata(PathBuf::from(log)).is_ok_and(|log| log.len() > 0)
}

/// Creates the file and its folder if they are missing. Returns `true` if it created the file.
fn make(path: &Path) -> io::Result<bool> {
    if let Some(folder) = path.parent() {
        owner::make_folder(folder)?;
    }
    owner::make_file(path)
}

/// Returns `true` if the database has no page. The file length is no evidence: SQLite may have rolled back a
/// creation that a killed process left incomplete.
fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.pragma_query_value(None, "page_count", |row| row.get(0)).map(|pages: i64| pages == 0)
}

/// Checks the application id and the format, and returns the format. Comes before [`check_whole`], which names a table that
/// other databases do not have.
fn check(connection: &Connection, path: &Path) -> Result<i64, JournalError> {
    let ask = |pragma: &str| -> Result<i64, JournalError> {
        connection
            .pragma_query_value(None, pragma, |row| row.get(0))
            .map_err(|error| database_error(path, error))
    };
    let (id, found) = (ask("application_id")?, ask("user_version")?);
    let (path_buf, known) = (path.to_owned(), FORMAT);
    if id != i64::from(APPLICATION_ID) {
        return Err(JournalError::Foreign { path: path_buf });
    }
    if found > known {
        return Err(JournalError::Newer { path: path_buf, found, known });
    }
    if found < OLDEST_FORMAT {
        return Err(JournalError::Older { path: path_buf, found, known });
    }
    Ok(found)
}

/// Checks the pages of the file, and the indexes of the table `sessions`.
fn check_whole(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    // `quick_check` does not compare indexes with their tables. A claim finds its rows by an index: a row missing
    // there would be uploaded again.
    for check in ["PRAGMA quick_check", "PRAGMA integrity_check(sessions)"] {
        let verdict: String =
            connection.query_row(check, [], |row| row.get(0)).map_err(|error| database_error(path, error))?;
        if verdict != "ok" {
            return Err(JournalError::Damaged { path: path.to_owned() });
        }
    }
    Ok(())
}
