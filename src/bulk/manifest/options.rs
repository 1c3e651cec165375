//! The options of reading a manifest.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The format of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ManifestFormat {
    /// A JSON object a line.
    JsonLines,
    /// CSV with a header. The separator is a comma; a semicolon or a tab if the header has no comma.
    Csv,
    /// A path a line. A carriage return before the line end is removed, empty lines are ignored.
    Paths,
    /// Paths that end with a NUL, as `find -print0` prints them.
    NulPaths,
}

impl ManifestFormat {
    /// Returns the format by the extension of `path`: `.jsonl`, `.ndjson` or `.csv` in any case.
    pub fn of(path: &Path) -> Option<ManifestFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(ManifestFormat::JsonLines),
            "csv" => Some(ManifestFormat::Csv),
            _ => None,
        }
    }
}

/// The text is not the name of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use jsonl, csv, paths or paths0")]
pub struct UnknownManifestFormat;

impl FromStr for ManifestFormat {
    type Err = UnknownManifestFormat;

    fn from_str(text: &str) -> Result<ManifestFormat, UnknownManifestFormat> {
        match text {
            "jsonl" | "ndjson" => Ok(ManifestFormat::JsonLines),
            "csv" => Ok(ManifestFormat::Csv),
            "paths" => Ok(ManifestFormat::Paths),
            "paths0" => Ok(ManifestFormat::NulPaths),
            _ => Err(UnknownManifestFormat),
        }
    }
}

/// The rows of an earlier report that are jobs again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetryRows {
    /// Rows that did not end well: failed, cancelled, and skipped because of an earlier failure.
    #[default]
    Failed,
    /// Every row.
    All,
}

/// The text is not the name of a choice of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use failed or all")]
pub struct UnknownRetryRows;

impl FromStr for RetryRows {
    type Err = UnknownRetryRows;

    fn from_str(text: &str) -> Result<RetryRows, UnknownRetryRows> {
        match text {
            "failed" => Ok(RetryRows::Failed),
            "all" => Ok(RetryRows::All),
            _ => Err(UnknownRetryRows),
        }
    }
}

/// The options of reading a manifest.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ManifestOptions {
    /// The format; `None` goes by the extension of the file. A reader without a name is read as JSON lines.
    pub format: Option<ManifestFormat>,
    /// The folder of relative paths. `None` is the manifest's folder; for a list of paths and for a reader it is the
    /// working directory.
    pub base: Option<PathBuf>,
    /// The rows of an earlier report that are jobs again.
    pub retry: RetryRows,
}

impl ManifestOptions {
    /// Sets the format.
    #[must_use]
    pub fn format(mut self, format: ManifestFormat) -> ManifestOptions {
        self.format = Some(format);
        self
    }

    /// Sets the folder of relative paths.
    #[must_use]
    pub fn base(mut self, base: impl Into<PathBuf>) -> ManifestOptions {
        self.base = Some(base.into());
        self
    }

    /// Sets the rows of an earlier report that are jobs again.
    #[must_use]
    pub fn retry(mut self, retry: RetryRows) -> ManifestOptions {
        self.retry = retry;
        self
    }
}
