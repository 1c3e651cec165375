//! Events of folders by inotify(7).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::io::Errno;

use super::event_source::{AddError, EventSource, FolderEvent, FolderId};

/// An inotify instance.
pub(super) struct InotifySource {
    inotify: Inotify,
    descriptors: HashMap<FolderId, WatchDescriptor>,
    buffer: Box<[u8]>,
}

impl InotifySource {
    pub(super) fn new() -> io::Result<InotifySource> {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Ok(InotifySource { inotify: Inotify::init()?, descriptors: HashMap::new(), buffer })
    }
}

impl EventSource for InotifySource {
    fn add(&mut self, folder: &Path) -> Result<FolderId, AddError> {
        // CREATE for folders, and for files that appear as a hard link, which no process closes after writing.
        // Without MODIFY: each write to a film would take a place in the kernel's queue, and CLOSE_WRITE follows.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::CREATE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::EXCL_UNLINK
            | WatchMask::ONLYDIR;
        match self.inotify.watches().add(folder, mask) {
            Ok(descriptor) => {
                let id = FolderId(descriptor.get_watch_descriptor_id());
                self.descriptors.insert(id, descriptor);
                Ok(id)
            }
            Err(error) => Err(match Errno::from_io_error(&error) {
                // inotify_add_watch(2): the limit of watches, or of kernel memory.
                Some(Errno::NOSPC | Errno::NOMEM) => AddError::Limit,
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => AddError::Gone,
                _ => AddError::Other(error),
            }),
        }
    }

    fn remove(&mut self, folder: FolderId) {
        if let Some(descriptor) = self.descriptors.remove(&folder) {
            // Fails if the kernel has removed it with its folder.
            let _ = self.inotify.watches().remove(descriptor);
        }
    }

    fn read(&mut self, events: &mut Vec<FolderEvent>) -> io::Result<()> {
        let read = match self.inotify.read_events(&mut self.buffer) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for event in read {
            let folder = FolderId(event.wd.get_watch_descriptor_id());
            if event.mask.contains(EventMask::IGNORED) {
                self.descriptors.remove(&folder);
            }
            events.extend(translated(event.mask, folder, event.name));
        }
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inotify.as_fd())
    }
}

impl std::fmt::Debug for InotifySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InotifySource").field("folders", &self.descriptors.len()).finish_non_exhaustive()
    }
}

fn translated(mask: EventMask, folder: FolderId, name: Option<&OsStr>) -> Option<FolderEvent> {
    if mask.contains(EventMask::Q_OVERFLOW) {
        return Some(FolderEvent::Overflow);
    }
    if mask.contains(EventMask::IGNORED) {
        return Some(FolderEvent::Unwatched { folder });
    }
    if mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT) {
        return Some(FolderEvent::Gone { folder });
    }
    let name = OsString::from(name?);
    if mask.contains(EventMask::MOVED_FROM) {
        // A file that left is found missing by its next look.
        return mask.contains(EventMask::ISDIR).then_some(FolderEvent::FolderLeft { folder, name });
    }
    Some(FolderEvent::Arrived { folder, name })
}

/// An event has at most 272 bytes, and the kernel writes only whole ones.
const BUFFER_BYTES: usize = 32 * 1024;
