//! Lengths and numbers of files, asked on a thread of its own: a network file system may never answer.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// A regular file, by stat(2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stat {
    pub(super) bytes: u64,
    /// Its device and its inode there.
    pub(super) id: Option<(u64, u64)>,
}

/// Asks for a regular file; without an id and a byte for anything else, and for a file whose disk does not answer.
/// Both are found out when it is opened.
pub(super) fn stat(path: &Path) -> Stat {
    ASKING.with_borrow_mut(|asking| {
        let stat = asking.get_or_insert_with(Asking::start).ask(path);
        if stat.is_none() {
            // It is held by the kernel: the next file is asked for by another thread.
            *asking = None;
        }
        stat.unwrap_or_default()
    })
}

struct Asking {
    paths: Sender<PathBuf>,
    stats: Receiver<Stat>,
}

impl Asking {
    fn start() -> Asking {
        let (paths, asked) = channel::<PathBuf>();
        let (tell, stats) = channel();
        let ask = move || {
            for path in asked {
                let metadata = path.metadata().ok().filter(|metadata| metadata.is_file());
                let stat =
                    metadata.map(|file| Stat { bytes: file.len(), id: Some((file.dev(), file.ino())) });
                if tell.send(stat.unwrap_or_default()).is_err() {
                    return;
                }
            }
        };
        // Without the thread no length is known, as of a disk that does not answer.
        let _ = thread::Builder::new().name("ringlift-lengths".to_owned()).spawn(ask);
        Asking { paths, stats }
    }

    fn ask(&self, path: &Path) -> Option<Stat> {
        self.paths.send(path.to_owned()).ok()?;
        self.stats.recv_timeout(SILENCE).ok()
    }
}

thread_local! {
    static ASKING: RefCell<Option<Asking>> = const { RefCell::new(None) };
}

const SILENCE: Duration = Duration::from_secs(2);
