//! Errors of the system and of SQLite as errors of the journal.

use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};
use rustix::io::Errno;

use super::error::JournalError;

impl JournalError {
    /// Converts an error of the operating system.
    pub(crate) fn io(path: &Path, error: io::Error) -> JournalError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                JournalError::NotWritable { path, source: error.into() }
            }
            // A user's used-up quota (EDQUOT) needs the same remedy as a full disk: room.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full { path },
            _ if cannot_lock(&error) => JournalError::NoLocks { path, source: error.into() },
            _ => JournalError::Io { path, source: error.into() },
        }
    }

    /// Converts an error of the operating system about a lock file.
    pub(super) fn lock(path: &Path, error: io::Error) -> JournalError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                JournalError::OutOfReach { path: path.to_owned(), source: error }
            }
            _ => JournalError::io(path, error),
        }
    }
}

/// Converts an error of SQLite.
///
/// <https://www.sqlite.org/rescode.html>
pub(crate) fn database_error(path: &Path, error: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    match error.sqlite_error().map(|error| error.extended_code) {
        // FUSE with `direct_io`, for example, refuses the shared map of the log's index.
        Some(ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMLOCK) => {
            return JournalError::NoSharedMemory { path, source: error.into() };
        }
        // The shared memory is a file beside the database, which grows as it is written.
        Some(ffi::SQLITE_IOERR_SHMSIZE) => return JournalError::Full { path },
        // fcntl(2) failed for another reason than a held lock. ENOLCK arrives as "busy", see `file::open`.
        Some(ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_RDLOCK | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK) => {
            return JournalError::NoLocks { path, source: error.into() };
        }
        _ => {}
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => JournalError::Foreign { path },
        Some(ErrorCode::DatabaseCorrupt) => JournalError::Damaged { path },
        // SQLITE_CANTOPEN: the file exists, so it is the folder that refuses a log or a journal beside it.
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            JournalError::NotWritable { path, source: error.into() }
        }
        Some(ErrorCode::DiskFull) => JournalError::Full { path },
        // SQLITE_PROTOCOL comes after seconds of retries, for example if a process was stopped while it began a log.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            JournalError::Locked { path }
        }
        _ => JournalError::Io { path, source: error.into() },
    }
}

/// Returns `true` for the errors of flock(2) and fcntl(2) on network file systems without a lock service.
fn cannot_lock(error: &io::Error) -> bool {
    let refusals = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS];
    refusals.map(Errno::raw_os_error).into_iter().any(|errno| error.raw_os_error() == Some(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(code: i32) -> JournalError {
        database_error(Path::new("j"), rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn every_lock_of_another_process_is_one_error_and_no_other_failure_is() {
        let locked = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_RECOVERY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_BUSY_TIMEOUT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_LOCKED_SHAREDCACHE,
            ffi::SQLITE_PROTOCOL,
        ];
        for code in locked {
            let error = converted(code);
            assert!(matches!(error, JournalError::Locked { .. }), "{code}: {error:?}");
        }
        for code in [ffi::SQLITE_IOERR, ffi::SQLITE_IOERR_LOCK, ffi::SQLITE_FULL, ffi::SQLITE_CORRUPT] {
            let error = converted(code);
            assert!(!matches!(error, JournalError::Locked { .. }), "{code}: {error:?}");
        }
    }
}
