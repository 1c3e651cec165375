//! Lengths and inode numbers of files, read on a separate thread, because a network file system may never
//! respond.

use std::iter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Metadata of a regular file (stat(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) bytes: u64,
    /// Device and inode.
    pub(super) id: Option<(u64, u64)>,
}

/// Returns the metadata of regular files, in the order of `paths`. Anything else, and a file whose disk does not
/// respond, yields zero bytes and no id; opening the file reports the error later.
pub(super) fn stats(paths: Vec<PathBuf>) -> Vec<Stat> {
    let (paths, mut stats) = (Arc::<[PathBuf]>::from(paths), Vec::new());
    while stats.len() < paths.len() {
        let read = start_thread(paths.clone(), stats.len());
        stats.extend(iter::from_fn(|| read.recv_timeout(STAT_TIMEOUT).ok()));
        if stats.len() < paths.len() {
            // The thread is blocked in the kernel: the next file gets a new one.
            stats.push(Stat::default());
        }
    }
    stats
}

/// Starts a thread that reads the metadata of `paths` from `first` on. All are asked for at once: a wait for each answer
/// would be two switches of threads for each file.
fn start_thread(paths: Arc<[PathBuf]>, first: usize) -> Receiver<Stat> {
    let (results, stats) = channel();
    let read = move || {
        for path in &paths[first..] {
            if results.send(stat(path)).is_err() {
                return;
            }
        }
    };
    // Without the thread every file counts as one whose disk does not respond.
    let _ = thread::Builder::new().name("ringlift-lengths".to_owned()).spawn(read);
    stats
}

fn stat(path: &Path) -> Stat {
    let metadata = path.metadata().ok().filter(|metadata| metadata.is_file());
    let stat = metadata.map(|file| Stat { bytes: file.len(), id: Some((file.dev(), file.ino())) });
    stat.unwrap_or_default()
}

const STAT_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_its_own_metadata_and_anything_else_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "1").unwrap();
        std::fs::write(path("b"), "22").unwrap();
        let found = stats(vec![path("a"), path("missing"), dir.path().to_owned(), path("b"), path("a")]);
        let bytes: Vec<u64> = found.iter().map(|stat| stat.bytes).collect();
        assert_eq!(bytes, [1, 0, 0, 2, 1]);
        assert_eq!(found[0], found[4]);
        assert_ne!(found[0].id, found[3].id);
        assert_eq!((found[1], found[2]), (Stat::default(), Stat::default()));
    }
}
