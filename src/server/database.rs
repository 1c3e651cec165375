//! The SQLite database beside the stored files: everything that survives a restart except file bytes.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Result};

/// The server's database: one connection behind a lock.
pub(super) struct Database {
    connection: Mutex<Connection>,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Database> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A crash of the server loses nothing. A power failure may lose the latest transactions; it may also
        // lose the latest file writes, which are not synced either.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch(SCHEMA)?;
        Ok(Database { connection: Mutex::new(connection) })
    }

    /// Runs statements while holding the connection's lock.
    pub(super) fn with<T>(&self, run: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        run(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The schema. `mode` is `bytes`, `part` or `whole`; `place` is the offset of the first byte, a part number
/// or 0. Times are in milliseconds since 1970.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS videos (
        id TEXT NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        attributes TEXT NOT NULL,
        origin TEXT NOT NULL,
        mode TEXT,
        total INTEGER,
        completed_ms INTEGER,
        sha256 TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS pieces (
        video_id TEXT NOT NULL REFERENCES videos (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        len INTEGER NOT NULL,
        PRIMARY KEY (video_id, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS upload_tokens (
        token TEXT NOT NULL UNIQUE,
        ttl INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER
    ) STRICT;
    CREATE TABLE IF NOT EXISTS access_tokens (token TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS refresh_tokens (token TEXT PRIMARY KEY) STRICT;
";
