//! Who is at a session: locks that die with their process.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Transaction;

use super::error::JournalError;
use super::finished::{self, Finished};
use super::identity::Comparison;
use super::row::{ContainerState, Entry, EntryDestination, EntryState, Key, SessionRow, SessionStage};
use super::{digests, insert, lookup, owner, relocate, update};
use crate::source::ChunkDigest;
use crate::wire::Plan;

/// What came of asking for a session.
#[derive(Debug)]
pub enum Claim {
    /// It is ours, and nothing was created for it.
    Fresh(ClaimedEntry),
    /// It is ours, and an earlier process began it.
    Resume(ClaimedEntry, SavedProgress),
    /// Another process is at it.
    Busy {
        /// That process, if it could be told.
        pid: Option<u32>,
    },
    /// A command that did not end well has uploaded the file already.
    Finished(Finished),
}

/// What a claim may answer beside a session of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimOptions {
    /// A file that an unfinished command uploaded is claimed as if it had not.
    pub again: bool,
    /// A session that was begun with another upload token is left alone.
    pub own_token_only: bool,
}

/// The right to one session. Dropping it leaves the session in the journal, for anybody to resume.
#[derive(Debug)]
pub struct ClaimedEntry {
    pub(super) row: SessionRow,
    is_new: bool,
    /// Where the session went before, when another upload token began it.
    pub(super) former: Option<EntryDestination>,
    lock: SessionLock,
}

impl ClaimedEntry {
    pub(super) fn new(row: SessionRow, lock: SessionLock) -> ClaimedEntry {
        ClaimedEntry { row, is_new: false, former: None, lock }
    }

    pub(super) fn of_new(row: SessionRow, lock: SessionLock) -> ClaimedEntry {
        ClaimedEntry { row, is_new: true, former: None, lock }
    }

    /// Whether the journal had nothing of this session before it was claimed.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether another upload token began the session.
    pub fn is_of_another_token(&self) -> bool {
        self.former.is_some()
    }

    /// The session's container, as far as it got.
    pub fn container(&self) -> &ContainerState {
        self.row.container()
    }
}

/// What an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedProgress {
    /// The container. One that was only intended may exist nevertheless.
    pub container: ContainerState,
    /// How the file was cut; `None` when it was not settled.
    pub plan: Option<Plan>,
    /// The indexes of the chunks that the service acknowledged, ascending.
    pub stored: Vec<u32>,
    /// The file, compared with the one of which chunks were sent. Never [`Comparison::Another`].
    pub comparison: Comparison,
    /// The digests of chunks that were sent whole, by their indexes, ascending; `None` for one that proves nothing.
    pub digests: Vec<(u32, Option<ChunkDigest>)>,
}

/// A claim within its transaction; `asked` is key, arguments and time.
pub(super) fn claim_in(
    transaction: &Transaction<'_>,
    locks: &mut LockFiles,
    options: ClaimOptions,
    asked: (&Key, &str, SystemTime),
    path: &Path,
) -> Result<Claim, JournalError> {
    let (key, arguments, now) = asked;
    let mut notes = finished::find(transaction, key, now, path)?;
    if options.again {
        let outlived: Vec<i64> = notes.drain(..).map(|note| note.id).collect();
        finished::delete(transaction, &outlived, path)?;
    }
    if let Some(note) = notes.pop() {
        return Ok(Claim::Finished(note.into_finished()));
    }
    let found = lookup::of_file(transaction, key, path)?.into_iter().filter(|row| row.continues(key));
    let (own, of_other_tokens): (Vec<SessionRow>, Vec<SessionRow>) =
        found.partition(|row| row.has_token_of(key));
    if let Some(row) = own.into_iter().max_by_key(|row| (row.has_begun(), row.id)) {
        return match locks.take(row.lock())? {
            LockAttempt::Acquired(lock) => {
                take_up(transaction, ClaimedEntry::new(row, lock), (key, arguments), path)
            }
            LockAttempt::HeldBy(pid) => Ok(Claim::Busy { pid }),
        };
    }
    // One that another process is at goes to another place than ours.
    for row in of_other_tokens.into_iter().rev().filter(|_| !options.own_token_only) {
        if let LockAttempt::Acquired(lock) = locks.take(row.lock())? {
            let mut claimed = ClaimedEntry::new(row, lock);
            claimed.former = Some(claimed.row.destination().clone());
            return take_up(transaction, claimed, (key, arguments), path);
        }
    }
    let lock = locks.take_unused(|from| lookup::unused_lock(transaction, from, path))?;
    let row = insert(transaction, SessionRow::new(key, arguments, lock.number(), now), path)?;
    Ok(Claim::Fresh(ClaimedEntry::of_new(row, lock)))
}

fn take_up(
    transaction: &Transaction<'_>,
    mut claimed: ClaimedEntry,
    (key, arguments): (&Key, &str),
    path: &Path,
) -> Result<Claim, JournalError> {
    let digests = digests::of_session(transaction, claimed.row.id, path)?;
    let saved = claimed.row.take_up(key, arguments, digests);
    update(transaction, &claimed.row, path)?;
    relocate(transaction, &claimed.row, path)?;
    Ok(match saved {
        Some(saved) => Claim::Resume(claimed, saved),
        None => Claim::Fresh(claimed),
    })
}

/// Returns the session as people see it.
pub(super) fn entry(row: SessionRow, locks: &LockFiles) -> Result<Entry, JournalError> {
    let state = match (row.stage(), locks.holder(row.lock())) {
        (_, Ok(Some(pid))) => EntryState::Running { pid },
        (SessionStage::Open, Ok(None)) => EntryState::Interrupted,
        (SessionStage::Abandoned, Ok(None)) => EntryState::Abandoned,
        (_, Err(JournalError::OutOfReach { .. })) => EntryState::OutOfReach,
        (_, Err(error)) => return Err(error),
    };
    Ok(row.into_entry(state))
}

/// The lock files, one a session, in a folder beside the journal. They are numbered and used again: making one for
/// each session and removing it took more time than all that was written into the journal.
#[derive(Debug)]
pub(super) struct LockFiles {
    folder: PathBuf,
    /// Those of sessions that are no more. We hold them, so nobody else takes them.
    spare: Vec<SessionLock>,
    /// Where the search for an unused number goes on. Lower numbers were in use, and are looked at again by the
    /// next process: a search from 0 with each claim would read the locks of all sessions each time.
    next: u32,
}

/// Who holds a session.
pub(super) enum LockAttempt {
    /// We do, until it is dropped.
    Acquired(SessionLock),
    /// Another process, or another journal of this one.
    HeldBy(Option<u32>),
}

/// A locked file. Closing it would not do: a child that is being started shares it until it runs.
#[derive(Debug)]
pub(super) struct SessionLock {
    number: u32,
    file: File,
}

impl SessionLock {
    /// Which of the lock files it is.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl LockFiles {
    /// `journal` exists, and every path to it has the same locks: they are named after where symbolic links end.
    pub(super) fn beside(journal: &Path) -> Result<LockFiles, JournalError> {
        let journal = std::fs::canonicalize(journal).map_err(|error| JournalError::io(journal, error))?;
        let mut folder = journal.into_os_string();
        folder.push(".locks");
        let folder = PathBuf::from(folder);
        owner::make_folder(&folder).map_err(|error| JournalError::io(&folder, error))?;
        Ok(LockFiles { folder, spare: Vec::new(), next: 0 })
    }

    /// LockFiles to ask for only. No folder is made.
    pub(super) fn to_look_at(journal: &Path) -> LockFiles {
        let mut folder =
            std::fs::canonicalize(journal).unwrap_or_else(|_| journal.to_owned()).into_os_string();
        folder.push(".locks");
        LockFiles { folder: PathBuf::from(folder), spare: Vec::new(), next: 0 }
    }

    /// A lock for a session that begins; `unused` gives the lowest number from the given one that no session has.
    ///
    /// A number whose file belongs to another user, as a run by root leaves it, is left out.
    pub(super) fn take_unused(
        &mut self,
        unused: impl Fn(u32) -> Result<u32, JournalError>,
    ) -> Result<SessionLock, JournalError> {
        if let Some(lock) = self.spare.pop() {
            return Ok(lock);
        }
        let mut out_of_reach = 0;
        loop {
            let number = unused(self.next)?;
            self.next = number + 1;
            match self.take(number) {
                Ok(LockAttempt::Acquired(lock)) => return Ok(lock),
                // One that no session has may be another process's spare.
                Ok(LockAttempt::HeldBy(_)) => {}
                Err(JournalError::OutOfReach { .. }) if out_of_reach < MAX_OUT_OF_REACH => out_of_reach += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The lock of this number, which says for others whose it is.
    pub(super) fn take(&self, number: u32) -> Result<LockAttempt, JournalError> {
        let path = self.file(number);
        let take = || -> io::Result<LockAttempt> {
            let mut file = owner::open(&path)?;
            Ok(match lock(&mut file)? {
                Some(theirs) => LockAttempt::HeldBy(theirs),
                None => {
                    // As wide as any: what is written over needs no truncation, which ext4 answers on
                    // close with a write to the disk (`auto_da_alloc`, ext4(5)).
                    file.write_all(format!("{:<PID_BYTES$}", std::process::id()).as_bytes())?;
                    LockAttempt::Acquired(SessionLock { number, file })
                }
            })
        };
        take().map_err(|error| JournalError::lock(&path, error))
    }

    /// The process that holds the lock: `Some(None)` when there is one that cannot be told.
    pub(super) fn holder(&self, number: u32) -> Result<Option<Option<u32>>, JournalError> {
        let path = self.file(number);
        let look = || -> io::Result<Option<Option<u32>>> {
            // To read is enough to ask, and all that a read-only file system allows.
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let holder = lock(&mut file)?;
            if holder.is_none() {
                file.unlock()?;
            }
            Ok(holder)
        };
        look().map_err(|error| JournalError::lock(&path, error))
    }

    /// Keeps some locks of sessions that are no more for the next ones. Each takes a descriptor.
    pub(super) fn keep(&mut self, claimed: impl Iterator<Item = ClaimedEntry>) {
        let room = SPARE_LOCKS.saturating_sub(self.spare.len());
        for (place, claimed) in claimed.enumerate() {
            if place < room {
                self.spare.push(claimed.lock);
            }
        }
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

/// LockFiles the file, or says who did.
fn lock(file: &mut File) -> io::Result<Option<Option<u32>>> {
    match file.try_lock() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.rewind()?;
            file.take(PID_BYTES as u64).read_to_string(&mut pid)?;
            Ok(Some(pid.trim_end().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// As many sessions end at about the same time where files are small.
const SPARE_LOCKS: usize = 4;

/// A pid is at most 4194304 (proc_pid_max(5)); what is longer is none.
const PID_BYTES: usize = 16;

/// More than root leaves behind, and few enough to try in a moment where no lock file can be opened.
const MAX_OUT_OF_REACH: u32 = 10_000;
