//! Metrics in a file, for the textfile collector of Prometheus' node exporter.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::error::MetricsFileError;
use super::metrics;
use super::view::RunView;

/// A file that holds the newest metrics of a run.
///
/// Readers see an old file or a new one and never a part of one: the text is written to `FILE.tmp` in the same folder,
/// flushed to the disk and renamed. The file stays when the value is dropped, so that a run that has ended is seen by the
/// next scrape.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    temporary: PathBuf,
    written_at: Option<Instant>,
}

impl MetricsFile {
    /// Prepares writing to `path`, which need not exist. Creates and removes `FILE.tmp` to find out if the folder is
    /// writable.
    ///
    /// # Errors
    /// The path is a link or no regular file, the folder is missing or not writable, or another process writes the file.
    pub fn new(path: impl Into<PathBuf>) -> Result<MetricsFile, MetricsFileError> {
        let path = path.into();
        if path.file_name().is_none() {
            return Err(MetricsFileError::NotAFile { path });
        }
        let mut temporary = OsString::from(&path);
        temporary.push(".tmp");
        let file = MetricsFile { temporary: temporary.into(), path, written_at: None };
        file.check_target()?;
        let _created = file.create_temporary().map_err(|error| file.error(error))?;
        file.remove_temporary();
        Ok(file)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the metrics of `view`, if the last attempt was a second ago or longer. Returns `true` after an attempt.
    ///
    /// Blocks until the text is on the disk.
    ///
    /// # Errors
    /// As for [`MetricsFile::write`].
    pub fn update(&mut self, view: impl FnOnce() -> RunView, now: Instant) -> Result<bool, MetricsFileError> {
        // Failed attempts count too: a full disk is not asked more often than once a second.
        let is_due = self.written_at.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        if is_due {
            self.written_at = Some(now);
            self.write(view())?;
        }
        Ok(is_due)
    }

    /// Writes the metrics of `view` at once, as at the end of a run. Blocks until the text is on the disk.
    ///
    /// # Errors
    /// The file became a link, its folder is gone or not writable, the disk is full, or another process writes the file.
    /// The file keeps its content then.
    pub fn write(&mut self, view: RunView) -> Result<(), MetricsFileError> {
        self.check_target()?;
        let text = metrics::filed(view).map_err(|error| self.error(io::Error::other(error)))?;
        let mut file = self.create_temporary().map_err(|error| self.error(error))?;
        // Flushed before the rename: after a power failure the name could otherwise lead to an empty file.
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&self.temporary, &self.path));
        written.map_err(|error| {
            self.remove_temporary();
            self.error(error)
        })
    }

    fn check_target(&self) -> Result<(), MetricsFileError> {
        // rename(2) would replace a link itself, not the file that it points to.
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_symlink() => {
                Err(MetricsFileError::SymbolicLink { path: self.path.clone() })
            }
            Ok(found) if !found.is_file() => Err(MetricsFileError::NotAFile { path: self.path.clone() }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Creates the temporary file, or takes over the one of a run that was killed. Fails with `WouldBlock` if another
    /// process writes it.
    fn create_temporary(&self) -> io::Result<File> {
        // A loop, because another process may rename the file between opening and locking it. The second attempt then
        // creates a new one.
        for _ in 0..ATTEMPTS {
            // A link would make this process overwrite a file elsewhere.
            let flags =
                // Without NONBLOCK, a FIFO without a reader would hold the call.
                OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            // Readable for all, because the exporter runs as another user.
            let file = File::from(open(&self.temporary, flags, Mode::from_raw_mode(0o644))?);
            // Another error means that the file system has no locks, as some on networks.
            if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let opened = file.metadata()?;
            if !opened.is_file() {
                return Err(io::Error::other(format!("{} is not a regular file", self.temporary.display())));
            }
            let is_same = |found: fs::Metadata| (found.dev(), found.ino()) == (opened.dev(), opened.ino());
            if fs::symlink_metadata(&self.temporary).is_ok_and(is_same) {
                // A run that was killed may have left a longer text.
                file.set_len(0)?;
                return Ok(file);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Removes the temporary file. An error leaves a file that the next attempt takes over.
    fn remove_temporary(&self) {
        let _ = fs::remove_file(&self.temporary);
    }

    fn error(&self, source: io::Error) -> MetricsFileError {
        MetricsFileError::io(self.path.clone(), source)
    }
}

/// The shortest time between two writes. Scrapes are rarer by an order of magnitude.
const INTERVAL: Duration = Duration::from_secs(1);

/// The attempts to lock the temporary file.
const ATTEMPTS: usize = 3;
