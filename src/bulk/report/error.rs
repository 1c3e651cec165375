//! The failures of a report.

use std::io;
use std::path::PathBuf;

/// A report that cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The name of the file gives no format.
    #[error("{}: has no known format; end the name of the report in .jsonl, .ndjson or .csv", .path.display())]
    UnknownFormat {
        /// The path of the report.
        path: PathBuf,
    },
    /// The path is a folder, a pipe or a device.
    #[error("{}: is no regular file; a report is appended to and repaired", .path.display())]
    NotRegular {
        /// The path of the report.
        path: PathBuf,
    },
    /// The file holds something else. It was not changed.
    #[error("{}: exists and is no report of this format; give the report another name", .path.display())]
    NotAReport {
        /// The path of the report.
        path: PathBuf,
    },
    /// Another process held the lock of the report for too long. Temporary.
    #[error(
        "{}: another process has locked the report for {seconds} s; continue or end that process, and try again",
        .path.display()
    )]
    Locked {
        /// The path of the report.
        path: PathBuf,
        /// The time that was waited, in seconds.
        seconds: u64,
    },
    /// The run has ended, and rows of it are not in the report. The job store has the ends of their jobs.
    #[error("{cause}; rows that are not in the report: {rows}")]
    Incomplete {
        /// The number of rows.
        rows: u64,
        /// The cause.
        cause: Box<ReportError>,
    },
    /// The disk or the quota is full. No part of the rows is in the report.
    #[error("{}: no space for the report; free some space: {source}", .path.display())]
    Full {
        /// The path of the report.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The report cannot be opened, read or written.
    #[error("{}: cannot {doing} the report: {source}", .path.display())]
    Io {
        /// The path of the report.
        path: PathBuf,
        /// The operation.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
}
