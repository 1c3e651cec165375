//! The opened file, and whether it is still the one that was opened.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::{Change, SourceError};
use super::file_system::FileSystem;
use crate::extent::Extent;

/// A regular file, opened for reading, with what it was at opening. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SourceFile {
    inner: Arc<OpenedFile>,
    strictness: Strictness,
}

#[derive(Debug)]
struct OpenedFile {
    file: Arc<File>,
    path: PathBuf,
    identity: FileIdentity,
    file_system: FileSystem,
    /// The first change that harmed no byte.
    touched: OnceLock<Change>,
}

/// The changes that count while a file is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Those of its length and of mtime, and another file at its path. The kernel moves mtime with every write.
    #[default]
    Content,
    /// Those of its attributes, its links and its name as well: a program can put mtime back after a write.
    Attributes,
}

/// What makes a file the same file with the same content, as far as the kernel tells (stat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device it lies on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The last write, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The last change of content, attributes or links, in nanoseconds since 1970; cannot be put back.
    pub ctime_ns: i128,
}

impl SourceFile {
    /// Opens a regular file. Never waits for the other end of a pipe.
    ///
    /// # Errors
    /// [`SourceError::NotFound`], [`SourceError::IsDirectory`], [`SourceError::NotAFile`] or
    /// [`SourceError::Unreadable`].
    pub fn open(path: impl Into<PathBuf>) -> Result<SourceFile, SourceError> {
        let path = path.into();
        let unreadable = |path, io| SourceError::Unreadable { path, io };
        let file = match open_with(&path, OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(file) => file,
            Err(error) => return Err(refusal(path, error)),
        };
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(io) => return Err(unreadable(path, io)),
        };
        match metadata.file_type() {
            kind if kind.is_dir() => return Err(SourceError::IsDirectory { path }),
            kind if !kind.is_file() => return Err(SourceError::NotAFile { path }),
            _ => {}
        }
        // O_NONBLOCK was for pipes only; on a file it would make a ring's reads fail with EAGAIN.
        if let Err(errno) = rustix::fs::fcntl_setfl(&file, OFlags::empty()) {
            return Err(unreadable(path, errno.into()));
        }
        let (identity, file_system) = (FileIdentity::of(&metadata), FileSystem::of(&file));
        let inner =
            OpenedFile { file: Arc::new(file), path, identity, file_system, touched: OnceLock::new() };
        Ok(SourceFile { inner: Arc::new(inner), strictness: Strictness::default() })
    }

    /// The same file, with other changes that count.
    pub fn with_strictness(self, strictness: Strictness) -> SourceFile {
        SourceFile { strictness, ..self }
    }

    /// Its length at opening, in bytes.
    #[allow(clippy::len_without_is_empty)] // Whether to upload nothing is for the plan.
    pub fn len(&self) -> u64 {
        self.inner.identity.len
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What it was at opening.
    pub fn identity(&self) -> FileIdentity {
        self.inner.identity
    }

    /// The file system that it lies on.
    pub fn file_system(&self) -> FileSystem {
        self.inner.file_system
    }

    /// The first change of attributes, links or name that a check found and that harmed no byte.
    pub fn touched(&self) -> Option<Change> {
        self.inner.touched.get().copied()
    }

    /// What the open file is now: its ctime may have moved since it was opened.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] when the kernel does not tell.
    pub fn current_identity(&self) -> Result<FileIdentity, SourceError> {
        self.file().metadata().map(|now| FileIdentity::of(&now)).map_err(|io| self.unreadable(io))
    }

    /// The open descriptor.
    pub fn file(&self) -> &Arc<File> {
        &self.inner.file
    }

    /// Asks the kernel whether the open file still has the bytes that it was opened with, and whether its path
    /// leads to another file by now.
    ///
    /// A change that harms no byte is kept for [`SourceFile::touched`], unless the strictness says that it counts. Two
    /// system calls; worth it once a chunk and once at the end.
    ///
    /// # Errors
    /// [`SourceError::Changed`] with what changed; [`SourceError::Unreadable`] when the kernel does not tell.
    pub fn check_unchanged(&self) -> Result<(), SourceError> {
        let now = self.file().metadata().map_err(|io| self.unreadable(io))?;
        let mut change = self.identity().change_to(&FileIdentity::of(&now));
        // Removing or renaming a file touches it too: the path tells the better story.
        if matches!(change, None | Some(Change::Touched)) {
            change = self.change_of_path(&now).or(change);
        }
        match change {
            Some(change) if change.keeps_content() && self.strictness == Strictness::Content => {
                self.inner.touched.get_or_init(|| change);
                Ok(())
            }
            Some(change) => Err(SourceError::Changed { path: self.path().into(), change }),
            None => Ok(()),
        }
    }

    /// Compares with the open file as it is now: overlayfs may give it another number when it copies it up.
    fn change_of_path(&self, open: &Metadata) -> Option<Change> {
        match std::fs::metadata(self.path()) {
            Ok(there) if is_same_file(open, &there) => None,
            // A file system that numbers its files anew may have done so: what can be compared is equal.
            Ok(there) if self.file_system() != FileSystem::Stable && has_same_look(open, &there) => None,
            Ok(_) => Some(Change::Replaced),
            // It cannot be reached by its path any more, and is read by its descriptor.
            Err(_) => Some(Change::Removed),
        }
    }

    /// The same file by a second descriptor that leaves the page cache alone (`O_DIRECT`, open(2)).
    ///
    /// It is opened by the first descriptor (proc_pid_fd(5)), because its path may lead elsewhere by now.
    pub(super) fn open_direct(&self) -> io::Result<File> {
        let flags = OFlags::DIRECT | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.file().as_raw_fd()));
        let file = match open_with(&descriptor, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => open_with(self.path(), flags)?,
            opened => opened?,
        };
        if !is_same_file(&self.file().metadata()?, &file.metadata()?) {
            return Err(Errno::STALE.into());
        }
        rustix::fs::fcntl_setfl(&file, OFlags::DIRECT)?;
        Ok(file)
    }

    /// Refuses what lies past the end as it was at opening.
    pub(super) fn check_extent(&self, extent: Extent) -> Result<(), SourceError> {
        if extent.end() > self.len() {
            return Err(SourceError::PastEnd {
                path: self.path().into(),
                end: extent.end(),
                len: self.len(),
            });
        }
        Ok(())
    }

    /// The error of a read that met the end of the file at `offset`, which lies before its length.
    pub(super) fn unexpected_end_at(&self, offset: u64) -> SourceError {
        self.changed_or(offset, io::ErrorKind::UnexpectedEof.into())
    }

    /// The error of a page at `offset` that a map could not show: cut off, or on a failing disk.
    pub(super) fn missing_page_at(&self, offset: u64) -> SourceError {
        self.changed_or(offset, Errno::IO.into())
    }

    fn changed_or(&self, offset: u64, io: io::Error) -> SourceError {
        self.check_unchanged().err().unwrap_or_else(|| self.read_error(offset, io))
    }

    pub(super) fn read_error(&self, offset: u64, io: io::Error) -> SourceError {
        SourceError::Read { path: self.path().into(), offset, io }
    }

    fn unreadable(&self, io: io::Error) -> SourceError {
        SourceError::Unreadable { path: self.path().into(), io }
    }
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> FileIdentity {
        FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What happened to a file that was `self` and is `now`; `None` when nothing did.
    fn change_to(&self, now: &FileIdentity) -> Option<Change> {
        let (from, to) = (self.len, now.len);
        if to < from {
            Some(Change::Truncated { from, to })
        } else if to > from {
            Some(Change::Grown { from, to })
        } else if self.mtime_ns != now.mtime_ns {
            Some(Change::Rewritten)
        } else if self.ctime_ns != now.ctime_ns {
            Some(Change::Touched)
        } else {
            None
        }
    }
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Returns `true` when two files have the same length and were last written to at the same time.
fn has_same_look(one: &Metadata, other: &Metadata) -> bool {
    let look = |metadata: &Metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    look(one) == look(other)
}

fn open_with(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

fn refusal(path: PathBuf, error: io::Error) -> SourceError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => SourceError::NotFound { path },
        // A socket, or a device with nothing behind it.
        Some(Errno::NXIO | Errno::NODEV) => SourceError::NotAFile { path },
        _ => SourceError::Unreadable { path, io: error },
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests;
