//! The journal's file: made, recognised, checked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, ffi};

use super::error::JournalError;
use super::format::{APPLICATION_ID, FORMAT, OLDEST_FORMAT, create, lacks_columns, migrate};
use super::logging::{self, Logging};
use super::owner;

/// Opens the journal, which is made when the file is missing or empty.
pub(super) fn open(path: &Path) -> Result<(Connection, Logging), JournalError> {
    make(path).map_err(|error| JournalError::io(path, error))?;
    recognise(path)?;
    let logging = logging::suited_to(path);
    match open_as(path, logging) {
        Ok(connection) => Ok((connection, logging)),
        Err(JournalError::NoSharedMemory { .. }) if logging == Logging::WriteAhead => {
            tracing::debug!(path = %path.display(), "no shared memory here: the journal does without a write-ahead log");
            Ok((open_as(path, Logging::Rollback)?, Logging::Rollback))
        }
        // SQLite calls it busy, too, when the file system has no locks at all.
        Err(error @ JournalError::Locked { .. }) => Err(logging::cannot_lock(path).unwrap_or(error)),
        Err(error) => Err(error),
    }
}

pub(super) fn open_as(path: &Path, logging: Logging) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connected = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        if logging == Logging::Rollback {
            logging::leave_write_ahead(&connection, PATIENCE)?;
        }
        if is_empty(&connection)? {
            create(&mut connection)?;
        }
        Ok(connection)
    };
    let mut connection = connected().map_err(|error| failed(path, error))?;
    // SQLite opens what it cannot write all the same, and begins transactions that cannot write either.
    if connection.is_readonly(MAIN_DB).map_err(|error| failed(path, error))? {
        return Err(JournalError::NotWritable { path: path.to_owned(), source: "it is read-only".into() });
    }
    let found = check(&connection, path)?;
    if logging == Logging::WriteAhead {
        logging::write_ahead(&connection).map_err(|error| failed(path, error))?;
    }
    if found < FORMAT || lacks_columns(&connection).map_err(|error| failed(path, error))? {
        migrate(&mut connection, path)?;
    }
    Ok(connection)
}

/// Opens a journal that cannot be written. It is not brought to this version's format.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    recognise(path)?;
    let open = |uri: &str| -> Result<Connection, JournalError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let opened = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let connection = opened.map_err(|error| failed(path, error))?;
        connection.busy_timeout(PATIENCE).map_err(|error| failed(path, error))?;
        check(&connection, path)?;
        Ok(connection)
    };
    let uri = format!("file:{}", percent_encode(path.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC));
    // A log needs files beside it, which its reader may not be able to make, nor to remove. Without one, all is in
    // the database itself.
    if has_log(path) { open(&uri) } else { open(&format!("{uri}?immutable=1")) }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(PathBuf::from(log)).is_ok_and(|log| log.len() > 0)
}

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> Result<FileId, JournalError> {
        let metadata = fs::metadata(path).map_err(|error| JournalError::io(path, error))?;
        Ok(FileId { device: metadata.dev(), inode: metadata.ino() })
    }
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        owner::make_folder(folder)?;
    }
    owner::make_file(path).map(drop)
}

/// Looks at the header before the database does, so that a file of somebody else's stays untouched.
fn recognise(path: &Path) -> Result<(), JournalError> {
    if is_open_here(path) {
        return Ok(());
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let read = File::open(path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header));
    read.map_err(|error| JournalError::io(path, error))?;
    let ours =
        header.get(APPLICATION_ID_AT..).is_some_and(|id| id.starts_with(&APPLICATION_ID.to_be_bytes()));
    match header.starts_with(MAGIC) {
        _ if header.is_empty() => Ok(()),
        true if ours => Ok(()),
        true if header.len() < HEADER_BYTES => Err(JournalError::Damaged { path: path.to_owned() }),
        _ => Err(JournalError::Foreign { path: path.to_owned() }),
    }
}

/// Whether this process has the file open. To close it once more would drop the locks that SQLite holds on it
/// (fcntl(2), "record locks"), and SQLite checks what it opens.
fn is_open_here(path: &Path) -> bool {
    let Ok(id) = FileId::of(path) else { return false };
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return false };
    open.flatten().any(|file| FileId::of(&file.path()).is_ok_and(|open| open == id))
}

/// Asks the database: it may have taken back what a process wrote that did not live to make all of it.
fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.pragma_query_value(None, "page_count", |row| row.get(0)).map(|pages: i64| pages == 0)
}

/// Returns the format.
fn check(connection: &Connection, path: &Path) -> Result<i64, JournalError> {
    let ask = |pragma: &str| -> Result<i64, JournalError> {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(|error| failed(path, error))
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
    check_whole(connection, path)?;
    Ok(found)
}

/// The second check compares indexes with their table: by these a claim finds its rows, and a row that no index
/// leads to would be begun anew.
fn check_whole(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    for check in ["PRAGMA quick_check", "PRAGMA integrity_check(sessions)"] {
        let verdict: String =
            connection.query_row(check, [], |row| row.get(0)).map_err(|error| failed(path, error))?;
        if verdict != "ok" {
            return Err(JournalError::Damaged { path: path.to_owned() });
        }
    }
    Ok(())
}

/// What the database said, as one of our reasons.
///
/// <https://www.sqlite.org/rescode.html>
pub(super) fn failed(path: &Path, error: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMLOCK) => {
            return JournalError::NoSharedMemory { path, source: error.into() };
        }
        // The shared memory is a file that grows by being written.
        Some(ffi::SQLITE_IOERR_SHMSIZE) => return JournalError::Full { path },
        Some(ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_RDLOCK | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK) => {
            return JournalError::NoLocks { path, source: error.into() };
        }
        _ => {}
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => JournalError::Foreign { path },
        Some(ErrorCode::DatabaseCorrupt) => JournalError::Damaged { path },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            JournalError::NotWritable { path, source: error.into() }
        }
        Some(ErrorCode::DiskFull) => JournalError::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Locked { path },
        _ => JournalError::Io { path, source: error.into() },
    }
}

/// How long to wait for other processes, each of which holds the file for milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// <https://www.sqlite.org/fileformat.html#the_database_header>
const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
const APPLICATION_ID_AT: usize = 68;
