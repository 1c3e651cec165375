//! The digests of the chunks that were sent, in rows of their own: rewriting those of ten thousand chunks with each
//! acknowledgement would write 160 KB each time.
//!
//! A digest is written before the end of its request is sent, so that a chunk whose answer was lost has one as well.
//! Digests need no seal: one that was damaged proves nothing, and the upload begins anew.

use std::path::Path;

use rusqlite::{Transaction, params};

use super::claim::ClaimedEntry;
use super::error::JournalError;
use super::file::failed;
use super::{Durability, Journal, begin};
use crate::source::ChunkDigest;

impl Journal {
    /// Writes down the digest of the chunk at `index` as it was sent. It survives the process, not the machine.
    ///
    /// A chunk that was sent twice with different bytes has no digest any more that equals one of a file: the
    /// service may have either.
    ///
    /// # Errors
    /// When it could not be written down. The chunk cannot be proved later then.
    pub fn record_digest(
        &mut self,
        claimed: &ClaimedEntry,
        index: u32,
        digest: ChunkDigest,
    ) -> Result<(), JournalError> {
        self.survive(Durability::Process)?;
        let path = &self.path;
        let transaction = begin(&mut self.connection, path)?;
        transaction
            .prepare_cached(
                "INSERT INTO digests (session, chunk, digest) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET digest = iif(digest = excluded.digest, digest, x'')",
            )
            .and_then(|mut insert| insert.execute(params![claimed.row.id, index, digest.as_bytes()]))
            .map_err(|error| failed(path, error))?;
        transaction.commit().map_err(|error| failed(path, error))
    }
}

/// The digests of a session by the indexes of their chunks, ascending. A damaged one equals none of a file.
pub(super) fn of_session(
    transaction: &Transaction<'_>,
    session: i64,
    path: &Path,
) -> Result<Vec<(u32, Option<ChunkDigest>)>, JournalError> {
    let read = || -> rusqlite::Result<Vec<(u32, Option<ChunkDigest>)>> {
        transaction
            .prepare_cached("SELECT chunk, digest FROM digests WHERE session = ?1 ORDER BY chunk")?
            .query_map([session], |row| {
                Ok((row.get(0)?, ChunkDigest::from_bytes(&row.get::<_, Vec<u8>>(1)?)))
            })?
            .collect()
    };
    read().map_err(|error| failed(path, error))
}

/// Forgets the digests of a session whose chunks no longer count.
pub(super) fn forget(transaction: &Transaction<'_>, session: i64, path: &Path) -> Result<(), JournalError> {
    transaction
        .prepare_cached("DELETE FROM digests WHERE session = ?1")
        .and_then(|mut delete| delete.execute([session]))
        .map(drop)
        .map_err(|error| failed(path, error))
}
