//! The temporary directory of a measurement, and the directories that killed measurements left.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::cli::exit::CommandError;

/// The directory for samples and for the data of the server in this process. Dropping it removes it.
pub(super) struct Workplace {
    folder: TempDir,
    /// Locked while the measurement runs; the kernel unlocks it when the process is killed.
    _lock: File,
}

impl Workplace {
    /// Creates the directory in `parent`, by default in the directory for temporary files.
    pub(super) fn create(parent: Option<&Path>) -> Result<Workplace, CommandError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        let made = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let open = |folder: TempDir| {
            let lock = File::open(folder.path())?;
            // Without locks, as on some network file systems, a later measurement cannot lock it either and leaves it.
            let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
            Ok(Workplace { folder, _lock: lock })
        };
        made.and_then(open).map_err(|error| CommandError::io("create a temporary directory", error))
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the directories that killed measurements of this user left in `parent`, by default the directory for temporary
/// files. Returns those that were removed.
pub(super) fn remove_abandoned(parent: Option<&Path>) -> Vec<PathBuf> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let abandoned = entries.flatten().filter(is_abandoned).map(|entry| entry.path());
    // One that cannot be removed is tried again by the next measurement.
    abandoned.filter(|path| fs::remove_dir_all(path).is_ok()).collect()
}

fn is_abandoned(entry: &DirEntry) -> bool {
    let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
    is_named && is_old_and_own(entry).unwrap_or(false) && is_unlocked(&entry.path())
}

/// Returns `true` for a directory of this user that is not new. Does not follow a link, which another user may have made.
fn is_old_and_own(entry: &DirEntry) -> io::Result<bool> {
    let metadata = entry.metadata()?;
    // A new one may not be locked yet. After a change of the clock, its age is unknown.
    let is_old = metadata.modified()?.elapsed().is_ok_and(|age| age > LEAST_AGE);
    Ok(metadata.is_dir() && metadata.uid() == geteuid().as_raw() && is_old)
}

fn is_unlocked(path: &Path) -> bool {
    File::open(path).is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}

const PREFIX: &str = "ringlift-tune-";
const LEAST_AGE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::*;

    fn age(path: &Path) {
        let long_ago = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(60));
        File::open(path).unwrap().set_times(long_ago).unwrap();
    }

    #[test]
    fn only_directories_of_killed_measurements_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let here = Some(parent.path());
        let running = Workplace::create(here).unwrap();
        let [killed, new, other] = ["ringlift-tune-a", "ringlift-tune-b", "film"].map(|name| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("sample.mp4"), "x").unwrap();
            path
        });
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), parent.path().join("ringlift-tune-link")).unwrap();
        [running.path(), &killed, &other, elsewhere.path()].into_iter().for_each(age);
        assert_eq!(remove_abandoned(here), std::slice::from_ref(&killed));
        assert!(!killed.exists() && running.path().exists() && new.exists() && other.exists());
        assert!(elsewhere.path().exists());
    }
}
