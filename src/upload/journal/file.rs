//! The journal's file: made, recognised, checked.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use super::error::JournalError;
use super::row::Row;

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
    let mut connection = connected().map_err(|error| failed(path, error))?;
    check(&mut connection, path)?;
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
        transaction.execute_batch(SCHEMA_2)?;
        transaction.execute_batch(ADDED_IN_3)?;
    }
    transaction.commit()
}

/// Brings a journal of format 2 to this version's format. Its sessions stay resumable.
///
/// Another process may be doing the same: the write lock is taken first, and the format is read under it.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let refused = |error| failed(path, error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
    let found: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refused)?;
    if found == 2 {
        transaction.execute_batch(ADDED_IN_3).map_err(refused)?;
        transaction.pragma_update(None, "user_version", FORMAT).map_err(refused)?;
    }
    fill_columns(&transaction, path)?;
    transaction.commit().map_err(refused)
}

/// Fills the columns that format 2 has not. A process of the older version that was running during the migration
/// goes on to insert rows without these columns.
fn fill_columns(transaction: &Transaction<'_>, path: &Path) -> Result<(), JournalError> {
    let read = || -> rusqlite::Result<Vec<Option<Row>>> {
        let mut statement = transaction
            .prepare("SELECT id, path, record, stored, seal FROM sessions WHERE lock IS NULL ORDER BY id")?;
        statement.query_map([], Row::read)?.collect()
    };
    for row in read().map_err(|error| failed(path, error))? {
        let row = row.ok_or_else(|| JournalError::Damaged { path: path.to_owned() })?;
        transaction
            .execute(
                "UPDATE sessions SET inode = ?2, lock = ?3 WHERE id = ?1",
                params![row.id, row.inode(), row.lock()],
            )
            .map_err(|error| failed(path, error))?;
    }
    Ok(())
}

fn lacks_columns(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sessions WHERE lock IS NULL)", [], |row| row.get(0))
}

fn check(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let refused = |error| failed(path, error);
    let ask = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(refused);
    let (id, found): (i64, i64) = (ask("application_id")?, ask("user_version")?);
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
    write_ahead(connection)
        .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"))
        .map_err(refused)?;
    if found < known || lacks_columns(connection).map_err(refused)? {
        migrate(connection, path)?;
    }
    Ok(())
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
const FORMAT: i64 = 3;
/// The oldest format that is brought to [`FORMAT`].
const OLDEST_FORMAT: i64 = 2;

/// The tables of format 2.
///
/// `AUTOINCREMENT`: whoever lists sessions names them by their ids later, which must not mean others by then.
const SCHEMA_2: &str = "
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path BLOB NOT NULL,
        record TEXT NOT NULL,
        stored BLOB NOT NULL,
        seal BLOB NOT NULL
    ) STRICT;
";

/// What format 3 adds to the tables of format 2.
///
/// `inode` and `lock` repeat what the record says, so that an index finds the rows of a file, and unused locks.
/// `digests` has the SHA-256 of acknowledged chunks; `finished` has the files that an unfinished command uploaded.
const ADDED_IN_3: &str = "
    ALTER TABLE sessions ADD COLUMN inode INTEGER;
    ALTER TABLE sessions ADD COLUMN lock INTEGER;
    CREATE INDEX sessions_by_path ON sessions (path);
    CREATE INDEX sessions_by_inode ON sessions (inode);
    CREATE INDEX sessions_by_lock ON sessions (lock);
    CREATE TABLE digests (
        session INTEGER NOT NULL,
        chunk INTEGER NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (session, chunk)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE finished (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path BLOB NOT NULL,
        inode INTEGER NOT NULL,
        finished_s INTEGER NOT NULL,
        record TEXT NOT NULL,
        seal BLOB NOT NULL
    ) STRICT;
    CREATE INDEX finished_by_path ON finished (path);
    CREATE INDEX finished_by_inode ON finished (inode);
";
