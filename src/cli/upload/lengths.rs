//! Lengths of files, asked on a thread of its own: a network file system may never answer.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// The bytes of a regular file; 0 of anything else, and of a file whose disk does not answer. Both are found out
/// when it is opened.
pub(super) fn len_of(path: &Path) -> u64 {
    ASKING.with_borrow_mut(|asking| {
        let len = asking.get_or_insert_with(Asking::start).ask(path);
        if len.is_none() {
            // It is held by the kernel: the next file is asked for by another thread.
            *asking = None;
        }
        len.unwrap_or(0)
    })
}

struct Asking {
    paths: Sender<PathBuf>,
    lengths: Receiver<u64>,
}

impl Asking {
    fn start() -> Asking {
        let (paths, asked) = channel::<PathBuf>();
        let (tell, lengths) = channel();
        let ask = move || {
            for path in asked {
                let metadata = path.metadata().ok().filter(|metadata| metadata.is_file());
                if tell.send(metadata.map_or(0, |metadata| metadata.len())).is_err() {
                    return;
                }
            }
        };
        // Without the thread no length is known, as of a disk that does not answer.
        let _ = thread::Builder::new().name("ringlift-lengths".to_owned()).spawn(ask);
        Asking { paths, lengths }
    }

    fn ask(&self, path: &Path) -> Option<u64> {
        self.paths.send(path.to_owned()).ok()?;
        self.lengths.recv_timeout(SILENCE).ok()
    }
}

thread_local! {
    static ASKING: RefCell<Option<Asking>> = const { RefCell::new(None) };
}

const SILENCE: Duration = Duration::from_secs(2);
