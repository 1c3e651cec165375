//! The lock of a watched folder, which the kernel releases when its process ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_128;

use super::error::WatchError;
use crate::journal::owner;

/// The lock of a watched folder. It lies beside the job store: the folder may be read-only, and its files are uploaded.
#[derive(Debug)]
pub(super) struct WatchLock {
    file: File,
}

impl WatchLock {
    /// Locks `folder`, a canonical path, among the watches that use `store`.
    pub(super) fn acquire(store: &Path, folder: &Path) -> Result<WatchLock, WatchError> {
        // The name follows symbolic links, so that every path to the store leads to the same locks.
        let mut locks = fs::canonicalize(store).unwrap_or_else(|_| store.to_owned()).into_os_string();
        locks.push(".watches");
        let locks = PathBuf::from(locks);
        let name = format!("{:032x}", XxHash3_128::oneshot(folder.as_os_str().as_bytes()));
        let path = locks.join(name);
        match lock(&locks, &path, folder) {
            Ok(Ok(file)) => Ok(WatchLock { file }),
            Ok(Err(pid)) => Err(WatchError::Locked { folder: folder.to_owned(), pid }),
            Err(source) => Err(WatchError::LockFile { path: path.clone(), source }),
        }
    }
}

/// Locks the file `path` in the folder `locks` for the watched `folder`. Returns the process that holds the lock otherwise,
/// if its id is known.
fn lock(locks: &Path, path: &Path, folder: &Path) -> io::Result<Result<File, Option<u32>>> {
    owner::make_folder(locks)?;
    let mut file = owner::open(path)?;
    match file.try_lock() {
        Ok(()) => {
            // For a person who looks at the file; only the pid is read.
            let pid = format!("{:<PID_BYTES$}", std::process::id());
            file.write_all(&[pid.as_bytes(), folder.as_os_str().as_bytes(), b"\n"].concat())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            (&file).take(PID_BYTES as u64).read_to_string(&mut pid)?;
            // The holder may not have written its pid yet.
            Ok(Err(pid.trim_end().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Drop for WatchLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child shares its open file description between fork and exec.
        let _ = self.file.unlock();
    }
}

/// The width of a pid in a lock file. A pid is at most 4194304 (proc_pid_max(5)).
const PID_BYTES: usize = 16;
