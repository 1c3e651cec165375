//! The format of the database: its tables, and how an older one is brought to it.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::error::JournalError;
use super::file::failed;
use super::row::SessionRow;

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
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
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
    let read = || -> rusqlite::Result<Vec<Option<SessionRow>>> {
        let mut statement = transaction
            .prepare("SELECT id, path, record, stored, seal FROM sessions WHERE lock IS NULL ORDER BY id")?;
        statement.query_map([], SessionRow::read)?.collect()
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

pub(super) fn lacks_columns(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sessions WHERE lock IS NULL)", [], |row| row.get(0))
}

/// "RLJL"
pub(super) const APPLICATION_ID: i32 = 0x524c_4a4c;
pub(super) const FORMAT: i64 = 3;
/// The oldest format that is brought to [`FORMAT`].
pub(super) const OLDEST_FORMAT: i64 = 2;

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
/// `digests` has those of chunks that were sent; `finished` has the files that an unfinished command uploaded.
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
