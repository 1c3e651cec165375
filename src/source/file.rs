//! An open file, and the check that it has not changed since it was opened.

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

/// A regular file opened for reading, with its identity at opening. Cheap to clone.
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
    /// The first change that kept the content.
    touched: OnceLock<Change>,
}

/// The changes of an open file that count as errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Changes of length or mtime, and another file at the path. The kernel updates mtime with every write.
    #[default]
    Content,
    /// Also changes of attributes, links and name: a program can restore mtime after a write.
    Attributes,
}

/// The properties that identify a file and its content (stat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device number.
    pub device: u64,
    /// The inode number on the device.
    pub inode: u64,
    /// The length in bytes.
    pub len: u64,
    /// The last write, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The last change of content, attributes or links, in nanoseconds since 1970; programs cannot set it.
    pub ctime_ns: i128,
}

impl SourceFile {
    /// Opens a regular file. Does not block on a pipe without a writer.
    ///
    /// # Errors
    /// [`SourceError::NotFound`], [`SourceError::IsDirectory`], [`SourceError::NotAFile`] or
    /// [`SourceError::Unreadable`].
    pub fn open(path: impl Into<PathBuf>) -> Result<SourceFile, SourceError> {
        let path = path.into();
        let unreadable = |path, io| SourceError::Unreadable { path, io };
        // O_NONBLOCK, because opening a FIFO waits for its writer (fifo(7)). O_NOCTTY, because a terminal must not
        // become the controlling one.
        let file = match open_with(&path, OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(file) => file,
            Err(error) => return Err(refusal(path, error)),
        };
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(io) => return Err(unreadable(path, io)),
        };
        // Of the open file: by now the path may lead to another one.
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

    /// Returns the file with another `Strictness`.
    pub fn with_strictness(self, strictness: Strictness) -> SourceFile {
        SourceFile { strictness, ..self }
    }

    /// Returns the length at opening, in bytes.
    #[allow(clippy::len_without_is_empty)] // The plan decides about empty files.
    pub fn len(&self) -> u64 {
        self.inner.identity.len
    }

    /// Returns the path as it was given.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the identity at opening.
    pub fn identity(&self) -> FileIdentity {
        self.inner.identity
    }

    /// Returns the file system of the file.
    pub fn file_system(&self) -> FileSystem {
        self.inner.file_system
    }

    /// Returns the first change of attributes, links or name that a check found and that kept the content.
    pub fn touched(&self) -> Option<Change> {
        self.inner.touched.get().copied()
    }

    /// Returns the open descriptor.
    pub fn file(&self) -> &Arc<File> {
        &self.inner.file
    }

    /// Checks that the open file still has the bytes that it was opened with, and that its path leads to the
    /// same file. Returns the identity that the open file had at the start of the check.
    ///
    /// A change that keeps the content is recorded for [`SourceFile::touched`], unless the strictness counts
    /// it as an error. Costs two system calls, for once per chunk and once at the end.
    ///
    /// # Errors
    /// [`SourceError::Changed`] with the change; [`SourceError::Unreadable`] if fstat(2) fails.
    pub fn check_unchanged(&self) -> Result<FileIdentity, SourceError> {
        let now = self.file().metadata().map_err(|io| self.unreadable(io))?;
        let found = FileIdentity::of(&now);
        let mut change = self.identity().change_to(&found);
        // Removing or renaming a file changes its ctime too; the path gives the more precise reason.
        if matches!(change, None | Some(Change::Touched)) {
            change = self.change_of_path(&now).or(change);
        }
        match change {
            Some(change) if change.keeps_content() && self.strictness == Strictness::Content => {
                self.inner.touched.get_or_init(|| change);
                Ok(found)
            }
            Some(change) => Err(SourceError::Changed { path: self.path().into(), change }),
            None => Ok(found),
        }
    }

    /// Compares the path with the open file as it is now: overlayfs may change its inode number when it
    /// copies the file up.
    fn change_of_path(&self, open: &Metadata) -> Option<Change> {
        // Follows links, as the opening did.
        match std::fs::metadata(self.path()) {
            Ok(there) if is_same_file(open, &there) => None,
            // The file system may have assigned a new inode number: the properties that remain comparable are
            // equal.
            Ok(there) if self.file_system() != FileSystem::Stable && has_same_look(open, &there) => None,
            Ok(_) => Some(Change::Replaced),
            // The path leads nowhere now; the open descriptor still reads the file.
            Err(_) => Some(Change::Removed),
        }
    }

    /// Opens the same file by a second descriptor that bypasses the page cache (`O_DIRECT`, open(2)).
    ///
    /// Opened by way of the first descriptor (proc_pid_fd(5)), because the path may lead to another file by
    /// now.
    pub(super) fn open_direct(&self) -> io::Result<File> {
        let flags = OFlags::DIRECT | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", self.file().as_raw_fd()));
        // /proc may not be mounted, as in a chroot.
        let file = match open_with(&descriptor, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => open_with(self.path(), flags)?,
            opened => opened?,
        };
        if !is_same_file(&self.file().metadata()?, &file.metadata()?) {
            // The way through the path found another file, whose bytes must not reach the video.
            return Err(Errno::STALE.into());
        }
        // Clears O_NONBLOCK, as in `open`.
        rustix::fs::fcntl_setfl(&file, OFlags::DIRECT)?;
        Ok(file)
    }

    /// Checks that the extent lies within the length at opening.
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

    /// Returns the error of a read that reached the end of the file at `offset`, before its length.
    pub(super) fn unexpected_end_at(&self, offset: u64) -> SourceError {
        self.changed_or(offset, io::ErrorKind::UnexpectedEof.into())
    }

    /// Returns the error of a mapped page at `offset` that was missing: truncated, or on a failing disk.
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

    /// Returns the change from `self` to `now`; `None` if there is none.
    fn change_to(&self, now: &FileIdentity) -> Option<Change> {
        let (from, to) = (self.len, now.len);
        // The length first: a write that changes it moves mtime too, and "written to" says less.
        if to < from {
            Some(Change::Truncated { from, to })
        } else if to > from {
            Some(Change::Grown { from, to })
        // A write changes both times (inode(7)), a `chmod` or a new link only the ctime.
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
    // 64 bits of nanoseconds end in 2262: two later times, both clamped, would look equal.
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests;
