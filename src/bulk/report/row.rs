//! One row of a report.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::format::ReportFormat;
use super::state::RowState;
use crate::bulk::entry::ManifestSource;

/// The columns of a report in CSV, which are the keys in JSON.
pub const COLUMNS: [&str; 18] = [
    "id",
    "path",
    "size",
    "state",
    "video_id",
    "bytes",
    "resent_bytes",
    "chunks",
    "retries",
    "started_at",
    "finished_at",
    "seconds",
    "error_kind",
    "error_slug",
    "http_status",
    "message",
    "advice",
    "host",
];

/// One finished job.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportRow {
    /// The id of the job.
    pub id: String,
    /// The file or the URL; `None` if a line of a manifest could not be read.
    pub source: Option<ManifestSource>,
    /// The length of the file in bytes, if known.
    pub size: Option<u64>,
    /// The state of the job.
    pub state: RowState,
    /// The video, if there is one.
    pub video_id: Option<String>,
    /// The bytes that the service acknowledged.
    pub bytes: u64,
    /// The bytes that were sent again after failures.
    pub resent_bytes: u64,
    /// The number of chunks.
    pub chunks: u32,
    /// The number of attempts that were repetitions.
    pub retries: u32,
    /// The start of the job.
    pub started_at: Option<SystemTime>,
    /// The end of the job.
    pub finished_at: Option<SystemTime>,
    /// The time that the job took, by a clock that does not jump.
    pub elapsed: Option<Duration>,
    /// The name of the error's kind.
    pub error_kind: Option<String>,
    /// The service's name of the error: the last part of the problem's `type`.
    pub error_slug: Option<String>,
    /// The status of the service's answer.
    pub http_status: Option<u16>,
    /// The error in words.
    pub message: Option<String>,
    /// The advice on the error.
    pub advice: Option<String>,
    /// The name of the host that did the job.
    pub host: String,
}

impl ReportRow {
    /// Creates a row without numbers. A relative path should be made absolute first, because the report may be read in
    /// another folder.
    pub fn new(id: impl Into<String>, source: Option<ManifestSource>, state: RowState) -> ReportRow {
        ReportRow {
            id: id.into(),
            source,
            size: None,
            state,
            video_id: None,
            bytes: 0,
            resent_bytes: 0,
            chunks: 0,
            retries: 0,
            started_at: None,
            finished_at: None,
            elapsed: None,
            error_kind: None,
            error_slug: None,
            http_status: None,
            message: None,
            advice: None,
            host: String::new(),
        }
    }

    /// Returns the line of the row with its line end.
    pub fn line(&self, format: ReportFormat) -> Vec<u8> {
        match format {
            ReportFormat::Csv => {
                csv_line(self.values().each_ref().map(CellValue::text).iter().map(String::as_str))
            }
            ReportFormat::JsonLines => {
                // A map of texts and numbers always serializes.
                let mut line = serde_json::to_vec(self).unwrap_or_default();
                line.push(b'\n');
                line
            }
        }
    }

    /// Returns the header's line with its line end; empty for JSON.
    pub fn header(format: ReportFormat) -> Vec<u8> {
        match format {
            ReportFormat::Csv => csv_line(COLUMNS.into_iter()),
            ReportFormat::JsonLines => Vec::new(),
        }
    }

    /// Returns the values in the order of [`COLUMNS`].
    fn values(&self) -> [CellValue; COLUMNS.len()] {
        let seconds = self.elapsed.map(|elapsed| CellValue::Seconds(elapsed.as_secs_f64()));
        [
            // A line of a manifest that could not be read has none.
            if self.id.is_empty() { CellValue::None } else { CellValue::Text(one_line(&self.id)) },
            self.source.as_ref().map_or(CellValue::None, |source| CellValue::Text(source_text(source))),
            self.size.map_or(CellValue::None, CellValue::Number),
            CellValue::Text(self.state.name().to_owned()),
            shown(self.video_id.as_deref()),
            CellValue::Number(self.bytes),
            CellValue::Number(self.resent_bytes),
            CellValue::Number(self.chunks.into()),
            CellValue::Number(self.retries.into()),
            time(self.started_at),
            time(self.finished_at),
            seconds.unwrap_or(CellValue::None),
            shown(self.error_kind.as_deref()),
            shown(self.error_slug.as_deref()),
            self.http_status.map_or(CellValue::None, |status| CellValue::Number(status.into())),
            shown(self.message.as_deref()),
            shown(self.advice.as_deref()),
            shown(Some(&self.host)),
        ]
    }
}

impl Serialize for ReportRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, value) in COLUMNS.into_iter().zip(self.values()) {
            let path = self.source.as_ref().and_then(ManifestSource::path);
            match value {
                CellValue::None => map.serialize_entry(column, &())?,
                CellValue::Number(number) => map.serialize_entry(column, &number)?,
                CellValue::Seconds(seconds) => map.serialize_entry(column, &rounded(seconds))?,
                CellValue::Text(_) if column == "path" && path.is_some() => {
                    let path = path.unwrap_or(Path::new(""));
                    map.serialize_entry(column, &path.to_string_lossy())?;
                    if path.to_str().is_none() {
                        map.serialize_entry("path_bytes", &STANDARD.encode(path.as_os_str().as_bytes()))?;
                    }
                }
                CellValue::Text(text) => map.serialize_entry(column, &text)?,
            }
        }
        map.end()
    }
}

enum CellValue {
    None,
    Text(String),
    Number(u64),
    Seconds(f64),
}

impl CellValue {
    fn text(&self) -> String {
        match self {
            CellValue::None => String::new(),
            CellValue::Text(text) => text.clone(),
            CellValue::Number(number) => number.to_string(),
            CellValue::Seconds(seconds) => rounded(*seconds).to_string(),
        }
    }
}

/// Milliseconds are enough.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn csv_line<'a>(fields: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(fields);
    writer.into_inner().unwrap_or_default()
}

/// Returns the text of a value that is only read by people and programs, never as a manifest.
fn shown(text: Option<&str>) -> CellValue {
    let Some(text) = text else { return CellValue::None };
    let mut text = one_line(text);
    // A spreadsheet would run the text of a server or a host as a formula.
    if text.starts_with(['=', '+', '-', '@']) {
        text.insert(0, '\'');
    }
    CellValue::Text(text)
}

/// A row has to be one line: the end of a row that was cut off is found by line ends.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

fn source_text(source: &ManifestSource) -> String {
    let path = match source {
        ManifestSource::Url(url) => return one_line(url),
        ManifestSource::Path(path) => path,
    };
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => format!("file://{}", percent_encode(path.as_os_str().as_bytes(), IN_FILE_URL)),
    }
}

/// RFC 3339 in UTC with milliseconds.
fn time(time: Option<SystemTime>) -> CellValue {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    let Some(Ok(time)) = time.map(Timestamp::try_from) else { return CellValue::None };
    let mut text = String::new();
    let _ = write!(text, "{}", PRINTER.timestamp_to_string(&time));
    CellValue::Text(text)
}

/// The characters of a path that are written as `%XX` in a URL.
const IN_FILE_URL: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
