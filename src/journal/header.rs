//! The header of a database file, read without SQLite: opening a file changes it if it is one of another program.
//!
//! <https://www.sqlite.org/fileformat.html#the_database_header>

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The content of the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseHeader {
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
    pub(crate) fn of(path: &Path) -> io::Result<DatabaseHeader> {
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
    let id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let Some(wanted) = id(path) else { return false };
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return false };
    open.flatten().any(|file| id(&file.path()) == Some(wanted))
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
