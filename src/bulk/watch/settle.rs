//! The rules by which a file counts as complete. Pure: the time and the looks at files are arguments.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::remembered::Remembered;
use super::version::Version;

/// The most files that are followed until they are complete, by all folders of a watch together.
pub const MOST_PENDING: usize = 1 << 14;

/// A file of a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WatchedFile {
    pub(super) root: u32,
    pub(super) path: Arc<Path>,
}

/// The reason why a file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A process has created, written or renamed it just now.
    Event,
    Scan,
}

/// The result of opening a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileLook {
    /// The file is gone, is not selected any more, lacks its mark, or cannot be opened.
    Absent,
    /// A process has it open for writing.
    Open(Version),
    /// No process is known to have it open for writing. `is_marked` if its producer declares it complete.
    Closed { version: Version, is_marked: bool },
}

/// The decision about a file that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettleOutcome {
    /// The file is complete. It is not decided again until its content is another one.
    Settled,
    /// The file is looked at again.
    Waiting,
    /// The file is looked at again. A process has had it open for writing for this time.
    Open { open_for: Duration },
    /// The file is not followed any more.
    Dropped,
}

/// The files that are followed until they are complete, and the contents that were.
#[derive(Debug)]
pub(super) struct SettleTable {
    pending: HashMap<WatchedFile, PendingFile>,
    /// The times of the next looks, with a number that orders equal times.
    due: BTreeMap<(Instant, u64), WatchedFile>,
    number: u64,
    limit: usize,
    remembered: Remembered,
}

#[derive(Debug)]
struct PendingFile {
    version: Version,
    rest: Duration,
    open_since: Option<Instant>,
    /// The key in `due`; `None` between [`SettleTable::due`] and [`SettleTable::looked`].
    due: Option<(Instant, u64)>,
}

impl SettleTable {
    pub(super) fn new(limit: usize, remembered: Remembered) -> SettleTable {
        SettleTable { pending: HashMap::new(), due: BTreeMap::new(), number: 0, limit, remembered }
    }

    pub(super) fn remembered(&mut self) -> &mut Remembered {
        &mut self.remembered
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < self.limit
    }

    /// Follows a file that was found, for at least `rest`. Returns `false` if there is no room for it.
    pub(super) fn found(
        &mut self,
        key: &WatchedFile,
        version: Version,
        is_marked: bool,
        rest: Duration,
        cause: Cause,
        now: Instant,
    ) -> bool {
        if self.remembered.contains(key.root, &key.path, content(version)) {
            self.remove(key);
            return true;
        }
        if !self.has_room() && !self.pending.contains_key(key) {
            return false;
        }
        let wait = if is_marked { Duration::ZERO } else { rest };
        match self.pending.get_mut(key) {
            // A scan that finds the same attributes again is no change.
            Some(pending) if cause == Cause::Scan && pending.version == version && !is_marked => {}
            Some(pending) => {
                (pending.version, pending.rest) = (version, rest);
                self.schedule(key, wait, now);
            }
            None => {
                let pending = PendingFile { version, rest, open_since: None, due: None };
                self.pending.insert(key.clone(), pending);
                self.schedule(key, wait, now);
            }
        }
        true
    }

    /// Returns the time of the next look.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns a file to be looked at now. The result must be given to [`SettleTable::looked`].
    pub(super) fn due(&mut self, now: Instant) -> Option<WatchedFile> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let key = entry.remove();
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.due = None;
        }
        Some(key)
    }

    /// Decides about a file that was looked at.
    pub(super) fn looked(&mut self, key: &WatchedFile, look: FileLook, now: Instant) -> SettleOutcome {
        let Some(pending) = self.pending.get_mut(key) else { return SettleOutcome::Dropped };
        let rest = pending.rest;
        match look {
            FileLook::Absent => {
                self.remove(key);
                SettleOutcome::Dropped
            }
            FileLook::Open(version) => {
                pending.version = version;
                let since = *pending.open_since.get_or_insert(now);
                self.schedule(key, rest.max(BETWEEN_OPEN_LOOKS), now);
                SettleOutcome::Open { open_for: now.saturating_duration_since(since) }
            }
            // A producer that declares its file complete knows more than the settle time.
            FileLook::Closed { version, is_marked } if is_marked || version == pending.version => {
                self.remove(key);
                if self.remembered.contains(key.root, &key.path, content(version)) {
                    return SettleOutcome::Dropped;
                }
                self.remembered.insert(key.root, &key.path, content(version));
                SettleOutcome::Settled
            }
            FileLook::Closed { version, .. } => {
                (pending.version, pending.open_since) = (version, None);
                self.schedule(key, rest, now);
                SettleOutcome::Waiting
            }
        }
    }

    fn schedule(&mut self, key: &WatchedFile, wait: Duration, now: Instant) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        if let Some(due) = pending.due.take() {
            self.due.remove(&due);
        }
        self.number += 1;
        // A settle time beyond the range of the clock is as good as this one.
        let at = now.checked_add(wait).unwrap_or(now + LONGEST_SETTLE);
        pending.due = Some((at, self.number));
        self.due.insert((at, self.number), key.clone());
    }

    fn remove(&mut self, key: &WatchedFile) {
        if let Some(PendingFile { due: Some(due), .. }) = self.pending.remove(key) {
            self.due.remove(&due);
        }
    }
}

/// Returns the attributes that identify a content, as in the id of a job.
fn content(version: Version) -> (u64, i128) {
    (version.bytes, version.modified_ns)
}

/// The shortest time between two looks at a file that a process has open: the event of its end comes by itself.
const BETWEEN_OPEN_LOOKS: Duration = Duration::from_secs(1);

const LONGEST_SETTLE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests;
