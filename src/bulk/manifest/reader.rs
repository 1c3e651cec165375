//! The reading of manifests.

use std::fs::File;
use std::io::{self, Read};
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::csv_rows::{CsvRows, Row};
use super::error::{LineError, LineFlaw, ManifestError};
use super::line_reader::LineReader;
use super::options::{ManifestFormat, ManifestOptions, RetryRows};
use crate::bulk::entry::{EntryBuilder, EntryFlaw, EntryKeys, ManifestEntry, ManifestSource};
use crate::bulk::path_list;

/// A manifest that is read line by line.
///
/// Ends after the last line, and after a [`LineFlaw::Unreadable`] or [`LineFlaw::Encoding`] or a header that cannot
/// be used. Every other flaw concerns its line only. Reading blocks; memory is bounded by [`MAX_LINE_BYTES`] for each
/// of two buffers, whatever the input.
///
/// [`MAX_LINE_BYTES`]: super::MAX_LINE_BYTES
#[derive(Debug)]
pub struct Manifest {
    lines: LineReader,
    format: ManifestFormat,
    name: Arc<str>,
    base: PathBuf,
    retry: RetryRows,
    csv: CsvRows,
    /// `true` after a row of a report, whose last line may have been cut off by a crash.
    is_report: bool,
    passed_over: u64,
    is_over: bool,
}

/// One job of a manifest, and its line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ManifestLine {
    /// The number of the line in the file, from 1; of the first line if a row has several.
    pub number: u64,
    /// The job. Its path has been resolved against the base.
    pub entry: ManifestEntry,
    /// `true` if the line is a row of an earlier report: it names a job by its id, and has no metadata.
    pub is_reported: bool,
}

impl Manifest {
    /// Opens the manifest at `path`. Blocks while a FIFO has no writer.
    ///
    /// # Errors
    /// If there is no such file, if it is a folder, if it cannot be opened, or if its format is unknown.
    pub fn open(path: &Path, options: &ManifestOptions) -> Result<Manifest, ManifestError> {
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ManifestError::Missing { path: path.to_owned() },
            _ => ManifestError::Unreadable { path: path.to_owned(), source },
        })?;
        // open(2) succeeds for a folder, and only the first read would fail, with EISDIR.
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(ManifestError::Folder { path: path.to_owned() });
        }
        let format = options.format.or_else(|| ManifestFormat::of(path));
        let format = format.ok_or_else(|| ManifestError::UnknownFormat { path: path.to_owned() })?;
        let is_list = matches!(format, ManifestFormat::Paths | ManifestFormat::NulPaths);
        let folder = if is_list { None } else { path.parent() };
        let base = options.base.clone().or_else(|| folder.map(Path::to_owned));
        let name = path.to_string_lossy();
        Ok(Manifest::new(&name, Box::new(file), format, base, options.retry))
    }

    /// Reads a manifest from `input`, which errors call `name`. Relative paths are relative to the working directory.
    pub fn from_reader(name: &str, input: impl Read + Send + 'static, options: &ManifestOptions) -> Manifest {
        let format = options.format.unwrap_or(ManifestFormat::JsonLines);
        Manifest::new(name, Box::new(input), format, options.base.clone(), options.retry)
    }

    fn new(
        name: &str,
        input: Box<dyn Read + Send>,
        format: ManifestFormat,
        base: Option<PathBuf>,
        retry: RetryRows,
    ) -> Manifest {
        let separator = if format == ManifestFormat::NulPaths { 0 } else { b'\n' };
        Manifest {
            lines: LineReader::new(input, separator),
            format,
            name: name.into(),
            base: base.unwrap_or_default(),
            retry,
            csv: CsvRows::default(),
            is_report: false,
            passed_over: 0,
            is_over: false,
        }
    }

    /// Returns the name of the manifest, as errors call it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the number of rows of an earlier report that are not jobs again.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Returns the job of the line that has been read, or `None` if the line gives none.
    fn job(&mut self) -> Result<Option<ManifestLine>, LineFlaw> {
        if self.lines.number() == 1 {
            self.drop_byte_order_mark()?;
        }
        if self.lines.is_too_long() {
            return Err(LineFlaw::TooLong);
        }
        let number = self.lines.number();
        let parsed = match self.format {
            ManifestFormat::JsonLines => self.json(),
            ManifestFormat::Csv => self.csv_row(),
            ManifestFormat::Paths | ManifestFormat::NulPaths => {
                let is_text = self.format == ManifestFormat::Paths;
                let path = path_list::path(self.lines.line(), is_text)?;
                return Ok(path
                    .map(|path| self.line(number, ManifestSource::Path(path), EntryKeys::default(), false)));
            }
        };
        match parsed {
            Ok(Some(builder)) => self.choose(number, builder),
            // A crash cut this row off. Its job is not done, and it is no job of this file.
            Err(_) if self.is_report && !self.lines.is_ended() => Ok(None),
            other => other.map(|_| None),
        }
    }

    fn json(&self) -> Result<Option<EntryBuilder>, LineFlaw> {
        let line = self.lines.line();
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        // Checked first, because serde's error for it gives no position that helps.
        str::from_utf8(line).map_err(|error| LineFlaw::NotUtf8 { byte: error.valid_up_to() + 1 })?;
        Ok(Some(EntryBuilder::from_json(line)?))
    }

    fn csv_row(&mut self) -> Result<Option<EntryBuilder>, LineFlaw> {
        if self.lines.line().iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        match self.csv.read(&mut self.lines)? {
            Row::Header => Ok(None),
            Row::Cells => self.csv.builder().map(Some),
        }
    }

    fn choose(&mut self, number: u64, builder: EntryBuilder) -> Result<Option<ManifestLine>, LineFlaw> {
        let is_reported = builder.state().is_some();
        self.is_report |= is_reported;
        if is_reported && self.retry == RetryRows::Failed && !builder.has_failed() {
            self.passed_over += 1;
            return Ok(None);
        }
        let (source, keys) = match builder.finish() {
            // The row of a line that could not be read. It names no file that could be tried again.
            Err(EntryFlaw::NoSource) if is_reported => {
                self.passed_over += 1;
                return Ok(None);
            }
            finished => finished?,
        };
        Ok(Some(self.line(number, source, keys, is_reported)))
    }

    fn line(&self, number: u64, source: ManifestSource, keys: EntryKeys, is_reported: bool) -> ManifestLine {
        let entry = ManifestEntry::new(source.relative_to(&self.base)).with_keys(keys);
        ManifestLine { number, entry, is_reported }
    }

    fn drop_byte_order_mark(&mut self) -> Result<(), LineFlaw> {
        const OTHERS: [(&[u8], &str); 5] = [
            (b"\xff\xfe", "UTF-16"),
            (b"\xfe\xff", "UTF-16"),
            (b"\x1f\x8b", "compressed by gzip"),
            (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
            (b"PK\x03\x04", "a ZIP archive or a spreadsheet"),
        ];
        // A file name may begin with any bytes, so that NUL-separated paths are taken as they are.
        if self.format == ManifestFormat::NulPaths {
            return Ok(());
        }
        if self.lines.line().starts_with(b"\xef\xbb\xbf") {
            self.lines.drop_front(3);
        }
        match OTHERS.into_iter().find(|(start, _)| self.lines.line().starts_with(start)) {
            Some((_, encoding)) => Err(LineFlaw::Encoding { encoding }),
            None => Ok(()),
        }
    }

    fn error(&self, line: u64, flaw: LineFlaw) -> LineError {
        LineError { file: self.name.clone(), line, flaw }
    }
}

impl Iterator for Manifest {
    type Item = Result<ManifestLine, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            let (line, found) = match self.lines.advance() {
                Ok(true) => (self.lines.number(), self.job()),
                Ok(false) => {
                    self.is_over = true;
                    break;
                }
                Err(error) => (self.lines.number() + 1, Err(LineFlaw::Unreadable(error))),
            };
            match found {
                Ok(None) => {}
                Ok(Some(job)) => return Some(Ok(job)),
                Err(flaw) => {
                    let ends = matches!(flaw, LineFlaw::Unreadable(_) | LineFlaw::Encoding { .. });
                    // Without a header every row would be misread.
                    self.is_over = ends || (self.format == ManifestFormat::Csv && !self.csv.has_header());
                    return Some(Err(self.error(line, flaw)));
                }
            }
        }
        None
    }
}

impl FusedIterator for Manifest {}
