//! `ringlift jobs report`: the rows of the jobs that have ended.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ringlift::bulk::{JobQuery, JobStore, Report, ReportError, ReportFormat, ReportRow};

use super::{list, wait};
use crate::cli::args::GlobalArgs;
use crate::cli::console::{Console, counted};
use crate::cli::events::{CommandResult, Summary};
use crate::cli::exit::CommandError;
use crate::cli::jobs_args::{JobReportArgs, ReportFormatName};
use crate::cli::store_error::report_error;

pub(super) fn run(args: &JobReportArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let query = list::query(&args.filter)?;
    let format = args.format.map(|format| match format {
        ReportFormatName::Csv => ReportFormat::Csv,
        ReportFormatName::Jsonl => ReportFormat::JsonLines,
    });
    let Some(path) = &args.report else {
        let usual = if console.writes_events() { ReportFormat::JsonLines } else { ReportFormat::Csv };
        let format = format.unwrap_or(usual);
        let (_, store) = super::open(&args.access, global)?;
        console.text(&ReportRow::header(format));
        each_page(&*store, query, |rows| {
            console.text(&rows.iter().flat_map(|row| row.line(format)).collect::<Vec<u8>>());
            Ok(console.output().has_reader())
        })?;
        // No summary: the rows are the whole output.
        return Ok(None);
    };
    let unknown = || ReportError::UnknownFormat { path: path.clone() };
    let format = format
        .or_else(|| ReportFormat::of(path))
        .ok_or_else(unknown)
        .map_err(|error| report_error(&error))?;
    let (_, store) = super::open(&args.access, global)?;
    let rows = write(&*store, query, path, format)?;
    console.note(format_args!("{}: {}", path.display(), counted(rows, "row")));
    Ok(Some(Summary::default()))
}

/// Writes a new file beside `path` and renames it: a reader sees the old report or the whole new one.
fn write(
    store: &dyn JobStore,
    query: JobQuery,
    path: &Path,
    format: ReportFormat,
) -> Result<u64, CommandError> {
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if path.exists() {
        // Refuses a file that is no report.
        Report::open_as(&path, format).map_err(|error| report_error(&error))?;
    }
    let temporary = Temporary::beside(&path);
    // Left by a process that was killed.
    let _ = fs::remove_file(&temporary.0);
    let mut report = Report::open_as(&temporary.0, format).map_err(|error| report_error(&error))?;
    let mut written = 0;
    each_page(store, query, |rows| {
        written += rows.len() as u64;
        report.append(&rows).map_err(|error| report_error(&error))?;
        Ok(true)
    })?;
    let renamed = fs::rename(&temporary.0, &path);
    renamed.map_err(|error| CommandError::io(format!("replace {}", path.display()), error))?;
    Ok(written)
}

/// A file that is removed if it was not renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Temporary {
        let mut name = OsString::from(path);
        name.push(format!(".{}.tmp", std::process::id()));
        Temporary(name.into())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Passes the rows to `take`, a page at a time, until it returns `false`.
fn each_page(
    store: &dyn JobStore,
    mut query: JobQuery,
    mut take: impl FnMut(Vec<ReportRow>) -> Result<bool, CommandError>,
) -> Result<(), CommandError> {
    loop {
        let page = wait(store.list(query.clone()))?;
        let rows: Vec<ReportRow> = page.jobs.iter().filter_map(ReportRow::of_job).collect();
        // A page without ended jobs says nothing about the next one.
        let goes_on = rows.is_empty() || take(rows)?;
        query.after = page.next.filter(|_| goes_on);
        if query.after.is_none() {
            return Ok(());
        }
    }
}
