//! The SQLite database beside the stored files: everything that survives a restart except file bytes.
//!
//! All SQL statements of the server are in this module. Its methods block, each for one short transaction.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::file_store::StoredChunk;
use super::rules::{ReceivedChunks, SourceOrigin, UploadState};

/// The server's database: one connection behind a lock.
pub(super) struct Database {
    connection: Mutex<Connection>,
}

/// A failed operation on the database.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct DatabaseError(#[from] rusqlite::Error);

impl DatabaseError {
    /// Returns `true` if the disk is full.
    pub(super) fn is_disk_full(&self) -> bool {
        self.0.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }
}

type DatabaseResult<T> = Result<T, DatabaseError>;

/// A video without its file.
pub(super) struct VideoRecord {
    pub(super) id: String,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
    pub(super) attributes: Map<String, Value>,
    /// The time at which the file was complete; `None` while bytes are missing.
    pub(super) completed_ms: Option<i64>,
}

/// An upload token.
pub(super) struct UploadTokenRecord {
    pub(super) token: String,
    /// The lifetime in seconds; 0 means that the token never expires.
    pub(super) ttl: u32,
    pub(super) created_ms: i64,
    pub(super) expires_ms: Option<i64>,
}

/// The sort key of a list of upload tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenSortKey {
    CreatedAt,
    Ttl,
}

impl Database {
    /// Opens the database, creating its file and its tables if missing.
    pub(super) fn open(path: &Path) -> DatabaseResult<Database> {
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

    /// Returns the API key that an earlier start generated; `None` at the first start.
    pub(super) fn api_key(&self) -> DatabaseResult<Option<String>> {
        let select = "SELECT value FROM settings WHERE name = 'api_key'";
        Ok(self.connection().query_row(select, [], |row| row.get(0)).optional()?)
    }

    /// Saves a generated API key.
    pub(super) fn insert_api_key(&self, key: &str) -> DatabaseResult<()> {
        self.connection().execute("INSERT INTO settings (name, value) VALUES ('api_key', ?1)", [key])?;
        Ok(())
    }

    /// Saves an access token and its refresh token, and deletes the access tokens that have expired.
    pub(super) fn insert_access_token(
        &self,
        access_token: &str,
        expires_ms: i64,
        refresh_token: &str,
        now_ms: i64,
    ) -> DatabaseResult<()> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM access_tokens WHERE expires_ms < ?1", [now_ms])?;
        transaction
            .execute("INSERT INTO access_tokens VALUES (?1, ?2)", params![access_token, expires_ms])?;
        transaction.execute("INSERT INTO refresh_tokens VALUES (?1)", [refresh_token])?;
        Ok(transaction.commit()?)
    }

    /// Returns the expiry time of an access token; `None` if the token is unknown.
    pub(super) fn access_token_expiry(&self, token: &str) -> DatabaseResult<Option<i64>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT expires_ms FROM access_tokens WHERE token = ?1")?;
        Ok(statement.query_row([token], |row| row.get(0)).optional()?)
    }

    /// Deletes a refresh token. Returns `false` if the token is unknown.
    pub(super) fn delete_refresh_token(&self, token: &str) -> DatabaseResult<bool> {
        Ok(self.connection().execute("DELETE FROM refresh_tokens WHERE token = ?1", [token])? > 0)
    }

    /// Saves a new video.
    pub(super) fn insert_video(&self, video: &VideoRecord, origin: SourceOrigin) -> DatabaseResult<()> {
        let attributes = Value::Object(video.attributes.clone()).to_string();
        self.connection().execute(
            "INSERT INTO videos (id, created_ms, updated_ms, attributes, origin, completed_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                video.id,
                video.created_ms,
                video.updated_ms,
                attributes,
                origin.name(),
                video.completed_ms
            ],
        )?;
        Ok(())
    }

    /// Saves the attributes and the update time of a video.
    pub(super) fn update_video(&self, video: &VideoRecord) -> DatabaseResult<()> {
        let attributes = Value::Object(video.attributes.clone()).to_string();
        self.connection().execute(
            "UPDATE videos SET attributes = ?2, updated_ms = ?3 WHERE id = ?1",
            params![video.id, attributes, video.updated_ms],
        )?;
        Ok(())
    }

    /// Returns a video; `None` if there is none with this id.
    pub(super) fn video(&self, id: &str) -> DatabaseResult<Option<VideoRecord>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!("{SELECT_VIDEOS} WHERE id = ?1"))?;
        Ok(statement.query_row([id], VideoRecord::from_row).optional()?)
    }

    /// Returns all videos, oldest first.
    pub(super) fn videos(&self) -> DatabaseResult<Vec<VideoRecord>> {
        let connection = self.connection();
        // The row number orders videos of the same millisecond.
        let mut statement = connection.prepare(&format!("{SELECT_VIDEOS} ORDER BY created_ms, rowid"))?;
        let rows = statement.query_map([], VideoRecord::from_row)?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
    }

    /// Deletes a video with the rows of its chunks. Returns `false` if there is none with this id.
    pub(super) fn delete_video(&self, id: &str) -> DatabaseResult<bool> {
        // `foreign_keys` deletes the rows of its chunks.
        Ok(self.connection().execute("DELETE FROM videos WHERE id = ?1", [id])? > 0)
    }

    /// Returns the SHA-256 of a video's file; `None` if it was not computed yet.
    pub(super) fn sha256(&self, video_id: &str) -> DatabaseResult<Option<String>> {
        let select = "SELECT sha256 FROM videos WHERE id = ?1";
        let found = self.connection().query_row(select, [video_id], |row| row.get(0)).optional()?;
        Ok(found.flatten())
    }

    /// Saves the SHA-256 of a video's file.
    pub(super) fn set_sha256(&self, video_id: &str, sha256: &str) -> DatabaseResult<()> {
        self.connection()
            .execute("UPDATE videos SET sha256 = ?2 WHERE id = ?1", params![video_id, sha256])?;
        Ok(())
    }

    /// Returns the state of a video's upload; `None` if there is no video with this id.
    pub(super) fn upload_state(&self, video_id: &str) -> DatabaseResult<Option<UploadState>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT origin, mode, total FROM videos WHERE id = ?1")?;
        let found = statement.query_row([video_id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<u64>>(2)?))
        });
        let Some((origin, mode, total)) = found.optional()? else { return Ok(None) };
        let mut statement = connection.prepare_cached("SELECT place, len FROM pieces WHERE video_id = ?1")?;
        let chunks = statement
            .query_map([video_id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<BTreeMap<u64, u64>>>()?;
        let received = match mode.as_deref() {
            Some("whole") => ReceivedChunks::Whole(chunks.values().sum()),
            Some("bytes") => ReceivedChunks::Bytes { chunks, total },
            Some("part") => ReceivedChunks::Parts {
                chunks: chunks.into_iter().map(|(number, len)| (number as u32, len)).collect(),
                total: total.map(|total| total as u32),
            },
            _ => ReceivedChunks::Nothing,
        };
        Ok(Some(UploadState { origin: SourceOrigin::from_name(&origin), received }))
    }

    /// Saves a stored chunk and the upload's new state. `completed_ms` is `None` while bytes are missing.
    pub(super) fn insert_chunk(
        &self,
        video_id: &str,
        chunk: StoredChunk,
        upload: &UploadState,
        completed_ms: Option<i64>,
    ) -> DatabaseResult<()> {
        let (mode, total) = match &upload.received {
            ReceivedChunks::Nothing | ReceivedChunks::Whole(_) => ("whole", None),
            ReceivedChunks::Bytes { total, .. } => ("bytes", *total),
            ReceivedChunks::Parts { total, .. } => ("part", total.map(u64::from)),
        };
        let mut connection = self.connection();
        // Together, so that a restart never finds a chunk without the state that counts it.
        let transaction = connection.transaction()?;
        transaction
            .prepare_cached("INSERT INTO pieces (video_id, place, len) VALUES (?1, ?2, ?3)")?
            .execute(params![video_id, chunk.position, chunk.len])?;
        transaction
            .prepare_cached("UPDATE videos SET mode = ?2, total = ?3, completed_ms = ?4 WHERE id = ?1")?
            .execute(params![video_id, mode, total, completed_ms])?;
        Ok(transaction.commit()?)
    }

    /// Saves a new upload token.
    pub(super) fn insert_upload_token(&self, token: &UploadTokenRecord) -> DatabaseResult<()> {
        self.connection().execute(
            "INSERT INTO upload_tokens (token, ttl, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4)",
            params![token.token, token.ttl, token.created_ms, token.expires_ms],
        )?;
        Ok(())
    }

    /// Returns an upload token, expired or not; `None` if the token is unknown.
    pub(super) fn upload_token(&self, token: &str) -> DatabaseResult<Option<UploadTokenRecord>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!("{SELECT_TOKENS} WHERE token = ?1"))?;
        Ok(statement.query_row([token], UploadTokenRecord::from_row).optional()?)
    }

    /// Returns the upload tokens that have not expired at `now_ms`.
    pub(super) fn valid_upload_tokens(
        &self,
        now_ms: i64,
        sort_key: TokenSortKey,
        is_descending: bool,
    ) -> DatabaseResult<Vec<UploadTokenRecord>> {
        // The name of a column cannot be a parameter of a statement. These are the only two.
        let column = match sort_key {
            TokenSortKey::CreatedAt => "created_ms",
            TokenSortKey::Ttl => "ttl",
        };
        let order = if is_descending { "desc" } else { "asc" };
        let valid = "expires_ms IS NULL OR expires_ms > ?1";
        let connection = self.connection();
        let mut statement = connection
            .prepare(&format!("{SELECT_TOKENS} WHERE {valid} ORDER BY {column} {order}, rowid {order}"))?;
        let rows = statement.query_map([now_ms], UploadTokenRecord::from_row)?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
    }

    /// Deletes an upload token. Returns `false` if the token is unknown.
    pub(super) fn delete_upload_token(&self, token: &str) -> DatabaseResult<bool> {
        Ok(self.connection().execute("DELETE FROM upload_tokens WHERE token = ?1", [token])? > 0)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VideoRecord {
    /// Reads a row of [`SELECT_VIDEOS`].
    fn from_row(row: &Row<'_>) -> rusqlite::Result<VideoRecord> {
        let attributes: String = row.get(3)?;
        Ok(VideoRecord {
            id: row.get(0)?,
            created_ms: row.get(1)?,
            updated_ms: row.get(2)?,
            attributes: serde_json::from_str(&attributes).unwrap_or_default(),
            completed_ms: row.get(4)?,
        })
    }
}

impl UploadTokenRecord {
    /// Reads a row of [`SELECT_TOKENS`].
    fn from_row(row: &Row<'_>) -> rusqlite::Result<UploadTokenRecord> {
        Ok(UploadTokenRecord {
            token: row.get(0)?,
            ttl: row.get(1)?,
            created_ms: row.get(2)?,
            expires_ms: row.get(3)?,
        })
    }
}

const SELECT_VIDEOS: &str = "SELECT id, created_ms, updated_ms, attributes, completed_ms FROM videos";

const SELECT_TOKENS: &str = "SELECT token, ttl, created_ms, expires_ms FROM upload_tokens";

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
