//! Claims of sessions.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::Connection;

use super::claim_outcome::{Claim, ClaimOptions};
use super::claimed_entry::ClaimedEntry;
use super::database::undone_alone;
use super::entry::{Entry, EntryState};
use super::error::JournalError;
use super::finished;
use super::key::Key;
use super::lock::{LockAttempt, LockFiles};
use super::row::{SessionRow, SessionStage};
use super::session_table::{insert, relocate, update};
use super::{digests, lookup};

/// Claims the session of a key within a transaction of `connection`. A claim that fails changes nothing. `request` holds the
/// key, the arguments and the time.
pub(super) fn claim_in(
    connection: &Connection,
    locks: &mut LockFiles,
    options: ClaimOptions,
    request: (&Key, &str, SystemTime),
    path: &Path,
) -> Result<Claim, JournalError> {
    let (key, arguments, now) = request;
    // Before the sessions: the session of a finished file is gone, and the file would be begun anew.
    let mut rows = finished::find(connection, key, now, path)?;
    let outlived: Vec<i64> =
        if options.again { rows.drain(..).map(|row| row.id).collect() } else { Vec::new() };
    if let Some(row) = rows.pop() {
        return Ok(Claim::Finished(row.into_finished()));
    }
    let mut found = lookup::of_file(connection, key, path)?;
    found.retain(|row| row.continues(key));
    let is_new = found.is_empty() && outlived.is_empty();
    let change = || claim_found(connection, locks, options, (key, arguments, now), (found, outlived), path);
    // A new session is one statement, which needs no savepoint.
    if is_new { change() } else { undone_alone(connection, path, change) }
}

/// Claims one of the sessions `found`, or a new one. Deletes the rows `outlived` about finished files.
fn claim_found(
    connection: &Connection,
    locks: &mut LockFiles,
    options: ClaimOptions,
    (key, arguments, now): (&Key, &str, SystemTime),
    (found, outlived): (Vec<SessionRow>, Vec<i64>),
    path: &Path,
) -> Result<Claim, JournalError> {
    let (own, of_other_tokens): (Vec<SessionRow>, Vec<SessionRow>) =
        found.into_iter().partition(|row| row.has_token_of(key));
    // A session with a container holds more than one without, and the newest session is the most complete.
    if let Some(row) = own.into_iter().max_by_key(|row| (row.has_begun(), row.id)) {
        // The lock decides, because the row of a killed process looks like that of a running one.
        return match locks.take(row.lock())? {
            LockAttempt::Acquired(lock) => {
                finished::delete(connection, &outlived, path)?;
                take_up(connection, ClaimedEntry::new(row, lock), (key, arguments), path)
            }
            LockAttempt::HeldBy(pid) => Ok(Claim::Busy { pid }),
        };
    }
    // Deleted, not skipped: if this upload fails, the next claim must not find the older video. Not before the lock is
    // taken: a claim that finds the session busy changes nothing.
    finished::delete(connection, &outlived, path)?;
    // A session of another token that is running goes to another destination: it does not make this one busy.
    for row in of_other_tokens.into_iter().rev().filter(|_| !options.own_token_only) {
        if let LockAttempt::Acquired(lock) = locks.take(row.lock())? {
            let mut claimed = ClaimedEntry::new(row, lock);
            claimed.former = Some(claimed.row.destination().clone());
            return take_up(connection, claimed, (key, arguments), path);
        }
    }
    // Chosen under the write lock, so that two claims cannot choose the same number.
    let lock = locks.take_unused(|from| lookup::unused_lock(connection, from, path))?;
    let row = insert(connection, SessionRow::new(key, arguments, lock.number(), now), path)?;
    Ok(Claim::Fresh(ClaimedEntry::of_new(row, lock)))
}

/// Assigns a session of an earlier process to this claim.
fn take_up(
    connection: &Connection,
    mut claimed: ClaimedEntry,
    (key, arguments): (&Key, &str),
    path: &Path,
) -> Result<Claim, JournalError> {
    let digests = digests::of_session(connection, claimed.row.id, path)?;
    let saved = claimed.row.take_up(key, arguments, digests);
    update(connection, &claimed.row, path)?;
    relocate(connection, &claimed.row, path)?;
    Ok(match saved {
        Some(saved) => Claim::Resume(claimed, saved),
        None => Claim::Fresh(claimed),
    })
}

/// Converts a row into a listed session, whose state depends on its lock.
pub(super) fn entry(row: SessionRow, locks: &LockFiles) -> Result<Entry, JournalError> {
    let state = match (row.stage(), locks.holder(row.lock())) {
        (_, Ok(Some(pid))) => EntryState::Running { pid },
        (SessionStage::Open, Ok(None)) => EntryState::Interrupted,
        (SessionStage::Abandoned, Ok(None)) => EntryState::Abandoned,
        // One lock file of another user must not make the list of all other sessions fail.
        (_, Err(JournalError::OutOfReach { .. })) => EntryState::OutOfReach,
        (_, Err(error)) => return Err(error),
    };
    Ok(row.into_entry(state))
}
