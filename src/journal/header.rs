//! The header of a database file, read without SQLite: opening a file changes it if it is one of another program.
//!
//! <https://www.sqlite.org/fileformat.html#the_database_header>

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::error::JournalError;
use super::file_id::FileId;

/// Returns the format (`user_version`) of a database with this application id; `None` if the file is empty, or if this
/// process has it open.
///
/// # Errors
/// The file is of another program, cut off, or cannot be read.
pub(crate) fn format_of(path: &Path, expected_id: i32) -> Result<Option<i32>, JournalError> {
    match DatabaseHeader::of(path).map_err(|error| JournalError::io(path, error))? {
        DatabaseHeader::Database { application_id, user_version } if application_id == expected_id => {
            Ok(Some(user_version))
        }
        DatabaseHeader::Empty | DatabaseHeader::InUse => Ok(None),
        DatabaseHeader::Cut => Err(JournalError::Damaged { path: path.to_owned() }),
        DatabaseHeader::Database { .. } | DatabaseHeader::Other => {
            Err(JournalError::Foreign { path: path.to_owned() })
        }
    }
}

/// The content of the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatabaseHeader {
    /// Not read, because this process has the file open: SQLite has checked it then.
    InUse,
    /// The file is empty: another process may have created it a moment ago.
    Empty,
    Database {
        application_id: i32,
        user_version: i32,
    },
    /// The beginning of a database, cut off.
    Cut,
    /// The file is no database.
    Other,
}

impl DatabaseHeader {
    fn of(path: &Path) -> io::Result<DatabaseHeader> {
        // Closing any descriptor of a file drops all record locks of the process on it (fcntl(2)): reading the header
        // here would release the locks of a database that this process has open.
        if is_open_here(path) {
            return Ok(DatabaseHeader::InUse);
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(DatabaseHeader::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> DatabaseHeader {
        let number = |at: usize| bytes.get(at..)?.first_chunk().copied().map(i32::from_be_bytes);
        match (number(APPLICATION_ID_AT), number(USER_VERSION_AT)) {
            _ if bytes.is_empty() => DatabaseHeader::Empty,
            _ if !bytes.starts_with(MAGIC) => DatabaseHeader::Other,
            (Some(application_id), Some(user_version)) if bytes.len() == HEADER_BYTES => {
                DatabaseHeader::Database { application_id, user_version }
            }
            _ => DatabaseHeader::Cut,
        }
    }
}

fn is_open_here(path: &Path) -> bool {
    let Ok(wanted) = FileId::of(path) else { return false };
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return false };
    open.flatten().any(|file| FileId::of(&file.path()).is_ok_and(|open| open == wanted))
}

const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
const USER_VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_sqlite_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "application_id", 0x1234_5678).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
        assert_eq!(DatabaseHeader::of(&path).unwrap(), DatabaseHeader::InUse);
        drop(connection);
        let database = DatabaseHeader::Database { application_id: 0x1234_5678, user_version: 7 };
        assert_eq!(DatabaseHeader::of(&path).unwrap(), database);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(DatabaseHeader::parse(&bytes[..99]), DatabaseHeader::Cut);
        assert_eq!(DatabaseHeader::parse(&bytes[1..101]), DatabaseHeader::Other);
        assert_eq!(DatabaseHeader::parse(b""), DatabaseHeader::Empty);
    }
}
