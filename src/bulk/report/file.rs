//! The file of a report: appending, locking, and repair after a crash.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::ReportError;
use super::format::ReportFormat;
use super::row::{COLUMNS, ReportRow};

/// A report that rows are appended to.
///
/// Several processes may append to one report: their rows are whole, and in any order. A report that was moved away,
/// such as by log rotation, is continued in a new file at its path.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    format: ReportFormat,
    file: File,
}

impl Report {
    /// Opens the report at `path`, which is created if it is missing. A row that a crash cut off is removed.
    ///
    /// # Errors
    /// If the name gives no format, if the path is no regular file, if the file holds something other than a report,
    /// if another process keeps the lock, or if the file cannot be written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Report, ReportError> {
        let path = path.into();
        match ReportFormat::of(&path) {
            Some(format) => Report::open_as(path, format),
            None => Err(ReportError::UnknownFormat { path }),
        }
    }

    /// Opens the report at `path` as [`Report::open`] does, in a format that is given.
    ///
    /// # Errors
    /// The same as those of [`Report::open`].
    pub fn open_as(path: impl Into<PathBuf>, format: ReportFormat) -> Result<Report, ReportError> {
        let path = path.into();
        let file = open(&path)?;
        let report = Report { path, format, file };
        // Locked first: a row that another process is writing must not be taken for one that a crash cut off.
        let locked = report.lock(LOCK_TIMEOUT)?;
        report.prepare()?;
        drop(locked);
        Ok(report)
    }

    /// Returns the path of the report.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `rows` by one write. They are on disk when this function returns, which blocks.
    ///
    /// # Errors
    /// If the lock cannot be had or the rows cannot be written, none of them is in the report: append them again.
    pub fn append(&mut self, rows: &[ReportRow]) -> Result<(), ReportError> {
        // Before the lock, for which other processes wait.
        let lines: Vec<u8> = rows.iter().flat_map(|row| self.line(row)).collect();
        self.append_lines(&lines, LOCK_TIMEOUT)
    }

    /// Returns a row as a line of this report.
    pub(in crate::bulk) fn line(&self, row: &ReportRow) -> Vec<u8> {
        row.line(self.format)
    }

    /// Appends lines as [`Report::append`] does with rows, and waits for the lock at most for `wait`.
    ///
    /// # Errors
    /// The same as those of [`Report::append`].
    pub(in crate::bulk) fn append_lines(&mut self, lines: &[u8], wait: Duration) -> Result<(), ReportError> {
        if self.is_moved_away() {
            self.file = open(&self.path)?;
        }
        let locked = self.lock(wait)?;
        // Another process may have crashed in the middle of a row.
        let len = self.prepare()?;
        // fdatasync(2) writes the new length too.
        let written = (&self.file).write_all(lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Without this a row cut off by a full disk would spoil the next one.
            let _ = self.file.set_len(len);
            return Err(self.failed("write", error));
        }
        drop(locked);
        Ok(())
    }

    /// Repairs the end of the file, and writes the header if the file is empty. Returns the length.
    fn prepare(&self) -> Result<u64, ReportError> {
        let failed = |doing| move |error| self.failed(doing, error);
        let mut len = self.file.metadata().map_err(failed("read"))?.len();
        if len > 0 {
            self.check_beginning(len)?;
            len = self.repair(len).map_err(failed("repair"))?;
        }
        let header = ReportRow::header(self.format);
        if len == 0 {
            let written = (&self.file).write_all(&header).and_then(|()| self.file.sync_all());
            if let Err(error) = written.and_then(|()| sync_folder(&self.path)) {
                // A header that may not be on the disk must not pass for one: the next run finds an empty file.
                let _ = self.file.set_len(0);
                return Err(self.failed("write", error));
            }
            len = header.len() as u64;
        }
        Ok(len)
    }

    /// Checks that the file is a report, because the end of another file must not be removed.
    fn check_beginning(&self, len: u64) -> Result<(), ReportError> {
        let mut beginning = vec![0; len.min(MOST_ROW_BYTES) as usize];
        self.file.read_exact_at(&mut beginning, 0).map_err(|error| self.failed("read", error))?;
        // A spreadsheet or an editor may have saved the report with a byte order mark.
        let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&beginning);
        let end = memchr::memchr(b'\n', text);
        let first = text[..end.unwrap_or(text.len())].trim_ascii_end();
        let is_report = match self.format {
            ReportFormat::Csv => {
                is_beginning_of(first, ReportRow::header(self.format).trim_ascii_end(), end.is_some())
            }
            // A manifest may begin with an id as well, but it has no states.
            ReportFormat::JsonLines => match serde_json::from_slice::<serde_json::Map<_, _>>(first) {
                Ok(row) => row.get("state").is_some_and(serde_json::Value::is_string),
                // The only row may be one that a crash cut off: its beginning has to fit as far as it goes.
                Err(_) => end.is_none() && is_beginning_of(&first[..first.len().min(6)], b"{\"id\":", false),
            },
        };
        if is_report { Ok(()) } else { Err(ReportError::NotAReport { path: self.path.clone() }) }
    }

    /// Ends the last line, or removes it if it is no whole row. Returns the length.
    fn repair(&self, len: u64) -> io::Result<u64> {
        let mut last = [0];
        self.file.read_exact_at(&mut last, len - 1)?;
        if last == *b"\n" {
            return Ok(len);
        }
        let start = self.start_of_last_line(len)?;
        let mut line = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start))?;
        // A whole row is much shorter.
        file.take(MOST_ROW_BYTES).read_to_end(&mut line)?;
        if start + line.len() as u64 == len && self.is_whole_row(&line, start) {
            (&self.file).write_all(b"\n")?;
            Ok(len + 1)
        } else {
            self.file.set_len(start)?;
            Ok(start)
        }
    }

    fn start_of_last_line(&self, len: u64) -> io::Result<u64> {
        let mut buffer = [0; 4096];
        let mut end = len;
        while end > 0 {
            let start = end.saturating_sub(buffer.len() as u64);
            let piece = &mut buffer[..(end - start) as usize];
            self.file.read_exact_at(piece, start)?;
            if let Some(found) = memchr::memrchr(b'\n', piece) {
                return Ok(start + found as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// Returns `true` if `line` is a row that only lacks its line end: an editor may have removed it.
    fn is_whole_row(&self, line: &[u8], start: u64) -> bool {
        match self.format {
            ReportFormat::Csv if start == 0 => {
                line.ends_with(ReportRow::header(self.format).trim_ascii_end())
            }
            ReportFormat::JsonLines => serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok(),
            ReportFormat::Csv => {
                let mut reader =
                    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line);
                let mut row = csv::ByteRecord::new();
                reader.read_byte_record(&mut row).is_ok() && row.len() == COLUMNS.len()
            }
        }
    }

    /// Locks the report against other processes. Waits for them at most for `wait`.
    fn lock(&self, wait: Duration) -> Result<Option<Lock<'_>>, ReportError> {
        let start = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(Some(Lock(&self.file))),
                Err(TryLockError::WouldBlock) if start.elapsed() < wait => {
                    // The kernel has no lock with a timeout, and a stopped process may hold this one for ever.
                    thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ReportError::Locked { path: self.path.clone(), seconds: wait.as_secs() });
                }
                // Some file systems have no locks: each row is still one write at the end of the file.
                Err(TryLockError::Error(error)) if is_unsupported(&error) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(self.failed("lock", error)),
            }
        }
    }

    fn is_moved_away(&self) -> bool {
        let identity =
            |metadata: io::Result<std::fs::Metadata>| metadata.map(|file| (file.dev(), file.ino())).ok();
        // A path without a file differs as well: the report is then created again.
        identity(self.path.metadata()) != identity(self.file.metadata())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ReportError {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                ReportError::Full { path, source }
            }
            _ => ReportError::Io { path, doing, source },
        }
    }
}

/// Returns `true` if `line` is `expected`, or a beginning of it that a crash cut off.
fn is_beginning_of(line: &[u8], expected: &[u8], is_ended: bool) -> bool {
    if is_ended { line == expected } else { expected.starts_with(line) }
}

/// The lock of a report, which is released on drop.
struct Lock<'a>(&'a File);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Closing the file at the end of the run unlocks it, too.
        let _ = self.0.unlock();
    }
}

fn open(path: &Path) -> Result<File, ReportError> {
    let failed = |source| ReportError::Io { path: path.to_owned(), doing: "open", source };
    // Before the opening, which has effects on some devices.
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => return Err(ReportError::NotRegular { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // O_APPEND, so that rows do not overwrite each other on a file system without locks.
    OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)
}

/// Makes the name of a new file survive a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Network file systems synchronize no folders, and a folder may be writable without being readable.
        Err(error) if is_unsupported(&error) || error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported = [Errno::INVAL, Errno::NOTSUP, Errno::NOSYS, Errno::NOLCK];
    error.raw_os_error().is_some_and(|code| unsupported.iter().any(|errno| errno.raw_os_error() == code))
}

/// Another process holds the lock for one write and one synchronization.
pub(in crate::bulk) const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A path takes up to 12 KiB in a URL, a message a few more.
const MOST_ROW_BYTES: u64 = 1 << 20;
