//! The table `digests`: the digests of the chunks that were sent.
//!
//! They have rows of their own: rewriting the digests of ten thousand chunks with each acknowledgement would write
//! 160 KB each time. A digest is written before the end of its request is sent, so that a chunk whose answer was lost
//! has a digest as well. Digests need no seal: a damaged digest proves nothing, and the upload begins anew.

use std::path::Path;

use rusqlite::{Connection, params};

use super::error::JournalError;
use super::error_conversion::database_error;
use crate::source::ChunkDigest;

/// Writes the digest of the chunk at `index` as it was sent.
pub(super) fn record(
    connection: &Connection,
    (session, index): (i64, u32),
    digest: &ChunkDigest,
    path: &Path,
) -> Result<(), JournalError> {
    // A chunk that was sent twice with different bytes gets an empty digest, which equals none of a file: the service
    // may have stored either.
    connection
        .prepare_cached(
            "INSERT INTO digests (session, chunk, digest) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET digest = iif(digest = excluded.digest, digest, x'')",
        )
        .and_then(|mut insert| insert.execute(params![session, index, digest.as_bytes()]))
        .map(drop)
        .map_err(|error| database_error(path, error))
}

/// Returns the digests of a session with the indexes of their chunks, ascending. `None` stands for a damaged digest.
pub(super) fn of_session(
    connection: &Connection,
    session: i64,
    path: &Path,
) -> Result<Vec<(u32, Option<ChunkDigest>)>, JournalError> {
    let read = || -> rusqlite::Result<Vec<(u32, Option<ChunkDigest>)>> {
        connection
            .prepare_cached("SELECT chunk, digest FROM digests WHERE session = ?1 ORDER BY chunk")?
            .query_map([session], |row| {
                Ok((row.get(0)?, ChunkDigest::from_bytes(&row.get::<_, Vec<u8>>(1)?)))
            })?
            .collect()
    };
    read().map_err(|error| database_error(path, error))
}

/// Deletes the digests of a session.
pub(super) fn forget(connection: &Connection, session: i64, path: &Path) -> Result<(), JournalError> {
    connection
        .prepare_cached("DELETE FROM digests WHERE session = ?1")
        .and_then(|mut delete| delete.execute([session]))
        .map(drop)
        .map_err(|error| database_error(path, error))
}
