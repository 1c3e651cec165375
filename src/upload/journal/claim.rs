//! Who is at a session: locks that die with their process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::identity::Comparison;
use super::row::{Container, Row};
use crate::source::ChunkDigest;
use crate::wire::Plan;

/// What came of asking for a session.
#[derive(Debug)]
pub enum Claim {
    /// It is ours, and nothing was created for it.
    Fresh(Ticket),
    /// It is ours, and an earlier process began it.
    Resume(Ticket, Remembered),
    /// Another process is at it.
    Busy {
        /// That process, if it could be told.
        pid: Option<u32>,
    },
}

/// The right to one session. Dropping it leaves the session in the journal, for anybody to resume.
#[derive(Debug)]
pub struct Ticket {
    pub(super) row: Row,
    is_new: bool,
    lock: Lock,
}

impl Ticket {
    pub(super) fn new(row: Row, lock: Lock) -> Ticket {
        Ticket { row, is_new: false, lock }
    }

    pub(super) fn of_new(row: Row, lock: Lock) -> Ticket {
        Ticket { row, is_new: true, lock }
    }

    /// Whether the journal had nothing of this session before it was claimed.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The session's container, as far as it got.
    pub fn container(&self) -> &Container {
        self.row.container()
    }
}

/// What an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The container. One that was only intended may exist nevertheless.
    pub container: Container,
    /// How the file was cut; `None` when it was not settled.
    pub plan: Option<Plan>,
    /// The indexes of the chunks that the service acknowledged, ascending.
    pub stored: Vec<u32>,
    /// The file, compared with the one of which chunks were sent. Never [`Comparison::Another`].
    pub comparison: Comparison,
    /// The digests of chunks that were sent whole, by their indexes, ascending; `None` for one that proves nothing.
    pub digests: Vec<(u32, Option<ChunkDigest>)>,
}

/// The lock files, one a session, in a folder beside the journal. They are numbered and used again: making one for
/// each session and removing it took more time than all that was written into the journal.
#[derive(Debug)]
pub(super) struct Locks {
    folder: PathBuf,
    /// Those of sessions that are no more. We hold them, so nobody else takes them.
    spare: Vec<Lock>,
}

/// Who holds a session.
pub(super) enum Held {
    /// We do, until it is dropped.
    ByUs(Lock),
    /// Another process, or another journal of this one.
    ByThem(Option<u32>),
}

/// A locked file. Closing it would not do: a child that is being started shares it until it runs.
#[derive(Debug)]
pub(super) struct Lock {
    number: u32,
    file: File,
}

impl Lock {
    /// Which of the lock files it is.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Locks {
    pub(super) fn beside(journal: &Path) -> Result<Locks, JournalError> {
        let mut folder = journal.as_os_str().to_owned();
        folder.push(".locks");
        let folder = PathBuf::from(folder);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| JournalError::io(&folder, error))?;
        Ok(Locks { folder, spare: Vec::new() })
    }

    /// A lock for a session that begins, where others have those that are `used`.
    pub(super) fn take_unused(&mut self, used: &[u32]) -> Result<Lock, JournalError> {
        if let Some(lock) = self.spare.pop() {
            return Ok(lock);
        }
        let mut number = 0;
        loop {
            // One that no session has may be somebody's spare.
            if !used.contains(&number)
                && let Held::ByUs(lock) = self.take(number)?
            {
                return Ok(lock);
            }
            number += 1;
        }
    }

    /// The lock of this number, which says for others whose it is.
    pub(super) fn take(&self, number: u32) -> Result<Held, JournalError> {
        let path = self.file(number);
        let take = || -> io::Result<Held> {
            let mut file = open(&path)?;
            Ok(match lock(&mut file)? {
                Some(theirs) => Held::ByThem(theirs),
                None => {
                    // As wide as any: what is written over needs no truncation, which ext4 answers on
                    // close with a write to the disk (`auto_da_alloc`, ext4(5)).
                    file.write_all(format!("{:<PID_BYTES$}", std::process::id()).as_bytes())?;
                    Held::ByUs(Lock { number, file })
                }
            })
        };
        take().map_err(|error| JournalError::io(&path, error))
    }

    /// The process that holds the lock: `Some(None)` when there is one that cannot be told.
    pub(super) fn holder(&self, number: u32) -> Result<Option<Option<u32>>, JournalError> {
        let path = self.file(number);
        let look = || -> io::Result<Option<Option<u32>>> {
            let mut file = open(&path)?;
            let holder = lock(&mut file)?;
            if holder.is_none() {
                file.unlock()?;
            }
            Ok(holder)
        };
        look().map_err(|error| JournalError::io(&path, error))
    }

    /// Keeps the locks of sessions that are no more for the next ones.
    pub(super) fn keep(&mut self, tickets: &mut Vec<Ticket>) {
        self.spare.extend(tickets.drain(..).map(|ticket| ticket.lock));
    }

    fn file(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Locks the file, or says who did.
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

/// A pid is at most 4194304 (proc_pid_max(5)); what is longer is none.
const PID_BYTES: usize = 16;
