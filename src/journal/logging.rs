//! The logging mode of the database: a write-ahead log where the file system allows it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, ffi};
use rustix::fs::{FlockOperation, fcntl_lock, statfs};

use super::error::JournalError;
use super::owner;

/// The logging mode that makes writes atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    /// A write-ahead log (WAL). Its index is memory that processes share.
    WriteAhead,
    /// A rollback journal. It needs only files and locks, and a flush with each write.
    Rollback,
}

/// The event that an entry survives once the call that wrote it has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the process: the write-ahead log is written.
    Process,
    /// The end of the machine: the write-ahead log is flushed, with all that was written before.
    Disk,
}

impl Durability {
    /// Returns the value of `PRAGMA synchronous`.
    ///
    /// <https://www.sqlite.org/pragma.html#pragma_synchronous>
    pub(crate) fn pragma(self, logging: Logging) -> &'static str {
        match (logging, self) {
            // A commit writes the log without a flush. The kernel keeps the bytes when the process dies.
            (Logging::WriteAhead, Durability::Process) => "NORMAL",
            (Logging::WriteAhead, Durability::Disk) => "FULL",
            // With a rollback journal a power failure may corrupt the database itself if a flush is omitted.
            (Logging::Rollback, Durability::Process) => "FULL",
            // EXTRA flushes the folder as well: a power failure could restore the removed rollback journal, which
            // undoes the commit.
            (Logging::Rollback, Durability::Disk) => "EXTRA",
        }
    }
}

/// Returns the logging mode for the file system of `path`. Machines that share a file system share no memory.
///
/// <https://www.sqlite.org/wal.html>, "all processes using a database must be on the same host computer"
pub(crate) fn for_file_system_of(path: &Path) -> Logging {
    match statfs(path) {
        Ok(found) if SHARED_BY_MACHINES.contains(&(found.f_type as u32)) => Logging::Rollback,
        // An unknown file system is taken as local. Missing shared memory is noticed when the log is opened.
        Ok(_) | Err(_) => Logging::WriteAhead,
    }
}

/// Switches to a write-ahead log.
pub(crate) fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    match set_mode(connection, "WAL") {
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Err(error),
        // When another process is busy with the file, that process switches it. The first read maps the shared
        // memory, and fails here rather than in a claim where there is none.
        Ok(_) | Err(_) => connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
            .map(drop),
    }
}

/// Switches to a rollback journal. Waits at most `timeout` for other processes to release the file.
pub(crate) fn leave_write_ahead(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    let begun = Instant::now();
    // A database in WAL mode can be opened without shared memory only in exclusive locking mode, by one process alone.
    // It moves the content of the log into the database.
    loop {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let left = set_mode(connection, "DELETE");
        connection.pragma_update(None, "locking_mode", "NORMAL")?;
        // SQLite releases the exclusive lock with the next read and not before.
        let read = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        match left.and_then(|mode| read.map(|_| mode)) {
            Ok(mode) if mode != "wal" => return Ok(()),
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => return Err(error),
            Err(error) if begun.elapsed() > timeout => return Err(error),
            Ok(_) if begun.elapsed() > timeout => return Err(busy()),
            Ok(_) | Err(_) => thread::sleep(BETWEEN_TRIES),
        }
    }
}

/// Returns the error for a switch that other processes prevented, which SQLite does not report as an error.
fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)
}

fn set_mode(connection: &Connection, mode: &str) -> rusqlite::Result<String> {
    connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))
}

/// Returns the error of a file system on which no file can be locked; `None` where one can.
///
/// Uses a new file: closing the journal itself would drop the locks that SQLite holds on it (fcntl(2)).
pub(crate) fn cannot_lock(path: &Path) -> Option<JournalError> {
    let mut probe = path.as_os_str().to_owned();
    probe.push(format!(".probe-{}", std::process::id()));
    let probe = Path::new(&probe);
    let file = owner::open(probe).ok()?;
    // The kind of lock that SQLite takes.
    let locked = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    // A probe that cannot be removed does no harm: it is empty.
    let _ = std::fs::remove_file(probe);
    match JournalError::io(path, locked.err()?.into()) {
        error @ JournalError::NoLocks { .. } => Some(error),
        _ => None,
    }
}

/// The magic numbers of NFS, SMB (three versions), AFS, Coda, Ceph, 9P, GFS2, OCFS2, Lustre: linux/magic.h and statfs(2).
const SHARED_BY_MACHINES: &[u32] = &[
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x5346_414f,
    0x7375_7245,
    0x00c3_6400,
    0x0102_1997,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
];

/// The pause between two attempts to switch the mode.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
