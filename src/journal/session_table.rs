//! Writes the rows of the table `sessions`.

use std::path::Path;

use rusqlite::{Connection, params};

use super::error::JournalError;
use super::error_conversion::database_error;
use super::row::SessionRow;

/// Inserts a row and returns it with its id.
pub(super) fn insert(
    connection: &Connection,
    mut row: SessionRow,
    path: &Path,
) -> Result<SessionRow, JournalError> {
    let record = row.record();
    connection
        .prepare_cached(
            "INSERT INTO sessions (path, record, stored, seal, inode, lock) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            let (inode, lock) = (row.inode(), row.lock());
            insert.insert(params![row.path(), record, row.stored.bytes(), row.seal(&record), inode, lock])
        })
        .map(|id| row.id = id)
        .map_err(|error| database_error(path, error))?;
    Ok(row)
}

/// Updates a row, except for its indexed columns.
///
/// # Errors
/// [`JournalError::Forgotten`] if the row was deleted meanwhile.
pub(super) fn update(connection: &Connection, row: &SessionRow, path: &Path) -> Result<(), JournalError> {
    let record = row.record();
    // Naming the indexed columns would rewrite their indexes with each acknowledgement.
    let changed = connection
        .prepare_cached("UPDATE sessions SET record = ?2, stored = ?3, seal = ?4 WHERE id = ?1")
        .and_then(|mut update| update.execute(params![row.id, record, row.stored.bytes(), row.seal(&record)]))
        .map_err(|error| database_error(path, error))?;
    match changed {
        // SQLite calls an update of no row a success: another process may have deleted the session.
        0 => Err(JournalError::Forgotten { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Updates the columns that locate the file of a row, which [`update`] does not write.
pub(super) fn relocate(connection: &Connection, row: &SessionRow, path: &Path) -> Result<(), JournalError> {
    connection
        .prepare_cached("UPDATE sessions SET path = ?2, inode = ?3 WHERE id = ?1")
        .and_then(|mut update| update.execute(params![row.id, row.path(), row.inode()]))
        .map(drop)
        .map_err(|error| database_error(path, error))
}

/// Deletes the session with this id and its digests.
pub(super) fn delete(connection: &Connection, id: i64, path: &Path) -> Result<(), JournalError> {
    for delete in ["DELETE FROM sessions WHERE id = ?1", "DELETE FROM digests WHERE session = ?1"] {
        connection
            .prepare_cached(delete)
            .and_then(|mut delete| delete.execute(params![id]))
            .map_err(|error| database_error(path, error))?;
    }
    Ok(())
}
