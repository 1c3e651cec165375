//! Watched folders: a stream of the files that are complete.
//!
//! A file is complete when it rests: its length and its times have not changed for the settle time, and no process has
//! it open for writing. A producer that marks complete files by a file of its own (`film.mp4.done`) needs no settle
//! time. Events of inotify(7) report arrivals. A scan of the whole folder at intervals finds whatever events miss, and
//! replaces them on file systems that have none.
//!
//! Memory: for each file that was returned and is still there 24 bytes (a hash of the path, and one of the length and the
//! time of the last write; at most [`MOST_REMEMBERED`] files), for each folder its path, and about 300 bytes for each
//! file that may still change, of which there are at most [`MOST_PENDING`]: a scan that finds more waits for them.
//!
//! Does not know: jobs, and the fate of the files. A file that is returned again after a restart is the same job.

mod error;
mod event_source;
mod file_system;
mod inotify_source;
mod lock;
mod notice;
mod options;
mod remembered;
mod root;
mod selector;
mod settle;
mod shared;
#[cfg(test)]
mod tests;
mod version;
mod watcher;
mod writer_lease;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

pub use error::WatchError;
pub use notice::{PollReason, WatchNotice};
pub use options::WatchOptions;
pub use remembered::MOST_REMEMBERED;
pub use settle::MOST_PENDING;
pub use shared::{WatchHandle, WatchStatus};

use super::walk::FoundFile;
use event_source::EventSource;
use inotify_source::InotifySource;
use lock::WatchLock;
use root::Root;
use selector::Selector;
use shared::Shared;
use watcher::FolderWatcher;

/// A watch on folders. As an iterator it returns each file once it is complete, and blocks until then; it ends after
/// [`WatchHandle::stop`].
///
/// Each content of a file is returned once while the file stays in its folder: a file with another length or another
/// time of the last write is returned again. Files that cannot be opened are reported and not returned. At most
/// 64 files wait for the reader; a slow reader delays the others and loses none.
///
/// ```no_run
/// use ringlift::bulk::{Watch, WatchOptions};
///
/// let watch = Watch::start(&["/films".into()], WatchOptions::default())?;
/// let handle = watch.handle();
/// for file in watch {
///     println!("{}: {} bytes", file.path.display(), file.stamp.bytes);
///     handle.notices().iter().for_each(|notice| eprintln!("{notice}"));
/// }
/// # Ok::<(), ringlift::bulk::WatchError>(())
/// ```
///
/// Dropping the watch ends its thread, and waits for that at most 2 seconds: a file system that does not respond may
/// hold the thread for longer.
#[derive(Debug)]
pub struct Watch {
    shared: WatchHandle,
    thread: Option<JoinHandle<()>>,
    _locks: Vec<WatchLock>,
}

impl Watch {
    /// Starts to watch `folders`. Blocks while the folders are examined.
    ///
    /// # Errors
    /// If there is no folder, one of them is missing or inside another, another process watches it, or the thread cannot
    /// be started. Folders that vanish later are waited for.
    pub fn start(folders: &[PathBuf], options: WatchOptions) -> Result<Watch, WatchError> {
        let source = InotifySource::new().map(|source| Box::new(source) as Box<dyn EventSource>);
        Watch::start_with(folders, options, source)
    }

    /// Starts a watch with this source of events, or by scans only if the source failed.
    fn start_with(
        folders: &[PathBuf],
        options: WatchOptions,
        source: std::io::Result<Box<dyn EventSource>>,
    ) -> Result<Watch, WatchError> {
        options.check()?;
        let folders = distinct(folders)?;
        let mut locks = Vec::new();
        for (_, folder) in &folders {
            if let Some(store) = &options.lock_beside {
                locks.push(WatchLock::acquire(store, folder)?);
            }
        }
        let roots = folders.into_iter().map(|(path, _)| Root::new(Selector::new(path, &options)));
        let shared = WatchHandle::new(Shared::new().map_err(WatchError::Thread)?);
        let watcher = FolderWatcher::new(roots.collect(), &options, source, shared.shared());
        let ended = shared.shared();
        let thread = std::thread::Builder::new().name("ringlift-watch".to_owned()).spawn(move || {
            // Set by a panic too: a reader must not wait for a thread that is gone.
            let _ended = shared::EndGuard(ended);
            watcher.run();
        });
        Ok(Watch { shared, thread: Some(thread.map_err(WatchError::Thread)?), _locks: locks })
    }

    /// Returns a handle, by which other threads stop this watch and read its notices.
    pub fn handle(&self) -> WatchHandle {
        self.shared.clone()
    }
}

impl Iterator for Watch {
    type Item = FoundFile;

    fn next(&mut self) -> Option<FoundFile> {
        self.shared.next_file()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take()
            && self.shared.wait_for_end()
        {
            // Only after the end, because a join has no timeout.
            let _ = thread.join();
        }
    }
}

/// Returns the folders and their canonical paths, each folder once.
fn distinct(folders: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>, WatchError> {
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for folder in folders {
        let absolute = examine(folder)?;
        if found.iter().any(|(_, known)| *known == absolute) {
            continue;
        }
        // inotify has one watch for a folder, so that its events belong to one path only.
        let nested =
            found.iter().find(|(_, known)| known.starts_with(&absolute) || absolute.starts_with(known));
        if let Some((other, _)) = nested {
            return Err(WatchError::Nested { folder: folder.clone(), other: other.clone() });
        }
        found.push((folder.clone(), absolute));
    }
    if found.is_empty() {
        return Err(WatchError::NoFolder);
    }
    Ok(found)
}

/// Returns the canonical path of a folder.
fn examine(folder: &Path) -> Result<PathBuf, WatchError> {
    let failed = |source| WatchError::Folder { folder: folder.to_owned(), source };
    if !folder.metadata().map_err(failed)?.is_dir() {
        return Err(WatchError::NotAFolder { path: folder.to_owned() });
    }
    std::fs::canonicalize(folder).map_err(failed)
}
