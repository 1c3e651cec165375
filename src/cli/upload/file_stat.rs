//! Lengths and inode numbers of files, read on a separate thread, because a network file system may never
//! respond.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Metadata of a regular file (stat(2)).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stat {
    pub(super) bytes: u64,
    /// Device and inode.
    pub(super) id: Option<(u64, u64)>,
}

/// Returns the metadata of a regular file. Anything else, and a file whose disk does not respond, yields zero
/// bytes and no id; opening the file reports the error later.
pub(super) fn stat(path: &Path) -> Stat {
    STAT_THREAD.with_borrow_mut(|thread| {
        let stat = thread.get_or_insert_with(StatThread::start).ask(path);
        if stat.is_none() {
            // The thread is blocked in the kernel: the next file gets a new one.
            *thread = None;
        }
        stat.unwrap_or_default()
    })
}

struct StatThread {
    paths: Sender<PathBuf>,
    stats: Receiver<Stat>,
}

impl StatThread {
    fn start() -> StatThread {
        let (paths, asked) = channel::<PathBuf>();
        let (results, stats) = channel();
        let ask = move || {
            for path in asked {
                let metadata = path.metadata().ok().filter(|metadata| metadata.is_file());
                let stat =
                    metadata.map(|file| Stat { bytes: file.len(), id: Some((file.dev(), file.ino())) });
                if results.send(stat.unwrap_or_default()).is_err() {
                    return;
                }
            }
        };
        // Without the thread every request fails, as for a disk that does not respond.
        let _ = thread::Builder::new().name("ringlift-lengths".to_owned()).spawn(ask);
        StatThread { paths, stats }
    }

    fn ask(&self, path: &Path) -> Option<Stat> {
        self.paths.send(path.to_owned()).ok()?;
        self.stats.recv_timeout(STAT_TIMEOUT).ok()
    }
}

thread_local! {
    static STAT_THREAD: RefCell<Option<StatThread>> = const { RefCell::new(None) };
}

const STAT_TIMEOUT: Duration = Duration::from_secs(2);
