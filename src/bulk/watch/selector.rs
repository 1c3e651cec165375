//! The choice of files of one watched folder, and the looks at them.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::options::WatchOptions;
use super::settle::FileLook;
use super::version::Version;
use super::writer_lease::has_writer;
use crate::bulk::file_stamp::FileStamp;
use crate::bulk::walk::{FoundFile, Walk, WalkError, WalkOptions, WalkStep};

/// The choice of files of one watched folder.
#[derive(Debug)]
pub(super) struct Selector {
    root: PathBuf,
    walk: WalkOptions,
    settle: Option<Duration>,
    done_suffix: Option<OsString>,
    clock: Option<fn() -> SystemTime>,
}

/// The file that marks another one as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoneMark {
    /// Marks are not used, or the mark is older than the last change of its file: the settle time applies.
    None,
    /// The mark does not exist yet.
    Missing,
    Fresh,
}

/// A look at a file.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) look: FileLook,
    /// The file as it was opened.
    pub(super) found: Option<FoundFile>,
    /// The reason why it cannot be opened, unless it is gone.
    pub(super) failure: Option<WalkError>,
}

impl Selector {
    pub(super) fn new(root: PathBuf, options: &WatchOptions) -> Selector {
        let WatchOptions { settle, done_suffix, clock, .. } = options.clone();
        // Sorting reads a whole folder before it can be watched.
        let walk = WalkOptions { is_sorted: false, ..options.walk.clone() };
        Selector { root, walk, settle, done_suffix, clock }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn settle(&self) -> Option<Duration> {
        self.settle
    }

    /// Returns a walk through the whole folder.
    pub(super) fn walk(&self) -> Walk {
        Walk::new(&self.root, self.walk_options())
    }

    /// Returns a walk through one entry, which gives nothing if the entry is not selected.
    pub(super) fn walk_below(&self, path: PathBuf) -> Walk {
        Walk::below(&self.root, path, self.walk_options())
    }

    fn walk_options(&self) -> WalkOptions {
        WalkOptions { now: self.clock.map(|clock| clock()), ..self.walk.clone() }
    }

    /// Returns the file that the mark `path` belongs to; `None` if it is no mark.
    pub(super) fn marked_by(&self, path: &Path) -> Option<PathBuf> {
        let suffix = self.done_suffix.as_ref()?.as_bytes();
        let name = path.file_name()?.as_bytes().strip_suffix(suffix)?;
        (!name.is_empty()).then(|| path.with_file_name(OsString::from_vec(name.to_owned())))
    }

    /// Examines the mark of a file.
    pub(super) fn mark(&self, path: &Path, modified_ns: i128) -> DoneMark {
        let Some(suffix) = &self.done_suffix else { return DoneMark::None };
        let mut mark = path.as_os_str().to_owned();
        mark.push(suffix);
        match Path::new(&mark).symlink_metadata() {
            // A mark of an earlier file with this name says nothing about the new one.
            Ok(mark) if FileStamp::from(&mark).modified_ns < modified_ns => DoneMark::None,
            Ok(_) => DoneMark::Fresh,
            Err(_) => DoneMark::Missing,
        }
    }

    /// Returns the attributes of a file that was found; `None` if it is gone.
    pub(super) fn version(&self, path: &Path) -> Option<Version> {
        let metadata = if self.walk.follow_links { path.metadata() } else { path.symlink_metadata() };
        metadata.ok().as_ref().map(Version::from)
    }

    /// Opens the file, and examines it.
    pub(super) fn look(&self, path: &Path) -> Looked {
        let absent = |failure| Looked { look: FileLook::Absent, found: None, failure };
        let found = match self.walk_below(path.to_owned()).step() {
            Some(WalkStep::File(found)) => found,
            Some(WalkStep::Failed(error @ WalkError::Unreadable { .. })) => return absent(Some(error)),
            _ => return absent(None),
        };
        // Opening makes NFS ask its server for the attributes, which it caches for up to a minute otherwise.
        let opened = self.open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        match opened {
            Ok((file, metadata)) if metadata.is_file() => self.opened(found, &file, &metadata),
            Ok(_) => absent(None),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => absent(None),
                // Another process, such as a file server, has a lease and has to be asked first.
                Some(Errno::AGAIN) => {
                    let version = self.version(path);
                    let look = version.map_or(FileLook::Absent, FileLook::Open);
                    Looked { look, found: None, failure: None }
                }
                _ => absent(Some(WalkError::Unreadable { path: path.to_owned(), source: error })),
            },
        }
    }

    fn opened(&self, found: FoundFile, file: &File, metadata: &Metadata) -> Looked {
        let version = Version::from(metadata);
        let mark = self.mark(&found.path, version.modified_ns);
        let look = if mark == DoneMark::Missing {
            FileLook::Absent
        } else if has_writer(file) {
            FileLook::Open(version)
        } else {
            FileLook::Closed { version, is_marked: mark == DoneMark::Fresh }
        };
        let found = FoundFile { stamp: FileStamp::from(metadata), ..found };
        Looked { look, found: Some(found), failure: None }
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        // Without waiting for a lease's holder, nor for the writer of a FIFO that took the place of the file.
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        if !self.walk.follow_links {
            flags |= OFlags::NOFOLLOW;
        }
        OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
    }
}
