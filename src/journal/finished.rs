//! Files that a command uploaded, saved until the whole command has ended well.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::endpoint;
use super::entry::Finished;
use super::error::JournalError;
use super::error_conversion::database_error;
use super::identity::{Comparison, SourceIdentity, compare};
use super::key::{EntryDestination, EntrySource, Key};
use super::seal::seal;
use super::stored_plan::StoredPlan;

/// One row of the table `finished`.
#[derive(Clone, Debug)]
pub(super) struct FinishedRow {
    /// The id of the session that uploaded the file. Session ids are never used again.
    pub(super) id: i64,
    path: PathBuf,
    record: FinishedRecord,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FinishedRecord {
    endpoint: String,
    identity: SourceIdentity,
    destination: EntryDestination,
    video_id: String,
    plan: Option<StoredPlan>,
    finished_s: u64,
}

impl FinishedRow {
    pub(super) fn new(
        id: i64,
        key: (&Path, &str, SourceIdentity, EntryDestination),
        video_id: &str,
        plan: Option<StoredPlan>,
        now: SystemTime,
    ) -> FinishedRow {
        let (path, endpoint, identity, destination) = key;
        let (endpoint, video_id) = (endpoint.to_owned(), video_id.to_owned());
        let record = FinishedRecord {
            endpoint,
            identity,
            destination,
            video_id,
            plan,
            finished_s: since_1970(now).as_secs(),
        };
        FinishedRow { id, path: path.to_owned(), record }
    }

    /// Reads a row. Returns `None` if the row does not match its seal.
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<FinishedRow>> {
        let (path, text): (Vec<u8>, String) = (row.get("path")?, row.get("record")?);
        let (id, written): (i64, Vec<u8>) = (row.get("id")?, row.get("seal")?);
        if seal(&[&path, text.as_bytes()]).as_slice() != written {
            return Ok(None);
        }
        let path = PathBuf::from(OsString::from_vec(path));
        Ok(serde_json::from_str(&text).ok().map(|record| FinishedRow { id, path, record }))
    }

    /// Returns `true` if the row is about the key's file, unchanged, at the same destination of the same service.
    /// Another upload token makes no difference.
    fn answers(&self, key: &Key) -> bool {
        let EntrySource::File { path, identity: now } = &key.source else { return false };
        // A changed ctime makes it another file: a program that preserved length and mtime may have written other
        // bytes, and no digest proves the opposite.
        compare(&self.record.identity, now, self.path == *path, false) == Comparison::Same
            && endpoint::is_same(&self.record.endpoint, &key.endpoint)
            && self.record.destination.is_same_but_for_the_token(&key.destination)
    }

    /// Returns `true` if the row is older than [`KEPT_FOR`]. A clock that was set back never makes it older.
    fn is_outdated(&self, now: SystemTime) -> bool {
        since_1970(now).saturating_sub(Duration::from_secs(self.record.finished_s)) > KEPT_FOR
    }

    pub(super) fn into_finished(self) -> Finished {
        let FinishedRecord { identity, video_id, plan, .. } = self.record;
        Finished { id: self.id, video_id, bytes: identity.len, plan: plan.and_then(|plan| plan.plan().ok()) }
    }
}

/// Returns the rows about the key's file, the newest last.
pub(super) fn find(
    connection: &Connection,
    key: &Key,
    now: SystemTime,
    journal: &Path,
) -> Result<Vec<FinishedRow>, JournalError> {
    let EntrySource::File { path, identity } = &key.source else { return Ok(Vec::new()) };
    let read = || -> rusqlite::Result<Vec<Option<FinishedRow>>> {
        connection
            .prepare_cached(OF_FILE)?
            .query_map(params![path.as_os_str().as_bytes(), identity.inode.cast_signed()], FinishedRow::read)?
            .collect()
    };
    // All or none: a row that cannot be trusted must not pass for a missing one.
    let rows: Option<Vec<FinishedRow>> =
        read().map_err(|error| database_error(journal, error))?.into_iter().collect();
    let mut rows = rows.ok_or_else(|| JournalError::Damaged { path: journal.to_owned() })?;
    rows.retain(|row| row.answers(key) && !row.is_outdated(now));
    Ok(rows)
}

/// Inserts a row, or replaces the one of the same session.
pub(super) fn insert(connection: &Connection, row: &FinishedRow, journal: &Path) -> Result<(), JournalError> {
    let record = serde_json::to_string(&row.record).unwrap_or_default();
    let path = row.path.as_os_str().as_bytes();
    // SQLite's integers are signed. The cast keeps every bit.
    let inode = row.record.identity.inode.cast_signed();
    let seal = seal(&[path, record.as_bytes()]);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO finished (id, path, inode, finished_s, record, seal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            insert.execute(params![row.id, path, inode, row.record.finished_s, record, seal])
        })
        .map(drop)
        .map_err(|error| database_error(journal, error))
}

/// Deletes the rows with these ids.
pub(super) fn delete(connection: &Connection, ids: &[i64], journal: &Path) -> Result<(), JournalError> {
    for id in ids {
        connection
            .prepare_cached("DELETE FROM finished WHERE id = ?1")
            .and_then(|mut delete| delete.execute(params![id]))
            .map_err(|error| database_error(journal, error))?;
    }
    Ok(())
}

/// Deletes the rows that are older than [`KEPT_FOR`].
pub(super) fn delete_outdated(
    connection: &Connection,
    now: SystemTime,
    journal: &Path,
) -> Result<(), JournalError> {
    let oldest_s = since_1970(now).saturating_sub(KEPT_FOR).as_secs();
    connection
        .execute("DELETE FROM finished WHERE finished_s < ?1", params![oldest_s])
        .map(drop)
        .map_err(|error| database_error(journal, error))
}

fn since_1970(now: SystemTime) -> Duration {
    // A clock before 1970 counts as 1970: it must not make an upload fail.
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The lifetime of a row. A command that was not repeated within a week is not expected any more.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

const OF_FILE: &str = "SELECT id, path, record, seal FROM finished WHERE path = ?1 OR inode = ?2 ORDER BY id";
