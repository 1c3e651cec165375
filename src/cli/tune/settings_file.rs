//! The config file with the settings that were found.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use ringlift::tune::{PathReport, TuneAdvice};

use super::output_file;
use super::verdict::flag_size;
use crate::cli::exit::CommandError;

/// Fails if the file cannot be created later, also because it exists: a config file has settings of its user.
pub(super) fn check(path: &Path) -> Result<(), CommandError> {
    // Not `exists`, which follows a link: `create_new` refuses also a dangling one.
    if path.symlink_metadata().is_ok() { Err(taken(path)) } else { output_file::check(path) }
}

/// Creates the file. A number of lanes that was not compared with a larger one is left out.
pub(super) fn write(
    path: &Path,
    advice: &TuneAdvice,
    report: &PathReport,
    sentence: &str,
) -> Result<(), CommandError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(path),
        _ => CommandError::io(format!("write {}", path.display()), error),
    };
    // The name may have been taken during the measurement.
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(text(advice, report.more_lanes_unmeasured.is_none(), sentence).as_bytes()).map_err(failed)
}

fn text(advice: &TuneAdvice, is_compared: bool, sentence: &str) -> String {
    let lanes = if is_compared { format!("concurrency = {}\n", advice.lanes) } else { String::new() };
    format!(
        "# Written by `ringlift tune`. {sentence}\n[upload]\n{lanes}chunk-size = \"{}\"\nreader = \"{}\"\n",
        flag_size(advice.chunk_bytes),
        advice.reader
    )
}

fn taken(path: &Path) -> CommandError {
    CommandError::usage(format!("{}: exists already: give --write-config another name", path.display()))
}
