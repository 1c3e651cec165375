//! Locks of workers, which the kernel releases when their process ends.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bulk::job_id::OwnerId;
use crate::journal::owner;

/// The lock files of workers, in a folder beside the store.
///
/// A file that is missing or cannot be locked is no evidence of a dead worker: its leases have to run out.
#[derive(Debug)]
pub(super) struct Owners {
    folder: PathBuf,
    /// The workers of this handle; `None` for one whose file could not be locked.
    held: HashMap<OwnerId, Option<File>>,
    looked_at: Option<Instant>,
}

impl Owners {
    pub(super) fn beside(store: &Path) -> Owners {
        // The name follows symbolic links, so that every path to the store leads to the same locks.
        let mut folder = fs::canonicalize(store).unwrap_or_else(|_| store.to_owned()).into_os_string();
        folder.push(".owners");
        Owners { folder: folder.into(), held: HashMap::new(), looked_at: None }
    }

    /// Locks the file of a worker that claims through this handle.
    pub(super) fn lock(&mut self, owner: &OwnerId) {
        if self.held.contains_key(owner) {
            return;
        }
        let path = self.folder.join(owner.as_str());
        let file = owner::make_folder(&self.folder).and_then(|()| lock(&path));
        if let Err(error) = &file {
            // An unlocked file would be taken for one of a dead worker.
            let _ = fs::remove_file(&path);
            tracing::debug!(path = %path.display(), %error, "no lock for this worker: its jobs stay leased if it is killed");
        }
        // Also without a lock: a file system without locks would fail again with each claim.
        self.held.insert(owner.clone(), file.ok());
    }

    /// Returns `true` at most once a second: looking for dead workers reads every running job.
    pub(super) fn may_look(&mut self) -> bool {
        if self.looked_at.is_some_and(|looked_at| looked_at.elapsed() < BETWEEN_LOOKS) {
            return false;
        }
        self.looked_at = Some(Instant::now());
        true
    }

    /// Returns `true` if the worker was a process of this host that has ended.
    pub(super) fn is_dead(&self, owner: &OwnerId) -> bool {
        // On a file system that machines share, the kernel of another host may not see the lock.
        let is_of_this_host = self.held.keys().any(|held| held.host() == owner.host());
        if !is_of_this_host || self.held.contains_key(owner) {
            return false;
        }
        let path = self.folder.join(owner.as_str());
        // A lock that can be had has no holder. Closing the file releases it again.
        File::open(&path).is_ok_and(|file| file.try_lock().is_ok())
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        for (owner, file) in &self.held {
            if file.is_some() {
                // Before the lock is released: an unlocked file would be taken for one of a killed worker.
                let _ = fs::remove_file(self.folder.join(owner.as_str()));
            }
        }
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let file = owner::open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
