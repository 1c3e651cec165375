//! The last writes of this process, which need not be read back.
//!
//! A record that this process has just written is known together with its revision: the next write can name that
//! revision without reading the record first. If another process has changed the record since, the server refuses the
//! write, and the record is read. A revision alone is no fence, because an older copy of the store that comes back counts
//! its revisions anew. A known record is therefore used only while no copy can have come back, see
//! [`OwnWrites::take`].

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::projection::Projection;
use super::record::StoredJob;
use crate::bulk::JobState;

/// The last writes of this process.
#[derive(Debug, Default)]
pub(super) struct OwnWrites(Mutex<KnownWrites>);

#[derive(Debug, Default)]
struct KnownWrites {
    /// The number of the connection by which all of this was written.
    connection: u64,
    /// The start of the newest request that was answered by that connection.
    asked_at: Duration,
    /// `true` if the server at the other end of the connection has the only copy of the store.
    is_here: bool,
    /// The jobs that this process holds, by their keys.
    held: HashMap<String, KnownJob>,
    /// The changes that the index has not applied, by their revisions.
    changes: BTreeMap<u64, OwnChange>,
}

/// The record of a job that this process has written last.
#[derive(Clone, Debug)]
pub(super) struct KnownJob {
    pub(super) job: StoredJob,
    /// The revision that the next write has to name.
    pub(super) revision: u64,
}

/// The change of a job by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnChange {
    pub(super) key: String,
    pub(super) projection: Projection,
}

/// The connection and the time of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestMoment {
    /// The number of the connection.
    pub(super) connection: u64,
    /// The time since the machine started, with the time that it was suspended.
    pub(super) at: Duration,
}

impl OwnWrites {
    /// Records the place of the store. `is_here` is `true` if the connected server has the only copy.
    pub(super) fn found_stream(&self, is_here: bool, asked: RequestMoment, answered: RequestMoment) {
        let mut known = self.lock();
        if known.is_of_both(asked, answered) {
            known.is_here = is_here;
        }
    }

    /// Records the write of a job that was requested at `asked` and answered at `answered`.
    pub(super) fn add(
        &self,
        key: &str,
        job: StoredJob,
        revision: u64,
        asked: RequestMoment,
        answered: RequestMoment,
    ) {
        let mut known = self.lock();
        if !known.is_of_both(asked, answered) {
            known.held.remove(key);
            return;
        }
        if known.changes.len() < MOST_CHANGES {
            let projection = job.projection();
            known.changes.insert(revision, OwnChange { key: key.to_owned(), projection });
        }
        if known.held.len() >= MOST_HELD {
            // Records of jobs that were lost stay behind, in rare cases.
            known.held.clear();
        }
        let is_held = matches!(job.record.state, JobState::Running { .. });
        let is_short = job.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.len() <= LONGEST_KNOWN);
        if is_held && is_short {
            known.held.insert(key.to_owned(), KnownJob { job, revision });
        } else {
            known.held.remove(key);
        }
    }

    /// Removes and returns the record of a job that this process holds.
    ///
    /// Returns `None` if an older copy of the store may have come back since the record was written. A server restarts for
    /// that, so that a new connection is the sign of it, unless other servers have copies. A connection without a recent
    /// answer is no proof: a process that was suspended has not noticed its end yet.
    pub(super) fn take(&self, key: &str, now: RequestMoment) -> Option<KnownJob> {
        let mut known = self.lock();
        let is_recent = now.at.saturating_sub(known.asked_at) <= LONGEST_SILENCE;
        (known.is_of(now.connection) && known.is_here && is_recent).then(|| known.held.remove(key)).flatten()
    }

    /// Removes all records and changes. They are those of another copy of the store.
    pub(super) fn clear(&self) {
        let mut known = self.lock();
        known.held.clear();
        known.changes.clear();
    }

    /// Removes and returns the changes up to the revision `last` that `connection` has made.
    pub(super) fn changes(&self, connection: u64, last: u64) -> BTreeMap<u64, OwnChange> {
        let mut known = self.lock();
        if !known.is_of(connection) {
            return BTreeMap::new();
        }
        let later = known.changes.split_off(&last.saturating_add(1));
        std::mem::replace(&mut known.changes, later)
    }

    fn lock(&self) -> MutexGuard<'_, KnownWrites> {
        // Each entry stands for itself, so that a panic elsewhere leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownWrites {
    /// Records an answer. Returns `true` if the request and the answer used the connection of all that is known.
    fn is_of_both(&mut self, asked: RequestMoment, answered: RequestMoment) -> bool {
        // Between two connections, either copy of the store may have got the request.
        let is_of_both = asked.connection == answered.connection && self.is_of(asked.connection);
        if is_of_both {
            // Not the time of the answer, which may have waited in the socket of a suspended process.
            self.asked_at = self.asked_at.max(asked.at);
        }
        is_of_both
    }

    /// Returns `true` if all writes were made by this connection. Forgets those of an earlier one.
    fn is_of(&mut self, connection: u64) -> bool {
        if self.connection < connection {
            *self = KnownWrites { connection, ..KnownWrites::default() };
        }
        self.connection == connection
    }
}

/// The longest time without an answer: no server ends, gets another copy of its store and gives a job away meanwhile.
const LONGEST_SILENCE: Duration = Duration::from_millis(100);
/// The most records: those of as many transfers, with a few KB each.
const MOST_HELD: usize = 256;
/// The longest checkpoint in a known record. A longer one is read back.
const LONGEST_KNOWN: usize = 4096;
/// The most changes between two readings of the index: about 200 bytes each.
const MOST_CHANGES: usize = 1024;
