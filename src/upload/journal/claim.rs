//! Who is at a session: locks that die with their process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::row::{Container, Row};
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
    _lock: Lock,
}

impl Ticket {
    pub(super) fn new(row: Row, lock: Lock) -> Ticket {
        Ticket { row, is_new: false, _lock: lock }
    }

    pub(super) fn of_new(row: Row, lock: Lock) -> Ticket {
        Ticket { row, is_new: true, _lock: lock }
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
    /// Whether the file's ctime is another one now, which a new mode, owner or name suffices for.
    pub ctime_changed: bool,
}

/// The lock files, one a session, in a folder beside the journal.
#[derive(Debug)]
pub(super) struct Locks {
    folder: PathBuf,
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
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Locks {
    pub(super) fn beside(journal: &Path) -> Result<Locks, JournalError> {
        let mut folder = journal.as_os_str().to_owned();
        folder.push(".locks");
        let folder = PathBuf::from(folder);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| JournalError::io(&folder, error))?;
        Ok(Locks { folder })
    }

    /// The lock of session `id`, which says for others whose it is.
    pub(super) fn take(&self, id: i64) -> Result<Held, JournalError> {
        let path = self.file(id);
        let take = || -> io::Result<Held> {
            let mut file = open(&path)?;
            Ok(match lock(&mut file)? {
                Some(theirs) => Held::ByThem(theirs),
                None => {
                    // As wide as any: what is written over needs no truncation, which ext4 answers on
                    // close with a write to the disk (`auto_da_alloc`, ext4(5)).
                    write!(file, "{:<PID_BYTES$}", std::process::id())?;
                    Held::ByUs(Lock(file))
                }
            })
        };
        take().map_err(|error| JournalError::io(&path, error))
    }

    /// The process that holds session `id`: `Some(None)` when there is one that cannot be told.
    pub(super) fn holder(&self, id: i64) -> Result<Option<Option<u32>>, JournalError> {
        let path = self.file(id);
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

    /// A lock file that stays behind does no harm.
    pub(super) fn remove(&self, id: i64) {
        let _ = fs::remove_file(self.file(id));
    }

    fn file(&self, id: i64) -> PathBuf {
        self.folder.join(id.to_string())
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
