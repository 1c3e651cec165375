//! Creates files and folders. Those that root creates get the owner of their folder, who can then use the journal.
//!
//! SQLite does the same for the files that it creates beside a database.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Gid, OFlags, Uid, fchown};
use rustix::process::geteuid;

/// Creates the folder and those above it, accessible to their owner only.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    // An empty path is the current folder, which exists.
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => give_away(&File::open(folder)?, folder),
        // Another process created the folder first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Creates the file if it is missing, and returns `true` if it did. Does not open an existing file.
pub(crate) fn make_file(path: &Path) -> io::Result<bool> {
    match create(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the file to read and write. Creates it if it is missing. Refuses a symbolic link.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // In a folder of another user a symbolic link could make root write to any file.
    let existing =
        || OpenOptions::new().read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path);
    match existing() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => existing(),
            created => created,
        },
        opened => opened,
    }
}

fn create(path: &Path) -> io::Result<File> {
    // With O_EXCL, which `create_new` sets, a symbolic link at the path is an error and is not followed (open(2)).
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    give_away(&file, path);
    Ok(file)
}

/// Gives a file that root created to the owner of its folder. If the file system refuses, root keeps the file.
fn give_away(file: &File, path: &Path) {
    // Only root may change the owner of a file (chown(2)).
    if !geteuid().is_root() {
        return;
    }
    // The parent of a bare file name is empty, and means the current folder.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = folder.metadata() {
        let owner = (Uid::from_raw(folder.uid()), Gid::from_raw(folder.gid()));
        // By the descriptor: in another user's folder the path may have become a symbolic link meanwhile.
        if let Err(error) = fchown(file, Some(owner.0), Some(owner.1)) {
            tracing::debug!(path = %path.display(), %error, "the file stays with root");
        }
    }
}
