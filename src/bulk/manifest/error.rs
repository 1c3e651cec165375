//! The failures of manifests: of one that cannot be opened, and of one line.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::line_reader::MAX_LINE_BYTES;
use crate::bulk::entry::EntryFlaw;

/// A manifest that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// There is no file at the path.
    #[error("{}: there is no such file", .path.display())]
    Missing {
        /// The path of the manifest.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{}: is a folder; name it as a source to upload the files in it", .path.display())]
    Folder {
        /// The path of the manifest.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error("{}: cannot be opened: {source}", .path.display())]
    Unreadable {
        /// The path of the manifest.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The name of the file gives no format.
    #[error("{}: has no known format; end its name in .jsonl, .ndjson or .csv, or give the format", .path.display())]
    UnknownFormat {
        /// The path of the manifest.
        path: PathBuf,
    },
}

/// A line of a manifest that gives no job. Its text is one line and holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {flaw}")]
#[non_exhaustive]
pub struct LineError {
    /// The name of the manifest.
    pub file: Arc<str>,
    /// The number of the line in the file, from 1; of the first line if a row has several.
    pub line: u64,
    /// The flaw.
    #[source]
    pub flaw: LineFlaw,
}

/// A flaw of one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineFlaw {
    /// The job's description has a flaw.
    #[error(transparent)]
    Entry(#[from] EntryFlaw),
    /// The line is longer than [`MAX_LINE_BYTES`]. The next line is read again.
    #[error("is longer than {MAX_LINE_BYTES} bytes; end each job's line with a line end")]
    TooLong,
    /// The line is not UTF-8.
    #[error("is not UTF-8 from byte {byte} on; save the file as UTF-8, and give such a path in `path_bytes`")]
    NotUtf8 {
        /// The position of the first wrong byte, from 1.
        byte: usize,
    },
    /// A CSV row has another number of fields than the header.
    #[error("has {found} fields, the header has {expected}; put fields with separators into quotation marks")]
    Ragged {
        /// The number of fields of the row.
        found: usize,
        /// The number of fields of the header.
        expected: usize,
    },
    /// A quotation mark of a CSV row is not closed. No row from the line of the error to `last_line` was read.
    #[error("a quotation mark is not closed; close it: no row up to line {last_line} was read")]
    OpenQuote {
        /// The last line of the row.
        last_line: u64,
    },
    /// The CSV header has no column for the source.
    #[error(
        "the header has no column `path`, `path_bytes` or `source_url`; name the columns in the first line"
    )]
    NoSourceColumn,
    /// The file is in another encoding, and is not read further.
    #[error("the file is {encoding}; save it as UTF-8 text")]
    Encoding {
        /// The encoding.
        encoding: &'static str,
    },
    /// The file cannot be read further.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}
