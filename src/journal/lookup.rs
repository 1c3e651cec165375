//! Finds rows by indexes, so that the cost of a claim does not grow with the number of sessions.

use std::path::Path;

use rusqlite::{Connection, Params, params};

use super::error::JournalError;
use super::error_conversion::database_error;
use super::key::{EntrySource, Key};
use super::row::SessionRow;

/// Returns every session, oldest first.
pub(super) fn all(connection: &Connection, path: &Path) -> Result<Vec<SessionRow>, JournalError> {
    read(connection, "SELECT id, path, record, stored, seal FROM sessions ORDER BY id", [], path)
}

/// Returns the sessions with the path or the inode number of the key's file, oldest first; none for a stream.
///
/// Only these rows are checked against their seals: a damaged row of another file does not prevent the upload.
pub(super) fn of_file(
    connection: &Connection,
    key: &Key,
    path: &Path,
) -> Result<Vec<SessionRow>, JournalError> {
    let EntrySource::File { path: file, identity } = &key.source else { return Ok(Vec::new()) };
    // SQLite stores integers with a sign, in 64 bits; an inode number has none.
    let found = params![file.as_os_str().as_encoded_bytes(), identity.inode.cast_signed()];
    read(connection, OF_FILE, found, path)
}

/// Returns the session with this id.
pub(super) fn by_id(
    connection: &Connection,
    id: i64,
    path: &Path,
) -> Result<Option<SessionRow>, JournalError> {
    let sql = "SELECT id, path, record, stored, seal FROM sessions WHERE id = ?1";
    Ok(read(connection, sql, params![id], path)?.pop())
}

/// Returns the lowest lock number from `from` on that no session has.
pub(super) fn unused_lock(connection: &Connection, from: u32, path: &Path) -> Result<u32, JournalError> {
    let used = || -> rusqlite::Result<u32> {
        let mut unused = from;
        let mut statement = connection.prepare_cached(LOCKS_FROM)?;
        let mut rows = statement.query(params![from])?;
        while let Some(row) = rows.next()? {
            let number: u32 = row.get(0)?;
            // The rows are in order, so that the first gap is the answer.
            if number > unused {
                break;
            }
            unused = number + 1;
        }
        Ok(unused)
    };
    used().map_err(|error| database_error(path, error))
}

fn read(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    path: &Path,
) -> Result<Vec<SessionRow>, JournalError> {
    let read = || -> rusqlite::Result<Vec<Option<SessionRow>>> {
        connection.prepare_cached(sql)?.query_map(values, SessionRow::read)?.collect()
    };
    let rows: Option<Vec<SessionRow>> =
        read().map_err(|error| database_error(path, error))?.into_iter().collect();
    rows.ok_or_else(|| JournalError::Damaged { path: path.to_owned() })
}

// A moved file is found by its inode number, a file on a new mount by its path.
pub(super) const OF_FILE: &str =
    "SELECT id, path, record, stored, seal FROM sessions WHERE path = ?1 OR inode = ?2 ORDER BY id";
pub(super) const LOCKS_FROM: &str = "SELECT lock FROM sessions WHERE lock >= ?1 ORDER BY lock";
