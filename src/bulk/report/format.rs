//! The formats of a report.

use std::path::Path;

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportFormat {
    /// CSV with a header.
    Csv,
    /// A JSON object a line.
    JsonLines,
}

impl ReportFormat {
    /// Returns the format by the extension of `path`: `.csv`, `.jsonl` or `.ndjson` in any case.
    pub fn of(path: &Path) -> Option<ReportFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(ReportFormat::Csv),
            "jsonl" | "ndjson" => Some(ReportFormat::JsonLines),
            _ => None,
        }
    }
}
