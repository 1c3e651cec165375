//! The format of the database, and the migration of older formats.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::error::JournalError;
use super::error_conversion::database_error;
use super::row::SessionRow;

/// Creates the tables of a journal.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    create_tables(connection, (APPLICATION_ID, FORMAT), |transaction| {
        transaction.execute_batch(SESSIONS_3)?;
        transaction.execute_batch(ADDED_IN_3)
    })
}

/// Creates the tables of a database, before it switches to WAL: the application id in the header is then in the main file
/// and not only in the log.
pub(crate) fn create_tables(
    connection: &mut Connection,
    (application_id, format): (i32, i64),
    create: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    // The write lock from the start: SQLite does not wait for it in a transaction that has read before
    // (SQLITE_BUSY).
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let made_meanwhile: bool =
        transaction.query_row("SELECT count(*) > 0 FROM sqlite_schema", [], |row| row.get(0))?;
    // Another process may have created the tables before this one got the write lock.
    if !made_meanwhile {
        transaction.pragma_update(None, "application_id", application_id)?;
        transaction.pragma_update(None, "user_version", format)?;
        create(&transaction)?;
    }
    transaction.commit()
}

/// Migrates a journal of format 2 to [`FORMAT`]. Its sessions stay resumable.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let refused = |error| database_error(path, error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
    // Another process may migrate at the same time: the format is read again under the write lock.
    let found: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refused)?;
    if found == 2 {
        transaction.execute_batch(COLUMNS_ADDED_IN_3).map_err(refused)?;
        transaction.execute_batch(ADDED_IN_3).map_err(refused)?;
        transaction.pragma_update(None, "user_version", FORMAT).map_err(refused)?;
    }
    fill_columns(&transaction, path)?;
    transaction.commit().map_err(refused)
}

/// Fills the columns that format 3 added.
///
/// Runs again at every start that finds empty ones: a process of the older version that was running during the
/// migration continues to insert rows without them.
fn fill_columns(transaction: &Transaction<'_>, path: &Path) -> Result<(), JournalError> {
    let read = || -> rusqlite::Result<Vec<Option<SessionRow>>> {
        let mut statement = transaction
            .prepare("SELECT id, path, record, stored, seal FROM sessions WHERE lock IS NULL ORDER BY id")?;
        statement.query_map([], SessionRow::read)?.collect()
    };
    for row in read().map_err(|error| database_error(path, error))? {
        let row = row.ok_or_else(|| JournalError::Damaged { path: path.to_owned() })?;
        transaction
            .execute(
                "UPDATE sessions SET inode = ?2, lock = ?3 WHERE id = ?1",
                params![row.id, row.inode(), row.lock()],
            )
            .map_err(|error| database_error(path, error))?;
    }
    Ok(())
}

/// Returns `true` if a row lacks the columns that format 3 added.
pub(super) fn lacks_columns(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sessions WHERE lock IS NULL)", [], |row| row.get(0))
}

/// "RLJL"
pub(super) const APPLICATION_ID: i32 = 0x524c_4a4c;
pub(super) const FORMAT: i64 = 3;
/// The oldest format that can be migrated to [`FORMAT`].
pub(super) const OLDEST_FORMAT: i64 = 2;

/// The table of sessions, as [`COLUMNS_ADDED_IN_3`] makes it of that of format 2.
///
/// `AUTOINCREMENT` never uses an id again: a command that listed the sessions names them by their ids later.
const SESSIONS_3: &str = "
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path BLOB NOT NULL,
        record TEXT NOT NULL,
        stored BLOB NOT NULL,
        seal BLOB NOT NULL,
        inode INTEGER,
        lock INTEGER
    ) STRICT;
";

/// The columns of format 3 that the table of format 2 lacks.
///
/// `inode` and `lock` repeat values of the record, so that indexes find the rows of a file and unused locks.
const COLUMNS_ADDED_IN_3: &str = "
    ALTER TABLE sessions ADD COLUMN inode INTEGER;
    ALTER TABLE sessions ADD COLUMN lock INTEGER;
";

/// The indexes and tables of format 3 that format 2 lacks.
///
/// `digests` has the digests of chunks that were sent; `finished` has the files that an unfinished command uploaded.
const ADDED_IN_3: &str = "
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
        id INTEGER PRIMARY KEY,
        path BLOB NOT NULL,
        inode INTEGER NOT NULL,
        finished_s INTEGER NOT NULL,
        record TEXT NOT NULL,
        seal BLOB NOT NULL
    ) STRICT;
    CREATE INDEX finished_by_path ON finished (path);
    CREATE INDEX finished_by_inode ON finished (inode);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_journal_has_the_tables_of_a_migrated_one() {
        let shape = |connection: &Connection| -> Vec<String> {
            let columns = "SELECT type || ' ' || name FROM sqlite_schema UNION ALL
                SELECT t.name || ' ' || c.cid || ' ' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk
                FROM sqlite_schema t, pragma_table_xinfo(t.name) c ORDER BY 1";
            let mut statement = connection.prepare(columns).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let mut new = Connection::open_in_memory().unwrap();
        create(&mut new).unwrap();
        let mut migrated = Connection::open_in_memory().unwrap();
        let table_2 = "CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL,
            record TEXT NOT NULL, stored BLOB NOT NULL, seal BLOB NOT NULL) STRICT";
        create_tables(&mut migrated, (APPLICATION_ID, 2), |transaction| transaction.execute_batch(table_2))
            .unwrap();
        migrate(&mut migrated, Path::new("journal.db")).unwrap();
        assert_eq!(shape(&new), shape(&migrated));
        assert!(shape(&new).contains(&"sessions 6 lock INTEGER 0 0".to_owned()));
    }
}
