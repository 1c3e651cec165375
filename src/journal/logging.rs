//! The logging mode of the database: a write-ahead log where the file system allows it.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use memmap2::MmapRaw;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
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
///
/// # Errors
/// The file system has no shared memory, and the database is left as it is; or the database cannot be read or written.
pub(crate) fn write_ahead(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    // The read maps the shared memory of a database that has a log already. It fails here rather than in a claim where
    // there is none.
    read(connection)?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    // Before the switch, which writes the new mode before it looks for shared memory: the processes that have the
    // database open would fail with their next transaction.
    if lacks_shared_memory(path) {
        return Err(failure(ffi::SQLITE_IOERR_SHMMAP));
    }
    match set_mode(connection, "WAL") {
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Err(error),
        // When another process is busy with the file, that process switches it.
        Ok(_) | Err(_) => read(connection),
    }
}

/// Switches to a rollback journal. Waits at most `timeout` for other processes to release the file. No connection of the
/// caller may have read the database.
pub(crate) fn leave_write_ahead(path: &Path, timeout: Duration) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match leave_at_once(path) {
            Ok(mode) if mode != "wal" => return Ok(()),
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => return Err(error),
            Err(error) if begun.elapsed() > timeout => return Err(error),
            Ok(_) if begun.elapsed() > timeout => return Err(failure(ffi::SQLITE_BUSY)),
            // Of random length, so that two processes do not meet each time.
            Ok(_) | Err(_) => thread::sleep(BETWEEN_TRIES.mul_f64(0.5 + fastrand::f64())),
        }
    }
}

/// Switches to a rollback journal, and returns the mode. Fails with "busy" if another process uses the database.
fn leave_at_once(path: &Path) -> rusqlite::Result<String> {
    // A connection for each try, because one that has read a log keeps a lock on the file until it is closed: two
    // processes would wait for each other for the whole time, as they would with a busy timeout.
    let connection = connect(path)?;
    connection.busy_timeout(Duration::ZERO)?;
    // A database in WAL mode can be opened without shared memory only in exclusive locking mode, by one process alone.
    // It moves the content of the log into the database.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    set_mode(&connection, "DELETE")
}

/// Returns `true` if a new database beside `path` cannot have a write-ahead log. The journal itself must not be used to
/// find out, see [`write_ahead`].
fn lacks_shared_memory(path: &Path) -> bool {
    let mut probe = path.as_os_str().to_owned();
    probe.push(format!(".probe-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let probe = Path::new(&probe);
    // Another error is that of the journal, too, which reports it.
    let Ok(file) = owner::open(probe) else { return false };
    // The lock and the map that SQLite takes of its file of shared memory. A database as the probe took ten times as many
    // system calls.
    let locked = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
    let is_long = file.set_len(SHARED_MEMORY_BYTES).is_ok();
    let is_lacking = locked.is_err() || is_long && !can_be_mapped(&file);
    // A file that cannot be removed does no harm: no journal has its name.
    let _ = std::fs::remove_file(probe);
    is_lacking
}

/// Returns `true` if processes can share the memory of the file.
fn can_be_mapped(file: &File) -> bool {
    MmapRaw::map_raw(file).is_ok()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

fn read(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map(drop)
}

/// Creates an error that SQLite does not report itself.
fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
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

/// The size of the first map of SQLite (<https://www.sqlite.org/walformat.html>, "The WAL-Index File Format").
const SHARED_MEMORY_BYTES: u64 = 32 << 10;

/// The pause between two attempts to switch the mode.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
