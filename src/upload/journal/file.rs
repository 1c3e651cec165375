//! The journal's file: made, recognised, checked.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::JournalError;

/// Opens the journal, which is made when the file is missing or empty.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    recognise(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connected = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        if is_empty(&connection)? {
            create(&mut connection)?;
        }
        Ok(connection)
    };
    let connection = connected().map_err(|error| failed(path, error))?;
    check(&connection, path)?;
    Ok(connection)
}

/// Looks at the header before the database does, so that a file of somebody else's stays untouched.
fn recognise(path: &Path) -> Result<(), JournalError> {
    let opened = || -> io::Result<File> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let read = opened().and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header));
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

/// Asks the database: it may have taken back what a process wrote that did not live to make all of it.
fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.pragma_query_value(None, "page_count", |row| row.get(0)).map(|pages: i64| pages == 0)
}

/// The header is on the disk before WAL begins: from then on it names the file's owner without the log.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let made_meanwhile: bool =
        transaction.query_row("SELECT count(*) > 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if !made_meanwhile {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.execute_batch(SCHEMA)?;
    }
    transaction.commit()
}

fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let ask = |pragma: &str| -> Result<i64, JournalError> {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(|error| failed(path, error))
    };
    let (id, found) = (ask("application_id")?, ask("user_version")?);
    let (path_buf, known) = (path.to_owned(), FORMAT);
    if id != i64::from(APPLICATION_ID) {
        return Err(JournalError::Foreign { path: path_buf });
    }
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => return Err(JournalError::Newer { path: path_buf, found, known }),
        std::cmp::Ordering::Less => return Err(JournalError::Older { path: path_buf, found, known }),
        std::cmp::Ordering::Equal => {}
    }
    let verdict: String = connection
        .pragma_query_value(None, "quick_check", |row| row.get(0))
        .map_err(|error| failed(path, error))?;
    if verdict != "ok" {
        return Err(JournalError::Damaged { path: path_buf });
    }
    write_ahead(connection)
        .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"))
        .map_err(|error| failed(path, error))
}

/// Where another process is busy with the file just now, it is that one which switches over.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the database said, as one of our reasons.
///
/// <https://www.sqlite.org/rescode.html>
pub(super) fn failed(path: &Path, error: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
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

/// "RLJL"
const APPLICATION_ID: i32 = 0x524c_4a4c;
const FORMAT: i64 = 2;

/// `AUTOINCREMENT`: whoever lists sessions names them by their ids later, which must not mean others by then.
const SCHEMA: &str = "
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path BLOB NOT NULL,
        record TEXT NOT NULL,
        stored BLOB NOT NULL,
        seal BLOB NOT NULL
    ) STRICT;
";
