//! Locks of sessions, which the kernel releases when their process ends.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::owner;

/// The lock files, one for each session, in a folder beside the journal.
///
/// The files are numbered and reused: creating and removing one for each session took longer than all writes to the
/// journal.
#[derive(Debug)]
pub(super) struct LockFiles {
    folder: PathBuf,
    /// Locks of deleted sessions, still held by this process, for its next sessions.
    spare: Vec<SessionLock>,
    /// The number at which the search for an unused number continues. The next process tries lower numbers again.
    next: u32,
}

/// The result of trying to lock a session.
pub(super) enum LockAttempt {
    /// This journal holds the lock until it is dropped.
    Acquired(SessionLock),
    /// Another process, or another journal of this process, holds the lock. The pid is `None` if it cannot be read.
    HeldBy(Option<u32>),
}

/// A locked file.
#[derive(Debug)]
pub(super) struct SessionLock {
    number: u32,
    file: File,
}

impl SessionLock {
    /// Returns the number of the lock file.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        // Closing the file is not enough: flock(2) locks belong to the open file description, which a child shares
        // between fork and exec.
        let _ = self.file.unlock();
    }
}

impl LockFiles {
    /// Opens the lock files of a journal that exists. Creates their folder if it is missing.
    pub(super) fn beside(journal: &Path) -> Result<LockFiles, JournalError> {
        // The name follows symbolic links, so that every path to the journal leads to the same locks.
        let journal = std::fs::canonicalize(journal).map_err(|error| JournalError::io(journal, error))?;
        let mut folder = journal.into_os_string();
        folder.push(".locks");
        let folder = PathBuf::from(folder);
        owner::make_folder(&folder).map_err(|error| JournalError::io(&folder, error))?;
        Ok(LockFiles { folder, spare: Vec::new(), next: 0 })
    }

    /// Opens the lock files for [`LockFiles::holder`] only. Creates no folder.
    pub(super) fn to_look_at(journal: &Path) -> LockFiles {
        let mut folder =
            std::fs::canonicalize(journal).unwrap_or_else(|_| journal.to_owned()).into_os_string();
        folder.push(".locks");
        LockFiles { folder: PathBuf::from(folder), spare: Vec::new(), next: 0 }
    }

    /// Locks a file for a new session. `unused` returns the lowest number from its argument on that no session has.
    ///
    /// Skips numbers whose file belongs to another user, such as files that a run by root left.
    pub(super) fn take_unused(
        &mut self,
        unused: impl Fn(u32) -> Result<u32, JournalError>,
    ) -> Result<SessionLock, JournalError> {
        // A spare is locked already, and costs no system call.
        if let Some(lock) = self.spare.pop() {
            return Ok(lock);
        }
        let mut out_of_reach = 0;
        loop {
            // A search from 0 with each claim would read the locks of all sessions each time.
            let number = unused(self.next)?;
            self.next = number + 1;
            match self.take(number) {
                Ok(LockAttempt::Acquired(lock)) => return Ok(lock),
                // A number without a session may be a spare lock of another process.
                Ok(LockAttempt::HeldBy(_)) => {}
                Err(JournalError::OutOfReach { .. }) if out_of_reach < MAX_OUT_OF_REACH => out_of_reach += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tries to lock the file with this number, and writes this process's id into it.
    pub(super) fn take(&self, number: u32) -> Result<LockAttempt, JournalError> {
        let path = self.file(number);
        let take = || -> io::Result<LockAttempt> {
            let mut file = owner::open(&path)?;
            Ok(match lock(&mut file)? {
                Some(pid) => LockAttempt::HeldBy(pid),
                None => {
                    // Padded to a fixed width, so that the file needs no truncation, which ext4 answers on close
                    // with a write to the disk (`auto_da_alloc`, ext4(5)).
                    file.write_all(format!("{:<PID_BYTES$}", std::process::id()).as_bytes())?;
                    LockAttempt::Acquired(SessionLock { number, file })
                }
            })
        };
        take().map_err(|error| JournalError::lock(&path, error))
    }

    /// Returns the process that holds the lock; `Some(None)` if a process holds it and its id cannot be read.
    pub(super) fn holder(&self, number: u32) -> Result<Option<Option<u32>>, JournalError> {
        let path = self.file(number);
        let look = || -> io::Result<Option<Option<u32>>> {
            // flock(2) needs no write access, and a read-only file system allows none.
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            // Taken and released again: flock(2) has no call that only asks.
            let holder = lock(&mut file)?;
            if holder.is_none() {
                file.unlock()?;
            }
            Ok(holder)
        };
        look().map_err(|error| JournalError::lock(&path, error))
    }

    /// Keeps some locks of deleted sessions for the next sessions. Drops the others: each holds a descriptor.
    pub(super) fn keep(&mut self, locks: impl Iterator<Item = SessionLock>) {
        let room = SPARE_LOCKS.saturating_sub(self.spare.len());
        for (index, lock) in locks.enumerate() {
            if index < room {
                self.spare.push(lock);
            }
        }
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

/// Locks the file, or returns the pid that its holder wrote into it.
fn lock(file: &mut File) -> io::Result<Option<Option<u32>>> {
    match file.try_lock() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.rewind()?;
            file.take(PID_BYTES as u64).read_to_string(&mut pid)?;
            // No id if the holder is between its lock and its write.
            Ok(Some(pid.trim_end().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The number of sessions that end at about the same time when files are small. With fewer spares than that, each claim
/// creates a lock file, which took 40 % of the kernel's time of an upload of 4 KiB. A process never has more descriptors
/// for spares than it has had for sessions at one time.
const SPARE_LOCKS: usize = 64;

/// The width of a pid in a lock file. A pid is at most 4194304 (proc_pid_max(5)).
const PID_BYTES: usize = 16;

/// More lock files than root leaves behind, and few enough to try in a moment if none can be opened.
const MAX_OUT_OF_REACH: u32 = 10_000;
